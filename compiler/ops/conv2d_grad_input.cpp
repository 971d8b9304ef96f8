// The gradient of conv2d for its input, from those of its result and the weight. Attributes h and w: the input's;
// swapped: the weight comes from swap_channels.
#include "conv2d_common.h"
#include "conv2d_strassen.h"
#include "conv2d_winograd.h"

namespace cryolite {

using namespace convolution;

static bool is_swapped(const Node &n) { return n.attrs.has("swapped"); }
static Shape weight_shape(Shape w, const Node &n) {
    if (is_swapped(n)) std::swap(w.dims.at(0), w.dims.at(1));
    return w;
}
static Shape weight_shape(const Graph &g, const Node &n) { return weight_shape(g.shape(n.inputs[1]), n); }
static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    if (is_swapped(n) && groups(n) > 1) compile_error(n, "weights of one group are swapped");
    return {{Shape{Shape::batch, weight_shape(g, n)[1] * groups(n), n.attrs.integer("h"), n.attrs.integer("w")},
             Type::f32}};
}
// A tile of input channels reads their weights for one output channel after the other. Of weights that do not fit in L1
// each lies in another page, unless they are swapped.
static bool worth_swapping(const Shape &w, const Node &n, const KernelContext &context) {
    return !context.device && groups(n) == 1 && w[0] > 1 && w[1] > 1 && w.elements() >= 1 << 12;
}
static ValueId add(Rewriter &r, const Node &n, Attrs attrs, const KernelContext &context) {
    std::vector<ValueId> inputs = r.inputs(n);
    const Shape &w = r.from.shape(n.inputs[1]);
    if (attrs.integer("stride") == 1)
        if (ValueId dx = strassen_conv2d_grad_input(r, n, inputs, context); dx != no_value) return dx;
    if (worth_swapping(w, n, context)) {
        inputs[1] = r.to.add1("swap_channels", {inputs[1]}, {}, n.layer, n.source);
        attrs.map["swapped"] = true;
    }
    return r.to.add1("conv2d_grad_input", inputs, attrs, n.layer, n.source);
}
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
    if (is_swapped(n)) {
        r.copy(n);
    } else if (skips_pixels(r.from.shape(n.inputs[1]), n, context)) {
        const Shape &dy = r.from.shape(n.inputs[0]);
        Attrs seen = of_stride_one(n.attrs), all = skipping(n);
        seen.map["h"] = dy[2];
        seen.map["w"] = dy[3];
        for (const char *side : {"h", "w"}) all.map[side] = n.attrs.integer(side);
        ValueId dx = add(r, n, seen, context);
        r.bind(n.outputs[0], r.to.add1("avg_pool2d_grad", {dx}, all, n.layer, n.source));
    } else if (!lower_conv2d_grad_input_to_winograd(r, n, context)) {
        r.bind(n.outputs[0], add(r, n, n.attrs, context));
    }
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &x = g.shape(n.outputs[0]), w = weight_shape(g, n);
    Kernel kernel{.generator = "conv2d_grad_input",
                  .parameters = parameters(x, w, n),
                  .args = {image_arg(input_arg(g, n, 0, context), w, n), input_arg(g, n, 1, context),
                           image_arg(output_arg(g, n, 0, context), w, n)},
                  .flops = flops(w, g.shape(n.inputs[0]), context)};
    if (is_swapped(n)) kernel.parameters["swapped"] = "true";
    note_batch(kernel, context);
    if (!cut_pixels(kernel, 2, x[1], x, w, n, context)) {
        cut_block(kernel, "c", {{1, is_swapped(n) ? 3u : 2u}, {2, 3}}, n, context);
        if (kernel.tiles && groups(n) == 1 && !is_swapped(n)) kernel.parameters["weight_c"] = text(x[1]);
    }
    pack_source(kernel, w[0], std::stoll(kernel.parameters.at("c")), w, n, context);
    return kernel;
}
static void reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    const Tensor &weight = is_swapped(node) ? swapped(*in[1]) : *in[1];
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_tap(
        node, out[0]->shape, weight.shape, in[0]->shape,
        [&](size_t x, size_t w, size_t o) { out[0]->data[x] += in[0]->data[o] * weight.data[w]; },
        [](size_t, size_t) {});
}
static std::vector<Case> cases() {
    std::vector<Case> cases = each_case([](const ConvCase &c, Attrs attrs) {
        Shape x = case_of(c.x).inputs[0].shape;
        attrs.map["h"] = x[2];
        attrs.map["w"] = x[3];
        return case_of(c.y + std::string(" ") + c.weight, std::move(attrs));
    });
    for (size_t i = 0, plain = cases.size(); i < plain; i++) { // and with a swapped weight
        Case c = cases[i];
        if (c.attrs.has("groups")) continue;
        std::swap(c.inputs[1].shape.dims.at(0), c.inputs[1].shape.dims.at(1));
        c.attrs.map["swapped"] = true;
        cases.push_back(std::move(c));
    }
    return cases;
}

extern const OpDef conv2d_grad_input_op;
const OpDef conv2d_grad_input_op = {.name = "conv2d_grad_input",
                                    .summary = "gradient of conv2d for its input",
                                    .min_inputs = 2,
                                    .max_inputs = 2,
                                    .infer = infer,
                                    .lower = lower,
                                    .kernel = kernel,
                                    .padding = Padding::if_all,
                                    .reference = reference,
                                    .cases = cases,
                                    .no_gradient = made_by_gradients};

} // namespace cryolite
