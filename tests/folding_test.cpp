// Batch norm in inference is part of the layer before it: the same numbers, prepared once and again after every change.
#include "fixture.h"
#include "golden.h"
#include "interpret.h"
#include "networks.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <gtest/gtest.h>
#include <thread>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr int64_t most = 20;
const std::string weight_and_norm = R"(
    %0 : f32[n,2,4,4] = input() {name="image", shape=[-1, 2, 4, 4]}
    %1 : f32[3,2,3,3] = parameter() {name="w", shape=[3, 2, 3, 3]}
    %2 : f32[1,3,1,1] = parameter() {name="scale", shape=[1, 3, 1, 1]}
    %3 : f32[1,3,1,1] = state() {name="mean", shape=[1, 3, 1, 1]}
)";

// The kinds of layers that fold, and those that must not.
void network(Network &net) {
    Value x = net.input("image", {2, 6, 6});
    Value y = batch_norm(conv2d(x, {.channels = 4, .window = 3, .padding = 1, .bias = false}));
    y = relu(y);
    // Before padding: a term per channel does not reach the border.
    y = conv2d(batch_norm(y), {.channels = 4, .window = 3, .padding = 1, .groups = 2});
    Value z = batch_norm(y); // y is read twice
    y = relu(z + y);
    y = batch_norm(linear(flatten(y), {.units = 5}));
    net.classify(linear(2 * y - 0.5f, {.units = 3}));
}

std::vector<double> numbers(const std::vector<float> &x) { return {x.begin(), x.end()}; }

struct Subject {
    std::unique_ptr<Network> net = build(network);
    TestModel model{*net, {.batch = most, .few = 0}, 2};
    std::vector<float> images = deterministic(5, most * 72, 1);
    std::vector<int32_t> labels;

    Subject() {
        model.initialize(3);
        for (int i = 0; i < most; i++) labels.push_back(i % 3);
        change(1);
    }
    // Values that are not where they start; factors of either sign and 0, positive variances.
    void change(uint64_t seed) {
        Tensors tensors = model.parameters();
        for (auto &[name, values] : tensors) {
            if (name.rfind("optimizer", 0) == 0) continue;
            values = deterministic(seed++, values.size(), 1);
            if (name.find("running_var") != std::string::npos)
                for (float &x : values) x = std::fabs(x) + 0.25f;
            else if (name.find(".weight") != std::string::npos && values.size() == 4)
                values[1] = 0;
        }
        model.set(tensors);
    }
    std::vector<double> expected() const {
        InterpreterInputs inputs;
        inputs.batch = most;
        inputs.images = numbers(images);
        for (const auto &[name, values] : model.parameters()) inputs.stored[name] = numbers(values);
        return interpret(select_mode(net->graph(), context(Mode::infer)), inputs).outputs.at("output");
    }
    void expect_right(const std::vector<float> &ours) const {
        std::vector<double> right = expected();
        ASSERT_EQ(ours.size(), right.size());
        double largest = 0;
        for (double x : right) largest = std::max(largest, std::fabs(x));
        for (size_t i = 0; i < ours.size(); i++) ASSERT_NEAR(ours[i], right[i], 1e-5 * largest) << i;
    }
    std::vector<float> infer() {
        std::vector<float> outputs(most * 3);
        EXPECT_EQ(cryo_infer(model.get(), images.data(), most, outputs.data()), CRYO_OK) << cryo_error(model.get());
        return outputs;
    }
    void train() { EXPECT_EQ(cryo_train_step(model.get(), images.data(), labels.data(), most, nullptr), CRYO_OK); }
    double loss() {
        cryo_result result;
        EXPECT_EQ(cryo_evaluate(model.get(), images.data(), labels.data(), most, &result), CRYO_OK);
        return result.loss;
    }
};

TEST(Folding, MovesFactorsAndTermsIntoWeightAndANewBias) {
    expect_after(fold_channels, Mode::infer, weight_and_norm + R"(
        %4 : f32[n,3,4,4] = conv2d(%0, %1) {padding=1, stride=1}
        %5 : f32[n,3,4,4] = sub(%4, %3)
        %6 : f32[n,3,4,4] = mul(%2, %5)
        output(%6) {name="output"}
    )",
                 weight_and_norm + R"(
        %4 : f32[3] = reshape(%3) {shape=[3]}
        %5 : f32[3] = neg(%4)
        %6 : f32[3] = reshape(%2) {shape=[3]}
        %7 : f32[3,1,1,1] = reshape(%2) {shape=[3, 1, 1, 1]}
        %8 : f32[3,2,3,3] = mul(%1, %7)
        %9 : f32[3] = mul(%5, %6)
        %10 : f32[n,3,4,4] = conv2d(%0, %8, %9) {padding=1, stride=1}
        output(%10) {name="output"}
    )");
}

