// Reverse-mode differentiation: from the loss back to every parameter, by each op's own rule.
#include "../passes.h"

namespace cryolite {

static ValueId find_loss(const Graph &graph) {
    for (const Node &node : graph.nodes)
        if (node.op == find_op("output") && node.attrs.string("name") == "loss") return node.inputs[0];
    throw CompileError("the network has no loss to train with; classify() makes one");
}

// Values that depend on a parameter; only they need gradients.
static std::vector<bool> depends_on_parameters(const Graph &graph) {
    std::vector<bool> depends(graph.values.size(), false);
    for (const Node &node : graph.nodes) {
        bool any = node.op == find_op("parameter");
        for (ValueId v : node.inputs) any = any || depends[size_t(v)];
        for (ValueId v : node.outputs) depends[size_t(v)] = any;
    }
    return depends;
}

Graph differentiate(const Graph &from, const PassContext &) {
    Graph graph = from;
    ValueId loss = find_loss(graph);
    if (graph.shape(loss).elements() != 1 || graph.shape(loss).per_block())
        throw CompileError("the loss must be a single number, not " + graph.shape(loss).text());
    std::vector<bool> depends = depends_on_parameters(from);
    std::vector<ValueId> gradient(from.values.size(), no_value);
    ValueId one = graph.add1("constant", {}, {{"value", 1.0}}, "loss");
    gradient[size_t(loss)] = graph.shape(loss).rank() == 0
                                 ? one
                                 : graph.add1("broadcast", {one}, {{"shape", graph.shape(loss).dims}}, "loss");

    for (size_t i = from.nodes.size(); i-- > 0;) {
        const Node node = from.nodes[i];
        std::vector<ValueId> dy;
        bool reached = false, wanted = false;
        for (ValueId v : node.outputs) {
            dy.push_back(gradient[size_t(v)]);
            reached = reached || dy.back() != no_value;
        }
        for (ValueId v : node.inputs) wanted = wanted || depends[size_t(v)];
        if (!reached || !wanted) continue;
        if (!node.op->gradient) compile_error(node, "has no gradient, and a parameter depends on it");
        std::vector<ValueId> dx = node.op->gradient(graph, node, dy);
        for (size_t j = 0; j < node.inputs.size(); j++) {
            ValueId v = node.inputs[j];
            if (dx.at(j) == no_value || !depends[size_t(v)]) continue;
            ValueId &sum = gradient[size_t(v)];
            sum = sum == no_value ? dx[j] : graph.add1("add", {sum, dx[j]}, {}, node.layer);
        }
    }
    for (const Node &node : from.nodes) {
        if (node.op != find_op("parameter")) continue;
        ValueId v = node.outputs[0];
        if (gradient[size_t(v)] == no_value)
            compile_error(node, "the loss does not depend on parameter '" + node.attrs.string("name") + "'");
        graph.add("gradient", {v, gradient[size_t(v)]}, {}, node.layer, node.source);
    }
    return drop_dead(graph);
}

} // namespace cryolite
