#include "step_order.h"

#include <algorithm>
#include <tuple>

namespace cryolite {

namespace {

struct Orderer {
    const Graph &graph;
    const Mode mode;
    const KernelContext &context;
    StepOrder result;
    bool has_prologue = false; // a phase, with only a tail, of what is made at barrier -1 and not prepared

    Space space(int node) const { return result.times.space[size_t(node)]; }

    // What is made at barrier -1 has phases before all others: what can be prepared, then the rest.
    int phase_of(int node) const {
        const int before = int(result.prepared_phases) + (has_prologue ? 1 : 0);
        return result.prepared[size_t(node)] ? 0 : result.times.when[size_t(node)] + before;
    }

    bool before_phases(size_t node) const { return space(int(node)) == Space::tail && result.times.when[node] < 0; }

    // Of plans that run often between two changes of the parameters. The runtime looks for losses in the arena.
    void find_prepared() {
        result.prepared.assign(graph.nodes.size(), false);
        const auto root = [&](ValueId v) { return result.views[size_t(v)].root; };
        std::vector<bool> stored = depends_on_stored(graph);
        for (const Node &node : graph.nodes)
            if (node.op == find_op("output")) stored[size_t(root(node.inputs[0]))] = false;
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            if (!before_phases(i)) continue;
            const Node &node = graph.nodes[i];
            const auto is_stored = [&](ValueId v) { return bool(stored[size_t(root(v))]); };
            const auto has_own_storage = [&](ValueId v) { return root(v) == v; };
            const bool prepared = mode != Mode::train && std::ranges::all_of(node.outputs, has_own_storage) &&
                                  std::ranges::all_of(node.outputs, is_stored) &&
                                  std::ranges::all_of(node.inputs, is_stored);
            result.prepared[i] = prepared;
            if (prepared)
                result.prepared_phases = 1;
            else
                has_prologue = true;
            if (!prepared)
                for (ValueId v : node.outputs) stored[size_t(v)] = false;
        }
    }

    void find_order() {
        for (int i = 0; i < int(graph.nodes.size()); i++)
            if (space(i) != Space::none) result.nodes.push_back(i);
        std::ranges::stable_sort(result.nodes, {}, [&](int i) {
            const int joins = result.times.joins[size_t(i)];
            const bool last = result.times.update[size_t(i)] && joins < 0;
            return std::tuple(phase_of(i), int(space(i)), last, joins < 0 ? i : joins);
        });
        for (int i : result.nodes) result.phases.push_back(phase_of(i));
    }

    // A phase's block steps follow each other.
    void find_strips() {
        const size_t count = result.size();
        result.index_of_strips.assign(count, -1);
        for (size_t first = 0, end = 0; first < count; first = end) {
            end = first + 1;
            if (!result.is_block(first)) continue;
            while (end < count && result.is_block(end) && result.phases[end] == result.phases[first]) end++;
            const std::vector<int> steps(result.nodes.begin() + long(first), result.nodes.begin() + long(end));
            for (Strips strips : cryolite::find_strips(graph, steps, result.views, context)) {
                strips.first += first;
                strips.end += first;
                for (size_t step = strips.first; step < strips.end; step++)
                    result.index_of_strips[step] = int(result.strips.size());
                result.strips.push_back(strips);
            }
        }
    }
};

} // namespace

StepOrder order_steps(const Graph &graph, Mode mode, const KernelContext &context) {
    Orderer orderer{.graph = graph, .mode = mode, .context = context, .result = {}};
    orderer.result.times = schedule_times(graph, context, Merges::in_the_only_block);
    orderer.result.views = find_views(graph);
    orderer.find_prepared();
    orderer.find_order();
    orderer.find_strips();
    return std::move(orderer.result);
}

} // namespace cryolite
