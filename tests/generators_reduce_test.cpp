// The generators of sums over a batch, statistics and merges, against plain double loops: ragged batches, large
// offsets, constants, outliers, NaN. Kernels are compiled as shipped: no symbol outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include "generators/schedule.h" // ceil_div

#include <array>
#include <cmath>
#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

struct Moments {
    double mean = 0, m2 = 0;
};

Moments moments_of(const std::vector<float> &values) {
    Moments m;
    for (float value : values) m.mean += value;
    m.mean /= double(values.size());
    for (float value : values) m.m2 += (value - m.mean) * (value - m.mean);
    return m;
}

// Statistics of a ragged batch through both kernels. `value(sample, channel, pixel)`; padding lanes hold NaN.
// tolerance: of the variance, relative to itself.
template <class F>
void check_stats(int c, int h, int w, int batch, const Machine &m, F value, double tolerance = 1e-5) {
    SCOPED_TRACE("stats " + std::to_string(c) + " " + std::to_string(h) + " " + std::to_string(w) + " batch " +
                 std::to_string(batch) + " " + m.target + " " + std::to_string(m.lanes));
    const int v = m.width(), blocks = ceil_div(batch, v), pixels = h * w;
    Parameters parameters{{"c", text(c)}, {"h", text(h)}, {"w", text(w)}, {"lanes", text(v)}};
    LoadedKernel stats("batch_stats", parameters, m.target);
    LoadedKernel merge("batch_stats_merge",
                       {{"c", text(c)}, {"count", text(pixels)}, {"max_batch", text(batch + 5)}, {"lanes", text(v)}},
                       m.target);
    std::vector<std::vector<float>> all(static_cast<size_t>(c));
    Array partial({3, c, blocks + 1}), mean({c}), variance({c});
    partial.fill(NAN);
    for (int b = 0; b < blocks; b++) {
        Array x({v, w, h, c, 1}), part({3, c, 1});
        x.fill(NAN);
        int valid = std::min(v, batch - b * v);
        std::vector<std::vector<float>> block(static_cast<size_t>(c));
        for (int l = 0; l < valid; l++)
            for (int i = 0; i < c; i++)
                for (int p = 0; p < pixels; p++) {
                    float f = float(value(b * v + l, i, p));
                    x[size_t((i * pixels + p) * v + l)] = f;
                    block[size_t(i)].push_back(f);
                    all[size_t(i)].push_back(f);
                }
        void *arguments[] = {&valid, x.buffer(), part.buffer()};
        stats.call(arguments);
        part.expect_guards();
        for (int i = 0; i < c; i++) {
            const Moments e = moments_of(block[size_t(i)]);
            const double count = double(block[size_t(i)].size()), ulp = std::fabs(e.mean) * 1.2e-7;
            ASSERT_NEAR(part.at({0, i, 0}), e.mean, ulp + 1e-6 * std::sqrt(e.m2 / count)) << "channel " << i;
            ASSERT_NEAR(part.at({1, i, 0}), e.m2, tolerance * e.m2) << "channel " << i;
            ASSERT_NEAR(double(part.at({0, i, 0})) + part.at({2, i, 0}), e.mean, 1e-6 * std::sqrt(e.m2 / count));
            for (int moment : {0, 1, 2}) partial.at({moment, i, b}) = part.at({moment, i, 0});
        }
    }
    void *arguments[] = {&batch, partial.buffer(), mean.buffer(), variance.buffer()};
    merge.call(arguments);
    for (int i = 0; i < c; i++) {
        const Moments e = moments_of(all[size_t(i)]);
        const double expected = e.m2 / double(all[size_t(i)].size()), ulp = std::fabs(e.mean) * 1.2e-7;
        ASSERT_NEAR(mean[size_t(i)], e.mean, ulp + 1e-6 * std::sqrt(expected)) << "channel " << i;
        ASSERT_NEAR(variance[size_t(i)], expected, tolerance * expected) << "channel " << i;
    }
    mean.expect_guards();
    variance.expect_guards();
}

