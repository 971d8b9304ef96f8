// Whole networks on a device beside the same networks on the processor: results, states, checkpoints, errors.
#include "device_value.h"
#include "fixture.h"
#include "networks.h"

#include "../runtime/device/model_on_device.h"

#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>
#include <map>
#include <thread>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// Weights decay so much that an update which read a weight it had written already would be seen.
const Sgd sgd{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.05};

// Forwards to the real device, counts, and fails when told to. With `records_order` it records nothing, but notes what
// would have to come after what, while all is made in order.
class Watched final : public runtime::Device {
public:
    explicit Watched(Device &device) : device_(device) {}
    size_t up = 0, down = 0, copies = 0;
    bool lost = false, records_order = false;
    int recordings = 0, replays = 0;
    std::vector<std::vector<size_t>> order; // by note, of the last recording

    const char *name() const override { return device_.name(); }
    uintptr_t allocate(size_t bytes) override { return device_.allocate(bytes); }
    void release(uintptr_t memory) override { device_.release(memory); }
    cryo_status clear(uintptr_t memory, size_t bytes, runtime::Text &error) override {
        return lost ? fail(error) : device_.clear(memory, bytes, error);
    }
    cryo_status upload(uintptr_t to, const void *from, size_t bytes, runtime::Text &error) override {
        up += bytes, copies++;
        return lost ? fail(error) : device_.upload(to, from, bytes, error);
    }
    cryo_status download(void *to, uintptr_t from, size_t bytes, runtime::Text &error) override {
        down += bytes, copies++;
        return lost ? fail(error) : device_.download(to, from, bytes, error);
    }
    cryo_status finish(runtime::Text &error) override { return lost ? fail(error) : device_.finish(error); }
    const char *kernel_error() const override { return device_.kernel_error(); }
    cryo_status mark(size_t number, runtime::Text &error) override { return device_.mark(number, error); }
    double seconds(size_t from, size_t to) const override { return device_.seconds(from, to); }
    bool records() const override { return records_order || device_.records(); }
    cryo_status begin_recording(runtime::Text &error) override {
        if (!records_order) return device_.begin_recording(error);
        order.clear();
        return CRYO_OK;
    }
    cryo_status after(const std::vector<size_t> &notes, runtime::Text &error) override {
        if (!records_order) return device_.after(notes, error);
        order.push_back(notes);
        return CRYO_OK;
    }
    cryo_status note(size_t number, runtime::Text &error) override {
        if (!records_order) return device_.note(number, error);
        EXPECT_EQ(number + 1, order.size());
        return CRYO_OK;
    }
    cryo_status end_recording(Recording &made, runtime::Text &error) override {
        if (!records_order) return device_.end_recording(made, error);
        recordings++;
        made = this;
        return CRYO_OK;
    }
    cryo_status replay(Recording made, runtime::Text &error) override {
        if (!records_order) return lost ? fail(error) : device_.replay(made, error);
        EXPECT_EQ(++replays, recordings) << "what is replayed twice would not be made";
        return CRYO_OK;
    }
    void forget(Recording made) override {
        if (!records_order) device_.forget(made);
    }

private:
    static cryo_status fail(runtime::Text &error) { return error.fail(CRYO_DEVICE_ERROR, "the device is gone"); }
    Device &device_;
};

class DeviceModels : public testing::TestWithParam<const char *> {
protected:
    void SetUp() override {
        std::string why;
        if (!(device = open_device(GetParam(), why))) GTEST_SKIP() << why;
    }
    runtime::Device *device = nullptr;
    Batches batches;
};

// A fresh model of the residual network. OpenCL's compiler takes a second for it even where it knows it, so there is
// one.
TestModel &on(const std::string &target) {
    static std::map<std::string, std::unique_ptr<TestModel>> made;
    std::unique_ptr<TestModel> &model = made[target];
    if (model)
        model->reopen(2);
    else
        model = std::make_unique<TestModel>(*build(residual, sgd), CompileOptions{.batch = 64, .target = target});
    return *model;
}

// float32 on both sides, sums in another order.
void expect_equal(const Tensors &a, const Tensors &b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto &[name, values] : a) EXPECT_LE(difference(values, b.at(name)), tolerance) << name;
}

