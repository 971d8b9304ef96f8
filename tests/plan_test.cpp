// Plans of the example networks and of random ones, walked step by step with a label on every byte: each argument lies
// inside its region, each read finds what the graph says it reads, and nothing that runs side by side shares bytes.
#include "compile.h"
#include "passes.h"
#include "plan_walk.h"
#include "random_network.h"

#include <algorithm>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <set>

#include "examples/lenet.cpp"
#include "examples/lenet_plain.cpp"
#include "examples/lenet_scratch.cpp"
#include "examples/mlp.cpp"

using namespace cryolite;
using namespace cryolite::test;

namespace {

struct Planned {
    Graph graph;
    ParameterTable parameters;
    Plan plan;

    Planned(const Network &network, Mode mode, const Sgd &sgd, const KernelContext &context)
        : graph(run_pipeline(network.graph(), {mode, sgd, context})),
          parameters(layout_parameters(run_pipeline(network.graph(), {Mode::train, sgd, context}))),
          plan(make_plan(graph, mode, parameters, context)) {}
};

// f(planned, context) for every example, mode, optimizer, batch and width.
template <class F> void each_plan(F f) {
    ASSERT_EQ(registered_networks().size(), 4u);
    for (const NetworkEntry &entry : registered_networks())
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer})
            for (double momentum : {0.0, 0.9})
                for (KernelContext context : {KernelContext{16, 256}, KernelContext{16, 17}, KernelContext{8, 17},
                                              KernelContext{.lanes = 8, .max_batch = 17, .strip_bytes = 2048},
                                              KernelContext{.lanes = 16, .max_batch = 16, .processors = 2},
                                              KernelContext{.lanes = 4, .max_batch = 9, .processors = 8}}) {
                    SCOPED_TRACE(entry.name + "." + mode_name(mode) + ", batch " + std::to_string(context.max_batch));
                    auto network = entry.build();
                    f(Planned(*network, mode, {.momentum = momentum}, context), context);
                }
}

TEST(Plan, EveryReadFindsWhatWasWrittenForIt) {
    each_plan([](const Planned &planned, const KernelContext &context) {
        Walk(planned.graph, planned.plan, planned.parameters, context).run();
    });
}

TEST(Plan, OfRandomNetworks) {
    int plans = 0, concats = 0, slices = 0, strips = 0, updates = 0;
    for (uint64_t seed = 0; seed < 250; seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::unique_ptr<Network> network;
        try {
            network = grow(random_genome(seed));
        } catch (const CompileError &) { continue; } // a window that does not fit
        const int64_t lanes = std::array{16, 8, 4}[seed % 3];
        for (KernelContext context :
             {KernelContext{lanes, 2 * lanes + 1}, KernelContext{lanes, 1},
              KernelContext{.lanes = lanes, .max_batch = 2 * lanes, .strip_bytes = 1},
              KernelContext{.lanes = lanes, .max_batch = lanes, .processors = 16, .strip_bytes = 1},
              KernelContext{.lanes = lanes, .max_batch = lanes + 1, .processors = 16}})
            for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer}) {
                Planned planned(*network, mode, network->optimizer(), context);
                Walk walk(planned.graph, planned.plan, planned.parameters, context);
                walk.run();
                strips += walk.strips_walked;
                updates += walk.updates_joined;
                plans++;
                for (const Node &node : planned.graph.nodes) {
                    concats += node.op->place == Place::around;
                    slices += node.op->place == Place::inside;
                }
            }
        if (HasFailure()) FAIL() << print(network->graph());
    }
    std::printf("random networks: %d plans walked, %d concats, %d slices, %d times strips, %d updates with gradients\n",
                plans, concats, slices, strips, updates);
    EXPECT_GT(plans, 1000);
    EXPECT_GT(concats, 100);
    EXPECT_GT(slices, 50);
    EXPECT_GT(strips, 200);
    EXPECT_GT(updates, 200);
}

// Of a depthwise convolution between two others.
std::unique_ptr<Network> separable_network() {
    auto network = std::make_unique<Network>("separable");
    Value x = conv2d(network->input("image", {2, 5, 4}), {.channels = 6, .window = 1});
    x = relu6(batch_norm(conv2d(relu6(batch_norm(x)), {.channels = 6, .window = 3, .padding = 1, .groups = 6})));
    network->classify(linear(flatten(conv2d(x, {.channels = 2, .window = 1})), {.units = 3}));
    return network;
}

