// Every op of the table as it ships: its cases through the passes and the real kernels, on every target that this
// machine can run, for every batch from 1 to two blocks and a sample (large cases: one, and a block and a sample),
// forward and gradient, beside the float64 reference. A hole in the table of op x target x {forward, gradient} fails,
// unless the op says why.
//
// Errors are counted in units of float32 epsilon (2^-23): largest difference over largest value of a result.
#include "device_value.h"
#include "op_graph.h"
#include "passes.h"
#include "run_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
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

// The reference takes minutes.
bool is_huge(const Case &c) {
    return std::any_of(c.inputs.begin(), c.inputs.end(),
                       [](const ValueType &input) { return input.shape.elements() > 30000; });
}

std::vector<Case> cases_on_device(const OpDef &op) {
    std::vector<Case> all;
    for (const Case &c : op.cases())
        if (!is_huge(c) && is_direct(OpGraph(op, c, 1).graph)) all.push_back(c);
    return all;
}

// PoCL's compiler takes half a second for a kernel: evenly chosen ones, all where the environment has
// CRYOLITE_ALL_DEVICE_CASES.
std::vector<Case> some_of(std::vector<Case> all, size_t most) {
    if (all.empty() || std::getenv("CRYOLITE_ALL_DEVICE_CASES")) return all;
    std::vector<Case> chosen;
    for (size_t i = 0; i < most && i < all.size(); i++)
        chosen.push_back(all[i * (all.size() - 1) / std::max<size_t>(most - 1, 1)]);
    return chosen;
}

struct Row {
    int cases = 0, checks = 0, in_tiles = 0; // in_tiles: cases that many processors cut into tiles or strips of a block
    double forward = 0, gradient = -1;       // largest errors; -1: there is none
};

class OpKernels : public testing::TestWithParam<std::string> {
protected:
    std::map<std::string, Row> rows;
    std::set<std::string> reached; // statements and kernels in what was run

    bool on_device() const {
        const auto &devices = device_targets();
        return std::find(devices.begin(), devices.end(), GetParam()) != devices.end();
    }

    // On devices a few with 8 lanes; with 32 the schedules are the same but for what is beside the lanes in a warp.
    std::vector<Case> cases(const OpDef &op) const {
        if (!on_device()) return op.cases();
        return some_of(cases_on_device(op), options().lanes == 32 ? 1 : 3);
    }
    KernelOptions options() const {
        return on_device() ? device_options(GetParam()) : KernelOptions{.target = GetParam()};
    }
    void check(const OpDef &op, const Case &c) {
        OpGraph any(op, c, 1);
        if (!is_direct(any.graph)) return;
        Row &row = rows[op.name];
        row.cases++;
        Graph graph = has_gradient(op) ? differentiate(any.graph, {Mode::train, {}, {16, 256}}) : any.graph;
        check_batches(op, c, graph, KernelGraph(graph, options()), row);
        if (on_device()) return;
        KernelOptions many = options();
        many.processors = 64;
        KernelGraph in_tiles(graph, many);
        if (!in_tiles.has_block_tiles()) return;
        row.in_tiles++;
        check_batches(op, c, graph, in_tiles, row);
    }
    void check_batches(const OpDef &op, const Case &c, const Graph &graph, const KernelGraph &kernels, Row &row) {
        for (int64_t batch : batches(op, c, kernels.lanes(), on_device())) {
            SCOPED_TRACE(case_text(op, c) + ", batch " + std::to_string(batch));
            InterpreterInputs inputs = OpGraph(op, c, batch).inputs;
            Interpreted ours = kernels.run(inputs), expected = interpret(graph, inputs);
            for (Interpreted *both : {&ours, &expected}) both->outputs.erase("loss"); // terms that cancel at random
            auto moved = [&](TensorMap Interpreted::*part) { return interpret(graph, nudged(inputs)).*part; };
            check_error(ours.outputs, expected.outputs, op, "forward", row.forward,
                        [&] { return moved(&Interpreted::outputs); });
            if (has_gradient(op))
                check_error(ours.gradients, expected.gradients, op, "gradient", row.gradient,
                            [&] { return moved(&Interpreted::gradients); });
            row.checks++;
        }
        reach(kernels.lowered());
    }

