// Steps of the hand-written model beside plain loops: ragged batches, threads, hooks, failures.
#include "runtime_model.h"

#include <gtest/gtest.h>
#include <mutex>
#include <set>
#include <thread>

using namespace tiny;

namespace {

// The model's arithmetic, sample by sample.
struct Reference {
    std::vector<float> weight, total, velocity;
    double loss = 0;
    int64_t correct = 0;

    void forward(const Batch &batch, const std::vector<float> &mean, std::vector<float> &y) {
        y.assign(size_t(batch.size() * classes), 0);
        for (int64_t i = 0; i < batch.size(); i++)
            for (int k = 0; k < classes; k++)
                for (int c = 0; c < inputs; c++)
                    y[size_t(i * classes + k)] +=
                        weight[size_t(k * inputs + c)] * (batch.images[size_t(i * inputs + c)] - mean[size_t(c)]);
    }
    void score(const Batch &batch, std::vector<float> &y) { // y becomes its gradient, times the batch
        loss = 0;
        correct = 0;
        for (int64_t i = 0; i < batch.size(); i++) {
            float *row = &y[size_t(i * classes)];
            correct += (row[1] > row[0] ? 1 : 0) == batch.labels[size_t(i)];
            row[batch.labels[size_t(i)]] -= 1;
            loss += (double(row[0]) * row[0] + double(row[1]) * row[1]) / 2 / double(batch.size());
        }
    }
    void train(const Batch &batch, float rate) {
        std::vector<float> mean(inputs), y;
        for (size_t i = 0; i < batch.images.size(); i++) mean[i % inputs] += batch.images[i] / float(batch.size());
        for (size_t c = 0; c < inputs; c++) total[c] += mean[c];
        forward(batch, mean, y);
        score(batch, y);
        for (size_t k = 0; k < classes; k++)
            for (size_t c = 0; c < inputs; c++) {
                float grad = 0;
                for (size_t i = 0; i < batch.labels.size(); i++)
                    grad += y[i * classes + k] * batch.images[i * inputs + c] / float(batch.size());
                velocity[k * inputs + c] = float(momentum) * velocity[k * inputs + c] + grad;
                weight[k * inputs + c] -= rate * velocity[k * inputs + c];
            }
    }
};

void expect_near(const std::vector<float> &a, const std::vector<float> &b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); i++) EXPECT_NEAR(a[i], b[i], tolerance) << i;
}

void serial(void *, int tasks, void (*task)(void *, int), void *user) {
    for (int i = tasks - 1; i >= 0; i--) task(user, i);
}

void one_of_them(void *, int tasks, void (*task)(void *, int), void *user) {
    std::vector<std::thread> threads;
    for (int i = 0; i < tasks; i++) threads.emplace_back(task, user, i);
    for (std::thread &thread : threads) thread.join();
}

uint64_t train_hash(int threads, void (*parallel)(void *, int, void (*)(void *, int), void *)) {
    Program program;
    Model model(program, threads, parallel);
    for (int i = 0; i < 60; i++) {
        Batch batch(2 + i % 8, i);
        EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), batch.size(), nullptr), CRYO_OK);
    }
    return model.hash();
}

} // namespace

TEST(RuntimeStep, EveryBatchSizeAgreesWithPlainLoops) {
    for (int size = 1; size <= max_batch; size++) {
        SCOPED_TRACE("batch of " + std::to_string(size));
        Program program;
        program.train.min_batch = 1;
        Model model(program, 2);
        Batch large(max_batch, 5), batch(size);
        ASSERT_EQ(cryo_train_step(model, large.images.data(), large.labels.data(), max_batch, nullptr), CRYO_OK);
        Reference reference{model.get("2.weight"), model.get("1.total"), model.get("optimizer.velocity.2.weight")};
        for (int i = 0; i < 3; i++) {
            cryo_result result = {};
            ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), size, &result), CRYO_OK);
            reference.train(batch, 0.125f);
            EXPECT_NEAR(result.loss, reference.loss, 1e-5);
            EXPECT_EQ(result.correct, reference.correct);
        }
        expect_near(model.get("2.weight"), reference.weight, 1e-5);
        expect_near(model.get("1.total"), reference.total, 1e-5);
        expect_near(model.get("optimizer.velocity.2.weight"), reference.velocity, 1e-5);

        std::vector<float> y, outputs(size_t(size * classes) + 8, 77.0f);
        reference.forward(batch, reference.total, y);
        ASSERT_EQ(cryo_infer(model, batch.images.data(), size, outputs.data()), CRYO_OK);
        for (size_t i = y.size(); i < outputs.size(); i++) EXPECT_EQ(outputs[i], 77.0f) << "wrote past the rows";
        outputs.resize(y.size());
        expect_near(outputs, y, 1e-4);

        uint64_t before = model.hash();
        cryo_result result = {};
        ASSERT_EQ(cryo_evaluate(model, batch.images.data(), batch.labels.data(), size, &result), CRYO_OK);
        reference.score(batch, y);
        EXPECT_NEAR(result.loss, reference.loss, 1e-4);
        EXPECT_EQ(result.correct, reference.correct);
        EXPECT_EQ(model.hash(), before) << "evaluate changed something";
        EXPECT_EQ(cryo_steps(model), 4);
    }
}

TEST(RuntimeStep, SameBitsWithAnyNumberOfThreads) {
    uint64_t expected = train_hash(1, nullptr);
    for (int threads : {2, 3, 8, 16}) EXPECT_EQ(train_hash(threads, nullptr), expected) << threads;
    for (int threads : {1, 2, 3, 8}) {
        EXPECT_EQ(train_hash(threads, serial), expected) << threads;
        EXPECT_EQ(train_hash(threads, one_of_them), expected) << threads;
    }
}
