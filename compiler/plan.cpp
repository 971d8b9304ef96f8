// Storage for every value, phases from times, arguments from kernels.
//
// Block-level values that only their own phase reads lie in scratch, one copy a thread; all others in the arena,
// batch-wide. The arena's lifetimes count phases, scratch's count steps inside a phase. On a device a step is a launch
// for all blocks, after all steps before it: everything lies in the arena, and lifetimes count steps.
#include "plan.h"

#include "in_place.h"
#include "memory.h"
#include "ops/channels.h"
#include "times.h"
#include "views.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>

namespace cryolite {

namespace {

struct Storage {
    cryo_region region = CRYO_REGION_ARENA;
    int64_t offset = 0;
    int64_t block_stride = 0; // bytes; 0: not per block
};

bool named(const Node &node, const char *op) { return node.op == find_op(op); }

int64_t element_bytes(Type) { return 4; }

// Values to be packed, each with its lifetime.
struct Placed {
    std::vector<ValueId> values;
    std::vector<Lifetime> lifetimes;

    void add(ValueId v, Lifetime life) {
        values.push_back(v);
        lifetimes.push_back(life);
    }
};

// Of the arena: what the blocks' values lying together may cost.
constexpr double most_over_peak = 1.1;

struct Planner {
    const Graph &graph;
    const ParameterTable &parameters;
    const KernelContext &context;
    Times times;
    Plan plan;

    std::vector<View> views;                // by ValueId
    std::vector<Storage> storage;           // by root
    std::vector<bool> fixed;                // by root: lies outside arena and scratch
    std::vector<int> order;                 // nodes with code, in the order of their steps
    std::vector<int> copies;                // assign nodes whose value could not be made in place
    std::map<int, int64_t> private_scratch; // by node: offset of what its kernel asks for

    Planner(const Graph &graph, Mode mode, const ParameterTable &parameters, const KernelContext &context)
        : graph(graph), parameters(parameters), context(context), times(schedule_times(graph, context)) {
        plan.mode = mode;
        plan.one = context.vector > 0;
        plan.lanes = context.lanes;
    }

    // Bytes of one block of a per-block value, or of a whole one.
    int64_t bytes(ValueId v) const {
        const ValueType &type = graph.type(v);
        int64_t elements = type.shape.elements() * (type.shape.batched() ? context.lanes : 1);
        return elements * element_bytes(type.type);
    }

    ValueId root(ValueId v) const { return views[size_t(v)].root; }

    void find_roots() {
        views = find_views(graph);
        storage.resize(graph.values.size());
        fixed.assign(graph.values.size(), false);
    }

    void fix(ValueId v, cryo_region region, int64_t offset, int64_t block_stride = 0) {
        storage[size_t(root(v))] = {region, offset, block_stride};
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
            bool in_place = times.update[size_t(maker)] && !fixed[size_t(value)] && taken.insert(value).second &&
                            graph.shape(state).elements() == graph.shape(value).elements();
            const Node &update = graph.nodes[size_t(maker)];
            if (in_place && named(update, "pointwise") && update.outputs.size() > 1) in_place = false;
            for (size_t i = 0; in_place && i < graph.nodes.size(); i++) {
                const Node &reader = graph.nodes[i];
                if (!times.update[i]) continue;
                for (ValueId v : reader.inputs) {
                    if (root(v) != state) continue;
                    bool same_element = int(i) == maker && graph.shape(v).elements() == graph.shape(value).elements();
                    if (!same_element) in_place = false;
                }
            }
            if (in_place)
                fix(value, CRYO_REGION_PARAMETERS, storage[size_t(state)].offset);
            else
                copies.push_back(a);
        }
    }

    // What is made at barrier -1 has phases with only a tail before all others: what can be prepared, then the rest.
    std::vector<bool> prepared; // by node
    bool has_prologue = false;
    int plan_phase(int node) const {
        int before = int(plan.prepared_phases) + (has_prologue ? 1 : 0);
        return prepared[size_t(node)] ? 0 : times.when[size_t(node)] + before;
    }

    // Of plans that run often between two changes of the parameters. The runtime looks for losses in the arena.
    void find_prepared() {
        prepared.assign(graph.nodes.size(), false);
        std::vector<bool> stored = depends_on_stored(graph);
        for (const Node &node : graph.nodes)
            if (named(node, "output")) stored[size_t(root(node.inputs[0]))] = false;
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            if (times.space[i] != Space::tail || times.when[i] >= 0) continue;
            const Node &node = graph.nodes[i];
            auto is_stored = [&](ValueId v) { return bool(stored[size_t(root(v))]); };
            auto has_own_storage = [&](ValueId v) { return root(v) == v; };
            prepared[i] = plan.mode != Mode::train &&
                          std::all_of(node.outputs.begin(), node.outputs.end(), has_own_storage) &&
                          std::all_of(node.outputs.begin(), node.outputs.end(), is_stored) &&
                          std::all_of(node.inputs.begin(), node.inputs.end(), is_stored);
            if (!prepared[i])
                for (ValueId v : node.outputs) stored[size_t(v)] = false;
        }
    }

