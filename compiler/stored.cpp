// Stored or recomputed, by a model of the time that pointwise kernels take.
//
// A kernel costs, for each element it reads or writes, one access, and for each statement it inlines that op's work. A
// residual network shows why a model is needed: the gradient of a block's output is read by two kernels of its batch
// norm and is a term of the gradient one block earlier, and so on; recomputed everywhere, the kernels would grow with
// the depth. Cheap activations of one stored value, on the other hand, are best recomputed. Storing starts with the
// value that saves most and goes on until none saves anything.
#include "stored.h"

#include "cache.h"

#include <algorithm>
#include <queue>

namespace cryolite {

bool is_literal(const Node &node) { return node.op == find_op("constant"); }

bool is_sum(const Node &node) { return node.op->statement && std::string(node.op->statement) == "sum"; }

std::string sum_key(const Graph &graph, const Times &times, int index) {
    const Node &node = graph.nodes[size_t(index)];
    if (!is_sum(node) || graph.shape(node.outputs[0])[0] != Shape::blocks) return "";
    std::string axes;
    for (int64_t axis : node.attrs.list("axes")) axes += " " + std::to_string(axis);
    return "sum" + axes + " of " + graph.shape(node.inputs[0]).text() + " in phase " +
           std::to_string(times.when[size_t(index)]);
}

static double elements(const Graph &graph, ValueId v) { return double(graph.shape(v).elements()); }

// Of a window: for each of its points.
static double work_of(const Graph &graph, const Node &node) {
    double points = elements(graph, node.outputs[0]);
    if (!node.inputs.empty()) points = std::max(points, elements(graph, node.inputs[0]));
    if (!node.attrs.has("window")) return node.op->work * points;
    double window = double(node.attrs.integer("window"));
    return node.op->work * window * window *
           std::min(elements(graph, node.outputs[0]), elements(graph, node.inputs[0]));
}

// What must be stored, whatever it costs.
static std::vector<bool> must_store(const Graph &graph) {
    std::vector<bool> stored(graph.values.size(), false);
    for (const Node &node : graph.nodes) {
        if (!node.op->statement) {
            for (ValueId v : node.inputs) stored[size_t(v)] = true;
            for (ValueId v : node.outputs) stored[size_t(v)] = !is_literal(node) || stored[size_t(v)];
            continue;
        }
        for (ValueId v : node.inputs)
            if (graph.shape(node.outputs[0]).per_block() && !graph.shape(v).per_block()) stored[size_t(v)] = true;
        if (is_sum(node) || node.op->stored) stored[size_t(node.outputs[0])] = true;
    }
    for (const Node &node : graph.nodes)
        if (is_literal(node)) stored[size_t(node.outputs[0])] = false;
    return stored;
}

namespace {

// What one kernel reads and inlines.
struct Cone {
    const Graph &graph;
    const std::vector<bool> &stored;
    std::set<ValueId> seen, reads; // reads: stored block-level values
    double work = 0;

    void inline_statement(const Node &node) {
        work += work_of(graph, node);
        for (ValueId v : node.inputs) visit(v);
    }
    void visit(ValueId v) {
        const Node &node = graph.producer(v);
        if (is_literal(node) || !seen.insert(v).second) return;
        if (!stored[size_t(v)] && node.op->statement)
            inline_statement(node);
        else if (graph.shape(v).per_block())
            reads.insert(v);
    }
};

// Stored values that are remade from what the kernel reads anyway, because that costs less than an access.
std::set<ValueId> remake(Cone &cone) {
    std::set<ValueId> remade;
    const std::set<ValueId> read = cone.reads;
    for (ValueId v : read) {
        const Node &node = cone.graph.producer(v);
        if (!node.op->statement || is_sum(node) || node.op->stored) continue;
        Cone own{cone.graph, cone.stored, {}, {}};
        own.inline_statement(node);
        bool at_hand = std::includes(cone.reads.begin(), cone.reads.end(), own.reads.begin(), own.reads.end());
        if (!at_hand || own.work > access_work * elements(cone.graph, v)) continue;
        remade.insert(v);
        cone.reads.erase(v);
        cone.work += own.work;
    }
    return remade;
}

struct Model {
    const Graph &graph;
    std::vector<bool> stored;              // by ValueId
    std::vector<std::vector<int>> readers; // by ValueId: statements that read it
    std::vector<int> kernel_of;            // by node: the first node of its kernel, should its result be stored
    std::map<int, std::vector<int>> sums;  // by first node: sums that share a kernel

