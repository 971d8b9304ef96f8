// NaN and infinities in whole models: a diverging run shows, everywhere, as in PyTorch. Kernels alone are tested in
// generators_pointwise_test.
#include "fixture.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
constexpr int64_t batch = 11, lanes = 4, pixels = 36, classes = 3;

// Images through one layer to a linear one; no bias, so that signs of logits are those of the images.
template <class Layer> std::unique_ptr<Network> network_with(Layer layer) {
    auto net = std::make_unique<Network>("special");
    net->classify(linear(flatten(layer(net->input("image", {1, 6, 6}))), {.units = classes, .name = "head"}));
    return net;
}

struct Subject {
    TestModel model;
    std::vector<float> images = deterministic(3, batch *pixels, 1);
    std::vector<int32_t> labels;

    explicit Subject(const Network &network) : model(network, {.batch = batch, .lanes = lanes, .few = 0}) {
        model.initialize(5);
        for (int64_t i = 0; i < batch; i++) labels.push_back(int32_t(i % classes));
    }
    float train() { return call(cryo_train_step); }
    float evaluate() { return call(cryo_evaluate); }
    template <class F> float call(F f) {
        cryo_result result = {};
        EXPECT_EQ(f(model.get(), images.data(), labels.data(), batch, &result), CRYO_OK) << cryo_error(model.get());
        return float(result.loss);
    }
    std::vector<float> infer() {
        std::vector<float> outputs(batch * classes);
        EXPECT_EQ(cryo_infer(model.get(), images.data(), batch, outputs.data()), CRYO_OK) << cryo_error(model.get());
        return outputs;
    }
};

bool all_nan(const std::vector<float> &values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isnan(x); });
}
bool none_nan(const std::vector<float> &values) {
    return std::none_of(values.begin(), values.end(), [](float x) { return std::isnan(x); });
}

// One NaN pixel: the loss of both modes and the sample's outputs are NaN, no other sample's, and the update shows it.
void check_nan(const Network &network) {
    for (int64_t sample : {int64_t(0), int64_t(6), batch - 1}) { // the last in a block that is not full
        SCOPED_TRACE(sample);
        Subject subject(network);
        EXPECT_TRUE(std::isfinite(subject.evaluate()));
        subject.images[size_t(sample * pixels + 14)] = nan;
        EXPECT_TRUE(std::isnan(subject.evaluate()));
        std::vector<float> outputs = subject.infer();
        for (int64_t i = 0; i < batch; i++) {
            std::vector<float> row(outputs.begin() + i * classes, outputs.begin() + (i + 1) * classes);
            EXPECT_TRUE(i == sample ? all_nan(row) : none_nan(row)) << "outputs of sample " << i;
        }
        EXPECT_TRUE(std::isnan(subject.train()));
        EXPECT_TRUE(all_nan(subject.model.parameters()["head.bias"])) << "the update hides it";
        EXPECT_TRUE(std::isnan(subject.train())) << "it stays so";
    }
}

TEST(Nan, ThroughRelu) {
    check_nan(*network_with([](Value x) { return relu(x); }));
}
TEST(Nan, ThroughSigmoid) {
    check_nan(*network_with([](Value x) { return sigmoid(x); }));
}
TEST(Nan, ThroughTanh) {
    check_nan(*network_with([](Value x) { return tanh(x); }));
}
TEST(Nan, ThroughMaxPool) {
    check_nan(*network_with([](Value x) { return max_pool2d(x, {.window = 3, .stride = 2, .padding = 1}); }));
}
TEST(Nan, ThroughAvgPool) {
    check_nan(*network_with([](Value x) { return avg_pool2d(x, {.window = 2}); }));
}
TEST(Nan, ThroughConvolution) {
    check_nan(*network_with([](Value x) { return relu(conv2d(x, {.channels = 2, .window = 3, .padding = 1})); }));
}
TEST(Nan, ThroughMaximumAndMinimum) {
    check_nan(*network_with([](Value x) { return maximum(minimum(x, 0.5), -0.5); }));
}
TEST(Nan, ThroughDropout) {
    check_nan(*network_with([](Value x) { return dropout(x, {.rate = 0.1}); }));
}
TEST(Nan, ThroughArithmeticThatCancels) {
    check_nan(*network_with([](Value x) { return x - x + x * 0.0; }));
}

