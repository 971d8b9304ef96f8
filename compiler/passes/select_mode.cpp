// What the network means in one mode: each op by its own rule; outputs and assigns that belong to another mode go.
#include "../passes.h"

namespace cryolite {

static bool belongs(const Node &node, Mode mode) {
    if (node.op == find_op("assign")) return mode == Mode::train;
    if (node.op == find_op("output")) return (node.attrs.string("name") == "output") == (mode == Mode::infer);
    return true;
}

Graph select_mode(const Graph &graph, const PassContext &context) {
    Rewriter rewriter(graph);
    rewriter.to.name = graph.name + "." + mode_name(context.mode);
    for (const Node &node : graph.nodes) {
        if (!belongs(node, context.mode)) continue;
        if (node.op->select)
            node.op->select(rewriter, node, context.mode);
        else
            rewriter.copy(node);
    }
    return drop_dead(rewriter.to);
}

} // namespace cryolite
