// A plan walked step by step with a label on every byte: each argument lies inside its region, each read finds what the
// graph says it reads, and nothing that runs side by side shares bytes.
#ifndef CRYOLITE_TESTS_PLAN_WALK_H
#define CRYOLITE_TESTS_PLAN_WALK_H

#include "byte_labels.h"
#include "plan.h"
#include "strips.h"
#include "times.h"

#include <algorithm>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <set>
#include <string>
#include <tuple>

namespace cryolite::test {

struct Walk {
    const Graph &graph;
    const Plan &plan;
    const ParameterTable &parameters;
    KernelContext context;
    Times times;
    std::vector<Parts> parts;                          // by value
    std::map<std::string, std::vector<size_t>> makers; // nodes that make such a step, the last in time first
    std::vector<bool> done;                            // by node
    int strips_walked = 0;                             // runs of steps that go in strips
    int updates_joined = 0;                            // that went with the tiles of their gradients
    std::map<cryo_region, Memory> memory;
    std::set<std::tuple<Range, Label, int>> touched; // in the arena, in this phase, by which block; -1: by any
    bool in_update = false;                          // of a step: it updates what is stored
    std::set<Range> stored_read, stored_written; // by blocks and tiles of this phase; by others than updates, by those

    Walk(const Graph &graph, const Plan &plan, const ParameterTable &parameters, const KernelContext &context)
        : graph(graph), plan(plan), parameters(parameters), context(context),
          times(schedule_times(graph, context, Merges::in_the_only_block)), parts(find_parts(graph)),
          done(graph.nodes.size(), false) {
        for (size_t i = graph.nodes.size(); i-- > 0;) {
            const Node &node = graph.nodes[i];
            if (node.op == find_op("parameter") || node.op == find_op("state"))
                access(CRYO_REGION_PARAMETERS, place_of(node), node.outputs[0], true);
            if (!node.op->kernel) continue;
            for (int64_t strips : strip_counts()) {
                const int64_t channels = kernel_of(i).channels;
                if (strips > 1 && (channels == 0 || channels % strips != 0)) continue;
                Kernel kernel = kernel_of(i, strips);
                kernel.parameters["lanes"] = std::to_string(context.lanes);
                makers[step_key(node.layer, {kernel.generator, kernel.parameters}, strips)].push_back(i);
            }
        }
        for (auto &[key, nodes] : makers)
            std::ranges::stable_sort(nodes, std::greater(),
                                     [&](size_t i) { return std::pair(times.when[i], times.space[i]); });
    }

    Kernel kernel_of(size_t node, int64_t strips = 1) const {
        KernelContext of_node = context;
        of_node.joined = times.joins[node] >= 0 || std::ranges::count(times.joins, int(node)) > 0;
        return strip_kernel(graph, graph.nodes[node], of_node, strips);
    }

    // 1, and those that block steps go in.
    std::set<int64_t> strip_counts() const {
        std::set<int64_t> counts{1};
        for (const PlanPhase &phase : plan.phases)
            for (const PlanStep &step : phase.block) counts.insert(step.tiles);
        return counts;
    }

    static std::string step_key(const std::string &layer, const KernelSpec &kernel, int64_t strips = 1) {
        return layer + ": " + kernel.key() + (strips > 1 ? " in " + std::to_string(strips) : "");
    }

    Range place_of(const Node &stored) const {
        const ParameterEntry &entry = parameters.at(stored.attrs.string("name"));
        return {entry.offset, entry.offset + entry.shape.elements() * 4};
    }

    // The bytes that all calls of a step together, or those for one strip, touch through an argument, a range for each
    // block.
    std::vector<Range> ranges(const PlanStep &step, PlanArg arg, bool all_blocks, int64_t strip = -1) const {
        if (all_blocks) {
            arg.block_stride = arg.dims.back().stride * 4;
            arg.dims.pop_back();
        }
        int64_t last = 0;
        for (const cryo_dim &dim : arg.dims) last += (dim.extent - 1) * dim.stride;
        const int64_t bytes = (last + 1) * 4 + (strip < 0 ? step.tiles - 1 : 0) * arg.tile_stride;
        if (strip >= 0) arg.offset += strip * arg.tile_stride;
        if (!arg.block_stride) return {{arg.offset, arg.offset + bytes}};
        EXPECT_LE(bytes, arg.block_stride) << "a block reaches into the next";
        std::vector<Range> result;
        for (int64_t b = 0; b < context.max_blocks(); b++)
            result.push_back({arg.offset + b * arg.block_stride, arg.offset + b * arg.block_stride + bytes});
        return result;
    }

