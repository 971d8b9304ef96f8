// The gradient of conv2d for its input, from those of its result and the weight. Attributes h and w: the input's.
#include "conv2d_common.h"
#include "conv2d_winograd.h"

namespace cryolite {

using namespace convolution;

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    return {{Shape{Shape::batch, g.shape(n.inputs[1])[1] * groups(n), n.attrs.integer("h"), n.attrs.integer("w")},
             Type::f32}};
}
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
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
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
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
static void reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_tap(
        node, out[0]->shape, in[1]->shape, in[0]->shape,
        [&](size_t x, size_t w, size_t o) { out[0]->data[x] += in[0]->data[o] * in[1]->data[w]; },
        [](size_t, size_t) {});
}
static std::vector<Case> cases() {
    return each_case([](const ConvCase &c, Attrs attrs) {
        Shape x = case_of(c.x).inputs[0].shape;
        attrs.map["h"] = x[2];
        attrs.map["w"] = x[3];
        return case_of(c.y + std::string(" ") + c.weight, std::move(attrs));
    });
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
