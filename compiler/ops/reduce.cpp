// Sums and means over axes, which stay as 1; reshape.
#include "common.h"

#include <algorithm>

namespace cryolite {

static std::vector<ValueType> infer_reduced(const Graph &graph, const Node &node) {
    Shape shape = graph.shape(node.inputs[0]);
    std::vector<bool> reduced(size_t(shape.rank()), false);
    for (int64_t axis : node.attrs.list("axes")) {
        if (axis < 0 || axis >= shape.rank())
            compile_error(node, "there is no axis " + text(axis) + " in " + shape.text());
        if (reduced[size_t(axis)]) compile_error(node, "axis " + text(axis) + " is listed twice");
        reduced[size_t(axis)] = true;
        shape.dims[size_t(axis)] = 1;
    }
    return {{shape, Type::f32}};
}

static bool over_batch(const Graph &graph, const Node &node) {
    const auto &axes = node.attrs.list("axes");
    return graph.shape(node.inputs[0]).batched() && std::count(axes.begin(), axes.end(), 0) > 0;
}

// What the batch adds is known at run time alone.
static int64_t static_count(const Graph &graph, const Node &node) {
    int64_t count = 1;
    for (int64_t axis : node.attrs.list("axes"))
        if (graph.shape(node.inputs[0])[int(axis)] > 0) count *= graph.shape(node.inputs[0])[int(axis)];
    return count;
}

static void lower_reduction(Rewriter &r, const Node &node, bool mean) {
    ValueId x = r.inputs(node)[0];
    int64_t count = static_count(r.from, node);
    if (over_batch(r.from, node)) {
        ValueId partial = r.to.add1("partial_sum", {x}, {{"axes", node.attrs.list("axes")}}, node.layer, node.source);
        Attrs attrs{{"mean_count", int64_t(mean ? count : 0)}, {"shape", r.from.shape(node.outputs[0]).dims}};
        r.bind(node.outputs[0], r.to.add1("sum_merge", {partial}, attrs, node.layer, node.source));
        return;
    }
    ValueId sum = r.to.add1("sum", {x}, node.attrs, node.layer, node.source);
    if (mean) sum = r.to.add1("mul", {sum, literal(r.to, 1.0 / double(count))}, {}, node.layer, node.source);
    r.bind(node.outputs[0], sum);
}
static void lower_sum(Rewriter &r, const Node &node, const KernelContext &) {
    if (over_batch(r.from, node))
        lower_reduction(r, node, false);
    else
        r.copy(node);
}
static void lower_mean(Rewriter &r, const Node &node, const KernelContext &) { lower_reduction(r, node, true); }

static std::vector<ValueId> sum_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    return {g.add1("broadcast", {dy[0]}, {{"shape", g.shape(n.inputs[0]).dims}}, n.layer)};
}
static std::vector<ValueId> mean_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    int64_t count = static_count(g, n);
    ValueId scale = over_batch(g, n) ? reciprocal_count(g, count, n.layer) : literal(g, 1.0 / double(count));
    ValueId scaled = g.add1("mul", {dy[0], scale}, {}, n.layer);
    return {g.add1("broadcast", {scaled}, {{"shape", g.shape(n.inputs[0]).dims}}, n.layer)};
}

static void reduce_reference(const Inputs &in, const Outputs &out, bool mean) {
    const auto &from = in[0]->shape, &to = out[0]->shape;
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    for (int64_t i = 0; i < in[0]->elements(); i++) {
        int64_t index = i, target = 0, stride = 1;
        for (size_t d = from.size(); d-- > 0;) {
            if (to[d] != 1) target += index % from[d] * stride;
            index /= from[d];
            stride *= to[d];
        }
        out[0]->data[size_t(target)] += in[0]->data[size_t(i)];
    }
    if (mean)
        for (double &x : out[0]->data) x /= double(in[0]->elements() / out[0]->elements());
}
static void sum_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    reduce_reference(in, out, false);
}
static void mean_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    reduce_reference(in, out, true);
}

static std::vector<Case> over_axes(const std::vector<std::pair<const char *, std::vector<int64_t>>> &list) {
    std::vector<Case> cases;
    for (auto &[shape, axes] : list) cases.push_back(case_of(shape, {{"axes", axes}}));
    return cases;
}
static std::vector<Case> reduce_cases() {
    return over_axes({{"[n,3,2,5]", {0, 2, 3}},
                      {"[n,3,2,5]", {0, 1, 2, 3}},
                      {"[n,3,2,5]", {2, 3}},
                      {"[n,3,2,5]", {1}},
                      {"[n,3]", {0}},
                      {"[n,3]", {1}},
                      {"[n]", {0}},
                      {"[2,5]", {0}}});
}
static std::vector<Case> partial_cases() {
    return over_axes(
        {{"[n,3,2,5]", {0, 2, 3}}, {"[n,3,2,5]", {0, 1, 2, 3}}, {"[n,3]", {0}}, {"[n]", {0}}, {"[n,3,2,5]", {0}}});
}
extern const OpDef sum_op;
const OpDef sum_op = {.name = "sum",
                      .summary = "sum over axes",
                      .min_inputs = 1,
                      .max_inputs = 1,
                      .infer = infer_reduced,
                      .gradient = sum_gradient,
                      .lower = lower_sum,
                      .statement = "sum",
                      .padding = Padding::if_all,
                      .reference = sum_reference,
                      .cases = reduce_cases};
