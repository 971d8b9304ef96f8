// As soon as possible, so that what a phase makes is read while it is in cache; updates of parameters and states last,
// but for those that go with their gradients (joined_updates.h).
// Where it is first read: what is marked `late`, and in a step that changes parameters what is made of parameters
// alone, such as a transformed weight, which would take memory from the first phase on.
#include "times.h"

#include "joined_updates.h"

#include <algorithm>

namespace cryolite {

static bool has_code(const Node &node) { return node.op->statement || node.op->kernel; }

static bool is_assigned(const Node &reader, ValueId value) {
    return reader.op == find_op("assign") && reader.inputs.at(1) == value;
}

// Nodes all of whose results go to assigns, through aliases, and nowhere else.
static std::vector<bool> find_updates(const Graph &graph) {
    std::vector<bool> only_assigned(graph.values.size(), true), read(graph.values.size(), false);
    for (size_t i = graph.nodes.size(); i-- > 0;) {
        const Node &node = graph.nodes[i];
        for (ValueId v : node.inputs) {
            read[size_t(v)] = true;
            bool passes =
                is_assigned(node, v) || (node.op->place == Place::same && only_assigned[size_t(node.outputs[0])]);
            if (!passes) only_assigned[size_t(v)] = false;
        }
    }
    std::vector<bool> update(graph.nodes.size(), false);
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        const Node &node = graph.nodes[i];
        if (!has_code(node)) continue;
        update[i] = std::all_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) {
            return read[size_t(v)] && only_assigned[size_t(v)] && !graph.shape(v).per_block();
        });
    }
    return update;
}

static Space space_of(const Graph &graph, const Node &node, const KernelContext &context) {
    if (!has_code(node)) return Space::none;
    if (node.op->kernel) {
        const Kernel kernel = node.op->kernel(graph, node, context);
        if (kernel.tiles > 0 && !kernel.at_barrier) return Space::tile;
    }
    return graph.shape(node.outputs.at(0)).per_block() ? Space::block : Space::tail;
}

// By node: those of the tail between steps of the only block, made of its values and read by it.
static std::vector<bool> find_merges(const Graph &graph, const KernelContext &context, const Times &times) {
    const size_t count = graph.nodes.size();
    std::vector<bool> merges(count, false), made(graph.values.size(), false), read(graph.values.size(), false);
    const auto any = [](const std::vector<ValueId> &values, const std::vector<bool> &of) {
        return std::ranges::any_of(values, [&](ValueId v) { return bool(of[size_t(v)]); });
    };
    const auto mark = [](const std::vector<ValueId> &values, std::vector<bool> &of) {
        for (ValueId v : values) of[size_t(v)] = true;
    };
    for (size_t i = 0; i < count; i++) {
        const Node &node = graph.nodes[i];
        const Space space = times.space[i];
        const auto is_tail = [&] { return space == Space::tail && !times.update[i] && node.op->kernel; };
        merges[i] = is_tail() && any(node.inputs, made) && node.op->kernel(graph, node, context).channels > 1;
        if (space == Space::block || merges[i] || (space == Space::none && any(node.inputs, made)))
            mark(node.outputs, made);
    }
    for (size_t i = count; i-- > 0;) {
        const Node &node = graph.nodes[i];
        merges[i] = merges[i] && any(node.outputs, read);
        const bool passes = times.space[i] == Space::none && any(node.outputs, read);
        if (times.space[i] == Space::block || merges[i] || passes) mark(node.inputs, read);
    }
    return merges;
}

// The earliest phase or barrier of a node whose inputs have times.
// together: by value, made by tiles, so that all blocks of it are there at its time, and at the barrier before.
// merged: by value, whole, but made by the only block.
static int earliest(const Graph &graph, const Node &node, Space space, const std::vector<int> &time,
                    const std::vector<bool> &together, const std::vector<bool> &merged) {
    int t = space == Space::block || space == Space::tile ? 0 : -1;
    for (ValueId v : node.inputs) {
        bool per_block = graph.shape(v).per_block();
        int made = time[size_t(v)];
        switch (space) {
        case Space::none:
            t = std::max(t, made);
            break;
        case Space::tail:
            t = std::max(t, together[size_t(v)] ? std::max(0, made - 1) : made);
            break;
        case Space::block:
            t = std::max(t, per_block || merged[size_t(v)] ? made : made + 1);
            break;
        case Space::tile:
            t = std::max(t, together[size_t(v)] ? made : made + 1);
            break;
        }
    }
    return t;
}

