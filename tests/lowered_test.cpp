// What the passes make of a graph means what the graph meant: whole networks in float64 through the reference
// interpreter, before simplify and after mask_padding. Lowered graphs work on whole blocks; batches of every size up to
// two blocks and one sample, with padding lanes that hold what the ops make of zeros, or numbers that no sample has.
#include "fixture.h"
#include "interpret.h"
#include "networks.h"
#include "passes.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr int64_t lanes = 4;

std::vector<double> numbers(uint64_t seed, int64_t count) {
    std::vector<float> drawn = deterministic(seed, size_t(count), 1);
    return {drawn.begin(), drawn.end()};
}

PassContext context_of(const Network &network, Mode mode) { return {mode, network.optimizer(), {lanes, 256}}; }

// After the named pass; "simplify_lowered" is what mask_padding gets.
Graph after(const Network &network, Mode mode, const std::string &last) {
    Graph graph = network.graph();
    for (const Pass &pass : pipeline(mode)) {
        graph = pass.run(graph, context_of(network, mode));
        verify(graph, pass.name);
        if (pass.name == last) return graph;
    }
    throw std::logic_error("no pass " + last);
}
const char *last_of_author(Mode mode) { return mode == Mode::train ? "apply_optimizer" : "select_mode"; }

// Values for everything that the graph reads.
InterpreterInputs inputs_of(const Graph &graph, int64_t batch) {
    InterpreterInputs inputs;
    inputs.batch = batch;
    inputs.learning_rate = 0.1;
    inputs.step = 3;
    for (const Node &node : graph.nodes) {
        if (node.op == find_op("input")) inputs.images = numbers(100, graph.shape(node.outputs[0]).elements() * batch);
        if (node.op != find_op("parameter") && node.op != find_op("state")) continue;
        std::vector<double> &values = inputs.stored[node.attrs.string("name")];
        values = numbers(inputs.stored.size(), graph.shape(node.outputs[0]).elements());
        // Variances are positive.
        for (double &x : values) x = std::fabs(x) + 0.1;
    }
    for (int64_t i = 0; i < batch; i++) inputs.labels.push_back(double(i * 2 % 3));
    return inputs;
}

void expect_close(const TensorMap &ours, const TensorMap &expected) {
    ASSERT_EQ(ours.size(), expected.size());
    for (const auto &[name, values] : expected) {
        ASSERT_EQ(ours.at(name).size(), values.size()) << name;
        for (size_t i = 0; i < values.size(); i++)
            ASSERT_NEAR(ours.at(name)[i], values[i], 1e-9 * (1 + std::fabs(values[i]))) << name << "[" << i << "]";
    }
}

struct Case {
    const char *name;
    Define define;
    int64_t smallest_batch = 1;
    Sgd sgd = {};
};

template <bool scratch> Value norm(Network &net, Value x) {
    return scratch ? batch_norm_from_scratch(net, x) : batch_norm(x, {.momentum = 0.75, .unbiased = true});
}
template <bool scratch> void images(Network &net) {
    Value x = conv2d(net.input("image", {2, 7, 7}), {.channels = 3, .window = 2});
    x = avg_pool2d(sigmoid(norm<scratch>(net, x)), {.window = 2});
    x = tanh(norm<scratch>(net, conv2d(x, {.channels = 2, .window = 3, .stride = 2, .padding = 1})));
    net.classify(linear(flatten(x), {.units = 3}));
}
template <bool scratch> void features(Network &net) {
    Value x = sigmoid(norm<scratch>(net, linear(net.input("image", {5}), {.units = 4})));
    x = norm<scratch>(net, linear(x, {.units = 3}));
    net.classify(linear(x, {.units = 3}));
}
void pools(Network &net) {
    Value x = relu(conv2d(net.input("image", {2, 6, 6}), {.channels = 3, .window = 3, .padding = 1}));
    x = max_pool2d(x, {.window = 3, .stride = 2, .padding = 1});
    net.classify(linear(flatten(avg_pool2d(x, {.window = 2, .stride = 1, .padding = 1})), {.units = 3}));
}
void random_zeros(Network &net) {
    Value x = dropout(flatten(net.input("image", {1, 2, 3})), {.rate = 0.25});
    net.classify(linear(dropout(softmax(linear(x, {.units = 5}))), {.units = 3}));
}
// Of a padding lane's zeros these make infinities and NaN.
void infinities(Network &net) {
    Value image = net.input("image", {4});
    Value length = sqrt(reduce_sum(square(image), {1}));
    Value x = image / length;
    Value scale = net.parameter("scale", {1, 4}, ones());
    Value y = linear(x * scale + scale * log(abs(image)), {.units = 3});
    net.classify(y * (1 / length) + reduce_mean(exp(y), {0}));
}
void arithmetic(Network &net) {
    Value x = linear(net.input("image", {4}), {.units = 3});
    Value scale = net.parameter("scale", {1, 3}, ones());
    Value y = exp(x * scale) + square(x) - x / (abs(x) + 2);
    y = y + maximum(x, scale) + minimum(x, 0.25) - sqrt(square(x) + 1) + log(square(x) + 1);
    net.classify(y - reduce_mean(y, {1}) + reduce_sum(x * y, {0}) + reduce_mean(y, {0, 1}));
}

