#include "strips.h"

#include <algorithm>
#include <set>

namespace cryolite {

namespace {

// Of what a task touches: some microseconds of work.
constexpr int64_t least_task_bytes = 32 << 10;

ValueId value_of(const Node &node, const KernelArg &arg) {
    if (arg.kind == KernelArg::input) return node.inputs.at(size_t(arg.index));
    return arg.kind == KernelArg::output ? node.outputs.at(size_t(arg.index)) : no_value;
}

struct Finder {
    const Graph &graph;
    const std::vector<int> &steps;
    const std::vector<View> &views;
    const KernelContext &context;
    std::vector<int64_t> channels = {}; // by step: 0 where its kernel can make no strips

    const Node &node(size_t step) const { return graph.nodes[size_t(steps[step])]; }
    Kernel kernel(size_t step, int64_t strips) const { return strip_kernel(graph, node(step), context, strips); }
    ValueId root(ValueId v) const { return views[size_t(v)].root; }

    // As the arguments of a step see them: whole for every strip, or a range of each.
    std::set<ValueId> values_of(size_t step, bool whole) const {
        std::set<ValueId> result;
        const Kernel cut = kernel(step, channels[step]);
        for (const KernelArg &arg : cut.args) {
            const ValueId v = value_of(node(step), arg);
            if (v != no_value && (arg.tile_stride == 0) == whole) result.insert(root(v));
        }
        return result;
    }

    void find_channels() {
        for (size_t step = 0; step < steps.size(); step++) channels.push_back(kernel(step, 1).channels);
    }

    // The end of the steps from `first` on that can go together: each reads of the others' results its strip alone.
    size_t end_from(size_t first) const {
        if (channels[first] <= 1) return first + 1;
        std::set<ValueId> made;
        size_t end = first;
        for (; end < steps.size() && channels[end] == channels[first]; end++) {
            const std::set<ValueId> whole = values_of(end, true);
            if (std::ranges::any_of(whole, [&](ValueId v) { return made.count(v) > 0; })) break;
            for (ValueId v : node(end).outputs) made.insert(root(v));
        }
        return end;
    }

    // 1: the steps have nothing to do with each other, or what they touch stays in cache without strips; unless these
    // are tasks.
    int64_t count(size_t first, size_t end) const {
        std::set<ValueId> touched;
        bool related = false;
        for (size_t step = first; step < end; step++)
            for (ValueId v : values_of(step, false))
                if (graph.shape(v).per_block()) related |= !touched.insert(v).second;
        int64_t sum = 0;
        for (ValueId v : touched) sum += bytes_of(graph, v, context);
        const int64_t tasks = std::min(context.tasks_of_block(), sum / least_task_bytes);
        const auto too_few = [&](int64_t strips) {
            return strips < tasks || (related && sum / strips > context.strip_bytes);
        };
        int64_t strips = 1;
        while (strips < channels[first] && (channels[first] % strips != 0 || too_few(strips))) strips++;
        return strips;
    }
};

} // namespace

Kernel strip_kernel(const Graph &graph, const Node &node, KernelContext context, int64_t strips) {
    context.strips = strips;
    return node.op->kernel(graph, node, context);
}

std::vector<Strips> find_strips(const Graph &graph, const std::vector<int> &steps, const std::vector<View> &views,
                                const KernelContext &context) {
    std::vector<Strips> result;
    if (context.device || context.vector) return result;
    Finder finder{graph, steps, views, context};
    finder.find_channels();
    for (size_t first = 0, end = 0; first < steps.size(); first = end) {
        end = finder.end_from(first);
        if (end - first < 2 && !context.has_few_blocks()) continue;
        if (const int64_t count = finder.count(first, end); count > 1) result.push_back({first, end, count});
    }
    return result;
}

} // namespace cryolite
