// The gradient of conv2d for its weight, from input and the result's gradient; attributes r and s: the window. Lowered
// it is a partial sum per block and a merge, or, where partial sums would be large, a sum over all blocks in tiles.
#include "conv2d_common.h"
#include "conv2d_winograd.h"

#include "schedule.h"

namespace cryolite {

using namespace convolution;

static Shape weight_shape(const Graph &g, const Node &n) {
    return Shape{g.shape(n.inputs[1])[1], g.shape(n.inputs[0])[1] / groups(n), n.attrs.integer("r"),
                 n.attrs.integer("s")};
}
static std::vector<ValueType> infer(const Graph &g, const Node &n) { return {{weight_shape(g, n), Type::f32}}; }
static ConvWeightQuery query(const Shape &w, const Shape &y, const KernelContext &context) {
    return {.c = w[1],
            .k = w[0],
            .window = w[2] * w[3],
            .pixels = y[2] * y[3],
            .lanes = context.lanes,
            .blocks = context.max_blocks()};
}
// Partial sums are made in the phase that makes dy, tiles in one after it.
static bool in_tiles(const Shape &x, const Shape &w, const Shape &y, const Node &n, const KernelContext &context) {
    // On a device one launch has all tiles: where these are enough to fill it, no partial sums are written.
    const bool usual =
        groups(n) == 1 && (context.device ? w[0] * w[1] * w[2] >= 1 << 14 : many_weight_sums(query(w, y, context)));
    if (groups(n) > 1 || context.device) return usual;
    std::string about = "blocks=" + text(context.max_blocks()) + " lanes=" + text(context.lanes);
    for (auto &[name, value] : parameters(x, w, n)) about += " " + name + "=" + value;
    return context.choose({.kind = "weight_gradient",
                           .about = about,
                           .options = {{{"partial", 1}}, {{"tiles", 1}}},
                           .usual = usual,
                           .work = flops(w, y, context) / 2}) == 1;
}
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
    if (lower_conv2d_grad_weight_to_winograd(r, n, context)) return;
    const Shape w = weight_shape(r.from, n);
    std::vector<ValueId> inputs = r.inputs(n);
    Attrs attrs = n.attrs;
    if (skips_pixels(w, n, context)) {
        inputs[0] = seen_pixels(r, n, inputs[0]);
        attrs = of_stride_one(attrs);
    }
    if (in_tiles(r.from.shape(n.inputs[0]), w, r.from.shape(n.inputs[1]), n, context)) {
        r.bind(n.outputs[0], r.to.add1("conv2d_grad_weight_tiles", inputs, attrs, n.layer, n.source));
        return;
    }
    ValueId partial = r.to.add1("conv2d_grad_weight_partial", inputs, attrs, n.layer, n.source);
    r.bind(n.outputs[0],
           r.to.add1("sum_merge", {partial}, {{"mean_count", int64_t(0)}, {"shape", r.from.shape(n.outputs[0]).dims}},
                     n.layer, n.source));
}
static std::vector<ValueType> infer_partial(const Graph &g, const Node &n) {
    Shape shape = weight_shape(g, n);
    shape.dims.insert(shape.dims.begin(), Shape::blocks);
    return {{shape, Type::f32}};
}
static Kernel kernel_partial(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape w = weight_shape(g, n);
    KernelArg dw = output_arg(g, n, 0, context);
    dw.extents.at(3) /= groups(n);
    dw.extents.push_back(groups(n));
    Kernel kernel{
        .generator = "conv2d_grad_weight",
        .parameters = parameters(g.shape(n.inputs[0]), w, n),
        .args = {image_arg(input_arg(g, n, 0, context), w, n), image_arg(input_arg(g, n, 1, context), w, n), dw},
        .flops = flops(w, g.shape(n.inputs[1]), context)};
    note_batch(kernel, context);
    cut_block(kernel, "k", {{1, 3}, {2, 3}}, n, context);
    return kernel;
}
static Kernel kernel_tiles(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape w = weight_shape(g, n), &y = g.shape(n.inputs[1]);
    auto all_blocks = [&](int input) {
        KernelArg arg = image_arg(input_arg(g, n, input, context), w, n);
        arg.extents.pop_back();
        arg.all_blocks = true;
        return arg;
    };
    Kernel kernel{.generator = "conv2d_grad_weight_tiles",
                  .parameters = parameters(g.shape(n.inputs[0]), w, n),
                  .args = {{.kind = KernelArg::batch, .extents = {}},
                           all_blocks(0),
                           all_blocks(1),
                           {.kind = KernelArg::output, .index = 0, .extents = {w[3], w[2], w[1], w[0], 1}}},
                  .flops = flops(w, y, context) * double(context.max_blocks())};
    // Where vectors hold input channels, tiles are of these, so that what is turned is turned once.
    const bool of_inputs = !context.device && by_pixels(w, n) && w[1] % context.lanes == 0;
    const int64_t tile = context.device ? w[0]
                         : of_inputs    ? conv2d_grad_weight_inputs(query(w, y, context))
                                        : conv2d_grad_weight_tile(query(w, y, context));
    kernel.tiles = w[of_inputs ? 1 : 0] / tile;
    kernel.flops /= double(kernel.tiles);
    cut(kernel.args[of_inputs ? 1 : 2], 3, kernel.tiles);
    cut(kernel.args[3], of_inputs ? 2 : 3, kernel.tiles);
    kernel.parameters[of_inputs ? "c" : "tile"] = text(tile);
    if (of_inputs) kernel.parameters["weight_c"] = text(w[1]);
    store_alone(kernel, 3, context);
    return kernel;
}

