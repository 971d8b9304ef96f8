// Linear layer and its two gradients. x [n,c], weight [k,c], bias [k]; pack and unpack between rows and lanes.
#include "common.h"

#include "schedule.h"

namespace cryolite {

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]), &w = g.shape(n.inputs[1]);
    if (x.rank() != 2 || !x.batched()) compile_error(n, "the input must be [n, c], not " + x.text());
    if (w.rank() != 2 || w[1] != x[1]) compile_error(n, "input " + x.text() + " does not fit weight " + w.text());
    if (n.inputs.size() > 2 && g.shape(n.inputs[2]) != Shape{w[0]})
        compile_error(n, "bias " + g.shape(n.inputs[2]).text() + " does not fit weight " + w.text());
    return {{Shape{Shape::batch, w[0]}, Type::f32}};
}
static std::vector<ValueId> gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    std::vector<ValueId> result{g.add1("linear_grad_input", {dy[0], n.inputs[1]}, {}, n.layer),
                                g.add1("linear_grad_weight", {n.inputs[0], dy[0]}, {}, n.layer)};
    if (n.inputs.size() > 2)
        result.push_back(sum_to(g, g.add1("sum", {dy[0]}, {{"axes", std::vector<int64_t>{0}}}, n.layer),
                                Shape{g.shape(n.inputs[1])[0]}, n.layer));
    return result;
}
static Kernel block_kernel(const char *generator, const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &w = g.shape(n.inputs[1]);
    Kernel kernel{.generator = generator,
                  .parameters = {{"c", text(w[1])}, {"k", text(w[0])}},
                  .args = {},
                  .flops = 2.0 * double(context.lanes * w.elements())};
    for (int i = 0; i < int(n.inputs.size()); i++) kernel.args.push_back(input_arg(g, n, i, context));
    kernel.args.push_back(output_arg(g, n, 0, context));
    note_batch(kernel, context);
    return kernel;
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    Kernel kernel = block_kernel("linear", g, n, context);
    kernel.parameters["bias"] = n.inputs.size() > 2 ? "true" : "false";
    return kernel;
}
static Kernel kernel_input(const Graph &g, const Node &n, const KernelContext &context) {
    return block_kernel("linear_grad_input", g, n, context);
}

// Weights that no cache holds: a task makes a tile of the results for all blocks.
static int64_t result_tile(const Shape &w, bool forward) { return linear_tile(w[1], w[0], forward); }
static bool in_tiles(const Graph &g, const Node &n, const KernelContext &context, bool forward) {
    return !context.device && context.max_blocks() > 1 &&
           linear_in_tiles(g.shape(n.inputs[1])[1], g.shape(n.inputs[1])[0], forward) &&
           result_tile(g.shape(n.inputs[1]), forward) >= 8;
}
static void lower(Rewriter &r, const Node &n, const KernelContext &context) {
    if (!in_tiles(r.from, n, context, true)) return r.copy(n);
    r.bind(n.outputs[0], r.to.add1("linear_tiles", r.inputs(n), n.attrs, n.layer, n.source));
}
static void lower_input(Rewriter &r, const Node &n, const KernelContext &context) {
    if (!in_tiles(r.from, n, context, false)) return r.copy(n);
    r.bind(n.outputs[0], r.to.add1("linear_grad_input_tiles", r.inputs(n), n.attrs, n.layer, n.source));
}
static Kernel result_tiles(const Graph &g, const Node &n, const KernelContext &context, bool forward) {
    const Shape &w = g.shape(n.inputs[1]);
    const int64_t c = w[1], k = w[0], v = context.lanes;
    const int64_t tile = result_tile(w, forward);
    Kernel kernel{
        .generator = forward ? "linear_tiles" : "linear_grad_input_tiles",
        .parameters = {{"c", text(c)}, {"k", text(k)}, {"tile", text(tile)}, {"max_batch", text(context.max_batch)}},
        .args = {{.kind = KernelArg::batch, .extents = {}}},
        .tiles = (forward ? k : c) / tile,
        .flops = 2.0 * double(v * context.max_blocks() * tile * (forward ? c : k))};
    kernel.args.push_back({.kind = KernelArg::input, .index = 0, .extents = {v, forward ? c : k}, .all_blocks = true});
    if (forward)
        kernel.args.push_back({.kind = KernelArg::input, .index = 1, .extents = {c, tile}, .tile_stride = c * tile});
    else
        kernel.args.push_back(
            {.kind = KernelArg::input, .index = 1, .extents = {tile, k}, .tile_stride = tile, .strides = {1, c}});
    if (forward) kernel.parameters["bias"] = n.inputs.size() > 2 ? "true" : "false";
    if (n.inputs.size() > 2)
        kernel.args.push_back({.kind = KernelArg::input, .index = 2, .extents = {tile}, .tile_stride = tile});
    kernel.args.push_back(
        {.kind = KernelArg::output, .index = 0, .extents = {v, tile}, .tile_stride = v * tile, .all_blocks = true});
    return kernel;
}
static Kernel kernel_result_tiles(const Graph &g, const Node &n, const KernelContext &context) {
    return result_tiles(g, n, context, true);
}
static Kernel kernel_input_tiles(const Graph &g, const Node &n, const KernelContext &context) {
    return result_tiles(g, n, context, false);
}

