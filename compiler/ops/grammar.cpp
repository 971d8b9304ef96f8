// The graph's grammar: where values come from, and effects.
#include "common.h"

namespace cryolite {

static std::vector<ValueType> shape_attr(const Graph &, const Node &node) {
    return {{Shape(node.attrs.list("shape")), Type::f32}};
}
static std::vector<ValueType> scalar(const Graph &, const Node &) { return {{Shape{}, Type::f32}}; }
static std::vector<ValueType> labels(const Graph &, const Node &) { return {{Shape{Shape::batch}, Type::i32}}; }
static std::vector<ValueType> nothing(const Graph &, const Node &) { return {}; }
static std::vector<ValueType> rows(const Graph &, const Node &node) {
    return {{Shape{Shape::blocks, node.attrs.integer("lanes"), node.attrs.integer("elements")}, Type::f32}};
}

static std::vector<ValueType> infer_assign(const Graph &graph, const Node &node) {
    if (graph.shape(node.inputs[0]) != graph.shape(node.inputs[1]))
        compile_error(node, "a state of shape " + graph.shape(node.inputs[0]).text() +
                                " cannot take a value of shape " + graph.shape(node.inputs[1]).text());
    return {};
}

static void lower_input(Rewriter &r, const Node &node, const KernelContext &context) {
    Shape shape(node.attrs.list("shape"));
    Attrs attrs{{"lanes", context.lanes}, {"elements", shape.elements()}};
    ValueId rows = r.to.add1("input_rows", {}, attrs, node.layer, node.source);
    r.bind(node.outputs[0], r.to.add1("pack", {rows}, {{"shape", shape.dims}}, node.layer, node.source));
}

static void lower_output(Rewriter &r, const Node &node, const KernelContext &context) {
    ValueId value = r.inputs(node)[0];
    if (r.to.shape(value).batched())
        value = r.to.add1("unpack", {value}, {{"lanes", context.lanes}}, node.layer, node.source);
    r.to.add("output", {value}, node.attrs, node.layer, node.source);
}

static std::vector<ValueType> infer_by_mode(const Graph &graph, const Node &node) {
    if (graph.shape(node.inputs[0]) != graph.shape(node.inputs[1]))
        compile_error(node, "the shapes " + graph.shape(node.inputs[0]).text() + " and " +
                                graph.shape(node.inputs[1]).text() + " must be equal");
    return {graph.type(node.inputs[0])};
}
static void select_by_mode(Rewriter &r, const Node &node, Mode mode) {
    r.bind(node.outputs[0], r.inputs(node)[mode == Mode::train ? 0 : 1]);
}

#define CRYO_SOURCE(name_, summary_, infer_)                                                                           \
    extern const OpDef name_##_op;                                                                                     \
    const OpDef name_##_op = {.name = #name_, .summary = summary_, .min_inputs = 0, .max_inputs = 0, .infer = infer_};

CRYO_SOURCE(batch_size, "samples in the batch", scalar)
CRYO_SOURCE(constant, "a number", scalar)
CRYO_SOURCE(label, "the labels of the batch", labels)
CRYO_SOURCE(learning_rate, "the rate of this step", scalar)
CRYO_SOURCE(parameter, "a trained value", shape_attr)
CRYO_SOURCE(state, "a value that assign changes", shape_attr)
CRYO_SOURCE(step, "steps done", scalar)
CRYO_SOURCE(input_rows, "the caller's images, row by row", rows)

extern const OpDef input_op;
const OpDef input_op = {.name = "input",
                        .summary = "the images of the batch",
                        .min_inputs = 0,
                        .max_inputs = 0,
                        .infer = shape_attr,
                        .lower = lower_input,
                        .padding = Padding::zero};

extern const OpDef assign_op;
const OpDef assign_op = {.name = "assign",
                         .summary = "a state's value after the step",
                         .min_inputs = 2,
                         .max_inputs = 2,
                         .infer = infer_assign};

extern const OpDef gradient_op;
const OpDef gradient_op = {.name = "gradient",
                           .summary = "the gradient of a parameter",
                           .min_inputs = 2,
                           .max_inputs = 2,
                           .infer = infer_assign};

extern const OpDef output_op;
const OpDef output_op = {.name = "output",
                         .summary = "what a plan gives its caller",
                         .min_inputs = 1,
                         .max_inputs = 1,
                         .infer = nothing,
                         .lower = lower_output};

extern const OpDef by_mode_op;
const OpDef by_mode_op = {.name = "by_mode",
                          .summary = "one value in train, another in evaluate and infer",
                          .min_inputs = 2,
                          .max_inputs = 2,
                          .infer = infer_by_mode,
                          .select = select_by_mode};

} // namespace cryolite