// A walk of a plan with any of its arguments one vector off, or of its strips, finds it.
TEST(Plan, WrongPlansAreFound) {
    Network branches("branches");
    Value x = conv2d(branches.input("image", {2, 5, 4}), {.channels = 3, .window = 3, .padding = 1});
    for (int channels : {2, 1}) x = concat({x, conv2d(relu(batch_norm(x)), {.channels = channels, .window = 1})});
    branches.classify(linear(flatten(x), {.units = 3}));
    const std::unique_ptr<Network> separable = separable_network();
    int wrong = 0, wrong_strips = 0, wrong_updates = 0;
    for (const Network *network : {&std::as_const(branches), &std::as_const(*separable)}) {
        const KernelContext context{.lanes = 8, .max_batch = 17, .strip_bytes = 1024};
        Planned planned(*network, Mode::train, {.momentum = 0.9}, context);
        auto failures = [&] {
            testing::TestPartResultArray results;
            testing::ScopedFakeTestPartResultReporter reporter(
                testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
            Walk(planned.graph, planned.plan, planned.parameters, context).run();
            return results.size();
        };
        EXPECT_EQ(failures(), 0);
        for (PlanPhase &phase : planned.plan.phases)
            for (std::vector<PlanStep> *steps : {&phase.block, &phase.tile, &phase.tail})
                for (PlanStep &step : *steps)
                    for (size_t i = 0; i < step.args.size(); i++) {
                        PlanArg &arg = step.args[i];
                        if (arg.kind != CRYO_ARG_BUFFER || !Walk::has_memory(arg.region)) continue;
                        const std::string what =
                            step.layer + ": " + step.kernel.key() + ", argument " + std::to_string(i);
                        for (int64_t by : {-32, 32, 64}) {
                            arg.offset += by;
                            EXPECT_GT(failures(), 0) << what;
                            arg.offset -= by;
                            wrong++;
                        }
                        if (step.tiles == 1 || arg.tile_stride == 0) continue;
                        arg.tile_stride += 32;
                        EXPECT_GT(failures(), 0) << what << ", strips too far apart";
                        arg.tile_stride -= 32;
                        wrong_strips++;
                    }
        // An update a phase too early finds others still reading its weight, or lacks what its gradient is made of.
        for (size_t p = 1; p < planned.plan.phases.size(); p++) {
            std::vector<PlanStep> &from = planned.plan.phases[p].tile, &to = planned.plan.phases[p - 1].tile;
            for (size_t s = 0; s < from.size(); s++) {
                if (from[s].joined_steps < 2) continue;
                const std::vector<PlanStep> pair(from.begin() + long(s), from.begin() + long(s) + 2);
                const std::vector<PlanStep> here = from, there = to;
                from.erase(from.begin() + long(s), from.begin() + long(s) + 2);
                to.insert(to.end(), pair.begin(), pair.end());
                EXPECT_GT(failures(), 0) << pair[1].layer << ": " << pair[1].kernel.key() << ", a phase too early";
                from = here;
                to = there;
                wrong_updates++;
            }
        }
    }
    EXPECT_GT(wrong_updates, 1);
    EXPECT_GT(wrong, 400);
    EXPECT_GT(wrong_strips, 20);
}

// What the steps of a strip hand to each other, and to nobody else, lies in scratch for one strip of a block.
TEST(Plan, StripsAreAsLargeAsMayBe) {
    const std::unique_ptr<Network> network = separable_network();
    const int64_t channel = 5 * 4 * 8 * 4; // bytes, of a block
    for (int64_t channels : {1, 2, 3, 6}) {
        const KernelContext context{.lanes = 8, .max_batch = 17, .strip_bytes = 8 * channels * channel};
        int steps = 0, handed = 0;
        for (const PlanPhase &phase : Planned(*network, Mode::train, {}, context).plan.phases)
            for (const PlanStep &step : phase.block) {
                if (step.tiles == 1) continue;
                steps++;
                EXPECT_LE(step.tiles, 6 / channels) << step.kernel.key();
                for (const PlanArg &arg : step.args)
                    if (arg.kind == CRYO_ARG_BUFFER && arg.region == CRYO_REGION_SCRATCH) {
                        EXPECT_EQ(arg.tile_stride, 0) << step.kernel.key();
                        handed++;
                    }
            }
        EXPECT_EQ(steps > 0, channels < 6) << channels;
        EXPECT_EQ(handed > 3, channels < 6) << channels;
    }
}

// Where a batch is one block, what works channel by channel is for all processors: strips, also of single steps.
TEST(Plan, StripsKeepProcessorsBusy) {
    Network network("one_block");
    Value x = network.input("image", {16, 24, 24});
    for (int groups : {1, 16}) {
        x = conv2d(x, {.channels = 16, .window = 3, .padding = 1, .groups = groups});
        x = relu(batch_norm(x));
    }
    network.classify(linear(flatten(avg_pool2d(x, {.window = 4})), {.units = 3}));
    const KernelContext context{.lanes = 8, .max_batch = 8, .processors = 4};
    const Plan plan = Planned(network, Mode::train, {}, context).plan;
    EXPECT_TRUE(plan.strip_tasks);
    std::map<std::string, int> large = {
        {"pointwise", 0}, {"batch_stats", 0}, {"conv2d", 0}, {"conv2d_grad_input", 0}, {"conv2d_grad_weight", 0}};
    int sums = 0;
    for (const PlanPhase &phase : plan.phases)
        for (const PlanStep &step : phase.block) {
            const std::string key = step.kernel.key();
            if (!large.count(step.kernel.generator) || step.bytes * double(step.tiles) < 8 * 33000) continue;
            EXPECT_GE(step.tiles, 2 * context.processors) << step.layer << ": " << key;
            large[step.kernel.generator]++;
            sums += key.find("=sum(") != std::string::npos;
        }
    for (auto [generator, count] : large) EXPECT_GT(count, 0) << generator;
    EXPECT_GT(sums, 1);
}

// Statistics are whole values; but where a batch is one block, there is nothing to wait for between what sums up a
// strip and what reads the sums.
TEST(Plan, TheOnlyBlockMergesInItsStrips) {
    Network network("statistics");
    Value x = network.input("image", {16, 24, 24});
    x = relu(batch_norm(conv2d(x, {.channels = 16, .window = 3, .padding = 1})));
    network.classify(linear(flatten(avg_pool2d(x, {.window = 4})), {.units = 3}));
    const auto generators = [](const std::vector<PlanStep> &steps) {
        std::multiset<std::string> result;
        for (const PlanStep &step : steps) result.insert(step.kernel.generator);
        return result;
    };
    for (const int64_t blocks : {1, 2}) {
        SCOPED_TRACE(testing::Message() << blocks << " blocks");
        const KernelContext context{.lanes = 8, .max_batch = 8 * blocks, .processors = 4};
        const Plan plan = Planned(network, Mode::train, {}, context).plan;
        size_t merges = 0, with_all = 0, at_barrier = 0;
        for (const PlanPhase &phase : plan.phases) {
            at_barrier += generators(phase.tail).count("batch_stats_merge");
            for (size_t first = 0; first < phase.block.size(); first += size_t(phase.block[first].joined_steps)) {
                const auto begin = phase.block.begin() + long(first);
                const std::vector<PlanStep> steps(begin, begin + phase.block[first].joined_steps);
                const std::multiset<std::string> of_strip = generators(steps);
                merges += of_strip.count("batch_stats_merge") + of_strip.count("sum_merge");
                with_all +=
                    of_strip.count("batch_stats") && of_strip.count("batch_stats_merge") && of_strip.count("pointwise");
                // The gradient: two sums, both merged, and the kernel that reads them.
                with_all += of_strip.count("sum_merge") == 2 && of_strip.count("pointwise") >= 2;
            }
        }
        EXPECT_EQ(merges, blocks == 1 ? 3u : 0u);
        EXPECT_EQ(with_all, blocks == 1 ? 2u : 0u);
        EXPECT_EQ(at_barrier, blocks == 1 ? 0u : 1u);
    }
}

TEST(Plan, TheArenaIsNearTheLeastThatLifetimesNeed) {
    double worst = 0;
    each_plan([&](const Planned &planned, const KernelContext &) {
        // The inference of a small network lives in scratch.
        if (planned.plan.mode == Mode::infer && planned.plan.arena_bytes == 0) return;
        ASSERT_GT(planned.plan.arena_peak, 0);
        double ratio = double(planned.plan.arena_bytes) / double(planned.plan.arena_peak);
        EXPECT_GE(ratio, 1);
        EXPECT_LE(ratio, 1.1);
        worst = std::max(worst, ratio);
    });
    RecordProperty("worst_ratio", std::to_string(worst));
    std::printf("arena over peak: at most %.4f\n", worst);
}

// So that a thread which goes on with a block finds its values in its own caches.
TEST(Plan, TheValuesOfABlockLieTogether) {
    int together = 0, by_value = 0;
    each_plan([&](const Planned &planned, const KernelContext &) {
        std::set<int64_t> strides;
        int64_t values = 0;
        for (const PlanPhase &phase : planned.plan.phases)
            for (const std::vector<PlanStep> *steps : {&phase.block, &phase.tile})
                for (const PlanStep &step : *steps)
                    for (const PlanArg &arg : step.args)
                        if (arg.kind == CRYO_ARG_BUFFER && arg.region == CRYO_REGION_ARENA && arg.block_stride) {
                            strides.insert(arg.block_stride);
                            values++;
                        }
        if (values < 2) return;
        (strides.size() == 1 ? together : by_value)++;
    });
    EXPECT_GT(together, 3 * by_value); // where lying together costs more than a tenth of the arena
}

// A result lies over an input of its shape that ends there, if the program reads it nowhere else: not in a window.
TEST(Plan, ResultsLieOverInputsThatEnd) {
    Network network("in_place");
    Value x = network.input("image", {2, 6, 6});
    for (int i = 0; i < 2; i++) {
        x = relu(batch_norm(conv2d(x, {.channels = 4, .window = 3, .padding = 1})));
        x = max_pool2d(x, {.window = 3, .stride = 1, .padding = 1});
    }
    network.classify(linear(flatten(x), {.units = 3}));
    const KernelContext context{8, 17};
    for (Mode mode : {Mode::train, Mode::evaluate}) {
        int over = 0, windows = 0;
        for (const PlanPhase &phase : Planned(network, mode, {}, context).plan.phases)
            for (const PlanStep &step : phase.block) {
                const PlanArg &result = step.args.back();
                const bool window = step.kernel.key().find("window=") != std::string::npos;
                windows += window;
                for (size_t i = 0; i + 1 < step.args.size(); i++) {
                    const PlanArg &input = step.args[i];
                    if (input.kind != CRYO_ARG_BUFFER || input.region != result.region || input.offset != result.offset)
                        continue;
                    EXPECT_EQ(step.kernel.generator, "pointwise");
                    EXPECT_FALSE(window) << step.kernel.key();
                    over++;
                }
            }
        EXPECT_GE(windows, 2);
        EXPECT_TRUE(mode != Mode::train || over >= 2) << over; // inference folds what would be written over
    }
}

TEST(Plan, ParametersLieApart) {
    each_plan([](const Planned &planned, const KernelContext &) {
        int64_t end = 0;
        for (const ParameterEntry &entry : planned.parameters.entries) {
            EXPECT_EQ(entry.offset % CRYO_ALIGNMENT, 0) << entry.name;
            EXPECT_GE(entry.offset, end) << entry.name;
            end = entry.offset + entry.shape.elements() * 4;
        }
        EXPECT_LE(end, planned.parameters.bytes);
    });
}

// A batch of one value a channel cannot be trained: the plan says so, with the layer.
TEST(Plan, KnowsTheLeastBatch) {
    each_plan([](const Planned &planned, const KernelContext &) {
        EXPECT_TRUE(planned.plan.mode == Mode::train || planned.plan.min_batch == 1);
        EXPECT_EQ(planned.plan.min_batch > 1, !planned.plan.min_batch_layer.empty());
    });
    Network image("image"), features("features");
    image.classify(flatten(batch_norm(image.input("image", {3, 2, 1}))));
    features.classify(batch_norm(features.input("image", {3})));
    Planned two(image, Mode::train, {}, {8, 17}), one(features, Mode::train, {}, {8, 17});
    EXPECT_EQ(two.plan.min_batch, 1);
    EXPECT_EQ(one.plan.min_batch, 2);
    EXPECT_EQ(one.plan.min_batch_layer, "0");
}

} // namespace