// Moves what is to run late to its readers' first phase, or to the barrier before it.
static void postpone(const Graph &graph, Times &times) {
    const bool trains = std::find(times.update.begin(), times.update.end(), true) != times.update.end();
    for (size_t i = graph.nodes.size(); i-- > 0;) {
        const Node &node = graph.nodes[i];
        const bool of_parameters = trains && times.space[i] == Space::tail && times.when[i] < 0;
        if (!node.attrs.has("late") && !of_parameters) continue;
        int first = times.last;
        for (size_t j = i + 1; j < graph.nodes.size(); j++)
            for (ValueId v : graph.nodes[j].inputs) {
                if (std::find(node.outputs.begin(), node.outputs.end(), v) == node.outputs.end()) continue;
                const bool behind = of_parameters && (times.space[j] == Space::block || times.space[j] == Space::tile);
                const bool other_name = of_parameters && times.space[j] == Space::none;
                first = std::min(first, other_name ? times.when[i] : times.when[j] - behind);
            }
        times.when[i] = first;
        for (ValueId v : node.outputs) times.time[size_t(v)] = first;
    }
}

Times schedule_times(const Graph &graph, const KernelContext &context, Merges merges) {
    Times times;
    times.time.assign(graph.values.size(), -1);
    times.update = find_updates(graph);
    for (const Node &node : graph.nodes) times.space.push_back(space_of(graph, node, context));
    std::vector<bool> together(graph.values.size(), false), merged(graph.values.size(), false);
    if (merges == Merges::in_the_only_block && context.max_blocks() == 1 && !context.device && !context.vector) {
        const std::vector<bool> merge = find_merges(graph, context, times);
        for (size_t i = 0; i < merge.size(); i++)
            if (merge[i]) times.space[i] = Space::block;
    }
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        const Node &node = graph.nodes[i];
        const Space space = times.space[i];
        int t = earliest(graph, node, space, times.time, together, merged);
        // A block-level source, such as the images, is there in phase 0.
        if (space == Space::none)
            for (ValueId v : node.outputs)
                if (graph.shape(v).per_block()) t = std::max(t, 0);
        // Tiles of a value that every block reads part of are together when the phase is over.
        for (ValueId v : node.outputs) times.time[size_t(v)] = t + (space == Space::tile && graph.shape(v).per_block());
        // The rows of one sample are there from the beginning.
        const bool passes = space == Space::none && (context.vector > 0 || !node.inputs.empty()) &&
                            std::all_of(node.inputs.begin(), node.inputs.end(),
                                        [&](ValueId v) { return together[size_t(v)] || !graph.shape(v).per_block(); });
        for (ValueId v : node.outputs)
            together[size_t(v)] = (space == Space::tile || passes) && graph.shape(v).per_block();
        const bool of_merged = space == Space::none &&
                               std::ranges::any_of(node.inputs, [&](ValueId v) { return bool(merged[size_t(v)]); });
        for (ValueId v : node.outputs)
            merged[size_t(v)] = (space == Space::block || of_merged) && !graph.shape(v).per_block();
        times.when.push_back(t);
        if (space != Space::none && !times.update[i]) times.last = std::max(times.last, t);
    }
    for (size_t i = 0; i < graph.nodes.size(); i++)
        if (times.update[i]) {
            times.when[i] = times.space[i] == Space::tile ? times.last + 1 : times.last;
            for (ValueId v : graph.nodes[i].outputs) times.time[size_t(v)] = times.when[i];
        }
    postpone(graph, times);
    join_updates(graph, context, times);
    return times;
}

// A kernel that takes the batch or a block's number is none of a value like these.
static bool takes_scalars(const Node &node) {
    if (node.attrs.has("scalars")) return !node.attrs.string("scalars").empty();
    if (!node.op->statement) return false;
    const std::string statement = node.op->statement;
    return statement.find("batch") != std::string::npos || statement.find("block") != std::string::npos ||
           statement.find("valid") != std::string::npos;
}

std::vector<bool> depends_on_stored(const Graph &graph) {
    std::vector<bool> stored(graph.values.size(), false);
    for (const Node &node : graph.nodes) {
        bool all = node.op == find_op("parameter") || node.op == find_op("state") || node.op == find_op("constant");
        if (!all && (node.op->statement || node.op->place == Place::same || node.op->kernel))
            all = (!node.inputs.empty() || node.op == find_op("pointwise")) && !takes_scalars(node) &&
                  std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) { return stored[size_t(v)]; });
        for (ValueId v : node.outputs) stored[size_t(v)] = all && !graph.shape(v).per_block();
    }
    return stored;
}

} // namespace cryolite
