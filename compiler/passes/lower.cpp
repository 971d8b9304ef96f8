// Composite ops become primitive ones, each by its own rule.
#include "../passes.h"

namespace cryolite {

Graph lower(const Graph &graph, const PassContext &context) {
    Rewriter rewriter(graph);
    for (const Node &node : graph.nodes) {
        if (node.op->lower)
            node.op->lower(rewriter, node, context.kernel);
        else
            rewriter.copy(node);
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
