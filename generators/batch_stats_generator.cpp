// Batch statistics: mean and M2 of a block, and their merge. Contract: kernels.md.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

// Two passes over the block while it is in cache: the mean, from the differences to the block's first value, so that
// equal values give it exactly; then M2 from the differences to the mean, less what the mean's own rounding adds.
class BatchStats : public Generator<BatchStats> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1};
    Input<int> valid{"valid"};
    Input<Buffer<float, 5>> input{"input"};
    Output<Buffer<float, 3>> partial{"partial"};

    void generate() {
        int v = resolve_lanes(lanes, get_target()), blocks = n > 0 ? n / v : 1;
        int chains = tile_extent(w, 4);
        while (w % chains) chains--;
        Var l("l"), u("u"), ch("ch"), b("b"), m("m");
        RDom t(0, w / chains, 0, h);
        Expr samples = clamp(valid - b * v, 0, v), count = cast<float>(samples) * float(int(h) * int(w));
        auto real = [&](Expr value) { return select(l < samples, value, 0.f); };
        Expr value = input(l, t.x * chains + u, t.y, ch, b), first = input(0, 0, 0, ch, b);
        auto lane_sum = [&](Func f, int item) {
            return tree_sum([&](int i) { return tree_sum([&](int j) { return f(i, j, ch, b)[item]; }, chains); }, v);
        };
        Func sum("sum"), mean("mean"), spread("spread");
        sum(l, u, ch, b) = Tuple(0.f, 0.f);
        sum(l, u, ch, b) = Tuple(sum(l, u, ch, b)[0] + real(value - first), 0.f);
        mean(ch, b) = first + lane_sum(sum, 0) / count;
        Expr d = real(value - mean(ch, b));
        spread(l, u, ch, b) = Tuple(0.f, 0.f);
        spread(l, u, ch, b) = Tuple(spread(l, u, ch, b)[0] + d, spread(l, u, ch, b)[1] + d * d);
        Expr rest = lane_sum(spread, 0);
        partial(m, ch, b) = mux(m, {mean(ch, b), max(lane_sum(spread, 1) - rest * rest / count, 0.f)});

        partial.bound(m, 0, 2).unroll(m);
        mean.compute_at(partial, ch).store_in(MemoryType::Stack);
        for (Func f : {sum, spread}) {
            f.compute_at(partial, ch)
                .store_in(MemoryType::Stack)
                .bound_extent(l, v)
                .bound_extent(u, chains)
                .vectorize(l, v)
                .unroll(u);
            f.update().reorder(l, u, t.x, t.y, ch, b).vectorize(l, v).unroll(u);
        }
        set_dense(input, {v, w, h, c, blocks});
        set_dense(partial, {2, c, blocks});
    }
};

// mean and variance over all blocks, by Chan's formula in double, in block order.
class BatchStatsMerge : public Generator<BatchStatsMerge> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, count{"count", 1}, max_batch{"max_batch", 1};
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> partial{"partial"};
    Output<Func> result{"result", {Float(32), Float(32)}, 1}; // mean, variance

    void generate() {
        int v = resolve_lanes(lanes, get_target());
        int vector = std::min(8, int(c));
        Var ch("ch"), co, ci;
        RDom t(0, (batch + v - 1) / v);
        auto samples = [&](Expr block) { return cast<double>(min(batch - block * v, v)) * Expr(double(count)); };
        Expr all = cast<double>(batch) * Expr(double(count));
        Func mean("merged_mean"), m2("merged_m2");
        mean(ch) = cast<double>(0);
        mean(ch) += cast<double>(partial(0, ch, t)) * (samples(t) / all);
        Expr d = cast<double>(partial(0, ch, t)) - mean(ch);
        m2(ch) = cast<double>(0);
        m2(ch) += cast<double>(partial(1, ch, t)) + samples(t) * d * d;
        result(ch) = Tuple(cast<float>(mean(ch)), cast<float>(m2(ch) / all));
        result.split(ch, co, ci, vector, TailStrategy::ShiftInwards).vectorize(ci);
        for (Func f : {mean, m2}) {
            f.compute_at(result, co).store_in(MemoryType::Stack).bound_extent(ch, vector).vectorize(ch);
            f.update().reorder(ch, t).vectorize(ch);
        }
        partial.dim(0).set_bounds(0, 2).set_stride(1);
        partial.dim(1).set_bounds(0, c).set_stride(2);
        partial.dim(2).set_min(0).set_stride(2 * c);
        for (OutputImageParam out : Func(result).output_buffers()) set_dense(out, {c});
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::BatchStats, batch_stats)
HALIDE_REGISTER_GENERATOR(cryolite::BatchStatsMerge, batch_stats_merge)
