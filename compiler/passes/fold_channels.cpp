// Inference: factors and terms per channel behind a convolution or linear layer move into its weight and bias.
//
// Batch norm with running statistics is such a chain: (y - mean) * scale + shift. Only what parameters and states alone
// determine is moved, so that the new weight and bias are made once, not in every call. Behind, never before the layer:
// a term before a padded convolution does not reach its border.
#include "../ops/common.h"
#include "../passes.h"
#include "../times.h"

namespace cryolite {

namespace {

// A layer whose node waits for the rest of its chain; weight and bias are values of the new graph.
struct Pending {
    const Node *layer = nullptr;
    ValueId weight = no_value, bias = no_value;
};

struct Folder {
    const Graph &graph;
    Rewriter rewriter;
    std::vector<bool> stored;
    std::vector<const Node *> reader; // by ValueId: its only one, or null
    std::map<ValueId, Pending> pending;

    explicit Folder(const Graph &from)
        : graph(from), rewriter(from), stored(depends_on_stored(from)), reader(from.values.size()) {
        const std::vector<int> uses = from.use_counts();
        for (const Node &node : from.nodes)
            for (ValueId v : node.inputs)
                if (uses[size_t(v)] == 1) reader[size_t(v)] = &node;
    }

    // One number for each channel of y, or one for all.
    bool per_channel_value(ValueId v, const Shape &y) const {
        const Shape &shape = graph.shape(v);
        if (!stored[size_t(v)] || shape.rank() > y.rank()) return false;
        for (int64_t d = 0; d < shape.rank(); d++) {
            bool channel = d + y.rank() - shape.rank() == 1;
            if (shape[d] != 1 && !(channel && shape[d] == y[1])) return false;
        }
        return true;
    }

    // The input of a chain's node that is y; -1 when the node is none of a chain's.
    int chained(const Node &node, ValueId y) const {
        bool commutes = node.op == find_op("add") || node.op == find_op("mul");
        if (!commutes && node.op != find_op("sub")) return -1;
        if (graph.shape(node.outputs[0]) != graph.shape(y)) return -1;
        if (node.inputs[0] == y && per_channel_value(node.inputs[1], graph.shape(y))) return 0;
        return commutes && node.inputs[1] == y && per_channel_value(node.inputs[0], graph.shape(y)) ? 1 : -1;
    }
    bool continues(ValueId y) const {
        const Node *next = reader[size_t(y)];
        return next && chained(*next, y) >= 0;
    }

    ValueId make(const char *op, std::vector<ValueId> inputs, Attrs attrs, const Node &origin) {
        return rewriter.to.add1(op, std::move(inputs), std::move(attrs), origin.layer, origin.source);
    }
    // A number for each channel as [k], or [k, 1, 1, 1]; a number for all as a literal is.
    ValueId in_shape(ValueId v, std::vector<int64_t> shape, const Node &origin) {
        if (rewriter.to.shape(v).elements() == 1) shape = {};
        if (rewriter.to.shape(v) == Shape(shape)) return v;
        return make("reshape", {v}, {{"shape", shape}}, origin);
    }

    void begin(const Node &layer) {
        std::vector<ValueId> in = rewriter.inputs(layer);
        pending[layer.outputs[0]] = {&layer, in[1], in.size() > 2 ? in[2] : no_value};
    }

    void extend(const Node &node, int y_at) {
        Pending folded = pending.at(node.inputs[size_t(y_at)]);
        const Shape weight = rewriter.to.shape(folded.weight);
        ValueId value = rewriter.map[size_t(node.inputs[size_t(1 - y_at)])];
        ValueId vector = in_shape(value, {weight[0]}, node);
        if (node.op == find_op("mul")) {
            std::vector<int64_t> rows(size_t(weight.rank()), 1);
            rows[0] = weight[0];
            folded.weight = make("mul", {folded.weight, in_shape(value, rows, node)}, {}, node);
            if (folded.bias != no_value) folded.bias = make("mul", {folded.bias, vector}, {}, node);
        } else if (folded.bias != no_value) {
            folded.bias = make(node.op->name, {folded.bias, vector}, {}, node);
        } else {
            ValueId bias = node.op == find_op("sub") ? make("neg", {vector}, {}, node) : vector;
            const Attrs as_vector{{"shape", std::vector<int64_t>{weight[0]}}};
            if (rewriter.to.shape(bias) != Shape{weight[0]}) bias = make("broadcast", {bias}, as_vector, node);
            folded.bias = bias;
        }
        pending[node.outputs[0]] = folded;
    }

    // The layer's node, when y ends the chain.
    void finish(ValueId y) {
        if (continues(y)) return;
        const Pending folded = pending.at(y);
        pending.erase(y); // its readers read the node
        std::vector<ValueId> in{rewriter.map[size_t(folded.layer->inputs[0])], folded.weight};
        if (folded.bias != no_value) in.push_back(folded.bias);
        rewriter.bind(y, make(folded.layer->op->name, in, folded.layer->attrs, *folded.layer));
    }

    void visit(const Node &node) {
        bool layer = node.op == find_op("conv2d") || node.op == find_op("linear");
        for (size_t i = 1; i < node.inputs.size(); i++) layer = layer && stored[size_t(node.inputs[i])];
        if (layer && continues(node.outputs[0])) {
            begin(node);
            return;
        }
        for (ValueId v : node.inputs) {
            if (!pending.count(v)) continue;
            extend(node, chained(node, v));
            finish(node.outputs[0]);
            return;
        }
        rewriter.copy(node);
    }
};

} // namespace

Graph fold_channels(const Graph &graph, const PassContext &) {
    Folder folder(graph);
    for (const Node &node : graph.nodes) folder.visit(node);
    return std::move(folder.rewriter.to);
}

} // namespace cryolite
