// Convolutions of one pixel by Strassen's product of matrices (generators/strassen.h): what lower makes of conv2d and
// its input gradient where seven eighths of the multiply-adds save more than the sums cost.
//
// The transformed weight is a whole value: made once a step, for all blocks, by every node that needs it once.
#include "conv2d_strassen.h"

#include "common.h"
#include "conv2d_common.h"

#include "../../generators/strassen.h"

#include <cmath>

namespace cryolite {

using convolution::Split, convolution::in_one_row;

// ---- the transformed weight: [channel tiles, products, half of the input channels, output channels of a tile]. Of a
// convolution in `tiles` each tile is one of its own.
static std::vector<int64_t> weight_dims(const StrassenConv &q, int64_t tiles) {
    return {tiles * q.channel_tiles(), strassen_products, q.c / 2, q.tile_k()};
}
static int64_t tiles_of(const Node &n) { return n.attrs.has("tiles") ? n.attrs.integer("tiles") : 1; }
// One of the convolutions that it is made for.
static StrassenConv of_weight(const Shape &w, const Node &n) {
    const bool flip = n.attrs.flag("flip");
    return {.lanes = int(n.attrs.integer("lanes")), .c = int(w[flip ? 0 : 1]), .k = int(w[flip ? 1 : 0] / tiles_of(n))};
}
static std::vector<ValueType> infer_weight(const Graph &g, const Node &n) {
    const Shape &w = g.shape(n.inputs[0]);
    if (w.rank() != 4 || w[2] != 1 || w[3] != 1) compile_error(n, "the window of weight " + w.text() + " is no pixel");
    const StrassenConv q = of_weight(w, n);
    if (!q.has_quadrants()) compile_error(n, "weight " + w.text() + " has no quadrants");
    return {{Shape(weight_dims(q, tiles_of(n))), Type::f32}};
}
static Kernel kernel_weight(const Graph &g, const Node &n, const KernelContext &context) {
    const StrassenConv q = of_weight(g.shape(n.inputs[0]), n);
    Kernel kernel{.generator = "strassen_weight",
                  .parameters = {{"c", text(q.c)}, {"k", text(q.k)}, {"flip", n.attrs.flag("flip") ? "true" : "false"}},
                  .args = {input_arg(g, n, 0, context), output_arg(g, n, 0, context)}};
    if (tiles_of(n) > 1) kernel.parameters["tiles"] = text(tiles_of(n));
    // All threads share a large one.
    const int64_t few = 1 << 15, tasks = g.shape(n.outputs[0])[0];
    if (g.shape(n.outputs[0]).elements() > few && tasks > 1) {
        kernel.tiles = tasks;
        kernel.at_barrier = true;
        kernel.parameters["in_parts"] = "true";
        cut(kernel.args[1], 3, tasks);
        kernel.args.insert(kernel.args.begin() + 1, {.kind = KernelArg::tile, .extents = {}});
    }
    return kernel;
}
static void reference_weight(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    const std::vector<int64_t> &w = in[0]->shape, &u = out[0]->shape;
    const bool flip = node.attrs.flag("flip");
    const StrassenConv q = of_weight(Shape(w), node);
    size_t at = 0;
    for (int64_t tile = 0; tile < u[0]; tile++)
        for (const auto &signs : strassen_matrices.weight)
            for (int64_t c = 0; c < u[2]; c++)
                for (int64_t i = 0; i < u[3]; i++) {
                    const int64_t all = q.channel_tiles();
                    const int64_t in_half = std::min<int64_t>(tile % all * q.tile_k() + i, q.k / 2 - 1);
                    double sum = 0;
                    for (int quadrant = 0; quadrant < 4; quadrant++) {
                        const int64_t output = tile / all * q.k + quadrant / 2 * (q.k / 2) + in_half;
                        const int64_t input = quadrant % 2 * (q.c / 2) + c;
                        sum += signs[size_t(quadrant)] *
                               in[0]->data[size_t(flip ? input * w[1] + output : output * w[1] + input)];
                    }
                    out[0]->data[at++] = sum;
                }
}

// ---- the convolution
// One tile of it.
static StrassenConv conv_of(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    return {.lanes = int(n.attrs.integer("lanes")),
            .c = int(x[1]),
            .k = int(n.attrs.integer("k") / tiles_of(n)),
            .pixels = int(x[2] * x[3])};
}
static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]), &u = g.shape(n.inputs[1]);
    if (x.rank() != 4 || !x.batched()) compile_error(n, "the input must be [n, c, h, w], not " + x.text());
    const StrassenConv q = conv_of(g, n);
    if (!q.possible()) compile_error(n, "input " + x.text() + " has no quadrants");
    if (const Shape expected(weight_dims(q, tiles_of(n))); u != expected)
        compile_error(n, "transformed weight " + u.text() + " for input " + x.text() + " must be " + expected.text());
    const int64_t k = n.attrs.integer("k");
    if (has_bias(n) && g.shape(n.inputs[2]) != Shape{k})
        compile_error(n, "bias " + g.shape(n.inputs[2]).text() + " does not fit " + text(k) + " channels");
    const Shape y{Shape::batch, k, x[2], x[3]};
    check_program_inputs(g, n, y);
    return {{y, Type::f32}};
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const StrassenConv q = conv_of(g, n);
    Kernel kernel{.generator = "conv2d_strassen",
                  .parameters = {{"c", text(q.c)}, {"k", text(q.k)}, {"w", text(q.pixels)}},
                  .args = {},
                  .flops = 2.0 * q.lanes * q.c * double(n.attrs.integer("k")) * q.pixels, // direct convolution's
                  .scratch = q.scratch_elements()};
    kernel.parameters["bias"] = has_bias(n) ? "true" : "false";
    if (n.attrs.has("program")) kernel.parameters["program"] = n.attrs.string("program");
    const size_t results = n.inputs.size() - program_inputs(n); // arguments from here on are shaped as the result
    for (size_t i = 0; i < n.inputs.size(); i++) {
        const KernelArg arg = input_arg(g, n, int(i), context);
        kernel.args.push_back(i == 0 || i >= results ? in_one_row(arg) : arg);
    }
    kernel.args.push_back(in_one_row(output_arg(g, n, 0, context)));
    if (const int64_t tiles = tiles_of(n); tiles > 1) {
        tile_block(kernel, tiles);
        cut(kernel.args[1], 3, tiles);
        if (has_bias(n)) cut(kernel.args[2], 0, tiles);
        for (size_t i = results; i < kernel.args.size(); i++) cut(kernel.args[i], 3, tiles);
    }
    if (n.attrs.has("parts")) {
        tile_block(kernel, n.attrs.integer("parts"));
        kernel.parameters["parts"] = text(kernel.tiles);
        kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::tile, .extents = {}});
    }
    kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::scratch, .extents = {}});
    return kernel;
}
static void reference(const Graph &g, const Node &n, const Inputs &in, const Outputs &out) {
    if (n.attrs.has("program")) compile_error(n, "there is no reference with a program");
    const StrassenConv q = conv_of(g, n);
    const int half_c = q.c / 2, half_k = q.k / 2, tile_x = q.tile_x(), tile_k = q.tile_k();
    const int64_t k = n.attrs.integer("k");
    // The sum of a transformed weight's row and of half of a pixel's input channels.
    auto dot = [&](int64_t sample, int pixel, int half, int64_t kt, int product, int i) {
        double sum = 0;
        for (int c = 0; c < half_c; c++)
            sum += in[0]->data[size_t((sample * q.c + half * half_c + c) * q.pixels + pixel)] *
                   in[1]->data[size_t(((kt * strassen_products + product) * half_c + c) * tile_k + i % tile_k)];
        return sum;
    };
    // Results of the last pixel, with W11, W22, W11 + W12 and W21 - W11.
    auto single = [&](int64_t sample, int64_t convolution, int i) {
        const int64_t kt = convolution * q.channel_tiles() + i / tile_k;
        const int last = q.pixels - 1;
        auto of = [&](int half, int product) { return dot(sample, last, half, kt, product, i); };
        const double values[] = {of(0, 2) - of(1, 2) + of(1, 4), of(0, 5) + of(0, 2) + of(1, 3)};
        for (int half : {0, 1}) {
            const int64_t channel = convolution * q.k + half * half_k + i;
            out[0]->data[size_t((sample * k + channel) * q.pixels + last)] =
                values[half] + (has_bias(n) ? in[2]->data[size_t(channel)] : 0);
        }
    };
    // Results of the pixels `at` and `at` + tile_x for output channel i of each half of a convolution.
    auto pair = [&](int64_t sample, int at, int64_t convolution, int i) {
        const int64_t kt = convolution * q.channel_tiles() + i / tile_k;
        std::array<double, strassen_products> products{};
        for (int p = 0; p < strassen_products; p++)
            for (int c = 0; c < half_c; c++) {
                double side = 0;
                for (int quadrant = 0; quadrant < 4; quadrant++) {
                    const int64_t channel = sample * q.c + quadrant / 2 * half_c + c;
                    side += strassen_matrices.input[size_t(p)][size_t(quadrant)] *
                            in[0]->data[size_t(channel * q.pixels + at + quadrant % 2 * tile_x)];
                }
                const int64_t row = (kt * strassen_products + p) * half_c + c;
                products[size_t(p)] += side * in[1]->data[size_t(row * tile_k + i % tile_k)];
            }
        for (int quadrant = 0; quadrant < 4; quadrant++) {
            const int64_t channel = convolution * q.k + quadrant / 2 * half_k + i;
            double sum = has_bias(n) ? in[2]->data[size_t(channel)] : 0;
            for (int p = 0; p < strassen_products; p++)
                sum += strassen_matrices.output[size_t(quadrant)][size_t(p)] * products[size_t(p)];
            out[0]->data[size_t((sample * k + channel) * q.pixels + at + quadrant % 2 * tile_x)] = sum;
        }
    };
    for (int64_t sample = 0; sample < in[0]->shape[0]; sample++) {
        for (int64_t i = 0; q.has_single_pixel() && i < k / 2; i++) single(sample, i / half_k, int(i % half_k));
        for (int tile = 0; tile < q.pixel_tiles(); tile++)
            for (int x = 0; x < tile_x; x++)
                for (int64_t i = 0; i < k / 2; i++)
                    pair(sample, std::min(tile * 2 * tile_x, q.pixels - 2 * tile_x) + x, i / half_k, int(i % half_k));
    }
}

