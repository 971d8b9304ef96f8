// Which batches are inferred sample by sample.
#include "plan_cost.h"

#include <gtest/gtest.h>

using namespace cryolite;

namespace {

// One layer: a weight, and what a sample has of values, in floats.
Plan plan_of(bool one, double flops, int64_t weight, int64_t values) {
    const int64_t lanes = one ? 1 : 16;
    PlanStep step{.layer = "1", .kernel = {"conv2d", {}}, .args = {}, .flops = flops * double(lanes)};
    step.args.push_back({.region = CRYO_REGION_PREPARED, .dims = {{weight, 1}}});
    step.args.push_back({.region = CRYO_REGION_ARENA, .dims = {{lanes, 1}, {values, lanes}}});
    Plan plan;
    plan.one = one;
    plan.lanes = lanes;
    plan.phases.emplace_back();
    (one ? plan.phases[0].tail : plan.phases[0].block).push_back(step);
    return plan;
}
int64_t few(double flops, int64_t weight, int64_t values, int64_t max_batch, int64_t threads = 1) {
    return largest_few(plan_of(true, flops, weight, values), plan_of(false, flops, weight, values), max_batch, threads);
}

TEST(PlanCost, WhatComputesIsAsFastEitherWay) {
    EXPECT_EQ(few(1e9, 1000, 1000, 8), 8);
    EXPECT_EQ(few(1e9, 1000, 1000, 100), 100);
}

// 400 MB for each sample, or for a block of 16.
TEST(PlanCost, LargeWeightsAreReadForManySamples) {
    EXPECT_EQ(few(1e6, 100'000'000, 1000, 100), 1);
    const int64_t some = few(1e9, 100'000'000, 1000, 100);
    EXPECT_GT(some, 1);
    EXPECT_LT(some, 16);
    EXPECT_EQ(few(1e6, 100'000'000, 1000, 1), 1);
}

// A block keeps one thread busy, its samples as many as there are; where it has tiles, all of them.
TEST(PlanCost, SamplesKeepAllThreadsBusy) {
    const int64_t on_one = few(1e9, 60'000'000, 1000, 100, 1), on_two = few(1e9, 60'000'000, 1000, 100, 2);
    EXPECT_LT(on_one, on_two);
    EXPECT_EQ(few(1e9, 60'000'000, 1000, 100, 64), 15);
    Plan tiled = plan_of(false, 1e9, 60'000'000, 1000), one = plan_of(true, 1e9, 60'000'000, 1000);
    tiled.phases[0].tile = std::move(tiled.phases[0].block);
    tiled.phases[0].block.clear();
    PlanStep &step = tiled.phases[0].tile[0];
    step.of_block = true;
    step.tiles = 2;
    step.flops /= 2;
    step.args[0].dims[0].extent /= 2;
    step.args[0].tile_stride = step.args[0].dims[0].extent * 4;
    EXPECT_LE(largest_few(one, tiled, 100, 2), on_one + 1);
}

// 0.8 MB of a sample stay in a core's cache, of 16 do not.
TEST(PlanCost, LargeValuesAreMadeForOneSample) { EXPECT_EQ(few(1e6, 1000, 200'000, 100), 100); }

// Tiles that see their part of an argument see all of it, those that see the same see it once.
TEST(PlanCost, TilesHavePartsOfTheWork) {
    Plan whole = plan_of(true, 1e6, 8'000'000, 1000), parts = plan_of(true, 1e6 / 8, 1'000'000, 1000);
    PlanStep &step = parts.phases[0].tail[0];
    step.tiles = 8;
    step.args[0].tile_stride = 4'000'000;
    EXPECT_DOUBLE_EQ(seconds_of(whole, 1, 1), seconds_of(parts, 1, 1));
}

TEST(PlanCost, StepsForAllBlocksAreDividedByThem) {
    Plan plan = plan_of(false, 1e6, 1000, 1000);
    const double block = seconds_of(plan, 4, 1);
    plan.phases[0].tile = std::move(plan.phases[0].block);
    plan.phases[0].block.clear();
    EXPECT_DOUBLE_EQ(seconds_of(plan, 4, 1), block / 4);
    plan.phases[0].tile[0].of_block = true;
    EXPECT_DOUBLE_EQ(seconds_of(plan, 4, 1), block);
}

// F(4x4, 3x3) multiplies a quarter as often.
TEST(PlanCost, WinogradMultipliesLess) {
    Plan plan = plan_of(true, 1e9, 1000, 1000);
    const double direct = seconds_of(plan, 1, 1);
    plan.phases[0].tail[0].kernel.parameters = {{"m", "4"}, {"r", "3"}};
    const double winograd = seconds_of(plan, 1, 1);
    EXPECT_LT(winograd, direct / 2);
    EXPECT_GT(winograd, direct / 4);
}

} // namespace
