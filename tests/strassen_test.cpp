// Convolutions of one pixel by Strassen's product as they ship, beside plain float64 sums: errors, odd extents, ragged
// blocks, special values, programs behind them, and where lower chooses them.
#include "../generators/strassen.h"
#include "codegen.h"
#include "interpret.h"
#include "op_graph.h"
#include "passes.h"
#include "run_kernels.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

struct Shapes {
    int64_t c, h, w, k;
    std::string text() const {
        return std::to_string(c) + " to " + std::to_string(k) + " at " + std::to_string(h) + "x" + std::to_string(w);
    }
};
const std::vector<Shapes> shapes = {
    {2, 2, 2, 2}, {4, 1, 4, 18}, {6, 3, 3, 34}, {16, 5, 5, 16}, {64, 7, 7, 48}, {130, 4, 6, 62}, {256, 3, 4, 128},
};

enum class How { direct, strassen, plain };

// y with a bias, dx of dy with the same weight, and z = relu(y + other): of plain nodes, or of kernels' nodes, in which
// z's sum and relu are a program.
Graph graph_of(const Shapes &s, int64_t lanes, How how) {
    Graph g;
    g.name = "strassen";
    auto parameter = [&](const char *name, const Shape &shape) {
        return g.add1("parameter", {}, {{"name", std::string(name)}, {"shape", shape.dims}});
    };
    const Shape of_y{Shape::batch, s.k, s.h, s.w};
    ValueId x = parameter("x", {Shape::batch, s.c, s.h, s.w}), dy = parameter("dy", of_y);
    ValueId other = parameter("other", of_y), w = parameter("w", {s.k, s.c, 1, 1}), bias = parameter("bias", {s.k});
    const std::string program = "x0=input [n];x1=input [n];t0=add(x0,x1);t1=relu(t0);output t1;";
    ValueId y, z, dx;
    if (how == How::strassen) {
        const Attrs weight{{"flip", false}, {"lanes", lanes}}, flipped{{"flip", true}, {"lanes", lanes}};
        const Attrs conv{{"k", s.k}, {"lanes", lanes}}, back{{"k", s.c}, {"lanes", lanes}};
        Attrs with_program = conv;
        with_program.map["program"] = program;
        ValueId u = g.add1("strassen_weight", {w}, weight);
        y = g.add1("conv2d_strassen", {x, u, bias}, conv);
        z = g.add1("conv2d_strassen", {x, u, bias, other}, with_program);
        dx = g.add1("conv2d_strassen_grad_input", {dy, g.add1("strassen_weight", {w}, flipped)}, back);
    } else {
        const Attrs conv{{"stride", int64_t(1)}, {"padding", int64_t(0)}};
        Attrs back = conv, with_program = conv;
        back.map["h"] = s.h;
        back.map["w"] = s.w;
        with_program.map["program"] = program;
        y = g.add1("conv2d", {x, w, bias}, conv);
        z = how == How::direct ? g.add1("conv2d", {x, w, bias, other}, with_program)
                               : g.add1("relu", {g.add1("add", {y, other})});
        dx = g.add1("conv2d_grad_input", {dy, w}, back);
    }
    g.add("output", {y}, {{"name", std::string("y")}});
    g.add("output", {z}, {{"name", std::string("z")}});
    g.add("output", {dx}, {{"name", std::string("dx")}});
    return g;
}

InterpreterInputs inputs_of(const Shapes &s, int64_t batch) {
    const int64_t plane = s.h * s.w;
    InterpreterInputs inputs;
    inputs.batch = batch;
    inputs.stored["x"] = numbers(1, batch * s.c * plane);
    inputs.stored["dy"] = numbers(2, batch * s.k * plane);
    inputs.stored["w"] = numbers(3, s.k * s.c);
    inputs.stored["bias"] = numbers(4, s.k);
    inputs.stored["other"] = numbers(5, batch * s.k * plane);
    return inputs;
}

double squared_error(const std::vector<double> &found, const std::vector<double> &expected) {
    double sum = 0;
    for (size_t i = 0; i < expected.size(); i++) sum += std::pow(found.at(i) - expected[i], 2);
    return sum;
}

class Strassen : public testing::TestWithParam<std::string> {
protected:
    const int64_t lanes = resolve_target({.target = GetParam()}).lanes;
};

// In units of float32 epsilon: largest difference over largest value.
TEST_P(Strassen, AgreesWithPlainSums) {
    for (const Shapes &s : shapes) {
        KernelGraph kernels(graph_of(s, lanes, How::strassen), {.target = GetParam()});
        for (int64_t batch : {int64_t(1), lanes - 1, 2 * lanes + 1}) {
            SCOPED_TRACE(s.text() + ", batch " + std::to_string(batch));
            const InterpreterInputs inputs = inputs_of(s, batch);
            const TensorMap ours = kernels.run(inputs).outputs,
                            expected = interpret(graph_of(s, lanes, How::plain), inputs).outputs;
            for (const auto &[name, values] : expected) {
                double apart = 0, largest = 0;
                ASSERT_EQ(ours.at(name).size(), values.size());
                for (size_t i = 0; i < values.size(); i++) {
                    apart = std::max(apart, std::fabs(ours.at(name)[i] - values[i]));
                    largest = std::max(largest, std::fabs(values[i]));
                }
                EXPECT_LE(apart / largest * double(1 << 23), 16) << name;
            }
        }
    }
}

