#include "op_graph.h"

#include "fixture.h"

#include <algorithm>
#include <cmath>

namespace cryolite::test {

std::string case_text(const OpDef &op, const Case &c) {
    std::string result = op.name;
    for (const ValueType &input : c.inputs) result += " " + input.shape.text();
    for (const auto &[name, value] : c.attrs.map) {
        if (const auto *number = std::get_if<int64_t>(&value)) result += " " + name + "=" + std::to_string(*number);
        if (const auto *flag = std::get_if<bool>(&value)) result += " " + name + (*flag ? "=true" : "=false");
    }
    return result;
}

bool takes_statistics(const OpDef &op) { return op.name == std::string("batch_norm_train"); }
bool has_gradient(const OpDef &op) { return op.gradient && !op.no_gradient; }

std::vector<double> numbers(uint64_t seed, int64_t count, double low, double high) {
    std::vector<double> result;
    for (float x : deterministic(seed, size_t(count), 1))
        result.push_back(double(float(low + (high - low) * (double(x) + 1) / 2)));
    return result;
}

double error_of(const std::vector<double> &ours, const std::vector<double> &expected) {
    if (ours.size() != expected.size()) return INFINITY;
    double apart = 0, largest = 0;
    for (size_t i = 0; i < ours.size(); i++) {
        if (std::isnan(ours[i])) return INFINITY;
        apart = std::max(apart, std::fabs(ours[i] - expected[i]));
        largest = std::max(largest, std::fabs(expected[i]));
    }
    if (apart == 0) return 0;
    return apart / std::max(largest, 1e-30) * double(1 << 23);
}

double error_of(const TensorMap &ours, const TensorMap &expected) {
    double error = ours.size() == expected.size() ? 0 : INFINITY;
    for (const auto &[name, values] : expected) {
        auto found = ours.find(name);
        error = std::max(error, found == ours.end() ? INFINITY : error_of(found->second, values));
    }
    return error;
}

InterpreterInputs nudged(InterpreterInputs inputs) {
    auto move = [](std::vector<double> &values, uint64_t seed) {
        const std::vector<double> by = numbers(seed, int64_t(values.size()));
        for (size_t i = 0; i < values.size(); i++) values[i] *= 1 + 2e-7 * by[i];
    };
    move(inputs.images, 1);
    for (auto &[name, values] : inputs.stored) move(values, 2);
    return inputs;
}

OpGraph::OpGraph(const OpDef &op, const Case &c, int64_t batch) {
    graph.name = op.name;
    inputs.batch = batch;
    std::vector<ValueId> results = graph.add(op.name, operands(op, c), c.attrs, "op");
    for (size_t i = 0; i < results.size(); i++) graph.add("output", {results[i]}, {{"name", "y" + std::to_string(i)}});
    ValueId y = results.at(0);
    if (const Shape &shape = graph.shape(y); shape.rank() > 4) // weights in blocks: pointwise kernels end at four
        y = graph.add1("reshape", {y}, {{"shape", std::vector<int64_t>{shape.elements()}}});
    ValueId weights = stored("state", "weights", graph.shape(y), -1, 1);
    ValueId loss = graph.add1("mul", {y, weights});
    std::vector<int64_t> all;
    for (int i = 0; i < graph.shape(loss).rank(); i++) all.push_back(i);
    if (!all.empty()) loss = graph.add1("sum", {loss}, {{"axes", all}});
    loss = graph.add1("reshape", {loss}, {{"shape", std::vector<int64_t>{}}});
    graph.add("output", {loss}, {{"name", std::string("loss")}});
}

ValueId OpGraph::stored(const char *op, const std::string &name, const Shape &of, double low, double high) {
    int64_t count = of.elements() * (of.batched() ? inputs.batch : 1);
    inputs.stored[name] = numbers(inputs.stored.size() + 1, count, low, high);
    return graph.add1(op, {}, {{"name", name}, {"shape", of.dims}});
}

std::vector<ValueId> OpGraph::operands(const OpDef &op, const Case &c) {
    std::vector<ValueId> result;
    const bool takes_maxima = op.name == std::string("max_pool2d_grad");
    size_t count = takes_statistics(op) ? 3 : takes_maxima ? 2 : c.inputs.size();
    for (size_t i = 0; i < count; i++) {
        if (c.inputs[i].type == Type::i32)
            result.push_back(label(c.inputs[0].shape[1]));
        else
            result.push_back(stored("parameter", "x" + std::to_string(i), c.inputs[i].shape, c.low, c.high));
    }
    if (takes_statistics(op))
        for (ValueId v : graph.add("batch_stats", {result[0]})) result.push_back(v);
    if (takes_maxima) result.push_back(graph.add1("max_pool2d", {result[1]}, c.attrs));
    return result;
}

ValueId OpGraph::label(int64_t classes) {
    for (int64_t i = 0; i < inputs.batch; i++) inputs.labels.push_back(double(i * 5 % classes));
    return graph.add1("label", {});
}

} // namespace cryolite::test
