// The plan of one mode: which kernel is called when, on which bytes. What plan_format.h holds, before it is emitted.
#ifndef CRYOLITE_PLAN_H
#define CRYOLITE_PLAN_H

#include "op.h"

#include "../runtime/plan_format.h"

namespace cryolite {

struct PlanArg {
    cryo_arg_kind kind = CRYO_ARG_BUFFER;
    cryo_region region = CRYO_REGION_ARENA;
    cryo_type type = CRYO_F32;
    int64_t offset = 0, block_stride = 0, tile_stride = 0; // bytes
    std::vector<cryo_dim> dims;                            // innermost first
};
// A generator and its parameters, lanes among them. Equal ones are one kernel.
struct KernelSpec {
    std::string generator;
    std::map<std::string, std::string> parameters;
    std::string key() const; // readable: "conv2d c=6 h=12 ... lanes=16"
};
struct PlanStep {
    std::string layer;
    KernelSpec kernel;
    std::vector<PlanArg> args;
    int64_t tiles = 1;        // of a block step: strips (strips.h)
    bool of_block = false;    // the tiles are of each block
    int64_t joined_steps = 1; // so many, from this one on, go together, strip by strip of a block, or tile by tile
    double flops = 0, bytes = 0;
    int64_t outputs = 1; // of the args, the last ones
};
struct PlanPhase {
    std::vector<PlanStep> block, tile, tail;
};
struct Plan {
    Mode mode = Mode::infer;
    bool one = false; // of one sample, channels innermost
    int64_t lanes = 1;
    std::vector<PlanPhase> phases;
    const char *name() const { return one ? "infer_one" : mode_name(mode); }
    int64_t arena_bytes = 0, arena_peak = 0; // the peak is what the lifetimes need at least
    int64_t scratch_bytes = 0;
    bool strip_tasks = false;                        // strips are tasks, not blocks
    int64_t prepared_phases = 0, prepared_bytes = 0; // run when parameters or states changed; what they leave
    int64_t loss_offset = -1, correct_offset = -1;
    int64_t min_batch = 1;
    std::string min_batch_layer;
};

// Parameters and states of all plans, in one block.
struct ParameterEntry {
    std::string name;
    cryo_role role;
    Shape shape;
    int64_t offset; // bytes
    cryo_init init;
    double init_value;
};
struct ParameterTable {
    std::vector<ParameterEntry> entries;
    int64_t bytes = 0;
    const ParameterEntry &at(const std::string &name) const;
};

// The parameters and states of a graph in order of appearance: parameters and states first, the optimizer's after.
ParameterTable layout_parameters(const Graph &graph);

// graph: the result of run_pipeline.
Plan make_plan(const Graph &graph, Mode mode, const ParameterTable &parameters, const KernelContext &context);

// One line a step, for --emit plan.
std::string print(const Plan &plan);

} // namespace cryolite
#endif
