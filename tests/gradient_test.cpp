// Every gradient against central finite differences, in float64 through the reference interpreter: op by op, then small
// whole networks.
#include "fixture.h"
#include "interpret.h"
#include "networks.h"
#include "passes.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr int64_t n = Shape::batch;
const PassContext train_context{Mode::train, {}, {16, 256}};

std::vector<double> numbers(uint64_t seed, int64_t count, double low = -1, double high = 1) {
    std::vector<double> result;
    for (float x : deterministic(seed, size_t(count), 1)) result.push_back(low + (high - low) * (double(x) + 1) / 2);
    return result;
}

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
// Op by op

struct OpCase {
    const char *op;
    std::vector<Shape> inputs; // all of them differentiated; a label is added where the op takes one
    Attrs attrs = {};
    double low = -1, high = 1; // of the inputs
};

Attrs window(int64_t window, int64_t stride, int64_t padding) {
    return {{"window", window}, {"stride", stride}, {"padding", padding}};
}
Attrs conv(int64_t stride, int64_t padding) { return {{"stride", stride}, {"padding", padding}}; }
Attrs axes(std::vector<int64_t> list) { return {{"axes", std::move(list)}}; }
Attrs shape(std::vector<int64_t> list) { return {{"shape", std::move(list)}}; }

std::vector<OpCase> all_cases() {
    const Attrs eps{{"eps", 1e-5}};
    std::vector<OpCase> cases = {
        {"broadcast", {{1, 3, 1, 1}}, shape({n, 3, 2, 5})},
        {"broadcast", {Shape{}}, shape({n, 3})},
        {"broadcast", {{n, 1}}, shape({n, 7})},
        {"batch_norm_train", {{n, 3}, {3}, {3}}, eps},
        {"batch_norm_train", {{n, 1}, {1, 1}, {1, 1}}, eps},
        {"batch_norm_train", {{n, 3, 2, 5}, {3}, {3}}, eps},
        {"batch_norm_train", {{n, 2, 1, 1}, {1, 2, 1, 1}, {1, 2, 1, 1}}, eps},
        {"batch_norm_train", {{n, 1, 3, 3}, {1}, {1}}, eps},
        {"conv2d", {{n, 2, 5, 5}, {3, 2, 5, 5}, {3}}, conv(1, 0)}, // window = input
        {"conv2d", {{n, 1, 7, 5}, {2, 1, 2, 2}, {2}}, conv(3, 0)}, // stride > window
        {"conv2d", {{n, 3, 4, 4}, {2, 3, 3, 3}}, conv(1, 1)},
        {"conv2d", {{n, 2, 5, 7}, {3, 2, 3, 3}, {3}}, conv(2, 2)},
        {"conv2d", {{n, 3, 1, 1}, {2, 3, 1, 1}, {2}}, conv(1, 0)},
        {"conv2d", {{n, 1, 1, 1}, {1, 1, 3, 3}}, conv(1, 1)}, // more padding than image
        {"conv2d", {{n, 2, 4, 5}, {2, 2, 1, 3}}, conv(1, 0)}, // window not square
        {"linear", {{n, 5}, {3, 5}, {3}}},
        {"linear", {{n, 1}, {1, 1}}},
        {"linear", {{n, 7}, {1, 7}, {1}}},
        {"mask", {{n, 3}}},
        {"mean", {{n, 3, 2, 5}}, axes({0, 2, 3})},
        {"mean", {{n, 3, 2, 5}}, axes({2, 3})},
        {"mean", {{n, 3}}, axes({0})},
        {"mean", {{n}}, axes({0})},
        {"mean", {{2, 5}}, axes({0})},
        {"reshape", {{n, 3, 2, 5}}, shape({n, 30})},
        {"reshape", {{3, 1}}, shape({3})},
        {"softmax", {{n, 5}}, {}, -3, 3},
        {"softmax", {{n, 1}}},
        {"softmax_cross_entropy", {{n, 7}}, {}, -3, 3},
        {"softmax_cross_entropy", {{n, 2}}},
        {"sum", {{n, 3, 2, 5}}, axes({0, 1, 2, 3})},
        {"sum", {{n, 3, 2, 5}}, axes({1})},
        {"sum", {{n, 3}}, axes({1})},
        {"sum", {{n, 3}}, axes({0})},
    };
    for (const char *op : {"abs", "exp", "neg", "relu", "sigmoid", "square", "tanh"})
        for (const Shape &x : {Shape{n, 3, 2, 1}, Shape{7}, Shape{}}) cases.push_back({op, {x}, {}, -2, 2});
    for (const char *op : {"log", "reciprocal", "rsqrt", "sqrt"})
        for (const Shape &x : {Shape{n, 3, 2, 1}, Shape{7}, Shape{}}) cases.push_back({op, {x}, {}, 0.5, 2});
    const std::vector<std::vector<Shape>> pairs = {
        {{n, 3, 2, 5}, {n, 3, 2, 5}},
        {{n, 3, 2, 5}, {1, 3, 1, 1}},
        {{1, 3, 1, 1}, {n, 3, 2, 5}},
        {{n, 1}, {1, 5}},
        {{n, 3}, Shape{}},
        {Shape{}, {n, 3}},
        {Shape{}, Shape{}},
        {{7}, {1}},
    };
    for (const char *op : {"add", "div", "max", "min", "mul", "sub"})
        for (const std::vector<Shape> &pair : pairs) cases.push_back({op, pair, {}, 0.5, 2});
    for (const char *op : {"avg_pool2d", "max_pool2d"}) {
        cases.push_back({op, {{n, 2, 5, 5}}, window(5, 5, 0)}); // window = input
        cases.push_back({op, {{n, 1, 7, 5}}, window(2, 3, 0)}); // stride > window
        cases.push_back({op, {{n, 2, 5, 7}}, window(3, 2, 1)}); // overlap, padding
        cases.push_back({op, {{n, 3, 4, 4}}, window(3, 1, 1)});
        cases.push_back({op, {{n, 3, 1, 1}}, window(1, 1, 0)});
        cases.push_back({op, {{n, 1, 1, 1}}, window(2, 2, 1)}); // more padding than image
        cases.push_back({op, {{n, 1, 5, 5}}, window(2, 2, 0)}); // a rest that no window sees
    }
    return cases;
}

