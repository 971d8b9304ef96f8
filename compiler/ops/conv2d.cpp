// 2-D convolution and its two gradients. x [n,c,h,w], weight [k,c/groups,r,s], bias [k]. The attribute `groups`, 1
// where it is missing, cuts the channels into so many convolutions side by side: each sees c/groups and makes k/groups.
#include "common.h"
#include "conv2d_winograd.h"

#include "schedule.h"

namespace cryolite {

static int64_t out_extent(int64_t in, int64_t window, const Node &n) {
    return (in + 2 * n.attrs.integer("padding") - window) / n.attrs.integer("stride") + 1;
}
static int64_t groups(const Node &n) { return n.attrs.has("groups") ? n.attrs.integer("groups") : 1; }
// Where the window is one pixel, an image is as good as one row: rows that no tile divides then waste nothing.
static bool by_pixels(const Shape &w, const Node &n) {
    return w[2] * w[3] == 1 && n.attrs.integer("stride") == 1 && n.attrs.integer("padding") == 0;
}
static std::map<std::string, std::string> parameters(const Shape &x, const Shape &w, const Node &node) {
    const bool row = by_pixels(w, node);
    std::map<std::string, std::string> result{{"c", text(x[1])},
                                              {"h", text(row ? 1 : x[2])},
                                              {"w", text(row ? x[2] * x[3] : x[3])},
                                              {"k", text(w[0])},
                                              {"r", text(w[2])},
                                              {"s", text(w[3])},
                                              {"stride", text(node.attrs.integer("stride"))},
                                              {"padding", text(node.attrs.integer("padding"))}};
    if (groups(node) > 1) result["groups"] = text(groups(node));
    return result;
}
// Images as kernels see them: the groups of a block are blocks of fewer channels, one after another (kernels.md).
static KernelArg image_arg(KernelArg arg, const Shape &w, const Node &node) {
    if (by_pixels(w, node)) {
        arg.extents.at(1) *= arg.extents.at(2);
        arg.extents.at(2) = 1;
    }
    arg.extents.at(3) /= groups(node);
    arg.extents.at(4) *= groups(node);
    return arg;
}
static double flops(const Shape &w, const Shape &y, const KernelContext &context) {
    return 2.0 * double(context.lanes) * double(w.elements()) * double(y[2] * y[3]);
}

struct ChannelDimension {
    size_t arg, dimension;
};
// Leaves the kernel one tile of a block, where there should be tiles: a range of the channels that the parameter
// `counter` counts, in these dimensions of the arguments. Of groups, which are the outermost dimension of all.
static void cut_block(Kernel &kernel, const char *counter, const std::vector<ChannelDimension> &cuts, const Node &n,
                      const KernelContext &context) {
    const int64_t channels = std::stoll(kernel.parameters.at(counter)), of_group = channels / groups(n);
    const int64_t tiles = groups(n) > 1 ? block_tiles(groups(n), (context.lanes + of_group - 1) / of_group, context)
                                        : block_tiles(channels, context.lanes, context);
    if (!tiles) return;
    kernel.tiles = tiles;
    kernel.of_block = true;
    kernel.flops /= double(tiles);
    auto divide = [&](const char *parameter) {
        std::string &value = kernel.parameters.at(parameter);
        value = text(std::stoll(value) / tiles);
    };
    if (groups(n) == 1) {
        divide(counter);
        for (const ChannelDimension &c : cuts) cut(kernel.args.at(c.arg), c.dimension, tiles);
    } else {
        for (const char *parameter : {"c", "k", "groups"}) divide(parameter);
        for (KernelArg &arg : kernel.args) cut(arg, arg.extents.size() - 1, tiles);
    }
}
// The same with ranges of pixels instead of channels, where weights are smaller than images: a task then reads its part
// of the images and all weights.
static bool cut_pixels(Kernel &kernel, int64_t results, const Shape &x, const Shape &w, const Node &n,
                       const KernelContext &context) {
    const int64_t pixels = x[2] * x[3];
    if (!by_pixels(w, n) || groups(n) > 1 || pixels * context.lanes < results) return false;
    const int64_t tiles = block_tiles(pixels, most_packed_pixels, context);
    if (!tiles) return false;
    kernel.tiles = tiles;
    kernel.of_block = true;
    kernel.flops /= double(tiles);
    kernel.parameters["w"] = text(pixels / tiles);
    kernel.parameters["plane"] = text(pixels);
    cut(kernel.args.front(), 1, tiles);
    cut(kernel.args.back(), 1, tiles);
    return true;
}
// Scratch for the copy of a source of `channels` channels, before the result, where copying it pays. Only for kernels
// whose images are all pixels in a row (by_pixels) and of one group.
static void pack_source(Kernel &kernel, int64_t channels, int64_t results, const Shape &w, const Node &n,
                        const KernelContext &context) {
    if (context.device || !by_pixels(w, n) || groups(n) > 1 || !worth_packing(results)) return;
    kernel.parameters["pack"] = "true";
    kernel.scratch = packed_elements(context.lanes, channels);
    kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::scratch, .extents = {}});
}

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]), &w = g.shape(n.inputs[1]);
    if (x.rank() != 4 || !x.batched()) compile_error(n, "the input must be [n, c, h, w], not " + x.text());
    if (w.rank() != 4) compile_error(n, "the weight must be [k, c, r, s], not " + w.text());
    if (groups(n) < 1 || x[1] % groups(n) || w[0] % groups(n))
        compile_error(n, "groups " + text(groups(n)) + " does not divide the channels of input " + x.text() +
                             " and weight " + w.text());
    if (w[1] != x[1] / groups(n))
        compile_error(n, "input " + x.text() + (groups(n) > 1 ? " in " + text(groups(n)) + " groups" : "") +
                             " does not fit weight " + w.text());
    if (n.inputs.size() > 2 && g.shape(n.inputs[2]) != Shape{w[0]})
        compile_error(n, "bias " + g.shape(n.inputs[2]).text() + " does not fit weight " + w.text());
    int64_t padding = n.attrs.integer("padding"), stride = n.attrs.integer("stride");
    if (stride < 1 || padding < 0)
        compile_error(n, "stride " + text(stride) + ", padding " + text(padding) + " are no stride and no padding");
    if (w[2] > x[2] + 2 * padding || w[3] > x[3] + 2 * padding)
        compile_error(n, "window " + w.text() + " does not fit the padded input " + x.text());
    return {{Shape{Shape::batch, w[0], out_extent(x[2], w[2], n), out_extent(x[3], w[3], n)}, Type::f32}};
}
static std::vector<ValueId> gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    Shape x = g.shape(n.inputs[0]), w = g.shape(n.inputs[1]);
    Attrs input_attrs = n.attrs, weight_attrs = n.attrs;
    input_attrs.map["h"] = x[2];
    input_attrs.map["w"] = x[3];
    weight_attrs.map["r"] = w[2];
    weight_attrs.map["s"] = w[3];
    std::vector<ValueId> result{g.add1("conv2d_grad_input", {dy[0], n.inputs[1]}, input_attrs, n.layer),
                                g.add1("conv2d_grad_weight", {n.inputs[0], dy[0]}, weight_attrs, n.layer)};
    if (n.inputs.size() > 2)
        result.push_back(
            sum_to(g, g.add1("sum", {dy[0]}, {{"axes", batch_axes(g.shape(dy[0]))}}, n.layer), Shape{w[0]}, n.layer));
    return result;
}
// A window of one pixel that moves in strides sees an image of fewer pixels. On a processor that is made first: kernels
// then find their pixels side by side.
static bool skips_pixels(const Shape &w, const Node &n, const KernelContext &context) {
    return w[2] * w[3] == 1 && n.attrs.integer("stride") > 1 && n.attrs.integer("padding") == 0 && !context.device &&
           !context.vector;
}
static Attrs of_stride_one(Attrs attrs) {
    attrs.map["stride"] = int64_t(1);
    return attrs;
}
static Attrs skipping(const Node &n) {
    return {{"window", int64_t(1)}, {"stride", n.attrs.integer("stride")}, {"padding", int64_t(0)}};
}
static ValueId seen_pixels(Rewriter &r, const Node &n, ValueId x) {
    return r.to.add1("avg_pool2d", {x}, skipping(n), n.layer, n.source);
}
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
    if (skips_pixels(r.from.shape(n.inputs[1]), n, context)) {
        std::vector<ValueId> inputs = r.inputs(n);
        inputs[0] = seen_pixels(r, n, inputs[0]);
        r.bind(n.outputs[0], r.to.add1("conv2d", inputs, of_stride_one(n.attrs), n.layer, n.source));
    } else if (!lower_conv2d_to_winograd(r, n, context)) {
        r.copy(n);
    }
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &x = g.shape(n.inputs[0]), &w = g.shape(n.inputs[1]);
    Kernel kernel{.generator = "conv2d",
                  .parameters = parameters(x, w, n),
                  .args = {},
                  .flops = flops(w, g.shape(n.outputs[0]), context)};
    kernel.parameters["bias"] = n.inputs.size() > 2 ? "true" : "false";
    note_batch(kernel, context);
    for (int i = 0; i < int(n.inputs.size()); i++) kernel.args.push_back(input_arg(g, n, i, context));
    kernel.args.push_back(image_arg(output_arg(g, n, 0, context), w, n));
    kernel.args[0] = image_arg(kernel.args[0], w, n);
    std::vector<ChannelDimension> channels{{1, 3}, {2, 3}};
    if (n.inputs.size() > 2) channels = {{1, 3}, {2, 0}, {3, 3}};
    if (!cut_pixels(kernel, w[0], x, w, n, context)) cut_block(kernel, "k", channels, n, context);
    pack_source(kernel, x[1], std::stoll(kernel.parameters.at("k")), w, n, context);
    return kernel;
}

