// The reference interpreter, and with it what passes may not change: values, gradients, updates.
#include "fixture.h"
#include "interpret.h"
#include "networks.h"
#include "passes.h"

#include <cmath>
#include <gtest/gtest.h>
#include <optional>
#include <set>

using namespace cryolite;
using namespace cryolite::test;

namespace {

PassContext context(Mode mode) { return {mode, {.learning_rate = 0.1, .momentum = 0.5}, {4, 8}}; }

void features(Network &net) {
    Value x = tanh(batch_norm(linear(net.input("image", {5}), {.units = 4}), {.unbiased = true}));
    net.classify(linear(relu(x), {.units = 3}));
}
void images(Network &net) {
    Value x = conv2d(net.input("image", {2, 7, 7}), {.channels = 3, .window = 2});
    x = max_pool2d(sigmoid(batch_norm(x)), {.window = 2});
    net.classify(linear(flatten(x), {.units = 3}));
}
void scratch(Network &net) {
    Value x = conv2d(net.input("image", {2, 7, 7}), {.channels = 3, .window = 2, .stride = 2});
    x = avg_pool2d(sigmoid(batch_norm_from_scratch(net, x)), {.window = 2});
    net.classify(linear(flatten(x), {.units = 3}));
}

std::vector<double> numbers(uint64_t seed, int64_t count, double shift = 0) {
    std::vector<double> result;
    for (float x : deterministic(seed, size_t(count), 1)) result.push_back(double(x) + shift);
    return result;
}

InterpreterInputs inputs_of(const Graph &graph) {
    InterpreterInputs inputs{.batch = 6, .learning_rate = 0.25};
    for (const Node &node : graph.nodes) {
        if (node.op == find_op("input")) inputs.images = numbers(1, 6 * graph.shape(node.outputs[0]).elements());
        if (node.op != find_op("parameter") && node.op != find_op("state")) continue;
        // Variances must be positive.
        std::vector<double> values = numbers(inputs.stored.size() + 2, graph.shape(node.outputs[0]).elements(), 1.5);
        inputs.stored[node.attrs.string("name")] = values;
    }
    inputs.labels = {0, 1, 2, 2, 1, 0};
    return inputs;
}

// What a has, b has.
void expect_near(const TensorMap &a, const TensorMap &b) {
    for (const auto &[name, values] : a) {
        ASSERT_TRUE(b.count(name)) << name;
        ASSERT_EQ(values.size(), b.at(name).size()) << name;
        for (size_t i = 0; i < values.size(); i++) ASSERT_NEAR(values[i], b.at(name)[i], 1e-12) << name;
    }
}

TEST(Passes, KeepOutputsAndAssigns) {
    for (Define define : {features, images, scratch})
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer}) {
            auto network = build(define);
            SCOPED_TRACE(mode_name(mode));
            std::optional<Interpreted> before;
            InterpreterInputs inputs = inputs_of(network->graph());
            bool lowered = false;
            run_pipeline(network->graph(), context(mode), [&](const std::string &pass, const Graph &graph) {
                lowered = lowered || pass == "lower";
                if (lowered) return;
                SCOPED_TRACE(pass);
                Interpreted now = interpret(graph, inputs);
                if (before) {
                    expect_near(before->outputs, now.outputs);
                    expect_near(before->assigned, now.assigned);
                }
                before = now;
            });
            EXPECT_FALSE(before->outputs.empty());
            EXPECT_EQ(before->assigned.empty(), mode != Mode::train);
        }
}

TEST(Passes, SimplifyKeepsGradients) {
    for (Define define : {features, images, scratch}) {
        auto network = build(define);
        PassContext train = context(Mode::train);
        Graph graph = differentiate(select_mode(network->graph(), train), train);
        InterpreterInputs inputs = inputs_of(graph);
        Interpreted before = interpret(graph, inputs), after = interpret(simplify(graph, train), inputs);
        EXPECT_EQ(before.gradients.size(), after.gradients.size());
        expect_near(before.gradients, after.gradients);
        if (define == scratch) continue;
        for (double x : after.gradients.at("0.bias")) EXPECT_EQ(x, 0); // by construction, not by rounding
    }
}

TEST(Passes, TheOptimizerTakesOneStep) {
    auto network = build(features);
    PassContext train = context(Mode::train);
    Graph graph = differentiate(select_mode(network->graph(), train), train);
    InterpreterInputs inputs = inputs_of(graph);
    Interpreted gradients = interpret(graph, inputs), updated = interpret(apply_optimizer(graph, train), inputs);
    for (const auto &[name, gradient] : gradients.gradients)
        for (size_t i = 0; i < gradient.size(); i++) {
            EXPECT_EQ(updated.assigned.at("optimizer.velocity." + name)[i], gradient[i]);
            EXPECT_NEAR(updated.assigned.at(name)[i], inputs.stored.at(name)[i] - 0.25 * gradient[i], 1e-15);
        }
}

TEST(Interpreter, RoundsUpOrDown) {
    Graph graph = parse(R"(graph g {
      %0 : f32[n,3] = input() {name="image", shape=[-1, 3]}
      %1 : f32[] = constant() {value=3.0}
      %2 : f32[n,3] = div(%0, %1)
      output(%2) {name="y"}
    })");
    InterpreterInputs inputs{.images = {1.5, -1, 1e-3}};
    std::vector<std::set<double>> seen(3);
    for (uint64_t seed = 0; seed < 50; seed++) {
        inputs.rounding = seed;
        std::vector<double> y = interpret(graph, inputs).outputs.at("y");
        for (size_t i = 0; i < 3; i++) {
            EXPECT_EQ(y[i], double(float(y[i])));
            EXPECT_NEAR(y[i], inputs.images[i] / 3, 1.8e-7 * std::fabs(y[i])); // 1e-3 is no float, either
            seen[i].insert(y[i]);
        }
    }
    EXPECT_EQ(seen[0], std::set<double>{0.5});
    EXPECT_EQ(seen[1].size(), 2u);
    EXPECT_GE(seen[2].size(), 2u);
}

TEST(Interpreter, SaysWhatItLacks) {
    auto message = [](const std::string &text, const InterpreterInputs &inputs) {
        try {
            interpret(parse("graph g {\n" + text + "\n}\n"), inputs);
        } catch (const InternalError &error) { return std::string(error.what()); }
        return std::string("accepted");
    };
    const std::string input = "%0 : f32[n,3] = input() {name=\"image\", shape=[-1, 3]}\n";
    EXPECT_EQ(message(input, {.images = {1, 2, 3}}), "accepted");
    EXPECT_NE(message(input, {.images = {1, 2}}).find("2 values are given for 3 in: "), std::string::npos);
    EXPECT_NE(message("%0 : f32[3] = parameter() {name=\"w\", shape=[3]}", {}).find("no value is given"),
              std::string::npos);
    EXPECT_NE(message(input + "%1 : f32[b,4,3] = input_rows() {elements=3, lanes=4}", {.images = {1, 2, 3}})
                  .find("lanes are needed"),
              std::string::npos);
    EXPECT_NE(message(input + "%1 : f32[b,4,3] = unpack(%0) {lanes=4}", {.images = {1, 2, 3}}).find("unpack"),
              std::string::npos);
    EXPECT_NE(
        message(input + "%1 : f32[n,3] = dropout(%0) {rate=0.5, seed=0}", {.images = {1, 2, 3}}).find("no reference"),
        std::string::npos);
}

} // namespace