// Ragged batches of one block and of several, in all modes.
TEST_P(DeviceModels, AgreeWithTheProcessor) {
    TestModel &here = on("host"), &there = on(GetParam());
    for (TestModel *model : {&here, &there}) model->initialize(3);
    EXPECT_EQ(here.hash(), there.hash());
    for (int64_t batch : {64, 3, 33, 8}) {
        const cryo_result a = here.train(batches, batch, batch), b = there.train(batches, batch, batch);
        EXPECT_NEAR(a.loss, b.loss, 1e-5 * a.loss) << batch;
        EXPECT_EQ(a.correct, b.correct) << batch;
    }
    expect_equal(there.parameters(), here.parameters(), 1e-4);
    for (int64_t batch : {64, 1, 13}) {
        const cryo_result a = here.evaluate(batches, 7, batch), b = there.evaluate(batches, 7, batch);
        EXPECT_NEAR(a.loss, b.loss, 1e-4 * a.loss) << batch;
        EXPECT_LE(difference(there.infer(batches, 7, batch), here.infer(batches, 7, batch)), 1e-4) << batch;
    }
    EXPECT_EQ(cryo_steps(there.get()), 4);
}

TEST_P(DeviceModels, EveryRunEndsInTheSameBits) {
    TestModel &model = on(GetParam());
    uint64_t first = 0;
    for (int run : {0, 1, 2}) {
        model.reopen(1);
        model.initialize(5);
        for (int64_t batch : {64, 17, 64}) model.train(batches, 0, batch);
        if (run == 0) first = model.hash();
        EXPECT_EQ(model.hash(), first) << run;
    }
}

// Modes between train steps change nothing; what inference prepares from the parameters follows them.
TEST_P(DeviceModels, ModesDoNotDisturbEachOther) {
    TestModel &model = on(GetParam());
    model.initialize(5);
    for (int step = 0; step < 3; step++) model.train(batches, 64 * step, 64);
    const uint64_t trained = model.hash();
    model.reopen(1);
    model.initialize(5);
    std::vector<float> before, after;
    for (int step = 0; step < 3; step++) {
        model.train(batches, 64 * step, 64);
        model.evaluate(batches, 0, 20);
        after = model.infer(batches, 0, 20);
        EXPECT_NE(before, after);
        before = after;
    }
    EXPECT_EQ(model.hash(), trained);
}

TEST_P(DeviceModels, ParametersByName) {
    TestModel &model = on(GetParam());
    model.initialize(5);
    model.train(batches, 0, 64);
    const std::vector<float> before = model.infer(batches, 0, 20);
    Tensors tensors = model.parameters();
    for (float &w : tensors["fc.bias"]) w += 1;
    model.set({{"fc.bias", tensors["fc.bias"]}});
    EXPECT_EQ(model.parameters(), tensors);
    EXPECT_LE(difference(model.infer(batches, 0, 20), before), 1e-5); // softmax does not see it
    tensors["fc.bias"][3] += 1;
    model.set(tensors);
    EXPECT_GT(difference(model.infer(batches, 0, 20), before), 1e-2);
}

TEST_P(DeviceModels, CheckpointsGoEitherWay) {
    TestModel &here = on("host"), &there = on(GetParam());
    there.initialize(9);
    there.train(batches, 0, 64);
    ASSERT_EQ(cryo_save(there.get(), "device.safetensors"), CRYO_OK) << cryo_error(there.get());
    ASSERT_EQ(cryo_load(here.get(), "device.safetensors"), CRYO_OK) << cryo_error(here.get());
    EXPECT_EQ(here.hash(), there.hash());
    EXPECT_EQ(cryo_steps(here.get()), 1);
    here.train(batches, 64, 64);
    ASSERT_EQ(cryo_save(here.get(), "host.safetensors"), CRYO_OK) << cryo_error(here.get());
    ASSERT_EQ(cryo_load(there.get(), "host.safetensors"), CRYO_OK) << cryo_error(there.get());
    EXPECT_EQ(here.hash(), there.hash());
    EXPECT_LE(difference(there.infer(batches, 0, 50), here.infer(batches, 0, 50)), 1e-5);
}

TEST_P(DeviceModels, ThreadsInfer) {
    TestModel &model = on(GetParam());
    model.initialize(9);
    const std::vector<float> expected = model.infer(batches, 0, 40);
    std::vector<std::vector<float>> outputs(3, std::vector<float>(400));
    std::vector<std::thread> threads;
    for (std::vector<float> &out : outputs)
        threads.emplace_back([&] {
            cryo_context *context = nullptr;
            ASSERT_EQ(cryo_context_open(model.get(), &context), CRYO_OK);
            for (int i = 0; i < 5; i++)
                EXPECT_EQ(cryo_context_infer(context, batches.image(0), 40, out.data()), CRYO_OK);
            cryo_context_close(context);
        });
    for (std::thread &thread : threads) thread.join();
    for (const std::vector<float> &out : outputs) EXPECT_EQ(out, expected);
}