// Calls f(index of x, of weight, of y) for every multiply-add inside the image, outside(of weight, of y) for those with
// the padding: zeros, but NaN in a product with NaN or infinity.
template <typename F, typename Outside>
static void each_tap(const Node &node, const std::vector<int64_t> &x, const std::vector<int64_t> &w,
                     const std::vector<int64_t> &y, F f, Outside outside) {
    int64_t stride = node.attrs.integer("stride"), padding = node.attrs.integer("padding");
    int64_t outputs = y[1] / groups(node); // of a group
    for (int64_t n = 0; n < y[0]; n++)
        for (int64_t k = 0; k < y[1]; k++)
            for (int64_t i = 0; i < y[2]; i++)
                for (int64_t j = 0; j < y[3]; j++)
                    for (int64_t c = 0; c < w[1]; c++)
                        for (int64_t r = 0; r < w[2]; r++)
                            for (int64_t s = 0; s < w[3]; s++) {
                                int64_t yy = i * stride + r - padding, xx = j * stride + s - padding;
                                size_t weight = size_t(((k * w[1] + c) * w[2] + r) * w[3] + s);
                                size_t result = size_t(((n * y[1] + k) * y[2] + i) * y[3] + j);
                                if (yy < 0 || yy >= x[2] || xx < 0 || xx >= x[3])
                                    outside(weight, result);
                                else
                                    f(size_t(((n * x[1] + k / outputs * w[1] + c) * x[2] + yy) * x[3] + xx), weight,
                                      result);
                            }
}
static void reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    Tensor &y = *out[0];
    int64_t plane = y.shape[2] * y.shape[3];
    for (int64_t i = 0; i < y.elements(); i++)
        y.data[size_t(i)] = in.size() > 2 ? in[2]->data[size_t(i / plane % y.shape[1])] : 0;
    each_tap(
        node, in[0]->shape, in[1]->shape, y.shape,
        [&](size_t x, size_t w, size_t o) { y.data[o] += in[0]->data[x] * in[1]->data[w]; },
        [&](size_t w, size_t o) { y.data[o] += 0 * in[1]->data[w]; });
}
static void input_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_tap(
        node, out[0]->shape, in[1]->shape, in[0]->shape,
        [&](size_t x, size_t w, size_t o) { out[0]->data[x] += in[0]->data[o] * in[1]->data[w]; },
        [](size_t, size_t) {});
}
static void weight_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
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