static std::vector<ValueType> infer_input(const Graph &g, const Node &n) {
    return {{Shape{Shape::batch, g.shape(n.inputs[1])[1]}, Type::f32}};
}
static std::vector<ValueType> infer_weight(const Graph &g, const Node &n) {
    return {{Shape{g.shape(n.inputs[1])[1], g.shape(n.inputs[0])[1]}, Type::f32}};
}
// A device's threads read neighbouring channels of rows; a host's kernel turns lanes round itself.
static void lower_weight(Rewriter &r, const Node &n, const KernelContext &context) {
    std::vector<ValueId> in = r.inputs(n);
    if (context.device) in[0] = r.to.add1("unpack", {in[0]}, {{"lanes", context.lanes}}, n.layer, n.source);
    r.bind(n.outputs[0], r.to.add1("linear_grad_weight_tiles", in, {}, n.layer, n.source));
}
static bool is_rows(const Shape &x) { return x.rank() == 3; } // [b,V,c], not [n,c]
static std::vector<ValueType> infer_tiles(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    return {{Shape{g.shape(n.inputs[1])[1], x[x.rank() - 1]}, Type::f32}};
}
static Kernel kernel_tiles(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &w = g.shape(n.outputs[0]);
    const int64_t k = w[0], c = w[1], v = context.lanes;
    const LinearWeightTile tile = context.device ? LinearWeightTile{c, k} : linear_grad_weight_tile(c, k, v);
    const bool of_inputs = tile.inputs < c;
    Kernel kernel{.generator = "linear_grad_weight",
                  .parameters = {{"c", text(tile.inputs)}, {"k", text(k)}, {"tile", text(tile.outputs)}},
                  .args = {{.kind = KernelArg::batch, .extents = {}},
                           {.kind = KernelArg::input,
                            .index = 0,
                            .extents = {v, tile.inputs},
                            .tile_stride = of_inputs ? v * tile.inputs : 0,
                            .all_blocks = true},
                           {.kind = KernelArg::input,
                            .index = 1,
                            .extents = {v, tile.outputs},
                            .tile_stride = of_inputs ? 0 : v * tile.outputs,
                            .all_blocks = true},
                           {.kind = KernelArg::output,
                            .index = 0,
                            .extents = {tile.inputs, tile.outputs},
                            .tile_stride = tile.inputs * (of_inputs ? 1 : tile.outputs),
                            .strides = {1, c}}},
                  .tiles = c / tile.inputs * (k / tile.outputs),
                  .flops = 2.0 * double(tile.inputs * tile.outputs * v * context.max_blocks())};
    if (is_rows(g.shape(n.inputs[0]))) {
        kernel.parameters["rows"] = "true";
        kernel.args[1].extents = {c, v};
    }
    if (of_inputs) kernel.parameters["weight_c"] = text(c);
    store_alone(kernel, 3, context);
    return kernel;
}

