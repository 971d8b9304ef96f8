// The known traps of batch normalization, each by its number and name, against the reference in float64.
//
// All are BatchNormTraps.T<number>_...; elsewhere: T03 and T08 in ragged_test, where 15 is tested for whole networks,
// too; T11 in onnx_nodes_test; T17 in dsl_test; T18, and the gradients of T09, in gradient_test.
#include "batch_norm_reference.h"

#include "passes.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// Nothing is trained: the gradients are tested elsewhere.
struct Subject {
    Reference reference;
    TestModel model;
    const Shape &image = reference.image;

    Subject(const Shape &image, const BatchNorm &options, int64_t batch, int64_t lanes = 0)
        : reference{image, options, {}}, model(*normalised(image, options, 1e-30), {.batch = batch, .lanes = lanes}) {
        restart();
    }
    // Fresh statistics; gamma and beta that are not 1 and 0.
    void restart() {
        model.initialize(11);
        Tensors scale;
        for (const char *name : {".weight", ".bias"})
            for (int64_t i = 0; i < image[0]; i++) scale[reference.layer() + name].push_back(0.75f + 0.5f * float(i));
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
    double expected_loss(const Statistics &s, const Data &data) {
        reference.set(model.parameters());
        return reference.loss(data, s);
    }
    Statistics running() {
        reference.set(model.parameters());
        return reference.running();
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
    subject.reference.set(subject.model.parameters());
    Reference expected = subject.reference;
    EXPECT_NEAR(subject.evaluate(data), expected.evaluate(data), 1e-4);
    EXPECT_NEAR(subject.train(data), expected.train(data, 0), 1e-4);
    expect_close(subject.running().mean, expected.running().mean, relative);
    expect_close(subject.running().var, expected.running().var, relative);
    EXPECT_NEAR(subject.evaluate(data), expected.evaluate(data), 1e-4);
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
    for (const Shape &image : {Shape{2, 3, 3}, Shape{5}})
        for (int64_t lanes : {4, 8, 16}) { // 16 blocks, then fewer
            Subject subject(image, {.momentum = 0}, 64, lanes);
            for (double offset : {1e4, 1e5, 1e6, 1e7, 1e8}) {
                SCOPED_TRACE(offset);
                Data data = make_data(image, 64, offset, offset * 1e-4);
                subject.restart();
                Statistics batch = statistics(data, image);
                // A mean in float32 is off by up to 6e-8 of the offset, which is 1e-3 of a deviation.
                EXPECT_NEAR(subject.train(data), subject.expected_loss(batch, data), 5e-3);
                expect_close(subject.running().mean, batch.mean, 1e-7);
                // The merge of the blocks knows what rounding took from their means.
                expect_close(subject.running().var, batch.var, 1e-6);
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

// Trained with another eps, it means something else; with another momentum, it does not.
TEST(BatchNormTraps, T05_EpsilonIsInTheCheckpoint) {
    const Shape image{2};
    Subject subject(image, {.eps = 1e-5}, 17, 8), eps(image, {.eps = 1e-3}, 17, 8),
        momentum(image, {.momentum = 0.5}, 17);
    const std::string path = (std::filesystem::temp_directory_path() / "cryolite_eps.safetensors").string();
    ASSERT_EQ(cryo_save(subject.model.get(), path.c_str()), CRYO_OK);
    EXPECT_EQ(cryo_load(eps.model.get(), path.c_str()), CRYO_BAD_FILE);
    EXPECT_NE(std::string(cryo_error(eps.model.get())).find("of another model"), std::string::npos);
    EXPECT_EQ(cryo_load(momentum.model.get(), path.c_str()), CRYO_OK) << cryo_error(momentum.model.get());
    std::filesystem::remove(path);
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

TEST(BatchNormTraps, T09_FrozenTrainsWithTheRunningStatisticsAndLeavesThem) {
    for (const Shape &image : {Shape{3, 2, 2}, Shape{3}}) {
        Subject subject(image, {.frozen = true}, 17, 8);
        subject.model.set({{"0.running_mean", {1, -2, 0.5}}, {"0.running_var", {0.25, 3, 1}}});
        const Statistics before = subject.running();
        for (int64_t size : {1, 8, 17}) { // a single value a channel, too: nothing is estimated from it
            Data data = make_data(image, size, 2);
            EXPECT_NEAR(subject.train(data), subject.expected_loss(before, data), 1e-4);
            EXPECT_NEAR(subject.evaluate(data), subject.expected_loss(before, data), 1e-4);
        }
        EXPECT_EQ(subject.running().mean, before.mean);
        EXPECT_EQ(subject.running().var, before.var);
    }
}

// dx = dy * gamma / sqrt(running_var + eps): seen in the weight of a linear layer in front.
TEST(BatchNormTraps, T09_FrozenHasItsOwnGradient) {
    constexpr size_t inputs = 4, units = 5, size = 11;
    Network network("frozen");
    network.optimize({.learning_rate = 1});
    Value x = linear(network.input("image", {inputs}), {.units = units, .bias = false, .name = "front"});
    network.classify(linear(batch_norm(x, {.frozen = true, .name = "norm"}), {.units = classes, .name = "head"}));
    TestModel model(network, {.batch = size, .lanes = 8});
    model.initialize(3);
    model.set({{"norm.weight", {1, -2, 0, 0.5, 3}},
               {"norm.running_mean", {1, 2, 3, 4, 5}},
               {"norm.running_var", {0.1f, 1, 2, 4, 0.5f}}});
    Data data = make_data({inputs}, size, 1);
    Tensors before = model.parameters();

    // The head sees a frozen normalization of front's units: the reference with those as its image.
    Data features = data;
    features.images.assign(size * units, 0);
    for (size_t n = 0; n < size; n++)
        for (size_t u = 0; u < units; u++)
            for (size_t i = 0; i < inputs; i++)
                features.images[n * units + u] += data.images[n * inputs + i] * before["front.weight"][u * inputs + i];
    Reference reference{{units}, {.frozen = true, .name = "norm"}, {}};
    reference.set(before);
    cryo_result result = {};
    ASSERT_EQ(cryo_train_step(model.get(), data.images.data(), data.labels.data(), size, &result), CRYO_OK);
    EXPECT_NEAR(result.loss, reference.evaluate(features), 1e-4);

    // front.weight[u][i] by finite differences of the reference's loss, one unit of one sample at a time.
    Tensors after = model.parameters();
    for (size_t u = 0; u < units; u++)
        for (size_t i = 0; i < inputs; i++) {
            auto loss = [&](double step) {
                Data moved = features;
                for (size_t n = 0; n < size; n++)
                    moved.images[n * units + u] += float(step) * data.images[n * inputs + i];
                return reference.evaluate(moved);
            };
            double gradient = (loss(1.0 / 64) - loss(-1.0 / 64)) * 32;
            size_t at = u * inputs + i;
            EXPECT_NEAR(double(before["front.weight"][at]) - double(after["front.weight"][at]), gradient,
                        1e-4 + 1e-3 * std::fabs(gradient));
        }
}

// However often the normalised value is used, and recomputed by fusion, and however often a step was refused before.
TEST(BatchNormTraps, T10_AveragesAreCommittedOnceAStep) {
    const Shape image{2, 4, 4};
    Network network("twice");
    network.optimize({.learning_rate = 1e-30});
    Value x = batch_norm(network.input("image", image), {.momentum = std::nullopt, .name = "norm"});
    Value y = avg_pool2d(sigmoid(x), {.window = 2}) + max_pool2d(tanh(x), {.window = 2}) * reduce_mean(x, {2, 3});
    network.classify(linear(flatten(y), {.units = classes}));
    Graph lowered = run_pipeline(network.graph(), {Mode::train, network.optimizer(), {8, 17}});
    std::map<ValueId, int> assigned;
    for (const Node &node : lowered.nodes)
        if (node.op == find_op("assign")) assigned[node.inputs[0]]++;
    EXPECT_GE(assigned.size(), 3u);
    for (const auto &[state, times] : assigned) EXPECT_EQ(times, 1) << "%" << state;

    TestModel model(network, {.batch = 17, .lanes = 8});
    model.initialize(1);
    Data data = make_data(image, 17, 3);
    std::vector<int32_t> wrong(17, classes);
    EXPECT_EQ(cryo_train_step(model.get(), data.images.data(), wrong.data(), 17, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_train_step(model.get(), data.images.data(), data.labels.data(), 18, nullptr), CRYO_BAD_ARGUMENT);
    cryo_set_check_finite(model.get(), 1);
    Data broken = data;
    broken.images[5] = NAN;
    EXPECT_EQ(cryo_train_step(model.get(), broken.images.data(), data.labels.data(), 17, nullptr), CRYO_NOT_FINITE);
    Tensors refused = model.parameters();
    EXPECT_EQ(refused["norm.num_batches_tracked"], std::vector<float>{0});
    EXPECT_EQ(refused["norm.running_mean"], (std::vector<float>{0, 0}));
    ASSERT_EQ(cryo_train_step(model.get(), data.images.data(), data.labels.data(), 17, nullptr), CRYO_OK);
    Tensors once = model.parameters();
    Statistics batch = statistics(data, image);
    EXPECT_EQ(once["norm.num_batches_tracked"], std::vector<float>{1});
    for (size_t c = 0; c < 2; c++) EXPECT_NEAR(once["norm.running_mean"][c], batch.mean[c], 1e-5);
}

// Momentum none: each batch counts alike, whatever its size; the count is in the checkpoint, and PyTorch's is read.
TEST(BatchNormTraps, T12_AveragesWithoutMomentumArePlain) {
    const Shape image{2, 3, 3};
    Subject subject(image, {.momentum = std::nullopt, .unbiased = true}, 17, 8);
    std::vector<double> mean(2), var(2);
    const std::vector<int64_t> sizes{17, 5, 11, 2};
    for (size_t step = 0; step < sizes.size(); step++) {
        Data data = make_data(image, sizes[step], double(step) - 1, 1 + double(step), 20 + step);
        Statistics batch = statistics(data, image);
        for (size_t c = 0; c < 2; c++) {
            mean[c] += batch.mean[c];
            var[c] += batch.var[c] * batch.count / (batch.count - 1);
        }
        subject.train(data);
        for (size_t c = 0; c < 2; c++) {
            EXPECT_NEAR(subject.running().mean[c], mean[c] / double(step + 1), 1e-5);
            EXPECT_NEAR(subject.running().var[c], var[c] / double(step + 1), 1e-5);
        }
    }
    EXPECT_EQ(subject.model.parameters()["0.num_batches_tracked"], std::vector<float>{4});
}

// A file of PyTorch's: the counter is an int64 of rank 0.
TEST(BatchNormTraps, T12_PyTorchsCounterIsRead) {
    const Shape image{1};
    Subject subject(image, {.momentum = std::nullopt}, 17, 8);
    auto load = [&](int64_t count) {
        std::string header = "{", data;
        auto add = [&](const std::string &name, const std::string &type, const std::string &shape, const void *bytes,
                       size_t size) {
            header += (header.size() > 1 ? ",\"" : "\"") + name + R"(":{"dtype":")" + type + R"(","shape":)" + shape +
                      R"(,"data_offsets":[)" + std::to_string(data.size()) + "," + std::to_string(data.size() + size) +
                      "]}";
            data.append(static_cast<const char *>(bytes), size);
        };
        for (auto &[name, values] : subject.model.parameters()) {
            std::string shape = name == "head.weight" ? "[3,1]" : "[" + std::to_string(values.size()) + "]";
            if (name == "0.num_batches_tracked")
                add(name, "I64", "[]", &count, sizeof count);
            else
                add(name, "F32", shape, values.data(), values.size() * sizeof(float));
        }
        header += "}";
        uint64_t size = header.size();
        std::string path = (std::filesystem::temp_directory_path() / "cryolite_counter.safetensors").string();
        std::ofstream(path, std::ios::binary) << std::string(reinterpret_cast<char *>(&size), 8) << header << data;
        cryo_status status = cryo_load(subject.model.get(), path.c_str());
        std::filesystem::remove(path);
        return status;
    };
    subject.model.set({{"0.running_mean", {5}}});
    ASSERT_EQ(load(9), CRYO_OK) << cryo_error(subject.model.get());
    EXPECT_EQ(subject.model.parameters()["0.num_batches_tracked"], std::vector<float>{9});
    Data data = make_data(image, 17, 2);
    subject.train(data); // the tenth
    EXPECT_NEAR(subject.running().mean[0], 5 * 0.9 + 0.1 * statistics(data, image).mean[0], 1e-5);
    for (int64_t count : {int64_t(-1), int64_t(1) << 40}) {
        EXPECT_EQ(load(count), CRYO_BAD_FILE);
        EXPECT_NE(std::string(cryo_error(subject.model.get())).find("expected a count from 0 to 16777216"),
                  std::string::npos)
            << cryo_error(subject.model.get());
    }
}

// A slow average of many steps, and many values in one: float32 throughout, nothing stored narrower.
TEST(BatchNormTraps, T13_StatisticsAreFloat32OrWider) {
    Subject slow({3}, {.momentum = 0.999}, 17, 8);
    slow.reference.set(slow.model.parameters());
    Reference expected = slow.reference;
    for (uint64_t step = 0; step < 3000; step++) {
        Data data = make_data({3}, 17, 100, 3, step);
        slow.train(data);
        expected.train(data, 0);
    }
    expect_close(slow.running().mean, expected.running().mean, 5e-6);
    expect_close(slow.running().var, expected.running().var, 5e-6);

    const Shape image{2, 96, 96};
    Subject wide(image, {.momentum = 0}, 64);
    Data data = make_data(image, 64, 100, 1); // 589,824 values a channel
    wide.train(data);
    expect_close(wide.running().mean, statistics(data, image).mean, 2e-7);
    expect_close(wide.running().var, statistics(data, image).var, 2e-6);
}

// In inference batch norm in front of a padded convolution, and behind one without bias, with every kind of gamma: what
// is padded is the normalised image, the shift stays, and the trainable model does, too.
TEST(BatchNormTraps, T14_InferenceEqualsTheReferenceAroundConvolutions) {
    constexpr int64_t size = 11, side = 5, k = 3, c = 2, pixels = side * side;
    Network network("around");
    Value x = batch_norm(network.input("image", {c, side, side}), {.name = "front"});
    x = conv2d(x, {.channels = k, .window = 3, .padding = 1, .bias = false, .name = "conv"});
    x = flatten(batch_norm(x, {.name = "back"}));
    network.optimize({.learning_rate = 0.1});
    network.classify(linear(x, {.units = classes, .name = "head"}));
    TestModel model(network, {.batch = size, .lanes = 8});
    model.initialize(3);
    model.set({{"front.weight", {-1.5, 0.5}},
               {"front.bias", {2, -1}},
               {"front.running_mean", {3, -4}},
               {"front.running_var", {0.25, 2}},
               {"back.weight", {0, -2, 1}},
               {"back.bias", {0.5, -0.5, 4}},
               {"back.running_mean", {1, -1, 2}},
               {"back.running_var", {4, 0.5, 1}}});
    Tensors t = model.parameters();
    Data data = make_data({c, side, side}, size, 1);

    // Through front and conv by hand; back and head are the reference.
    Data features{std::vector<float>(size_t(size * k * pixels)), data.labels};
    for (int64_t n = 0; n < size; n++)
        for (int64_t j = 0; j < k; j++)
            for (int64_t y = 0; y < side; y++)
                for (int64_t z = 0; z < side; z++) {
                    double sum = 0;
                    for (int64_t i = 0; i < c * 9; i++) {
                        int64_t channel = i / 9, py = y + i / 3 % 3 - 1, pz = z + i % 3 - 1;
                        if (py < 0 || py >= side || pz < 0 || pz >= side) continue;
                        auto of = [&](const char *name) { return double(t[name][size_t(channel)]); };
                        double pixel = data.images[size_t((n * c + channel) * pixels + py * side + pz)];
                        double scale = of("front.weight") / std::sqrt(of("front.running_var") + 1e-5);
                        sum += ((pixel - of("front.running_mean")) * scale + of("front.bias")) *
                               double(t["conv.weight"][size_t(j * c * 9 + i)]);
                    }
                    features.images[size_t((n * k + j) * pixels + y * side + z)] = float(sum);
                }
    Reference reference{{k, side, side}, {.name = "back"}, {}};
    reference.set(t);
    const uint64_t before = model.hash();
    cryo_result result = {};
    ASSERT_EQ(cryo_evaluate(model.get(), data.images.data(), data.labels.data(), size, &result), CRYO_OK);
    EXPECT_NEAR(result.loss, reference.evaluate(features), 1e-4);
    std::vector<float> outputs(size_t(size * classes));
    ASSERT_EQ(cryo_infer(model.get(), data.images.data(), size, outputs.data()), CRYO_OK);
    double loss = 0;
    for (int64_t n = 0; n < size; n++)
        loss -= std::log(double(outputs[size_t(n * classes + data.labels[size_t(n)])])) / double(size);
    EXPECT_NEAR(loss, reference.evaluate(features), 1e-4);
    EXPECT_EQ(model.hash(), before);

    // A step after inference is the step that it would have been.
    ASSERT_EQ(cryo_train_step(model.get(), data.images.data(), data.labels.data(), size, nullptr), CRYO_OK);
    const uint64_t after = model.hash();
    model.set(t);
    ASSERT_EQ(cryo_train_step(model.get(), data.images.data(), data.labels.data(), size, nullptr), CRYO_OK);
    EXPECT_EQ(model.hash(), after);
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
