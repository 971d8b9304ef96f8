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

namespace {

struct Recorder {
    std::vector<std::pair<int, int>> calls; // tasks asked for, tasks run
    static void run(void *pool, int tasks, void (*task)(void *, int), void *user) {
        int ran = 0;
        for (int i = 0; i < tasks; i++, ran++) task(user, i);
        static_cast<Recorder *>(pool)->calls.push_back({tasks, ran});
    }
};

} // namespace

TEST(RuntimeStep, TheHookIsCalledOnceAStepWithNoMoreTasksThanUseful) {
    Program program;
    Recorder recorder;
    cryo_options options = {4, nullptr, 0, Recorder::run, &recorder};
    cryo_model *model = nullptr;
    ASSERT_EQ(cryo_open(&program.program, &options, &model), CRYO_OK);
    Batch batch(max_batch);
    ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), max_batch, nullptr), CRYO_OK);
    // 3 blocks; 3 blocks; 3 blocks and 3 tiles, which 4 threads share; then the 2 tiles of the tail.
    EXPECT_EQ(recorder.calls, (std::vector<std::pair<int, int>>{{4, 4}}));
    recorder.calls.clear();
    std::vector<float> outputs(classes * lanes);
    ASSERT_EQ(cryo_infer(model, batch.images.data(), lanes, outputs.data()), CRYO_OK);
    EXPECT_TRUE(recorder.calls.empty()) << "one task needs no pool";
    cryo_close(model);
}

namespace {

// Tiles of each block: who was called for what. Then the rows.
int tile_result(void **argv) { // valid, block, tile, result (V), of one class
    enter();
    for (int v = 0; v < lanes; v++)
        at(argv, 3, v) = v < scalar(argv, 0) ? float(10 * scalar(argv, 1) + scalar(argv, 2)) : 0.0f;
    if (scalar(argv, 1) == fail_block) at(argv, 3, 0) = NAN;
    return 0;
}
const cryo_arg tile_args[] = {valid_arg, block_arg, arg(CRYO_ARG_TILE),
                              arg(CRYO_REGION_ARENA, result, 1, y_dims, result_block, lanes * 4)};
const cryo_arg rows_args[] = {result_arg, output_arg};
const cryo_step in_tiles[] = {{tile_result, "2", "tile_result", tile_args, 4, classes, 1, 1, 0, 0, 1}};
const cryo_step to_rows[] = {step(unpack, "output", "unpack k=2", rows_args)};

// Strips of a block, of one class each: the first step leaves them in the same place, from which the second one takes
// them.
int copy_strip(void **argv) { // from (V), to (V)
    enter();
    for (int v = 0; v < lanes; v++) at(argv, 1, v) = at(argv, 0, v);
    return 0;
}
const cryo_arg strip_arg = arg(CRYO_REGION_SCRATCH, scratch_y, 1, y_dims);
const cryo_arg make_args[] = {valid_arg, block_arg, arg(CRYO_ARG_TILE), strip_arg};
const cryo_arg take_args[] = {strip_arg, arg(CRYO_REGION_ARENA, result, 1, y_dims, result_block, lanes * 4)};
const cryo_step in_strips[] = {{tile_result, "2", "make_strip", make_args, 4, classes, 0, 2, 0, 0, 1},
                               {copy_strip, "3", "copy_strip", take_args, 2, classes, 0, 1, 0, 0, 1},
                               step(unpack, "output", "unpack k=2", rows_args)};

// The number of a sample's block and of a class, of so many samples.
void expect_numbers(Model &model, const Batch &batch, int count) {
    std::vector<float> outputs(max_batch * classes, -1.0f);
    ASSERT_EQ(cryo_infer(model, batch.images.data(), count, outputs.data()), CRYO_OK) << model.error();
    for (int n = 0; n < max_batch; n++)
        for (int k = 0; k < classes; k++)
            EXPECT_EQ(outputs[size_t(n * classes + k)], n < count ? float(10 * (n / lanes) + k) : -1.0f) << n;
}

} // namespace

TEST(RuntimeStep, StripsOfABlock) {
    cryo_phase phase = {in_strips, 3, nullptr, 0, nullptr, 0};
    Program program;
    program.infer.phases = &phase;
    program.infer.arena_bytes = arena_bytes;
    Batch batch(max_batch);
    for (bool tasks : {false, true})
        for (int threads : {1, 2, 8}) {
            SCOPED_TRACE(tasks ? "strips are tasks" : "blocks are tasks");
            program.infer.strip_tasks = tasks;
            Model model(program, threads);
            for (int count : {1, lanes, lanes + 1, max_batch}) expect_numbers(model, batch, count);
            ASSERT_EQ(cryo_set_check_finite(model, 1), CRYO_OK);
            fail_block = 1;
            std::vector<float> outputs(max_batch * classes);
            EXPECT_EQ(cryo_infer(model, batch.images.data(), max_batch, outputs.data()), CRYO_NOT_FINITE);
            EXPECT_EQ(model.error(), "layer '2', kernel 'make_strip': a NaN in the result of samples 4 to 7");
            fail_block = -1;
        }
}

