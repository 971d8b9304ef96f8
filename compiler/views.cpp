// Every part of a concat is made inside it, unless it lies elsewhere already.
//
// Concats are placed from the largest to the smallest. So one that is a prefix of another, as every concat of a
// DenseNet is of the next, finds its parts side by side and is a view of them; and a concat that is itself a part takes
// its parts along.
#include "views.h"

#include "passes.h"

#include <algorithm>

namespace cryolite {

namespace {

struct Views {
    const Graph &graph;
    std::vector<View> parent; // by ValueId: one step towards the root
    // Inputs of concats that cannot be made in place: node, input.
    std::vector<std::pair<int, size_t>> misplaced;

    explicit Views(const Graph &graph) : graph(graph), parent(graph.values.size()) {
        for (const Node &node : graph.nodes) {
            if (node.op->place == Place::same) parent[size_t(node.outputs[0])] = {node.inputs[0], 0};
            if (node.op->place == Place::inside) {
                int64_t channel = graph.shape(node.inputs[0]).elements() / graph.shape(node.inputs[0])[1];
                parent[size_t(node.outputs[0])] = {node.inputs[0], node.attrs.integer("from") * channel};
            }
        }
        for (int i : concats()) place(i);
    }

    int64_t elements(ValueId v) const { return graph.shape(v).elements(); }

    View resolve(ValueId v) const {
        View view{v, 0};
        while (parent[size_t(view.root)].root != no_value) {
            const View &next = parent[size_t(view.root)];
            view = {next.root, view.first + next.first};
        }
        return view;
    }

    std::vector<int> concats() const {
        std::vector<int> found;
        for (int i = int(graph.nodes.size()); i-- > 0;)
            if (graph.nodes[size_t(i)].op->place == Place::around) found.push_back(i);
        std::stable_sort(found.begin(), found.end(), [&](int a, int b) {
            return elements(graph.nodes[size_t(a)].outputs[0]) > elements(graph.nodes[size_t(b)].outputs[0]);
        });
        return found;
    }

    // The parts lie side by side: the result is there already.
    bool is_view(const Node &concat) const {
        View first = resolve(concat.inputs[0]);
        int64_t at = first.first;
        for (ValueId v : concat.inputs) {
            View part = resolve(v);
            if (part.root != first.root || part.first != at) return false;
            at += elements(v);
        }
        return concat.inputs.size() > 1;
    }

    // A value with storage of its own, all of which v is, made by code that can write anywhere.
    bool can_move(ValueId v, ValueId root, ValueId result) const {
        const Node &maker = graph.producer(root);
        bool code = maker.op->kernel || maker.op->statement || maker.op->place == Place::around;
        return code && graph.shape(root).batched() && elements(root) == elements(v) && root != resolve(result).root;
    }

    void place(int index) {
        const Node &concat = graph.nodes[size_t(index)];
        ValueId result = concat.outputs[0];
        if (parent[size_t(result)].root == no_value && is_view(concat)) {
            parent[size_t(result)] = resolve(concat.inputs[0]);
            return;
        }
        int64_t at = 0;
        for (size_t i = 0; i < concat.inputs.size(); i++) {
            ValueId v = concat.inputs[i], root = resolve(v).root;
            if (can_move(v, root, result))
                parent[size_t(root)] = {result, at};
            else
                misplaced.push_back({index, i});
            at += elements(v);
        }
    }
};

} // namespace

std::vector<View> find_views(const Graph &graph) {
    Views views(graph);
    if (!views.misplaced.empty())
        throw MisplacedPart("a part of concat '" + graph.nodes[size_t(views.misplaced[0].first)].layer +
                            "' lies elsewhere");
    std::vector<View> result;
    for (ValueId v = 0; v < ValueId(graph.values.size()); v++) result.push_back(views.resolve(v));
    return result;
}

Graph place_concats(const Graph &graph, const PassContext &) {
    Views views(graph);
    Rewriter rewriter(graph);
    for (int i = 0; i < int(graph.nodes.size()); i++) {
        const Node &node = graph.nodes[size_t(i)];
        std::vector<ValueId> inputs = rewriter.inputs(node);
        bool copied = false;
        for (auto [concat, input] : views.misplaced) {
            if (concat != i) continue;
            Attrs shape{{"shape", graph.shape(node.inputs[input]).dims}};
            inputs[input] = rewriter.to.add1("broadcast", {inputs[input]}, shape, node.layer, node.source);
            copied = true;
        }
        if (copied)
            rewriter.bind(node.outputs[0],
                          rewriter.to.add1(node.op->name, inputs, node.attrs, node.layer, node.source));
        else
            rewriter.copy(node);
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
