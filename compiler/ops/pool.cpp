// Average and maximum pooling over windows, and their gradients.
#include "common.h"

#include <cmath>
#include <limits>

namespace cryolite {

// With ceil one more window for a rest, if it begins inside the image or before it: PyTorch's ceil_mode.
static bool is_ceil(const Attrs &attrs) { return attrs.has("ceil") && attrs.integer("ceil") != 0; }
static int64_t out_extent(int64_t in, const Attrs &attrs) {
    int64_t padding = attrs.integer("padding"), stride = attrs.integer("stride");
    int64_t span = in + 2 * padding - attrs.integer("window"), windows = span / stride + 1;
    return windows + (is_ceil(attrs) && span % stride > 0 && windows * stride < in + padding);
}
static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    if (x.rank() != 4 || !x.batched()) compile_error(n, "the input must be [n, c, h, w], not " + x.text());
    int64_t window = n.attrs.integer("window"), stride = n.attrs.integer("stride"),
            padding = n.attrs.integer("padding");
    if (window < 1 || stride < 1 || padding < 0 || 2 * padding > window || window > std::min(x[2], x[3]) + 2 * padding)
        compile_error(n, "window " + text(window) + ", stride " + text(stride) + ", padding " + text(padding) +
                             " do not fit the input " + x.text());
    return {{Shape{Shape::batch, x[1], out_extent(x[2], n.attrs), out_extent(x[3], n.attrs)}, Type::f32}};
}
static std::vector<ValueId> avg_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    Attrs attrs = n.attrs;
    attrs.map["h"] = g.shape(n.inputs[0])[2];
    attrs.map["w"] = g.shape(n.inputs[0])[3];
    return {g.add1("avg_pool2d_grad", {dy[0]}, attrs, n.layer)};
}
static std::vector<ValueId> max_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    return {g.add1("max_pool2d_grad", {dy[0], n.inputs[0], n.outputs[0]}, n.attrs, n.layer)};
}
static std::vector<ValueType> infer_avg_grad(const Graph &g, const Node &n) {
    const Shape &dy = g.shape(n.inputs[0]);
    return {{Shape{Shape::batch, dy[1], n.attrs.integer("h"), n.attrs.integer("w")}, Type::f32}};
}
// The winners are found and stored where the maxima are; the gradient compares positions.
static void lower_max_grad(Rewriter &r, const Node &n, const KernelContext &) {
    std::vector<ValueId> in = r.inputs(n);
    Attrs attrs = n.attrs;
    ValueId winner = r.to.add1("max_pool2d_winner", {in[1]}, attrs, n.layer, n.source);
    attrs.map["h"] = r.to.shape(in[1])[2];
    attrs.map["w"] = r.to.shape(in[1])[3];
    r.bind(n.outputs[0], r.to.add1("max_pool2d_route", {in[0], winner}, attrs, n.layer, n.source));
}
static std::vector<ValueType> infer_max_grad(const Graph &g, const Node &n) { return {g.type(n.inputs[1])}; }

