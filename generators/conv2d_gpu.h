// Convolution and its gradients on a GPU: algorithms and schedules (kernels.md, "On a GPU"). Buffers have all channels
// in one dimension, whatever the groups, and the blocks in the last.
#pragma once

#include "conv2d.h"
#include "gpu.h"

namespace cryolite::gpu {

using At = std::function<Halide::Expr(const std::vector<Halide::Expr> &)>; // an element of a buffer

template <class Buffer> At element(Buffer &buffer) {
    return [&buffer](const std::vector<Halide::Expr> &at) { return Halide::Expr(buffer(at)); };
}

// bias may be null.
Halide::Func conv2d(const ConvShape &q, const GpuTile &wanted, const At &x, const At &weight, const At &bias);
Halide::Func conv2d_grad_input(const ConvShape &q, const GpuTile &wanted, const At &dy, const At &weight);

// dw(s, r, c, k, g, b), summed over the samples of block b; with `blocks`: dw(s, r, c, k, g), over all these blocks.
Halide::Func conv2d_grad_weight(const ConvShape &q, const GpuTile &wanted, const At &x, const At &dy,
                                const Halide::Expr &blocks = {});

} // namespace cryolite::gpu