TEST_P(DeviceModels, NotFiniteNamesTheLayer) {
    TestModel &model = on(GetParam());
    model.initialize(9);
    ASSERT_EQ(cryo_set_check_finite(model.get(), 1), CRYO_OK);
    model.train(batches, 0, 64);
    Tensors tensors = model.parameters();
    tensors["layer2.conv1.weight"][7] = INFINITY;
    model.set(tensors);
    cryo_result result = {};
    EXPECT_EQ(cryo_train_step(model.get(), batches.image(0), batches.label(0), 64, &result), CRYO_NOT_FINITE);
    EXPECT_NE(std::string(cryo_error(model.get())).find("layer 'layer2.conv1'"), std::string::npos)
        << cryo_error(model.get());
    EXPECT_EQ(model.parameters(), tensors); // stopped before the update
    ASSERT_EQ(cryo_set_check_finite(model.get(), 0), CRYO_OK);
    EXPECT_EQ(cryo_train_step(model.get(), batches.image(0), batches.label(0), 64, &result), CRYO_OK);
}

TEST_P(DeviceModels, ProfileHasEveryLaunch) {
    TestModel &model = on(GetParam());
    model.initialize(9);
    ASSERT_EQ(cryo_set_profiling(model.get(), 1), CRYO_OK);
    for (int step = 0; step < 2; step++) model.train(batches, 0, 64);
    size_t rows = 0;
    double seconds = 0, phase_seconds = 0;
    for (size_t i = 0; i < cryo_profile_count(model.get()); i++) {
        cryo_profile_row row;
        ASSERT_EQ(cryo_profile_at(model.get(), i, &row), CRYO_OK);
        if (std::string(row.mode) != "train") continue;
        EXPECT_EQ(row.calls, 2) << row.kernel;
        seconds += row.seconds;
        rows++;
    }
    for (size_t i = 0; i < cryo_profile_phase_count(model.get()); i++) {
        cryo_profile_phase phase;
        ASSERT_EQ(cryo_profile_phase_at(model.get(), i, &phase), CRYO_OK);
        phase_seconds += phase.seconds;
    }
    EXPECT_GT(rows, 50u);
    EXPECT_NEAR(seconds, phase_seconds, 1e-9);
}

// The network's program, but its device is another one.
struct Rewired {
    static inline runtime::Device *to = nullptr;
    cryo_device opens = {[](const cryo_program &program, uint8_t *parameters,
                            std::unique_ptr<runtime::DeviceModel> &model,
                            runtime::Text &error) { return open_on(*to, program, parameters, model, error); }};
    cryo_program program;
    cryo_plan train = *program.train;
    cryo_model *model = nullptr;
    Rewired(runtime::Device &device, const std::string &target) : program(*on(target).program()) {
        to = &device;
        program.train = &train;
        program.device = &opens;
    }
    ~Rewired() { cryo_close(model); }
};

TEST_P(DeviceModels, CopyTheBatchAndTheLossAlone) {
    Watched watched(*device);
    Rewired rewired(watched, GetParam());
    ASSERT_EQ(cryo_open(&rewired.program, nullptr, &rewired.model), CRYO_OK) << cryo_open_error();
    ASSERT_EQ(cryo_initialize(rewired.model, 1), CRYO_OK);
    cryo_result result = {};
    std::vector<float> outputs(640);
    auto step = [&](const char *mode) {
        watched.up = watched.down = watched.copies = 0;
        cryo_status status = mode == std::string("train")
                                 ? cryo_train_step(rewired.model, batches.image(0), batches.label(0), 64, &result)
                             : mode == std::string("evaluate")
                                 ? cryo_evaluate(rewired.model, batches.image(0), batches.label(0), 64, &result)
                                 : cryo_infer(rewired.model, batches.image(0), 64, outputs.data());
        EXPECT_EQ(status, CRYO_OK) << cryo_error(rewired.model);
    };
    for (const char *mode : {"train", "evaluate", "infer"}) {
        for (int i = 0; i < 3; i++) step(mode); // first parameters and what is prepared of them
        const size_t images = 64 * 784 * 4, labels = mode == std::string("infer") ? 0 : 64 * 4;
        const size_t results = mode == std::string("infer") ? 64 * 10 * 4 : 2 * 4;
        EXPECT_EQ(watched.up, images + labels + sizeof(cryo_control)) << mode;
        EXPECT_EQ(watched.down, results) << mode;
        std::printf("    residual %s, batch 64: %zu bytes to the device, %zu back, in %zu copies\n", mode, watched.up,
                    watched.down, watched.copies);
    }
}