    void check_inside(const PlanArg &arg, Range bytes) const {
        EXPECT_GE(bytes.begin, 0);
        switch (arg.region) {
        case CRYO_REGION_ARENA:
            EXPECT_LE(bytes.end, plan.arena_bytes);
            break;
        case CRYO_REGION_SCRATCH:
            EXPECT_LE(bytes.end, plan.scratch_bytes);
            break;
        case CRYO_REGION_PARAMETERS:
            EXPECT_LE(bytes.end, parameters.bytes);
            break;
        case CRYO_REGION_PREPARED:
            EXPECT_LE(bytes.end, plan.prepared_bytes);
            break;
        case CRYO_REGION_CONTROL:
            EXPECT_LE(bytes.end, int64_t(sizeof(cryo_control)));
            break;
        default:
            EXPECT_EQ(arg.offset, 0) << "rows of the caller";
            EXPECT_GT(arg.block_stride, 0);
        }
    }

    // The first node in time that is not done yet and makes such a step; -1: a copy of an assigned value.
    int node_of(const PlanStep &step, int64_t strips) {
        std::vector<size_t> &nodes = makers[step_key(step.layer, step.kernel, strips)];
        while (!nodes.empty() && done[nodes.back()]) nodes.pop_back();
        if (nodes.empty()) return -1;
        done[nodes.back()] = true;
        return int(nodes.back());
    }

    static bool has_memory(cryo_region region) {
        return region == CRYO_REGION_ARENA || region == CRYO_REGION_SCRATCH || region == CRYO_REGION_PARAMETERS ||
               region == CRYO_REGION_PREPARED;
    }

    int64_t element_bytes(ValueId value) const { return graph.shape(value).batched() ? context.lanes * 4 : 4; }

    // A value, or its part of one block, by that block alone; -1: by others too.
    void access(cryo_region region, Range bytes, ValueId value, bool write, int block = -1) {
        ASSERT_EQ(bytes.end - bytes.begin, graph.shape(value).elements() * element_bytes(value)) << "%" << value;
        access_parts(region, bytes, value, parts[size_t(value)], write, block);
    }

    // One of so many strips of it.
    void access_strip(cryo_region region, Range bytes, ValueId value, bool write, int block, int64_t strip,
                      int64_t strips) {
        const int64_t elements = graph.shape(value).elements() / strips;
        ASSERT_EQ(bytes.end - bytes.begin, elements * element_bytes(value)) << "%" << value;
        access_parts(region, bytes, value, cut(parts[size_t(value)], strip * elements, elements), write, block);
    }

    void access_parts(cryo_region region, Range bytes, ValueId value, const Parts &pieces, bool write, int block) {
        int64_t at = bytes.begin;
        for (const Part &part : pieces) {
            const Range piece{at, at + part.count * element_bytes(value)};
            const Label label{part.value, at - part.from * element_bytes(value)};
            if (region == CRYO_REGION_ARENA) touched.insert({piece, label, block});
            if (region == CRYO_REGION_PARAMETERS && (write || !in_update))
                (write ? stored_written : stored_read).insert(piece);
            if (write)
                memory[region].write(piece, label);
            else
                EXPECT_TRUE(memory[region].holds(piece, label))
                    << "reads %" << value << " where something else was written";
            at = piece.end;
        }
        EXPECT_EQ(at, bytes.end) << "%" << value;
    }

    struct Call {
        bool by_block = false;
        int64_t strip = -1;     // -1: all of the step's calls
        ValueId but = no_value; // a value that is accessed elsewhere
    };