static void reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t n = out[0]->shape[0], k = out[0]->shape[1], c = in[0]->shape[1];
    for (int64_t i = 0; i < n; i++)
        for (int64_t o = 0; o < k; o++) {
            double sum = in.size() > 2 ? in[2]->data[size_t(o)] : 0;
            for (int64_t j = 0; j < c; j++) sum += in[0]->data[size_t(i * c + j)] * in[1]->data[size_t(o * c + j)];
            out[0]->data[size_t(i * k + o)] = sum;
        }
}
static void input_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t n = out[0]->shape[0], c = out[0]->shape[1], k = in[0]->shape[1];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++) {
            double sum = 0;
            for (int64_t o = 0; o < k; o++) sum += in[0]->data[size_t(i * k + o)] * in[1]->data[size_t(o * c + j)];
            out[0]->data[size_t(i * c + j)] = sum;
        }
}
static void weight_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t n = in[1]->shape[0], c = out[0]->shape[1], k = in[1]->shape[1]; // x: [n, c], or its rows [b, V, c]
    for (int64_t o = 0; o < k; o++)
        for (int64_t j = 0; j < c; j++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++) sum += in[0]->data[size_t(i * c + j)] * in[1]->data[size_t(i * k + o)];
            out[0]->data[size_t(o * c + j)] = sum;
        }
}

static std::vector<Case> cases() {
    return cases_of({"[n,5] [3,5] [3]", "[n,1] [1,1]", "[n,7] [1,7] [1]", "[n,64] [8,64]"}) +
           large(cases_of({"[n,784] [256,784] [256]", "[n,257] [101,257] [101]", "[n,1031] [1,1031]",
                           "[n,4096] [1000,4096] [1000]"}));
}
static std::vector<Case> input_cases() {
    return cases_of({"[n,3] [3,5]", "[n,1] [1,1]", "[n,1] [1,7]", "[n,8] [8,64]", "[n,101] [101,257]"}) +
           large(cases_of({"[n,136] [136,328]", "[n,64] [64,512]", "[n,32] [32,512]"}));
}
static std::vector<Case> weight_cases() {
    return cases_of({"[n,5] [n,3]", "[n,1] [n,1]", "[n,7] [n,1]", "[n,64] [n,8]", "[n,257] [n,101]"});
}
static std::vector<Case> tile_cases() {
    return cases_of({"[n,5] [n,3]", "[n,1] [n,1]", "[n,7] [n,1]", "[n,400] [n,120]"});
}

static constexpr char whole_on_devices[] = "a launch on a device has all blocks and all results";

extern const OpDef linear_op, linear_grad_input_op, linear_grad_weight_op, linear_grad_weight_tiles_op, linear_tiles_op,
    linear_grad_input_tiles_op;
const OpDef linear_op = {.name = "linear",
                         .summary = "x weight^T + bias",
                         .min_inputs = 2,
                         .max_inputs = 3,
                         .infer = infer,
                         .gradient = gradient,
                         .lower = lower,
                         .kernel = kernel,
                         .reference = reference,
                         .cases = cases};
const OpDef linear_grad_input_op = {.name = "linear_grad_input",
                                    .summary = "gradient of linear for its input",
                                    .min_inputs = 2,
                                    .max_inputs = 2,
                                    .infer = infer_input,
                                    .lower = lower_input,
                                    .kernel = kernel_input,
                                    .padding = Padding::if_all,
                                    .reference = input_reference,
                                    .cases = input_cases,
                                    .no_gradient = made_by_gradients};
