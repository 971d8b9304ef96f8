// What the heavy generators share: dense buffers with constant bounds, the lane count, sums over lanes.
#pragma once

#include "Halide.h"
#include "schedule.h"

#include <vector>

namespace cryolite {

// Constant extents and strides of a dense buffer with minimum 0: no kernel reads them at run time. A last extent of 0
// is left to run time.
template <class Buffer> void set_dense(Buffer &&buffer, const std::vector<int> &extents) {
    int stride = 1, d = 0;
    for (int extent : extents) {
        buffer.dim(d).set_stride(stride);
        if (extent > 0)
            buffer.dim(d).set_bounds(0, extent);
        else
            buffer.dim(d).set_min(0);
        stride *= extent;
        d++;
    }
}

// The block is the last dimension: where `blocks` is 0 they are left to run time, and with them the
// distance of blocks.
template <class Buffer> void set_blocks(Buffer &&buffer, std::vector<int> extents, int blocks) {
    extents.push_back(blocks);
    set_dense(buffer, extents);
    if (blocks == 0) buffer.dim(buffer.dimensions() - 1).set_stride(Halide::Expr());
}

// The distance of blocks is the caller's: a value may lie inside a larger one (compiler/views.h).
template <class Buffer> void leave_block_stride(Buffer &&buffer) {
    buffer.dim(buffer.dimensions() - 1).set_stride(Halide::Expr());
}

// What accumulators start from: as neutral as 0, and a pattern that LLVM does not turn into a call of memset.
inline Halide::Expr nothing() { return Halide::Internal::FloatImm::make(Halide::Float(32), -0.0); }

// The generator parameter `lanes`: 0 is the target's float32 vector.
int resolve_lanes(const Halide::Target &target, int lanes);

// Blocks in one call, from the generator parameter `n`: 0 is one block.
int resolve_blocks(int n, int lanes);
// On a GPU 0: a call has all blocks of the batch.
int resolve_blocks(const Halide::Target &target, int n, int lanes);

Registers registers_of(const Halide::Target &target, int lanes);

// Sums over lanes of `count` values side by side: result(q, outer...) = sum over l of value(l, q, outer...). A tree of
// log2(lanes) stages, each adding neighbours of the flattened (l, q): two shuffles and an addition per pair of vectors
// instead of one addition per element.
class LaneSums {
public:
    LaneSums(Halide::Func value, int lanes, int count, const std::vector<Halide::Var> &outer);

    Halide::Func result() const { return stages_.back(); }
    // Where all stages and the value itself are computed; the value's own schedule is the caller's.
    void compute_at(Halide::Func consumer, Halide::Var loop);

private:
    std::vector<Halide::Func> stages_;
    Halide::Var j_{"j"};
    int lanes_, count_;
};

} // namespace cryolite
