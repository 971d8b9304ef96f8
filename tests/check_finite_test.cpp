// cryo_set_check_finite: what is found, what it is called, and what is left as it was.
#include "fixture.h"
#include "networks.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

struct Checked {
    Batches batches;
    TestModel model;
    explicit Checked(Define define = lenet, int threads = 2) : model(*build(define), {.batch = 64}, threads) { open(); }
    void open() {
        model.initialize(3);
        EXPECT_EQ(cryo_set_check_finite(model.get(), 1), CRYO_OK);
    }
    std::string error() const { return cryo_error(model.get()); }
    cryo_status train(int64_t size = 64) {
        return cryo_train_step(model.get(), batches.image(0), batches.label(0), size, nullptr);
    }
    void put(const std::string &name, size_t at, float value) {
        Tensors tensors = model.parameters();
        tensors.at(name).at(at) = value;
        model.set({{name, tensors.at(name)}});
    }
};

TEST(CheckFinite, AFiniteRunIsTheSame) {
    for (Define define : {lenet, lenet_scratch, mlp, plain}) {
        Checked with(define), without(define);
        EXPECT_EQ(cryo_set_check_finite(without.model.get(), 0), CRYO_OK);
        // Ragged blocks: nothing that their padding holds is reported.
        for (int64_t size : {64, 17, 63, 3}) {
            EXPECT_EQ(with.train(size), CRYO_OK) << with.error();
            EXPECT_EQ(without.train(size), CRYO_OK);
        }
        EXPECT_EQ(with.model.hash(), without.model.hash());
        with.model.evaluate(with.batches, 0, 5);
        with.model.infer(with.batches, 0, 5);
    }
}

void direct_lenet(Network &net) {
    lenet(net);
    net.math(Math::strict);
}

TEST(CheckFinite, NamesTheLayerForAnyNumberOfThreads) {
    // The second convolution's weight: its layer is the first with a NaN in its result.
    std::string text;
    for (int threads : {1, 2, 3, 8}) {
        Checked checked(direct_lenet, threads);
        checked.put("4.weight", 7, nan);
        uint64_t before = checked.model.hash();
        for (int repeat = 0; repeat < 5; repeat++) {
            EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
            EXPECT_NE(checked.error().find("layer '4', kernel 'conv2d "), std::string::npos) << checked.error();
            EXPECT_NE(checked.error().find("a NaN in the result of samples 0 to"), std::string::npos)
                << checked.error();
            if (text.empty()) text = checked.error();
            EXPECT_EQ(checked.error(), text) << threads << " threads";
        }
        EXPECT_EQ(checked.model.hash(), before);
        EXPECT_EQ(cryo_steps(checked.model.get()), 0);
    }
}

// Where a transformed weight is what is first made of it, that is named.
TEST(CheckFinite, NamesTheLayerWhateverItsAlgorithm) {
    Checked checked(lenet);
    checked.put("4.weight", 7, nan);
    EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
    EXPECT_NE(checked.error().find("layer '4', kernel '"), std::string::npos) << checked.error();
    EXPECT_NE(checked.error().find("a NaN in the result"), std::string::npos) << checked.error();
}

TEST(CheckFinite, TellsInfinitiesAndGoesOnOnceTheyAreGone) {
    Checked checked, never;
    checked.put("9.bias", 3, inf);
    EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
    EXPECT_NE(checked.error().find("layer '9'"), std::string::npos) << checked.error();
    EXPECT_NE(checked.error().find("an infinity"), std::string::npos) << checked.error();
    checked.model.set({{"9.bias", never.model.parameters().at("9.bias")}});
    EXPECT_EQ(checked.train(), CRYO_OK) << checked.error();
    EXPECT_EQ(never.train(), CRYO_OK);
    EXPECT_EQ(checked.model.hash(), never.model.hash());
}