// ---- what the other ops' lower rules ask
//
// Every tile of channels makes the sums of x again; parts of the image read every weight.
static Split split_of(const StrassenConv &q, const KernelContext &context) {
    return convolution::choose_split(context, q.pixel_tiles(), [&](int64_t tiles) {
        StrassenConv tile = q;
        tile.k /= int(tiles);
        return q.k % tiles == 0 && tile.possible() ? strassen_cycles(tile) : HUGE_VAL;
    });
}
static bool worth(const StrassenConv &q, const KernelContext &context, double cycles) {
    const double once = context.weights_change ? strassen_weight_cycles(q) / double(context.processors) : 0;
    const double direct = direct_product_cycles(q) * double(context.max_blocks()) / double(context.processors);
    Decision decision{.kind = "strassen",
                      .about = "blocks=" + text(context.max_blocks()) + " c=" + text(q.c) + " k=" + text(q.k) +
                               " lanes=" + text(q.lanes) + " pixels=" + text(q.pixels) +
                               " weights_change=" + text(context.weights_change),
                      .options = {{{"direct", 1}}, {{"strassen", 1}}},
                      .usual = 0,
                      .work = double(q.lanes) * q.c * q.k * q.pixels};
    const double share = 0.97; // of direct convolution's time: the model is not exact
    if (cycles + once < share * direct) decision.usual = 1;
    return context.choose(decision) == 1;
}
static ValueId add(Rewriter &r, const Node &n, const char *op, std::vector<ValueId> inputs, bool flip,
                   const KernelContext &context) {
    const Shape x = r.to.shape(inputs[0]), w = r.to.shape(inputs[1]);
    if (context.vector || context.device || context.math == Math::strict || convolution::groups(n) > 1 ||
        w[2] * w[3] != 1 || n.attrs.integer("padding") != 0)
        return no_value;
    const int64_t k = w[flip ? 1 : 0];
    const StrassenConv q{.lanes = int(context.lanes), .c = int(x[1]), .k = int(k), .pixels = int(x[2] * x[3])};
    if (!q.possible() || q.c < 2 * q.lanes || q.k < 4 * q.tile_k()) return no_value;
    const Split split = split_of(q, context);
    if (!worth(q, context, split.cycles)) return no_value;
    Attrs weight{{"flip", flip}, {"lanes", context.lanes}}, conv{{"k", k}, {"lanes", context.lanes}};
    if (split.tiles > 1) weight.map["tiles"] = conv.map["tiles"] = split.tiles;
    if (split.parts > 1) conv.map["parts"] = split.parts;
    inputs[1] = r.to.add1("strassen_weight", {inputs[1]}, weight, n.layer, n.source);
    return r.to.add1(op, inputs, conv, n.layer, n.source);
}
ValueId strassen_conv2d(Rewriter &r, const Node &n, std::vector<ValueId> inputs, const KernelContext &context) {
    return add(r, n, "conv2d_strassen", std::move(inputs), false, context);
}
ValueId strassen_conv2d_grad_input(Rewriter &r, const Node &n, std::vector<ValueId> inputs,
                                   const KernelContext &context) {
    return add(r, n, "conv2d_strassen_grad_input", std::move(inputs), true, context);
}