TEST_P(Strassen, ErrorIsWithinTheLimitOfDirectSums) {
    double worst = 0;
    for (const Shapes &s : {Shapes{16, 6, 6, 16}, {64, 6, 6, 64}, {256, 6, 6, 64}, {1024, 3, 4, 32}}) {
        const InterpreterInputs inputs = inputs_of(s, lanes);
        const TensorMap expected = interpret(graph_of(s, lanes, How::plain), inputs).outputs;
        const TensorMap ours =
            KernelGraph(graph_of(s, lanes, How::strassen), {.target = GetParam()}).run(inputs).outputs;
        const TensorMap direct =
            KernelGraph(graph_of(s, lanes, How::direct), {.target = GetParam()}).run(inputs).outputs;
        for (const char *name : {"y", "dx"}) {
            const double ratio = std::sqrt(squared_error(ours.at(name), expected.at(name)) /
                                           squared_error(direct.at(name), expected.at(name)));
            EXPECT_GT(ratio, 1) << "seven products of sums are as exact as eight?";
            worst = std::max(worst, ratio);
        }
    }
    EXPECT_LE(worst, 2); // 1.6 is measured; Math::measured allows 4
    std::printf("error, as a multiple of direct convolution's: at most %.2f\n", worst);
}

// A NaN or an infinity must be seen in all that direct convolution lets it reach. (It may spread over a tile's pixels,
// and become NaN; Math::strict keeps it where it is.)
TEST_P(Strassen, SpecialValuesDoNotVanish) {
    const Shapes s{6, 3, 5, 20};
    KernelGraph kernels(graph_of(s, lanes, How::strassen), {.target = GetParam()});
    const Graph plain = graph_of(s, lanes, How::plain);
    for (double special : {std::nan(""), double(INFINITY), -double(INFINITY)})
        for (const char *where : {"x", "dy", "w", "bias"}) {
            InterpreterInputs inputs = inputs_of(s, lanes);
            std::vector<double> &values = inputs.stored[where];
            values[values.size() / 3] = special;
            const TensorMap ours = kernels.run(inputs).outputs, expected = interpret(plain, inputs).outputs;
            size_t reached = 0;
            for (const char *name : {"y", "dx"})
                for (size_t i = 0; i < expected.at(name).size(); i++)
                    if (!std::isfinite(expected.at(name)[i])) {
                        reached++;
                        EXPECT_FALSE(std::isfinite(ours.at(name)[i])) << where << " to " << name << "[" << i << "]";
                    }
            EXPECT_GT(reached, 0u) << where;
        }
}

INSTANTIATE_TEST_SUITE_P(Targets, Strassen, testing::ValuesIn(kernel_targets()),
                         [](const auto &info) { return short_target(info.param); });

std::string lowered(Math math, Mode mode, int channels, int window = 1) {
    Network net("net");
    net.math(math);
    Value x = conv2d(net.input("image", {3, 16, 16}), {.channels = channels, .window = 3, .padding = 1});
    x = conv2d(relu(x), {.channels = channels, .window = window, .padding = window / 2});
    net.classify(linear(flatten(relu(x)), {.units = 10}));
    return print(run_pipeline(net.graph(), {mode, {}, {16, 64, net.math()}}));
}

TEST(StrassenChoice, FollowsTheModelAndMath) {
    const auto strassen = [](const std::string &text) { return text.find("conv2d_strassen(") != std::string::npos; };
    for (Mode mode : {Mode::train, Mode::infer}) {
        EXPECT_TRUE(strassen(lowered(Math::measured, mode, 256)));
        EXPECT_TRUE(strassen(lowered(Math::fast, mode, 256)));
        EXPECT_FALSE(strassen(lowered(Math::strict, mode, 256)));
        EXPECT_FALSE(strassen(lowered(Math::measured, mode, 32))) << "sums would cost more than they save";
        EXPECT_FALSE(strassen(lowered(Math::measured, mode, 255))) << "no halves";
        EXPECT_FALSE(strassen(lowered(Math::measured, mode, 256, 3))) << "Winograd's";
    }
    EXPECT_NE(lowered(Math::measured, Mode::train, 256).find("conv2d_strassen_grad_input("), std::string::npos);
}

// The matrices are Strassen's: each product of a weight's and of an input's quadrant counts where matrices multiply.
TEST(StrassenMatrices, MultiplyQuadrants) {
    for (int y = 0; y < 4; y++)
        for (int w = 0; w < 4; w++)
            for (int x = 0; x < 4; x++) {
                int sum = 0;
                for (size_t p = 0; p < strassen_products; p++)
                    sum += strassen_matrices.output[size_t(y)][p] * strassen_matrices.weight[p][size_t(w)] *
                           strassen_matrices.input[p][size_t(x)];
                EXPECT_EQ(sum, y / 2 == w / 2 && w % 2 == x / 2 && x % 2 == y % 2) << y << " " << w << " " << x;
            }
}

} // namespace
