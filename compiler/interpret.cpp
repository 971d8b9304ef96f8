// Evaluates a graph node by node. Ops of the grammar read the inputs here; all others have a reference.
#include "interpret.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace cryolite {

namespace {

struct Interpreter {
    const Graph &graph;
    const InterpreterInputs &inputs;
    std::vector<Tensor> values; // by ValueId
    Interpreted result;

    Interpreter(const Graph &graph, const InterpreterInputs &inputs)
        : graph(graph), inputs(inputs), values(graph.values.size()) {}

    [[noreturn]] void fail(const Node &node, const std::string &message) const {
        throw InternalError("the interpreter: " + message + " in: " + print(graph, node));
    }

    int64_t blocks() const { return inputs.lanes > 0 ? (inputs.batch + inputs.lanes - 1) / inputs.lanes : 0; }
    int64_t samples() const { return inputs.lanes > 0 ? blocks() * inputs.lanes : inputs.batch; }

    // Zeros of a result's shape, the batch resolved.
    void shape_result(const Node &node, ValueId v) {
        Tensor &tensor = values[size_t(v)];
        tensor.shape = graph.shape(v).dims;
        tensor.batch = inputs.batch;
        tensor.lanes = inputs.lanes;
        if (graph.shape(v).batched())
            tensor.shape[0] = samples();
        else if (graph.shape(v).per_block())
            tensor.shape[0] = blocks();
        if (!tensor.shape.empty() && tensor.shape[0] == 0) fail(node, "lanes are needed");
        int64_t elements = 1;
        for (int64_t extent : tensor.shape) elements *= extent;
        tensor.data.assign(size_t(elements), 0.0);
    }

    // Values of the batch's samples, padding left zero.
    void take_samples(const Node &node, const std::vector<double> &data) {
        Tensor &tensor = values[size_t(node.outputs[0])];
        int64_t expected = tensor.elements() / samples() * inputs.batch;
        if (int64_t(data.size()) != expected)
            fail(node, std::to_string(data.size()) + " values are given for " + std::to_string(expected));
        std::copy(data.begin(), data.end(), tensor.data.begin());
    }

    // The batch's samples of a result.
    std::vector<double> given(ValueId v) const {
        std::vector<double> data = values[size_t(v)].data;
        if (graph.shape(v).per_block()) data.resize(data.size() / size_t(samples()) * size_t(inputs.batch));
        return data;
    }

    void take(const Node &node, const std::vector<double> &data) {
        Tensor &tensor = values[size_t(node.outputs[0])];
        if (data.size() != tensor.data.size())
            fail(node, std::to_string(data.size()) + " values are given for " + std::to_string(tensor.data.size()));
        tensor.data = data;
    }

    void take_stored(const Node &node) {
        auto found = inputs.stored.find(node.attrs.string("name"));
        if (found != inputs.stored.end()) {
            take(node, found->second);
            return;
        }
        if (!node.attrs.has("init") || node.attrs.string("init") != "constant") fail(node, "no value is given");
        for (double &x : values[size_t(node.outputs[0])].data) x = node.attrs.number("value");
    }

    const std::string &stored_name(const Node &node) const {
        return graph.producer(node.inputs[0]).attrs.string("name");
    }

    // Whether the node is of the grammar; its result or effect takes place.
    bool grammar(const Node &node) {
        const std::string op = node.op->name;
        auto is_scalar = [&](double number) {
            values[size_t(node.outputs[0])].data[0] = number;
            return true;
        };
        if (op == "constant") return is_scalar(node.attrs.number("value"));
        if (op == "batch_size") return is_scalar(double(inputs.batch));
        if (op == "learning_rate") return is_scalar(inputs.learning_rate);
        if (op == "step") return is_scalar(inputs.step);
        if (op == "input" || op == "input_rows")
            take_samples(node, inputs.images);
        else if (op == "label")
            take_samples(node, inputs.labels);
        else if (op == "parameter" || op == "state")
            take_stored(node);
        else if (op == "output")
            result.outputs[node.attrs.string("name")] = given(node.inputs[0]);
        else if (op == "gradient")
            result.gradients[stored_name(node)] = values[size_t(node.inputs[1])].data;
        else if (op == "assign")
            result.assigned[stored_name(node)] = values[size_t(node.inputs[1])].data;
        else
            return false;
        return true;
    }

    void run(const Node &node) {
        for (ValueId v : node.outputs) shape_result(node, v);
        compute(node);
        if (inputs.rounding)
            for (ValueId v : node.outputs) round(v, *inputs.rounding);
    }

    void compute(const Node &node) {
        if (grammar(node)) return;
        if (!node.op->reference) fail(node, "there is no reference for the op");
        std::vector<const Tensor *> from;
        std::vector<Tensor *> to;
        for (ValueId v : node.inputs) from.push_back(&values[size_t(v)]);
        for (ValueId v : node.outputs) to.push_back(&values[size_t(v)]);
        node.op->reference(graph, node, from, to);
        if (node.op->padding == Padding::garbage && inputs.padding)
            for (ValueId v : node.outputs)
                if (graph.shape(v).batched()) fill_padding(values[size_t(v)], *inputs.padding);
    }

    void round(ValueId v, uint64_t seed) {
        std::mt19937_64 random(seed * graph.values.size() + uint64_t(v));
        for (double &x : values[size_t(v)].data) {
            const double above = double(std::nextafter(float(std::fabs(x)), INFINITY)) - std::fabs(double(float(x)));
            const double rounded = double(float(x + above * (double(random() >> 11) * 0x1p-53 - 0.5)));
            if (std::isfinite(rounded) && double(float(x)) != x) x = rounded;
        }
    }

    void fill_padding(Tensor &tensor, double value) const {
        int64_t real = tensor.elements() / samples() * inputs.batch;
        std::fill(tensor.data.begin() + real, tensor.data.end(), value);
    }
};

} // namespace

Interpreted interpret(const Graph &graph, const InterpreterInputs &inputs) {
    Interpreter interpreter(graph, inputs);
    for (const Node &node : graph.nodes) interpreter.run(node);
    return std::move(interpreter.result);
}

} // namespace cryolite
