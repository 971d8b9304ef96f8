// Depth-first walk from the roots; names are given in the order of that walk.
#include "program_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

namespace cryolite {

static std::string dimension_text(int64_t extent) {
    if (extent == Shape::batch) return "n";
    if (extent == Shape::blocks) return "b";
    return std::to_string(extent);
}

static std::string join_dimensions(const std::vector<int64_t> &dims, char separator) {
    std::string text;
    for (size_t i = 0; i < dims.size(); i++) {
        if (i > 0) text += separator;
        text += dimension_text(dims[i]);
    }
    return text;
}

std::string bracketed(const Shape &shape) { return "[" + join_dimensions(shape.dims, ',') + "]"; }

static std::string literal(double value) {
    if (!std::isfinite(value)) throw InternalError("fuse: a constant is not finite");
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    return text;
}

static std::string attr_text(const std::string &key, const Attr &attr) {
    if (auto *list = std::get_if<std::vector<int64_t>>(&attr))
        return key + "=" + join_dimensions(*list, key == "shape" ? 'x' : ',');
    if (auto *integer = std::get_if<int64_t>(&attr)) return key + "=" + std::to_string(*integer);
    if (auto *number = std::get_if<double>(&attr)) return key + "=" + literal(*number);
    throw InternalError("fuse: attribute '" + key + "' has no place in a program");
}

namespace {

struct Writer {
    const Graph &graph;
    const std::vector<bool> &stored;
    const std::vector<int> &roots;
    std::map<ValueId, std::string> names;
    std::vector<std::string> scalars;
    std::vector<ValueId> inputs;
    std::string inputs_text, body;

    bool is_root(int node) const { return std::find(roots.begin(), roots.end(), node) != roots.end(); }

    void use_scalar(const std::string &scalar) {
        if (std::find(scalars.begin(), scalars.end(), scalar) == scalars.end()) scalars.push_back(scalar);
    }

    std::string operand(ValueId v) {
        int producer = graph.producers[size_t(v)];
        const Node &node = graph.nodes[size_t(producer)];
        if (node.op == find_op("constant")) return literal(node.attrs.number("value"));
        if (auto found = names.find(v); found != names.end()) return found->second;
        if (!is_root(producer) && (stored[size_t(v)] || !node.op->statement)) {
            std::string name = "x" + std::to_string(inputs.size());
            inputs.push_back(v);
            inputs_text += name + "=input " + bracketed(graph.shape(v)) + ";";
            return names[v] = name;
        }
        return statement(node);
    }

    std::string call(const Node &node) {
        std::vector<std::string> operands;
        for (ValueId v : node.inputs) operands.push_back(operand(v));
        std::string form = node.op->statement, text;
        if (form.find('(') == std::string::npos) {
            text = form + "(";
            for (size_t i = 0; i < operands.size(); i++) text += (i ? "," : "") + operands[i];
            return text + ")";
        }
        for (const char *scalar : {"valid", "block", "batch"})
            if (form.find(scalar) != std::string::npos) use_scalar(scalar);
        for (size_t i = 0; i < form.size(); i++) {
            if (form[i] == '$')
                text += operands.at(size_t(form[++i] - '0'));
            else if (form[i] != ' ')
                text += form[i];
        }
        return text;
    }

    std::string statement(const Node &node) {
        std::string text = call(node);
        std::string attrs;
        for (auto &[key, attr] : node.attrs.map) attrs += (attrs.empty() ? "" : ",") + attr_text(key, attr);
        if (!attrs.empty()) text += "{" + attrs + "}";
        std::string name = "t" + std::to_string(names.size() - inputs.size());
        body += name + "=" + text + ";";
        return names[node.outputs[0]] = name;
    }
};

} // namespace

ProgramText write_program(const Graph &graph, const std::vector<int> &roots, const std::vector<bool> &stored) {
    Writer writer{graph, stored, roots, {}, {}, {}, {}, {}};
    std::string outputs, types;
    for (int root : roots) {
        ValueId v = graph.nodes[size_t(root)].outputs[0];
        auto known = writer.names.find(v);
        std::string name = known != writer.names.end() ? known->second : writer.statement(graph.nodes[size_t(root)]);
        outputs += "output " + name + ";";
        types += (types.empty() ? "" : " ") + bracketed(graph.shape(v));
    }
    std::string scalars_text, scalars;
    for (const std::string &scalar : writer.scalars) {
        scalars_text += scalar + "=input " + scalar + ";";
        scalars += (scalars.empty() ? "" : ",") + scalar;
    }
    return {scalars_text + writer.inputs_text + writer.body + outputs, scalars, types, writer.inputs};
}

std::string with_input_first(const std::string &program, int input) {
    std::vector<std::string> statements;
    std::stringstream text(program);
    for (std::string statement; std::getline(text, statement, ';');) statements.push_back(statement);
    int seen = 0;
    for (size_t i = 0; i < statements.size(); i++) {
        if (statements[i].find("=input [") == std::string::npos || seen++ != input) continue;
        std::rotate(statements.begin(), statements.begin() + long(i), statements.begin() + long(i) + 1);
        break;
    }
    std::string result;
    for (const std::string &statement : statements) result += statement + ";";
    return result;
}

Shape parse_shape(const std::string &text) {
    if (text.size() < 2 || text.front() != '[' || text.back() != ']')
        throw CompileError("a shape like [n,6,24,24] expected, found '" + text + "'");
    Shape shape;
    std::stringstream list(text.substr(1, text.size() - 2));
    for (std::string item; std::getline(list, item, ',');) {
        if (item == "n")
            shape.dims.push_back(Shape::batch);
        else if (item == "b")
            shape.dims.push_back(Shape::blocks);
        else if (!item.empty() && item.size() < 10 && std::all_of(item.begin(), item.end(), ::isdigit))
            shape.dims.push_back(std::stoll(item));
        else
            throw CompileError("'" + item + "' is no extent in the shape '" + text + "'");
    }
    return shape;
}

std::vector<Shape> parse_shapes(const std::string &text) {
    std::vector<Shape> shapes;
    std::stringstream list(text);
    for (std::string item; list >> item;) shapes.push_back(parse_shape(item));
    return shapes;
}

} // namespace cryolite
