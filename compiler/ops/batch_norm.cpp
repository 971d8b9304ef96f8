// Batch normalization over [n] or [n, h, w], per channel. In train mode statistics of the batch, unless frozen; else
// running ones.
#include "common.h"

#include <algorithm>
#include <cmath>

namespace cryolite {

using Ids = std::vector<ValueId>;

static Shape channel_shape(const Shape &x) { return x.reduced(x.rank() == 2 ? Axes{0} : Axes{0, 2, 3}); }
static void check_input(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    if ((x.rank() != 2 && x.rank() != 4) || !x.batched())
        compile_error(n, "the input must be [n, c] or [n, c, h, w], not " + x.text());
}
// x, weight, bias, mean, variance; batch_norm may have a count of steps, [1], behind them.
static std::vector<ValueType> infer_norm(const Graph &g, const Node &n) {
    check_input(g, n);
    for (size_t i = 1; i < 5; i++)
        if (g.shape(n.inputs[i]).elements() != g.shape(n.inputs[0])[1])
            compile_error(n, "input " + g.shape(n.inputs[0]).text() + " does not fit a parameter of shape " +
                                 g.shape(n.inputs[i]).text());
    const bool counts = n.inputs.size() > 5;
    if (n.op->select && counts == n.attrs.has("momentum"))
        compile_error(n, "expected a momentum or a count of steps, one of the two");
    if (counts && g.shape(n.inputs[5]) != Shape{1})
        compile_error(n, "the count of steps must be [1], not " + g.shape(n.inputs[5]).text());
    return {{g.shape(n.inputs[0]), Type::f32}};
}

// gamma / sqrt(var + eps), of whole shape.
static ValueId inverse_deviation(Graph &g, ValueId var, double eps, const Node &n) {
    return g.add1("rsqrt", {g.add1("add", {var, literal(g, eps)}, {}, n.layer)}, {}, n.layer);
}
// (x - mean) * scale + bias: the form that does not cancel when the mean is large.
static ValueId normalise(Graph &g, ValueId x, ValueId weight, ValueId bias, ValueId mean, ValueId var, double eps,
                         const Node &n) {
    ValueId scale = g.add1("mul", {weight, inverse_deviation(g, var, eps, n)}, {}, n.layer);
    ValueId centred = g.add1("sub", {x, mean}, {}, n.layer);
    return g.add1("add", {g.add1("mul", {centred, scale}, {}, n.layer), bias}, {}, n.layer);
}

// How much of a running average is kept and how much of the batch's value comes in.
struct Weights {
    ValueId old, now;
};
// momentum and 1 - momentum, rounded so that in float32, too, their sum is 1: an average of equal values is that value
// after any number of steps. Or, of a plain average over so many steps, (steps - 1) / steps and 1 / steps.
static Weights average_weights(Rewriter &r, const Node &n, const Ids &in) {
    Graph &g = r.to;
    if (n.attrs.has("momentum")) {
        const double momentum = n.attrs.number("momentum");
        const double old = momentum >= 0.5 ? double(float(momentum)) : 1 - double(float(1 - momentum));
        return {literal(g, old), literal(g, 1 - old)};
    }
    ValueId steps = g.add1("add", {in[5], literal(g, 1)}, {}, n.layer);
    g.add("assign", {in[5], steps}, {}, n.layer, n.source);
    return {g.add1("div", {in[5], steps}, {}, n.layer), g.add1("reciprocal", {steps}, {}, n.layer)};
}
// state = old weight * state + now weight * value, as [c].
static void update(Rewriter &r, ValueId state, ValueId value, const Weights &weights, const Node &n) {
    Graph &g = r.to;
    value = g.add1("reshape", {value}, {{"shape", g.shape(state).dims}}, n.layer);
    ValueId old = g.add1("mul", {state, weights.old}, {}, n.layer);
    ValueId now = g.add1("mul", {value, weights.now}, {}, n.layer);
    g.add("assign", {state, g.add1("add", {old, now}, {}, n.layer)}, {}, n.layer, n.source);
}

static void select(Rewriter &r, const Node &n, Mode mode) {
    Graph &g = r.to;
    Ids in = r.inputs(n);
    double eps = n.attrs.number("eps");
    if (mode != Mode::train || n.attrs.flag("frozen")) {
        for (size_t i = 1; i < 5; i++) in[i] = per_channel(g, in[i], in[0], n.layer);
        r.bind(n.outputs[0], normalise(g, in[0], in[1], in[2], in[3], in[4], eps, n));
        return;
    }
    Ids stats = g.add("batch_stats", {in[0]}, {}, n.layer, n.source);
    r.bind(n.outputs[0],
           g.add1("batch_norm_train", {in[0], in[1], in[2], stats[0], stats[1]}, {{"eps", eps}}, n.layer, n.source));
    ValueId var = stats[1];
    if (n.attrs.flag("unbiased")) { // var * m / (m - 1)
        ValueId m = g.add1("mul", {g.add1("batch_size", {}), literal(g, double(pixels(g.shape(in[0]))))}, {}, n.layer);
        ValueId ratio = g.add1("div", {m, g.add1("sub", {m, literal(g, 1)}, {}, n.layer)}, {}, n.layer);
        var = g.add1("mul", {var, ratio}, {}, n.layer);
    }
    Weights weights = average_weights(r, n, in);
    update(r, in[3], stats[0], weights, n);
    update(r, in[4], var, weights, n);
}

static Ids train_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId x = n.inputs[0], mean = n.inputs[3], var = n.inputs[4];
    auto axes = batch_axes(g.shape(x));
    double eps = n.attrs.number("eps");
    ValueId dbias = g.add1("sum", {dy[0]}, {{"axes", axes}}, n.layer);
    ValueId centred = g.add1("sub", {x, mean}, {}, n.layer);
    ValueId dot = g.add1("sum", {g.add1("mul", {dy[0], centred}, {}, n.layer)}, {{"axes", axes}}, n.layer);
    ValueId dweight = g.add1("mul", {dot, inverse_deviation(g, var, eps, n)}, {}, n.layer);
    ValueId dx = g.add1("batch_norm_grad", {dy[0], x, mean, var, n.inputs[1], dweight, dbias}, {{"eps", eps}}, n.layer);
    return {dx, sum_to(g, dweight, g.shape(n.inputs[1]), n.layer), sum_to(g, dbias, g.shape(n.inputs[2]), n.layer),
            no_value, no_value};
}
static void lower_train(Rewriter &r, const Node &n, const KernelContext &) {
    Ids in = r.inputs(n);
    Graph &g = r.to;
    for (size_t i : {1, 2}) in[i] = per_channel(g, in[i], in[0], n.layer);
    r.bind(n.outputs[0], normalise(g, in[0], in[1], in[2], in[3], in[4], n.attrs.number("eps"), n));
}
// dx = scale * (dy - dbias / m - (x - mean) * invstd * dweight / m), per-channel factors computed once.
static void lower_grad(Rewriter &r, const Node &n, const KernelContext &) {
    Ids in = r.inputs(n);
    Graph &g = r.to;
    auto mul = [&](ValueId a, ValueId b) { return g.add1("mul", {a, b}, {}, n.layer); };
    ValueId weight = per_channel(g, in[4], in[1], n.layer);
    ValueId invstd = inverse_deviation(g, in[3], n.attrs.number("eps"), n);
    ValueId scale = mul(weight, invstd);
    ValueId share = mul(scale, reciprocal_count(g, pixels(g.shape(in[1])), n.layer));
    ValueId k1 = mul(mul(share, invstd), in[5]), k0 = mul(share, in[6]);
    ValueId centred = g.add1("sub", {in[1], in[2]}, {}, n.layer);
    ValueId straight = g.add1("sub", {mul(in[0], scale), k0}, {}, n.layer);
    r.bind(n.outputs[0], g.add1("sub", {straight, mul(centred, k1)}, {}, n.layer));
}