// Calls f(output index, input index or -1 for padding) for every window element, in scan order.
template <typename F>
static void each_window(const Node &node, const std::vector<int64_t> &x, const std::vector<int64_t> &y, F f) {
    int64_t window = node.attrs.integer("window"), stride = node.attrs.integer("stride"),
            padding = node.attrs.integer("padding");
    for (int64_t plane = 0; plane < y[0] * y[1]; plane++)
        for (int64_t i = 0; i < y[2]; i++)
            for (int64_t j = 0; j < y[3]; j++)
                for (int64_t r = 0; r < window; r++)
                    for (int64_t s = 0; s < window; s++) {
                        int64_t yy = i * stride + r - padding, xx = j * stride + s - padding;
                        bool inside = yy >= 0 && yy < x[2] && xx >= 0 && xx < x[3];
                        f(size_t((plane * y[2] + i) * y[3] + j), inside ? (plane * x[2] + yy) * x[3] + xx : -1);
                    }
}
// Elements of each window of an image, padding counted; with ceil, what lies behind the padding does not count.
static std::vector<double> areas(const Node &n, const std::vector<int64_t> &x, const std::vector<int64_t> &y) {
    int64_t window = n.attrs.integer("window"), stride = n.attrs.integer("stride"),
            padding = n.attrs.integer("padding");
    auto extent = [&](int64_t i, int64_t size) { return std::min(window, size + 2 * padding - i * stride); };
    std::vector<double> result;
    for (int64_t i = 0; i < y[2]; i++)
        for (int64_t j = 0; j < y[3]; j++) result.push_back(double(extent(i, x[2]) * extent(j, x[3])));
    return result;
}
static void avg_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    std::vector<double> area = areas(n, in[0]->shape, out[0]->shape);
    each_window(n, in[0]->shape, out[0]->shape, [&](size_t o, int64_t i) {
        if (i >= 0) out[0]->data[o] += in[0]->data[size_t(i)] / area[o % area.size()];
    });
}
static void avg_grad_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    std::vector<double> area = areas(n, out[0]->shape, in[0]->shape);
    each_window(n, out[0]->shape, in[0]->shape, [&](size_t o, int64_t i) {
        if (i >= 0) out[0]->data[size_t(i)] += in[0]->data[o] / area[o % area.size()];
    });
}
static void max_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), -std::numeric_limits<double>::infinity());
    each_window(n, in[0]->shape, out[0]->shape, [&](size_t o, int64_t i) {
        if (i < 0) return;
        double x = in[0]->data[size_t(i)];
        if (x > out[0]->data[o] || std::isnan(x)) out[0]->data[o] = x;
    });
}
// To the first largest; to the last NaN, if there is one: as PyTorch's.
static void max_grad_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    const std::vector<double> &dy = in[0]->data, &x = in[1]->data, &y = in[2]->data;
    std::vector<int64_t> chosen(dy.size(), -1);
    each_window(n, in[1]->shape, in[0]->shape, [&](size_t o, int64_t i) {
        if (i >= 0 && (std::isnan(x[size_t(i)]) || (chosen[o] < 0 && x[size_t(i)] == y[o]))) chosen[o] = i;
    });
    for (size_t o = 0; o < dy.size(); o++)
        if (chosen[o] >= 0) out[0]->data[size_t(chosen[o])] += dy[o];
}

static void winner_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    const std::vector<double> &x = in[0]->data;
    const int64_t area = n.attrs.integer("window") * n.attrs.integer("window");
    std::vector<double> best(out[0]->data.size());
    std::fill(out[0]->data.begin(), out[0]->data.end(), -1.0);
    int64_t position = 0;
    each_window(n, in[0]->shape, out[0]->shape, [&](size_t o, int64_t i) {
        const int64_t at = position++ % area;
        if (i < 0) return;
        const double value = x[size_t(i)];
        if (out[0]->data[o] >= 0 && !(value > best[o]) && !std::isnan(value)) return;
        best[o] = value;
        out[0]->data[o] = double(at);
    });
}
static void route_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    const int64_t area = n.attrs.integer("window") * n.attrs.integer("window");
    int64_t position = 0;
    each_window(n, out[0]->shape, in[0]->shape, [&](size_t o, int64_t i) {
        const int64_t at = position++ % area;
        if (i >= 0 && in[1]->data[o] == double(at)) out[0]->data[size_t(i)] += in[0]->data[o];
    });
}