const std::vector<Case> cases = {
    {"images", images<false>, 1, {.momentum = 0.9, .weight_decay = 1e-2}},
    {"features", features<false>, 2},
    {"images from scratch", images<true>},
    {"features from scratch", features<true>},
    {"pools", pools},
    {"random zeros", random_zeros, 1, {.momentum = 0.5, .nesterov = true}},
    {"infinities", infinities},
    {"arithmetic", arithmetic},
};

TEST(Lowered, EveryModeMeansWhatTheNetworkMeans) {
    for (const Case &c : cases)
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer}) {
            auto network = build(c.define, c.sgd);
            Graph meant = after(*network, mode, last_of_author(mode));
            Graph simple = after(*network, mode, "simplify"), lowered = after(*network, mode, "mask_padding");
            for (int64_t batch = c.smallest_batch; batch <= 2 * lanes + 1; batch++) {
                SCOPED_TRACE(c.name + std::string(", ") + mode_name(mode) + ", batch " + std::to_string(batch));
                InterpreterInputs inputs = inputs_of(meant, batch);
                Interpreted expected = interpret(meant, inputs);
                Interpreted simplified = interpret(simple, inputs);
                ASSERT_NO_FATAL_FAILURE(expect_close(simplified.outputs, expected.outputs));
                ASSERT_NO_FATAL_FAILURE(expect_close(simplified.assigned, expected.assigned));
                inputs.lanes = lanes;
                for (std::optional<double> padding : {std::optional<double>(), std::optional<double>(7.5)}) {
                    SCOPED_TRACE(padding ? "numbers in padding lanes" : "zeros in padding lanes");
                    inputs.padding = padding;
                    Interpreted ours = interpret(lowered, inputs);
                    ASSERT_NO_FATAL_FAILURE(expect_close(ours.outputs, expected.outputs));
                    ASSERT_NO_FATAL_FAILURE(expect_close(ours.assigned, expected.assigned));
                }
            }
        }
}

// Else the test above could not fail.
TEST(Lowered, WithoutMasksPaddingLeaks) {
    auto network = build(images<false>);
    Graph meant = after(*network, Mode::train, "apply_optimizer");
    Graph unmasked = after(*network, Mode::train, "simplify_lowered");
    auto furthest = [&](int64_t batch) {
        InterpreterInputs inputs = inputs_of(meant, batch);
        TensorMap expected = interpret(meant, inputs).assigned;
        inputs.lanes = lanes;
        double most = 0;
        for (const auto &[name, values] : interpret(unmasked, inputs).assigned)
            for (size_t i = 0; i < values.size(); i++)
                most = std::max(most, std::fabs(values[i] - expected.at(name)[i]));
        return most;
    };
    EXPECT_LT(furthest(2 * lanes), 1e-9);
    EXPECT_GT(furthest(2 * lanes + 1), 1e-3);
}

} // namespace
