// Threads: inference from several at once, the pool's manners, denormals, profiles.
#include "runtime_model.h"

#include <ctime>
#include <gtest/gtest.h>
#include <thread>

using namespace tiny;

namespace {

double cpu_seconds() {
    timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

void train(Model &model, int steps) {
    Batch batch(max_batch);
    for (int i = 0; i < steps; i++)
        ASSERT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), max_batch, nullptr), CRYO_OK);
}

} // namespace

TEST(RuntimeThreads, FourContextsInferAtOnce) {
    Program program;
    Model model(program, 2);
    train(model, 3);
    Batch batch(max_batch);
    std::vector<float> expected(max_batch * classes);
    ASSERT_EQ(cryo_infer(model, batch.images.data(), max_batch, expected.data()), CRYO_OK);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            cryo_context *context = nullptr;
            if (cryo_context_open(model, &context) != CRYO_OK) wrong++;
            for (int i = 0; i < 400; i++) {
                int size = 1 + (i + t) % max_batch;
                std::vector<float> outputs(size_t(size * classes));
                if (cryo_context_infer(context, batch.images.data(), size, outputs.data()) != CRYO_OK) wrong++;
                if (!std::equal(outputs.begin(), outputs.end(), expected.begin())) wrong++;
            }
            if (cryo_context_infer(context, batch.images.data(), 0, expected.data()) != CRYO_BAD_ARGUMENT) wrong++;
            if (std::string(cryo_context_error(context)) != "batch of 0: expected 1 to 9") wrong++;
            cryo_context_close(context);
        });
    for (std::thread &thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_STREQ(cryo_context_error(nullptr), "context is null");
}

TEST(RuntimeThreads, AContextsKernelErrorStaysItsOwn) {
    Program program;
    Model model(program);
    cryo_context *context = nullptr;
    ASSERT_EQ(cryo_context_open(model, &context), CRYO_OK);
    Batch batch(4);
    std::vector<float> outputs(8);
    fail_block = 0;
    EXPECT_EQ(cryo_context_infer(context, batch.images.data(), 4, outputs.data()), CRYO_KERNEL_ERROR);
    fail_block = -1;
    EXPECT_STREQ(cryo_context_error(context), "layer '2', kernel 'forward c=3 k=2': the kernel failed (error -7)");
    EXPECT_EQ(model.error(), "");
    EXPECT_EQ(cryo_context_infer(context, batch.images.data(), 4, outputs.data()), CRYO_OK);
    cryo_context_close(context);
}

TEST(RuntimeThreads, AnIdlePoolSleeps) {
    Program program;
    Model model(program, 8);
    train(model, 10);
    std::this_thread::sleep_for(std::chrono::milliseconds(200)); // past the workers' patience, and then some
    double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_LT(cpu_seconds() - before, 0.03);
    train(model, 10); // and wakes
    EXPECT_EQ(cryo_steps(model), 20);
}

TEST(RuntimeThreads, WorkersTakePart) {
    Program program;
    Model model(program, 2);
    static std::atomic<std::thread::id> caller;
    static std::atomic<int> elsewhere;
    caller = std::this_thread::get_id();
    elsewhere = 0;
    in_kernel = [] {
        if (std::this_thread::get_id() != caller.load()) elsewhere++;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    };
    train(model, 5);
    in_kernel = nullptr;
    EXPECT_GT(elsewhere, 0);
}

TEST(RuntimeThreads, MoreThreadsThanCoresFinish) {
    Program program;
    Model model(program, 64);
    auto start = std::chrono::steady_clock::now();
    train(model, 500); // 1500 phases
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_LT(seconds, 20);
}

TEST(RuntimeThreads, OpenAndCloseAtOnce) {
    Program program;
    for (int i = 0; i < 20; i++) {
        Model idle(program, 4), used(program, 4);
        train(used, 1);
    }
}