static std::vector<ValueType> infer_stats(const Graph &g, const Node &n) {
    check_input(g, n);
    Shape shape = channel_shape(g.shape(n.inputs[0]));
    return {{shape, Type::f32}, {shape, Type::f32}};
}
static void lower_stats(Rewriter &r, const Node &n, const KernelContext &) {
    ValueId partial = r.to.add1("batch_stats_partial", r.inputs(n), {}, n.layer, n.source);
    Attrs attrs{{"count", pixels(r.from.shape(n.inputs[0]))}, {"shape", r.from.shape(n.outputs[0]).dims}};
    Ids merged = r.to.add("batch_stats_merge", {partial}, attrs, n.layer, n.source);
    r.bind(n.outputs[0], merged[0]);
    r.bind(n.outputs[1], merged[1]);
}
static std::vector<ValueType> infer_stats_partial(const Graph &g, const Node &n) {
    return {{Shape{Shape::blocks, g.shape(n.inputs[0])[1], 3}, Type::f32}};
}
static Kernel stats_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &x = g.shape(n.inputs[0]);
    int64_t h = x.rank() == 4 ? x[2] : 1, w = x.rank() == 4 ? x[3] : 1;
    Kernel kernel{.generator = "batch_stats",
                  .parameters = {{"c", text(x[1])}, {"h", text(h)}, {"w", text(w)}},
                  .args = {{.kind = KernelArg::valid, .extents = {}},
                           {.kind = KernelArg::input, .index = 0, .extents = {context.lanes, w, h, x[1], 1}},
                           {.kind = KernelArg::output, .index = 0, .extents = {3, x[1], 1}}},
                  .channels = x[1]};
    cut_strips(kernel, "c", {{1, 3}, {2, 1}}, context);
    return kernel;
}
static std::vector<ValueType> infer_stats_merge(const Graph &, const Node &n) {
    Shape shape(n.attrs.list("shape"));
    return {{shape, Type::f32}, {shape, Type::f32}};
}
static Kernel stats_merge_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    int64_t c = g.shape(n.inputs[0])[1];
    Kernel kernel{.generator = "batch_stats_merge",
                  .parameters = {{"c", text(c)},
                                 {"count", text(n.attrs.integer("count"))},
                                 {"max_batch", text(context.max_batch)}},
                  .args = {{.kind = KernelArg::batch, .extents = {}},
                           {.kind = KernelArg::input, .index = 0, .extents = {3, c}, .all_blocks = true},
                           {.kind = KernelArg::output, .index = 0, .extents = {c}},
                           {.kind = KernelArg::output, .index = 1, .extents = {c}}},
                  .channels = c};
    cut_strips(kernel, "c", {{1, 1}, {2, 0}, {3, 0}}, context);
    return kernel;
}
static std::vector<ValueType> infer_grad(const Graph &g, const Node &n) {
    if (g.shape(n.inputs[0]) != g.shape(n.inputs[1]))
        compile_error(n, "the gradient " + g.shape(n.inputs[0]).text() + " is not of the input " +
                             g.shape(n.inputs[1]).text());
    return {g.type(n.inputs[1])};
}

