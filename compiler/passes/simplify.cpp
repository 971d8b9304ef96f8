// Common subexpressions, identities that hold for NaN too, sums that are zero by construction, dead nodes.
#include "../passes.h"

#include <algorithm>
#include <tuple>

namespace cryolite {

static bool is_effect(const Node &node) { return node.outputs.empty(); }

Graph drop_dead(const Graph &graph) {
    std::vector<bool> live(graph.nodes.size(), false);
    for (size_t i = graph.nodes.size(); i-- > 0;) {
        const Node &node = graph.nodes[i];
        // Parameters and states stay: the parameter block is made of them.
        if (is_effect(node) || node.op == find_op("parameter") || node.op == find_op("state")) live[i] = true;
        if (!live[i]) continue;
        for (ValueId v : node.inputs) live[size_t(graph.producers[size_t(v)])] = true;
    }
    Rewriter rewriter(graph);
    for (size_t i = 0; i < graph.nodes.size(); i++)
        if (live[i]) rewriter.copy(graph.nodes[i]);
    return std::move(rewriter.to);
}

static bool is_number(const Graph &graph, ValueId v, double number) {
    const Node &node = graph.producer(v);
    return node.op == find_op("constant") && node.attrs.number("value") == number;
}

// The value that the node's result equals, or no_value. x + 0 is left alone: it turns -0 into 0.
static ValueId identity(const Graph &to, const Node &node, const std::vector<ValueId> &inputs, const Shape &shape) {
    ValueId same = no_value;
    if (node.op == find_op("mul")) {
        if (is_number(to, inputs[1], 1))
            same = inputs[0];
        else if (is_number(to, inputs[0], 1))
            same = inputs[1];
    } else if (node.op == find_op("div") || node.op == find_op("sub")) {
        if (is_number(to, inputs[1], node.op == find_op("div") ? 1 : 0)) same = inputs[0];
    } else if (node.op == find_op("reshape") || node.op == find_op("broadcast")) {
        same = inputs[0];
    }
    return same != no_value && to.shape(same) == shape ? same : no_value;
}

static bool sums_batch(const Graph &graph, const Node &node) {
    if (node.op != find_op("sum")) return false;
    const Shape &x = graph.shape(node.inputs[0]);
    const auto &axes = node.attrs.list("axes");
    for (int64_t axis = 0; axis < x.rank(); axis++)
        if (axis != 1 && std::count(axes.begin(), axes.end(), axis) == 0) return false;
    return true;
}

Graph simplify(const Graph &graph, const PassContext &) {
    Rewriter rewriter(graph);
    std::map<std::tuple<const OpDef *, std::vector<ValueId>, std::map<std::string, Attr>>, std::vector<ValueId>> known;
    for (const Node &node : graph.nodes) {
        std::vector<ValueId> inputs = rewriter.inputs(node);
        if (is_effect(node)) {
            rewriter.copy(node);
            continue;
        }
        if (sums_batch(graph, node) && graph.producer(node.inputs[0]).op->zero_batch_sum) {
            ValueId zero = rewriter.to.add1("constant", {}, {{"value", 0.0}}, node.layer);
            rewriter.bind(
                node.outputs[0],
                rewriter.to.add1("broadcast", {zero}, {{"shape", graph.shape(node.outputs[0]).dims}}, node.layer));
            continue;
        }
        if (node.outputs.size() == 1)
            if (ValueId same = identity(rewriter.to, node, inputs, graph.shape(node.outputs[0])); same != no_value) {
                rewriter.bind(node.outputs[0], same);
                continue;
            }
        // A number has no storage to alias; repeated to a shape, it has.
        if (node.op->alias && rewriter.to.producer(inputs[0]).op == find_op("constant")) {
            Attrs attrs{{"shape", graph.shape(node.outputs[0]).dims}};
            rewriter.bind(node.outputs[0], rewriter.to.add1("broadcast", inputs, attrs, node.layer, node.source));
            continue;
        }
        auto [place, is_new] = known.try_emplace({node.op, inputs, node.attrs.map});
        if (is_new) {
            rewriter.copy(node);
            for (ValueId v : node.outputs) place->second.push_back(rewriter.map[size_t(v)]);
        } else {
            for (size_t i = 0; i < node.outputs.size(); i++) rewriter.bind(node.outputs[i], place->second[i]);
        }
    }
    return drop_dead(rewriter.to);
}

} // namespace cryolite
