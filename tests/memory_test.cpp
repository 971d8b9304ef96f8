// pack_lifetimes: no overlap, near the lower bound, whatever the lifetimes.
#include "memory.h"

#include <gtest/gtest.h>

#include <random>

using namespace cryolite;

static bool overlap(int64_t a, int64_t a_end, int64_t b, int64_t b_end) { return a < b_end && b < a_end; }

static void check_packing(const std::vector<Lifetime> &lifetimes, int64_t total, int64_t alignment) {
    for (size_t i = 0; i < lifetimes.size(); i++) {
        const Lifetime &a = lifetimes[i];
        EXPECT_EQ(a.offset % alignment, 0);
        EXPECT_LE(a.offset + a.bytes, total);
        for (size_t j = 0; j < i; j++) {
            const Lifetime &b = lifetimes[j];
            if (a.begin > b.end || b.begin > a.end) continue;
            EXPECT_FALSE(overlap(a.offset, a.offset + a.bytes, b.offset, b.offset + b.bytes)) << i << " and " << j;
        }
    }
}

TEST(Memory, NothingNeedsNothing) {
    std::vector<Lifetime> none;
    EXPECT_EQ(pack_lifetimes(none, 64), 0);
    EXPECT_EQ(peak_bytes(none, 64), 0);
}

TEST(Memory, ValuesThatNeverMeetShareTheirPlace) {
    std::vector<Lifetime> lifetimes{{100, 0, 1}, {100, 2, 3}};
    EXPECT_EQ(pack_lifetimes(lifetimes, 64), 128);
    EXPECT_EQ(lifetimes[0].offset, lifetimes[1].offset);
}

TEST(Memory, ValuesThatMeetAtOneTimeDoNot) {
    std::vector<Lifetime> lifetimes{{64, 0, 2}, {64, 2, 3}};
    EXPECT_EQ(pack_lifetimes(lifetimes, 64), 128);
    check_packing(lifetimes, 128, 64);
}

TEST(Memory, WhatIsPlacedStaysAndIsKeptClearOf) {
    const std::vector<Lifetime> placed{{64, 0, 3, 64}, {64, 2, 3, 0}};
    std::vector<Lifetime> lifetimes{{64, 0, 1}, {64, 3, 4}};
    EXPECT_EQ(pack_lifetimes(lifetimes, 64, placed), 192);
    EXPECT_EQ(lifetimes[0].offset, 0); // a hole, until 2
    EXPECT_EQ(lifetimes[1].offset, 128);
    std::vector<Lifetime> none;
    EXPECT_EQ(pack_lifetimes(none, 64, placed), 128);
    std::mt19937 random(2);
    for (int round = 0; round < 100; round++) {
        std::vector<Lifetime> first(random() % 30), second(random() % 30);
        for (std::vector<Lifetime> *some : {&first, &second})
            for (Lifetime &life : *some) {
                life.bytes = 1 + random() % 10000;
                life.begin = int(random() % 20);
                life.end = life.begin + int(random() % 6);
            }
        pack_lifetimes(first, 64);
        const int64_t total = pack_lifetimes(second, 64, first);
        std::vector<Lifetime> all = first;
        all.insert(all.end(), second.begin(), second.end());
        check_packing(all, total, 64);
    }
}

TEST(Memory, RandomLifetimesNeverOverlapAndStayNearTheBound) {
    std::mt19937 random(1);
    for (int round = 0; round < 300; round++) {
        std::vector<Lifetime> lifetimes(random() % 60);
        for (Lifetime &life : lifetimes) {
            life.bytes = 1 + random() % 10000;
            life.begin = int(random() % 20);
            life.end = life.begin + int(random() % 6);
        }
        int64_t total = pack_lifetimes(lifetimes, 64);
        check_packing(lifetimes, total, 64);
        EXPECT_GE(total, peak_bytes(lifetimes, 64));
        EXPECT_LE(double(total), 1.1 * double(peak_bytes(lifetimes, 64))) << "round " << round;
    }
}
