// 2-D convolution of x [n,c,h,w] with weight [k,c/groups,r,s] and bias [k] (conv2d_common.h).
#include "conv2d_common.h"
#include "conv2d_strassen.h"
#include "conv2d_winograd.h"

namespace cryolite {

using namespace convolution;

static int64_t out_extent(int64_t in, int64_t window, const Node &n) {
    return (in + 2 * n.attrs.integer("padding") - window) / n.attrs.integer("stride") + 1;
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
    if (has_bias(n) && g.shape(n.inputs[2]) != Shape{w[0]})
        compile_error(n, "bias " + g.shape(n.inputs[2]).text() + " does not fit weight " + w.text());
    int64_t padding = n.attrs.integer("padding"), stride = n.attrs.integer("stride");
    if (stride < 1 || padding < 0)
        compile_error(n, "stride " + text(stride) + ", padding " + text(padding) + " are no stride and no padding");
    if (w[2] > x[2] + 2 * padding || w[3] > x[3] + 2 * padding)
        compile_error(n, "window " + w.text() + " does not fit the padded input " + x.text());
    const Shape y{Shape::batch, w[0], out_extent(x[2], w[2], n), out_extent(x[3], w[3], n)};
    check_program_inputs(g, n, y);
    return {{y, Type::f32}};
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
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
    const Shape &w = r.from.shape(n.inputs[1]);
    const bool skips = skips_pixels(w, n, context);
    if (!skips && lower_conv2d_to_winograd(r, n, context)) return;
    std::vector<ValueId> inputs = r.inputs(n);
    if (skips) inputs[0] = seen_pixels(r, n, inputs[0]);
    ValueId y = skips || by_pixels(w, n) ? strassen_conv2d(r, n, inputs, context) : no_value;
    if (y == no_value) y = r.to.add1("conv2d", inputs, skips ? of_stride_one(n.attrs) : n.attrs, n.layer, n.source);
    r.bind(n.outputs[0], y);
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &x = g.shape(n.inputs[0]), &w = g.shape(n.inputs[1]);
    Kernel kernel{.generator = "conv2d",
                  .parameters = parameters(x, w, n),
                  .args = {},
                  .flops = flops(w, g.shape(n.outputs[0]), context)};
    kernel.parameters["bias"] = has_bias(n) ? "true" : "false";
    if (n.attrs.has("program")) kernel.parameters["program"] = n.attrs.string("program");
    note_batch(kernel, context);
    const size_t results = n.inputs.size() - program_inputs(n); // arguments from here on are shaped as the result
    for (size_t i = 0; i < n.inputs.size(); i++) {
        const KernelArg arg = input_arg(g, n, int(i), context);
        kernel.args.push_back(i == 0 || i >= results ? image_arg(arg, w, n) : arg);
    }
    kernel.args.push_back(image_arg(output_arg(g, n, 0, context), w, n));
    std::vector<ChannelDimension> channels{{1, 3}};
    if (has_bias(n)) channels.push_back({2, 0});
    for (size_t i = results; i < kernel.args.size(); i++) channels.push_back({i, 3});
    if (!cut_pixels(kernel, results, w[0], x, w, n, context)) cut_block(kernel, "k", channels, n, context);
    pack_source(kernel, x[1], std::stoll(kernel.parameters.at("k")), w, n, context);
    return kernel;
}
static void reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    if (node.attrs.has("program")) compile_error(node, "there is no reference with a program");
    Tensor &y = *out[0];
    int64_t plane = y.shape[2] * y.shape[3];
    for (int64_t i = 0; i < y.elements(); i++)
        y.data[size_t(i)] = in.size() > 2 ? in[2]->data[size_t(i / plane % y.shape[1])] : 0;
    each_tap(
        node, in[0]->shape, in[1]->shape, y.shape,
        [&](size_t x, size_t w, size_t o) { y.data[o] += in[0]->data[x] * in[1]->data[w]; },
        [&](size_t w, size_t o) { y.data[o] += 0 * in[1]->data[w]; });
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

extern const OpDef conv2d_op;
const OpDef conv2d_op = {.name = "conv2d",
                         .summary = "2-D convolution",
                         .min_inputs = 2,
                         .max_inputs = 1 << 16,
                         .infer = infer,
                         .gradient = gradient,
                         .lower = lower,
                         .kernel = kernel,
                         .reference = reference,
                         .cases = cases};

} // namespace cryolite
