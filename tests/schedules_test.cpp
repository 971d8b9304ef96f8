// The heavy kernels under schedules that nobody chose: knobs at random instead of the generators' own, for every case
// of the op table that leads to them, between guard pages. No knob may change a result beyond what float32 leaves open,
// nor a sum whose order it does not touch at all. CRYOLITE_RANDOM_SCHEDULES: how many a case, 2 unless set.
#include "op_graph.h"
#include "passes.h"
#include "run_kernels.h"

#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr double tolerance = 64; // op_kernels_test's

class Schedules : public testing::TestWithParam<std::string> {
protected:
    uint64_t schedules = 0, changed = 0;

    void check(const OpDef &op, const Case &c, uint64_t count) {
        SCOPED_TRACE(case_text(op, c));
        Graph graph = differentiate(OpGraph(op, c, 1).graph, {Mode::train, {}, {16, 256}});
        KernelGraph ours(graph, {.target = GetParam()});
        InterpreterInputs inputs = OpGraph(op, c, ours.lanes() + 1).inputs;
        Interpreted usual = ours.run(inputs), expected = interpret(graph, inputs);
        for (uint64_t seed = 1; seed <= count; seed++) {
            Interpreted other = KernelGraph(graph, {.target = GetParam(), .schedule = seed}).run(inputs);
            for (Interpreted *result : {&usual, &other, &expected}) result->outputs.erase("loss");
            EXPECT_LE(error_of(other.outputs, expected.outputs), tolerance) << "schedule " << seed;
            EXPECT_LE(error_of(other.gradients, expected.gradients), tolerance) << "schedule " << seed;
            schedules++;
            changed += other.gradients != usual.gradients || other.outputs != usual.outputs;
        }
    }
};

TEST_P(Schedules, AtRandomGiveTheResultsOfTheDefault) {
    const char *text = std::getenv("CRYOLITE_RANDOM_SCHEDULES");
    const uint64_t count = text && *text ? std::strtoull(text, nullptr, 10) : 2;
    for (const char *name : {"conv2d", "linear"})
        for (const Case &c : find_op(name)->cases()) {
            if (c.large) continue;
            ASSERT_NO_THROW(check(*find_op(name), c, count));
        }
    std::printf("%llu schedules on %s, of which %llu round otherwise than the default\n", (unsigned long long)schedules,
                GetParam().c_str(), (unsigned long long)changed);
    EXPECT_GE(schedules, 20 * count);
}

INSTANTIATE_TEST_SUITE_P(Targets, Schedules, testing::ValuesIn(kernel_targets()),
                         [](const auto &info) { return short_target(info.param); });

} // namespace
