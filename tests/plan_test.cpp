// Plans of the example networks, walked step by step with a label on every byte: each argument lies inside its region,
// each read finds what the graph says it reads, and nothing that runs side by side shares bytes.
#include "compile.h"
#include "passes.h"
#include "plan.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <tuple>

#include "examples/lenet.cpp"
#include "examples/lenet_plain.cpp"
#include "examples/lenet_scratch.cpp"
#include "examples/mlp.cpp"

using namespace cryolite;

namespace {

struct Range {
    int64_t begin = 0, end = 0;
    bool overlaps(const Range &other) const { return begin < other.end && other.begin < end; }
};

// Which value each byte of a region holds.
class Memory {
public:
    void write(Range range, ValueId value) {
        std::vector<std::pair<Range, ValueId>> kept;
        for (auto [old, label] : pieces_) {
            if (!old.overlaps(range)) kept.push_back({old, label});
            if (old.begin < range.begin && old.end > range.begin) kept.push_back({{old.begin, range.begin}, label});
            if (old.end > range.end && old.begin < range.end) kept.push_back({{range.end, old.end}, label});
        }
        kept.push_back({range, value});
        pieces_ = kept;
    }
    bool holds(Range range, ValueId value) const {
        int64_t bytes = 0;
        for (auto [piece, label] : pieces_)
            if (label == value && piece.overlaps(range))
                bytes += std::min(piece.end, range.end) - std::max(piece.begin, range.begin);
        return bytes == range.end - range.begin;
    }

private:
    std::vector<std::pair<Range, ValueId>> pieces_; // disjoint
};

struct Walk {
    const Graph &graph;
    const Plan &plan;
    const ParameterTable &parameters;
    KernelContext context;
    std::vector<ValueId> root; // behind reshapes
    std::vector<bool> done;    // by node
    std::map<cryo_region, Memory> memory;
    std::vector<std::tuple<Range, ValueId>> touched; // in the arena, in this phase

    Walk(const Graph &graph, const Plan &plan, const ParameterTable &parameters, const KernelContext &context)
        : graph(graph), plan(plan), parameters(parameters), context(context), root(graph.values.size()),
          done(graph.nodes.size(), false) {
        for (const Node &node : graph.nodes)
            for (ValueId v : node.outputs)
                root[size_t(v)] = node.op->place == Place::same ? root[size_t(node.inputs[0])] : v;
        for (const Node &node : graph.nodes)
            if (node.op == find_op("parameter") || node.op == find_op("state"))
                memory[CRYO_REGION_PARAMETERS].write(place_of(node), node.outputs[0]);
    }

    Range place_of(const Node &stored) const {
        const ParameterEntry &entry = parameters.at(stored.attrs.string("name"));
        return {entry.offset, entry.offset + entry.shape.elements() * 4};
    }

    // The bytes that all calls of a step together touch through an argument.
    Range range(const PlanStep &step, const PlanArg &arg) const {
        int64_t last = 0;
        for (const cryo_dim &dim : arg.dims) last += (dim.extent - 1) * dim.stride;
        int64_t end = arg.offset + (last + 1) * 4 + (step.tiles - 1) * arg.tile_stride;
        if (arg.block_stride) {
            EXPECT_LE(end - arg.offset, arg.block_stride) << "a block reaches into the next";
            end = arg.offset + arg.block_stride * context.max_blocks();
        }
        return {arg.offset, end};
    }

    void check_inside(const PlanArg &arg, Range bytes) const {
        EXPECT_GE(bytes.begin, 0);
        EXPECT_EQ(bytes.begin % CRYO_ALIGNMENT, 0);
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
            EXPECT_EQ(bytes.begin, 0) << "rows of the caller";
            EXPECT_GT(arg.block_stride, 0);
        }
    }