    void find_order() {
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            if (times.space[i] != Space::tail || times.when[i] >= 0) continue;
            if (prepared[i])
                plan.prepared_phases = 1;
            else
                has_prologue = true;
        }
        for (int i = 0; i < int(graph.nodes.size()); i++)
            if (times.space[size_t(i)] != Space::none) order.push_back(i);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
            auto key = [&](int i) {
                return std::tuple(plan_phase(i), int(times.space[size_t(i)]), bool(times.update[size_t(i)]));
            };
            return key(a) < key(b);
        });
    }

    // Life of a value: steps and phases from the one that makes it to the last that reads it.
    struct Life {
        int first_phase = -1, last_phase = -1, first_step = -1, last_step = -1;
        bool local = true; // only block steps of one phase touch it
    };
    std::vector<Life> lives() const {
        std::vector<Life> life(graph.values.size());
        auto touch = [&](ValueId v, int phase, int step, Space space) {
            Life &l = life[size_t(root(v))];
            if (l.first_phase < 0) {
                l.first_phase = phase;
                l.first_step = step;
            }
            l.last_phase = std::max(l.last_phase, phase);
            l.last_step = std::max(l.last_step, step);
            if (space != Space::block || phase != l.first_phase) l.local = false;
        };
        for (int step = 0; step < int(order.size()); step++) {
            const Node &node = graph.nodes[size_t(order[size_t(step)])];
            int phase = plan_phase(order[size_t(step)]);
            Space space = times.space[size_t(order[size_t(step)])];
            for (ValueId v : node.inputs) touch(v, phase, step, space);
            for (ValueId v : node.outputs) touch(v, phase, step, space);
        }
        int end = int(plan_phases());
        for (const Node &node : graph.nodes)
            if (named(node, "output") || named(node, "assign"))
                for (ValueId v : node.inputs) touch(v, end, int(order.size()), Space::tail);
        return life;
    }

    size_t plan_phases() const {
        int last = -1;
        for (int i : order) last = std::max(last, plan_phase(i));
        return size_t(last + 1);
    }

    // Of a block's step, the value over which its result may be written: an input that ends there, all reads of whose
    // storage are at the element that is written. no_value: none.
    ValueId written_over(int step, const std::vector<Life> &life) const {
        const Node &node = graph.nodes[size_t(order[size_t(step)])];
        if (times.space[size_t(order[size_t(step)])] != Space::block) return no_value;
        const std::vector<bool> same_element = read_where_written(graph, node);
        const ValueId to = node.outputs[0];
        for (size_t i = 0; i < same_element.size(); i++) {
            const ValueId from = root(node.inputs[i]);
            bool may = root(to) == to && !fixed[size_t(to)] && !fixed[size_t(from)] && bytes(from) == bytes(to) &&
                       life[size_t(from)].last_step == step;
            for (size_t j = 0; j < same_element.size(); j++)
                if (root(node.inputs[j]) == from && !same_element[j]) may = false;
            if (may) return from;
        }
        return no_value;
    }

    // So that a result is written into lines that are in the caches already. Steps of mobilenet_v2 1.08x,
    // resnet18_cifar 1.03x, other networks 1.00x to 1.01x.
    void place_over_inputs(std::vector<Life> &life) {
        if (context.device || context.vector) return;
        for (int step = 0; step < int(order.size()); step++) {
            const ValueId from = written_over(step, life);
            if (from == no_value) continue;
            const ValueId to = graph.nodes[size_t(order[size_t(step)])].outputs[0];
            Life &old = life[size_t(from)];
            const Life &late = life[size_t(to)];
            old.local = old.local && late.local;
            old.last_phase = late.last_phase;
            old.last_step = late.last_step;
            for (View &view : views)
                if (view.root == to) view.root = from;
        }
    }

    void place_values() {
        std::vector<Life> life = lives();
        place_over_inputs(life);
        Placed blocks, shared, scratch;
        for (ValueId v = 0; v < ValueId(graph.values.size()); v++) {
            const Life &l = life[size_t(v)];
            if (root(v) != v || fixed[size_t(v)] || l.first_phase < 0) continue;
            const bool per_block = graph.shape(v).per_block();
            if (prepared[size_t(graph.producers[size_t(v)])] && l.last_phase > 0) {
                storage[size_t(v)] = {CRYO_REGION_PREPARED, plan.prepared_bytes};
                plan.prepared_bytes += (bytes(v) + CRYO_ALIGNMENT - 1) / CRYO_ALIGNMENT * CRYO_ALIGNMENT;
            } else if (context.device) {
                const int64_t copies = per_block ? context.max_blocks() : 1;
                shared.add(v, {copies * bytes(v), l.first_step, l.last_step});
            } else if (per_block && l.local) {
                scratch.add(v, {bytes(v), l.first_step, l.last_step});
            } else {
                (per_block ? blocks : shared).add(v, {bytes(v), l.first_phase, l.last_phase});
            }
        }
        std::vector<int> scratch_nodes; // kernels with scratch of their own, after the values
        for (int step = 0; step < int(order.size()); step++) {
            const Node &node = graph.nodes[size_t(order[size_t(step)])];
            const int64_t elements = node.op->kernel ? node.op->kernel(graph, node, context).scratch : 0;
            if (elements == 0) continue;
            scratch.lifetimes.push_back({4 * elements, step, step});
            scratch_nodes.push_back(order[size_t(step)]);
        }
        plan.scratch_bytes = pack_lifetimes(scratch.lifetimes, CRYO_ALIGNMENT);
        for (size_t i = 0; i < scratch.values.size(); i++)
            storage[size_t(scratch.values[i])] = {CRYO_REGION_SCRATCH, scratch.lifetimes[i].offset, 0};
        for (size_t i = 0; i < scratch_nodes.size(); i++)
            private_scratch[scratch_nodes[i]] = scratch.lifetimes[scratch.values.size() + i].offset;
        place_arena(std::move(blocks), std::move(shared));
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
        plan.arena_peak = peak_bytes(by_value.lifetimes, CRYO_ALIGNMENT);
        const int64_t stride = pack_lifetimes(blocks.lifetimes, CRYO_ALIGNMENT);
        const int64_t last = blocks.values.empty() ? 0 : (copies - 1) * stride;
        plan.arena_bytes = last + pack_lifetimes(shared.lifetimes, CRYO_ALIGNMENT, blocks.lifetimes);
        if (double(plan.arena_bytes) <= most_over_peak * double(plan.arena_peak)) {
            for (size_t i = 0; i < blocks.values.size(); i++) put(blocks.values[i], blocks.lifetimes[i].offset, stride);
            for (size_t i = 0; i < shared.values.size(); i++)
                put(shared.values[i], last + shared.lifetimes[i].offset, bytes(shared.values[i]));
        } else {
            plan.arena_bytes = pack_lifetimes(by_value.lifetimes, CRYO_ALIGNMENT);
            for (size_t i = 0; i < by_value.values.size(); i++)
                put(by_value.values[i], by_value.lifetimes[i].offset, bytes(by_value.values[i]));
        }
    }

    // block_stride: for values that each block has.
    void put(ValueId v, int64_t offset, int64_t block_stride) {
        storage[size_t(v)] = {CRYO_REGION_ARENA, offset, graph.shape(v).per_block() ? block_stride : 0};
    }

    PlanArg make_arg(const Node &node, const KernelArg &arg) const {
        if (arg.kind >= KernelArg::batch && arg.kind <= KernelArg::tile) // both list them in this order
            return {.kind = cryo_arg_kind(CRYO_ARG_BATCH + (arg.kind - KernelArg::batch))};
        PlanArg result;
        ValueId v = (arg.kind == KernelArg::input ? node.inputs : node.outputs).at(size_t(arg.index));
        const Storage &place = storage[size_t(root(v))];
        result.region = place.region;
        result.type = graph.type(v).type == Type::i32 ? CRYO_I32 : CRYO_F32;
        const int64_t lanes = graph.shape(v).batched() ? context.lanes : 1;
        const int64_t apart = context.vector ? channels_apart(graph, v) : 1;
        result.offset = place.offset + views[size_t(v)].first / apart * lanes * element_bytes(graph.type(v).type);
        result.block_stride = arg.all_blocks ? 0 : place.block_stride;
        result.tile_stride = arg.tile_stride * element_bytes(graph.type(v).type);
        int64_t stride = 1;
        for (size_t d = 0; d < arg.extents.size(); d++) {
            result.dims.push_back({arg.extents[d], arg.strides.empty() ? stride : arg.strides.at(d)});
            stride *= arg.extents[d];
        }
        const cryo_dim blocks{context.max_blocks(), place.block_stride / element_bytes(graph.type(v).type)};
        if (arg.all_blocks)
            result.dims.push_back(blocks);
        else if (context.device && graph.shape(v).per_block())
            add_blocks(result, graph.shape(v).batched() && !arg.single, blocks);
        return result;
    }

    // What a device's kernel sees of a value that another sees one block of. has_dimension: there is one for this
    // block, or for its groups, whose channels lie one after another.
    static void add_blocks(PlanArg &arg, bool has_dimension, const cryo_dim &blocks) {
        if (has_dimension) {
            const int64_t groups = arg.dims.back().extent;
            arg.dims.pop_back();
            arg.dims.back().extent *= groups;
        }
        arg.dims.push_back(blocks);
    }

    KernelSpec spec(const Kernel &kernel) const {
        KernelSpec spec{kernel.generator, kernel.parameters};
        spec.parameters["lanes"] = std::to_string(context.lanes);
        return spec;
    }

    PlanStep make_step(int index) const {
        const Node &node = graph.nodes[size_t(index)];
        Kernel kernel = node.op->kernel(graph, node, context);
        const bool is_block = times.space[size_t(index)] == Space::block;
        PlanStep step{.layer = node.layer,
                      .kernel = spec(kernel),
                      .args = {},
                      .tiles = std::max<int64_t>(kernel.tiles, 1),
                      .of_block = kernel.of_block,
                      .flops = kernel.flops * double(context.device && is_block ? context.max_blocks() : 1),
                      .outputs = 0};
        for (const KernelArg &arg : kernel.args) {
            if (arg.kind == KernelArg::scratch) {
                step.args.push_back({.region = CRYO_REGION_SCRATCH,
                                     .offset = private_scratch.at(index),
                                     .dims = {{kernel.scratch, 1}}});
                continue;
            }
            step.outputs += arg.kind == KernelArg::output;
            step.args.push_back(make_arg(node, arg));
            if (step.args.back().kind != CRYO_ARG_BUFFER) continue;
            double elements = 1;
            for (const cryo_dim &dim : step.args.back().dims) elements *= double(dim.extent);
            step.bytes += 4 * elements;
        }
        return step;
    }

    // state = value, where the value could not be made in place.
    PlanStep make_copy(const Node &assign) const {
        int64_t elements = graph.shape(assign.inputs[1]).elements();
        std::string extent = "[" + std::to_string(elements) + "]";
        Kernel kernel{.generator = "pointwise",
                      .parameters = {{"program", "x0=input " + extent + ";t0=add(x0,0);output t0;"}},
                      .args = {}};
        PlanStep step{.layer = assign.layer, .kernel = spec(kernel), .args = {}, .bytes = 8.0 * double(elements)};
        for (int input : {1, 0})
            step.args.push_back(make_arg(assign, {.kind = KernelArg::input, .index = input, .extents = {elements}}));
        return step;
    }

    void write_steps() {
        plan.phases.resize(plan_phases());
        for (int i : order) {
            const Node &node = graph.nodes[size_t(i)];
            if (!node.op->kernel)
                throw InternalError("plan: '" + std::string(node.op->name) + "' of layer '" + node.layer +
                                    "' has no kernel");
            PlanPhase &phase = plan.phases[size_t(plan_phase(i))];
            Space space = times.space[size_t(i)];
            (space == Space::block  ? phase.block
             : space == Space::tile ? phase.tile
                                    : phase.tail)
                .push_back(make_step(i));
        }
        // After every update, since those may read the old states.
        for (int assign : copies) plan.phases.back().tail.push_back(make_copy(graph.nodes[size_t(assign)]));
    }

    void find_facts() {
        for (const Node &node : graph.nodes) {
            if (named(node, "output") && !graph.shape(node.inputs[0]).per_block()) {
                int64_t offset = storage[size_t(root(node.inputs[0]))].offset;
                if (node.attrs.string("name") == "loss") plan.loss_offset = offset;
                if (node.attrs.string("name") == "correct") plan.correct_offset = offset;
            }
            // Statistics of one value per channel have no variance to normalise with.
            if (named(node, "batch_stats_partial") && plan.min_batch == 1) {
                const Shape &x = graph.shape(node.inputs[0]);
                if (x.elements() == x[1]) {
                    plan.min_batch = 2;
                    plan.min_batch_layer = node.layer;
                }
            }
        }
    }
};

} // namespace

std::string KernelSpec::key() const {
    std::string key = generator;
    for (auto &[name, value] : parameters) key += " " + name + "=" + value;
    return key;
}

Plan make_plan(const Graph &graph, Mode mode, const ParameterTable &parameters, const KernelContext &context) {
    Planner planner(graph, mode, parameters, context);
    planner.find_roots();
    planner.place_sources();
    planner.find_prepared();
    planner.find_order();
    planner.place_updates();
    planner.place_values();
    planner.write_steps();
    planner.find_facts();
    return std::move(planner.plan);
}

} // namespace cryolite
