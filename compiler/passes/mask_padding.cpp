// Zeroes padding lanes where a sum over samples would see them.
//
// Runs on the lowered graph, where such sums are explicit (OpDef::masked_input). Most gradients need no mask: the
// loss's gradient is zero in padding lanes and linear maps keep zeros (OpDef::padding); batch norm's backward does not.
#include "../passes.h"

namespace cryolite {

static bool zero_in_padding(const Graph &graph, const Node &node, const std::vector<bool> &zero) {
    switch (node.op->padding) {
    case Padding::garbage:
        return false;
    case Padding::zero:
        return true;
    case Padding::if_any:
        for (ValueId v : node.inputs)
            if (zero[size_t(v)]) return true;
        return false;
    case Padding::if_all: {
        bool any_batched = false;
        for (ValueId v : node.inputs) {
            if (!graph.shape(v).batched()) {
                if (node.op->statement) return false; // a whole operand is added to every lane
                continue;                             // a kernel multiplies by it
            }
            if (!zero[size_t(v)]) return false;
            any_batched = true;
        }
        return any_batched;
    }
    }
    return false;
}

Graph mask_padding(const Graph &graph, const PassContext &) {
    std::vector<bool> summed(graph.values.size(), false);
    for (const Node &node : graph.nodes)
        if (node.op->masked_input >= 0) summed[size_t(node.inputs.at(size_t(node.op->masked_input)))] = true;

    std::vector<bool> zero(graph.values.size(), false), mask(graph.values.size(), false);
    for (const Node &node : graph.nodes) {
        bool zeros = zero_in_padding(graph, node, zero);
        for (ValueId v : node.outputs) {
            mask[size_t(v)] = summed[size_t(v)] && !zeros;
            zero[size_t(v)] = summed[size_t(v)] || zeros;
        }
    }
    // The masked value replaces the other for every reader, so that only one of the two is ever stored.
    Rewriter rewriter(graph);
    for (const Node &node : graph.nodes) {
        rewriter.copy(node);
        for (ValueId v : node.outputs)
            if (mask[size_t(v)])
                rewriter.bind(v, rewriter.to.add1("mask", {rewriter.map[size_t(v)]}, {}, node.layer, node.source));
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