extern const OpDef mean_op;
const OpDef mean_op = {.name = "mean",
                       .summary = "mean over axes",
                       .min_inputs = 1,
                       .max_inputs = 1,
                       .infer = infer_reduced,
                       .gradient = mean_gradient,
                       .lower = lower_mean,
                       .reference = mean_reference,
                       .cases = reduce_cases};

static std::vector<ValueType> infer_partial(const Graph &graph, const Node &node) {
    Shape shape = infer_reduced(graph, node)[0].shape;
    shape.dims[0] = Shape::blocks;
    return {{shape, Type::f32}};
}
// Over the lanes of each block; padding lanes too, as the kernel does.
static void partial_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    Tensor lanes = *in[0], sums = *out[0]; // the block, then its lanes as an axis to be summed
    lanes.shape[0] = in[0]->lanes;
    lanes.shape.insert(lanes.shape.begin(), out[0]->shape[0]);
    sums.shape.insert(sums.shape.begin() + 1, 1);
    reduce_reference({&lanes}, {&sums}, false);
    out[0]->data = sums.data;
}
extern const OpDef partial_sum_op;
const OpDef partial_sum_op = {.name = "partial_sum",
                              .summary = "sum over the samples of each block, and over axes",
                              .min_inputs = 1,
                              .max_inputs = 1,
                              .infer = infer_partial,
                              .statement = "sum",
                              .masked_input = 0,
                              .reference = partial_reference,
                              .cases = partial_cases,
                              .no_gradient = made_by_lowering};

static std::vector<ValueType> infer_merge(const Graph &graph, const Node &node) {
    Shape shape(node.attrs.list("shape"));
    const Shape &partial = graph.shape(node.inputs[0]);
    if (partial.rank() == 0 || partial[0] != Shape::blocks || shape.per_block() ||
        partial.elements() != shape.elements())
        compile_error(node, "partial sums " + partial.text() + " do not make " + shape.text());
    return {{shape, Type::f32}};
}

static Kernel merge_kernel(const Graph &graph, const Node &node, const KernelContext &context) {
    int64_t size = graph.shape(node.outputs[0]).elements(), tile = whole_tile(size, context);
    int64_t stride = tile < size ? tile : 0;
    Kernel kernel{
        .generator = "sum_merge",
        .parameters = {{"size", text(tile)},
                       {"max_batch", text(context.max_batch)},
                       {"mean_count", text(node.attrs.integer("mean_count"))}},
        .args = {{.kind = KernelArg::batch, .extents = {}},
                 {.kind = KernelArg::input, .index = 0, .extents = {tile}, .tile_stride = stride, .all_blocks = true},
                 {.kind = KernelArg::output, .index = 0, .extents = {tile}, .tile_stride = stride}},
        .tiles = tile < size ? size / tile : 0,
        .channels = tile < size ? 0 : size,
        .at_barrier = tile < size};
    cut_strips(kernel, "size", {{1, 0}, {2, 0}}, context);
    return kernel;
}
static void merge_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    int64_t count = node.attrs.integer("mean_count");
    for (size_t i = 0; i < in[0]->data.size(); i++) out[0]->data[i % out[0]->data.size()] += in[0]->data[i];
    if (count > 0)
        for (double &x : out[0]->data) x /= double(in[0]->batch * count);
}
static std::vector<Case> merge_cases() {
    auto of = [](const char *partial, int64_t mean_count, std::vector<int64_t> shape) {
        return case_of(partial, {{"mean_count", mean_count}, {"shape", std::move(shape)}});
    };
    return {of("[b,1]", 1, {1}), of("[b,3,1,1]", 30, {1, 3, 1, 1}), of("[b,2,3,5,5]", 0, {2, 3, 5, 5}),
            of("[b,64,64,3,3]", 0, {64, 64, 3, 3})};
}
extern const OpDef sum_merge_op;
const OpDef sum_merge_op = {.name = "sum_merge",
                            .summary = "sum over blocks, in block order",
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .infer = infer_merge,
                            .kernel = merge_kernel,
                            .reference = merge_reference,
                            .cases = merge_cases,
                            .no_gradient = made_by_lowering};

static std::vector<ValueType> infer_reshape(const Graph &graph, const Node &node) {
    Shape from = graph.shape(node.inputs[0]), to(node.attrs.list("shape"));
    if (from.batched() != to.batched() || from.elements() != to.elements())
        compile_error(node, "cannot turn " + from.text() + " into " + to.text());
    return {{to, graph.type(node.inputs[0]).type}};
}
static std::vector<ValueId> reshape_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    return {g.add1("reshape", {dy[0]}, {{"shape", g.shape(n.inputs[0]).dims}}, n.layer)};
}
static void reshape_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    out[0]->data = in[0]->data;
}
static std::vector<Case> reshape_cases() {
    using List = std::vector<int64_t>;
    return {case_of("[n,3,2,5]", {{"shape", List{Shape::batch, 30}}}), case_of("[3,1]", {{"shape", List{3}}}),
            case_of("[1]", {{"shape", List{}}})};
}
extern const OpDef reshape_op;
const OpDef reshape_op = {.name = "reshape",
                          .summary = "another shape of the same elements",
                          .min_inputs = 1,
                          .max_inputs = 1,
                          .infer = infer_reshape,
                          .gradient = reshape_gradient,
                          .place = Place::same,
                          .padding = Padding::if_all,
                          .reference = reshape_reference,
                          .cases = reshape_cases};

} // namespace cryolite