// ---- cases
struct StrassenCase {
    int c, h, w, k;
    Split split = {};
};
const StrassenCase strassen_cases[] = {
    {2, 2, 2, 2}, {6, 5, 3, 10}, {8, 3, 3, 16}, {34, 4, 4, 18}, {4, 4, 7, 32, {2, 1}}, {10, 4, 9, 12, {1, 4}},
};
static StrassenConv conv_of(const StrassenCase &c) {
    return {int(case_lanes), c.c, int(c.k / c.split.tiles), c.h * c.w};
}
static Attrs with_tiles(Attrs attrs, const StrassenCase &c) {
    if (c.split.tiles > 1) attrs.map["tiles"] = c.split.tiles;
    return attrs;
}
static std::vector<Case> weight_cases() {
    std::vector<Case> cases;
    for (const StrassenCase &c : strassen_cases)
        for (bool flip : {false, true})
            cases.push_back({{{Shape{flip ? c.c : c.k, flip ? c.k : c.c, 1, 1}, Type::f32}},
                             with_tiles({{"flip", flip}, {"lanes", case_lanes}}, c)});
    return cases;
}
static std::vector<Case> cases_with(bool bias) {
    std::vector<Case> cases;
    for (const StrassenCase &c : strassen_cases) {
        Case result{{{Shape{Shape::batch, c.c, c.h, c.w}, Type::f32},
                     {Shape(weight_dims(conv_of(c), c.split.tiles)), Type::f32}},
                    with_tiles({{"k", int64_t(c.k)}, {"lanes", case_lanes}}, c)};
        if (c.split.parts > 1) result.attrs.map["parts"] = c.split.parts;
        if (bias) result.inputs.push_back({Shape{c.k}, Type::f32});
        cases.push_back(result);
    }
    return cases;
}
static std::vector<Case> cases() { return cases_with(false) + cases_with(true); }
static std::vector<Case> input_cases() { return cases_with(false); }