TEST_P(DeviceModels, AnArenaTooLargeIsOutOfMemory) {
    Watched watched(*device);
    Rewired rewired(watched, GetParam());
    rewired.train.arena_bytes = int64_t(1) << 39;
    EXPECT_EQ(cryo_open(&rewired.program, nullptr, &rewired.model), CRYO_OUT_OF_MEMORY);
    EXPECT_NE(std::string(cryo_open_error()).find(device->name()), std::string::npos) << cryo_open_error();
    EXPECT_EQ(rewired.model, nullptr);
}

TEST_P(DeviceModels, ALostDeviceIsAStatus) {
    Watched watched(*device);
    Rewired rewired(watched, GetParam());
    ASSERT_EQ(cryo_open(&rewired.program, nullptr, &rewired.model), CRYO_OK) << cryo_open_error();
    ASSERT_EQ(cryo_initialize(rewired.model, 1), CRYO_OK);
    cryo_result result = {};
    ASSERT_EQ(cryo_train_step(rewired.model, batches.image(0), batches.label(0), 64, &result), CRYO_OK);
    watched.lost = true;
    float bias[10];
    EXPECT_EQ(cryo_train_step(rewired.model, batches.image(0), batches.label(0), 64, &result), CRYO_DEVICE_ERROR);
    EXPECT_STREQ(cryo_error(rewired.model), "the device is gone");
    EXPECT_EQ(cryo_get_parameter(rewired.model, "fc.bias", bias, 10), CRYO_DEVICE_ERROR);
    EXPECT_EQ(cryo_save(rewired.model, "lost.safetensors"), CRYO_DEVICE_ERROR);
    EXPECT_EQ(cryo_steps(rewired.model), 1);
    TestModel &here = on("host"); // the program goes on
    here.initialize(1);
    here.train(batches, 0, 64);
}

// What a recording lets a device do side by side: all that does not touch the same memory, of a residual network its
// two paths for instance. Each train step's result is the one without.
TEST_P(DeviceModels, RecordingsKnowWhatDependsOnWhat) {
    (void)on(GetParam());
    std::vector<float> losses[2];
    Watched watched[2] = {Watched(*device), Watched(*device)};
    for (int recorded : {0, 1}) {
        watched[recorded].records_order = recorded;
        Rewired rewired(watched[recorded], GetParam());
        ASSERT_EQ(cryo_open(&rewired.program, nullptr, &rewired.model), CRYO_OK) << cryo_open_error();
        ASSERT_EQ(cryo_initialize(rewired.model, 1), CRYO_OK);
        for (int64_t batch : {64, 64, 9, 9}) {
            cryo_result result = {};
            ASSERT_EQ(cryo_train_step(rewired.model, batches.image(0), batches.label(0), batch, &result), CRYO_OK);
            losses[recorded].push_back(result.loss);
        }
    }
    EXPECT_EQ(losses[0], losses[1]);
    EXPECT_EQ(watched[1].recordings, 2); // of each batch the second step
    const std::vector<std::vector<size_t>> &order = watched[1].order;
    ASSERT_GT(order.size(), 50u);
    size_t waits = 0, together = 0;
    for (size_t i = 0; i < order.size(); i++) {
        for (size_t before : order[i]) EXPECT_LT(before, i);
        waits += order[i].size();
        together += i > 0 && std::count(order[i].begin(), order[i].end(), i - 1) == 0;
    }
    EXPECT_GE(waits, order.size() - 10) << "few launches of a step need nothing of it";
    EXPECT_GT(together, 10u) << "each launch waits for the one before";
}

INSTANTIATE_TEST_SUITE_P(On, DeviceModels, testing::Values("opencl", "cuda"),
                         [](const auto &info) { return std::string(info.param); });

// The test no_device runs it where OpenCL's loader finds nothing.
class NoDevice : public testing::TestWithParam<const char *> {};

TEST_P(NoDevice, IsAStatus) {
    std::string why;
    if (open_device(GetParam(), why)) return; // there is one
    const CompiledModel compiled = compile(
        *build(residual, sgd), {.batch = 64, .target = GetParam(), .cache = test_cache()}); // which needs no device
    LoadedModel loaded(compiled, device_functions());
    cryo_model *model = nullptr;
    EXPECT_EQ(cryo_open(loaded.program(), nullptr, &model), CRYO_NO_DEVICE);
    EXPECT_EQ(model, nullptr);
    EXPECT_STRNE(cryo_open_error(), "");
    std::printf("    %s\n", cryo_open_error());
    Batches batches;
    TestModel &here = on("host");
    here.initialize(1);
    here.train(batches, 0, 64);
}

INSTANTIATE_TEST_SUITE_P(On, NoDevice, testing::Values("opencl", "cuda"),
                         [](const auto &info) { return std::string(info.param); });

} // namespace
