// What needs no kernel of tuning: text form, lookup, the database's file, the search, verdicts on noisy times.
#include "schedule_database.h"
#include "tune/duel.h"
#include "tune/search.h"

#include "graph.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <random>

#include <unistd.h>

#include <set>

using namespace cryolite;

namespace {

class SchedulesTest : public testing::Test {
protected:
    void SetUp() override {
        folder_ = std::filesystem::temp_directory_path() / ("cryolite_schedules_" + std::to_string(getpid()));
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::string file(const std::string &name) const { return (folder_ / name).string(); }

    KernelSpec conv(int c, int k = 64, int r = 3) const {
        auto text = [](int i) { return std::to_string(i); };
        return {"conv2d",
                {{"lanes", text(int(target_.lanes))},
                 {"c", text(c)},
                 {"h", "32"},
                 {"w", "32"},
                 {"k", text(k)},
                 {"r", text(r)},
                 {"s", text(r)},
                 {"stride", "1"},
                 {"padding", "1"},
                 {"bias", "false"}}};
    }
    TunedSchedule tuned(const KernelSpec &kernel, const Knobs &knobs) const {
        return {.key = schedule_key(kernel, target_),
                .knobs = knobs,
                .seconds = 1.25e-3,
                .own_seconds = 2e-3,
                .spread = 0.01,
                .error = 1e-7,
                .made = "2026-01-02",
                .machine = "A processor, 3 GHz"};
    }

    const KernelTarget target_ = resolve_target({});
    std::filesystem::path folder_;
};

TEST_F(SchedulesTest, TextIsReadBack) {
    const std::vector<TunedSchedule> both{tuned(conv(64), {{"tile_x", 3}, {"tile_c", 4}}), tuned(conv(32), {})};
    const std::string text = print(both);
    EXPECT_EQ(print(parse_schedules(text)), text);
    EXPECT_EQ(print(parse_schedules("# comment\n\n" + text)), text);
    EXPECT_EQ(parse_schedule(print(both[0])).key, both[0].key);
    EXPECT_EQ(parse_schedule(print(both[0])).knobs, both[0].knobs);
    EXPECT_EQ(parse_schedule(print(both[1])).knobs, Knobs{});
}

TEST_F(SchedulesTest, DamagedTextIsNamed) {
    const std::string line = print(tuned(conv(64), {{"tile_x", 3}}));
    std::mt19937 random(1);
    int refused = 0;
    for (int i = 0; i < 2000; i++) {
        std::string damaged = line;
        const size_t at = random() % line.size();
        if (i % 2)
            damaged.resize(at);
        else
            damaged[at] = char(random());
        try {
            parse_schedule(damaged);
        } catch (const CompileError &) { refused++; }
    }
    EXPECT_GT(refused, 900);
    for (const char *knobs : {"tile_x=-1", "tile_x=", "=3", "tile_x=99999999999", "tile_x=3x"})
        EXPECT_THROW(parse_knobs(knobs), CompileError) << knobs;
}

TEST_F(SchedulesTest, LookupTakesTheExactShapeThenTheNearest) {
    const Knobs near = {{"tile_x", 3}, {"tile_c", 4}}, exact = {{"tile_x", 2}, {"tile_c", 5}},
                far = {{"tile_x", 1}, {"tile_c", 8}};
    Schedules schedules;
    schedules.add({tuned(conv(48), near), tuned(conv(64), exact), tuned(conv(512), far)});
    EXPECT_EQ(schedules.find(conv(64), target_), exact);
    EXPECT_EQ(schedules.find(conv(40), target_), near);
    EXPECT_EQ(schedules.find(conv(40), target_, false), Knobs{});
    EXPECT_EQ(schedules.find(conv(400), target_), far);
    EXPECT_EQ(schedules.find(conv(4), target_), Knobs{}) << "too far from all";
    EXPECT_EQ(schedules.find(conv(64, 64, 5), target_), Knobs{}) << "another window";
}

TEST_F(SchedulesTest, EarlierOnesArePreferredAndNoKnobsAreAnAnswer) {
    Schedules schedules;
    schedules.add({tuned(conv(64), {})});
    schedules.add({tuned(conv(64), {{"tile_x", 2}, {"tile_c", 5}}), tuned(conv(60), {{"tile_x", 2}, {"tile_c", 5}})});
    EXPECT_EQ(schedules.find(conv(64), target_), Knobs{});
}

TEST_F(SchedulesTest, StaleAndForeignRowsAreIgnored) {
    const Knobs knobs = {{"tile_x", 3}, {"tile_c", 4}};
    for (std::string ScheduleKey::*part : {&ScheduleKey::source, &ScheduleKey::halide, &ScheduleKey::cpu,
                                           &ScheduleKey::target, &ScheduleKey::type, &ScheduleKey::path}) {
        TunedSchedule stale = tuned(conv(64), knobs);
        stale.key.*part += "x";
        Schedules schedules;
        schedules.add({stale});
        EXPECT_EQ(schedules.find(conv(64), target_), Knobs{});
    }
    for (const Knobs &wrong : {Knobs{{"tile_x", 3}}, Knobs{{"tile_x", 15}, {"tile_c", 15}}, Knobs{{"lanes", 4}},
                               Knobs{{"tile_x", 1000}, {"tile_c", 1}}}) {
        Schedules schedules;
        schedules.add({tuned(conv(64), wrong)});
        EXPECT_EQ(schedules.find(conv(64), target_), Knobs{}) << print(wrong);
    }
}

// A change of a generator, or of a header that it includes, makes the rows of all its kernels stale. Where its code for
// them is the same as before, write the present hash into the file; where it is not, tune them again.
TEST_F(SchedulesTest, WhatShipsIsOfThePresentSources) {
    int rows = 0;
    for (auto &entry : std::filesystem::directory_iterator(CRYOLITE_SOURCE "/generators/schedules")) {
        if (entry.path().extension() != ".schedules") continue;
        std::ifstream in(entry.path());
        const std::string text(std::istreambuf_iterator<char>(in), {});
        for (const TunedSchedule &row : parse_schedules(text)) {
            SCOPED_TRACE(entry.path().filename().string() + ": " + row.key.generator + " " + row.key.shape);
            const ScheduleKey present = schedule_key({row.key.generator, {}}, target_);
            EXPECT_EQ(row.key.source, present.source);
            EXPECT_EQ(row.key.halide, present.halide);
            rows++;
        }
    }
    EXPECT_GT(rows, 0);
}

TEST_F(SchedulesTest, KnobsAreNoPartOfTheKey) {
    const KernelSpec changed = with_knobs(conv(64), {{"tile_x", 3}, {"tile_c", 4}});
    EXPECT_EQ(schedule_key(changed, target_), schedule_key(conv(64), target_));
    EXPECT_NE(kernel_symbol(changed, target_), kernel_symbol(conv(64), target_)) << "the cache must tell them apart";
}

TEST_F(SchedulesTest, TheDatabaseKeepsWhatItIsGiven) {
    const std::string name = file("folder/that/is/made.db");
    const std::vector<TunedSchedule> given{tuned(conv(32), {}), tuned(conv(64), {{"tile_x", 3}, {"tile_c", 4}})};
    {
        ScheduleDatabase database(name, ScheduleDatabase::write);
        database.store(given);
        database.store({given[1]}); // replaces
        database.add_tried(given[0].key, {{{"tile_x", 1}}, "slow"});
    }
    ScheduleDatabase database(name, ScheduleDatabase::read);
    EXPECT_EQ(print(database.all()), print(given));
    ASSERT_EQ(database.tried(given[0].key).size(), 1u);
    EXPECT_EQ(database.tried(given[0].key)[0].outcome, "slow");
    EXPECT_TRUE(database.tried(given[1].key).empty());
    EXPECT_THROW(database.store(given), CompileError) << "opened for reading";
    EXPECT_EQ(load_schedules(name).find(conv(64), target_), given[1].knobs);
}

TEST_F(SchedulesTest, FilesThatAreNoDatabase) {
    EXPECT_THROW(ScheduleDatabase(file("missing.db"), ScheduleDatabase::read), CompileError);
    EXPECT_THROW(ScheduleDatabase(folder_.string(), ScheduleDatabase::write), CompileError);
    std::ofstream(file("text.db")) << std::string(5000, 'x');
    EXPECT_THROW(ScheduleDatabase(file("text.db"), ScheduleDatabase::read), CompileError);
    EXPECT_THROW(ScheduleDatabase(file("text.db"), ScheduleDatabase::write), CompileError);
    std::ofstream(file("empty.db"));
    EXPECT_THROW(ScheduleDatabase(file("empty.db"), ScheduleDatabase::read).all(), CompileError);
}

// Every byte of a small database damaged in turn, a sample of them: an error or rows, never anything else.
TEST_F(SchedulesTest, DamagedDatabases) {
    const std::string name = file("whole.db"), damaged = file("damaged.db");
    { ScheduleDatabase(name, ScheduleDatabase::write).store({tuned(conv(64), {{"tile_x", 3}, {"tile_c", 4}})}); }
    std::ifstream in(name, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    ASSERT_GT(bytes.size(), 4096u);
    std::mt19937 random(1);
    for (int i = 0; i < 400; i++) {
        std::string copy = bytes;
        copy[i < 100 ? size_t(i) : random() % copy.size()] ^= char(1 + random() % 255);
        if (i % 10 == 9) copy.resize(random() % copy.size());
        std::ofstream(damaged, std::ios::binary) << copy;
        try {
            load_schedules(damaged).find(conv(64), target_);
        } catch (const CompileError &) {}
    }
}

TEST_F(SchedulesTest, EverySpaceHasTheGeneratorsChoiceAndMore) {
    const std::vector<std::string> names = tunable_generators();
    EXPECT_GE(names.size(), 10u);
    const KernelTarget target = target_;
    for (const std::string &name : names) {
        const KernelSpec kernel{name,
                                {{"c", "64"},
                                 {"h", "16"},
                                 {"w", "16"},
                                 {"k", "64"},
                                 {"r", "3"},
                                 {"s", "3"},
                                 {"padding", "1"},
                                 {"max_batch", "64"}}};
        const TuningSpace space = tuning_space(kernel, target);
        EXPECT_EQ(space.refusal({}), "") << name;
        EXPECT_NE(space.refusal({{"no_knob", 1}}), "") << name;
        Search search(space, 1);
        std::set<Knobs> seen;
        for (int i = 0; i < 8; i++) {
            auto knobs = search.next();
            EXPECT_TRUE(!knobs || seen.insert(*knobs).second) << print(*knobs);
        }
        EXPECT_GE(seen.size(), 3u) << name;
    }
}

TEST(SearchTest, BeginsWithTheGeneratorsChoiceThenWhatIsSuggestedThenOneKnobAtATime) {
    TuningSpace space;
    space.knobs = {{"tile_x", from_one_to(4)}, {"tile_c", from_one_to(4)}, {"unroll", {2, 4}}};
    space.together = {"tile_x", "tile_c"};
    Search search(space, 1);
    search.suggest({{"tile_x", 3}, {"tile_c", 2}, {"unroll", 0}});
    EXPECT_EQ(search.next(), Knobs{});
    EXPECT_EQ(search.next(), (Knobs{{"tile_x", 3}, {"tile_c", 2}}));
    EXPECT_EQ(search.next(), (Knobs{{"unroll", 2}}));
    EXPECT_EQ(search.next(), (Knobs{{"unroll", 4}}));
    std::set<Knobs> others;
    while (auto knobs = search.next()) others.insert(*knobs);
    EXPECT_EQ(others.size(), 17 * 3 - 4u); // tiles or none, three unrolls; four were proposed
}

TEST(SearchTest, FindsTheBestOfASmoothSpaceAndEnds) {
    TuningSpace space;
    space.knobs = {{"a", from_one_to(15)}, {"b", from_one_to(15)}};
    space.together = {"a", "b"};
    int refusals = 0;
    space.refuse = [](const Knobs &k) { return knob(k, "a") * knob(k, "b") > 60 ? std::string("large") : ""; };
    Search search(space, 3, [&](const Knobs &, const std::string &) { refusals++; });
    int best_at = 0, count = 0;
    while (auto knobs = search.next()) {
        EXPECT_EQ(space.refusal(*knobs), "");
        const double a = knob(*knobs, "a"), b = knob(*knobs, "b");
        search.timed(*knobs, 1 + (a - 7) * (a - 7) + (b - 5) * (b - 5));
        count++;
        if (a == 7 && b == 5) best_at = count;
    }
    EXPECT_GT(best_at, 0);
    EXPECT_LT(best_at, 70) << "of 225 points";
    EXPECT_GT(count, 100);
    EXPECT_GT(refusals, 20);
}

// Times with the noise of a shared machine: mostly a few per cent, sometimes several times as long.
Pairs noisy(double champion, double challenger, uint64_t seed, int pairs = 15) {
    std::mt19937_64 random(seed);
    std::exponential_distribution<double> small(40), large(1);
    auto sample = [&](double seconds) {
        return [&, seconds] { return seconds * (1 + small(random) + (random() % 8 == 0 ? large(random) : 0)); };
    };
    return duel(sample(champion), sample(challenger), pairs);
}

TEST(Duel, EqualOnesDoNotWin) {
    int wins = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) wins += judge(noisy(1, 1, seed)).wins;
    EXPECT_LE(wins, 20); // one in a hundred, and a winner must win twice
}

TEST(Duel, FasterOnesWin) {
    int wins = 0;
    for (uint64_t seed = 0; seed < 200; seed++) wins += judge(noisy(1, 0.85, seed)).wins;
    EXPECT_GE(wins, 180);
}

TEST(Duel, SlowerOnesAreGivenUpEarly) {
    EXPECT_LE(noisy(1, 2, 1).champion.size(), 4u);
    for (uint64_t seed = 0; seed < 500; seed++) EXPECT_FALSE(judge(noisy(1, 1.03, seed)).wins);
    EXPECT_FALSE(judge({}).wins);
}

} // namespace