    // A sum may be much smaller than its terms: where it is off by more than the tolerance, by what the last bits of
    // the inputs move it.
    static void check_error(const TensorMap &ours, const TensorMap &expected, const OpDef &op, const char *what,
                            double &largest, const std::function<TensorMap()> &moved) {
        const double error = error_of(ours, expected), times = 16;
        if (error <= tolerance(op)) {
            largest = std::max(largest, error);
            return;
        }
        ASSERT_EQ(ours.size(), expected.size()) << what;
        const TensorMap other = moved();
        for (const auto &[name, values] : expected) {
            ASSERT_TRUE(ours.count(name)) << what << " of " << name << " is missing";
            const double slack = error_of(other.at(name), values);
            ASSERT_TRUE(std::isfinite(slack)) << what << " of " << name;
            EXPECT_LE(error_of(ours.at(name), values), std::max(tolerance(op), times * slack))
                << what << " of " << name << ", which the last bits of the inputs move by " << slack;
        }
    }

    static std::vector<int64_t> batches(const OpDef &op, const Case &c, int64_t lanes, bool few) {
        // One value a channel has no variance; two are -1 and 1 whatever they are.
        const int64_t least = takes_statistics(op) ? 3 : 1;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // which make the reference ten times slower
        if (c.large) return {least};
        return {least, lanes, lanes + 1, 2 * lanes + 1};
#endif
        if (c.large) return {least, lanes + 1};
        if (few && lanes > 8) return {lanes + 1};
        if (few) return {2 * lanes + 1};
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
        KernelGraph kernels(graph, options());
        for (int64_t batch : {int64_t(1), kernels.lanes() + 1}) {
            InterpreterInputs inputs{.batch = batch, .images = numbers(1, batch * 30)};
            EXPECT_EQ(kernels.run(inputs).outputs, interpret(graph, inputs).outputs);
        }
        reach(kernels.lowered());
    }
};

TEST_P(OpKernels, AgreeWithTheReference) {
    std::string none;
    if (on_device() && !open_device(GetParam(), none)) GTEST_SKIP() << none;
    int checks = 0, in_tiles = 0;
    check_rows();
    for (const OpDef *op : all_ops()) {
        if (!op->cases || (on_device() && op->no_gpu)) continue;
        for (const Case &c : cases(*op)) ASSERT_NO_THROW(check(*op, c)) << case_text(*op, c);
    }
    std::printf("%-24s %5s %6s %9s %9s\n", "op", "cases", "checks", "forward", "gradient");
    for (const OpDef *op : all_ops()) {
        if (!op->reference || (on_device() && op->no_gpu)) continue;
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
        in_tiles += r.in_tiles;
    }
    std::printf("%d checks on %s, %d cases in tiles or strips of a block as well\n", checks, GetParam().c_str(),
                in_tiles);
    if (!on_device()) { EXPECT_GT(in_tiles, 200); }
    for (const OpDef *op : all_ops())
        if (op->no_gradient && !on_device()) std::printf("no gradient of %s: %s\n", op->name, op->no_gradient);
    for (const OpDef *op : all_ops())
        if (op->no_gpu && on_device()) std::printf("no kernel of %s: %s\n", op->name, op->no_gpu);
    EXPECT_GT(checks, on_device() ? 40 : 400);
}

// Without a CUDA device: kernels become PTX, which need nothing but what a device's runtime has.
TEST(Devices_cuda, CompileToPtx) {
    int cases = 0;
    for (const OpDef *op : all_ops()) {
        if (!op->cases || op->no_gpu) continue;
        const std::vector<Case> all = cases_on_device(*op);
        for (const Case &c : some_of(all, 1 + all.size() / 8)) {
            OpGraph any(*op, c, 1);
            Graph graph = has_gradient(*op) ? differentiate(any.graph, {Mode::train, {}, {16, 256}}) : any.graph;
            ASSERT_NO_THROW(KernelGraph(graph, {.target = "cuda"})) << case_text(*op, c);
            cases++;
        }
    }
    std::printf("%d cases compiled for CUDA\n", cases);
    EXPECT_GT(cases, 60);
}

INSTANTIATE_TEST_SUITE_P(Devices, OpKernels, testing::ValuesIn(device_targets()),
                         [](const auto &info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Targets, OpKernels, testing::ValuesIn(kernel_targets()),
                         [](const auto &info) { return short_target(info.param); });

} // namespace