#if defined(__x86_64__) || defined(__aarch64__)
TEST(RuntimeThreads, KernelsSeeDenormalsFlushedAndTheCallerDoesNot) {
    Program program;
    for (int threads : {1, 4}) {
        Model model(program, threads);
        calls = flushes = 0;
        train(model, 20);
        EXPECT_EQ(flushes, calls);
        EXPECT_EQ(calls, 20 * (6 + 1 + 6 + 3 + 3 + 2));
        volatile float least = 1e-38f;
        volatile float quotient = least / 16.0f;
        EXPECT_NE(quotient, 0.0f) << "the caller's mode was not put back";
    }
}
#endif

TEST(RuntimeThreads, ProfilesCountCallsAndTime) {
    Program program;
    Model model(program, 3);
    train(model, 2); // not counted
    ASSERT_EQ(cryo_profile_count(model), 9u + 4u + 3u);
    ASSERT_EQ(cryo_set_profiling(model, 1), CRYO_OK);
    in_kernel = [] { std::this_thread::sleep_for(std::chrono::microseconds(50)); };
    train(model, 4);
    in_kernel = nullptr;
    ASSERT_EQ(cryo_set_profiling(model, 0), CRYO_OK);
    train(model, 2); // not counted
    struct Expected {
        const char *name;
        int phase;
        int64_t calls;
    } expected[] = {{"0", 0, 12},
                    {"1", 0, 12},
                    {"1", 0, 4},
                    {"2", 1, 12},
                    {"loss", 1, 12},
                    {"mark", 2, 12},
                    {"2.weight_grad", 2, 8},
                    {"loss", 2, 4},
                    {"2.weight", 2, 8}};
    cryo_profile_row row;
    for (size_t i = 0; i < std::size(expected); i++) {
        ASSERT_EQ(cryo_profile_at(model, i, &row), CRYO_OK);
        EXPECT_STREQ(row.mode, "train");
        EXPECT_STREQ(row.name, expected[i].name);
        EXPECT_EQ(row.phase, expected[i].phase);
        EXPECT_EQ(row.calls, expected[i].calls) << i;
        EXPECT_GE(row.seconds, double(row.calls) * 50e-6);
        EXPECT_EQ(row.flops, 10.0 * double(row.calls));
        EXPECT_EQ(row.bytes, 100.0 * double(row.calls));
    }
    ASSERT_EQ(cryo_profile_at(model, 9, &row), CRYO_OK);
    EXPECT_STREQ(row.mode, "evaluate");
    EXPECT_EQ(row.calls, 0);
    ASSERT_EQ(cryo_profile_at(model, 15, &row), CRYO_OK);
    EXPECT_STREQ(row.mode, "infer");
    EXPECT_STREQ(row.kernel, "unpack k=2");
    EXPECT_EQ(cryo_profile_at(model, 16, &row), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "profile row 16: the model has 16");
    EXPECT_EQ(cryo_profile_at(model, 0, nullptr), CRYO_BAD_ARGUMENT);
    cryo_profile_phase phase;
    size_t phases = cryo_profile_phase_count(model);
    ASSERT_GT(phases, 3u);
    for (size_t i = 0; i < phases; i++) {
        ASSERT_EQ(cryo_profile_phase_at(model, i, &phase), CRYO_OK);
        bool train = std::string(phase.mode) == "train";
        EXPECT_EQ(train, i < 3);
        EXPECT_EQ(phase.runs, train ? 4 : 0);
        if (train) {
            EXPECT_EQ(phase.phase, int(i));
            EXPECT_GE(phase.seconds, 4 * 50e-6); // at least one kernel in each
        }
    }
    EXPECT_EQ(cryo_profile_phase_at(model, phases, &phase), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_profile_phase_at(model, 0, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_profile_phase_count(nullptr), 0u);
    ASSERT_EQ(cryo_set_profiling(model, 1), CRYO_OK); // clears
    ASSERT_EQ(cryo_profile_at(model, 0, &row), CRYO_OK);
    EXPECT_EQ(row.calls, 0);
    EXPECT_EQ(row.seconds, 0);
    ASSERT_EQ(cryo_profile_phase_at(model, 0, &phase), CRYO_OK);
    EXPECT_EQ(phase.runs, 0);
    EXPECT_EQ(phase.seconds, 0);
}