double noise(int sample, int channel, int pixel) {
    uint32_t z = uint32_t(sample) * 2654435761u ^ uint32_t(channel) * 40503u ^ uint32_t(pixel) * 2246822519u;
    z = (z ^ (z >> 15)) * 2246822519u;
    z = (z ^ (z >> 13)) * 3266489917u;
    return double(z ^ (z >> 16)) / 4294967296.0 * 2 - 1;
}

TEST(BatchStats, ShapesAndRaggedBatches) {
    const int v = Machine{}.width();
    for (int batch : {1, 2, v - 1, v, v + 1, 2 * v + 1}) check_stats(3, 5, 4, batch, {}, noise);
    for (auto [c, h, w] : {std::array{1, 1, 1},
                           {120, 1, 1},
                           {13, 1, 1},
                           {84, 1, 1},
                           {11, 2, 2},
                           {6, 24, 24},
                           {2, 7, 1},
                           {2, 1, 7},
                           {3, 13, 31}})
        check_stats(c, h, w, v + 3, {}, noise);
    for (const Machine &m : machines()) check_stats(5, 3, 3, 21, m, noise);
}

TEST(BatchStats, LargeOffsets) {
    for (double offset : {1e4, -1e6, 1e8})
        for (auto [c, h] : {std::pair{2, 1}, {9, 1}, {9, 2}, {2, 24}})
            check_stats(c, h, h, 20, {}, [&](int n, int i, int p) { return offset + 100 * noise(n, i, p); });
}

TEST(BatchStats, ConstantsHaveNoVariance) {
    for (double constant : {100.0, 1e7, -3.3e8, 0.1})
        for (auto [c, h] : {std::pair{3, 1}, {9, 1}, {3, 24}}) {
            check_stats(
                c, h, h, 19, {}, [&](int, int, int) { return constant; }, 0);
        }
}

TEST(BatchStats, OutlierAtTheFirstValue) {
    check_stats(1, 24, 24, 16, {}, [](int n, int c, int p) { return n + p == 0 ? 1e8 : 1.3 + noise(n, c, p); });
    check_stats(1, 24, 24, 16, {}, [](int n, int c, int p) { return p / 24 % 4 == 0 ? 0 : 1e4 + noise(n, c, p); });
}

TEST(BatchStats, NanReachesTheResult) {
    const int v = Machine{}.width();
    LoadedKernel stats("batch_stats", {{"c", "1"}, {"h", "8"}, {"w", "8"}});
    for (int place : {0, 5 * 8 * v + 3}) {
        Array x({v, 8, 8, 1, 1}), partial({3, 1, 1});
        x.fill(1);
        x[size_t(place)] = NAN;
        int valid = v;
        void *arguments[] = {&valid, x.buffer(), partial.buffer()};
        stats.call(arguments);
        EXPECT_TRUE(std::isnan(partial[0])) << place;
        EXPECT_TRUE(std::isnan(partial[1])) << place;
    }
}

TEST(SumMerge, Shapes) {
    for (const Machine &m : machines())
        for (int size : {1, 3, 17, 150, 2400})
            for (int mean_count : {0, 7}) {
                const int v = m.width();
                int batch = 2 * v + 1;
                Array partial({size, 4}), out({size});
                std::mt19937 engine(9);
                partial.randomize(engine);
                for (int i = 0; i < size; i++) partial.at({i, 3}) = NAN; // not part of the batch
                std::vector<double> expected(out.size());
                for (int i = 0; i < size; i++)
                    for (int b = 0; b < 3; b++)
                        expected[size_t(i)] += partial.at({i, b}) / (mean_count ? double(batch) * mean_count : 1);
                LoadedKernel kernel(
                    "sum_merge",
                    {{"size", text(size)}, {"max_batch", "100"}, {"mean_count", text(mean_count)}, {"lanes", text(v)}},
                    m.target);
                void *arguments[] = {&batch, partial.buffer(), out.buffer()};
                kernel.call(arguments);
                expect_close(out, expected, 1e-7);
            }
}

} // namespace
} // namespace cryolite::testing
