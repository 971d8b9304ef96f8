// What the pass and the ops of the path for one sample share (channels.cpp).
#ifndef CRYOLITE_OPS_CHANNELS_H
#define CRYOLITE_OPS_CHANNELS_H

#include "../op.h"

#include "channels_schedule.h"

namespace cryolite {

// Whether a value lies [c][h][w].
bool is_planar(const Graph &graph, ValueId v);

// Views count elements of [c][h][w]: so many of them are one element where the value lies.
int64_t channels_apart(const Graph &graph, ValueId v);

// node: a channels_conv2d, whose u may be missing.
ChannelsConv channels_conv(const Graph &graph, const Node &node, const KernelContext &context);

} // namespace cryolite
#endif
