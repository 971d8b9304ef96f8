// Elementwise ops: unary maths, broadcasting arithmetic, broadcast, mask, uniform numbers.
#include "common.h"

#include <cmath>

namespace cryolite {

using Ids = std::vector<ValueId>;

static std::vector<ValueType> same(const Graph &graph, const Node &node) { return {graph.type(node.inputs[0])}; }

// numpy's rule for equal ranks; [] goes with everything.
static std::vector<ValueType> broadcast_types(const Graph &graph, const Node &node) {
    Shape a = graph.shape(node.inputs[0]), b = graph.shape(node.inputs[1]);
    if (a.rank() == 0) return {{b, Type::f32}};
    if (b.rank() == 0) return {{a, Type::f32}};
    bool fits = a.rank() == b.rank();
    Shape result = a;
    for (int i = 0; fits && i < a.rank(); i++) {
        if (a[i] == 1)
            result.dims[size_t(i)] = b[i];
        else if (b[i] != 1 && a[i] != b[i])
            fits = false;
    }
    if (!fits) compile_error(node, "the shapes " + a.text() + " and " + b.text() + " do not broadcast");
    return {{result, Type::f32}};
}

// Reference of a binary op: index of the operand for an element of the result.
static int64_t operand_index(const std::vector<int64_t> &shape, const std::vector<int64_t> &operand, int64_t index) {
    if (operand.empty()) return 0;
    int64_t result = 0, stride = 1;
    for (size_t i = shape.size(); i-- > 0;) {
        int64_t at = index % shape[i];
        index /= shape[i];
        if (operand[i] != 1) result += at * stride;
        stride *= operand[i];
    }
    return result;
}
template <double (*f)(double)>
static void unary_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    for (int64_t i = 0; i < out[0]->elements(); i++) out[0]->data[size_t(i)] = f(in[0]->data[size_t(i)]);
}
template <double (*f)(double, double)>
static void binary_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    for (int64_t i = 0; i < out[0]->elements(); i++)
        out[0]->data[size_t(i)] = f(in[0]->data[size_t(operand_index(out[0]->shape, in[0]->shape, i))],
                                    in[1]->data[size_t(operand_index(out[0]->shape, in[1]->shape, i))]);
}

// ---- gradients
static ValueId mul(Graph &g, ValueId a, ValueId b, const Node &n) { return g.add1("mul", {a, b}, {}, n.layer); }
static ValueId div(Graph &g, ValueId a, ValueId b, const Node &n) { return g.add1("div", {a, b}, {}, n.layer); }
static ValueId neg(Graph &g, ValueId a, const Node &n) { return g.add1("neg", {a}, {}, n.layer); }
static Ids fit(Graph &g, const Node &n, ValueId da, ValueId db) {
    return {sum_to(g, da, g.shape(n.inputs[0]), n.layer), sum_to(g, db, g.shape(n.inputs[1]), n.layer)};
}
static Ids add_gradient(Graph &g, const Node &n, const Ids &dy) { return fit(g, n, dy[0], dy[0]); }
static Ids sub_gradient(Graph &g, const Node &n, const Ids &dy) { return fit(g, n, dy[0], neg(g, dy[0], n)); }
static Ids mul_gradient(Graph &g, const Node &n, const Ids &dy) {
    return fit(g, n, mul(g, dy[0], n.inputs[1], n), mul(g, dy[0], n.inputs[0], n));
}
static Ids div_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId da = div(g, dy[0], n.inputs[1], n);
    return fit(g, n, da, neg(g, mul(g, da, n.outputs[0], n), n));
}
static Ids max_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId a = g.add1("greater_equal", {n.inputs[0], n.inputs[1]}, {}, n.layer);
    ValueId da = mul(g, dy[0], a, n);
    return fit(g, n, da, g.add1("sub", {dy[0], da}, {}, n.layer));
}
static Ids min_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId a = g.add1("greater_equal", {n.inputs[1], n.inputs[0]}, {}, n.layer);
    ValueId da = mul(g, dy[0], a, n);
    return fit(g, n, da, g.add1("sub", {dy[0], da}, {}, n.layer));
}
static Ids neg_gradient(Graph &g, const Node &n, const Ids &dy) { return {neg(g, dy[0], n)}; }
static Ids exp_gradient(Graph &g, const Node &n, const Ids &dy) { return {mul(g, dy[0], n.outputs[0], n)}; }
static Ids log_gradient(Graph &g, const Node &n, const Ids &dy) { return {div(g, dy[0], n.inputs[0], n)}; }
static Ids sqrt_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {div(g, mul(g, dy[0], literal(g, 0.5), n), n.outputs[0], n)};
}
static Ids rsqrt_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId y = n.outputs[0];
    return {mul(g, mul(g, dy[0], literal(g, -0.5), n), div(g, y, n.inputs[0], n), n)};
}
static Ids square_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {mul(g, dy[0], mul(g, literal(g, 2), n.inputs[0], n), n)};
}
static Ids abs_gradient(Graph &g, const Node &n, const Ids &dy) {
    // 2 (x >= 0) - 1
    ValueId positive = g.add1("greater_equal", {n.inputs[0], literal(g, 0)}, {}, n.layer);
    ValueId sign = g.add1("sub", {mul(g, literal(g, 2), positive, n), literal(g, 1)}, {}, n.layer);
    return {mul(g, dy[0], sign, n)};
}
static Ids reciprocal_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {neg(g, mul(g, dy[0], g.add1("square", {n.outputs[0]}, {}, n.layer), n), n)};
}
static Ids sigmoid_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId rest = g.add1("sub", {literal(g, 1), n.outputs[0]}, {}, n.layer);
    return {mul(g, dy[0], mul(g, n.outputs[0], rest, n), n)};
}
static Ids tanh_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId square = g.add1("square", {n.outputs[0]}, {}, n.layer);
    return {mul(g, dy[0], g.add1("sub", {literal(g, 1), square}, {}, n.layer), n)};
}
static Ids relu_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {g.add1("relu_grad", {dy[0], n.inputs[0]}, {}, n.layer)};
}
static Ids no_gradient(Graph &, const Node &n, const Ids &) { return Ids(n.inputs.size(), no_value); }