std::string text(const OpCase &c) {
    std::string result = c.op;
    for (const Shape &s : c.inputs) result += " " + s.text();
    return result;
}

// x -> op -> sum of results times fixed weights: every element of the result counts, none like another.
struct OpGraph {
    Graph graph;
    InterpreterInputs inputs;

    OpGraph(const OpCase &c, int64_t batch) {
        inputs.batch = batch;
        std::vector<ValueId> operands;
        for (size_t i = 0; i < c.inputs.size(); i++)
            operands.push_back(stored("parameter", "x" + std::to_string(i), c.inputs[i], c.low, c.high));
        ValueId y = graph.add(c.op, complete(c, operands), c.attrs, "op").at(0);
        ValueId weights = stored("state", "weights", graph.shape(y), -1, 1);
        ValueId loss = graph.add1("mul", {y, weights});
        std::vector<int64_t> all;
        for (int i = 0; i < graph.shape(loss).rank(); i++) all.push_back(i);
        if (!all.empty()) loss = graph.add1("sum", {loss}, axes(all));
        loss = graph.add1("reshape", {loss}, shape({}));
        graph.add("output", {loss}, {{"name", std::string("loss")}});
    }

    ValueId stored(const char *op, const std::string &name, const Shape &of, double low, double high) {
        int64_t count = of.elements() * (of.batched() ? inputs.batch : 1);
        inputs.stored[name] = numbers(inputs.stored.size() + 1, count, low, high);
        return graph.add1(op, {}, {{"name", name}, {"shape", of.dims}});
    }

