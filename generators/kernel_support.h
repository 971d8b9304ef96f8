// Halide's side of schedule.h: buffers, lanes and sums over lanes.
#ifndef CRYOLITE_KERNEL_SUPPORT_H
#define CRYOLITE_KERNEL_SUPPORT_H

#include "schedule.h"

#include <Halide.h>

namespace cryolite {

// Lower bound 0, dense, aligned: what every buffer of a kernel is.
template <typename Buffer> void set_dense(Buffer &&buffer, const std::vector<int> &extents) {
    int stride = 1;
    for (int d = 0; d < int(extents.size()); d++) {
        buffer.dim(d).set_bounds(0, extents[size_t(d)]).set_stride(stride);
        stride *= extents[size_t(d)];
    }
    buffer.set_host_alignment(64);
}

inline int resolve_lanes(int lanes, const Halide::Target &target) {
    return lanes > 0 ? lanes : target.natural_vector_size<float>();
}

// Accumulators that leave room for operands: of 32 vector registers with AVX-512, of 16 without.
inline int accumulators(const Halide::Target &target) {
    bool wide = target.has_feature(Halide::Target::AVX512_Skylake) || target.arch == Halide::Target::ARM;
    return wide ? 24 : 12;
}

// Sum of f(0) .. f(count - 1) as a balanced tree.
inline Halide::Expr tree_sum(const std::function<Halide::Expr(int)> &f, int count, int first = 0) {
    if (count == 1) return f(first);
    return tree_sum(f, count / 2, first) + tree_sum(f, count - count / 2, first + count / 2);
}

} // namespace cryolite
#endif
