// Batches that do not fill their last block, and what the mode of a step may touch.
//
// Padding lanes must not leak into statistics, loss or gradients. The reference has no padding lanes at all: the same
// network with 4 samples a block and the batch given four times over, which leaves means, and so everything that is
// trained, as they are.
#include "fixture.h"
#include "networks.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr Sgd sgd = {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 5e-4};

// Padding lanes full of what earlier, larger batches left there.
void fill_arena(TestModel &model, const Batches &batches, int64_t max_batch) {
    Tensors before = model.parameters();
    model.train(batches, 2560, max_batch);
    model.set(before);
}

constexpr int copies = 4;

// samples of the batch, four times over.
struct Repeated {
    std::vector<float> images;
    std::vector<int32_t> labels;
    Repeated(const Batches &batches, int64_t first, int64_t size) {
        for (int i = 0; i < copies; i++) {
            images.insert(images.end(), batches.image(first), batches.image(first + size));
            labels.insert(labels.end(), batches.label(first), batches.label(first + size));
        }
    }
};

cryo_result train_repeated(TestModel &model, const Batches &batches, int64_t first, int64_t size) {
    Repeated repeated(batches, first, size);
    cryo_result result = {};
    EXPECT_EQ(cryo_train_step(model.get(), repeated.images.data(), repeated.labels.data(), copies * size, &result),
              CRYO_OK)
        << cryo_error(model.get());
    return result;
}

void compare(Define define, int64_t lanes, int64_t first_size) {
    Batches batches;
    int64_t max_batch = 2 * lanes + 1;
    TestModel ours(*build(define, sgd), {.batch = max_batch, .lanes = lanes, .few = 2});
    TestModel reference(*build(define, sgd), {.batch = copies * max_batch, .lanes = copies, .few = 0});
    for (int64_t size = first_size; size <= max_batch; size++) {
        SCOPED_TRACE("batch of " + std::to_string(size));
        ours.initialize(3);
        Tensors start = ours.parameters();
        fill_arena(ours, batches, max_batch);
        reference.initialize(3);
        reference.set(start);
        for (int step = 0; step < 2; step++) {
            cryo_result a = ours.train(batches, step * 100, size);
            cryo_result b = train_repeated(reference, batches, step * 100, size);
            EXPECT_NEAR(a.loss, b.loss, 2e-5 * std::fabs(b.loss));
            EXPECT_EQ(copies * a.correct, b.correct);
        }
        // Two values a feature normalise to -1 and 1 whatever they are: what is behind has no gradient but rounding.
        if (size == 2 && first_size == 2) continue;
        Tensors a = ours.parameters(), b = reference.parameters();
        ASSERT_EQ(a.size(), b.size());
        // Not the moments: those of biases in front of batch norm are rounding alone.
        for (const auto &[name, values] : b) {
            if (name.rfind("optimizer.", 0) == 0) continue;
            EXPECT_LE(difference(a[name], values), 1e-3) << name;
        }
        cryo_result ea = ours.evaluate(batches, 300, size), eb = reference.evaluate(batches, 300, size);
        EXPECT_NEAR(ea.loss, eb.loss, 1e-3 * std::fabs(eb.loss));
        EXPECT_LE(difference(ours.infer(batches, 300, size), reference.infer(batches, 300, size)), 1e-3);
    }
}

TEST(Ragged, EveryBatchSizeWithBatchNorm) { compare(lenet, 8, 2); }
TEST(Ragged, EveryBatchSizeWithBatchNormFromScratch) { compare(lenet_scratch, 4, 2); }
TEST(Ragged, EveryBatchSizeOfTheHostWidth) { compare(lenet, 16, 2); }
TEST(Ragged, EveryBatchSizeWithoutBatchNorm) { compare(plain, 8, 1); }