    void read_or_write(const PlanStep &step, const PlanArg &arg, const KernelArg &made, ValueId value, bool write,
                       Call call) {
        // Parts of a concat begin with any element, which is one vector.
        const int64_t vector = std::min<int64_t>(context.lanes * 4, CRYO_ALIGNMENT);
        EXPECT_EQ(arg.offset % (graph.shape(value).batched() ? vector : CRYO_ALIGNMENT), 0);
        const bool of_strip = call.strip >= 0 && made.tile_stride != 0;
        // The only block's steps follow each other, whatever they touch.
        int block = call.by_block && (arg.block_stride || context.max_blocks() == 1) ? 0 : -1;
        for (const Range &bytes : ranges(step, arg, made.all_blocks, call.strip)) {
            check_inside(arg, bytes);
            if (!has_memory(arg.region)) continue;
            if (of_strip)
                access_strip(arg.region, bytes, value, write, block, call.strip, step.tiles);
            else
                access(arg.region, bytes, value, write, block);
            if (block >= 0) block++;
        }
    }

    // index: its node; -1: none.
    void run(const PlanStep &step, int index, Call call) {
        SCOPED_TRACE(step_key(step.layer, step.kernel));
        if (index < 0) {
            ASSERT_EQ(step.args.size(), 2u) << "a step of no node";
            copy(step);
            return;
        }
        const Node &node = graph.nodes[size_t(index)];
        const Kernel kernel = kernel_of(size_t(index), call.strip < 0 ? 1 : step.tiles);
        ASSERT_EQ(kernel.args.size(), step.args.size());
        fill_scratch(step, kernel);
        in_update = times.update[size_t(index)];
        for (bool write : {false, true})
            for (size_t i = 0; i < step.args.size(); i++) {
                const KernelArg &arg = kernel.args[i];
                if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) continue;
                if ((arg.kind == KernelArg::output) != write) continue;
                ValueId v = (write ? node.outputs : node.inputs).at(size_t(arg.index));
                if (v != call.but) read_or_write(step, step.args[i], arg, v, write, call);
            }
        fill_scratch(step, kernel);
    }

    // What a kernel uses as it likes is nobody's before and after.
    void fill_scratch(const PlanStep &step, const Kernel &kernel) {
        for (size_t i = 0; i < step.args.size(); i++) {
            if (kernel.args[i].kind != KernelArg::scratch) continue;
            const Range bytes{step.args[i].offset, step.args[i].offset + 4 * kernel.scratch};
            EXPECT_EQ(step.args[i].region, CRYO_REGION_SCRATCH);
            check_inside(step.args[i], bytes);
            memory[CRYO_REGION_SCRATCH].write(bytes, {});
        }
    }

    static const PlanArg &arg_of(const PlanStep &step, const Kernel &kernel, KernelArg::Kind kind, int index) {
        for (size_t i = 0; i < kernel.args.size(); i++)
            if (kernel.args[i].kind == kind && kernel.args[i].index == index) return step.args[i];
        throw std::logic_error("no such argument");
    }

    // A gradient's tiles, each of which its update reads before the next one takes its place.
    void run_joined(const PlanStep &maker, const PlanStep &update) {
        SCOPED_TRACE(step_key(update.layer, update.kernel));
        const int made = node_of(maker, 1), joined = node_of(update, 1);
        ASSERT_GE(made, 0);
        ASSERT_GE(joined, 0);
        EXPECT_EQ(times.joins[size_t(joined)], made);
        EXPECT_EQ(maker.tiles, update.tiles);
        const Node &reader = graph.nodes[size_t(joined)];
        const ValueId gradient = graph.nodes[size_t(made)].outputs.at(0);
        const int input = int(std::ranges::find(reader.inputs, gradient) - reader.inputs.begin());
        const PlanArg &from = arg_of(maker, kernel_of(size_t(made)), KernelArg::output, 0);
        const PlanArg &to = arg_of(update, kernel_of(size_t(joined)), KernelArg::input, input);
        EXPECT_EQ(from.region, CRYO_REGION_SCRATCH);
        EXPECT_EQ(from.tile_stride, 0);
        EXPECT_EQ(to.tile_stride, 0);
        const int64_t elements = graph.shape(gradient).elements() / maker.tiles;
        for (int64_t tile = 0; tile < maker.tiles; tile++) {
            memory[CRYO_REGION_SCRATCH] = {}; // another thread's
            const Range bytes{from.offset, from.offset + 4 * elements};
            check_inside(from, bytes);
            access_parts(CRYO_REGION_SCRATCH, bytes, gradient, cut(parts[size_t(gradient)], tile * elements, elements),
                         true, -1);
            fill_scratch(maker, kernel_of(size_t(made)));
            access_parts(to.region, {to.offset, to.offset + 4 * elements}, gradient,
                         cut(parts[size_t(gradient)], tile * elements, elements), false, -1);
        }
        for (bool is_update : {false, true})
            run(is_update ? update : maker, is_update ? joined : made, {.but = gradient});
        updates_joined++;
    }

