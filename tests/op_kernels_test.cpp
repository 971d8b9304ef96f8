// Every op of the table as it ships: its cases through the passes and the real kernels, on every target that this
// machine can run, for every batch from 1 to two blocks and a sample (large cases: one, and a block and a sample),
// forward and gradient, beside the float64 reference. A hole in the table of op x target x {forward, gradient} fails,
// unless the op says why.
//
// Errors are counted in units of float32 epsilon (2^-23): largest difference over largest value of a result.
#include "op_graph.h"
#include "passes.h"
#include "run_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>
#include <set>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// The error that a result may have: a sum of a thousand terms may be much smaller than they are, and batch norm's
// gradient for few samples is a difference of nearly equal terms.
double tolerance(const OpDef &op) { return takes_statistics(op) ? 128 : 64; }

// What lower makes for blocks has shapes that depend on the width: other ops' cases lead there.
bool in_blocks(const Shape &shape) { return shape.per_block() && !shape.batched(); }
bool is_direct(const Graph &graph) {
    for (const Node &node : graph.nodes)
        for (ValueId v : node.outputs)
            if (in_blocks(graph.shape(v)) || node.attrs.has("lanes")) return false;
    return true;
}

struct Row {
    int cases = 0, checks = 0;
    double forward = 0, gradient = -1; // largest errors; -1: there is none
};

class OpKernels : public testing::TestWithParam<std::string> {
protected:
    std::map<std::string, Row> rows;
    std::set<std::string> reached; // statements and kernels in what was run

    void check(const OpDef &op, const Case &c) {
        OpGraph any(op, c, 1);
        if (!is_direct(any.graph)) return;
        Row &row = rows[op.name];
        row.cases++;
        Graph graph = has_gradient(op) ? differentiate(any.graph, {Mode::train, {}, {16, 256}}) : any.graph;
        KernelGraph kernels(graph, {.target = GetParam()});
        for (int64_t batch : batches(op, c, kernels.lanes())) {
            SCOPED_TRACE(case_text(op, c) + ", batch " + std::to_string(batch));
            InterpreterInputs inputs = OpGraph(op, c, batch).inputs;
            Interpreted ours = kernels.run(inputs), expected = interpret(graph, inputs);
            for (Interpreted *both : {&ours, &expected}) both->outputs.erase("loss"); // terms that cancel at random
            double forward = error_of(ours.outputs, expected.outputs);
            EXPECT_LE(forward, tolerance(op)) << "forward";
            row.forward = std::max(row.forward, forward);
            if (has_gradient(op)) {
                double gradient = error_of(ours.gradients, expected.gradients);
                EXPECT_LE(gradient, tolerance(op)) << "gradient";
                row.gradient = std::max(row.gradient, gradient);
            }
            row.checks++;
        }
        reach(kernels.lowered());
    }

    static std::vector<int64_t> batches(const OpDef &op, const Case &c, int64_t lanes) {
        // One value a channel has no variance; two are -1 and 1 whatever they are.
        const int64_t least = takes_statistics(op) ? 3 : 1;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // which make the reference ten times slower
        if (c.large) return {least};
        return {least, lanes, lanes + 1, 2 * lanes + 1};
#endif
        if (c.large) return {least, lanes + 1};
        std::vector<int64_t> all;
        for (int64_t batch = least; batch <= 2 * lanes + 1; batch++) all.push_back(batch);
        return all;
    }

    // Fused statements keep their names in the program.
    void reach(const Graph &lowered) {
        for (const Node &node : lowered.nodes) {
            reached.insert(node.op->name);
            if (!node.attrs.has("program")) continue;
            for (const OpDef *other : all_ops()) {
                if (!other->statement) continue;
                std::string name = other->statement;
                name = "=" + name.substr(0, name.find('(')) + "(";
                if (node.attrs.string("program").find(name) != std::string::npos) reached.insert(other->name);
            }
        }
    }

    // What the caller gives and gets, row by row.
    void check_rows() {
        Graph graph = parse(R"(graph rows {
          %0 : f32[n,2,3,5] = input() {shape=[-1,2,3,5]}
          %1 : f32[n,2,3,5] = neg(%0)
          output(%1) {name="y"}
        })");
        KernelGraph kernels(graph, {.target = GetParam()});
        for (int64_t batch : {int64_t(1), kernels.lanes() + 1}) {
            InterpreterInputs inputs{.batch = batch, .images = numbers(1, batch * 30)};
            EXPECT_EQ(kernels.run(inputs).outputs, interpret(graph, inputs).outputs);
        }
        reach(kernels.lowered());
    }
};

TEST_P(OpKernels, AgreeWithTheReference) {
    int checks = 0;
    check_rows();
    for (const OpDef *op : all_ops()) {
        if (!op->cases) continue;
        for (const Case &c : op->cases()) ASSERT_NO_THROW(check(*op, c)) << case_text(*op, c);
    }
    std::printf("%-24s %5s %6s %9s %9s\n", "op", "cases", "checks", "forward", "gradient");
    for (const OpDef *op : all_ops()) {
        if (!op->reference) continue;
        auto row = rows.find(op->name);
        EXPECT_TRUE(has_gradient(*op) || op->no_gradient) << op->name << " has no gradient and does not say why";
        if (row == rows.end()) {
            EXPECT_TRUE(reached.count(op->name)) << op->name << " is run by no case";
            EXPECT_FALSE(has_gradient(*op)) << op->name << " has a gradient that no case runs";
            std::printf("%-24s %5s\n", op->name, "other ops'");
            continue;
        }
        const Row &r = row->second;
        EXPECT_EQ(r.gradient >= 0, has_gradient(*op)) << op->name;
        std::printf("%-24s %5d %6d %9.2f ", op->name, r.cases, r.checks, r.forward);
        std::printf(r.gradient < 0 ? "        -\n" : "%9.2f\n", r.gradient);
        checks += r.checks;
    }
    std::printf("%d checks on %s\n", checks, GetParam().c_str());
    for (const OpDef *op : all_ops())
        if (op->no_gradient) std::printf("no gradient of %s: %s\n", op->name, op->no_gradient);
    EXPECT_GT(checks, 400);
}

INSTANTIATE_TEST_SUITE_P(Targets, OpKernels, testing::ValuesIn(kernel_targets()),
                         [](const auto &info) { return short_target(info.param); });

} // namespace