    // The first node that is not done yet and makes such a step; -1: a copy of an assigned value.
    int node_of(const PlanStep &step) {
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            const Node &node = graph.nodes[i];
            if (done[i] || !node.op->kernel || node.layer != step.layer) continue;
            Kernel kernel = node.op->kernel(graph, node, context);
            kernel.parameters["lanes"] = std::to_string(context.lanes);
            if (KernelSpec{kernel.generator, kernel.parameters}.key() != step.kernel.key()) continue;
            done[i] = true;
            return int(i);
        }
        return -1;
    }

    static bool has_memory(cryo_region region) {
        return region == CRYO_REGION_ARENA || region == CRYO_REGION_SCRATCH || region == CRYO_REGION_PARAMETERS ||
               region == CRYO_REGION_PREPARED;
    }

    void read_or_write(const PlanStep &step, const PlanArg &arg, ValueId value, bool write) {
        Range bytes = range(step, arg);
        check_inside(arg, bytes);
        if (!has_memory(arg.region)) return;
        if (arg.region == CRYO_REGION_ARENA) touched.push_back({bytes, value});
        if (write)
            memory[arg.region].write(bytes, value);
        else
            EXPECT_TRUE(memory[arg.region].holds(bytes, value))
                << "reads %" << value << " where something else was written";
    }

    void run(const PlanStep &step) {
        SCOPED_TRACE(step.layer + ": " + step.kernel.key());
        int index = node_of(step);
        if (index < 0) {
            ASSERT_EQ(step.args.size(), 2u) << "a step of no node";
            copy(step);
            return;
        }
        const Node &node = graph.nodes[size_t(index)];
        Kernel kernel = node.op->kernel(graph, node, context);
        ASSERT_EQ(kernel.args.size(), step.args.size());
        for (bool write : {false, true})
            for (size_t i = 0; i < step.args.size(); i++) {
                const KernelArg &arg = kernel.args[i];
                if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) continue;
                if ((arg.kind == KernelArg::output) != write) continue;
                ValueId v = (write ? node.outputs : node.inputs).at(size_t(arg.index));
                read_or_write(step, step.args[i], root[size_t(v)], write);
            }
    }

    // To the state that lies there.
    void copy(const PlanStep &step) {
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("assign")) continue;
            Range place = place_of(graph.producer(node.inputs[0])), to = range(step, step.args[1]);
            if (step.args[1].region != CRYO_REGION_PARAMETERS || place.begin != to.begin) continue;
            ValueId value = root[size_t(node.inputs[1])];
            read_or_write(step, step.args[0], value, false);
            read_or_write(step, step.args[1], value, true);
            return;
        }
        ADD_FAILURE() << "a copy to no state";
    }

    void run() {
        for (const PlanPhase &phase : plan.phases) {
            touched.clear();
            for (const std::vector<PlanStep> *steps : {&phase.block, &phase.tile, &phase.tail})
                for (const PlanStep &step : *steps) run(step);
            // Blocks and tiles run in any order, so values of one phase must lie apart.
            for (const auto &[a, x] : touched)
                for (const auto &[b, y] : touched)
                    EXPECT_FALSE(x != y && a.overlaps(b)) << "%" << x << " and %" << y << " share bytes in a phase";
        }
        for (size_t i = 0; i < graph.nodes.size(); i++) {
            const Node &node = graph.nodes[i];
            EXPECT_TRUE(!node.op->kernel || done[i]) << "no step: " << print(graph, node);
            if (node.op != find_op("assign")) continue;
            EXPECT_TRUE(memory[CRYO_REGION_PARAMETERS].holds(place_of(graph.producer(node.inputs[0])),
                                                             root[size_t(node.inputs[1])]))
                << print(graph, node);
        }
        check_results();
    }

    void check_results() {
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("output") || node.attrs.string("name") == "output") continue;
            int64_t offset = node.attrs.string("name") == "loss" ? plan.loss_offset : plan.correct_offset;
            EXPECT_TRUE(memory[CRYO_REGION_ARENA].holds({offset, offset + 4}, root[size_t(node.inputs[0])]));
        }
    }
};

struct Planned {
    Graph graph;
    ParameterTable parameters;
    Plan plan;

    Planned(const Network &network, Mode mode, const Sgd &sgd, const KernelContext &context)
        : graph(run_pipeline(network.graph(), {mode, sgd, context})),
          parameters(layout_parameters(run_pipeline(network.graph(), {Mode::train, sgd, context}))),
          plan(make_plan(graph, mode, parameters, context)) {}
};

// f(planned, context) for every example, mode, optimizer, batch and width.
template <class F> void each_plan(F f) {
    ASSERT_EQ(registered_networks().size(), 4u);
    for (const NetworkEntry &entry : registered_networks())
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer})
            for (double momentum : {0.0, 0.9})
                for (KernelContext context : {KernelContext{16, 256}, KernelContext{16, 17}, KernelContext{8, 17}}) {
                    SCOPED_TRACE(entry.name + "." + mode_name(mode) + ", batch " + std::to_string(context.max_batch));
                    auto network = entry.build();
                    f(Planned(*network, mode, {.momentum = momentum}, context), context);
                }
}

TEST(Plan, EveryReadFindsWhatWasWrittenForIt) {
    each_plan([](const Planned &planned, const KernelContext &context) {
        Walk(planned.graph, planned.plan, planned.parameters, context).run();
    });
}

TEST(Plan, TheArenaIsNearTheLeastThatLifetimesNeed) {
    double worst = 0;
    each_plan([&](const Planned &planned, const KernelContext &) {
        // The inference of a small network lives in scratch.
        if (planned.plan.mode == Mode::infer && planned.plan.arena_bytes == 0) return;
        ASSERT_GT(planned.plan.arena_peak, 0);
        double ratio = double(planned.plan.arena_bytes) / double(planned.plan.arena_peak);
        EXPECT_GE(ratio, 1);
        EXPECT_LE(ratio, 1.1);
        worst = std::max(worst, ratio);
    });
    RecordProperty("worst_ratio", std::to_string(worst));
    std::printf("arena over peak: at most %.4f\n", worst);
}

TEST(Plan, ParametersLieApart) {
    each_plan([](const Planned &planned, const KernelContext &) {
        int64_t end = 0;
        for (const ParameterEntry &entry : planned.parameters.entries) {
            EXPECT_EQ(entry.offset % CRYO_ALIGNMENT, 0) << entry.name;
            EXPECT_GE(entry.offset, end) << entry.name;
            end = entry.offset + entry.shape.elements() * 4;
        }
        EXPECT_LE(end, planned.parameters.bytes);
    });
}

// A batch of one value a channel cannot be trained: the plan says so, with the layer.
TEST(Plan, KnowsTheLeastBatch) {
    each_plan([](const Planned &planned, const KernelContext &) {
        EXPECT_TRUE(planned.plan.mode == Mode::train || planned.plan.min_batch == 1);
        EXPECT_EQ(planned.plan.min_batch > 1, !planned.plan.min_batch_layer.empty());
    });
    Network image("image"), features("features");
    image.classify(flatten(batch_norm(image.input("image", {3, 2, 1}))));
    features.classify(batch_norm(features.input("image", {3})));
    Planned two(image, Mode::train, {}, {8, 17}), one(features, Mode::train, {}, {8, 17});
    EXPECT_EQ(two.plan.min_batch, 1);
    EXPECT_EQ(one.plan.min_batch, 2);
    EXPECT_EQ(one.plan.min_batch_layer, "0");
}

} // namespace
