// The table of ops, from ops/ops.inc: one line per op, sorted by name.
#include "op.h"

#include <algorithm>
#include <cstring>

namespace cryolite {

#define CRYO_OP(name) extern const OpDef name##_op;
#include "ops/ops.inc"
#undef CRYO_OP

const std::vector<const OpDef *> &all_ops() {
    static const std::vector<const OpDef *> ops = {
#define CRYO_OP(name) &name##_op,
#include "ops/ops.inc"
#undef CRYO_OP
    };
    return ops;
}

const OpDef *find_op(const std::string &name) {
    static const std::vector<const OpDef *> sorted = [] {
        std::vector<const OpDef *> ops = all_ops();
        std::sort(ops.begin(), ops.end(),
                  [](const OpDef *a, const OpDef *b) { return std::strcmp(a->name, b->name) < 0; });
        return ops;
    }();
    auto found = std::lower_bound(sorted.begin(), sorted.end(), name,
                                  [](const OpDef *op, const std::string &key) { return op->name < key; });
    return found != sorted.end() && (*found)->name == name ? *found : nullptr;
}

bool named(const Node &node, const char *op) { return node.op == find_op(op); }

int64_t bytes_of(const Graph &graph, ValueId v, const KernelContext &context) {
    const Shape &shape = graph.shape(v);
    return shape.elements() * (shape.batched() ? context.lanes : 1) * element_bytes;
}

void compile_error(const Node &node, const std::string &message) {
    std::string text = node.op ? node.op->name : "node";
    if (!node.layer.empty()) text += " '" + node.layer + "'";
    text += ": " + message;
    if (!node.source.empty()) text += " (" + node.source + ")";
    throw CompileError(text);
}

} // namespace cryolite
