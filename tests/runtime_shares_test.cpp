// Shares: every task is claimed once, each thread's own first, and what a thread leaves falls to the others.
#include "shares.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

using namespace cryolite::runtime;

static void begin(Shares &shares, int threads, int64_t tasks) {
    shares.begin(threads);
    for (int t = 0; t < threads; t++) shares.set(t, shares.part(tasks, t).size());
}

TEST(RuntimeShares, PartsFollowOneAnotherAndDifferByOneAtMost) {
    Shares shares;
    ASSERT_TRUE(shares.prepare(7));
    for (int threads : {1, 2, 3, 7})
        for (int64_t tasks : {0, 1, 2, 5, 16, 23}) {
            shares.begin(threads);
            int64_t next = 0;
            for (int t = 0; t < threads; t++) {
                const Part part = shares.part(tasks, t);
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
    begin(shares, 2, 5);
    Shares::Claim claim;
    for (int64_t place : {0, 1, 2}) { // the larger share
        ASSERT_TRUE(shares.claim(1, claim));
        EXPECT_EQ(claim.owner, 1);
        EXPECT_EQ(claim.place, place);
    }
    for (int64_t place : {0, 1}) { // thread 0 never came
        ASSERT_TRUE(shares.claim(1, claim));
        EXPECT_EQ(claim.owner, 0);
        EXPECT_EQ(claim.place, place);
    }
    EXPECT_FALSE(shares.claim(1, claim));
    EXPECT_FALSE(shares.claim(0, claim));
    begin(shares, 1, 1); // once more, fewer of both
    EXPECT_TRUE(shares.claim(0, claim));
    EXPECT_FALSE(shares.claim(0, claim));
}

TEST(RuntimeShares, NothingToDo) {
    Shares shares;
    ASSERT_TRUE(shares.prepare(2));
    Shares::Claim claim;
    EXPECT_FALSE(shares.claim(0, claim));
    begin(shares, 0, 0);
    EXPECT_FALSE(shares.claim(0, claim));
}

TEST(RuntimeShares, ThreadsThatRaceClaimEachTaskOnce) {
    constexpr int threads = 4, rounds = 200;
    Shares shares;
    ASSERT_TRUE(shares.prepare(threads));
    for (int round = 0; round < rounds; round++) {
        const int64_t tasks = round % 37;
        begin(shares, threads, tasks);
        std::vector<std::vector<int64_t>> claimed(threads);
        std::vector<std::thread> running;
        for (int t = 0; t < threads; t++)
            running.emplace_back([&, t] {
                Shares::Claim claim;
                while (shares.claim(t, claim))
                    claimed[size_t(t)].push_back(shares.part(tasks, claim.owner).first + claim.place);
            });
        for (std::thread &thread : running) thread.join();
        std::set<int64_t> all;
        size_t count = 0;
        for (const std::vector<int64_t> &some : claimed) {
            all.insert(some.begin(), some.end());
            count += some.size();
        }
        EXPECT_EQ(count, size_t(tasks));
        EXPECT_EQ(all.size(), size_t(tasks));
        if (tasks) {
            EXPECT_EQ(*all.begin(), 0);
            EXPECT_EQ(*all.rbegin(), tasks - 1);
        }
    }
}
