// Updates that go with the tiles of their gradients: a task that has made a tile of a weight's gradient goes on with
// the update of these weights. A gradient is then stored for one tile, in a core's cache, instead of being written to
// memory and read again, and takes no room in the arena. Steps of vgg11_bn take 0.91 of the time, resnet50's 0.975,
// others 0.98 to 1 (Zen 5).
#ifndef CRYOLITE_JOINED_UPDATES_H
#define CRYOLITE_JOINED_UPDATES_H

#include "times.h"

namespace cryolite {

// Moves such updates from the end of the step to the phase of their gradients' tiles, and these tiles behind the last
// phase that reads what is updated. times: all else is in place. Nothing on devices, whose calls have all of a value.
void join_updates(const Graph &graph, const KernelContext &context, Times &times);

} // namespace cryolite
#endif