    // What ops take beside what is differentiated.
    std::vector<ValueId> complete(const OpCase &c, std::vector<ValueId> operands) {
        if (c.op == std::string("softmax_cross_entropy")) {
            operands.push_back(graph.add1("label", {}));
            for (int64_t i = 0; i < inputs.batch; i++) inputs.labels.push_back(double(i * 5 % c.inputs[0][1]));
        } else if (c.op == std::string("batch_norm_train")) {
            for (ValueId v : graph.add("batch_stats", {operands[0]})) operands.push_back(v);
        }
        return operands;
    }
};

TEST(Gradient, OfEveryOpAgreesWithFiniteDifferences) {
    for (const OpCase &c : all_cases()) {
        SCOPED_TRACE(text(c));
        // Two values a channel normalise to -1 and 1 whatever they are.
        bool norm = c.op == std::string("batch_norm_train");
        for (int64_t batch : norm ? std::vector<int64_t>{3, 7} : std::vector<int64_t>{1, 3}) {
            OpGraph test(c, batch);
            check_gradients(test.graph, test.inputs);
        }
    }
}

TEST(Gradient, EveryDifferentiableOpHasACase) {
    std::set<std::string> covered{"greater_equal"}; // flat: a test of its own
    for (const OpCase &c : all_cases()) covered.insert(c.op);
    size_t differentiable = 0;
    for (const OpDef *op : all_ops()) {
        if (!op->gradient) continue;
        differentiable++;
        EXPECT_TRUE(covered.count(op->name)) << op->name << " has a gradient that no case checks";
    }
    EXPECT_EQ(covered.size(), differentiable) << "a case of an op without gradient";
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

struct Norm {
    bool scratch;
    Value operator()(Network &net, Value x) const {
        return scratch ? batch_norm_from_scratch(net, x) : batch_norm(x, {});
    }
};

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
        if (node.op == find_op("parameter"))
            inputs.stored[node.attrs.string("name")] =
                numbers(inputs.stored.size() + 1, graph.shape(node.outputs[0]).elements());
    check_gradients(graph, inputs);
}

template <bool scratch> void norm_images(Network &net) {
    Norm norm{scratch};
    Value x = conv2d(net.input("image", {2, 7, 7}), {.channels = 3, .window = 2});
    x = avg_pool2d(sigmoid(norm(net, x)), {.window = 2});
    net.classify(linear(flatten(x), {.units = 3}));
}
template <bool scratch> void norm_features(Network &net) {
    Norm norm{scratch};
    Value x = sigmoid(norm(net, linear(net.input("image", {5}), {.units = 4})));
    net.classify(linear(x, {.units = 3}));
}
// The gradient of an input goes through the normalization: two of them.
template <bool scratch> void norm_twice(Network &net) {
    Norm norm{scratch};
    Value x = tanh(norm(net, conv2d(net.input("image", {1, 5, 5}), {.channels = 2, .window = 3, .padding = 1})));
    x = norm(net, conv2d(x, {.channels = 2, .window = 3, .stride = 2}));
    net.classify(linear(flatten(x), {.units = 3}));
}

TEST(GradientOfNetworks, BatchNormOfImages) { check_network(norm_images<false>, {2, 7, 7}); }
TEST(GradientOfNetworks, BatchNormOfFeatures) { check_network(norm_features<false>, {5}); }
TEST(GradientOfNetworks, BatchNormTwice) { check_network(norm_twice<false>, {1, 5, 5}); }
TEST(GradientOfNetworks, BatchNormFromScratchOfImages) { check_network(norm_images<true>, {2, 7, 7}); }
TEST(GradientOfNetworks, BatchNormFromScratchOfFeatures) { check_network(norm_features<true>, {5}); }
TEST(GradientOfNetworks, BatchNormFromScratchTwice) { check_network(norm_twice<true>, {1, 5, 5}); }

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
