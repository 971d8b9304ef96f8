// Shares: every task is claimed once, each thread's own first, and what a thread leaves falls to the others; rounds are
// over when their tasks are done, whoever did them.
#include "shares.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

using namespace cryolite::runtime;

namespace {

// So many tasks for so many threads, in each of the threads' views.
void next_round(Shares &shares, int thread, int threads, int64_t tasks) {
    shares.next_round(thread,
                      [=](int owner) { return owner < threads ? part_of(tasks, owner, threads).size() : int64_t(0); });
}

bool claim(Shares &shares, int thread, Shares::Claim &claim) {
    return shares.claim_own(thread, claim) || shares.claim_others(thread, claim);
}

} // namespace

TEST(RuntimeShares, PartsFollowOneAnotherAndDifferByOneAtMost) {
    for (int threads : {1, 2, 3, 7})
        for (int64_t tasks : {0, 1, 2, 5, 16, 23}) {
            int64_t next = 0;
            for (int t = 0; t < threads; t++) {
                const Part part = part_of(tasks, t, threads);
                EXPECT_EQ(part.first, next);
                EXPECT_GE(part.size(), tasks / threads);
                EXPECT_LE(part.size(), (tasks + threads - 1) / threads);
                next = part.end;
            }
            EXPECT_EQ(next, tasks);
        }
}

TEST(RuntimeShares, OwnTasksComeFirstAndInOrder) {
    Shares shares;
    ASSERT_TRUE(shares.prepare(2));
    for (int run = 0; run < 3; run++) {
        shares.begin();
        Shares::Claim claimed;
        for (int64_t round = 0; round < 2; round++) { // thread 0 never comes
            if (round == 0) shares.enter(1);
            next_round(shares, 1, 2, 5);
            for (int64_t place : {0, 1, 2}) { // the larger share
                ASSERT_TRUE(claim(shares, 1, claimed));
                EXPECT_EQ(claimed.owner, 1);
                EXPECT_EQ(claimed.place, place);
            }
            EXPECT_FALSE(shares.claim_own(1, claimed));
            for (int64_t place : {0, 1}) {
                ASSERT_TRUE(claim(shares, 1, claimed));
                EXPECT_EQ(claimed.owner, 0);
                EXPECT_EQ(claimed.place, place);
            }
            EXPECT_FALSE(claim(shares, 1, claimed));
            EXPECT_FALSE(shares.complete(1));
            shares.add_done(1, 4);
            EXPECT_FALSE(shares.complete(1));
            shares.add_done(1, 1);
            EXPECT_TRUE(shares.complete(1));
        }
        shares.enter(0); // late: nothing is left of either round
        for (int64_t round = 0; round < 2; round++) {
            next_round(shares, 0, 2, 5);
            EXPECT_FALSE(claim(shares, 0, claimed));
            EXPECT_TRUE(shares.complete(0));
        }
    }
}

// As after a kernel's error: tasks of the run before stay unclaimed, others are claimed and not done.
TEST(RuntimeShares, ARunThatEndedEarlyLeavesNothingBehind) {
    Shares shares;
    ASSERT_TRUE(shares.prepare(2));
    Shares::Claim claimed;
    shares.begin();
    shares.enter(0);
    next_round(shares, 0, 2, 8);
    for (int i = 0; i < 3; i++) ASSERT_TRUE(claim(shares, 0, claimed));
    shares.add_done(0, 2);
    shares.begin();
    shares.enter(0);
    next_round(shares, 0, 2, 2);
    int count = 0;
    while (claim(shares, 0, claimed)) {
        EXPECT_EQ(claimed.place, 0);
        EXPECT_FALSE(shares.complete(0));
        shares.add_done(0, 1);
        count++;
    }
    EXPECT_EQ(count, 2);
    EXPECT_TRUE(shares.complete(0));
}

TEST(RuntimeShares, NothingToDo) {
    Shares shares;
    ASSERT_TRUE(shares.prepare(2));
    Shares::Claim claimed;
    shares.begin();
    shares.enter(0);
    EXPECT_FALSE(claim(shares, 0, claimed));
    EXPECT_TRUE(shares.complete(0));
    next_round(shares, 0, 1, 0);
    EXPECT_FALSE(claim(shares, 0, claimed));
    EXPECT_TRUE(shares.complete(0));
}

// Every task once, and none before the round in front of it is complete.
TEST(RuntimeShares, ThreadsThatRaceGoThroughAllRounds) {
    constexpr int threads = 4, runs = 20, rounds = 40;
    auto tasks_in = [](int round) { return int64_t(round * 7 % 37); };
    Shares shares;
    ASSERT_TRUE(shares.prepare(threads));
    for (int run = 0; run < runs; run++) {
        std::vector<std::vector<int>> made; // plain numbers: the thread sanitizer sees what `complete` promises
        for (int r = 0; r < rounds; r++) made.emplace_back(size_t(tasks_in(r)), 0);
        std::vector<int> early(threads, 0);
        shares.begin();
        std::vector<std::thread> running;
        for (int t = 0; t < threads; t++)
            running.emplace_back([&, t] {
                shares.enter(t);
                for (int r = 0; r < rounds; r++) {
                    const int useful = 1 + (r + run) % threads;
                    next_round(shares, t, useful, tasks_in(r));
                    Shares::Claim claimed;
                    while (!shares.complete(t)) {
                        if (!claim(shares, t, claimed)) {
                            std::this_thread::yield();
                            continue;
                        }
                        for (int before : r ? made[size_t(r - 1)] : std::vector<int>()) early[size_t(t)] += before != 1;
                        made[size_t(r)][size_t(part_of(tasks_in(r), claimed.owner, useful).first + claimed.place)]++;
                        shares.add_done(t, 1);
                    }
                }
            });
        for (std::thread &thread : running) thread.join();
        for (int r = 0; r < rounds; r++)
            for (int count : made[size_t(r)]) EXPECT_EQ(count, 1) << "round " << r;
        for (int count : early) EXPECT_EQ(count, 0);
    }
}
