// The rules of a graph. Runs after every pass, so that a broken graph is blamed on the pass that broke it and not on
// the one that stumbles over it.
#include "op.h"

#include <set>

namespace cryolite {

namespace {

struct Verifier {
    const Graph &graph;
    const std::string &pass;
    ValueId next = 0;              // values are numbered as they are made
    std::set<std::string> singles; // grammar ops that occur once
    std::set<std::string> stored;  // names of parameters and states
    std::set<std::string> outputs; // names of outputs
    std::set<ValueId> assigned, differentiated;

    [[noreturn]] void fail(const std::string &rule) const {
        throw InternalError("pass '" + pass + "' broke the graph '" + graph.name + "': " + rule);
    }
    void require(bool holds, const Node &node, const std::string &rule) const {
        if (!holds) fail(rule + ", in: " + print(graph, node));
    }

    void structure(int index, const Node &node);
    void types(const Node &node) const;
    void grammar(const Node &node);
    void run();
};

void Verifier::structure(int index, const Node &node) {
    require(node.op, node, "a node has no op");
    const int count = int(node.inputs.size());
    require(count >= node.op->min_inputs && count <= node.op->max_inputs, node, "wrong number of inputs");
    for (ValueId v : node.inputs)
        require(v >= 0 && v < next, node, "value %" + std::to_string(v) + " is read before it is made");
    for (ValueId v : node.outputs) {
        require(v >= next, node, "value %" + std::to_string(v) + " is made twice");
        require(v == next, node,
                "value %" + std::to_string(v) + " is out of order, %" + std::to_string(next) + " is next");
        require(size_t(v) < graph.values.size(), node, "value %" + std::to_string(v) + " has no type");
        require(graph.producers[size_t(v)] == index, node, "value %" + std::to_string(v) + " names another producer");
        ++next;
    }
}

void Verifier::types(const Node &node) const {
    std::vector<ValueType> inferred;
    try {
        inferred = node.op->infer(graph, node);
    } catch (const std::exception &error) { require(false, node, error.what()); }
    require(inferred.size() == node.outputs.size(), node, "the op has " + std::to_string(inferred.size()) + " results");
    for (size_t i = 0; i < inferred.size(); ++i) {
        const ValueType &type = graph.type(node.outputs[i]);
        require(type == inferred[i], node,
                "the type of %" + std::to_string(node.outputs[i]) + " should have shape " + inferred[i].shape.text());
        for (size_t d = 0; d < type.shape.dims.size(); ++d)
            require(type.shape.dims[d] > 0 || (d == 0 && type.shape.dims[0] >= Shape::blocks && type.shape.dims[0] < 0),
                    node, "extents must be positive");
    }
}

void Verifier::grammar(const Node &node) {
    const std::string name = node.op->name;
    if (name == "input" || name == "input_rows" || name == "label")
        require(singles.insert(name).second, node, "a second " + name);
    if (name == "parameter" || name == "state")
        require(stored.insert(node.attrs.string("name")).second, node, "a second value of this name");
    if (name == "output")
        require(outputs.insert(node.attrs.string("name")).second, node, "a second output of this name");
    if (name == "assign" || name == "gradient") {
        const std::string target = graph.producer(node.inputs[0]).op->name;
        // The optimizer assigns parameters; the language refuses to.
        require(target == "parameter" || (name == "assign" && target == "state"), node,
                name + " to a value of op " + target);
        auto &done = name == "assign" ? assigned : differentiated;
        require(done.insert(node.inputs[0]).second, node,
                "a second " + name + " to %" + std::to_string(node.inputs[0]));
        require(graph.type(node.inputs[0]) == graph.type(node.inputs[1]), node, name + " of another shape");
    }
}

void Verifier::run() {
    if (graph.values.size() != graph.producers.size()) fail("as many producers as values are needed");
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
        structure(int(i), graph.nodes[i]);
        types(graph.nodes[i]);
        grammar(graph.nodes[i]);
    }
    if (size_t(next) != graph.values.size()) fail("value %" + std::to_string(next) + " is made by no node");
}

} // namespace

void verify(const Graph &graph, const std::string &pass) { Verifier{graph, pass, 0, {}, {}, {}, {}, {}}.run(); }

} // namespace cryolite
