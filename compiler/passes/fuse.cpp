// Statements become pointwise kernels: what is stored, what is recomputed, which results share a kernel.
//
// What is stored, stored.cpp decides. Everything else is inlined into its readers, again and again: an activation that
// backward needs is recomputed from the batch-wide value before it, where that costs less than storing and reading it.
//
// Results share a kernel when one loop makes them all: sums with equal axes of equal shape in the same phase, windows
// over one value (its maxima and where they are), and whole values of equal shape at the same barrier. Updates of
// states stay alone, so that they can be made in place.
#include "../passes.h"
#include "../program_text.h"
#include "../stored.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>

namespace cryolite {

namespace {

// One kernel of the result: a node of the old graph, or statements that share a loop.
struct Unit {
    std::vector<int> nodes; // indices of the old graph, ascending
    bool pointwise = false;
    std::set<ValueId> remade = {}; // stored values that it computes anew
    double work = 0;               // per element, in units of an addition
};

// Stored statements that may share a kernel have equal keys; an empty key shares with none.
std::string sharing_key(const Graph &graph, const Times &times, int index, bool share) {
    const Node &node = graph.nodes[size_t(index)];
    if (std::string sums = sum_key(graph, times, index); !sums.empty()) return sums;
    std::string time = std::to_string(times.when[size_t(index)]);
    if (share && times.space[size_t(index)] == Space::tail && !times.update[size_t(index)] && !is_sum(node))
        return "whole " + graph.shape(node.outputs[0]).text() + " at barrier " + time;
    if (share && times.space[size_t(index)] == Space::block && node.attrs.has("window") && node.inputs.size() == 1) {
        std::string key = "windows over " + std::to_string(node.inputs[0]);
        for (const char *attr : {"window", "stride", "padding"}) key += " " + std::to_string(node.attrs.integer(attr));
        return key + graph.shape(node.outputs[0]).text() + " in phase " + time;
    }
    return "";
}

std::vector<Unit> group(const Graph &graph, const std::vector<bool> &stored, const Times &times, bool share) {
    std::vector<Unit> units;
    std::map<std::string, size_t> shared; // sharing key -> unit
    for (int i = 0; i < int(graph.nodes.size()); i++) {
        const Node &node = graph.nodes[size_t(i)];
        if (!node.op->statement) {
            units.push_back({{i}, false});
        } else if (stored[size_t(node.outputs[0])]) {
            std::string key = sharing_key(graph, times, i, share);
            auto [place, is_new] = shared.try_emplace(key, units.size());
            if (key.empty() || is_new) {
                place->second = units.size();
                units.push_back({{i}, true});
            } else {
                units[place->second].nodes.push_back(i);
            }
        }
    }
    for (Unit &unit : units) {
        if (!unit.pointwise) continue;
        KernelReads reads = find_reads(graph, unit.nodes, stored);
        unit.remade = std::move(reads.remade);
        unit.work = reads.work;
    }
    return units;
}

// What counts as stored for a unit.
std::vector<bool> stored_for(const Unit &unit, std::vector<bool> stored) {
    for (ValueId v : unit.remade) stored[size_t(v)] = false;
    return stored;
}

// The stored values and literals that a unit reads from outside itself.
struct UnitReads {
    const Graph &graph;
    const std::vector<bool> &stored;
    std::set<int> members, seen;
    std::vector<ValueId> reads;

    void visit(ValueId v) {
        int producer = graph.producers[size_t(v)];
        const Node &node = graph.nodes[size_t(producer)];
        if (members.count(producer) || is_literal(node)) return;
        if (!seen.insert(v).second) return;
        if (stored[size_t(v)] || !node.op->statement) {
            reads.push_back(v);
            return;
        }
        for (ValueId input : node.inputs) visit(input);
    }
};

std::vector<ValueId> reads_of(const Graph &graph, const std::vector<bool> &stored, const Unit &unit) {
    const std::vector<bool> own = stored_for(unit, stored);
    UnitReads walk{graph, own, {}, {}, {}};
    if (!unit.pointwise) return graph.nodes[size_t(unit.nodes[0])].inputs;
    walk.members.insert(unit.nodes.begin(), unit.nodes.end());
    for (int i : unit.nodes)
        for (ValueId v : graph.nodes[size_t(i)].inputs) walk.visit(v);
    return walk.reads;
}

// Units in an order in which every value is made before it is read; of those that are ready, the earliest node first.
// Shorter than units when some depend on each other in a circle.
std::vector<size_t> topological_order(const Graph &graph, const std::vector<bool> &stored,
                                      const std::vector<Unit> &units) {
    std::map<ValueId, size_t> maker;
    for (size_t u = 0; u < units.size(); u++)
        for (int i : units[u].nodes)
            for (ValueId v : graph.nodes[size_t(i)].outputs) maker[v] = u;
    std::vector<std::vector<size_t>> readers(units.size());
    std::vector<size_t> waiting(units.size(), 0);
    for (size_t u = 0; u < units.size(); u++) {
        std::set<size_t> from;
        for (ValueId v : reads_of(graph, stored, units[u]))
            if (auto found = maker.find(v); found != maker.end() && found->second != u) from.insert(found->second);
        waiting[u] = from.size();
        for (size_t f : from) readers[f].push_back(u);
    }
    using Entry = std::pair<int, size_t>; // last node of the unit, unit
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
    auto entry = [&](size_t u) { return Entry(units[u].nodes.back(), u); };
    for (size_t u = 0; u < units.size(); u++)
        if (waiting[u] == 0) ready.push(entry(u));
    std::vector<size_t> order;
    while (!ready.empty()) {
        size_t u = ready.top().second;
        ready.pop();
        order.push_back(u);
        for (size_t r : readers[u])
            if (--waiting[r] == 0) ready.push(entry(r));
    }
    return order;
}

} // namespace

Graph fuse(const Graph &graph, const PassContext &context) {
    const Times times = schedule_times(graph, context.kernel);
    std::vector<bool> stored = find_stored(graph, times, context.kernel);
    std::vector<Unit> units = group(graph, stored, times, true);
    std::vector<size_t> order = topological_order(graph, stored, units);
    if (order.size() != units.size()) {
        // Values that share a kernel can need another in between; sharing then makes a circle.
        units = group(graph, stored, times, false);
        order = topological_order(graph, stored, units);
        if (order.size() != units.size()) throw InternalError("fuse: kernels depend on each other in a circle");
    }
    Rewriter rewriter(graph);
    for (size_t u : order) {
        const Unit &unit = units[u];
        const Node &first = graph.nodes[size_t(unit.nodes[0])];
        if (!unit.pointwise) {
            if (!is_literal(first)) rewriter.copy(first);
            continue;
        }
        ProgramText text = write_program(graph, unit.nodes, stored_for(unit, stored));
        std::vector<ValueId> inputs, outputs;
        for (ValueId v : text.inputs) inputs.push_back(rewriter.map[size_t(v)]);
        Attrs attrs{
            {"program", text.program}, {"scalars", text.scalars}, {"outputs", text.output_types}, {"work", unit.work}};
        outputs = rewriter.to.add("pointwise", inputs, attrs, first.layer, first.source);
        for (size_t i = 0; i < unit.nodes.size(); i++)
            rewriter.bind(graph.nodes[size_t(unit.nodes[i])].outputs[0], outputs[i]);
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
