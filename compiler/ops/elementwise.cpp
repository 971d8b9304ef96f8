// Elementwise ops: unary maths, broadcasting arithmetic, broadcast, mask, uniform numbers.
#include "common.h"

#include <algorithm>
#include <bit>
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
// dy where a > b, 0 where a < b, half of it where they are equal, dy where one is NaN: as PyTorch's. Chosen, not
// multiplied: a product of 0 and an infinite dy is NaN.
static ValueId share_of_larger(Graph &g, ValueId dy, ValueId a, ValueId b, const Node &n) {
    ValueId larger = g.add1("greater_equal", {a, b}, {}, n.layer),
            smaller = g.add1("greater_equal", {b, a}, {}, n.layer);
    ValueId whole = g.add1("relu_grad", {dy, g.add1("sub", {literal(g, 1), smaller}, {}, n.layer)}, {}, n.layer);
    ValueId tie = mul(g, larger, smaller, n), half = mul(g, dy, literal(g, 0.5), n);
    return g.add1("add", {whole, g.add1("relu_grad", {half, tie}, {}, n.layer)}, {}, n.layer);
}
static Ids max_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId a = n.inputs[0], b = n.inputs[1];
    return fit(g, n, share_of_larger(g, dy[0], a, b, n), share_of_larger(g, dy[0], b, a, n));
}
static Ids min_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId a = n.inputs[0], b = n.inputs[1];
    return fit(g, n, share_of_larger(g, dy[0], b, a, n), share_of_larger(g, dy[0], a, b, n));
}
static Ids neg_gradient(Graph &g, const Node &n, const Ids &dy) { return {neg(g, dy[0], n)}; }
static Ids exp_gradient(Graph &g, const Node &n, const Ids &dy) { return {mul(g, dy[0], n.outputs[0], n)}; }
static Ids log_gradient(Graph &g, const Node &n, const Ids &dy) { return {div(g, dy[0], n.inputs[0], n)}; }
static Ids sqrt_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {div(g, mul(g, dy[0], literal(g, 0.5), n), n.outputs[0], n)};
}
static Ids rsqrt_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId y = n.outputs[0], cube = mul(g, y, g.add1("square", {y}, {}, n.layer), n); // of y: x may be -0
    return {mul(g, mul(g, dy[0], literal(g, -0.5), n), cube, n)};
}
static Ids square_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {mul(g, dy[0], mul(g, literal(g, 2), n.inputs[0], n), n)};
}
static Ids abs_gradient(Graph &g, const Node &n, const Ids &dy) {
    // The sign of x: 0 at 0.
    ValueId zero = literal(g, 0), positive = g.add1("greater_equal", {n.inputs[0], zero}, {}, n.layer);
    ValueId negative = g.add1("greater_equal", {zero, n.inputs[0]}, {}, n.layer);
    return {mul(g, dy[0], g.add1("sub", {positive, negative}, {}, n.layer), n)};
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
// Of the result, which is positive or NaN where x is, and often stored where x is not.
static Ids relu_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {g.add1("relu_grad", {dy[0], n.outputs[0]}, {}, n.layer)};
}
static Ids relu6_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {g.add1("relu6_grad", {dy[0], n.outputs[0]}, {}, n.layer)};
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
static double relu6_grad_of(double dy, double x) { return x <= 0 || x >= 6 ? 0 : dy; }
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
static double relu_of(double x) { return x < 0 ? 0 : x; }
static double relu6_of(double x) { return x < 0 ? 0 : x > 6 ? 6 : x; }

static std::vector<Case> unary_cases_between(double low, double high) {
    return cases_of({"[n,3,2,1]", "[7]", "[]"}, {}, low, high) + large(cases_of({"[n,64,56,56]"}, {}, low, high));
}
static std::vector<Case> unary_cases() { return unary_cases_between(-2, 2); }
static std::vector<Case> positive_cases() { return unary_cases_between(0.5, 2); }
static std::vector<Case> relu6_cases() { return unary_cases_between(-4, 10); }
static std::vector<Case> binary_cases() {
    return cases_of({"[n,3,2,5] [n,3,2,5]", "[n,3,2,5] [1,3,1,1]", "[1,3,1,1] [n,3,2,5]", "[n,1] [1,5]", "[n,3] []",
                     "[] [n,3]", "[] []", "[7] [1]", "[n,3] [n,3]"},
                    {}, 0.5, 2);
}
static std::vector<Case> relu_grad_cases() { return cases_of({"[n,3,2,5] [n,3,2,5]", "[7] [7]"}); }
static std::vector<Case> relu6_grad_cases() { return cases_of({"[n,3,2,5] [n,3,2,5]", "[7] [7]"}, {}, -4, 10); }

