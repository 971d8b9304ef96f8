// What the table of ops promises, op by op over its cases: references, padding lanes, kernels, text.
#include "fixture.h"
#include "interpret.h"
#include "passes.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <set>

using namespace cryolite;
using namespace cryolite::test;

namespace {

// Two blocks, the last lacks one sample.
constexpr int64_t lanes = case_lanes, blocks = 2, batch = blocks * lanes - 1;
const KernelContext context{lanes, 64, Math::strict};

std::string text(const OpDef &op, const Case &c) {
    std::string result = op.name;
    for (const ValueType &input : c.inputs) result += " " + input.shape.text();
    return result;
}

// The op's node by itself, its operands parameters.
struct OpGraph {
    Graph graph;
    OpGraph(const OpDef &op, const Case &c) {
        graph.name = op.name;
        std::vector<ValueId> operands;
        for (const ValueType &input : c.inputs)
            operands.push_back(input.type == Type::i32 ? graph.add1("label", {})
                                                       : graph.add1("parameter", {},
                                                                    {{"name", "x" + std::to_string(operands.size())},
                                                                     {"shape", input.shape.dims}}));
        graph.add(op.name, operands, c.attrs, "op");
    }
    const Node &node() const { return graph.nodes.back(); }
};

// The op's reference on whole blocks.
struct Trial {
    std::vector<Tensor> inputs, outputs;

    Trial(const OpGraph &op, const Case &c) {
        for (ValueId v : op.node().inputs) {
            Tensor &x = inputs.emplace_back(shaped(op.graph.shape(v)));
            std::vector<float> drawn = deterministic(inputs.size(), x.data.size(), 1);
            for (size_t i = 0; i < drawn.size(); i++)
                x.data[i] = op.graph.type(v).type == Type::i32 ? double(int64_t(i) % c.inputs[0].shape[1])
                                                               : c.low + (c.high - c.low) * (double(drawn[i]) + 1) / 2;
        }
        for (ValueId v : op.node().outputs) outputs.push_back(shaped(op.graph.shape(v)));
    }
    static Tensor shaped(const Shape &shape) {
        Tensor tensor{shape.dims, {}, batch, lanes};
        int64_t elements = shape.elements();
        if (shape.per_block()) tensor.shape[0] = shape.batched() ? blocks * lanes : blocks;
        if (shape.per_block()) elements *= tensor.shape[0];
        tensor.data.assign(size_t(elements), 0.0);
        return tensor;
    }
    void run(const OpGraph &op) {
        std::vector<const Tensor *> from;
        std::vector<Tensor *> to;
        for (const Tensor &x : inputs) from.push_back(&x);
        for (Tensor &y : outputs) to.push_back(&y);
        op.node().op->reference(op.graph, op.node(), from, to);
    }
};

// The padding lanes: the last sample, since rows of samples lie one after another as well.
bool has_padding(const Shape &shape) {
    return shape.batched() || (shape.rank() == 3 && shape[0] == Shape::blocks && shape[1] == lanes);
}
void set_padding(Tensor &tensor, double value) {
    std::fill(tensor.data.end() - tensor.elements() / (blocks * lanes), tensor.data.end(), value);
}
bool zero_padding(const Tensor &tensor) {
    return std::all_of(tensor.data.end() - tensor.elements() / (blocks * lanes), tensor.data.end(),
                       [](double x) { return x == 0; });
}

template <class F> void each_case(F f) {
    for (const OpDef *op : all_ops()) {
        if (!op->cases) continue;
        for (const Case &c : op->cases()) {
            if (c.large && c.inputs[0].shape.elements() > 30000) continue; // seconds of reference, nothing new
            SCOPED_TRACE(text(*op, c));
            OpGraph graph(*op, c);
            ASSERT_NO_FATAL_FAILURE(f(*op, c, graph));
        }
    }
}

TEST(Ops, EveryReferenceHasCases) {
    size_t with_cases = 0;
    for (const OpDef *op : all_ops()) {
        EXPECT_EQ(op->reference != nullptr, op->cases != nullptr) << op->name;
        // What a plan computes has one, but for what passes make of others that have.
        const bool made_of_others =
            std::set<std::string>{"pointwise", "channels_map", "channels_conv2d"}.count(op->name);
        if ((op->statement || op->kernel) && !made_of_others) { EXPECT_TRUE(op->reference) << op->name; }
        with_cases += op->cases && !op->cases().empty();
    }
    EXPECT_GT(with_cases, 40u);
}

TEST(Ops, ReferencesAreFiniteAndTextSurvives) {
    each_case([](const OpDef &, const Case &c, const OpGraph &op) {
        verify(op.graph, "test");
        EXPECT_EQ(print(parse(print(op.graph))), print(op.graph));
        Trial trial(op, c);
        ASSERT_NO_FATAL_FAILURE(trial.run(op));
        for (const Tensor &y : trial.outputs)
            for (double x : y.data) ASSERT_TRUE(std::isfinite(x));
    });
}

TEST(Ops, PaddingLanesHoldWhatIsPromised) {
    size_t checked = 0;
    each_case([&](const OpDef &def, const Case &c, const OpGraph &op) {
        if (def.padding == Padding::garbage || !has_padding(op.graph.shape(op.node().outputs[0]))) return;
        std::vector<size_t> padded;
        bool whole = false;
        for (size_t i = 0; i < op.node().inputs.size(); i++) {
            if (has_padding(op.graph.shape(op.node().inputs[i])))
                padded.push_back(i);
            else
                whole = true;
        }
        if (def.padding == Padding::if_all && def.statement && whole) return; // no promise
        // Which inputs are zero there: each by itself, or all.
        std::vector<std::vector<size_t>> choices = {padded};
        if (def.padding == Padding::if_any) {
            choices.clear();
            for (size_t i : padded) choices.push_back({i});
        }
        for (const std::vector<size_t> &zeros : choices) {
            Trial trial(op, c);
            for (size_t i : zeros) set_padding(trial.inputs[i], 0);
            trial.run(op);
            for (const Tensor &y : trial.outputs) EXPECT_TRUE(zero_padding(y));
            checked++;
        }
    });
    EXPECT_GT(checked, 50u);
}

// Where an op sums over samples, zeros in the one input are enough, whatever the others hold.
TEST(Ops, SumsOverSamplesNeedTheMaskedInputAlone) {
    size_t checked = 0;
    each_case([&](const OpDef &def, const Case &c, const OpGraph &op) {
        if (def.masked_input < 0) return;
        std::vector<std::vector<double>> results;
        for (double garbage : {0.0, 1e3}) {
            Trial trial(op, c);
            for (size_t i = 0; i < trial.inputs.size(); i++)
                if (has_padding(op.graph.shape(op.node().inputs[i])))
                    set_padding(trial.inputs[i], int(i) == def.masked_input ? 0 : garbage);
            trial.run(op);
            results.push_back(trial.outputs[0].data);
        }
        EXPECT_EQ(results[0], results[1]);
        checked++;
    });
    EXPECT_GT(checked, 10u);
}

// A kernel gets every input and output once, whole.
TEST(Ops, KernelsCoverInputsAndOutputs) {
    size_t checked = 0;
    bool tiles = false;
    each_case([&](const OpDef &def, const Case &, const OpGraph &op) {
        if (!def.kernel) return;
        Kernel kernel = def.kernel(op.graph, op.node(), context);
        tiles = tiles || kernel.tiles > 1;
        std::vector<int> inputs(op.node().inputs.size(), 0), outputs(op.node().outputs.size(), 0);
        bool outputs_begun = false;
        for (const KernelArg &arg : kernel.args) {
            outputs_begun = outputs_begun || arg.kind == KernelArg::output;
            EXPECT_EQ(arg.kind == KernelArg::output, outputs_begun) << "outputs are last";
            if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) {
                EXPECT_TRUE(arg.extents.empty());
                continue;
            }
            bool is_input = arg.kind == KernelArg::input;
            (is_input ? inputs : outputs).at(size_t(arg.index))++;
            const Shape &shape =
                op.graph.shape((is_input ? op.node().inputs : op.node().outputs).at(size_t(arg.index)));
            int64_t covered = arg.tile_stride > 0 ? kernel.tiles : 1;
            for (int64_t extent : arg.extents) covered *= extent;
            EXPECT_EQ(covered, shape.elements() * (shape.batched() ? lanes : 1)) << shape.text();
            EXPECT_TRUE(shape.per_block() || !arg.all_blocks) << shape.text();
        }
        EXPECT_EQ(inputs, std::vector<int>(inputs.size(), 1));
        EXPECT_EQ(outputs, std::vector<int>(outputs.size(), 1));
        checked++;
    });
    EXPECT_TRUE(tiles);
    EXPECT_GT(checked, 40u);
}