// What comes up in the backward pass is found before the update, too.
TEST(CheckFinite, ARefusedStepChangesNothing) {
    Checked checked(mlp);
    // Finite in the forward pass; the gradient of the layer before overflows.
    for (float &x : checked.batches.images) x = x > 0.5f ? 1.f : 0.f;
    Tensors tensors = checked.model.parameters();
    for (float &x : tensors.at("5.weight")) x = 3e38f;
    checked.model.set({{"5.weight", tensors.at("5.weight")}});
    uint64_t before = checked.model.hash();
    EXPECT_EQ(checked.train(), CRYO_NOT_FINITE) << checked.error();
    EXPECT_EQ(checked.model.hash(), before);
    EXPECT_EQ(cryo_steps(checked.model.get()), 0);
}

void two_layers(Network &net) {
    Value x = relu(linear(flatten(net.input("image", {1, 28, 28})), {.units = 256, .name = "first"}));
    net.classify(linear(x, {.units = 10, .name = "last"}));
}

// The first layer's gradient overflows, which is made when the last layer has been updated.
TEST(CheckFinite, AStepRefusedAtTheFirstLayerChangesNothing) {
    for (int threads : {1, 3}) {
        Checked checked(two_layers, threads);
        Tensors tensors = checked.model.parameters();
        for (float &x : tensors.at("first.weight")) x = 0;
        for (float &x : tensors.at("first.bias")) x = 0.1f;
        for (float &x : tensors.at("last.weight")) x *= 1e3f;
        checked.model.set(tensors);
        for (float &x : checked.batches.images) x = 3e38f;
        uint64_t before = checked.model.hash();
        EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
        EXPECT_NE(checked.error().find("layer 'first', kernel 'linear_grad_weight"), std::string::npos)
            << checked.error();
        EXPECT_EQ(checked.model.hash(), before);
        EXPECT_EQ(cryo_steps(checked.model.get()), 0);
    }
}

// A rate at which the update overflows.
TEST(CheckFinite, ARefusedUpdateChangesNothing) {
    Checked checked;
    uint64_t before = checked.model.hash();
    EXPECT_EQ(cryo_set_learning_rate(checked.model.get(), 1e308), CRYO_OK);
    EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
    EXPECT_NE(checked.error().find("kernel 'sgd"), std::string::npos) << checked.error();
    EXPECT_EQ(checked.model.hash(), before);
    EXPECT_EQ(cryo_steps(checked.model.get()), 0);
}

TEST(CheckFinite, Images) {
    Checked checked;
    uint64_t before = checked.model.hash();
    checked.batches.images[17 * 784 + 5] = nan;
    checked.batches.images[40 * 784] = -inf;
    EXPECT_EQ(checked.train(), CRYO_NOT_FINITE);
    EXPECT_EQ(checked.error(), "images: sample 17 has a NaN");
    cryo_result result;
    EXPECT_EQ(cryo_evaluate(checked.model.get(), checked.batches.image(20), checked.batches.label(20), 30, &result),
              CRYO_NOT_FINITE);
    EXPECT_EQ(checked.error(), "images: sample 20 has an infinity");
    std::vector<float> outputs(640);
    cryo_context *context = nullptr;
    ASSERT_EQ(cryo_context_open(checked.model.get(), &context), CRYO_OK);
    EXPECT_EQ(cryo_context_infer(context, checked.batches.image(0), 18, outputs.data()), CRYO_NOT_FINITE);
    EXPECT_STREQ(cryo_context_error(context), "images: sample 17 has a NaN");
    EXPECT_EQ(cryo_context_infer(context, checked.batches.image(0), 17, outputs.data()), CRYO_OK);
    cryo_context_close(context);
    EXPECT_EQ(checked.model.hash(), before);
}

// Off, the same run ends with a loss that is no number.
TEST(CheckFinite, IsOffAtFirst) {
    Checked checked;
    checked.model.reopen(2);
    checked.model.initialize(3);
    checked.put("4.weight", 7, nan);
    cryo_result result = checked.model.train(checked.batches, 0, 64);
    EXPECT_TRUE(std::isnan(result.loss));
    EXPECT_EQ(cryo_set_check_finite(nullptr, 1), CRYO_BAD_ARGUMENT);
}

} // namespace
