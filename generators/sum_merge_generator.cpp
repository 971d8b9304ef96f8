// Sum of partial sums over blocks, in block order, in double. Contract: kernels.md.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

class SumMerge : public Generator<SumMerge> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, size{"size", 1}, max_batch{"max_batch", 1}, mean_count{"mean_count", 0};
    Input<int> batch{"batch"};
    Input<Buffer<float, 2>> partial{"partial"};
    Output<Buffer<float, 1>> total{"total"};

    void generate() {
        int v = resolve_lanes(lanes, get_target());
        int vector = std::min(8, int(size)), chunk = size >= 64 ? 32 : vector;
        Var i("i"), io, ii;
        RDom t(0, (batch + v - 1) / v);
        Func sum("sum");
        sum(i) = cast<double>(0);
        sum(i) += cast<double>(partial(i, t));
        Expr scale = mean_count > 0 ? Expr(1.0) / (cast<double>(batch) * Expr(double(mean_count))) : Expr(1.0);
        total(i) = cast<float>(sum(i) * scale);
        total.split(i, io, ii, chunk, TailStrategy::ShiftInwards).vectorize(ii, vector);
        sum.compute_at(total, io).store_in(MemoryType::Stack).bound_extent(i, chunk).vectorize(i, vector).unroll(i);
        sum.update().reorder(i, t).vectorize(i, vector).unroll(i);
        partial.dim(0).set_bounds(0, size).set_stride(1);
        partial.dim(1).set_min(0).set_stride(size);
        set_dense(total, {size});
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::SumMerge, sum_merge)
