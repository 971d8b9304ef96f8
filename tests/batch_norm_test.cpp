// The known traps of batch normalization, each by its number and name, against a reference in float64 that knows
// nothing of lanes, blocks or plans.
//
// Elsewhere: 3 (Modes.RunningStatisticsStartAtZeroAndOne) and 8 (Modes.EvaluatingBetweenStepsChangesNoBit) in
// ragged_test, where 15 is tested for whole networks; 17 (Wrong.BatchNorm) in dsl_test; 18
// (GradientOfNetworks.BatchNorm*) in gradient_test.
#include "fixture.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr int classes = 3;

// The image, normalised, and a linear layer "head" behind it. Nothing is trained: the gradients are tested elsewhere.
std::unique_ptr<Network> normalised(const Shape &image, const BatchNorm &options) {
    auto net = std::make_unique<Network>("norm");
    net->optimize({.learning_rate = 1e-30});
    Value x = batch_norm(net->input("image", image), options);
    if (x.rank() == 4) x = flatten(x);
    net->classify(linear(x, {.units = classes, .name = "head"}));
    return net;
}

struct Data {
    std::vector<float> images;
    std::vector<int32_t> labels;
    int64_t size() const { return int64_t(labels.size()); }
};
// offset + deviation * [-1, 1), another offset for every channel.
Data make_data(const Shape &image, int64_t size, double offset = 0, double deviation = 1, uint64_t seed = 5) {
    Data data;
    data.images = deterministic(seed, size_t(size * image.elements()), 1);
    const int64_t pixels = image.elements() / image[0];
    for (size_t i = 0; i < data.images.size(); i++) {
        double channel = double(int64_t(i) / pixels % image[0]);
        data.images[i] = float(offset * (1 + channel / 8) + deviation * double(data.images[i]));
    }
    for (int64_t i = 0; i < size; i++) data.labels.push_back(int32_t(i * 2 % classes));
    return data;
}

struct Statistics {
    std::vector<double> mean, var; // biased
    double count = 0;              // values a channel
};
Statistics statistics(const Data &data, const Shape &image) {
    const int64_t c = image[0], pixels = image.elements() / c;
    Statistics s{std::vector<double>(size_t(c), 0.0), std::vector<double>(size_t(c), 0.0),
                 double(data.size() * pixels)};
    auto channel = [&](size_t i) { return size_t(int64_t(i) / pixels % c); };
    for (size_t i = 0; i < data.images.size(); i++) s.mean[channel(i)] += double(data.images[i]) / s.count;
    for (size_t i = 0; i < data.images.size(); i++)
        s.var[channel(i)] += std::pow(double(data.images[i]) - s.mean[channel(i)], 2) / s.count;
    return s;
}

// Mean cross-entropy of the network when it normalises with these statistics.
double loss_with(const Statistics &s, const Data &data, const Shape &image, Tensors tensors, double eps) {
    const size_t c = size_t(image[0]), features = size_t(image.elements()), pixels = features / c;
    double loss = 0;
    for (size_t n = 0; n < data.labels.size(); n++) {
        double logits[classes], sum = 0;
        for (size_t k = 0; k < classes; k++) {
            logits[k] = tensors["head.bias"][k];
            for (size_t i = 0; i < features; i++) {
                size_t at = i / pixels;
                double x_hat = (double(data.images[n * features + i]) - s.mean[at]) / std::sqrt(s.var[at] + eps);
                double y = x_hat * tensors["0.weight"][at] + tensors["0.bias"][at];
                logits[k] += y * tensors["head.weight"][k * features + i];
            }
        }
        for (double logit : logits) sum += std::exp(logit - logits[data.labels[n]]);
        loss += std::log(sum) / double(data.size());
    }
    return loss;
}

struct Subject {
    Shape image;
    BatchNorm options;
    TestModel model;

