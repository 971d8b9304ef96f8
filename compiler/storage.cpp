#include "storage.h"

#include "in_place.h"
#include "memory.h"

#include <algorithm>
#include <cstddef>
#include <set>

namespace cryolite {

namespace {

// Of the arena: what the blocks' values lying together may cost.
constexpr double most_over_peak = 1.1;

// Life of a value: steps and phases from the one that makes it to the last that reads it.
struct Life {
    int first_phase = -1, last_phase = -1, first_step = -1, last_step = -1;
    bool local = true; // only block steps of one phase touch it
};

// Values to be packed, each with its lifetime.
struct Placed {
    std::vector<ValueId> values;
    std::vector<Lifetime> lifetimes;

    void add(ValueId v, Lifetime life) {
        values.push_back(v);
        lifetimes.push_back(life);
    }
};

struct Placer {
    const Graph &graph;
    const StepOrder &order;
    const ParameterTable &parameters;
    const KernelContext &context;
    Storages result;
    std::vector<bool> fixed;    // by root: lies outside arena and scratch
    std::vector<bool> in_parts; // by root: other values are parts of it
    std::vector<Life> life;     // by root

    const Node &node(int step) const { return graph.nodes[size_t(order.nodes[size_t(step)])]; }
    int64_t bytes(ValueId v) const { return bytes_of(graph, v, context); }
    ValueId root(ValueId v) const { return result.roots[size_t(v)]; }
    ValueId values() const { return ValueId(graph.values.size()); }

    void find_roots() {
        for (const View &view : order.views) result.roots.push_back(view.root);
        result.by_root.resize(graph.values.size());
        fixed.assign(graph.values.size(), false);
        in_parts.assign(graph.values.size(), false);
        for (ValueId v = 0; v < values(); v++)
            if (bytes(v) != bytes(root(v))) in_parts[size_t(root(v))] = true;
    }

    void fix(ValueId v, cryo_region region, int64_t offset, int64_t block_stride = 0) {
        result.by_root[size_t(root(v))] = {region, offset, block_stride};
        fixed[size_t(root(v))] = true;
    }

    // Everything that does not live in arena or scratch, and the outputs.
    void place_sources() {
        for (const Node &node : graph.nodes) {
            if (named(node, "parameter") || named(node, "state"))
                fix(node.outputs[0], CRYO_REGION_PARAMETERS, parameters.at(node.attrs.string("name")).offset);
            else if (named(node, "input_rows"))
                fix(node.outputs[0], CRYO_REGION_INPUT, 0, bytes(node.outputs[0]));
            else if (named(node, "label"))
                fix(node.outputs[0], CRYO_REGION_LABEL, 0, bytes(node.outputs[0]));
            else if (named(node, "learning_rate"))
                fix(node.outputs[0], CRYO_REGION_CONTROL, offsetof(cryo_control, learning_rate));
            else if (named(node, "batch_size"))
                fix(node.outputs[0], CRYO_REGION_CONTROL, offsetof(cryo_control, batch));
            else if (named(node, "step"))
                fix(node.outputs[0], CRYO_REGION_CONTROL, offsetof(cryo_control, step));
            else if (named(node, "output") && graph.shape(node.inputs[0]).per_block())
                fix(node.inputs[0], CRYO_REGION_OUTPUT, 0, bytes(node.inputs[0]));
        }
    }

    // An update may write the state itself when no other update reads it, and it reads it at the written element alone.
    void place_updates() {
        std::set<ValueId> taken;
        for (int a = 0; a < int(graph.nodes.size()); a++) {
            const Node &assign = graph.nodes[size_t(a)];
            if (!named(assign, "assign")) continue;
            ValueId state = root(assign.inputs[0]), value = root(assign.inputs[1]);
            int maker = graph.producers[size_t(value)];
            bool in_place = order.times.update[size_t(maker)] && !fixed[size_t(value)] && taken.insert(value).second &&
                            graph.shape(state).elements() == graph.shape(value).elements();
            const Node &update = graph.nodes[size_t(maker)];
            if (in_place && named(update, "pointwise") && update.outputs.size() > 1) in_place = false;
            for (size_t i = 0; in_place && i < graph.nodes.size(); i++) {
                const Node &reader = graph.nodes[i];
                if (!order.times.update[i]) continue;
                for (ValueId v : reader.inputs) {
                    if (root(v) != state) continue;
                    bool same_element = int(i) == maker && graph.shape(v).elements() == graph.shape(value).elements();
                    if (!same_element) in_place = false;
                }
            }
            if (in_place)
                fix(value, CRYO_REGION_PARAMETERS, result.by_root[size_t(state)].offset);
            else
                result.copies.push_back(a);
        }
    }