static void reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_tap(
        node, in[0]->shape, out[0]->shape, in[1]->shape,
        [&](size_t x, size_t w, size_t o) { out[0]->data[w] += in[0]->data[x] * in[1]->data[o]; },
        [&](size_t w, size_t o) { out[0]->data[w] += 0 * in[1]->data[o]; });
}

static void partial_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    std::vector<int64_t> w(out[0]->shape.begin() + 1, out[0]->shape.end()); // of one block
    size_t weights = out[0]->data.size() / size_t(out[0]->shape[0]);
    size_t outputs = in[1]->data.size() / size_t(out[0]->shape[0]);
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_tap(
        node, in[0]->shape, w, in[1]->shape,
        [&](size_t x, size_t w, size_t o) {
            out[0]->data[o / outputs * weights + w] += in[0]->data[x] * in[1]->data[o];
        },
        [&](size_t w, size_t o) { out[0]->data[o / outputs * weights + w] += 0 * in[1]->data[o]; });
}

static std::vector<Case> cases() {
    return each_case([](const ConvCase &c, Attrs attrs) {
        Shape weight = case_of(c.weight).inputs[0].shape;
        attrs.map["r"] = weight[2];
        attrs.map["s"] = weight[3];
        return case_of(c.x + std::string(" ") + c.y, std::move(attrs));
    });
}

// Tiles are for one group.
static std::vector<Case> tile_cases() {
    std::vector<Case> all = cases();
    std::erase_if(all, [](const Case &c) { return c.attrs.has("groups"); });
    return all;
}

extern const OpDef conv2d_grad_weight_op, conv2d_grad_weight_partial_op, conv2d_grad_weight_tiles_op;
const OpDef conv2d_grad_weight_op = {.name = "conv2d_grad_weight",
                                     .summary = "gradient of conv2d for its weight",
                                     .min_inputs = 2,
                                     .max_inputs = 2,
                                     .infer = infer,
                                     .lower = lower,
                                     .reference = reference,
                                     .cases = cases,
                                     .no_gradient = made_by_gradients};
const OpDef conv2d_grad_weight_partial_op = {.name = "conv2d_grad_weight_partial",
                                             .summary = "the same for one block",
                                             .min_inputs = 2,
                                             .max_inputs = 2,
                                             .infer = infer_partial,
                                             .kernel = kernel_partial,
                                             .masked_input = 1,
                                             .reference = partial_reference,
                                             .cases = cases,
                                             .no_gradient = made_by_lowering};
const OpDef conv2d_grad_weight_tiles_op = {.name = "conv2d_grad_weight_tiles",
                                           .summary = "the same over all blocks, for a tile of output channels a task",
                                           .min_inputs = 2,
                                           .max_inputs = 2,
                                           .infer = infer,
                                           .kernel = kernel_tiles,
                                           .masked_input = 1,
                                           .reference = reference,
                                           .cases = tile_cases,
                                           .no_gradient = made_by_lowering};

} // namespace cryolite
