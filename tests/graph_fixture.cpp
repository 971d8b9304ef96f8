#include "graph_fixture.h"

#include "passes.h"

#include <cstdlib>
#include <stdexcept>
#include <zlib.h>

namespace cryolite::test {

using Json = nlohmann::json;

namespace {

Attr attribute(const Json &json) {
    if (json.is_boolean()) return json.get<bool>();
    if (json.is_number_integer()) return json.get<int64_t>();
    if (json.is_number()) return json.get<double>();
    if (json.is_string()) return json.get<std::string>();
    return json.get<std::vector<int64_t>>();
}

Attrs attributes(const Json &json) {
    Attrs result;
    for (const auto &[name, value] : json.items()) result.map[name] = attribute(value);
    return result;
}

Mode mode_of(const std::string &name) {
    for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer})
        if (name == mode_name(mode)) return mode;
    throw std::runtime_error("a fixture has the mode '" + name + "'");
}

// x as a value of shape [].
ValueId as_scalar(Graph &graph, ValueId x) {
    std::vector<int64_t> all;
    for (int i = 0; i < graph.shape(x).rank(); i++) all.push_back(i);
    if (!all.empty()) x = graph.add1("sum", {x}, {{"axes", all}});
    return graph.add1("reshape", {x}, {{"shape", std::vector<int64_t>{}}});
}

} // namespace

Json load_json(const std::string &name) {
    gzFile file = gzopen((std::string(CRYOLITE_FIXTURES) + "/" + name).c_str(), "rb"); // also what is not compressed
    if (!file) throw std::runtime_error("cannot read the fixture " + name);
    std::string text;
    char chunk[1 << 16];
    for (int got; (got = gzread(file, chunk, sizeof chunk)) > 0;) text.append(chunk, size_t(got));
    gzclose(file);
    return Json::parse(text);
}

std::vector<double> read_numbers(const std::string &text) {
    std::vector<double> numbers;
    const char *at = text.c_str();
    for (char *end;; at = end) {
        double number = std::strtod(at, &end);
        if (end == at) return numbers;
        numbers.push_back(number);
    }
}

GraphFixture::GraphFixture(const Json &json) {
    const Mode mode = mode_of(json.at("mode"));
    outputs = json.at("outputs");
    inputs.batch = json.at("batch");
    std::map<std::string, ValueId> values;
    auto store = [&](const std::string &kind, const std::string &name, const std::vector<int64_t> &shape,
                     const std::string &numbers) {
        std::vector<double> data = read_numbers(numbers);
        for (double &x : data) x = double(float(x));
        inputs.stored[name] = data;
        return graph.add1(kind, {}, {{"name", name}, {"shape", shape}});
    };

    graph.name = "fixture";
    for (const Json &input : json.at("inputs")) {
        const std::string name = input.at("name"), kind = input.at("kind");
        if (kind == "label") {
            inputs.labels = read_numbers(input.at("values"));
            values[name] = graph.add1("label", {});
        } else if (kind == "constant") {
            values[name] = graph.add1("constant", {}, {{"value", read_numbers(input.at("values")).at(0)}});
        } else {
            values[name] = store(kind, name, input.at("shape"), input.at("values"));
            if (kind == "parameter") parameters.push_back(name);
        }
    }
    for (const Json &node : json.at("nodes")) {
        std::vector<ValueId> operands;
        for (const std::string name : node.at(1)) operands.push_back(values.at(name));
        std::vector<ValueId> results = graph.add(node.at(0), operands, attributes(node.at(2)), node.at(0));
        for (size_t i = 0; i < node.at(3).size(); i++) values[node.at(3)[i]] = results.at(i);
    }
    for (const std::string &name : outputs)
        if (values.count(name) && graph.producer(values[name]).op != find_op("state"))
            graph.add("output", {values[name]}, {{"name", "output " + name}});

    const PassContext context{mode, {}, {16, 256}};
    if (!json.contains("weights")) {
        graph = select_mode(graph, context);
        parameters.clear(); // no gradients
        return;
    }
    ValueId y = values.at(outputs.at(0));
    ValueId weights = store("state", "weights of the loss", graph.shape(y).dims, json.at("weights"));
    graph.add("output", {as_scalar(graph, graph.add1("mul", {y, weights}))}, {{"name", std::string("loss")}});
    graph = differentiate(select_mode(graph, context), context);
}

std::vector<std::vector<double>> GraphFixture::results(const Interpreted &interpreted) const {
    std::vector<std::vector<double>> results;
    for (const std::string &name : outputs) {
        auto found = interpreted.outputs.find("output " + name);
        results.push_back(found != interpreted.outputs.end() ? found->second : interpreted.assigned.at(name));
    }
    for (const std::string &name : parameters) results.push_back(interpreted.gradients.at(name));
    return results;
}

} // namespace cryolite::test
