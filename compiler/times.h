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
    std::vector<bool> update; // by node: its results are only assigned, so it runs at the very end
    int last = 0;             // last phase without updates
};

// graph: lowered, before or after fuse. context tells tile kernels from others.
Times schedule_times(const Graph &graph, const KernelContext &context);

// By ValueId: whole values that parameters, states and constants determine alone, the same for every batch and step.
std::vector<bool> depends_on_stored(const Graph &graph);

} // namespace cryolite
#endif
