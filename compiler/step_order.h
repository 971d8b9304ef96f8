// The steps of a plan: which nodes of the graph, in which phase, in which order.
#ifndef CRYOLITE_STEP_ORDER_H
#define CRYOLITE_STEP_ORDER_H

#include "strips.h"
#include "times.h"
#include "views.h"

namespace cryolite {

struct StepOrder {
    Times times;
    std::vector<View> views;          // by ValueId
    std::vector<int> nodes;           // by step: those with code; phase by phase, blocks, tiles, tail
    std::vector<int> phases;          // by step
    std::vector<bool> prepared;       // by node: made by a phase that runs when parameters changed
    int64_t prepared_phases = 0;      // the first ones
    std::vector<Strips> strips;       // of steps
    std::vector<int> index_of_strips; // by step: of its strips, or -1

    size_t size() const { return nodes.size(); }
    int phase_count() const { return phases.empty() ? 0 : phases.back() + 1; }
    bool is_block(size_t step) const { return times.space[size_t(nodes[step])] == Space::block; }
    // So many steps, from this one on, go tile by tile together: it makes a gradient, the others are its updates.
    int64_t steps_joined(size_t step) const {
        size_t end = step + 1;
        while (end < size() && times.joins[size_t(nodes[end])] == nodes[step]) end++;
        return int64_t(end - step);
    }
    // For its kernel.
    KernelContext context_of(size_t step, KernelContext context) const {
        context.joined = times.joins[size_t(nodes[step])] >= 0 || steps_joined(step) > 1;
        return context;
    }
    // Those that a step goes in; null: none.
    const Strips *strips_of(int step) const {
        const int index = index_of_strips.at(size_t(step));
        return index < 0 ? nullptr : &strips[size_t(index)];
    }
};

// graph: the result of run_pipeline.
StepOrder order_steps(const Graph &graph, Mode mode, const KernelContext &context);

} // namespace cryolite
#endif
