// Common subexpressions, identities that hold for NaN too, sums that are zero by construction, dead nodes.
#include "../passes.h"

#include <algorithm>
#include <cmath>
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

static bool is_constant(const Graph &graph, ValueId v) { return graph.producer(v).op == find_op("constant"); }

static bool is_number(const Graph &graph, ValueId v, double number) {
    if (!is_constant(graph, v)) return false;
    double value = graph.producer(v).attrs.number("value");
    return value == number && std::signbit(value) == std::signbit(number);
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

namespace {

struct Simplifier {
    const Graph &graph;
    Rewriter rewriter;
    using Key = std::tuple<const OpDef *, std::vector<ValueId>, std::map<std::string, Attr>>;
    std::map<Key, std::vector<ValueId>> known; // results of what has been made

    explicit Simplifier(const Graph &from) : graph(from), rewriter(from) {}

    const std::vector<ValueId> &make(const std::string &op, const std::vector<ValueId> &inputs, const Attrs &attrs,
                                     const Node &origin) {
        auto [place, is_new] = known.try_emplace({find_op(op), inputs, attrs.map});
        if (is_new) place->second = rewriter.to.add(op, inputs, attrs, origin.layer, origin.source);
        return place->second;
    }
    ValueId number(double value, const Node &origin) { return make("constant", {}, {{"value", value}}, origin)[0]; }

    // Arithmetic on numbers alone.
    ValueId fold(const Node &node, const std::vector<ValueId> &inputs, const Shape &shape) {
        if (!node.op->statement || !node.op->reference || inputs.empty() || shape.rank() > 0) return no_value;
        std::vector<Tensor> numbers;
        std::vector<const Tensor *> from;
        for (ValueId v : inputs) {
            if (!is_constant(rewriter.to, v)) return no_value;
            numbers.push_back({{}, {rewriter.to.producer(v).attrs.number("value")}});
        }
        for (const Tensor &tensor : numbers) from.push_back(&tensor);
        Tensor result{{}, {0.0}};
        node.op->reference(graph, node, from, {&result});
        // Programs have no literals for the others.
        return std::isfinite(result.data[0]) ? number(result.data[0], node) : no_value;
    }

    // The value of a node's only result in simpler terms, or no_value.
    ValueId simpler(const Node &node, const std::vector<ValueId> &inputs, const Shape &shape) {
        const Attrs as_shape{{"shape", shape.dims}};
        if (sums_batch(graph, node) && graph.producer(node.inputs[0]).op->zero_batch_sum)
            return make("broadcast", {number(0, node)}, as_shape, node)[0];
        if (ValueId same = identity(rewriter.to, node, inputs, shape); same != no_value) return same;
        if (ValueId folded = fold(node, inputs, shape); folded != no_value) return folded;
        if (node.op->place != Place::same) return no_value;
        // A number has no storage to alias; repeated to a shape, it has.
        if (is_constant(rewriter.to, inputs[0])) return make("broadcast", inputs, as_shape, node)[0];
        const Node &source = rewriter.to.producer(inputs[0]);
        if (source.op != node.op) return no_value;
        ValueId origin = source.inputs[0];
        return rewriter.to.shape(origin) == shape ? origin : make(node.op->name, {origin}, node.attrs, node)[0];
    }

    void visit(const Node &node) {
        std::vector<ValueId> inputs = rewriter.inputs(node);
        if (is_effect(node)) {
            rewriter.copy(node);
            return;
        }
        if (node.outputs.size() == 1)
            if (ValueId value = simpler(node, inputs, graph.shape(node.outputs[0])); value != no_value) {
                rewriter.bind(node.outputs[0], value);
                return;
            }
        const std::vector<ValueId> &results = make(node.op->name, inputs, node.attrs, node);
        for (size_t i = 0; i < results.size(); i++) rewriter.bind(node.outputs[i], results[i]);
    }
};

} // namespace

Graph simplify(const Graph &graph, const PassContext &) {
    Simplifier simplifier(graph);
    for (const Node &node : graph.nodes) simplifier.visit(node);
    return drop_dead(simplifier.rewriter.to);
}

} // namespace cryolite
