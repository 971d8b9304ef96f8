// Average pooling to a given height and width, and its gradient: window i of `out` over `in` elements is
// [floor(i in / out), ceil((i + 1) in / out)), as PyTorch's adaptive_avg_pool2d; out may be larger than in.
#include "common.h"

namespace cryolite {

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    int64_t h = n.attrs.integer("h"), w = n.attrs.integer("w");
    if (x.rank() != 4 || !x.batched()) compile_error(n, "the input must be [n, c, h, w], not " + x.text());
    if (h < 1 || w < 1 || h > 1 << 14 || w > 1 << 14)
        compile_error(n, "the height " + text(h) + " and the width " + text(w) + " must be between 1 and 16384");
    return {{Shape{Shape::batch, x[1], h, w}, Type::f32}};
}
static std::vector<ValueId> gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    const Shape &x = g.shape(n.inputs[0]);
    return {g.add1("adaptive_avg_pool2d_grad", {dy[0]}, {{"h", x[2]}, {"w", x[3]}}, n.layer)};
}

// Calls f(output index, input index, elements of the window) for every element of every window.
template <typename F> static void each_window(const std::vector<int64_t> &x, const std::vector<int64_t> &y, F f) {
    auto first = [&](int64_t i, size_t d) { return i * x[d] / y[d]; };
    auto last = [&](int64_t i, size_t d) { return ((i + 1) * x[d] + y[d] - 1) / y[d]; };
    for (int64_t plane = 0; plane < y[0] * y[1]; plane++)
        for (int64_t i = 0; i < y[2]; i++)
            for (int64_t j = 0; j < y[3]; j++) {
                double area = double((last(i, 2) - first(i, 2)) * (last(j, 3) - first(j, 3)));
                for (int64_t r = first(i, 2); r < last(i, 2); r++)
                    for (int64_t s = first(j, 3); s < last(j, 3); s++)
                        f(size_t((plane * y[2] + i) * y[3] + j), size_t((plane * x[2] + r) * x[3] + s), area);
            }
}
static void reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_window(in[0]->shape, out[0]->shape,
                [&](size_t o, size_t i, double area) { out[0]->data[o] += in[0]->data[i] / area; });
}
static void grad_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    each_window(out[0]->shape, in[0]->shape,
                [&](size_t o, size_t i, double area) { out[0]->data[i] += in[0]->data[o] / area; });
}

// Smaller, larger and both; the same; even windows; one element to many and many to one; windows that are loops.
static std::vector<Case> cases() {
    auto of = [](const char *shape, int64_t h, int64_t w) { return case_of(shape, {{"h", h}, {"w", w}}); };
    return {of("[n,2,5,7]", 3, 2), of("[n,2,2,2]", 7, 7), of("[n,1,3,5]", 4, 3), of("[n,2,3,4]", 3, 4),
            of("[n,1,6,4]", 3, 2), of("[n,3,1,1]", 7, 7), of("[n,1,5,3]", 1, 1), of("[n,1,13,11]", 2, 1)};
}
static std::vector<Case> grad_cases() {
    std::vector<Case> result = cases();
    for (Case &c : result) {
        Shape x = c.inputs[0].shape;
        c.inputs[0].shape = {Shape::batch, x[1], c.attrs.integer("h"), c.attrs.integer("w")};
        c.attrs = {{"h", x[2]}, {"w", x[3]}};
    }
    return result;
}

extern const OpDef adaptive_avg_pool2d_op, adaptive_avg_pool2d_grad_op;
const OpDef adaptive_avg_pool2d_op = {.name = "adaptive_avg_pool2d",
                                      .summary = "mean of each window, of h by w windows",
                                      .min_inputs = 1,
                                      .max_inputs = 1,
                                      .infer = infer,
                                      .gradient = gradient,
                                      .statement = "adaptive_avg_pool2d",
                                      .padding = Padding::if_all,
                                      .reference = reference,
                                      .cases = cases};
const OpDef adaptive_avg_pool2d_grad_op = {.name = "adaptive_avg_pool2d_grad",
                                           .summary = "gradient of adaptive_avg_pool2d, of an input of h by w",
                                           .min_inputs = 1,
                                           .max_inputs = 1,
                                           .infer = infer,
                                           .statement = "adaptive_avg_pool2d_grad",
                                           .padding = Padding::if_all,
                                           .reference = grad_reference,
                                           .cases = grad_cases,
                                           .no_gradient = made_by_gradients};

} // namespace cryolite
