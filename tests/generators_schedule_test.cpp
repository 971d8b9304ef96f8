// Tile sizes of the heavy kernels: divisors where they must divide, never more accumulators than registers.
#include "generators/schedule.h"

#include <gtest/gtest.h>

namespace cryolite::testing {
namespace {

TEST(Schedule, WeightTilesDivide) {
    for (int c : {1, 5, 84, 120, 256, 784, 4096})
        for (int k = 1; k <= 300; k++)
            for (int lanes : {4, 8, 16}) {
                const auto [inputs, outputs] = linear_grad_weight_tile(c, k, lanes);
                ASSERT_EQ(c % inputs, 0) << c << " " << k;
                ASSERT_EQ(k % outputs, 0) << c << " " << k;
                ASSERT_TRUE(inputs == c || outputs == k) << c << " " << k;
            }
    EXPECT_LT(linear_grad_weight_tile(256, 120, 8).inputs, 256) << "no tasks to share";
    EXPECT_LT(linear_grad_weight_tile(333, 770, 8).outputs, 770) << "no tasks to share";
}

TEST(Schedule, TilesFitTheRegisters) {
    for (int budget : {1, 3, 12, 24})
        for (int x : {1, 2, 7, 12, 31, 224})
            for (int c : {1, 3, 16, 37, 512}) {
                const Tile tile = best_tile({.x = x, .c = c, .steps = 9}, budget);
                ASSERT_GE(tile.x * tile.c, 1);
                ASSERT_LE(tile.x * tile.c, budget);
                ASSERT_LE(tile.x, x);
                ASSERT_LE(tile.c, c);
            }
}

} // namespace
} // namespace cryolite::testing