const OpDef linear_grad_weight_op = {.name = "linear_grad_weight",
                                     .summary = "gradient of linear for its weight",
                                     .min_inputs = 2,
                                     .max_inputs = 2,
                                     .infer = infer_weight,
                                     .lower = lower_weight,
                                     .reference = weight_reference,
                                     .cases = weight_cases,
                                     .no_gradient = made_by_gradients};
const OpDef linear_grad_weight_tiles_op = {.name = "linear_grad_weight_tiles",
                                           .summary = "the same for a tile of the weights a task",
                                           .min_inputs = 2,
                                           .max_inputs = 2,
                                           .infer = infer_tiles,
                                           .kernel = kernel_tiles,
                                           .masked_input = 1,
                                           .reference = weight_reference,
                                           .cases = tile_cases,
                                           .no_gradient = made_by_lowering};
const OpDef linear_tiles_op = {.name = "linear_tiles",
                               .summary = "linear for all blocks, for a tile of the results a task",
                               .min_inputs = 2,
                               .max_inputs = 3,
                               .infer = infer,
                               .kernel = kernel_result_tiles,
                               .reference = reference,
                               .cases = cases,
                               .no_gpu = whole_on_devices,
                               .no_gradient = made_by_lowering};
const OpDef linear_grad_input_tiles_op = {.name = "linear_grad_input_tiles",
                                          .summary = "linear_grad_input for all blocks, for a tile of dx a task",
                                          .min_inputs = 2,
                                          .max_inputs = 2,
                                          .infer = infer_input,
                                          .kernel = kernel_input_tiles,
                                          .padding = Padding::if_all,
                                          .reference = input_reference,
                                          .cases = input_cases,
                                          .no_gpu = whole_on_devices,
                                          .no_gradient = made_by_lowering};

// ---- pack and unpack
static std::vector<ValueType> infer_pack(const Graph &, const Node &n) {
    return {{Shape(n.attrs.list("shape")), Type::f32}};
}
static std::vector<ValueType> infer_unpack(const Graph &g, const Node &n) {
    return {{Shape{Shape::blocks, n.attrs.integer("lanes"), g.shape(n.inputs[0]).elements()}, Type::f32}};
}
static Kernel transpose(int64_t rows, int64_t columns) {
    return {.generator = "transpose",
            .parameters = {{"rows", text(rows)}, {"columns", text(columns)}},
            .args = {{.kind = KernelArg::input, .index = 0, .extents = {columns, rows}, .single = true},
                     {.kind = KernelArg::output, .index = 0, .extents = {rows, columns}, .single = true}}};
}
static Kernel pack_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    return transpose(context.lanes, g.shape(n.outputs[0]).elements());
}
static Kernel unpack_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    return transpose(g.shape(n.inputs[0]).elements(), context.lanes);
}

// The reference's samples lie row by row already.
static void copy_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    out[0]->data = in[0]->data;
}

static std::vector<Case> pack_cases() {
    using List = std::vector<int64_t>;
    return {case_of("[b,4,30]", {{"shape", List{Shape::batch, 3, 2, 5}}}),
            case_of("[b,4,1]", {{"shape", List{Shape::batch, 1}}})};
}
static std::vector<Case> unpack_cases() { return cases_of({"[n,3,2,5]", "[n,7]", "[n]"}, {{"lanes", case_lanes}}); }

extern const OpDef pack_op, unpack_op;
const OpDef pack_op = {.name = "pack",
                       .summary = "rows of samples into lanes",
                       .min_inputs = 1,
                       .max_inputs = 1,
                       .infer = infer_pack,
                       .kernel = pack_kernel,
                       .padding = Padding::zero,
                       .reference = copy_reference,
                       .cases = pack_cases,
                       .no_gradient = made_by_lowering};
const OpDef unpack_op = {.name = "unpack",
                         .summary = "lanes into rows of samples",
                         .min_inputs = 1,
                         .max_inputs = 1,
                         .infer = infer_unpack,
                         .kernel = unpack_kernel,
                         .reference = copy_reference,
                         .cases = unpack_cases,
                         .no_gradient = made_by_lowering};

} // namespace cryolite