// Trap 14, and results that something else reads, too.
TEST(Folding, T14_NotBeforeAPaddedConvolutionNorOfAResultReadTwice) {
    for (const char *rest : {R"(
        %4 : f32[1,2,1,1] = state() {name="input_mean", shape=[1, 2, 1, 1]}
        %5 : f32[n,2,4,4] = sub(%0, %4)
        %6 : f32[n,3,4,4] = conv2d(%5, %1) {padding=1, stride=1}
        output(%6) {name="output"}
    )",
                             R"(
        %4 : f32[n,3,4,4] = conv2d(%0, %1) {padding=1, stride=1}
        %5 : f32[n,3,4,4] = mul(%4, %2)
        %6 : f32[n,3,4,4] = add(%4, %5)
        output(%6) {name="output"}
    )"})
        expect_after(fold_channels, Mode::infer, weight_and_norm + rest, weight_and_norm + rest);
}

TEST(Folding, NoStepOfInferenceNormalises) {
    auto net = build(lenet);
    Graph graph = run_pipeline(net->graph(), {Mode::infer, {}, {8, 16}});
    for (const Node &node : graph.nodes) {
        if (node.op != find_op("pointwise") || !graph.shape(node.outputs[0]).per_block()) continue;
        EXPECT_EQ(node.attrs.string("program").find("rsqrt"), std::string::npos) << print(graph, node);
    }
}

TEST(Folding, IsAsInFloat64) {
    Subject subject;
    for (uint64_t seed : {1, 50, 100}) {
        subject.change(seed);
        subject.expect_right(subject.infer());
    }
}

// What is prepared follows every way in which parameters and states change.
TEST(Folding, PreparedValuesAreNeverStale) {
    Subject subject;
    subject.expect_right(subject.infer());
    subject.train();
    subject.expect_right(subject.infer());
    subject.change(20);
    subject.expect_right(subject.infer());
    std::vector<float> saved = subject.infer();
    std::string path = (std::filesystem::temp_directory_path() / "cryolite_folding.safetensors").string();
    ASSERT_EQ(cryo_save(subject.model.get(), path.c_str()), CRYO_OK);
    subject.model.initialize(9);
    std::vector<float> initial = subject.infer();
    EXPECT_NE(initial, saved);
    subject.expect_right(initial);
    ASSERT_EQ(cryo_load(subject.model.get(), path.c_str()), CRYO_OK);
    EXPECT_EQ(subject.infer(), saved);
    std::filesystem::remove(path);
    // The two plans share the room of what they prepare.
    double loss = subject.loss();
    EXPECT_EQ(subject.infer(), saved);
    EXPECT_EQ(subject.loss(), loss);
    subject.train();
    EXPECT_NE(subject.loss(), loss);
    subject.expect_right(subject.infer());
}

TEST(Folding, ContextsShareWhatOneOfThemPrepares) {
    Subject subject;
    constexpr int count = 4;
    cryo_context *contexts[count];
    for (cryo_context *&context : contexts) ASSERT_EQ(cryo_context_open(subject.model.get(), &context), CRYO_OK);
    for (int round = 0; round < 5; round++) {
        round % 2 ? subject.train() : subject.change(uint64_t(30 * round));
        std::vector<std::vector<float>> outputs(count, std::vector<float>(most * 3));
        std::vector<std::thread> threads;
        for (int t = 0; t < count; t++)
            threads.emplace_back([&, t] {
                for (int repeat = 0; repeat < 3; repeat++)
                    EXPECT_EQ(cryo_context_infer(contexts[t], subject.images.data(), most, outputs[size_t(t)].data()),
                              CRYO_OK);
            });
        for (std::thread &thread : threads) thread.join();
        subject.expect_right(outputs[0]);
        for (const std::vector<float> &other : outputs) EXPECT_EQ(other, outputs[0]);
        EXPECT_EQ(subject.infer(), outputs[0]);
    }
    for (cryo_context *context : contexts) cryo_context_close(context);
}

// A parameter that is no number is found when it is prepared, at every call, also when the check comes later.
TEST(Folding, ChecksWhatItPrepares) {
    Subject subject;
    Tensors tensors = subject.model.parameters();
    std::vector<float> variance = tensors.at("1.running_var"), good = variance;
    variance[2] = std::nanf("");
    subject.model.set({{"1.running_var", variance}});
    std::vector<float> outputs = subject.infer();
    EXPECT_TRUE(std::all_of(outputs.begin(), outputs.end(), [](float x) { return std::isnan(x); }));
    ASSERT_EQ(cryo_set_check_finite(subject.model.get(), 1), CRYO_OK);
    for (int repeat = 0; repeat < 2; repeat++)
        EXPECT_EQ(cryo_infer(subject.model.get(), subject.images.data(), most, outputs.data()), CRYO_NOT_FINITE);
    subject.model.set({{"1.running_var", good}});
    subject.expect_right(subject.infer());
}

} // namespace
