// The graph's data: shapes, attributes, appending a node, copying with changes. Every pass and the language build
// graphs through Graph::add, so that a node's results are inferred and checked in one place.
#include "op.h"

#include <limits>
#include <utility>

namespace cryolite {

constexpr int64_t max_elements = int64_t(1) << 31;

// ---------------------------------------------------------------------------------------------------------------------
// Shape

int64_t Shape::elements() const {
    int64_t product = 1;
    for (size_t i = per_block() ? 1 : 0; i < dims.size(); ++i)
        if (__builtin_mul_overflow(product, dims[i], &product)) return std::numeric_limits<int64_t>::max();
    return product;
}

Shape Shape::reduced(const Axes &axes) const {
    Shape result = *this;
    for (int axis : axes) {
        if (axis < 0 || axis >= rank())
            throw CompileError("there is no axis " + std::to_string(axis) + " in " + text());
        result.dims[size_t(axis)] = 1;
    }
    return result;
}

std::string Shape::text() const {
    std::string result = "[";
    for (size_t i = 0; i < dims.size(); ++i) {
        if (i) result += ", ";
        if (i == 0 && dims[i] == batch)
            result += "n";
        else if (i == 0 && dims[i] == blocks)
            result += "b";
        else
            result += std::to_string(dims[i]);
    }
    return result + "]";
}

// ---------------------------------------------------------------------------------------------------------------------
// Attributes

template <class T> static const T &get(const Attrs &attrs, const std::string &key, const char *kind) {
    auto found = attrs.map.find(key);
    if (found == attrs.map.end()) throw InternalError("attribute '" + key + "' is missing");
    const T *value = std::get_if<T>(&found->second);
    if (!value) throw InternalError("attribute '" + key + "' is not " + kind);
    return *value;
}

bool Attrs::flag(const std::string &key) const { return get<bool>(*this, key, "true or false"); }
int64_t Attrs::integer(const std::string &key) const { return get<int64_t>(*this, key, "an integer"); }
double Attrs::number(const std::string &key) const { return get<double>(*this, key, "a real number"); }
const std::string &Attrs::string(const std::string &key) const { return get<std::string>(*this, key, "a string"); }
const std::vector<int64_t> &Attrs::list(const std::string &key) const {
    return get<std::vector<int64_t>>(*this, key, "a list of integers");
}

const char *mode_name(Mode mode) {
    switch (mode) {
    case Mode::train:
        return "train";
    case Mode::evaluate:
        return "evaluate";
    case Mode::infer:
        return "infer";
    }
    return "?";
}

// ---------------------------------------------------------------------------------------------------------------------
// Graph

static void check_result(const Node &node, const Shape &shape) {
    for (size_t i = 0; i < shape.dims.size(); ++i)
        if (shape.dims[i] <= 0 && !(i == 0 && shape.per_block() && shape.dims[0] >= Shape::blocks))
            compile_error(node, "a result of shape " + shape.text() + " has extents that are not positive");
    if (shape.elements() >= max_elements)
        compile_error(node, "a result of shape " + shape.text() + " has 2^31 elements or more");
}

std::vector<ValueId> Graph::add(const std::string &op, std::vector<ValueId> inputs, Attrs attrs,
                                const std::string &layer, const std::string &source) {
    Node node{find_op(op), std::move(inputs), {}, std::move(attrs), layer, source};
    if (!node.op) throw InternalError("there is no op '" + op + "'");
    for (ValueId v : node.inputs)
        if (v < 0 || size_t(v) >= values.size())
            throw InternalError(op + " '" + layer + "': input %" + std::to_string(v) + " is not in the graph");
    const int count = int(node.inputs.size());
    if (count < node.op->min_inputs || count > node.op->max_inputs)
        compile_error(node, "has " + std::to_string(count) + " inputs, takes " + std::to_string(node.op->min_inputs) +
                                (node.op->min_inputs == node.op->max_inputs ? "" : " or more"));

    std::vector<ValueType> types = node.op->infer(*this, node);
    for (const ValueType &type : types) check_result(node, type.shape);
    for (ValueType &type : types) {
        node.outputs.push_back(ValueId(values.size()));
        values.push_back(std::move(type));
        producers.push_back(int(nodes.size()));
    }
    nodes.push_back(std::move(node));
    return nodes.back().outputs;
}

ValueId Graph::add1(const std::string &op, std::vector<ValueId> inputs, Attrs attrs, const std::string &layer,
                    const std::string &source) {
    std::vector<ValueId> results = add(op, std::move(inputs), std::move(attrs), layer, source);
    if (results.size() != 1) throw InternalError(op + " has " + std::to_string(results.size()) + " results, not one");
    return results[0];
}

std::vector<int> Graph::use_counts() const {
    std::vector<int> counts(values.size(), 0);
    for (const Node &node : nodes)
        for (ValueId v : node.inputs) ++counts.at(size_t(v));
    return counts;
}

// ---------------------------------------------------------------------------------------------------------------------
// Rewriter

Rewriter::Rewriter(const Graph &graph) : from(graph), map(graph.values.size(), no_value) { to.name = graph.name; }

std::vector<ValueId> Rewriter::inputs(const Node &node) const {
    std::vector<ValueId> result;
    for (ValueId v : node.inputs) {
        result.push_back(map.at(size_t(v)));
        if (result.back() == no_value)
            throw InternalError("value %" + std::to_string(v) +
                                " was dropped, but is still read by: " + print(from, node));
    }
    return result;
}

void Rewriter::copy(const Node &node) {
    std::vector<ValueId> results = to.add(node.op->name, inputs(node), node.attrs, node.layer, node.source);
    if (results.size() != node.outputs.size())
        throw InternalError("another number of results in: " + print(from, node));
    for (size_t i = 0; i < results.size(); ++i) bind(node.outputs[i], results[i]);
}

} // namespace cryolite