TEST(RuntimeStep, TilesOfEachBlock) {
    std::array<cryo_phase, 2> phases = {{{nullptr, 0, in_tiles, 1, nullptr, 0}, {to_rows, 1, nullptr, 0, nullptr, 0}}};
    Program program;
    program.infer.phases = phases.data();
    program.infer.phase_count = 2;
    program.infer.arena_bytes = arena_bytes;
    Batch batch(max_batch);
    for (int threads : {1, 2, 8}) {
        Model model(program, threads);
        for (int count : {1, lanes, lanes + 1, max_batch}) expect_numbers(model, batch, count);
        ASSERT_EQ(cryo_set_check_finite(model, 1), CRYO_OK);
        fail_block = 2;
        std::vector<float> outputs(max_batch * classes);
        EXPECT_EQ(cryo_infer(model, batch.images.data(), max_batch, outputs.data()), CRYO_NOT_FINITE);
        EXPECT_EQ(model.error(), "layer '2', kernel 'tile_result': a NaN in the result of samples 8 to 8");
        fail_block = -1;
    }
}

TEST(RuntimeStep, AKernelsErrorNamesLayerAndKernelAndEndsTheStep) {
    Batch batch(max_batch);
    for (int threads : {1, 2, 8}) {
        Program program;
        Model model(program, threads);
        for (int block : {0, 1, 2}) {
            uint64_t before = model.hash();
            fail_tail = true;
            EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), max_batch, nullptr),
                      CRYO_KERNEL_ERROR);
            EXPECT_EQ(model.error(), "layer '1', kernel 'center c=3': the kernel failed (error -8)");
            fail_tail = false;
            EXPECT_EQ(model.hash(), before);

            fail_block = block;
            std::vector<float> outputs(max_batch * classes, 5.0f);
            EXPECT_EQ(cryo_infer(model, batch.images.data(), max_batch, outputs.data()), CRYO_KERNEL_ERROR);
            EXPECT_EQ(model.error(), "layer '2', kernel 'forward c=3 k=2': the kernel failed (error -7)");
            EXPECT_EQ(outputs[max_batch * classes - 1], 5.0f) << "a failed step copied its staged rows";
            calls = 0;
            EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), max_batch, nullptr),
                      CRYO_KERNEL_ERROR);
            fail_block = -1;
            EXPECT_LE(calls, 3 * 2 + 1 + 3 * 2) << "phases behind the failed one ran";
            EXPECT_EQ(cryo_steps(model), block) << "a failed step was counted";
            EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), max_batch, nullptr), CRYO_OK);
        }
    }
}

namespace {

// Reads the control block and this block's index back out through the arena the test owns.
struct OwnArena {
    std::vector<uint8_t> bytes;
    uint8_t *aligned = nullptr;
    explicit OwnArena(const Program &program, int threads) {
        size_t size = cryo_arena_bytes(&program.program, threads);
        bytes.resize(size + 64);
        aligned = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
    }
};

// A plan of one tail step that copies the control block's numbers to a state.
int copy_control(void **argv) { // learning rate (1), batch (1), step (1), total (inputs)
    for (int i = 0; i < 3; i++) at(argv, 3, i) = at(argv, i, 0);
    return 0;
}
const cryo_arg control_args[] = {
    arg(CRYO_REGION_CONTROL, offsetof(cryo_control, learning_rate), 1, one),
    arg(CRYO_REGION_CONTROL, offsetof(cryo_control, batch), 1, one),
    arg(CRYO_REGION_CONTROL, offsetof(cryo_control, step), 1, one),
    total_arg,
};
const cryo_step control_steps[] = {step(copy_control, "control", "copy_control", control_args)};

std::vector<double> rates(int64_t rate, double period, double gamma, int steps) {
    Program program;
    program.train_phases[0] = {nullptr, 0, nullptr, 0, control_steps, 1};
    program.train.phase_count = 1;
    program.program.rate = rate;
    program.program.rate_period = period;
    program.program.rate_gamma = gamma;
    Model model(program);
    std::vector<double> seen;
    for (int i = 0; i < steps; i++) {
        Batch batch(2 + i);
        EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), batch.size(), nullptr), CRYO_OK);
        std::vector<float> control = model.get("1.total");
        EXPECT_EQ(control[1], float(2 + i));
        EXPECT_EQ(control[2], float(i));
        EXPECT_EQ(cryo_steps(model), i + 1);
        seen.push_back(double(control[0]));
    }
    return seen;
}

} // namespace