static int64_t channel_of(const Tensor &x, int64_t i) {
    int64_t plane = x.shape.size() == 4 ? x.shape[2] * x.shape[3] : 1;
    return i / plane % x.shape[1];
}
static void stats_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    const Tensor &x = *in[0];
    double m = double(x.elements() / x.shape[1]);
    for (Tensor *o : out) std::fill(o->data.begin(), o->data.end(), 0.0);
    for (int64_t i = 0; i < x.elements(); i++) out[0]->data[size_t(channel_of(x, i))] += x.data[size_t(i)] / m;
    for (int64_t i = 0; i < x.elements(); i++) {
        double d = x.data[size_t(i)] - out[0]->data[size_t(channel_of(x, i))];
        out[1]->data[size_t(channel_of(x, i))] += d * d / m;
    }
}
static void stats_partial_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    const Tensor &x = *in[0];
    int64_t c = x.shape[1], lanes = x.lanes, per_sample = x.elements() / x.shape[0];
    for (int64_t block = 0; block < out[0]->shape[0]; block++) {
        int64_t valid = std::min(lanes, x.batch - block * lanes);
        double count = double(valid * per_sample / c), *moments = &out[0]->data[size_t(block * c * 3)];
        std::fill(moments, moments + c * 3, 0.0);
        auto each = [&](auto f) {
            for (int64_t i = block * lanes * per_sample, end = i + valid * per_sample; i < end; i++)
                f(moments + channel_of(x, i) * 3, x.data[size_t(i)]);
        };
        each([&](double *m, double value) { m[0] += value / count; });
        each([&](double *m, double value) { m[1] += (value - m[0]) * (value - m[0]); });
    }
}
static void stats_merge_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    const Tensor &partial = *in[0];
    int64_t c = partial.shape[1];
    for (int64_t j = 0; j < c; j++) {
        double count = 0, mean = 0, squares = 0;
        for (int64_t block = 0; block < partial.shape[0]; block++) {
            const double *moments = &partial.data[size_t((block * c + j) * 3)];
            int64_t valid = std::min(partial.lanes, partial.batch - block * partial.lanes);
            double more = double(valid * n.attrs.integer("count")), d = moments[0] + moments[2] - mean;
            squares += moments[1] + d * d * count * more / (count + more);
            mean += d * more / (count + more);
            count += more;
        }
        out[0]->data[size_t(j)] = mean;
        out[1]->data[size_t(j)] = squares / count;
    }
}
static void train_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    for (int64_t i = 0; i < in[0]->elements(); i++) {
        size_t c = size_t(channel_of(*in[0], i));
        out[0]->data[size_t(i)] = (in[0]->data[size_t(i)] - in[3]->data[c]) /
                                      std::sqrt(in[4]->data[c] + n.attrs.number("eps")) * in[1]->data[c] +
                                  in[2]->data[c];
    }
}
static void grad_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    double m = double(in[1]->elements() / in[1]->shape[1]);
    for (int64_t i = 0; i < in[1]->elements(); i++) {
        size_t c = size_t(channel_of(*in[1], i));
        double invstd = 1 / std::sqrt(in[3]->data[c] + n.attrs.number("eps"));
        double x_hat = (in[1]->data[size_t(i)] - in[2]->data[c]) * invstd;
        out[0]->data[size_t(i)] =
            in[4]->data[c] * invstd * (in[0]->data[size_t(i)] - in[6]->data[c] / m - x_hat * in[5]->data[c] / m);
    }
}

