// Softmax, softmax cross-entropy, dropout.
#include "common.h"

#include <algorithm>
#include <cmath>

namespace cryolite {

using Ids = std::vector<ValueId>;

static void check_logits(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    if (x.rank() != 2 || !x.batched()) compile_error(n, "the input must be [n, c], not " + x.text());
}
static std::vector<ValueType> infer_softmax(const Graph &g, const Node &n) {
    check_logits(g, n);
    return {g.type(n.inputs[0])};
}
// dx = y (dy - sum(dy y))
static Ids softmax_gradient(Graph &g, const Node &n, const Ids &dy) {
    ValueId y = n.outputs[0];
    ValueId dot = g.add1("sum", {g.add1("mul", {dy[0], y}, {}, n.layer)}, {{"axes", std::vector<int64_t>{1}}}, n.layer);
    return {g.add1("mul", {y, g.add1("sub", {dy[0], dot}, {}, n.layer)}, {}, n.layer)};
}
static Kernel softmax_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    return {.generator = "softmax",
            .parameters = {{"c", text(g.shape(n.inputs[0])[1])}},
            .args = {input_arg(g, n, 0, context), output_arg(g, n, 0, context)}};
}
static void softmax_row(const double *x, double *y, int64_t c, double &largest, double &sum) {
    largest = x[0];
    for (int64_t j = 1; j < c; j++) largest = std::max(largest, x[j]);
    sum = 0;
    for (int64_t j = 0; j < c; j++) sum += y[j] = std::exp(x[j] - largest);
    for (int64_t j = 0; j < c; j++) y[j] /= sum;
}
static void softmax_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t c = in[0]->shape[1];
    double largest, sum;
    for (int64_t i = 0; i < in[0]->shape[0]; i++)
        softmax_row(&in[0]->data[size_t(i * c)], &out[0]->data[size_t(i * c)], c, largest, sum);
}

static std::vector<ValueType> infer_loss(const Graph &g, const Node &n) {
    check_logits(g, n);
    Shape samples{Shape::batch};
    if (g.type(n.inputs[1]) != ValueType{samples, Type::i32})
        compile_error(n, "labels must be integers [n], not " + g.shape(n.inputs[1]).text());
    return {{samples, Type::f32}, {samples, Type::f32}, {g.shape(n.inputs[0]), Type::f32}};
}
static Ids loss_gradient(Graph &g, const Node &n, const Ids &dy) {
    if (dy[0] == no_value) return {no_value, no_value};
    ValueId column = g.add1("reshape", {dy[0]}, {{"shape", std::vector<int64_t>{Shape::batch, 1}}}, n.layer);
    return {g.add1("mul", {n.outputs[2], column}, {}, n.layer), no_value};
}
static Kernel loss_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    return {.generator = "softmax_cross_entropy",
            .parameters = {{"c", text(g.shape(n.inputs[0])[1])}},
            .args = {{.kind = KernelArg::valid, .extents = {}},
                     input_arg(g, n, 0, context),
                     input_arg(g, n, 1, context),
                     output_arg(g, n, 0, context),
                     output_arg(g, n, 1, context),
                     output_arg(g, n, 2, context)}};
}
static void loss_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t c = in[0]->shape[1];
    for (int64_t i = 0; i < std::min(in[0]->shape[0], in[0]->batch); i++) { // zeros for padding
        const double *x = &in[0]->data[size_t(i * c)];
        double largest, sum, *delta = &out[2]->data[size_t(i * c)];
        softmax_row(x, delta, c, largest, sum);
        int64_t label = int64_t(in[1]->data[size_t(i)]), best = 0;
        for (int64_t j = 1; j < c; j++)
            if (x[j] > x[best]) best = j;
        out[0]->data[size_t(i)] = std::log(sum) - (x[label] - largest);
        out[1]->data[size_t(i)] = best == label;
        delta[label] -= 1;
    }
}

static std::vector<ValueType> infer_dropout(const Graph &g, const Node &n) { return {g.type(n.inputs[0])}; }
// Kept where a number drawn for the sample, the element and the step is at least the rate.
static void select_dropout(Rewriter &r, const Node &n, Mode mode) {
    ValueId x = r.inputs(n)[0];
    double rate = n.attrs.number("rate");
    if (mode != Mode::train || rate == 0) {
        r.bind(n.outputs[0], x);
        return;
    }
    Graph &g = r.to;
    Attrs attrs{{"seed", n.attrs.integer("seed")}, {"shape", g.shape(x).dims}};
    ValueId drawn = g.add1("uniform", {g.add1("step", {})}, attrs, n.layer, n.source);
    ValueId kept = g.add1("greater_equal", {drawn, literal(g, rate)}, {}, n.layer);
    ValueId scaled = g.add1("mul", {x, literal(g, 1 / (1 - rate))}, {}, n.layer);
    r.bind(n.outputs[0], g.add1("mul", {scaled, kept}, {}, n.layer, n.source));
}

static std::vector<Case> softmax_cases() {
    return cases_of({"[n,5]", "[n,1]", "[n,7]"}, {}, -3, 3) + large(cases_of({"[n,1000]"}, {}, -3, 3));
}
static std::vector<Case> loss_cases() {
    std::vector<Case> cases =
        cases_of({"[n,7]", "[n,2]", "[n,1]"}, {}, -3, 3) + large(cases_of({"[n,1000]"}, {}, -3, 3));
    for (Case &c : cases) c.inputs.push_back({Shape{Shape::batch}, Type::i32});
    return cases;
}

extern const OpDef softmax_op, softmax_cross_entropy_op, dropout_op;
const OpDef softmax_op = {.name = "softmax",
                          .summary = "softmax over c",
                          .min_inputs = 1,
                          .max_inputs = 1,
                          .infer = infer_softmax,
                          .gradient = softmax_gradient,
                          .kernel = softmax_kernel,
                          .reference = softmax_reference,
                          .cases = softmax_cases};
const OpDef softmax_cross_entropy_op = {.name = "softmax_cross_entropy",
                                        .summary = "loss and hit per sample; softmax - onehot",
                                        .min_inputs = 2,
                                        .max_inputs = 2,
                                        .infer = infer_loss,
                                        .gradient = loss_gradient,
                                        .kernel = loss_kernel,
                                        .padding = Padding::zero,
                                        .reference = loss_reference,
                                        .cases = loss_cases};
const OpDef dropout_op = {.name = "dropout",
                          .summary = "zeros at random in train, scaled to keep the mean",
                          .min_inputs = 1,
                          .max_inputs = 1,
                          .infer = infer_dropout,
                          .select = select_dropout};

} // namespace cryolite