    void find_lives() {
        life.resize(graph.values.size());
        auto touch = [&](ValueId v, int phase, int step, bool block) {
            Life &l = life[size_t(root(v))];
            if (l.first_phase < 0) {
                l.first_phase = phase;
                l.first_step = step;
            }
            l.last_phase = std::max(l.last_phase, phase);
            l.last_step = std::max(l.last_step, step);
            if (!block || phase != l.first_phase) l.local = false;
        };
        const int end = int(order.size());
        for (int step = 0; step < end; step++)
            for (const std::vector<ValueId> *list : {&node(step).inputs, &node(step).outputs})
                for (ValueId v : *list) touch(v, order.phases[size_t(step)], step, order.is_block(size_t(step)));
        for (const Node &node : graph.nodes)
            if (named(node, "output") || named(node, "assign"))
                for (ValueId v : node.inputs) touch(v, order.phase_count(), end, false);
    }

    // Whose steps alone touch a value, a strip at a time; null: there are none.
    const Strips *strips_around(ValueId v) const {
        const Life &l = life[size_t(v)];
        if (!l.local || l.first_step < 0 || in_parts[size_t(v)]) return nullptr;
        const Strips *strips = order.strips_of(l.first_step);
        return strips && size_t(l.last_step) < strips->end ? strips : nullptr;
    }

    // Of a block's step, the value over which its result may be written: an input that ends there, all reads of whose
    // storage are at the element that is written, and which is there as long as the result is to be, for a strip or for
    // the block. no_value: none.
    ValueId written_over(int step) const {
        if (!order.is_block(size_t(step))) return no_value;
        const std::vector<bool> same_element = read_where_written(graph, node(step));
        const ValueId to = node(step).outputs[0];
        for (size_t i = 0; i < same_element.size(); i++) {
            const ValueId from = root(node(step).inputs[i]);
            bool may = root(to) == to && !fixed[size_t(to)] && !fixed[size_t(from)] && bytes(from) == bytes(to) &&
                       life[size_t(from)].last_step == step && strips_around(from) == strips_around(to);
            for (size_t j = 0; j < same_element.size(); j++)
                if (root(node(step).inputs[j]) == from && !same_element[j]) may = false;
            if (may) return from;
        }
        return no_value;
    }

    // So that a result is written into lines that are in the caches already. Steps of mobilenet_v2 1.08x,
    // resnet18_cifar 1.03x, other networks 1.00x to 1.01x.
    void place_over_inputs() {
        if (context.device || context.vector) return;
        for (int step = 0; step < int(order.size()); step++) {
            const ValueId from = written_over(step);
            if (from == no_value) continue;
            const ValueId to = node(step).outputs[0];
            Life &old = life[size_t(from)];
            const Life &late = life[size_t(to)];
            old.local = old.local && late.local;
            old.last_phase = late.last_phase;
            old.last_step = late.last_step;
            for (ValueId &root : result.roots)
                if (root == to) root = from;
        }
    }

    // Of what a value is stored one of: tiles that their updates go with; 0: none.
    int64_t joined_tiles(ValueId v) const {
        const int step = life[size_t(v)].first_step;
        if (step < 0 || order.steps_joined(size_t(step)) < 2 || graph.producers[size_t(v)] != order.nodes[size_t(step)])
            return 0;
        return node(step).op->kernel(graph, node(step), order.context_of(size_t(step), context)).tiles;
    }

    // A value that is there while strips are made is there until the last of them is.
    Lifetime scratch_life(ValueId v) const {
        const Life &l = life[size_t(v)];
        if (const Strips *strips = strips_around(v)) return {bytes(v) / strips->count, l.first_step, l.last_step};
        const Strips *first = order.strips_of(l.first_step), *last = order.strips_of(l.last_step);
        return {bytes(v), first ? int(first->first) : l.first_step, last ? int(last->end) - 1 : l.last_step};
    }