    Model(const Graph &graph, const Times &times)
        : graph(graph), stored(must_store(graph)), readers(graph.values.size()) {
        std::map<std::string, int> first;
        for (int i = 0; i < int(graph.nodes.size()); i++) {
            const Node &node = graph.nodes[size_t(i)];
            kernel_of.push_back(i);
            if (!node.op->statement) continue;
            for (ValueId v : node.inputs) readers[size_t(v)].push_back(i);
            std::string key = sum_key(graph, times, i);
            if (key.empty()) continue;
            kernel_of.back() = first.try_emplace(key, i).first->second;
            sums[kernel_of.back()].push_back(i);
        }
    }

    // Time of a kernel, named by its first node.
    double kernel(int first) const {
        auto shared = sums.find(first);
        const std::vector<int> alone{first};
        Cone cone{graph, stored, {}, {}};
        double cost = 0;
        for (int i : shared == sums.end() ? alone : shared->second) {
            const Node &node = graph.nodes[size_t(i)];
            cost += access_work * elements(graph, node.outputs[0]);
            cone.inline_statement(node);
        }
        remake(cone);
        for (ValueId v : cone.reads) cost += access_work * elements(graph, v);
        return cost + cone.work;
    }

    // The kernels that inline v.
    std::set<int> kernels_with(ValueId v) const {
        std::set<int> kernels, seen;
        std::vector<ValueId> open{v};
        while (!open.empty()) {
            ValueId at = open.back();
            open.pop_back();
            for (int reader : readers[size_t(at)]) {
                if (!seen.insert(reader).second) continue;
                ValueId result = graph.nodes[size_t(reader)].outputs[0];
                if (stored[size_t(result)])
                    kernels.insert(kernel_of[size_t(reader)]);
                else
                    open.push_back(result);
            }
        }
        return kernels;
    }

    // Time saved by storing v.
    double saving(ValueId v) {
        std::set<int> kernels = kernels_with(v);
        if (kernels.size() < 2) return 0;
        double before = 0, after = 0;
        for (int k : kernels) before += kernel(k);
        stored[size_t(v)] = true;
        for (int k : kernels) after += kernel(k);
        after += kernel(graph.producers[size_t(v)]);
        stored[size_t(v)] = false;
        return before - after;
    }
};

} // namespace

// Every value that the model was free to store or not, several kernels of which would remake it, as a decision.
static void choose_stored(Model &model, const std::vector<bool> &must, const KernelContext &context) {
    if (!context.choices) return;
    const Graph &graph = model.graph;
    std::string text; // without what changes when the network's source file is written anew
    for (Node node : graph.nodes) {
        node.layer = node.source = "";
        text += print(graph, node) + "\n";
    }
    const std::string hash = hash_text(text);
    for (const Node &node : graph.nodes) {
        if (!node.op->statement) continue;
        const ValueId v = node.outputs[0];
        if (must[size_t(v)] || !graph.shape(v).batched() || model.kernels_with(v).size() < 2) continue;
        const double work = double(context.lanes) * (2 * access_work * elements(graph, v) + work_of(graph, node));
        const std::string about = "graph=" + hash + " value=" + std::to_string(v);
        model.stored[size_t(v)] = context.choose({.kind = "storage",
                                                  .about = about,
                                                  .options = {{{"recompute", 1}}, {{"store", 1}}},
                                                  .usual = model.stored[size_t(v)],
                                                  .work = work}) == 1;
    }
}

std::vector<bool> find_stored(const Graph &graph, const Times &times, const KernelContext &context) {
    Model model(graph, times);
    const std::vector<bool> must = model.stored;
    std::priority_queue<std::pair<double, ValueId>> savings; // as last computed; storing another value changes them
    for (const Node &node : graph.nodes) {
        if (!node.op->statement || model.stored[size_t(node.outputs[0])]) continue;
        if (!graph.shape(node.outputs[0]).batched()) continue;
        double saving = model.saving(node.outputs[0]);
        if (saving > 0) savings.push({saving, node.outputs[0]});
    }
    while (!savings.empty()) {
        ValueId v = savings.top().second;
        savings.pop();
        double saving = model.saving(v);
        if (saving <= 0) continue;
        if (!savings.empty() && saving < savings.top().first)
            savings.push({saving, v});
        else
            model.stored[size_t(v)] = true;
    }
    choose_stored(model, must, context);
    return model.stored;
}

KernelReads find_reads(const Graph &graph, const std::vector<int> &nodes, const std::vector<bool> &stored) {
    Cone cone{graph, stored, {}, {}};
    for (int i : nodes) cone.inline_statement(graph.nodes[size_t(i)]);
    for (int i : nodes) cone.reads.erase(graph.nodes[size_t(i)].outputs[0]);
    std::set<ValueId> remade = remake(cone);
    return {std::move(remade), cone.work / elements(graph, graph.nodes[size_t(nodes[0])].outputs[0])};
}

} // namespace cryolite
