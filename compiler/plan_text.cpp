// A plan as text: one line a step, with where each argument lies.
#include "plan.h"

#include <fmt/format.h>

namespace cryolite {

static std::string arg_text(const PlanArg &arg) {
    static const char *const regions[] = {"parameters", "arena", "scratch", "control",
                                          "prepared",   "input", "label",   "output"};
    if (arg.kind == CRYO_ARG_BATCH) return "batch";
    if (arg.kind == CRYO_ARG_VALID) return "valid";
    if (arg.kind == CRYO_ARG_BLOCK) return "block";
    if (arg.kind == CRYO_ARG_TILE) return "tile";
    std::string text = fmt::format("{}+{}", regions[arg.region], arg.offset);
    if (arg.block_stride) text += fmt::format("+{}*block", arg.block_stride);
    if (arg.tile_stride) text += fmt::format("+{}*tile", arg.tile_stride);
    return text;
}

static std::string step_text(const char *space, const PlanStep &step) {
    std::string args;
    for (const PlanArg &arg : step.args) args += (args.empty() ? "" : ", ") + arg_text(arg);
    std::string tiles = step.tiles > 1 ? fmt::format(" x{}{}", step.tiles, step.of_block ? " of each block" : "") : "";
    if (step.joined_steps > 1) tiles += fmt::format(" of {} steps", step.joined_steps);
    return fmt::format("    {}{} '{}': {}\n        ({})\n", space, tiles, step.layer, step.kernel.key(), args);
}

std::string print(const Plan &plan) {
    std::string text = fmt::format("plan {}: arena {} bytes (at least {}), scratch {} bytes a thread", plan.name(),
                                   plan.arena_bytes, plan.arena_peak, plan.scratch_bytes);
    if (plan.strip_tasks) text += ", strips are tasks";
    if (plan.prepared_phases) text += fmt::format(", prepared {} bytes", plan.prepared_bytes);
    text += "\n";
    for (size_t p = 0; p < plan.phases.size(); p++) {
        text += fmt::format("  phase {}{}\n", p, int64_t(p) < plan.prepared_phases ? ", when parameters changed" : "");
        for (const PlanStep &step : plan.phases[p].block) text += step_text("block", step);
        for (const PlanStep &step : plan.phases[p].tile) text += step_text("tile", step);
        for (const PlanStep &step : plan.phases[p].tail) text += step_text("tail", step);
    }
    return text;
}

} // namespace cryolite