    Subject(const Shape &image, const BatchNorm &options, int64_t batch, int64_t lanes = 0)
        : image(image), options(options), model(*normalised(image, options), {.batch = batch, .lanes = lanes}) {
        restart();
    }
    std::string layer() const { return options.name.empty() ? "0" : options.name; }
    // Fresh statistics; gamma and beta that are not 1 and 0.
    void restart() {
        model.initialize(11);
        Tensors scale;
        for (const char *name : {".weight", ".bias"})
            for (int64_t i = 0; i < image[0]; i++) scale[layer() + name].push_back(0.75f + 0.5f * float(i));
        model.set(scale);
    }
    double train(const Data &data) { return call(cryo_train_step, data); }
    double evaluate(const Data &data) { return call(cryo_evaluate, data); }
    template <class F> double call(F f, const Data &data) {
        cryo_result result = {};
        EXPECT_EQ(f(model.get(), data.images.data(), data.labels.data(), data.size(), &result), CRYO_OK)
            << cryo_error(model.get());
        return result.loss;
    }
    double expected_loss(const Statistics &s, const Data &data) const {
        return loss_with(s, data, image, model.parameters(), options.eps);
    }
    Statistics running() const {
        Tensors tensors = model.parameters();
        const std::vector<float> &mean = tensors[layer() + ".running_mean"], &var = tensors[layer() + ".running_var"];
        return {{mean.begin(), mean.end()}, {var.begin(), var.end()}};
    }
};

void expect_close(const std::vector<double> &ours, const std::vector<double> &expected, double relative) {
    ASSERT_EQ(ours.size(), expected.size());
    for (size_t i = 0; i < ours.size(); i++)
        EXPECT_NEAR(ours[i], expected[i], relative * std::fabs(expected[i])) << "channel " << i;
}

// Statistics and losses of a step from fresh, in both modes.
void check_step(Subject &subject, const Data &data, double relative) {
    subject.restart();
    Statistics batch = statistics(data, subject.image), expected = batch;
    EXPECT_NEAR(subject.evaluate(data), subject.expected_loss(subject.running(), data), 1e-4);
    EXPECT_NEAR(subject.train(data), subject.expected_loss(batch, data), 1e-4);
    const double old = subject.options.momentum;
    for (size_t i = 0; i < batch.mean.size(); i++) {
        double var = batch.var[i] * (subject.options.unbiased ? batch.count / (batch.count - 1) : 1);
        expected.mean[i] = (1 - old) * batch.mean[i];
        expected.var[i] = old + (1 - old) * var;
    }
    expect_close(subject.running().mean, expected.mean, relative);
    expect_close(subject.running().var, expected.var, relative);
    EXPECT_NEAR(subject.evaluate(data), subject.expected_loss(subject.running(), data), 1e-4);
}

TEST(BatchNormTraps, T01_MomentumIsTheWeightOfTheOldValue) {
    const Shape image{2, 3, 3};
    Subject subject(image, {.momentum = 0.75}, 17, 8);
    Data first = make_data(image, 17, 2), second = make_data(image, 11, 5, 3, 6);
    Statistics a = statistics(first, image), b = statistics(second, image);
    subject.train(first);
    subject.train(second);
    for (size_t i = 0; i < 2; i++) {
        EXPECT_NEAR(subject.running().mean[i], 0.75 * (0.25 * a.mean[i]) + 0.25 * b.mean[i], 1e-5);
        EXPECT_NEAR(subject.running().var[i], 0.75 * (0.75 + 0.25 * a.var[i]) + 0.25 * b.var[i], 1e-5);
    }
}

TEST(BatchNormTraps, T02_RunningVarianceIsBiasedOrUnbiasedNormalisingAlwaysBiased) {
    const Shape image{2, 1, 1};
    for (bool unbiased : {false, true}) {
        Subject subject(image, {.unbiased = unbiased}, 17, 8);
        for (int64_t size : {2, 3, 17}) check_step(subject, make_data(image, size, 1), 1e-5);
    }
}

// momentum 0: the running statistics are the batch's.
TEST(BatchNormTraps, T04_LargeOffsetsDoNotCancel) {
    for (const Shape &image : {Shape{2, 3, 3}, Shape{5}}) {
        Subject subject(image, {.momentum = 0}, 64);
        for (double offset : {1e4, 1e5, 1e6, 1e7, 1e8}) {
            SCOPED_TRACE(offset);
            Data data = make_data(image, 64, offset, offset * 1e-4);
            subject.restart();
            Statistics batch = statistics(data, image);
            // A mean in float32 is off by up to 6e-8 of the offset, which is 1e-3 of a deviation.
            EXPECT_NEAR(subject.train(data), subject.expected_loss(batch, data), 5e-3);
            expect_close(subject.running().mean, batch.mean, 1e-7);
            expect_close(subject.running().var, batch.var, 1e-4);
            EXPECT_NEAR(subject.evaluate(data), subject.expected_loss(batch, data), 5e-3);
        }
    }
}
TEST(BatchNormTraps, T04_ConstantInputsHaveNoVariance) {
    const Shape image{2, 3, 3};
    Subject subject(image, {.momentum = 0}, 64);
    for (double constant : {0.0, 100.0, 1e7}) {
        SCOPED_TRACE(constant);
        Data data = make_data(image, 50, constant, 0);
        subject.restart();
        Statistics batch = statistics(data, image);
        EXPECT_NEAR(subject.train(data), subject.expected_loss(batch, data), 1e-4);
        expect_close(subject.running().mean, batch.mean, 1e-7);
        for (double var : subject.running().var) EXPECT_LE(var, 1e-12 * constant * constant);
    }
}