TEST(RuntimeStep, LearningRateSchedules) {
    EXPECT_EQ(rates(CRYO_RATE_CONSTANT, 0, 0, 3), (std::vector<double>{0.125, 0.125, 0.125}));
    EXPECT_EQ(rates(CRYO_RATE_STEP, 2, 0.5, 6), (std::vector<double>{0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.03125}));
    std::vector<double> cosine = rates(CRYO_RATE_COSINE, 4, 0, 6);
    const double expected[] = {0.125, 0.125 * 0.8535533905932737, 0.0625, 0.125 * 0.14644660940672624, 0, 0};
    for (size_t i = 0; i < cosine.size(); i++) EXPECT_NEAR(cosine[i], expected[i], 1e-8) << i;
}

TEST(RuntimeStep, TheLearningRateCanBeSet) {
    Program program;
    Model model(program);
    Batch batch(4);
    EXPECT_EQ(cryo_learning_rate(model), 0.125);
    ASSERT_EQ(cryo_set_learning_rate(model, 0), CRYO_OK);
    std::vector<float> before = model.get("2.weight");
    ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), 4, nullptr), CRYO_OK);
    EXPECT_EQ(model.get("2.weight"), before);
    for (double bad : {-0.1, double(INFINITY), double(NAN)})
        EXPECT_EQ(cryo_set_learning_rate(model, bad), CRYO_BAD_ARGUMENT) << bad;
    EXPECT_EQ(model.error().substr(0, 13), "learning rate");
    EXPECT_EQ(cryo_learning_rate(model), 0);
}

TEST(RuntimeStep, MemoryOfTheCallerGivesTheSameBits) {
    Program program;
    OwnArena arena(program, 2);
    std::fill(arena.bytes.begin(), arena.bytes.end(), uint8_t(0xff)); // NaN, were it read
    cryo_options options = {2, arena.aligned, cryo_arena_bytes(&program.program, 2), nullptr, nullptr};
    cryo_model *own = nullptr;
    ASSERT_EQ(cryo_open(&program.program, &options, &own), CRYO_OK) << cryo_open_error();
    cryo_initialize(own, 7);
    Model heap(program, 2);
    EXPECT_EQ(cryo_memory_bytes(own), cryo_memory_bytes(heap));
    for (int i = 0; i < 5; i++) {
        Batch batch(5 + i % 3, i);
        cryo_result a = {}, b = {};
        ASSERT_EQ(cryo_train_step(own, batch.images.data(), batch.labels.data(), batch.size(), &a), CRYO_OK);
        ASSERT_EQ(cryo_train_step(heap, batch.images.data(), batch.labels.data(), batch.size(), &b), CRYO_OK);
        EXPECT_EQ(a.loss, b.loss);
    }
    std::vector<float> weights(6);
    ASSERT_EQ(cryo_get_parameter(own, "2.weight", weights.data(), 6), CRYO_OK);
    EXPECT_EQ(weights, heap.get("2.weight"));
    cryo_close(own);
}

namespace {

// A tile step that reads the rows of all blocks: their number must be padded to whole blocks.
int sum_rows(void **argv) { // batch, rows (inputs, V NB), label (V NB), total (inputs)
    int padded = (scalar(argv, 0) + lanes - 1) / lanes * lanes;
    for (int c = 0; c < inputs; c++) at(argv, 3, c) = 0;
    for (int i = 0; i < padded; i++) {
        for (int c = 0; c < inputs; c++) at(argv, 3, c) += at(argv, 1, c, i);
        at(argv, 3, 0) += 100 * float(at<int32_t>(argv, 2, i));
    }
    return 0;
}
const cryo_dim all_rows_dims[] = {{inputs, 1}, {lanes * max_blocks, inputs}},
               all_labels_dims[] = {{lanes * max_blocks, 1}};
const cryo_arg sum_rows_args[] = {batch_arg, arg(CRYO_REGION_INPUT, 0, 2, all_rows_dims),
                                  arg(CRYO_REGION_LABEL, 0, 1, all_labels_dims), total_arg};
const cryo_step sum_rows_steps[] = {step(sum_rows, "rows", "sum_rows", sum_rows_args)};

} // namespace

TEST(RuntimeStep, StepsThatSeeAllRowsSeeThemPadded) {
    Program program;
    program.train_phases[0] = {train_0, 2, sum_rows_steps, 1, nullptr, 0};
    program.train.phase_count = 1;
    Model model(program, 2);
    for (int size = 2; size <= max_batch; size++) {
        Batch batch(size); // exactly the rows: reading more is seen by the address sanitizer
        batch.images.shrink_to_fit();
        ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), size, nullptr), CRYO_OK);
        float expected[inputs] = {};
        for (size_t i = 0; i < batch.images.size(); i++) expected[i % inputs] += batch.images[i];
        for (int32_t label : batch.labels) expected[0] += 100 * float(label);
        std::vector<float> total = model.get("1.total");
        for (size_t c = 0; c < inputs; c++) EXPECT_NEAR(total[c], expected[c], 1e-3);
    }
}
