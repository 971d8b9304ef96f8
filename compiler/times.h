// When a value of a lowered graph exists: which phase makes it, or which barrier.
//
// Between two batch-wide barriers every block goes its way alone. A block-level value made in phase p is there for the
// same block from phase p on. A whole value made at barrier p (by the tail of phase p, or by its tile tasks) is there
// for everybody from phase p + 1 on, and for later tail steps of p. Parameters and constants are there at barrier -1.
#ifndef CRYOLITE_TIMES_H
#define CRYOLITE_TIMES_H

#include "op.h"

namespace cryolite {

// What runs a node: the blocks of a phase, its tiles, or its tail.
enum class Space { none, block, tile, tail };

struct Times {
    std::vector<int> time;    // by ValueId: phase for block-level values, barrier for whole ones
    std::vector<Space> space; // by node
    std::vector<int> when;    // by node: its phase, or its barrier for tail nodes
    std::vector<bool> update; // by node: its results are only assigned, so it runs at the very end, unless it joins
    std::vector<int> joins;   // by node: whose tiles an update goes with (joined_updates.h), or -1
    int last = 0;             // last phase without updates
};

// Where the largest batch is one block, there are no blocks to merge. What makes whole values of the block's values,
// channel by channel, and is read by its steps again, is a step of the block then, without a barrier: batch norm's
// statistics, their factors and what applies them go together, strip by strip (strips.h). resnet50's step of 16 images
// has 198 phases instead of 296 and takes 0.98 of the time (Zen 5, two threads).
enum class Merges { at_barriers, in_the_only_block };

// graph: lowered, before or after fuse. context tells tile kernels from others.
Times schedule_times(const Graph &graph, const KernelContext &context, Merges merges = Merges::at_barriers);

// By ValueId: whole values that parameters, states and constants determine alone, the same for every batch and step.
std::vector<bool> depends_on_stored(const Graph &graph);

} // namespace cryolite
#endif