// Of finite garbage in padding lanes these can make infinities and NaN, which a product with a zero gradient keeps:
// their results are masked where they are made.
static void lower_masked(Rewriter &r, const Node &n, const KernelContext &) {
    r.copy(n);
    ValueId y = n.outputs[0];
    if (r.from.shape(n.inputs.back()).batched())
        r.bind(y, r.to.add1("mask", {r.map[size_t(y)]}, {}, n.layer, n.source));
}

#define CRYO_UNARY(name_, work_, padding_, lower_, cases_)                                                             \
    extern const OpDef name_##_op;                                                                                     \
    const OpDef name_##_op = {.name = #name_,                                                                          \
                              .summary = "elementwise " #name_,                                                        \
                              .min_inputs = 1,                                                                         \
                              .max_inputs = 1,                                                                         \
                              .infer = same,                                                                           \
                              .gradient = name_##_gradient,                                                            \
                              .lower = lower_,                                                                         \
                              .statement = #name_,                                                                     \
                              .work = work_,                                                                           \
                              .padding = padding_,                                                                     \
                              .reference = unary_reference<name_##_of>,                                                \
                              .cases = cases_};
CRYO_UNARY(abs, 1, Padding::if_all, nullptr, unary_cases)
CRYO_UNARY(exp, 8, Padding::garbage, lower_masked, unary_cases)
CRYO_UNARY(log, 10, Padding::garbage, lower_masked, positive_cases)
CRYO_UNARY(neg, 1, Padding::if_all, nullptr, unary_cases)
CRYO_UNARY(reciprocal, 4, Padding::garbage, lower_masked, positive_cases)
CRYO_UNARY(relu, 1, Padding::if_all, nullptr, unary_cases)
CRYO_UNARY(relu6, 2, Padding::if_all, nullptr, relu6_cases)
CRYO_UNARY(rsqrt, 6, Padding::garbage, lower_masked, positive_cases)
CRYO_UNARY(sigmoid, 10, Padding::garbage, nullptr, unary_cases)
CRYO_UNARY(sqrt, 6, Padding::if_all, lower_masked, positive_cases)
CRYO_UNARY(square, 1, Padding::if_all, nullptr, unary_cases)
CRYO_UNARY(tanh, 10, Padding::if_all, nullptr, unary_cases)

#define CRYO_BINARY(...) CRYO_BINARY_FLAT(__VA_ARGS__, nullptr)
#define CRYO_BINARY_FLAT(name_, of_, gradient_, padding_, lower_, cases_, why_)                                        \
    extern const OpDef name_##_op;                                                                                     \
    const OpDef name_##_op = {.name = #name_,                                                                          \
                              .summary = "broadcasting " #name_,                                                       \
                              .min_inputs = 2,                                                                         \
                              .max_inputs = 2,                                                                         \
                              .infer = broadcast_types,                                                                \
                              .gradient = gradient_,                                                                   \
                              .lower = lower_,                                                                         \
                              .statement = #name_,                                                                     \
                              .padding = padding_,                                                                     \
                              .reference = binary_reference<of_>,                                                      \
                              .cases = cases_,                                                                         \
                              .no_gradient = why_};
CRYO_BINARY(add, add_of, add_gradient, Padding::if_all, nullptr, binary_cases)
CRYO_BINARY(div, div_of, div_gradient, Padding::garbage, lower_masked, binary_cases)
CRYO_BINARY_FLAT(greater_equal, ge_of, no_gradient, Padding::garbage, nullptr, binary_cases, "a step: flat")
CRYO_BINARY(max, max_of, max_gradient, Padding::if_all, nullptr, binary_cases)
CRYO_BINARY(min, min_of, min_gradient, Padding::if_all, nullptr, binary_cases)
CRYO_BINARY(mul, mul_of, mul_gradient, Padding::if_any, nullptr, binary_cases)
CRYO_BINARY_FLAT(relu_grad, relu_grad_of, nullptr, Padding::if_any, nullptr, relu_grad_cases, made_by_gradients)
CRYO_BINARY_FLAT(relu6_grad, relu6_grad_of, nullptr, Padding::if_any, nullptr, relu6_grad_cases, made_by_gradients)
CRYO_BINARY(sub, sub_of, sub_gradient, Padding::if_all, nullptr, binary_cases)