    void place_computed() {
        Placed blocks, shared, scratch;
        for (ValueId v = 0; v < values(); v++) {
            const Life &l = life[size_t(v)];
            if (root(v) != v || fixed[size_t(v)] || l.first_phase < 0) continue;
            const bool per_block = graph.shape(v).per_block();
            if (order.prepared[size_t(graph.producers[size_t(v)])] && l.last_phase > 0) {
                result.by_root[size_t(v)] = {CRYO_REGION_PREPARED, result.prepared_bytes};
                result.prepared_bytes += (bytes(v) + CRYO_ALIGNMENT - 1) / CRYO_ALIGNMENT * CRYO_ALIGNMENT;
            } else if (context.device) {
                const int64_t copies = per_block ? context.max_blocks() : 1;
                shared.add(v, {copies * bytes(v), l.first_step, l.last_step});
            } else if (const int64_t tiles = joined_tiles(v)) {
                scratch.add(v, {bytes(v) / tiles, l.first_step, l.last_step});
            } else if (per_block && l.local && (!context.has_few_blocks() || strips_around(v))) {
                scratch.add(v, scratch_life(v));
            } else {
                (per_block ? blocks : shared).add(v, {bytes(v), l.first_phase, l.last_phase});
            }
        }
        place_scratch(std::move(scratch));
        place_arena(std::move(blocks), std::move(shared));
    }

    // Of values, and behind them of kernels with scratch of their own.
    void place_scratch(Placed values) {
        std::vector<int> steps;
        for (int step = 0; step < int(order.size()); step++) {
            const int64_t elements =
                node(step).op->kernel ? node(step).op->kernel(graph, node(step), context).scratch : 0;
            if (elements == 0) continue;
            values.lifetimes.push_back({4 * elements, step, step});
            steps.push_back(step);
        }
        result.scratch_bytes = pack_lifetimes(values.lifetimes, CRYO_ALIGNMENT);
        const size_t count = values.values.size();
        for (size_t i = 0; i < count; i++) {
            const ValueId v = values.values[i];
            result.by_root[size_t(v)] = {CRYO_REGION_SCRATCH, values.lifetimes[i].offset, 0,
                                         strips_around(v) || joined_tiles(v)};
        }
        for (size_t i = 0; i < steps.size(); i++) result.kernel_scratch[steps[i]] = values.lifetimes[count + i].offset;
    }

    // All values of one block lie side by side, as they do for the next: a thread that goes on with the block finds its
    // values in its own caches and writes nothing that another core's hold (shares.h). What all blocks share lies in
    // the holes of the last one, and behind. Where that takes much more than the lifetimes need, a value lies with the
    // same value of the other blocks instead.
    void place_arena(Placed blocks, Placed shared) {
        const int64_t copies = context.max_blocks();
        Placed by_value = shared;
        for (size_t i = 0; i < blocks.values.size(); i++) {
            Lifetime life = blocks.lifetimes[i];
            life.bytes *= copies;
            by_value.add(blocks.values[i], life);
        }
        result.arena_peak = peak_bytes(by_value.lifetimes, CRYO_ALIGNMENT);
        const int64_t stride = pack_lifetimes(blocks.lifetimes, CRYO_ALIGNMENT);
        const int64_t last = blocks.values.empty() ? 0 : (copies - 1) * stride;
        result.arena_bytes = last + pack_lifetimes(shared.lifetimes, CRYO_ALIGNMENT, blocks.lifetimes);
        if (double(result.arena_bytes) <= most_over_peak * double(result.arena_peak)) {
            for (size_t i = 0; i < blocks.values.size(); i++) put(blocks.values[i], blocks.lifetimes[i].offset, stride);
            for (size_t i = 0; i < shared.values.size(); i++)
                put(shared.values[i], last + shared.lifetimes[i].offset, bytes(shared.values[i]));
        } else {
            result.arena_bytes = pack_lifetimes(by_value.lifetimes, CRYO_ALIGNMENT);
            for (size_t i = 0; i < by_value.values.size(); i++)
                put(by_value.values[i], by_value.lifetimes[i].offset, bytes(by_value.values[i]));
        }
    }

    // block_stride: for values that each block has.
    void put(ValueId v, int64_t offset, int64_t block_stride) {
        result.by_root[size_t(v)] = {CRYO_REGION_ARENA, offset, graph.shape(v).per_block() ? block_stride : 0};
    }
};

} // namespace

Storages place_values(const Graph &graph, const StepOrder &order, const ParameterTable &parameters,
                      const KernelContext &context) {
    Placer placer{.graph = graph, .order = order, .parameters = parameters, .context = context, .result = {}};
    placer.find_roots();
    placer.place_sources();
    placer.place_updates();
    placer.find_lives();
    placer.place_over_inputs();
    placer.place_computed();
    return std::move(placer.result);
}

} // namespace cryolite
