// Decisions of passes taken otherwise than their models would: the numbers stay, and a tuner finds, keeps and resumes.
#include "fixture.h"
#include "networks.h"
#include "tune/step_tuner.h"

#include <algorithm>
#include <filesystem>
#include <gtest/gtest.h>
#include <set>

#include <unistd.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// Winograd is one of two ways here, weight gradients have two phases, and sums of activations are read often.
void wide(Network &net) {
    Value x = net.input("image", {1, 28, 28});
    x = avg_pool2d(conv2d(x, {.channels = 32, .window = 3, .padding = 1}), {.window = 2});
    for (int i = 0; i < 2; i++) {
        Value y = tanh(batch_norm(conv2d(x, {.channels = 32, .window = 3, .padding = 1})));
        x = tanh(batch_norm(conv2d(y, {.channels = 32, .window = 3, .padding = 1}))) + x;
    }
    x = tanh(conv2d(x, {.channels = 48, .window = 1}));
    net.classify(linear(flatten(avg_pool2d(x, {.window = 14})), {.units = 10}));
}

class StepTuner : public testing::Test {
protected:
    void SetUp() override {
        folder_ = std::filesystem::temp_directory_path() / ("cryolite_step_" + std::to_string(getpid()));
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string file(const std::string &name = "step.db") const { return (folder_ / name).string(); }

    // A database with this answer alone.
    std::string answered(const Decision &decision, const Knobs &option, const std::string &stale = "") const {
        std::filesystem::remove_all(file());
        TunedSchedule row{.key = decision_key(decision.kind, decision.about, resolve_target(options_)),
                          .knobs = option,
                          .seconds = 1,
                          .own_seconds = 2,
                          .made = "2026-01-02",
                          .machine = "A processor"};
        row.key.source += stale;
        ScheduleDatabase(file(), ScheduleDatabase::write).store({row});
        return file();
    }

    static std::set<std::string> kernels(const CompiledModel &model) {
        std::set<std::string> keys;
        for (const CompiledObject &object : model.objects) keys.insert(object.keys.begin(), object.keys.end());
        return keys;
    }

    std::filesystem::path folder_;
    CompileOptions options_{.batch = 32, .cache = test_cache()};
};

Tensors trained(TestModel &model, const Batches &batches) {
    model.initialize(3);
    for (int step = 0; step < 2; step++) model.train(batches, step * 32, 32);
    return model.parameters();
}

TEST_F(StepTuner, EveryAnswerGivesTheSameNumbers) {
    Batches batches;
    auto network = build(wide);
    TestModel usual(*network, options_);
    const Tensors expected = trained(usual, batches);
    std::map<std::string, int> kinds;
    int different = 0, alternatives = 0;
    for (const Decision &decision : decisions(*network, options_, Mode::train, {}))
        for (size_t i = 0; i < decision.options.size(); i++) {
            if (i == decision.usual || kinds[decision.kind] >= 6) continue;
            kinds[decision.kind]++;
            alternatives++;
            const std::string name = decision.kind + " " + decision.about + " " + print(decision.options[i]);
            SCOPED_TRACE(name);
            CompileOptions with = options_;
            with.schedules = answered(decision, decision.options[i]);
            TestModel other(*network, with);
            different += kernels(other.compiled()) != kernels(usual.compiled());
            double worst = 0;
            for (auto &[tensor, values] : trained(other, batches))
                worst = std::max(worst, difference(values, expected.at(tensor)));
            EXPECT_LT(worst, 1e-4);
        }
    EXPECT_EQ(different, alternatives) << "an answer that changes nothing is no decision";
    for (const char *kind : decision_kinds) EXPECT_GT(kinds[kind], 0) << kind;
}

TEST_F(StepTuner, StaleAnswersAndUnknownOptionsAreIgnored) {
    auto network = build(wide);
    const std::set<std::string> usual = kernels(compile(*network, options_));
    const Decision decision = decisions(*network, options_, Mode::train, {})[0];
    const Knobs other = decision.options[decision.usual ? 0 : 1];
    CompileOptions with = options_;
    with.schedules = answered(decision, other);
    EXPECT_NE(kernels(compile(*network, with)), usual);
    with.schedules = answered(decision, other, "x");
    EXPECT_EQ(kernels(compile(*network, with)), usual);
    with.schedules = answered(decision, {{"m", 7}});
    EXPECT_EQ(kernels(compile(*network, with)), usual);
    with.schedules = answered(decision, {});
    EXPECT_EQ(kernels(compile(*network, with)), usual);
}

TEST_F(StepTuner, TriesEveryAlternativeOnceAndKeepsWholeRows) {
    auto network = build(lenet);
    const Decision foreign{"storage", "graph=another value=7", {{{"recompute", 1}}, {{"store", 1}}}, 0};
    const std::string foreign_row =
        print(ScheduleDatabase(answered(foreign, {{"store", 1}}), ScheduleDatabase::read).all());
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    int heard = 0;
    StepTuneOptions tuning{.budget = 240, .pairs = 5};
    tuning.explain = [&](const Decision &, const Knobs &option, const std::string &outcome) {
        EXPECT_EQ(outcome.find("rejected"), std::string::npos) << outcome;
        EXPECT_FALSE(option.empty());
        heard++;
    };
    const TunedStep first = tune_step(*network, options_, database, tuning);
    EXPECT_TRUE(first.exhausted);
    EXPECT_EQ(first.failed, 0);
    EXPECT_EQ(first.timed, heard);
    EXPECT_GE(first.timed, 2);
    for (const TunedSchedule &row : database.all()) {
        EXPECT_GT(row.seconds, 0);
        EXPECT_LE(row.error, 1e-2);
        EXPECT_EQ(parse_schedule(print(row)).key, row.key);
    }
    // Kept is what is in the database with an option; and a compilation takes it.
    std::vector<TunedSchedule> rows = database.all();
    EXPECT_EQ(size_t(std::count_if(rows.begin(), rows.end(), [](auto &row) { return !row.knobs.empty(); })),
              first.kept.size() + 1);
    EXPECT_NE(print(rows).find(foreign_row), std::string::npos) << "another network's answer is gone";
    CompileOptions with = options_;
    with.schedules = file();
    EXPECT_EQ(kernels(compile(*network, with)) == kernels(compile(*network, options_)), first.kept.empty());

    EXPECT_EQ(tune_step(*network, options_, database, tuning).timed, 0) << "tried again";
}

TEST_F(StepTuner, AlternativesThatTakeTooLongNeverWin) {
    auto network = build(lenet);
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    StepTuneOptions tuning{.budget = 240, .patience = 1e-3};
    const TunedStep tuned = tune_step(*network, options_, database, tuning);
    EXPECT_GT(tuned.failed, 0);
    EXPECT_EQ(tuned.timed, 0);
    EXPECT_TRUE(database.all().empty());
}

TEST_F(StepTuner, AnInterruptEndsIt) {
    auto network = build(lenet);
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    const volatile std::sig_atomic_t stop = 1;
    StepTuneOptions tuning{.budget = 240};
    tuning.stop = &stop;
    const TunedStep tuned = tune_step(*network, options_, database, tuning);
    EXPECT_EQ(tuned.timed, 0);
    EXPECT_LT(tuned.passed, 60);
}

// A model for a device takes the rows of its kind.
TEST_F(StepTuner, KernelsForDevicesTakeTheirSchedules) {
    auto network = build(lenet);
    CompileOptions on_device = options_;
    on_device.target = "opencl";
    const std::vector<KernelWork> work = kernel_work(*network, on_device);
    auto conv = std::find_if(work.begin(), work.end(), [](auto &w) { return w.kernel.generator == "conv2d"; });
    ASSERT_NE(conv, work.end());
    const KernelTarget target = resolve_target(on_device);
    const TuningSpace space = tuning_space(conv->kernel, target);
    ASSERT_FALSE(space.knobs.empty());
    Knobs knobs;
    for (const Knob &knob : space.knobs)
        for (int value : knob.values)
            if (knobs.empty() && space.refusal({{knob.name, value}}).empty()) knobs = {{knob.name, value}};
    ASSERT_FALSE(knobs.empty());
    ScheduleDatabase(file(), ScheduleDatabase::write)
        .store({{.key = schedule_key(conv->kernel, target), .knobs = knobs, .made = "2026-01-02", .machine = "any"}});
    on_device.schedules = file();
    const std::set<std::string> keys = kernels(compile(*network, on_device));
    EXPECT_EQ(keys.count(with_knobs(conv->kernel, knobs).key()), 1u);
    EXPECT_EQ(keys.count(conv->kernel.key()), 0u);
}

} // namespace