// Window = input; stride > window; overlap and padding; one pixel; more padding than image; a rest that no window
// sees; windows that are loops, and large ones that overlap. With ceil: a last window that reaches out, with and
// without padding, one that would begin in the right padding and so is none, one beside a loop.
static std::vector<Case> pool_cases() {
    auto of = [](const char *shape, int64_t window, int64_t stride, int64_t padding) {
        return case_of(shape, {{"window", window}, {"stride", stride}, {"padding", padding}});
    };
    auto ceil = [&](const char *shape, int64_t window, int64_t stride, int64_t padding) {
        Case c = of(shape, window, stride, padding);
        c.attrs.map["ceil"] = int64_t(1);
        return c;
    };
    return {of("[n,2,5,5]", 5, 5, 0),   of("[n,1,7,5]", 2, 3, 0),
            of("[n,2,5,7]", 3, 2, 1),   of("[n,3,4,4]", 3, 1, 1),
            of("[n,3,1,1]", 1, 1, 0),   of("[n,1,1,1]", 2, 2, 1),
            of("[n,1,5,5]", 2, 2, 0),   of("[n,1,7,7]", 7, 7, 0),
            of("[n,2,8,8]", 4, 4, 0),   of("[n,1,9,9]", 5, 1, 2),
            ceil("[n,2,6,5]", 3, 2, 0), ceil("[n,1,6,7]", 3, 2, 1),
            ceil("[n,1,3,4]", 2, 2, 1), ceil("[n,1,5,8]", 2, 3, 0),
            ceil("[n,1,9,8]", 6, 2, 0), large({of("[n,64,56,56]", 3, 2, 1)})[0]};
}
// Of the same windows: dy, or dy, x and y.
static std::vector<Case> pool_grad_cases(bool max) {
    std::vector<Case> cases = pool_cases();
    for (Case &c : cases) {
        ValueType x = c.inputs[0], dy = x;
        for (size_t i : {2, 3}) dy.shape.dims[i] = out_extent(x.shape.dims[i], c.attrs);
        if (max) {
            c.inputs = {dy, x, dy};
        } else {
            c.inputs = {dy};
            c.attrs.map["h"] = x.shape[2];
            c.attrs.map["w"] = x.shape[3];
        }
    }
    return cases;
}
static std::vector<Case> avg_grad_cases() { return pool_grad_cases(false); }
static std::vector<Case> max_grad_cases() { return pool_grad_cases(true); }
static std::vector<Case> route_cases() { // winners that are positions come with max_pool2d_grad's cases
    std::vector<Case> cases = pool_grad_cases(false);
    for (Case &c : cases) c.inputs.push_back(c.inputs[0]);
    return cases;
}

extern const OpDef avg_pool2d_op, avg_pool2d_grad_op, max_pool2d_op, max_pool2d_grad_op, max_pool2d_winner_op,
    max_pool2d_route_op;
const OpDef avg_pool2d_op = {.name = "avg_pool2d",
                             .summary = "mean of each window, padding counted as zeros",
                             .min_inputs = 1,
                             .max_inputs = 1,
                             .infer = infer,
                             .gradient = avg_gradient,
                             .statement = "avg_pool2d",
                             .padding = Padding::if_all,
                             .reference = avg_reference,
                             .cases = pool_cases};
const OpDef avg_pool2d_grad_op = {.name = "avg_pool2d_grad",
                                  .summary = "gradient of avg_pool2d",
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .infer = infer_avg_grad,
                                  .statement = "avg_pool2d_grad",
                                  .padding = Padding::if_all,
                                  .reference = avg_grad_reference,
                                  .cases = avg_grad_cases,
                                  .no_gradient = made_by_gradients};
const OpDef max_pool2d_op = {.name = "max_pool2d",
                             .summary = "largest of each window; NaN stays",
                             .min_inputs = 1,
                             .max_inputs = 1,
                             .infer = infer,
                             .gradient = max_gradient,
                             .statement = "max_pool2d",
                             .reference = max_reference,
                             .cases = pool_cases};
const OpDef max_pool2d_grad_op = {.name = "max_pool2d_grad",
                                  .summary = "gradient of max_pool2d: to the first largest",
                                  .min_inputs = 3,
                                  .max_inputs = 3,
                                  .infer = infer_max_grad,
                                  .lower = lower_max_grad,
                                  .reference = max_grad_reference,
                                  .cases = max_grad_cases,
                                  .no_gradient = made_by_gradients};

const OpDef max_pool2d_winner_op = {.name = "max_pool2d_winner",
                                    .summary = "position of each window's first largest element, or of its last NaN",
                                    .min_inputs = 1,
                                    .max_inputs = 1,
                                    .infer = infer,
                                    .statement = "max_pool2d_winner",
                                    .stored = true,
                                    .reference = winner_reference,
                                    .cases = pool_cases,
                                    .no_gradient = made_by_lowering};
const OpDef max_pool2d_route_op = {.name = "max_pool2d_route",
                                   .summary = "the gradient of each window's maximum goes to the winner",
                                   .min_inputs = 2,
                                   .max_inputs = 2,
                                   .infer = infer_avg_grad,
                                   .statement = "max_pool2d_route",
                                   .reference = route_reference,
                                   .cases = route_cases,
                                   .no_gradient = made_by_lowering};

} // namespace cryolite
