// Activations of the forward pass made again in the backward pass instead of being kept across the barriers between.
#include "../passes.h"
#include "../stored.h"

#include <algorithm>
#include <map>

namespace cryolite {

namespace {

struct Rematerializer {
    const Graph &graph;
    Times times;
    std::vector<std::vector<int>> readers;      // by ValueId
    std::map<int, std::set<ValueId>> block_use; // by phase: block-level values that its blocks read

    Rematerializer(const Graph &graph, const PassContext &context)
        : graph(graph), times(schedule_times(graph, context.kernel)), readers(graph.values.size()) {
        for (int i = 0; i < int(graph.nodes.size()); i++)
            for (ValueId v : graph.nodes[size_t(i)].inputs) {
                readers[size_t(v)].push_back(i);
                if (times.space[size_t(i)] == Space::block) block_use[times.when[size_t(i)]].insert(v);
            }
    }

    int phase_of(ValueId v) const { return times.time[size_t(v)]; }

    // Whether v is cheap to make, and what it is made of is read in every later phase that reads v.
    bool worthwhile(ValueId v) const {
        const Node &node = graph.producer(v);
        if (!node.attrs.has("work") || node.outputs.size() != 1 || !graph.shape(v).batched()) return false;
        if (node.attrs.number("work") > 2 * access_work) return false;
        bool later = false;
        for (int reader : readers[size_t(v)]) {
            if (times.space[size_t(reader)] != Space::block) return false;
            const int phase = times.when[size_t(reader)];
            if (phase == phase_of(v)) continue;
            later = true;
            for (ValueId input : node.inputs)
                if (graph.shape(input).per_block() && !block_use.at(phase).count(input)) return false;
        }
        return later;
    }
};

} // namespace

Graph rematerialize(const Graph &graph, const PassContext &context) {
    const Rematerializer plan(graph, context);
    Rewriter rewriter(graph);
    std::map<std::pair<ValueId, int>, ValueId> copies; // by value and phase
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        const Node &node = graph.nodes[i];
        std::map<ValueId, ValueId> kept; // the values that the copies stand for, to be bound again
        for (ValueId v : node.inputs) {
            if (plan.times.when[i] == plan.phase_of(v) || !plan.worthwhile(v)) continue;
            auto [copy, is_new] = copies.try_emplace({v, plan.times.when[i]}, no_value);
            const Node &maker = graph.producer(v);
            if (is_new) {
                Attrs attrs = maker.attrs;
                attrs.map["late"] = true;
                copy->second = rewriter.to.add1("pointwise", rewriter.inputs(maker), attrs, maker.layer, maker.source);
            }
            kept.try_emplace(v, rewriter.map[size_t(v)]);
            rewriter.bind(v, copy->second);
        }
        rewriter.copy(node);
        for (auto [v, original] : kept) rewriter.bind(v, original);
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