static double add_of(double a, double b) { return a + b; }
static double sub_of(double a, double b) { return a - b; }
static double mul_of(double a, double b) { return a * b; }
static double div_of(double a, double b) { return a / b; }
static double max_of(double a, double b) { return std::isnan(a) || a > b ? a : b; }
static double min_of(double a, double b) { return std::isnan(a) || a < b ? a : b; }
static double ge_of(double a, double b) { return a >= b; }
static double relu_grad_of(double dy, double x) { return x <= 0 ? 0 : dy; }
static double neg_of(double x) { return -x; }
static double exp_of(double x) { return std::exp(x); }
static double log_of(double x) { return std::log(x); }
static double sqrt_of(double x) { return std::sqrt(x); }
static double rsqrt_of(double x) { return 1 / std::sqrt(x); }
static double square_of(double x) { return x * x; }
static double abs_of(double x) { return std::fabs(x); }
static double reciprocal_of(double x) { return 1 / x; }
static double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
static double tanh_of(double x) { return std::tanh(x); }
static double relu_of(double x) { return x <= 0 ? 0 : x; }

#define CRYO_UNARY(name_, padding_)                                                                                    \
    extern const OpDef name_##_op;                                                                                     \
    const OpDef name_##_op = {.name = #name_,                                                                          \
                              .summary = "elementwise " #name_,                                                        \
                              .min_inputs = 1,                                                                         \
                              .max_inputs = 1,                                                                         \
                              .infer = same,                                                                           \
                              .gradient = name_##_gradient,                                                            \
                              .statement = #name_,                                                                     \
                              .padding = padding_,                                                                     \
                              .reference = unary_reference<name_##_of>};
CRYO_UNARY(abs, Padding::if_all)
CRYO_UNARY(exp, Padding::garbage)
CRYO_UNARY(log, Padding::garbage)
CRYO_UNARY(neg, Padding::if_all)
CRYO_UNARY(reciprocal, Padding::garbage)
CRYO_UNARY(relu, Padding::if_all)
CRYO_UNARY(rsqrt, Padding::garbage)
CRYO_UNARY(sigmoid, Padding::garbage)
CRYO_UNARY(sqrt, Padding::if_all)
CRYO_UNARY(square, Padding::if_all)
CRYO_UNARY(tanh, Padding::if_all)

#define CRYO_BINARY(name_, of_, gradient_, padding_)                                                                   \
    extern const OpDef name_##_op;                                                                                     \
    const OpDef name_##_op = {.name = #name_,                                                                          \
                              .summary = "broadcasting " #name_,                                                       \
                              .min_inputs = 2,                                                                         \
                              .max_inputs = 2,                                                                         \
                              .infer = broadcast_types,                                                                \
                              .gradient = gradient_,                                                                   \
                              .statement = #name_,                                                                     \
                              .padding = padding_,                                                                     \
                              .reference = binary_reference<of_>};
CRYO_BINARY(add, add_of, add_gradient, Padding::if_all)
CRYO_BINARY(div, div_of, div_gradient, Padding::garbage)
CRYO_BINARY(greater_equal, ge_of, no_gradient, Padding::garbage)
CRYO_BINARY(max, max_of, max_gradient, Padding::if_all)
CRYO_BINARY(min, min_of, min_gradient, Padding::if_all)
CRYO_BINARY(mul, mul_of, mul_gradient, Padding::if_any)
CRYO_BINARY(relu_grad, relu_grad_of, nullptr, Padding::garbage)
CRYO_BINARY(sub, sub_of, sub_gradient, Padding::if_all)

// ---- broadcast, mask, uniform
static std::vector<ValueType> infer_broadcast(const Graph &, const Node &node) {
    return {{Shape(node.attrs.list("shape")), Type::f32}};
}
static Ids broadcast_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {sum_to(g, dy[0], g.shape(n.inputs[0]), n.layer)};
}
static void broadcast_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    for (int64_t i = 0; i < out[0]->elements(); i++)
        out[0]->data[size_t(i)] = in[0]->data[size_t(operand_index(out[0]->shape, in[0]->shape, i))];
}
extern const OpDef broadcast_op;
const OpDef broadcast_op = {.name = "broadcast",
                            .summary = "x repeated to a shape",
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .infer = infer_broadcast,
                            .gradient = broadcast_gradient,
                            .statement = "broadcast",
                            .reference = broadcast_reference};

static Ids mask_gradient(Graph &g, const Node &n, const Ids &dy) { return {g.add1("mask", {dy[0]}, {}, n.layer)}; }
static double identity_of(double x) { return x; }
extern const OpDef mask_op;
const OpDef mask_op = {.name = "mask",
                       .summary = "zero in padding lanes",
                       .min_inputs = 1,
                       .max_inputs = 1,
                       .infer = same,
                       .gradient = mask_gradient,
                       .statement = "mask($0, valid)",
                       .padding = Padding::zero,
                       .reference = unary_reference<identity_of>};

extern const OpDef uniform_op;
const OpDef uniform_op = {.name = "uniform",
                          .summary = "uniform numbers in [0, 1) by step, sample and element",
                          .min_inputs = 1,
                          .max_inputs = 1,
                          .infer = infer_broadcast,
                          .statement = "uniform(block, $0)"};

} // namespace cryolite