    void run_tile_steps(const std::vector<PlanStep> &steps) {
        for (size_t s = 0; s < steps.size(); s += size_t(steps[s].joined_steps)) {
            ASSERT_LE(steps[s].joined_steps, 2);
            if (steps[s].joined_steps == 2)
                run_joined(steps[s], steps.at(s + 1));
            else
                run(steps[s], node_of(steps[s], 1), {});
        }
    }

    // Those that go in strips, as the runtime does: all of them for the last strip, then for the one before it.
    void run_block_steps(const std::vector<PlanStep> &steps) {
        for (size_t first = 0, end = 0; first < steps.size(); first = end) {
            end = first + size_t(steps[first].joined_steps);
            ASSERT_LE(end, steps.size());
            std::vector<int> nodes;
            for (size_t s = first; s < end; s++) {
                EXPECT_EQ(steps[s].tiles, steps[first].tiles);
                EXPECT_EQ(steps[s].joined_steps, s == first ? int64_t(end - first) : 1);
                nodes.push_back(node_of(steps[s], steps[s].tiles));
            }
            const bool in_strips = steps[first].tiles > 1;
            strips_walked += in_strips;
            for (int64_t strip = in_strips ? steps[first].tiles - 1 : -1; strip >= (in_strips ? 0 : -1); strip--) {
                for (size_t s = first; s < end; s++)
                    run(steps[s], nodes[s - first], {.by_block = true, .strip = strip});
                if (plan.strip_tasks) memory[CRYO_REGION_SCRATCH] = {}; // another thread makes the next one
            }
        }
    }

    // To the state that lies there.
    void copy(const PlanStep &step) {
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("assign")) continue;
            Range place = place_of(graph.producer(node.inputs[0])), to = ranges(step, step.args[1], false)[0];
            if (step.args[1].region != CRYO_REGION_PARAMETERS || place.begin != to.begin) continue;
            read_or_write(step, step.args[0], {}, node.inputs[1], false, {});
            read_or_write(step, step.args[1], {}, node.inputs[1], true, {});
            return;
        }
        ADD_FAILURE() << "a copy to no state";
    }

    void run() {
        for (const PlanPhase &phase : plan.phases) {
            touched.clear();
            stored_read.clear();
            stored_written.clear();
            run_block_steps(phase.block);
            run_tile_steps(phase.tile);
            for (const Range &read : stored_read)
                for (const Range &written : stored_written)
                    EXPECT_FALSE(read.overlaps(written)) << "updated while others read it";
            for (const PlanStep &step : phase.tail) run(step, node_of(step, 1), {});
            // Blocks and tiles run in any order, so values of one phase must lie apart, but for those of one block,
            // whose steps follow each other.
            for (auto a = touched.begin(); a != touched.end(); a++)
                for (auto b = std::next(a); b != touched.end() && std::get<0>(*b).begin < std::get<0>(*a).end; b++) {
                    const bool of_one_block = std::get<2>(*a) >= 0 && std::get<2>(*a) == std::get<2>(*b);
                    EXPECT_TRUE(of_one_block || std::get<1>(*a) == std::get<1>(*b))
                        << "%" << std::get<1>(*a).value << " and %" << std::get<1>(*b).value
                        << " share bytes in a phase";
                }
        }
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            const Node &node = graph.nodes[i];
            EXPECT_TRUE(!node.op->kernel || done[i]) << "no step: " << print(graph, node);
            if (node.op != find_op("assign")) continue;
            SCOPED_TRACE(print(graph, node));
            access(CRYO_REGION_PARAMETERS, place_of(graph.producer(node.inputs[0])), node.inputs[1], false);
        }
        check_results();
    }

    void check_results() {
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("output") || node.attrs.string("name") == "output") continue;
            int64_t offset = node.attrs.string("name") == "loss" ? plan.loss_offset : plan.correct_offset;
            access(CRYO_REGION_ARENA, {offset, offset + 4}, node.inputs[0], false);
        }
    }
};

} // namespace cryolite::test
#endif
