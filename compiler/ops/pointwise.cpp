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

// The dimension of channels, counted from the last one (1): that of [n, c], [n, c, h, w] and of a block's sums over
// them, [b, c] and [b, c, 1, 1], to which whole values [c], [1, c] and [1, c, 1, 1] broadcast. 0: there is none.
static size_t channel_dimension(const Shape &result) {
    const size_t rank = size_t(result.rank());
    if (result.per_block()) return rank == 2 || rank == 4 ? rank - 1 : 0;
    const size_t dimension = rank == 1 ? 1 : rank == 2 || rank == 4 ? rank - 1 : 0;
    return dimension > 0 && result.elements() == result.dims[rank - dimension] ? dimension : 0;
}
static int64_t channels_of(const Shape &shape, size_t dimension) {
    return size_t(shape.rank()) < dimension ? 1 : shape.dims[size_t(shape.rank()) - dimension];
}
// How many channels each result has, and each input has or lacks; 0: the kernel's work is not by channels.
static int64_t common_channels(const Graph &graph, const Node &node, size_t dimension) {
    if (dimension == 0) return 0;
    const int64_t channels = channels_of(graph.shape(node.outputs[0]), dimension);
    for (ValueId v : node.outputs)
        if (channel_dimension(graph.shape(v)) != dimension || channels_of(graph.shape(v), dimension) != channels)
            return 0;
    const bool whole = !graph.shape(node.outputs[0]).per_block(); // then inputs are nothing but channels too
    for (ValueId v : node.inputs) {
        const Shape &shape = graph.shape(v);
        const int64_t own = channels_of(shape, dimension);
        if ((own != channels && own != 1) || (whole && shape.elements() != own)) return 0;
    }
    // Sums over channels, other shapes, numbers that depend on an element's place.
    const std::string &program = node.attrs.string("program");
    for (const char *other : {"axes=1", "axes=0,1", "shape=", "uniform("})
        if (program.find(other) != std::string::npos) return 0;
    return channels;
}
// Leaves the kernel a strip of the channels.
static void cut_channels(Kernel &kernel, const Graph &graph, const Node &node, const KernelContext &context) {
    const size_t dimension = channel_dimension(graph.shape(node.outputs[0]));
    const int64_t channels = common_channels(graph, node, dimension);
    kernel.channels = channels;
    const int64_t strips = context.strips;
    if (channels == 0 || strips == 1) return;
    tile_block(kernel, strips);
    std::string &program = kernel.parameters.at("program");
    for (KernelArg &arg : kernel.args) {
        if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) continue;
        Shape shape = graph.shape((arg.kind == KernelArg::input ? node.inputs : node.outputs)[size_t(arg.index)]);
        if (channels_of(shape, dimension) != channels) continue;
        cut(arg, dimension - 1 + shape.batched(), strips);
        if (arg.kind == KernelArg::output) continue;
        const std::string start = "x" + text(arg.index) + "=input ", whole = bracketed(shape);
        shape.dims[size_t(shape.rank()) - dimension] /= strips;
        program.replace(program.find(start) + start.size(), whole.size(), bracketed(shape));
    }
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
    if (!node.outputs.empty()) cut_channels(kernel, graph, node, context);
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
