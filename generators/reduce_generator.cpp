// Generator `sum_merge` (kernels.md): partial sums of the blocks into one, in block order and in double, so that the
// result depends on nothing but the batch.
#include "gpu.h"
#include "lanes.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

class SumMerge : public Halide::Generator<SumMerge> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, size{"size", 1}, max_batch{"max_batch", 1},
        mean_count{"mean_count", 0};
    Input<int> batch{"batch"};
    Input<Buffer<float, 2>> partial{"partial"};
    Output<Buffer<float, 1>> out{"out"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), width = vector_width(size, natural_vector_size<float>());
        set_blocks(partial, {size}, 0);
        set_dense(out, {size});
        Var i("i"), io("io"), ii("ii");
        Func sum("sum");
        RDom d(1, (batch - 1) / v);
        sum(i) = cast<double>(partial(i, 0));
        sum(i) += cast<double>(partial(i, d.x));
        out(i) = cast<float>(mean_count ? sum(i) / (cast<double>(batch) * Expr(double(mean_count))) : sum(i));
        if (is_gpu(get_target())) return gpu::whole_map(out);
        const int unroll = std::clamp(size / width, 1, 4);
        out.split(i, io, ii, width * unroll, TailStrategy::ShiftInwards).vectorize(ii, width).unroll(ii);
        out.never_partition_all();
        sum.compute_at(out, io).vectorize(i, width).unroll(i);
        sum.update().reorder(i, d.x).vectorize(i, width).unroll(i).never_partition_all();
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::SumMerge, sum_merge)
