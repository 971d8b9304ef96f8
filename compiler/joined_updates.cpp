#include "joined_updates.h"

#include <algorithm>

namespace cryolite {

namespace {

struct Joiner {
    const Graph &graph;
    KernelContext joined; // of the kernels that go together
    Times &times;
    std::vector<ValueId> roots = {};            // by ValueId: behind other names
    std::vector<std::vector<int>> readers = {}; // by root: nodes with code

    Joiner(const Graph &graph, const KernelContext &context, Times &times)
        : graph(graph), joined(context), times(times), readers(graph.values.size()) {
        joined.joined = true;
        for (ValueId v = 0; v < ValueId(graph.values.size()); v++) roots.push_back(v);
        for (int i = 0; i < int(graph.nodes.size()); i++) {
            const Node &node = graph.nodes[size_t(i)];
            if (node.op->place == Place::same || node.op->place == Place::inside)
                roots[size_t(node.outputs[0])] = roots[size_t(node.inputs[0])];
            for (ValueId v : node.inputs)
                if (times.space[size_t(i)] != Space::none || named(node, "output"))
                    readers[size_t(root(v))].push_back(i);
        }
    }

    ValueId root(ValueId v) const { return roots[size_t(v)]; }
    const Node &node(int i) const { return graph.nodes[size_t(i)]; }
    Space space(int i) const { return times.space[size_t(i)]; }
    Kernel kernel(int i) const { return node(i).op->kernel(graph, node(i), joined); }

    static const KernelArg *find_arg(const Kernel &kernel, KernelArg::Kind kind, const std::vector<ValueId> &values,
                                     ValueId v) {
        for (const KernelArg &arg : kernel.args)
            if (arg.kind == kind && values[size_t(arg.index)] == v) return &arg;
        return nullptr;
    }

    static int64_t elements(const KernelArg &arg) {
        int64_t result = 1;
        for (int64_t extent : arg.extents) result *= extent;
        return result;
    }

    // Whether a tile of what `maker` makes is just what a tile of `update` reads.
    bool are_cut_alike(int maker, int update, ValueId gradient) const {
        const Kernel made = kernel(maker), read = kernel(update);
        if (made.tiles < 1 || made.tiles != read.tiles || made.of_block || read.of_block || made.at_barrier)
            return false;
        const KernelArg *from = find_arg(made, KernelArg::output, node(maker).outputs, gradient);
        const KernelArg *to = find_arg(read, KernelArg::input, node(update).inputs, gradient);
        return from && to && from->strides.empty() && to->strides.empty() && elements(*from) == elements(*to) &&
               from->tile_stride == to->tile_stride;
    }

    // The node whose tiles an update can go with; -1: none.
    int maker_of_tiles(int update) const {
        if (!node(update).op->kernel) return -1;
        for (ValueId v : node(update).inputs) {
            const int maker = graph.producers[size_t(v)];
            if (maker < 0 || space(maker) != Space::tile || times.update[size_t(maker)]) continue;
            const bool alone = node(maker).outputs.size() == 1 && readers[size_t(v)] == std::vector<int>{update};
            if (alone && !graph.shape(v).per_block() && are_cut_alike(maker, update, v)) return maker;
        }
        return -1;
    }

    // The last phase in which others read what is updated. times.last: updates at the end do.
    int last_read(int update) const {
        int last = -1;
        for (const Node &assign : graph.nodes) {
            if (!named(assign, "assign") || graph.producers[size_t(root(assign.inputs[1]))] != update) continue;
            for (int reader : readers[size_t(root(assign.inputs[0]))])
                if (reader != update) last = std::max(last, times.when[size_t(reader)]);
        }
        return last;
    }

    void join(int update) {
        const int maker = maker_of_tiles(update);
        if (maker < 0) return;
        const int phase = std::max(times.when[size_t(maker)], last_read(update) + 1);
        if (phase > times.last) return;
        times.joins[size_t(update)] = maker;
        times.space[size_t(update)] = Space::tile;
        for (int i : {maker, update}) {
            times.when[size_t(i)] = phase;
            for (ValueId v : node(i).outputs) times.time[size_t(v)] = phase;
        }
    }
};

} // namespace

void join_updates(const Graph &graph, const KernelContext &context, Times &times) {
    times.joins.assign(graph.nodes.size(), -1);
    if (context.device || context.vector) return;
    Joiner joiner(graph, context, times);
    for (int i = 0; i < int(graph.nodes.size()); i++)
        if (times.update[size_t(i)]) joiner.join(i);
}

} // namespace cryolite
