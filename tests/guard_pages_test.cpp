// No kernel reads or writes outside of the values it is given.
#include "codegen.h"
#include "fixture.h"
#include "guarded.h"
#include "networks.h"
#include "objects.h"
#include "op_graph.h"
#include "passes.h"
#include "random_network.h"
#include "run_kernels.h"

#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// Whole models, kernel by kernel, each value between guard pages.
TEST(GuardPages, NoKernelLeavesItsArguments) {
    auto run = [](const Network &network) {
        Graph graph = network.graph();
        InterpreterInputs inputs{.batch = 37};
        for (const Pass &pass : pipeline(Mode::train)) {
            graph = pass.run(graph, {Mode::train, network.optimizer(), {16, 64}});
            if (std::string(pass.name) == "apply_optimizer") break;
        }
        for (const Node &node : graph.nodes) {
            if (node.op == find_op("input"))
                inputs.images = numbers(1, inputs.batch * graph.shape(node.outputs[0]).elements(), 0, 1);
            if (node.op == find_op("parameter") || node.op == find_op("state"))
                inputs.stored[node.attrs.string("name")] =
                    numbers(2, graph.shape(node.outputs[0]).elements(), 0.1, 0.2);
        }
        for (int64_t i = 0; i < inputs.batch; i++) inputs.labels.push_back(double(i % 3));
        EXPECT_EQ(run_kernels(graph, inputs).outputs.count("loss"), 1u);
    };
    for (Define define : {lenet, lenet_scratch, mlp, plain}) run(*build(define, {.momentum = 0.9}));
    for (uint64_t seed = 0; seed < 40; seed++) run(*grow(random_genome(seed)));
}

// What the tests of an address sanitizer build run (kernel_targets): Halide's asan feature puts checks into kernels.
TEST(GuardPages, KernelsOfTheAsanTargetAreInstrumented) {
    CompileOptions options;
    options.target = resolve_target(options).name + "-asan";
    const KernelSpec linear{"linear", {{"lanes", "8"}, {"c", "5"}, {"k", "3"}}};
    int cached = 0;
    for (const CompiledObject &object : compile_kernels({linear}, resolve_target(options), options, cached)) {
        int reports = 0;
        for (const std::string &symbol : undefined_symbols(object.bytes, object.name))
            reports += symbol.starts_with("__asan_report");
        EXPECT_GT(reports, 0) << object.name;
    }
}

TEST(GuardPagesDeathTest, TellWhoLeaves) {
    Guarded memory(3);
    EXPECT_DEATH(
        {
            GuardWatch watch("kernel 'x'");
            *static_cast<volatile uint32_t *>(memory.data() + 3) = 1;
        },
        "kernel 'x' reaches outside of its arguments");
    EXPECT_TRUE(memory.slack_is_whole());
#ifndef __SANITIZE_ADDRESS__ // which sees that by itself
    memory.data()[-1] = 0;
    EXPECT_FALSE(memory.slack_is_whole());
#endif
}

} // namespace