static std::vector<Case> train_cases() {
    return cases_of({"[n,3] [3] [3] [1,3] [1,3]", "[n,1] [1,1] [1,1] [1,1] [1,1]",
                     "[n,3,2,5] [3] [3] [1,3,1,1] [1,3,1,1]", "[n,2,1,1] [1,2,1,1] [1,2,1,1] [1,2,1,1] [1,2,1,1]",
                     "[n,1,3,3] [1] [1] [1,1,1,1] [1,1,1,1]"},
                    {{"eps", 1e-5}}, 0.5, 2) +
           large(cases_of({"[n,64,56,56] [64] [64] [1,64,1,1] [1,64,1,1]"}, {{"eps", 1e-5}}, 0.5, 2));
}
static std::vector<Case> grad_cases() { // dy, x, mean, var, weight, dweight, dbias
    return cases_of(
        {"[n,3] [n,3] [1,3] [1,3] [3] [1,3] [1,3]", "[n,2,3,5] [n,2,3,5] [1,2,1,1] [1,2,1,1] [2] [1,2,1,1] [1,2,1,1]"},
        {{"eps", 1e-5}}, 0.5, 2);
}
static std::vector<Case> stats_cases() {
    return cases_of({"[n,3]", "[n,1]", "[n,3,2,5]", "[n,1,3,3]", "[n,2,1,1]", "[n,67,23,29]"});
}
static std::vector<Case> stats_merge_cases() {
    using List = std::vector<int64_t>;
    return {case_of("[b,3,3]", {{"count", int64_t(10)}, {"shape", List{1, 3, 1, 1}}}),
            case_of("[b,1,3]", {{"count", int64_t(1)}, {"shape", List{1, 1}}})};
}

extern const OpDef batch_norm_op, batch_norm_train_op, batch_norm_grad_op, batch_stats_op, batch_stats_partial_op,
    batch_stats_merge_op;
const OpDef batch_norm_op = {.name = "batch_norm",
                             .summary = "batch normalization, by mode",
                             .min_inputs = 5,
                             .max_inputs = 6,
                             .infer = infer_norm,
                             .select = select};
const OpDef batch_norm_train_op = {.name = "batch_norm_train",
                                   .summary = "normalising with the batch's statistics",
                                   .min_inputs = 5,
                                   .max_inputs = 5,
                                   .infer = infer_norm,
                                   .gradient = train_gradient,
                                   .lower = lower_train,
                                   .reference = train_reference,
                                   .cases = train_cases};
const OpDef batch_norm_grad_op = {.name = "batch_norm_grad",
                                  .summary = "its gradient for x",
                                  .min_inputs = 7,
                                  .max_inputs = 7,
                                  .infer = infer_grad,
                                  .lower = lower_grad,
                                  .zero_batch_sum = true,
                                  .reference = grad_reference,
                                  .cases = grad_cases,
                                  .no_gradient = made_by_gradients};
const OpDef batch_stats_op = {.name = "batch_stats",
                              .summary = "mean and biased variance of the batch",
                              .min_inputs = 1,
                              .max_inputs = 1,
                              .infer = infer_stats,
                              .lower = lower_stats,
                              .reference = stats_reference,
                              .cases = stats_cases,
                              .no_gradient = "batch_norm_train's rule differentiates through them"};
const OpDef batch_stats_partial_op = {.name = "batch_stats_partial",
                                      .summary = "mean, M2 and the mean's rounding error of a block",
                                      .min_inputs = 1,
                                      .max_inputs = 1,
                                      .infer = infer_stats_partial,
                                      .kernel = stats_kernel,
                                      .reference = stats_partial_reference,
                                      .cases = stats_cases,
                                      .no_gradient = made_by_lowering};
const OpDef batch_stats_merge_op = {.name = "batch_stats_merge",
                                    .summary = "Chan's merge of the blocks",
                                    .min_inputs = 1,
                                    .max_inputs = 1,
                                    .infer = infer_stats_merge,
                                    .kernel = stats_merge_kernel,
                                    .reference = stats_merge_reference,
                                    .cases = stats_merge_cases,
                                    .no_gradient = made_by_lowering};

} // namespace cryolite
