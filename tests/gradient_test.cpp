// Every gradient against central finite differences, in float64 through the reference interpreter: op by op, then small
// whole networks.
#include "fixture.h"
#include "interpret.h"
#include "networks.h"
#include "op_graph.h"
#include "passes.h"

#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

const PassContext train_context{Mode::train, {}, {16, 256}};

// Every parameter of the graph: what differentiate says, and what the loss does.
void check_gradients(const Graph &graph, InterpreterInputs inputs) {
    Graph differentiated = differentiate(graph, train_context);
    verify(differentiated, "differentiate");
    Interpreted ours = interpret(differentiated, inputs);
    constexpr double eps = 1e-6;
    ASSERT_FALSE(ours.gradients.empty());
    for (const auto &[name, gradient] : ours.gradients) {
        std::vector<double> &values = inputs.stored.at(name);
        ASSERT_EQ(gradient.size(), values.size()) << name;
        for (size_t i = 0; i < values.size(); i++) {
            const double x = values[i];
            values[i] = x + eps;
            double above = interpret(graph, inputs).outputs.at("loss").at(0);
            values[i] = x - eps;
            double below = interpret(graph, inputs).outputs.at("loss").at(0);
            values[i] = x;
            double expected = (above - below) / (2 * eps);
            ASSERT_NEAR(gradient[i], expected, 1e-5 + 1e-3 * std::fabs(expected)) << name << "[" << i << "]";
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Op by op: the cases of the table

TEST(Gradient, OfEveryOpAgreesWithFiniteDifferences) {
    size_t checked = 0;
    for (const OpDef *op : all_ops()) {
        if (!has_gradient(*op)) continue;
        ASSERT_TRUE(op->cases) << op->name << " has a gradient that no case checks";
        for (const Case &c : op->cases()) {
            if (c.large) continue;
            SCOPED_TRACE(case_text(*op, c));
            // Two values a channel normalise to -1 and 1 whatever they are.
            for (int64_t batch : takes_statistics(*op) ? std::vector<int64_t>{3, 7} : std::vector<int64_t>{1, 3}) {
                OpGraph test(*op, c, batch);
                ASSERT_NO_FATAL_FAILURE(check_gradients(test.graph, test.inputs));
                checked++;
            }
        }
    }
    std::printf("%zu gradients of op cases against finite differences\n", checked);
    EXPECT_GT(checked, 100u);
}

// As PyTorch's: nothing for abs at 0, a half for each of two equal operands.
TEST(Gradient, AtKinksAndTies) {
    Graph graph = parse(R"(graph g {
      %0 : f32[3] = parameter() {name="a", shape=[3]}
      %1 : f32[3] = parameter() {name="b", shape=[3]}
      %2 : f32[3] = max(%0, %1)
      %3 : f32[3] = abs(%0)
      %4 : f32[3] = add(%2, %3)
      %5 : f32[1] = sum(%4) {axes=[0]}
      output(%5) {name="loss"}
    })");
    InterpreterInputs inputs;
    inputs.stored = {{"a", {0, 2, -3}}, {"b", {0, 1, -3}}};
    TensorMap gradients = interpret(differentiate(graph, train_context), inputs).gradients;
    EXPECT_EQ(gradients.at("a"), (std::vector<double>{0.5, 2, -0.5}));
    EXPECT_EQ(gradients.at("b"), (std::vector<double>{0.5, 0, 0.5}));
}

TEST(Gradient, ComparisonsAreFlat) {
    Graph graph = parse(R"(graph g {
      %0 : f32[3] = parameter() {name="a", shape=[3]}
      %1 : f32[3] = parameter() {name="b", shape=[3]}
      %2 : f32[3] = greater_equal(%0, %1)
      %3 : f32[3] = mul(%2, %0)
      %4 : f32[3] = add(%3, %1)
      %5 : f32[1] = sum(%4) {axes=[0]}
      %6 : f32[] = reshape(%5) {shape=[]}
      output(%6) {name="loss"}
    })");
    InterpreterInputs inputs;
    inputs.stored = {{"a", {1, 2, 3}}, {"b", {2, 1, 0}}};
    check_gradients(graph, inputs);
}

// ---------------------------------------------------------------------------------------------------------------------
// Whole networks

enum class Norm { built_in, scratch, frozen };

Value normalise(Norm norm, Network &net, Value x) {
    return norm == Norm::scratch ? batch_norm_from_scratch(net, x) : batch_norm(x, {.frozen = norm == Norm::frozen});
}

void check_network(Define define, std::vector<int64_t> image, int64_t batch = 5) {
    auto network = build(define);
    Graph graph = select_mode(network->graph(), train_context);
    InterpreterInputs inputs;
    inputs.batch = batch;
    int64_t elements = batch;
    for (int64_t extent : image) elements *= extent;
    inputs.images = numbers(100, elements);
    for (int64_t i = 0; i < batch; i++) inputs.labels.push_back(double(i % 3));
    for (const Node &node : graph.nodes)
        if (node.op == find_op("parameter") || node.op == find_op("state")) {
            const std::string &name = node.attrs.string("name");
            std::vector<double> &values = inputs.stored[name];
            values = numbers(inputs.stored.size(), graph.shape(node.outputs[0]).elements());
            if (name.find("running_var") != std::string::npos)
                for (double &value : values) value = 0.5 + std::fabs(value);
        }
    check_gradients(graph, inputs);
}

template <Norm norm> void norm_images(Network &net) {
    Value x = conv2d(net.input("image", {2, 7, 7}), {.channels = 3, .window = 2});
    x = avg_pool2d(sigmoid(normalise(norm, net, x)), {.window = 2});
    net.classify(linear(flatten(x), {.units = 3}));
}
template <Norm norm> void norm_features(Network &net) {
    Value x = sigmoid(normalise(norm, net, linear(net.input("image", {5}), {.units = 4})));
    net.classify(linear(x, {.units = 3}));
}
// The gradient of an input goes through the normalization: two of them.
template <Norm norm> void norm_twice(Network &net) {
    Value x =
        tanh(normalise(norm, net, conv2d(net.input("image", {1, 5, 5}), {.channels = 2, .window = 3, .padding = 1})));
    x = normalise(norm, net, conv2d(x, {.channels = 2, .window = 3, .stride = 2}));
    net.classify(linear(flatten(x), {.units = 3}));
}

TEST(BatchNormTraps, T18_GradientOfImages) { check_network(norm_images<Norm::built_in>, {2, 7, 7}); }
TEST(BatchNormTraps, T18_GradientOfFeatures) { check_network(norm_features<Norm::built_in>, {5}); }
TEST(BatchNormTraps, T18_GradientTwice) { check_network(norm_twice<Norm::built_in>, {1, 5, 5}); }
TEST(BatchNormTraps, T18_GradientFromScratchOfImages) { check_network(norm_images<Norm::scratch>, {2, 7, 7}); }
TEST(BatchNormTraps, T18_GradientFromScratchOfFeatures) { check_network(norm_features<Norm::scratch>, {5}); }
TEST(BatchNormTraps, T09_GradientFrozenOfImages) { check_network(norm_images<Norm::frozen>, {2, 7, 7}); }
TEST(BatchNormTraps, T09_GradientFrozenOfFeatures) { check_network(norm_features<Norm::frozen>, {5}); }
TEST(BatchNormTraps, T09_GradientFrozenTwice) { check_network(norm_twice<Norm::frozen>, {1, 5, 5}); }
TEST(BatchNormTraps, T18_GradientFromScratchTwice) { check_network(norm_twice<Norm::scratch>, {1, 5, 5}); }

TEST(GradientOfNetworks, MaxPool) {
    check_network(
        [](Network &net) {
            Value x = relu(conv2d(net.input("image", {2, 6, 6}), {.channels = 3, .window = 3, .padding = 1}));
            net.classify(linear(flatten(max_pool2d(x, {.window = 3, .stride = 2, .padding = 1})), {.units = 3}));
        },
        {2, 6, 6}, 3);
}

TEST(GradientOfNetworks, DropoutOfRateZero) {
    check_network(
        [](Network &net) {
            Value x = dropout(tanh(linear(net.input("image", {4}), {.units = 5})), {.rate = 0});
            net.classify(linear(x, {.units = 3}));
        },
        {4}, 3);
}

// A value with several uses; every function of the language below the layers.
TEST(GradientOfNetworks, ArithmeticAndBranches) {
    check_network(
        [](Network &net) {
            Value x = linear(net.input("image", {4}), {.units = 3});
            Value scale = net.parameter("scale", {1, 3}, ones());
            Value y = exp(x * scale) + square(x) - x / (abs(x) + 2);
            y = y + maximum(x, scale) + minimum(x, 0.25) - sqrt(square(x) + 1) + log(square(x) + 1);
            net.classify(y - reduce_mean(y, {1}) + reduce_sum(x * y, {0}));
        },
        {4}, 3);
}

} // namespace