extern const OpDef strassen_weight_op, conv2d_strassen_op, conv2d_strassen_grad_input_op;
const OpDef strassen_weight_op = {.name = "strassen_weight",
                                  .summary = "the weight of a window of one pixel, in Strassen's sums of quadrants",
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .infer = infer_weight,
                                  .kernel = kernel_weight,
                                  .reference = reference_weight,
                                  .cases = weight_cases,
                                  .no_gpu = direct_on_devices,
                                  .no_gradient = made_by_lowering};
const OpDef conv2d_strassen_op = {.name = "conv2d_strassen",
                                  .summary = "conv2d of one pixel with such a weight",
                                  .min_inputs = 2,
                                  .max_inputs = 1 << 16,
                                  .infer = infer,
                                  .kernel = kernel,
                                  .reference = reference,
                                  .cases = cases,
                                  .no_gpu = direct_on_devices,
                                  .no_gradient = made_by_lowering};
const OpDef conv2d_strassen_grad_input_op = {.name = "conv2d_strassen_grad_input",
                                             .summary = "the same as the gradient for the input",
                                             .min_inputs = 2,
                                             .max_inputs = 2,
                                             .infer = infer,
                                             .kernel = kernel,
                                             .padding = Padding::if_all,
                                             .reference = reference,
                                             .cases = input_cases,
                                             .no_gpu = direct_on_devices,
                                             .no_gradient = made_by_lowering};

} // namespace cryolite