// ---- broadcast, mask, uniform
static std::vector<ValueType> infer_broadcast(const Graph &graph, const Node &node) {
    const Shape &from = graph.shape(node.inputs[0]), to(node.attrs.list("shape"));
    bool fits = from.rank() == 0 || from.rank() == to.rank();
    for (int i = 0; fits && i < from.rank(); i++) fits = from[i] == 1 || from[i] == to[i];
    if (!fits) compile_error(node, "the shape " + from.text() + " does not broadcast to " + to.text());
    return {{to, Type::f32}};
}
static Ids broadcast_gradient(Graph &g, const Node &n, const Ids &dy) {
    return {sum_to(g, dy[0], g.shape(n.inputs[0]), n.layer)};
}
static void broadcast_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    for (int64_t i = 0; i < out[0]->elements(); i++)
        out[0]->data[size_t(i)] = in[0]->data[size_t(operand_index(out[0]->shape, in[0]->shape, i))];
}
static std::vector<Case> broadcast_cases() {
    using List = std::vector<int64_t>;
    constexpr int64_t n = Shape::batch;
    return {case_of("[1,3,1,1]", {{"shape", List{n, 3, 2, 5}}}), case_of("[]", {{"shape", List{n, 3}}}),
            case_of("[n,1]", {{"shape", List{n, 7}}}), case_of("[1,3]", {{"shape", List{5, 3}}})};
}
extern const OpDef broadcast_op;
const OpDef broadcast_op = {.name = "broadcast",
                            .summary = "x repeated to a shape",
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .infer = infer_broadcast,
                            .gradient = broadcast_gradient,
                            .statement = "broadcast",
                            .padding = Padding::if_all,
                            .reference = broadcast_reference,
                            .cases = broadcast_cases};

static std::vector<ValueType> infer_mask(const Graph &graph, const Node &node) {
    if (!graph.shape(node.inputs[0]).batched())
        compile_error(node, "the input must be [n, ...], not " + graph.shape(node.inputs[0]).text());
    return {graph.type(node.inputs[0])};
}
static Ids mask_gradient(Graph &g, const Node &n, const Ids &dy) { return {g.add1("mask", {dy[0]}, {}, n.layer)}; }
static void mask_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t real = in[0]->elements() / in[0]->shape[0] * in[0]->batch;
    std::copy(in[0]->data.begin(), in[0]->data.begin() + real, out[0]->data.begin());
    std::fill(out[0]->data.begin() + real, out[0]->data.end(), 0.0);
}
static std::vector<Case> mask_cases() { return cases_of({"[n]", "[n,3]", "[n,3,2,5]"}); }
extern const OpDef mask_op;
const OpDef mask_op = {.name = "mask",
                       .summary = "zero in padding lanes",
                       .min_inputs = 1,
                       .max_inputs = 1,
                       .infer = infer_mask,
                       .gradient = mask_gradient,
                       .statement = "mask($0, valid)",
                       .padding = Padding::zero,
                       .reference = mask_reference,
                       .cases = mask_cases};

static std::vector<ValueType> infer_uniform(const Graph &graph, const Node &node) {
    Shape shape(node.attrs.list("shape"));
    if (!shape.batched() || graph.shape(node.inputs[0]) != Shape{})
        compile_error(node,
                      "makes [n, ...] of a number, not " + shape.text() + " of " + graph.shape(node.inputs[0]).text());
    return {{shape, Type::f32}};
}
static uint32_t mixed_bits(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}
// The kernel's numbers, bit for bit.
static void uniform_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    uint32_t step = std::bit_cast<uint32_t>(float(in[0]->data[0])), seed = uint32_t(node.attrs.integer("seed"));
    uint32_t per_sample = uint32_t(out[0]->elements() / out[0]->shape[0]);
    for (uint32_t i = 0; i < uint32_t(out[0]->elements()); i++) {
        uint32_t stream = mixed_bits(mixed_bits(step + seed * 0x9e3779b9u) + i % per_sample * 0x85ebca6bu);
        uint32_t bits = mixed_bits(stream + mixed_bits((i / per_sample) ^ 0x5bd1e995u));
        out[0]->data[i] = double(bits >> 8) / 16777216.0;
    }
}
static std::vector<Case> uniform_cases() {
    return cases_of({"[]"}, {{"seed", int64_t(7)}, {"shape", std::vector<int64_t>{Shape::batch, 3, 2, 5}}}, 3, 3);
}
extern const OpDef uniform_op;
const OpDef uniform_op = {.name = "uniform",
                          .summary = "uniform numbers in [0, 1) by step, sample and element",
                          .min_inputs = 1,
                          .max_inputs = 1,
                          .infer = infer_uniform,
                          .statement = "uniform(block, $0)",
                          .reference = uniform_reference,
                          .cases = uniform_cases,
                          .no_gradient = "random numbers"};

} // namespace cryolite
