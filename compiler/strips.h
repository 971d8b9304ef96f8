// Block steps that go strip by strip: a strip is a range of a block's channels. What one of the steps makes, the next
// one reads while it is in the core's own cache, although a block's whole value is larger; and what only they read is
// stored for one strip, not for a block. Where blocks are too few to keep all processors busy, strips are the tasks.
// Of mobilenet_v2's step, two threads of a Zen 5, 0.86 to 0.93 of the time without, as memory is slow or fast; of batch
// 16, which is one block, 0.76 to 0.83 of that in tiles of each kernel.
#ifndef CRYOLITE_STRIPS_H
#define CRYOLITE_STRIPS_H

#include "op.h"
#include "views.h"

namespace cryolite {

// Of a list of a phase's block steps, those from `first` on, up to `end`: all of them run for one strip before any runs
// for the next. A single one only where strips are tasks.
struct Strips {
    size_t first = 0, end = 0;
    int64_t count = 0; // of strips
};

// The kernel of a step that goes in so many strips; where they are 1, the kernel of the whole block.
Kernel strip_kernel(const Graph &graph, const Node &node, KernelContext context, int64_t strips);

// steps: the nodes of one phase's block steps, in the order in which they run. In order of their first steps.
std::vector<Strips> find_strips(const Graph &graph, const std::vector<int> &steps, const std::vector<View> &views,
                                const KernelContext &context);

} // namespace cryolite
#endif