TEST(BatchNormTraps, T05_EpsilonIsInsideTheRoot) {
    const Shape image{2, 3, 3};
    for (double eps : {0.5, 1e-3}) {
        Subject subject(image, {.eps = eps}, 17, 8);
        // A variance of 1/300: far below eps, where sqrt(var) + eps would show.
        check_step(subject, make_data(image, 17, 0.1, 0.1), 1e-5);
    }
}

TEST(BatchNormTraps, T06_OneValueAChannelIsAnErrorThatNamesTheLayer) {
    for (const Shape &image : {Shape{2, 1, 1}, Shape{5}}) {
        Subject subject(image, {.name = "tiny"}, 17, 8);
        uint64_t before = subject.model.hash();
        Data one = make_data(image, 1);
        EXPECT_EQ(cryo_train_step(subject.model.get(), one.images.data(), one.labels.data(), 1, nullptr),
                  CRYO_BAD_ARGUMENT);
        EXPECT_NE(std::string(cryo_error(subject.model.get())).find("'tiny'"), std::string::npos)
            << cryo_error(subject.model.get());
        EXPECT_EQ(subject.model.hash(), before);
        EXPECT_TRUE(std::isfinite(subject.evaluate(one)));
    }
    // Two pixels of one image are two values.
    const Shape image{2, 1, 2};
    Subject subject(image, {}, 17, 8);
    check_step(subject, make_data(image, 1), 1e-5);
}

TEST(BatchNormTraps, T07_OneChannelIsDecidedByTheRank) {
    for (const Shape &image : {Shape{1, 3, 3}, Shape{3, 3, 1}, Shape{1, 1, 3}, Shape{1}}) {
        SCOPED_TRACE(image.text());
        Subject subject(image, {}, 17, 8);
        EXPECT_EQ(int64_t(subject.running().mean.size()), image[0]);
        check_step(subject, make_data(image, 17, 1), 1e-5);
    }
}

TEST(BatchNormTraps, T15_NoPaddingLaneLeaks) {
    for (const Shape &image : {Shape{3, 2, 2}, Shape{3}}) {
        Subject subject(image, {.momentum = 0.5}, 17, 8);
        for (int64_t size = image.rank() == 1 ? 2 : 1; size <= 17; size++) {
            SCOPED_TRACE(size);
            subject.train(make_data(image, 17, 1e3, 100, 9)); // what padding lanes may still hold
            check_step(subject, make_data(image, size, 1), 1e-5);
        }
    }
}

// Which plan runs is all that decides; nothing of an earlier call is left.
TEST(BatchNormTraps, T16_TheModeIsThePlan) {
    const Shape image{2, 3, 3};
    Subject subject(image, {}, 17, 8);
    Data data = make_data(image, 17, 3, 2), other = make_data(image, 9, -1, 1, 6);
    subject.train(data);
    Statistics running = subject.running();
    uint64_t before = subject.model.hash();
    for (int i = 0; i < 2; i++) {
        EXPECT_NEAR(subject.evaluate(other), subject.expected_loss(running, other), 1e-4);
        std::vector<float> outputs(size_t(other.size() * classes));
        EXPECT_EQ(cryo_infer(subject.model.get(), other.images.data(), other.size(), outputs.data()), CRYO_OK);
        double loss = 0;
        for (int64_t n = 0; n < other.size(); n++)
            loss -= std::log(double(outputs[size_t(n * classes + other.labels[size_t(n)])])) / double(other.size());
        EXPECT_NEAR(loss, subject.expected_loss(running, other), 1e-4);
    }
    EXPECT_EQ(subject.model.hash(), before) << "evaluating changed the model";
    EXPECT_NEAR(subject.train(other), subject.expected_loss(statistics(other, image), other), 1e-4);
    EXPECT_NE(subject.model.hash(), before);
}

} // namespace
