// The picture of a profile is well-formed and shows what it was given; a machine's roof.
#include "tests/svg_check.h"
#include "tools/profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

using namespace cryolite;

namespace {

Machine machine() { return {1, 100, 0, {{"L1", 1000, 200, 150}, {"L2", 10000, 50, 40}, {"memory", INT64_MAX, 10, 5}}}; }

Profile profile() {
    Profile profile{
        .title = "net & co train, batch 4, 2 threads", .threads = 2, .seconds = 10e-3, .machine = machine()};
    profile.phases = {{0, 4e-3, {{"first", "conv2d c=1 k=<6>", 2, 6e-3, 3e8, 1e3, 3e-3}}},
                      {1,
                       5e-3,
                       {{"second", "pointwise program=x0=input [n,6];", 2, 5e-3, 0, 4e5, 1e-3},
                        {"second", "conv2d c=6", 2, 1e-3, 1e7, 1e3, 2e-3}, // faster than the roof
                        {"third", "tiny", 1, 1e-9, 0, 0, 0}}}};
    return profile;
}

TEST(Machine, TheRoofIsTheSlowerOfArithmeticAndTheLevelThatHoldsTheBytes) {
    Machine m = machine();
    EXPECT_EQ(m.bandwidth(1000), 200);
    EXPECT_EQ(m.bandwidth(1001), 50);
    EXPECT_EQ(m.bandwidth(1e12), 10);
    EXPECT_DOUBLE_EQ(m.least_seconds(100e9, 1000), 1);
    EXPECT_DOUBLE_EQ(m.least_seconds(0, 10e9), 1);
    EXPECT_DOUBLE_EQ(m.least_seconds(50e9, 10e9), 1);
    EXPECT_EQ(Machine().least_seconds(1, 1), 0); // nothing is known
}

TEST(Machine, MergedMeasurementsKeepTheFasterNumbers) {
    Machine m = machine(), other = machine();
    other.fma_gflops = 120;
    other.levels[0].read = 1;
    other.levels[2].triad = 7;
    other.line_ns = 40;
    m.merge(other);
    EXPECT_EQ(m.line_ns, 40);
    other.line_ns = 180;
    m.merge(other);
    EXPECT_EQ(m.line_ns, 40);
    EXPECT_EQ(m.fma_gflops, 120);
    EXPECT_EQ(m.levels[0].read, 200);
    EXPECT_EQ(m.levels[2].triad, 7);
}

TEST(Machine, MeasuresWhatCannotBeNothing) {
    for (int threads : {1, 2}) {
        Machine m = measure_machine(threads);
        EXPECT_EQ(m.threads, threads);
        EXPECT_EQ(m.line_ns > 0, threads > 1);
#if defined(__x86_64__)
        EXPECT_GT(m.fma_gflops, 0);
#endif
        ASSERT_FALSE(m.levels.empty());
        EXPECT_STREQ(m.levels.back().name, "memory");
        EXPECT_EQ(m.levels.back().bytes, INT64_MAX);
        for (size_t i = 0; i < m.levels.size(); i++) {
            EXPECT_TRUE(std::isfinite(m.levels[i].read) && m.levels[i].read > 0);
            EXPECT_TRUE(std::isfinite(m.levels[i].triad) && m.levels[i].triad > 0);
            EXPECT_TRUE(i == 0 || m.levels[i].bytes > m.levels[i - 1].bytes);
        }
    }
}

TEST(Profile, SumsKernelsAndWaiting) {
    Profile p = profile();
    EXPECT_DOUBLE_EQ(p.phases[1].kernel_seconds(), 6e-3 + 1e-9);
    EXPECT_DOUBLE_EQ(p.kernel_seconds(), 12e-3 + 1e-9);
    EXPECT_NEAR(p.waiting_share(), 0.4, 1e-6);
    EXPECT_EQ(p.phases[0].kernels[0].generator(), "conv2d");
    EXPECT_DOUBLE_EQ(p.phases[0].kernels[0].of_roof(), 0.5);
    EXPECT_EQ(KernelTime().of_roof(), 0);
}

TEST(Profile, DrawsEveryKernelThatCanBeSeen) {
    std::string svg = draw_profile(profile());
    expect_well_formed_svg(svg);
    EXPECT_EQ(count(svg, "net &amp; co train, batch 4, 2 threads"), 2u);
    EXPECT_NE(svg.find("conv2d c=1 k=&lt;6&gt;"), std::string::npos);
    EXPECT_NE(svg.find("conv2d 35.0%"), std::string::npos);
    EXPECT_NE(svg.find("pointwise 25.0%"), std::string::npos);
    EXPECT_NE(svg.find("waiting 40.0%"), std::string::npos);
    EXPECT_EQ(count(svg, "<title>phase 0, layer first: 6.0000 ms, 50% of the roof;"), 1u);
    EXPECT_EQ(count(svg, "<title>phase 1, layer third"), 0u); // a nanosecond of 10 ms
    EXPECT_EQ(count(svg, "class=\"bound\""), 2u);
}

// The widths of all pieces add up to the eight rows, whatever wraps.
TEST(Profile, WidthIsTime) {
    Profile p = profile();
    std::string svg = draw_profile(p);
    double light = 0, row = 0;
    for (const Rectangle &r : rectangles(svg)) {
        EXPECT_GE(r.x, 0);
        EXPECT_LE(r.x + r.width, 960);
        if (r.height > 40 && r.height < 100) light += r.width;
    }
    row = 960 - 2 * 32;
    EXPECT_NEAR(light, 8 * row, 1);
}

TEST(Profile, NothingMeasured) {
    expect_well_formed_svg(draw_profile({}));
    expect_well_formed_svg(draw_profile({.title = "t", .seconds = 1, .phases = {{0, 0, {}}, {1, 2, {}}}}));
}

} // namespace
