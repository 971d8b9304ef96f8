// The tuner against candidates that crash, hang, spill, write where they must not or give other numbers, made by a
// generator of this file; against interrupts; and four tuners on one database, killed.
#include "device_functions.h"
#include "tune/tuner.h"

#include "tune/child.h"
#include "tune/machine_code.h"

#include "Halide.h"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <limits>
#include <set>
#include <thread>

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace cryolite;

namespace {

enum Fault {
    none,
    aborts_in_compilation,
    hangs_in_compilation,
    throws,
    crashes,
    hangs,
    wrong_numbers,
    one_nan,
    writes_outside,
};

constexpr int too_many_vectors = 40;

// y(i) = sum over j of x(i) * w(j), eight elements at a time unless knob `vectors` says more: eight times as many hide
// the latency of the sums and are several times faster, forty are more than any register file holds.
class TunerTest : public Halide::Generator<TunerTest> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, size{"size", 4003}, faulty{"faulty", 0};
    GeneratorParam<int> vectors{"vectors", 0}, fault{"fault", 0}; // knobs
    Input<Buffer<float, 1>> x{"x"}, w{"w"};
    Output<Buffer<float, 1>> y{"y"};

    void generate() {
        if (fault == aborts_in_compilation) std::abort();
        if (fault == throws) throw Halide::CompileError("on purpose");
        while (fault == hangs_in_compilation) pause();
        const int terms = 64;
        for (auto *input : {&x, &w}) (*input).dim(0).set_min(0).set_stride(1);
        x.dim(0).set_extent(size);
        w.dim(0).set_extent(terms);
        y.dim(0).set_bounds(0, size).set_stride(1);
        Halide::Var i("i"), outer("outer"), inner("inner");
        Halide::RDom j(0, terms), forever(0, fault == hangs ? 1 << 30 : 1, 0, fault == hangs ? 1 << 20 : 1);
        Halide::Func sum("sum"), late("late");
        Halide::Expr at = fault == crashes ? i + (1 << 29) : i;
        sum(i) = 0.f;
        sum(i) += x(at) * w(j);
        late(i) = sum(i);
        if (fault == hangs) late(i) += Halide::sin(late(i) + forever.x);
        Halide::Expr value = late(i);
        if (fault == wrong_numbers) value *= 1.01f;
        if (fault == one_nan)
            value = Halide::select(i == 5, Halide::Expr(std::numeric_limits<float>::quiet_NaN()), value);
        y(i) = value;
        const int width = 8 * (vectors ? int(vectors) : 1);
        y.split(i, outer, inner, width,
                fault == writes_outside ? Halide::TailStrategy::RoundUp : Halide::TailStrategy::ShiftInwards);
        y.vectorize(inner, 8).unroll(inner).never_partition_all();
        sum.compute_at(y, outer).vectorize(i, 8).unroll(i);
        sum.update().reorder(i, j).vectorize(i, 8).unroll(i);
        if (fault == hangs) late.compute_at(y, outer);
    }
};

} // namespace

HALIDE_REGISTER_GENERATOR(TunerTest, tuner_test)

CRYOLITE_TUNING(tuner_test, [](const KernelShape &q) {
    TuningSpace space;
    space.knobs = {{"vectors", {8, too_many_vectors}}};
    if (int faulty = q.integer("faulty", 0)) space.knobs.push_back({"fault", {faulty}});
    return space;
})