TEST(Ragged, InferenceDoesNotDependOnTheBatchAround) {
    Batches batches;
    TestModel model(*build(lenet), {.batch = 64});
    model.initialize(3);
    for (int step = 0; step < 3; step++) model.train(batches, step * 64, 64);
    std::vector<float> whole = model.infer(batches, 1000, 64);
    // Few samples have a plan of their own, which rounds otherwise.
    const int64_t few = model.compiled().infer_one_batch;
    std::vector<float> one_by_one;
    for (int64_t i = 0; i < few; i++) {
        std::vector<float> one = model.infer(batches, 1000 + i, 1);
        one_by_one.insert(one_by_one.end(), one.begin(), one.end());
    }
    for (int64_t size : {1, 2, 15, 16, 17, 31, 33, 63}) {
        std::vector<float> part = model.infer(batches, 1000, size);
        const std::vector<float> &same = size <= few ? one_by_one : whole;
        for (size_t i = 0; i < part.size(); i++) {
            ASSERT_EQ(part[i], same[i]) << "batch " << size << ", output " << i;
            ASSERT_NEAR(part[i], whole[i], 1e-6);
        }
    }
}

TEST(Modes, ABatchOfOneIsAnErrorThatNamesTheLayer) {
    Batches batches;
    TestModel model(*build(lenet), {.batch = 32});
    model.initialize(3);
    uint64_t before = model.hash();
    // The first layer that would see a single value per channel: batch norm after the first linear layer.
    EXPECT_EQ(cryo_train_step(model.get(), batches.image(0), batches.label(0), 1, nullptr), CRYO_BAD_ARGUMENT);
    std::string text = cryo_error(model.get());
    EXPECT_NE(text.find("'10'"), std::string::npos) << text;
    EXPECT_EQ(model.hash(), before);
    model.evaluate(batches, 0, 1);
    model.infer(batches, 0, 1);
}

TEST(Modes, BadBatchesAndLabelsChangeNothing) {
    Batches batches;
    TestModel model(*build(lenet), {.batch = 32});
    model.initialize(3);
    uint64_t before = model.hash();
    std::vector<int32_t> labels(32, 10);
    EXPECT_EQ(cryo_train_step(model.get(), batches.image(0), labels.data(), 32, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_NE(std::string(cryo_error(model.get())).find("10"), std::string::npos);
    labels.assign(32, 0);
    labels[31] = -1;
    EXPECT_EQ(cryo_evaluate(model.get(), batches.image(0), labels.data(), 32, nullptr), CRYO_BAD_ARGUMENT);
    for (int64_t size : {int64_t(0), int64_t(-1), int64_t(33), int64_t(1) << 40}) {
        EXPECT_EQ(cryo_train_step(model.get(), batches.image(0), batches.label(0), size, nullptr), CRYO_BAD_ARGUMENT);
        EXPECT_NE(std::string(cryo_error(model.get())).find(std::to_string(size)), std::string::npos);
    }
    EXPECT_EQ(model.hash(), before);
}

TEST(BatchNormTraps, T08_EvaluatingBetweenStepsChangesNoBit) {
    Batches batches;
    TestModel with(*build(lenet, sgd), {.batch = 64}), without(*build(lenet, sgd), {.batch = 64});
    for (TestModel *model : {&with, &without}) model->initialize(3);
    for (int step = 0; step < 4; step++) {
        with.train(batches, step * 64, 64);
        with.evaluate(batches, 2000, 37);
        with.infer(batches, 3000, 64);
        without.train(batches, step * 64, 64);
    }
    EXPECT_EQ(with.hash(), without.hash());
}

TEST(BatchNormTraps, T03_RunningStatisticsStartAtZeroAndOne) {
    Batches batches;
    TestModel model(*build(lenet), {.batch = 256});
    model.initialize(3);
    Tensors start = model.parameters();
    for (float mean : start["1.running_mean"]) EXPECT_EQ(mean, 0);
    for (float var : start["1.running_var"]) EXPECT_EQ(var, 1);
    model.train(batches, 0, 256);
    Tensors after = model.parameters();
    for (size_t c = 0; c < 6; c++) {
        EXPECT_NE(after["1.running_mean"][c], 0);
        EXPECT_GT(after["1.running_var"][c], 0.9f); // a tenth of it is new
        EXPECT_LT(after["1.running_var"][c], 1.5f);
    }
    cryo_result result = model.evaluate(batches, 0, 256);
    EXPECT_TRUE(std::isfinite(result.loss));
    EXPECT_LT(result.loss, 10);
}

} // namespace