// Blocks are an arrangement of samples: parts and their merge are the whole.
TEST(Ops, MergedPartsAreTheWhole) {
    const std::vector<std::pair<const char *, const char *>> split = {
        {"sum", "partial_sum"},
        {"conv2d_grad_weight", "conv2d_grad_weight_partial"},
        {"batch_stats", "batch_stats_partial"}};
    for (auto [whole, partial] : split) {
        std::vector<Case> cases = find_op(partial)->cases();
        for (const Case &c : cases) {
            if (c.large && c.inputs[0].shape.elements() > 30000) continue;
            SCOPED_TRACE(text(*find_op(whole), c));
            OpGraph op(*find_op(whole), c);
            PassContext pass{Mode::train, {}, context};
            for (ValueId v : op.node().outputs)
                op.graph.add("output", {op.graph.add1("reshape", {v}, {{"shape", op.graph.shape(v).dims}})},
                             {{"name", "y" + std::to_string(v)}});
            Graph lowered = mask_padding(lower(op.graph, pass), pass);
            InterpreterInputs inputs;
            inputs.batch = batch;
            for (size_t i = 0; i < c.inputs.size(); i++) {
                std::vector<float> drawn =
                    deterministic(i + 1, size_t(c.inputs[i].shape.elements() * blocks * lanes), 1);
                inputs.stored["x" + std::to_string(i)].assign(drawn.begin(), drawn.end());
            }
            InterpreterInputs in_blocks = inputs;
            in_blocks.lanes = lanes;
            for (auto &[name, values] : inputs.stored) values.resize(values.size() / (blocks * lanes) * batch);
            TensorMap expected = interpret(op.graph, inputs).outputs, ours = interpret(lowered, in_blocks).outputs;
            for (const auto &[name, values] : expected)
                for (size_t i = 0; i < values.size(); i++)
                    ASSERT_NEAR(ours.at(name).at(i), values[i], 1e-12 * std::max(1.0, std::fabs(values[i]))) << name;
        }
    }
}

} // namespace
