// Where every value of a plan lies.
//
// Block-level values that only their own phase reads lie in scratch, one copy a thread, and those that only the steps
// of one strip read, one strip of them (strips.h); of a gradient that its update goes with, one tile
// (joined_updates.h); all others in the arena, batch-wide. Where strips are tasks, no whole values lie in scratch. The
// arena's lifetimes count phases, scratch's count steps inside a phase. On a device a step is a launch for all blocks,
// after all steps before it: everything lies in the arena, and lifetimes count steps.
#ifndef CRYOLITE_STORAGE_H
#define CRYOLITE_STORAGE_H

#include "plan.h"
#include "step_order.h"

namespace cryolite {

struct Storage {
    cryo_region region = CRYO_REGION_ARENA;
    int64_t offset = 0;
    int64_t block_stride = 0; // bytes; 0: not per block
    bool of_strip = false;    // each strip, or tile, lies where the one before it lay
};

struct Storages {
    std::vector<ValueId> roots; // by ValueId: of a view, or over which a result is written
    std::vector<Storage> by_root;
    std::map<int, int64_t> kernel_scratch; // by step: offset of what its kernel asks for
    std::vector<int> copies;               // assign nodes whose value could not be made in place
    int64_t arena_bytes = 0, arena_peak = 0, scratch_bytes = 0, prepared_bytes = 0; // as in Plan

    const Storage &of(ValueId v) const { return by_root[size_t(roots[size_t(v)])]; }
};

Storages place_values(const Graph &graph, const StepOrder &order, const ParameterTable &parameters,
                      const KernelContext &context);

} // namespace cryolite
#endif
