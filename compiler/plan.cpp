// Arguments from kernels, steps from nodes, phase by phase.
#include "plan.h"

#include "ops/channels.h"
#include "step_order.h"
#include "storage.h"

#include <algorithm>

namespace cryolite {

namespace {

struct Planner {
    const Graph &graph;
    const KernelContext &context;
    const StepOrder &order;
    const Storages &storages;
    Plan plan;

    PlanArg make_arg(const Node &node, const KernelArg &arg) const {
        if (arg.kind >= KernelArg::batch && arg.kind <= KernelArg::tile) // both list them in this order
            return {.kind = cryo_arg_kind(CRYO_ARG_BATCH + (arg.kind - KernelArg::batch))};
        PlanArg result;
        ValueId v = (arg.kind == KernelArg::input ? node.inputs : node.outputs).at(size_t(arg.index));
        const Storage &place = storages.of(v);
        result.region = place.region;
        result.type = graph.type(v).type == Type::i32 ? CRYO_I32 : CRYO_F32;
        const int64_t lanes = graph.shape(v).batched() ? context.lanes : 1;
        const int64_t apart = context.vector ? channels_apart(graph, v) : 1;
        result.offset = place.offset + order.views[size_t(v)].first / apart * lanes * element_bytes;
        result.block_stride = arg.all_blocks ? 0 : place.block_stride;
        result.tile_stride = place.of_strip ? 0 : arg.tile_stride * element_bytes;
        int64_t stride = 1;
        for (size_t d = 0; d < arg.extents.size(); d++) {
            result.dims.push_back({arg.extents[d], arg.strides.empty() ? stride : arg.strides.at(d)});
            stride *= arg.extents[d];
        }
        const cryo_dim blocks{context.max_blocks(), place.block_stride / element_bytes};
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

    // index: of `order`.
    PlanStep make_step(int index) const {
        const Node &node = graph.nodes[size_t(order.nodes[size_t(index)])];
        const Strips *strips = order.strips_of(index);
        const KernelContext of_step = order.context_of(size_t(index), context);
        const Kernel kernel = strip_kernel(graph, node, of_step, strips ? strips->count : 1);
        const bool is_block = order.is_block(size_t(index));
        PlanStep step{.layer = node.layer,
                      .kernel = spec(kernel),
                      .args = {},
                      .tiles = std::max<int64_t>(kernel.tiles, 1),
                      .of_block = kernel.of_block && !is_block,
                      .joined_steps = strips && int(strips->first) == index ? int64_t(strips->end - strips->first)
                                                                            : order.steps_joined(size_t(index)),
                      .flops = kernel.flops * double(context.device && is_block ? context.max_blocks() : 1),
                      .outputs = 0};
        for (const KernelArg &arg : kernel.args) {
            if (arg.kind == KernelArg::scratch) {
                step.args.push_back({.region = CRYO_REGION_SCRATCH,
                                     .offset = storages.kernel_scratch.at(index),
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
        plan.phases.resize(size_t(order.phase_count()));
        for (int step = 0; step < int(order.size()); step++) {
            const size_t i = size_t(order.nodes[size_t(step)]);
            const Node &node = graph.nodes[i];
            if (!node.op->kernel)
                throw InternalError("plan: '" + std::string(node.op->name) + "' of layer '" + node.layer +
                                    "' has no kernel");
            PlanPhase &phase = plan.phases[size_t(order.phases[size_t(step)])];
            const Space space = order.times.space[i];
            (space == Space::block  ? phase.block
             : space == Space::tile ? phase.tile
                                    : phase.tail)
                .push_back(make_step(step));
        }
        // After every update, since those may read the old states.
        for (int assign : storages.copies) plan.phases.back().tail.push_back(make_copy(graph.nodes[size_t(assign)]));
    }

    void find_facts() {
        for (const Node &node : graph.nodes) {
            if (named(node, "output") && !graph.shape(node.inputs[0]).per_block()) {
                int64_t offset = storages.of(node.inputs[0]).offset;
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
    const StepOrder order = order_steps(graph, mode, context);
    const Storages storages = place_values(graph, order, parameters, context);
    Planner planner{.graph = graph, .context = context, .order = order, .storages = storages, .plan = {}};
    planner.plan.mode = mode;
    planner.plan.one = context.vector > 0;
    planner.plan.lanes = context.lanes;
    planner.plan.strip_tasks = context.has_few_blocks();
    planner.plan.prepared_phases = order.prepared_phases;
    planner.plan.prepared_bytes = storages.prepared_bytes;
    planner.plan.arena_bytes = storages.arena_bytes;
    planner.plan.arena_peak = storages.arena_peak;
    planner.plan.scratch_bytes = storages.scratch_bytes;
    planner.write_steps();
    planner.find_facts();
    return std::move(planner.plan);
}

} // namespace cryolite