// In train mode batch norm spreads it to the whole batch, and into the running statistics.
TEST(Nan, ThroughBatchNorm) {
    auto network = network_with([](Value x) { return sigmoid(batch_norm(x)); });
    check_nan(*network);
    Subject subject(*network);
    subject.images[20] = nan;
    EXPECT_TRUE(std::isnan(subject.train()));
    Tensors after = subject.model.parameters();
    for (const char *name : {"0.weight", "0.bias", "0.running_mean", "0.running_var", "head.weight"})
        EXPECT_TRUE(all_nan(after[name])) << name;
}

TEST(Nan, InAWeight) {
    Subject subject(*network_with([](Value x) { return relu(x); }));
    Tensors tensors = subject.model.parameters();
    tensors["head.weight"][7] = nan;
    subject.model.set(tensors);
    EXPECT_TRUE(std::isnan(subject.evaluate()));
    EXPECT_TRUE(all_nan(subject.infer()));
    EXPECT_TRUE(std::isnan(subject.train()));
}

// ---------------------------------------------------------------------------------------------------------------------
// Infinities, as PyTorch: functions that are bounded stay so, exp(inf - inf) in softmax is NaN.

void check_infinity(const Network &network, float pixel, bool finite) {
    Subject subject(network);
    subject.images[14] = pixel;
    EXPECT_EQ(std::isfinite(subject.evaluate()), finite);
    std::vector<float> outputs = subject.infer();
    EXPECT_TRUE(none_nan({outputs.begin() + classes, outputs.end()}));
    EXPECT_EQ(none_nan({outputs.begin(), outputs.begin() + classes}), finite);
    EXPECT_EQ(std::isfinite(subject.train()), finite);
}

TEST(Infinity, ThroughBoundedFunctions) {
    for (float pixel : {inf, -inf}) {
        SCOPED_TRACE(pixel);
        check_infinity(*network_with([](Value x) { return sigmoid(x); }), pixel, true);
        check_infinity(*network_with([](Value x) { return tanh(x); }), pixel, true);
        check_infinity(*network_with([](Value x) { return minimum(maximum(x, -1), 1); }), pixel, true);
    }
}
// relu(-inf) is 0, and a maximum of finite numbers and -inf is finite.
TEST(Infinity, ThroughReluAndMaxPool) {
    check_infinity(*network_with([](Value x) { return relu(x); }), -inf, true);
    check_infinity(*network_with([](Value x) { return max_pool2d(x, {.window = 2}); }), -inf, true);
    check_infinity(*network_with([](Value x) { return avg_pool2d(x, {.window = 2}); }), -inf, false);
    check_infinity(*network_with([](Value x) { return relu(x); }), inf, false);
    check_infinity(*network_with([](Value x) { return max_pool2d(x, {.window = 2}); }), inf, false);
    check_infinity(*network_with([](Value x) { return x - x; }), inf, false);
}
// The mean is infinite, the variance NaN.
TEST(Infinity, OfABatchNorm) {
    for (float pixel : {inf, -inf}) {
        Subject subject(*network_with([](Value x) { return sigmoid(batch_norm(x)); }));
        subject.images[14] = pixel;
        EXPECT_TRUE(std::isfinite(subject.evaluate())); // the running statistics are finite
        EXPECT_TRUE(std::isnan(subject.train()));
        EXPECT_FALSE(std::isfinite(subject.model.parameters()["0.running_mean"][0]));
        EXPECT_TRUE(std::isnan(subject.model.parameters()["0.running_var"][0]));
    }
}

// Padding lanes are made from zeros: what is infinite or NaN there must not reach a sum over samples.
TEST(Padding, OfFunctionsThatAreNotFiniteAtZero) {
    for (int function = 0; function < 4; function++) {
        SCOPED_TRACE(function);
        Subject subject(*network_with([function](Value x) {
            Value scale = x.net->parameter("scale", {1, 1, 6, 6}, ones());
            Value y = x * scale;
            if (function == 0) return y / sqrt(reduce_sum(square(x), {1, 2, 3})); // unit length
            if (function == 1) return log(abs(y));
            if (function == 2) return 1.0 / y;
            return sqrt(abs(y));
        }));
        EXPECT_TRUE(std::isfinite(subject.train()));
        for (const auto &[name, values] : subject.model.parameters())
            for (float value : values) ASSERT_TRUE(std::isfinite(value)) << name;
    }
}

} // namespace
