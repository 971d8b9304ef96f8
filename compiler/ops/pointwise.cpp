// A fused kernel: a program of statements over its inputs, made by the fuse pass (generators/kernels.md, "Programs").
//
// attributes: program, the text; scalars, its int32 arguments; outputs, the shapes of its results.
#include "../op.h"
#include "../program_text.h"

#include <sstream>

namespace cryolite {

static std::vector<ValueType> infer(const Graph &, const Node &node) {
    std::vector<ValueType> types;
    for (const Shape &shape : parse_shapes(node.attrs.string("outputs"))) types.push_back({shape, Type::f32});
    return types;
}

// Halide's extents of one block of a value, or of a whole one: innermost first.
static std::vector<int64_t> extents(const Shape &shape, const KernelContext &context) {
    std::vector<int64_t> reversed(shape.dims.rbegin(), shape.dims.rend());
    if (shape.per_block()) reversed.pop_back();
    if (shape.batched()) {
        reversed.insert(reversed.begin(), context.lanes);
        reversed.push_back(1);
    }
    if (reversed.empty()) reversed.push_back(1);
    return reversed;
}

static Kernel kernel(const Graph &graph, const Node &node, const KernelContext &context) {
    Kernel kernel{.generator = "pointwise", .parameters = {{"program", node.attrs.string("program")}}, .args = {}};
    std::stringstream scalars(node.attrs.string("scalars"));
    for (std::string scalar; std::getline(scalars, scalar, ',');)
        kernel.args.push_back({.kind = scalar == "valid"   ? KernelArg::valid
                                       : scalar == "block" ? KernelArg::block
                                                           : KernelArg::batch,
                               .extents = {}});
    for (size_t i = 0; i < node.inputs.size(); i++)
        kernel.args.push_back(
            {.kind = KernelArg::input, .index = int(i), .extents = extents(graph.shape(node.inputs[i]), context)});
    for (size_t i = 0; i < node.outputs.size(); i++)
        kernel.args.push_back(
            {.kind = KernelArg::output, .index = int(i), .extents = extents(graph.shape(node.outputs[i]), context)});
    return kernel;
}

extern const OpDef pointwise_op;
const OpDef pointwise_op = {.name = "pointwise",
                            .summary = "a fused chain of statements",
                            .min_inputs = 0,
                            .max_inputs = 1 << 16,
                            .infer = infer,
                            .kernel = kernel};

} // namespace cryolite
