// Winograd convolutions as they ship beside plain float64 sums: every tile and window, borders, clipped tiles, odd
// channel counts, ragged blocks, special values, and what the author's Math allows.
#include "../generators/winograd.h"
#include "codegen.h"
#include "interpret.h"
#include "op_graph.h"
#include "passes.h"
#include "run_kernels.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <regex>

using namespace cryolite;
using namespace cryolite::test;

namespace {

struct Shapes {
    int c, h, w, k, r, padding, m;
    std::string text() const {
        return "F(" + std::to_string(m) + ", " + std::to_string(r) + ") " + std::to_string(c) + " to " +
               std::to_string(k) + " at " + std::to_string(h) + "x" + std::to_string(w) + " padding " +
               std::to_string(padding);
    }
};
const std::vector<Shapes> shapes = {
    {1, 1, 1, 1, 3, 1, 4},   {3, 4, 4, 5, 3, 1, 4},  {7, 7, 7, 13, 3, 1, 4},  {5, 14, 14, 3, 3, 1, 4},
    {2, 3, 9, 3, 3, 0, 4},   {3, 5, 6, 2, 3, 2, 4},  {17, 8, 8, 31, 3, 1, 4}, {64, 8, 8, 64, 3, 1, 4},
    {9, 6, 6, 17, 3, 1, 3},  {3, 3, 3, 5, 3, 1, 3},  {2, 7, 10, 3, 3, 0, 3},  {4, 5, 4, 2, 3, 2, 3},
    {1, 3, 3, 2, 3, 0, 2},   {5, 7, 8, 11, 3, 1, 2}, {33, 4, 4, 20, 3, 1, 2}, {6, 12, 12, 16, 5, 0, 2},
    {3, 14, 14, 4, 5, 2, 2}, {2, 5, 5, 3, 5, 4, 2},  {4, 9, 7, 5, 5, 2, 4},   {13, 16, 16, 24, 5, 2, 4},
};

// y, dx (of dy with the same weight) and dw; in Winograd's nodes, or in plain ones.
Graph graph_of(const Shapes &s, int64_t lanes, bool winograd) {
    Graph g;
    g.name = "winograd";
    const int64_t ho = s.h + 2 * s.padding - s.r + 1, wo = s.w + 2 * s.padding - s.r + 1;
    auto parameter = [&](const char *name, const Shape &shape) {
        return g.add1("parameter", {}, {{"name", std::string(name)}, {"shape", shape.dims}});
    };
    ValueId x = parameter("x", {Shape::batch, s.c, s.h, s.w}), dy = parameter("dy", {Shape::batch, s.k, ho, wo});
    ValueId w = parameter("w", {s.k, s.c, s.r, s.r}), bias = parameter("bias", {s.k});
    ValueId y, dx, spread, dw; // spread: dx again, made of tiles of dy
    const Attrs conv{{"stride", int64_t(1)}, {"padding", int64_t(s.padding)}};
    if (winograd) {
        auto attrs = [&](const WinogradConv &q) {
            Attrs result{{"k", int64_t(q.k)},
                         {"r", int64_t(q.r)},
                         {"m", int64_t(q.m)},
                         {"padding", int64_t(q.padding)},
                         {"lanes", lanes}};
            if (q.spread) result.map["spread"] = true;
            return result;
        };
        auto transformed = [&](const WinogradConv &q, bool flip) {
            const WinogradConv::Schedule t = q.schedule();
            return g.add1("winograd_weight", {w},
                          {{"m", int64_t(q.m)},
                           {"flip", flip},
                           {"tile_k", int64_t(t.tile_k)},
                           {"u_c", int64_t(t.u_c)},
                           {"channel_tiles", int64_t(t.channel_tiles)},
                           {"channel_blocks", int64_t(t.channel_blocks)}});
        };
        const WinogradConv q{int(lanes), s.c, s.h, s.w, s.k, s.r, s.padding, s.m};
        const WinogradConv back{int(lanes), s.k, int(ho), int(wo), s.c, s.r, s.r - 1 - s.padding, s.m};
        y = g.add1("conv2d_winograd", {x, transformed(q, false), bias}, attrs(q));
        WinogradConv tiles_of_dy = back;
        tiles_of_dy.spread = true;
        dx = g.add1("conv2d_winograd_grad_input", {dy, transformed(back, true)}, attrs(back));
        spread = g.add1("conv2d_winograd_grad_input", {dy, transformed(tiles_of_dy, true)}, attrs(tiles_of_dy));
        dw = g.add1("conv2d_winograd_grad_weight", {x, dy},
                    {{"r", int64_t(s.r)}, {"m", int64_t(s.m)}, {"padding", int64_t(s.padding)}});
    } else {
        Attrs input = conv, weight = conv;
        input.map["h"] = int64_t(s.h);
        input.map["w"] = int64_t(s.w);
        weight.map["r"] = weight.map["s"] = int64_t(s.r);
        y = g.add1("conv2d", {x, w, bias}, conv);
        dx = spread = g.add1("conv2d_grad_input", {dy, w}, input);
        dw = g.add1("conv2d_grad_weight", {x, dy}, weight);
    }
    g.add("output", {y}, {{"name", std::string("y")}});
    g.add("output", {dx}, {{"name", std::string("dx")}});
    g.add("output", {spread}, {{"name", std::string("spread")}});
    g.add("output", {dw}, {{"name", std::string("dw")}});
    return g;
}

InterpreterInputs inputs_of(const Shapes &s, int64_t batch) {
    const int64_t outputs = int64_t(s.h + 2 * s.padding - s.r + 1) * (s.w + 2 * s.padding - s.r + 1);
    InterpreterInputs inputs;
    inputs.batch = batch;
    inputs.stored["x"] = numbers(1, batch * s.c * s.h * s.w);
    inputs.stored["dy"] = numbers(2, batch * s.k * outputs);
    inputs.stored["w"] = numbers(3, int64_t(s.k) * s.c * s.r * s.r);
    inputs.stored["bias"] = numbers(4, s.k);
    return inputs;
}

class Winograd : public testing::TestWithParam<std::string> {};

// In units of float32 epsilon: largest difference over largest value.
TEST_P(Winograd, AgreesWithPlainSums) {
    const int64_t lanes = resolve_target({.target = GetParam()}).lanes;
    for (const Shapes &s : shapes) {
        KernelGraph kernels(graph_of(s, lanes, true), {.target = GetParam()});
        const double tolerance = s.r == 5 && s.m == 4 ? 256 : 64;
        for (int64_t batch : {int64_t(1), lanes - 1, lanes, 2 * lanes + 1}) {
            SCOPED_TRACE(s.text() + ", batch " + std::to_string(batch));
            const InterpreterInputs inputs = inputs_of(s, batch);
            const TensorMap ours = kernels.run(inputs).outputs,
                            expected = interpret(graph_of(s, lanes, false), inputs).outputs;
            for (const auto &[name, values] : expected) {
                double apart = 0, largest = 0;
                ASSERT_EQ(ours.at(name).size(), values.size());
                for (size_t i = 0; i < values.size(); i++) {
                    ASSERT_FALSE(std::isnan(ours.at(name)[i])) << name << "[" << i << "]";
                    apart = std::max(apart, std::fabs(ours.at(name)[i] - values[i]));
                    largest = std::max(largest, std::fabs(values[i]));
                }
                EXPECT_LE(apart / largest * double(1 << 23), tolerance) << name;
            }
        }
    }
}

// A NaN or an infinity anywhere in a tile must be seen in all that direct convolution lets it reach. (Winograd's may
// spread it over the tile, and make NaN of infinity; Math::strict does not.)
TEST_P(Winograd, SpecialValuesDoNotVanish) {
    const int64_t lanes = resolve_target({.target = GetParam()}).lanes;
    const Shapes s{3, 7, 9, 4, 3, 1, 4};
    KernelGraph kernels(graph_of(s, lanes, true), {.target = GetParam()});
    const Graph plain = graph_of(s, lanes, false);
    for (double special : {std::nan(""), double(INFINITY), -double(INFINITY)})
        for (const char *where : {"x", "dy", "w", "bias"}) {
            InterpreterInputs inputs = inputs_of(s, lanes);
            std::vector<double> &values = inputs.stored[where];
            values[values.size() / 3] = special;
            const TensorMap ours = kernels.run(inputs).outputs, expected = interpret(plain, inputs).outputs;
            size_t reached = 0;
            for (const auto &[name, results] : expected)
                for (size_t i = 0; i < results.size(); i++)
                    if (!std::isfinite(results[i])) {
                        reached++;
                        EXPECT_FALSE(std::isfinite(ours.at(name)[i])) << where << " to " << name << "[" << i << "]";
                    }
            EXPECT_GT(reached, 0u) << where;
        }
}

INSTANTIATE_TEST_SUITE_P(Targets, Winograd, testing::ValuesIn(kernel_targets()),
                         [](const auto &info) { return short_target(info.param); });

std::string lowered(Math math, Mode mode) {
    Network net("net");
    net.math(math);
    Value x = conv2d(net.input("image", {3, 16, 16}), {.channels = 64, .window = 3, .padding = 1});
    x = conv2d(relu(x), {.channels = 64, .window = 3, .padding = 1});
    x = conv2d(relu(x), {.channels = 64, .window = 5, .padding = 2});
    net.classify(linear(flatten(x), {.units = 10}));
    return print(run_pipeline(net.graph(), {mode, {}, {8, 64, net.math()}}));
}

TEST(Math, ChoosesTheAlgorithm) {
    for (Mode mode : {Mode::train, Mode::infer}) {
        EXPECT_EQ(lowered(Math::strict, mode).find("winograd_weight("), std::string::npos);
        EXPECT_NE(lowered(Math::measured, mode).find("conv2d_winograd("), std::string::npos);
        EXPECT_NE(lowered(Math::fast, mode).find("conv2d_winograd("), std::string::npos);
    }
    EXPECT_NE(lowered(Math::measured, Mode::train).find("conv2d_winograd_grad_input("), std::string::npos);
    EXPECT_NE(lowered(Math::measured, Mode::train).find("conv2d_winograd_grad_weight("), std::string::npos);
    // F(4, 5)'s error is beyond the limit.
    const std::regex four_of_five("conv2d_winograd\\(.*m=4.* r=5");
    EXPECT_FALSE(std::regex_search(lowered(Math::measured, Mode::infer), four_of_five));
    EXPECT_TRUE(std::regex_search(lowered(Math::fast, Mode::infer), four_of_five));
}

TEST(Math, ErrorsAreMeasuredAndWithinTheLimit) {
    for (WinogradUse use : {WinogradUse::forward, WinogradUse::grad_weight}) {
        for (int m : {2, 3, 4}) {
            EXPECT_GT(winograd_error(m, 3, use), 0);
            EXPECT_LE(winograd_error(m, 3, use), winograd_error_limit) << m;
        }
        EXPECT_GT(winograd_error(4, 5, use), winograd_error_limit);
    }
    EXPECT_LE(winograd_error(2, 5, WinogradUse::forward), winograd_error_limit);
    EXPECT_GT(winograd_error(2, 5, WinogradUse::grad_weight), winograd_error_limit);
    EXPECT_EQ(winograd_error(4, 7, WinogradUse::forward), 0); // not measured, not chosen
}

} // namespace