namespace {

class Tuner : public testing::Test {
protected:
    void SetUp() override {
        folder_ = std::filesystem::temp_directory_path() / ("cryolite_tuner_" + std::to_string(getpid()));
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string file() const { return (folder_ / "schedules.db").string(); }
    KernelSpec kernel(int fault, int size = 4003) const {
        return {"tuner_test", {{"lanes", "8"}, {"size", std::to_string(size)}, {"faulty", std::to_string(fault)}}};
    }
    TuneOptions options() {
        TuneOptions options{.budget = 60, .patience = 2};
        options.explain = [this](const Knobs &knobs, const std::string &outcome) { outcomes_[knobs] = outcome; };
        return options;
    }

    const KernelTarget target_ = resolve_target({});
    std::map<Knobs, std::string> outcomes_;
    std::filesystem::path folder_;
};

TEST_F(Tuner, FindsWhatIsFaster) {
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    const Tuned tuned = tune(kernel(none), target_, database, options());
    EXPECT_EQ(tuned.schedule.knobs, (Knobs{{"vectors", 8}}));
    EXPECT_LT(tuned.schedule.seconds, 0.8 * tuned.schedule.own_seconds);
    EXPECT_TRUE(tuned.exhausted);
    ASSERT_EQ(database.all().size(), 1u);
    EXPECT_EQ(print(database.all()[0]), print(tuned.schedule));

    // What compilers ask for.
    Schedules schedules;
    schedules.add(database.all());
    EXPECT_EQ(schedules.find(kernel(none), target_), tuned.schedule.knobs);
}

// Bounds queries do not tell what a kernel keeps in its scratch.
TEST_F(Tuner, GivesKernelsTheScratchThatTheyUse) {
    KernelSpec packed{"conv2d", {{"c", "24"}, {"h", "1"}, {"w", "20"}, {"k", "32"}, {"r", "1"}, {"s", "1"}}};
    packed.parameters["lanes"] = std::to_string(target_.lanes);
    packed.parameters["pack"] = "true";
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    TuneOptions short_one = options();
    short_one.budget = 3;
    short_one.patience = 20;
    const Tuned tuned = tune(packed, target_, database, short_one);
    EXPECT_GT(tuned.counts.timed, 0);
    for (auto &[knobs, outcome] : outcomes_) EXPECT_EQ(outcome.find("rejected in"), std::string::npos) << outcome;
}

TEST_F(Tuner, RejectsSpillsByTheMachineCode) {
    if (!target_.name.starts_with("x86")) GTEST_SKIP() << "written for 16 and 32 registers";
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    tune(kernel(none), target_, database, options());
    const std::string outcome = outcomes_[{{"vectors", too_many_vectors}}];
    EXPECT_NE(outcome.find("spills"), std::string::npos) << outcome;

    auto hot = [&](const Knobs &knobs) {
        return machine_code(compile_kernel(with_knobs(kernel(none), knobs), target_).bytes, "test").hot;
    };
    EXPECT_EQ(hot({{"vectors", 8}}).stack_stores, 0);
    EXPECT_GE(hot({{"vectors", 8}}).multiply_adds, 8);
    EXPECT_GT(hot({{"vectors", too_many_vectors}}).stack_stores, 0);
}

// On a device kernels are timed by its clock, and rows are keyed by its name.
class TunerOn : public Tuner, public testing::WithParamInterface<const char *> {};

TEST_P(TunerOn, FindsSchedulesOfTheDevice) {
    KernelTarget target = resolve_target({.batch = 32, .target = GetParam()});
    TuneOptions on_device = options();
    on_device.patience = 60;
    on_device.budget = 8;
    on_device.pairs = 5;
    on_device.device = [&](std::string &why) { return open_device(target.name, why); };
    on_device.functions = device_functions();
    try {
        target.cpu = device_name(on_device.device);
    } catch (const InternalError &none) { GTEST_SKIP() << none.what(); }
    EXPECT_EQ(target.cpu.find(' '), std::string::npos);

    KernelSpec conv{"conv2d_grad_weight",
                    {{"lanes", "8"}, {"n", "32"}, {"c", "4"}, {"k", "4"}, {"h", "6"}, {"w", "6"}}};
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    int timed = 0;
    on_device.explain = [&](const Knobs &knobs, const std::string &outcome) {
        EXPECT_EQ(outcome.find("crashed"), std::string::npos) << print(knobs) << outcome;
        EXPECT_EQ(outcome.find("other numbers"), std::string::npos) << print(knobs) << outcome;
        timed += outcome.starts_with("timed") || outcome.starts_with("won");
    };
    tune(conv, target, database, on_device);
    EXPECT_GT(timed, 0);
    ASSERT_EQ(database.all().size(), 1u);
    TunedSchedule row = database.all()[0];
    EXPECT_EQ(row.key.cpu, target.cpu);
    EXPECT_EQ(row.machine, target.cpu);
    EXPECT_GT(row.seconds, 0);

    // The device's own row, any device's, and no other's.
    row.knobs = {{"unroll", 100}};
    Schedules schedules;
    schedules.add({row});
    EXPECT_EQ(schedules.find(conv, target), row.knobs);
    target.cpu = "any";
    EXPECT_EQ(schedules.find(conv, target), row.knobs);
    target.cpu = "another";
    EXPECT_EQ(schedules.find(conv, target), Knobs{});
}

INSTANTIATE_TEST_SUITE_P(Devices, TunerOn, testing::Values("opencl", "cuda"),
                         [](const auto &info) { return std::string(info.param); });

struct FaultCase {
    Fault fault;
    const char *outcome;
};

class Faults : public Tuner, public testing::WithParamInterface<FaultCase> {};

TEST_P(Faults, NeverEnterTheDatabase) {
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    const Tuned tuned = tune(kernel(GetParam().fault), target_, database, options());
    int faulty = 0;
    for (auto &[knobs, outcome] : outcomes_)
        if (knobs.count("fault") && !(knobs.count("vectors") && knobs.at("vectors") == too_many_vectors)) {
            EXPECT_NE(outcome.find(GetParam().outcome), std::string::npos) << print(knobs) << ": " << outcome;
            faulty++;
        }
    EXPECT_EQ(faulty, 2); // alone, and with what would make it win
    EXPECT_EQ(tuned.schedule.knobs, (Knobs{{"vectors", 8}})) << "the search does not go on";
    ASSERT_EQ(database.all().size(), 1u);
    EXPECT_EQ(database.all()[0].knobs.count("fault"), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, Faults,
                         testing::Values(FaultCase{aborts_in_compilation, "crashed"},
                                         FaultCase{hangs_in_compilation, "longer than"},
                                         FaultCase{throws, "on purpose"}, FaultCase{crashes, "crashed"},
                                         FaultCase{hangs, "longer than"}, FaultCase{wrong_numbers, "other numbers"},
                                         FaultCase{one_nan, "other numbers"},
                                         FaultCase{writes_outside, "outside of 'y'"}));

TEST_F(Tuner, GoesOnAfterAnInterrupt) {
    ScheduleDatabase database(file(), ScheduleDatabase::write);
    const KernelSpec kernel{"linear", {{"lanes", "8"}, {"c", "64"}, {"k", "48"}}};
    volatile std::sig_atomic_t stop = 0;
    TuneOptions first = options();
    first.stop = &stop;
    first.explain = [&](const Knobs &knobs, const std::string &outcome) {
        if (!outcome.starts_with("refused")) outcomes_[knobs] = outcome;
        stop = outcomes_.size() >= 5;
    };
    tune(kernel, target_, database, first);
    EXPECT_GE(outcomes_.size(), 5u);
    EXPECT_LT(outcomes_.size(), 30u);
    EXPECT_EQ(database.tried(schedule_key(kernel, target_)).size(), outcomes_.size());

    const std::map<Knobs, std::string> before = outcomes_;
    const std::vector<TunedSchedule> known = database.all();
    TuneOptions second = options();
    second.budget = 3;
    int again = 0;
    second.explain = [&](const Knobs &knobs, const std::string &) {
        again += before.count(knobs) && (known.empty() || known[0].knobs != knobs);
    };
    tune(kernel, target_, database, second);
    EXPECT_EQ(again, 0);
}

int integrity_problems(const std::string &file) {
    sqlite3 *handle = nullptr;
    int problems = 0;
    sqlite3_open_v2(file.c_str(), &handle, SQLITE_OPEN_READWRITE, nullptr);
    auto count = [](void *problems, int, char **text, char **) {
        *static_cast<int *>(problems) += std::string(text[0]) != "ok";
        return 0;
    };
    if (sqlite3_exec(handle, "PRAGMA integrity_check", count, &problems, nullptr) != SQLITE_OK) problems++;
    sqlite3_close(handle);
    return problems;
}

// Processes that work until they are killed.
void kill_after(double seconds, int processes, const std::function<void(int)> &work) {
    std::vector<pid_t> children;
    for (int i = 0; i < processes; i++) {
        const pid_t child = fork();
        if (child == 0) {
            setpgid(0, 0);
            try {
                for (int round = 0;; round++) work(i + processes * round);
            } catch (const std::exception &error) { std::fprintf(stderr, "%s\n", error.what()); }
            _exit(3);
        }
        children.push_back(child);
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    for (pid_t child : children) {
        EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "a process ended by itself";
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }
}

TEST_F(Tuner, FourOnOneDatabaseKilled) {
    kill_after(8, 4, [&](int i) {
        ScheduleDatabase database(file(), ScheduleDatabase::write);
        tune(kernel(none, 1003 + i), target_, database, {.budget = 1});
    });
    EXPECT_EQ(integrity_problems(file()), 0);
    const ScheduleDatabase database(file(), ScheduleDatabase::read);
    const std::vector<TunedSchedule> all = database.all();
    EXPECT_GE(all.size(), 2u);
    for (const TunedSchedule &schedule : all) {
        EXPECT_EQ(print(parse_schedule(print(schedule))), print(schedule));
        EXPECT_GT(schedule.seconds, 0);
        EXPECT_FALSE(schedule.machine.empty());
    }
}

// The same with writers that do nothing else: whoever is killed is killed while writing.
TEST_F(Tuner, WritersKilled) {
    const ScheduleKey key = schedule_key(kernel(none), target_);
    size_t rows = 0;
    for (int round = 0; round < 10; round++) {
        kill_after(0.2, 4, [&](int i) {
            ScheduleDatabase database(file(), ScheduleDatabase::write);
            TunedSchedule schedule{.key = key,
                                   .knobs = {{"vectors", 8}},
                                   .seconds = 1,
                                   .own_seconds = 2,
                                   .made = "today",
                                   .machine = "this one"};
            // Two rows at once: both are there, or none.
            std::vector<TunedSchedule> both{schedule, schedule};
            both[0].key.shape = "first " + std::to_string(round) + " " + std::to_string(i);
            both[1].key.shape = "second " + std::to_string(round) + " " + std::to_string(i);
            database.store(both);
        });
        ASSERT_EQ(integrity_problems(file()), 0);
        std::set<std::string> first, second;
        for (const TunedSchedule &schedule : ScheduleDatabase(file(), ScheduleDatabase::read).all()) {
            const std::string &shape = schedule.key.shape;
            const size_t space = shape.find(' ');
            (shape[0] == 'f' ? first : second).insert(shape.substr(space));
            EXPECT_EQ(schedule.machine, "this one");
        }
        EXPECT_EQ(first, second);
        EXPECT_GT(first.size(), rows);
        rows = first.size();
    }
}

TEST_F(Tuner, ChildrenThatEndOddly) {
    auto over = [](Child &child) {
        while (!child.finished()) Child::wait({&child}, 1);
    };
    Child well([] { return std::string(200000, 'x'); }, 10);
    over(well);
    EXPECT_TRUE(well.succeeded());
    EXPECT_EQ(well.text().size(), 200000u);
    Child silent([]() -> std::string { _exit(0); }, 10);
    over(silent);
    EXPECT_EQ(silent.failure(), "it ended without a word");
    Child slow(
        [] {
            pause();
            return std::string();
        },
        0.2);
    over(slow);
    EXPECT_EQ(slow.failure(), "it took longer than 0.2 s");
}

} // namespace
