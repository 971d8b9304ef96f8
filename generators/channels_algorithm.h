// How `channels_conv2d` makes the sums of its products: one of three algorithms.
#pragma once

#include "channels_schedule.h"

#include "Halide.h"

#include <memory>
#include <vector>

namespace cryolite {

// What a task reads.
struct ChannelsSource {
    ChannelsConv conv;
    ChannelsConv::Schedule task;
    Halide::Func x, u, bias; // x (channel, column, row), u (channel within its block, c/G, s, r, block); bias or none
    Halide::Expr first_row;  // of the padded x, where the task begins
    bool planar;             // x's channels lie apart, its columns side by side

    // The bias, or 0 in a form that reads nothing.
    Halide::Expr begin(const Halide::Expr &channel) const;
};

class ChannelsAlgorithm {
public:
    virtual ~ChannelsAlgorithm() = default;
    // The convolution's result at (channel, column, row), row 0 the task's first.
    virtual Halide::Func product() = 0;
    // `out`, of the same arguments, is the program's result, which reads product().
    virtual void schedule(Halide::Func out, Halide::Var channel, Halide::Var px, Halide::Var py) = 0;
    // Funcs that are too large for the stack.
    virtual std::vector<Halide::Func> in_scratch() const = 0;
};

std::unique_ptr<ChannelsAlgorithm> channels_direct(const ChannelsSource &source);
std::unique_ptr<ChannelsAlgorithm> channels_in_chunks(const ChannelsSource &source);
std::unique_ptr<ChannelsAlgorithm> channels_winograd(const ChannelsSource &source);

// Rows of x from the task's first one, with its padding, (channel, column, row); copied where the schedule says so.
Halide::Func channels_padded(const ChannelsSource &source);

// Order of the loops in a register tile's update: lanes; vectors of channels and `pixels`, unrolled; the sum's. What
// waits in registers, `pixels` or else vectors of weights, should be the fewer.
void order_register_tile(Halide::Stage update, const Halide::Var &lane, const Halide::Var &vector,
                         const std::vector<Halide::Var> &pixels, bool pixels_wait, const Halide::RDom &sum);

} // namespace cryolite
