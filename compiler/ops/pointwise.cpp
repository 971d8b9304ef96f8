// A fused kernel: a program of statements over its inputs, made by the fuse pass (generators/kernels.md, "Programs").
//
// attributes: program, the text; scalars, its int32 arguments; outputs, the shapes of its results; work, its time per
// element in units of an addition; late, when its only reader is in a later phase and it is to run there.
#include "../program_text.h"
#include "common.h"

#include <sstream>

namespace cryolite {

static std::vector<ValueType> infer(const Graph &, const Node &node) {
    std::vector<ValueType> types;
    for (const Shape &shape : parse_shapes(node.attrs.string("outputs"))) types.push_back({shape, Type::f32});
    return types;
}

static Kernel kernel(const Graph &graph, const Node &node, const KernelContext &context) {
    Kernel kernel{.generator = "pointwise", .parameters = {{"program", node.attrs.string("program")}}, .args = {}};
    std::stringstream scalars(node.attrs.string("scalars"));
    for (std::string scalar; std::getline(scalars, scalar, ',');)
        kernel.args.push_back({.kind = scalar == "valid"   ? KernelArg::valid
                                       : scalar == "block" ? KernelArg::block
                                                           : KernelArg::batch,
                               .extents = {}});
    for (int i = 0; i < int(node.inputs.size()); i++) kernel.args.push_back(input_arg(graph, node, i, context));
    for (int i = 0; i < int(node.outputs.size()); i++) kernel.args.push_back(output_arg(graph, node, i, context));
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