static std::vector<ValueType> infer_input(const Graph &g, const Node &n) {
    return {{Shape{Shape::batch, g.shape(n.inputs[1])[1] * groups(n), n.attrs.integer("h"), n.attrs.integer("w")},
             Type::f32}};
}
static void lower_input(Rewriter &r, const Node &n, const KernelContext &context) {
    if (skips_pixels(r.from.shape(n.inputs[1]), n, context)) {
        const Shape &dy = r.from.shape(n.inputs[0]);
        Attrs seen = of_stride_one(n.attrs), all = skipping(n);
        seen.map["h"] = dy[2];
        seen.map["w"] = dy[3];
        for (const char *side : {"h", "w"}) all.map[side] = n.attrs.integer(side);
        ValueId dx = r.to.add1("conv2d_grad_input", r.inputs(n), seen, n.layer, n.source);
        r.bind(n.outputs[0], r.to.add1("avg_pool2d_grad", {dx}, all, n.layer, n.source));
    } else if (!lower_conv2d_grad_input_to_winograd(r, n, context)) {
        r.copy(n);
    }
}
static Kernel kernel_input(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &x = g.shape(n.outputs[0]), &w = g.shape(n.inputs[1]);
    Kernel kernel{.generator = "conv2d_grad_input",
                  .parameters = parameters(x, w, n),
                  .args = {image_arg(input_arg(g, n, 0, context), w, n), input_arg(g, n, 1, context),
                           image_arg(output_arg(g, n, 0, context), w, n)},
                  .flops = flops(w, g.shape(n.inputs[0]), context)};
    note_batch(kernel, context);
    if (!cut_pixels(kernel, x[1], x, w, n, context)) {
        cut_block(kernel, "c", {{1, 2}, {2, 3}}, n, context);
        if (kernel.tiles && groups(n) == 1) kernel.parameters["weight_c"] = text(x[1]);
    }
    pack_source(kernel, w[0], std::stoll(kernel.parameters.at("c")), w, n, context);
    return kernel;
}
static Shape weight_shape(const Graph &g, const Node &n) {
    return Shape{g.shape(n.inputs[1])[1], g.shape(n.inputs[0])[1] / groups(n), n.attrs.integer("r"),
                 n.attrs.integer("s")};
}
static std::vector<ValueType> infer_weight(const Graph &g, const Node &n) { return {{weight_shape(g, n), Type::f32}}; }
static int64_t weight_tile(const Shape &w, const Shape &y, const Node &n, const KernelContext &context) {
    if (groups(n) > 1) return 0;
    // On a device one launch has all tiles: where these are enough to fill it, no partial sums are written.
    if (context.device) return w[0] * w[1] * w[2] >= 1 << 14 ? w[0] : 0;
    return conv2d_grad_weight_tile({.c = w[1],
                                    .k = w[0],
                                    .window = w[2] * w[3],
                                    .pixels = y[2] * y[3],
                                    .lanes = context.lanes,
                                    .blocks = context.max_blocks()});
}
static void lower_weight(Rewriter &r, const Node &n, const KernelContext &context) {
    if (lower_conv2d_grad_weight_to_winograd(r, n, context)) return;
    const Shape w = weight_shape(r.from, n);
    std::vector<ValueId> inputs = r.inputs(n);
    Attrs attrs = n.attrs;
    if (skips_pixels(w, n, context)) {
        inputs[0] = seen_pixels(r, n, inputs[0]);
        attrs = of_stride_one(attrs);
    }
    if (weight_tile(w, r.from.shape(n.inputs[1]), n, context)) {
        r.bind(n.outputs[0], r.to.add1("conv2d_grad_weight_tiles", inputs, attrs, n.layer, n.source));
        return;
    }
    ValueId partial = r.to.add1("conv2d_grad_weight_partial", inputs, attrs, n.layer, n.source);
    r.bind(n.outputs[0],
           r.to.add1("sum_merge", {partial}, {{"mean_count", int64_t(0)}, {"shape", r.from.shape(n.outputs[0]).dims}},
                     n.layer, n.source));
}
static std::vector<ValueType> infer_weight_partial(const Graph &g, const Node &n) {
    Shape shape = weight_shape(g, n);
    shape.dims.insert(shape.dims.begin(), Shape::blocks);
    return {{shape, Type::f32}};
}
static Kernel kernel_weight(const Graph &g, const Node &n, const KernelContext &context) {
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
static Kernel kernel_weight_tiles(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape w = weight_shape(g, n), &y = g.shape(n.inputs[1]);
    // A graph may ask for tiles where they are not worth it.
    const int64_t tile =
        context.device ? w[0] : std::max(weight_tile(w, y, n, context), int64_t(largest_divisor(int(w[0]), 8)));
    auto all_blocks = [&](int input) {
        KernelArg arg = image_arg(input_arg(g, n, input, context), w, n);
        arg.extents.pop_back();
        arg.all_blocks = true;
        return arg;
    };
    KernelArg x = all_blocks(0), dy = all_blocks(1);
    dy.extents[3] = tile;
    dy.tile_stride = dy.extents[0] * dy.extents[1] * dy.extents[2] * tile;
    Kernel kernel{.generator = "conv2d_grad_weight_tiles",
                  .parameters = parameters(g.shape(n.inputs[0]), w, n),
                  .args = {{.kind = KernelArg::batch, .extents = {}},
                           x,
                           dy,
                           {.kind = KernelArg::output,
                            .index = 0,
                            .extents = {w[3], w[2], w[1], tile, 1},
                            .tile_stride = w[3] * w[2] * w[1] * tile}},
                  .tiles = w[0] / tile,
                  .flops = flops(w, y, context) * double(tile * context.max_blocks()) / double(w[0])};
    kernel.parameters["tile"] = text(tile);
    return kernel;
}

// Shapes of x, weight and y.
struct ConvCase {
    const char *x, *weight, *y;
    int64_t stride, padding;
    bool large = false;
    int64_t groups = 1;
};
const ConvCase conv_cases[] = {
    {"[n,2,5,5]", "[3,2,5,5]", "[n,3,1,1]", 1, 0}, // window = input
    {"[n,1,7,5]", "[2,1,2,2]", "[n,2,2,2]", 3, 0}, // stride > window
    {"[n,3,4,4]", "[2,3,3,3]", "[n,2,4,4]", 1, 1},
    {"[n,2,5,7]", "[3,2,3,3]", "[n,3,4,5]", 2, 2},
    {"[n,3,1,1]", "[2,3,1,1]", "[n,2,1,1]", 1, 0},
    {"[n,1,1,1]", "[1,1,3,3]", "[n,1,1,1]", 1, 1}, // padding > image
    {"[n,1,1,1]", "[4,1,1,1]", "[n,4,3,3]", 1, 1},
    {"[n,2,2,2]", "[3,2,1,1]", "[n,3,3,3]", 3, 3},           // padding >= window
    {"[n,2,4,5]", "[2,2,1,3]", "[n,2,4,3]", 1, 0},           // window not square
    {"[n,3,17,19]", "[7,3,7,7]", "[n,7,9,10]", 2, 3, true},  // a first layer
    {"[n,67,3,5]", "[13,67,1,1]", "[n,13,3,5]", 1, 0, true}, // primes
    {"[n,32,14,14]", "[32,32,3,3]", "[n,32,14,14]", 1, 1, true},
    {"[n,1,23,23]", "[4,1,11,11]", "[n,4,4,4]", 4, 0, true},
    {"[n,4,4,5]", "[6,2,3,3]", "[n,6,4,5]", 1, 1, false, 2},
    {"[n,6,5,3]", "[3,2,2,1]", "[n,3,3,3]", 2, 1, false, 3}, // one output channel a group
    {"[n,3,4,4]", "[3,1,3,3]", "[n,3,4,4]", 1, 1, false, 3}, // depthwise
    {"[n,2,5,5]", "[6,1,3,3]", "[n,6,3,3]", 2, 1, false, 2}, // and with three outputs a channel
    {"[n,2,1,1]", "[2,1,3,3]", "[n,2,1,1]", 1, 1, false, 2},
    {"[n,2,2,2]", "[4,1,1,1]", "[n,4,3,3]", 3, 3, false, 2},
    {"[n,3,4,7]", "[3,1,2,2]", "[n,3,2,3]", 2, 0, false, 3},
    {"[n,12,14,13]", "[12,1,3,3]", "[n,12,14,13]", 1, 1, true, 12},
    {"[n,12,13,14]", "[12,1,3,3]", "[n,12,7,7]", 2, 1, true, 12},
    {"[n,5,17,19]", "[10,1,5,5]", "[n,10,17,19]", 1, 2, true, 5},
    {"[n,36,9,9]", "[60,9,3,3]", "[n,60,9,9]", 1, 1, true, 4},
    {"[n,3,112,112]", "[64,3,7,7]", "[n,64,56,56]", 2, 3, true},   // ResNet's first,
    {"[n,256,14,14]", "[256,256,3,3]", "[n,256,7,7]", 2, 1, true}, // and a late one
};
static std::vector<Case> each_case(Case (*make)(const ConvCase &, Attrs)) {
    std::vector<Case> cases;
    for (const ConvCase &c : conv_cases) {
        Attrs attrs{{"stride", c.stride}, {"padding", c.padding}};
        if (c.groups > 1) attrs.map["groups"] = c.groups;
        cases.push_back(make(c, attrs));
        cases.back().large = c.large;
    }
    return cases;
}
static std::vector<Case> cases() {
    std::vector<Case> cases = each_case(
        [](const ConvCase &c, Attrs attrs) { return case_of(c.x + std::string(" ") + c.weight, std::move(attrs)); });
    for (size_t i = 0, plain = cases.size(); i < plain; i++) { // and with a bias
        Case c = cases[i];
        if (c.inputs[1].shape.elements() > 100000) continue; // takes long enough once
        c.inputs.push_back({Shape{c.inputs[1].shape[0]}, Type::f32});
        cases.push_back(std::move(c));
    }
    return cases;
}
static std::vector<Case> input_cases() {
    return each_case([](const ConvCase &c, Attrs attrs) {
        Shape x = case_of(c.x).inputs[0].shape;
        attrs.map["h"] = x[2];
        attrs.map["w"] = x[3];
        return case_of(c.y + std::string(" ") + c.weight, std::move(attrs));
    });
}
static std::vector<Case> weight_cases() {
    return each_case([](const ConvCase &c, Attrs attrs) {
        Shape weight = case_of(c.weight).inputs[0].shape;
        attrs.map["r"] = weight[2];
        attrs.map["s"] = weight[3];
        return case_of(c.x + std::string(" ") + c.y, std::move(attrs));
    });
}

// Tiles are for one group.
static std::vector<Case> tile_cases() {
    std::vector<Case> cases = weight_cases();
    std::erase_if(cases, [](const Case &c) { return c.attrs.has("groups"); });
    return cases;
}

extern const OpDef conv2d_op, conv2d_grad_input_op, conv2d_grad_weight_op, conv2d_grad_weight_partial_op,
    conv2d_grad_weight_tiles_op;
const OpDef conv2d_op = {.name = "conv2d",
                         .summary = "2-D convolution",
                         .min_inputs = 2,
                         .max_inputs = 3,
                         .infer = infer,
                         .gradient = gradient,
                         .lower = lower,
                         .kernel = kernel,
                         .reference = reference,
                         .cases = cases};
const OpDef conv2d_grad_input_op = {.name = "conv2d_grad_input",
                                    .summary = "gradient of conv2d for its input",
                                    .min_inputs = 2,
                                    .max_inputs = 2,
                                    .infer = infer_input,
                                    .lower = lower_input,
                                    .kernel = kernel_input,
                                    .padding = Padding::if_all,
                                    .reference = input_reference,
                                    .cases = input_cases,
                                    .no_gradient = made_by_gradients};
const OpDef conv2d_grad_weight_op = {.name = "conv2d_grad_weight",
                                     .summary = "gradient of conv2d for its weight",
                                     .min_inputs = 2,
                                     .max_inputs = 2,
                                     .infer = infer_weight,
                                     .lower = lower_weight,
                                     .reference = weight_reference,
                                     .cases = weight_cases,
                                     .no_gradient = made_by_gradients};
const OpDef conv2d_grad_weight_partial_op = {.name = "conv2d_grad_weight_partial",
                                             .summary = "the same for one block",
                                             .min_inputs = 2,
                                             .max_inputs = 2,
                                             .infer = infer_weight_partial,
                                             .kernel = kernel_weight,
                                             .masked_input = 1,
                                             .reference = partial_reference,
                                             .cases = weight_cases,
                                             .no_gradient = made_by_lowering};
const OpDef conv2d_grad_weight_tiles_op = {.name = "conv2d_grad_weight_tiles",
                                           .summary = "the same over all blocks, for a tile of output channels a task",
                                           .min_inputs = 2,
                                           .max_inputs = 2,
                                           .infer = infer_weight,
                                           .kernel = kernel_weight_tiles,
                                           .masked_input = 1,
                                           .reference = weight_reference,
                                           .cases = tile_cases,
                                           .no_gradient = made_by_lowering};

} // namespace cryolite
