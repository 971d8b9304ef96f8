// Generators `batch_stats` and `batch_stats_merge` (kernels.md): mean and sum of squared deviations per block, merged
// by Chan's formula. Exact where E[x^2] - E[x]^2 cancels: large offsets, constants, outliers. The variance between
// blocks is of the differences of their means, which float32 would round to 6e-8 of the offset: so a block also gives
// what rounding took from its mean.
#include "algorithms_math.h"
#include "gpu.h"
#include "lanes.h"
#include "tuning.h"
#include "turn.h"

#include <algorithm>
#include <array>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Tuple, Halide::Var;

// Whether channels lie in vectors: planes are so small that sums over lanes would be most of the work. [n, 256] with
// AVX2, Zen 3: 1.3 us a block instead of 5.8; 512 channels of 4 pixels 9.6 instead of 13.9.
static bool turned_stats(int c, int h, int w) { return c >= 4 && h * w <= 4; }

// First a shift near the mean: the mean of every `step`-th row, itself computed relative to the first value, so that a
// constant gives exactly itself. Then one pass over deviations d from the shift: mean = shift + sum d / m,
// M2 = sum d^2 - (sum d)^2 / m. A shift that is the mean of a share f of the values is at most sqrt((1 - f) / f)
// standard deviations from the mean, so the subtraction loses at most a factor 1 / f of the precision, whatever the
// data.
// One Zen 5 core, in cache: [6,24,24] 1.4 us (157 GB/s), [16,8,8] 0.64 us, [120] 0.93 us.
class BatchStats : public Halide::Generator<BatchStats> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1};
    GeneratorParam<int> channels{"channels", 0}, columns_at_once{"columns_at_once", 0}; // knobs (tuning.h)
    Input<int> valid{"valid"};
    Input<Buffer<float, 5>> x{"x"};
    Output<Buffer<float>> partial{"partial"};

    void configure() { partial.set_dimensions(is_gpu(get_target()) ? 4 : 3); }

    void generate() {
        if (is_gpu(get_target())) return generate_gpu();
        const int v = resolve_lanes(get_target(), lanes), blocks = resolve_blocks(n, v), rows = h, columns = w;
        set_dense(x, {v, columns, rows, c, blocks});
        set_dense(partial, {3, c, blocks});
        if (turned_stats(c, h, w)) return generate_turned(v);
        const int step = rows < 4 ? 1 : 4,
                  unroll = columns_at_once ? int(columns_at_once) : largest_divisor(columns, 4),
                  group = channels ? int(channels) : group_size(v);

        // e: channel of the group; u: independent accumulators.
        Var l("l"), e("e"), u("u"), g("g"), b("b"), s("s"), channel("channel");
        auto at = [&](Expr index) { return c % group ? min(g * group, c - group) + index : g * group + index; };
        auto real = [&](Expr value) { return select(l < valid - b * v, value, 0.f); };
        Expr real_lanes = cast<float>(clamp(valid - b * v, 0, v));

        RDom ds(0, columns / unroll, 0, ceil_div(rows, step)), d(0, columns / unroll, 0, rows);
        Func near("near"), near_lane("near_lane"), shift("shift");
        Expr first = x(0, 0, 0, at(e), b);
        near(l, u, e, g, b) = nothing();
        near(l, u, e, g, b) += x(l, ds.x * unroll + u, ds.y * step, at(e), b) - first;
        near_lane(l, e, g, b) = real(over(unroll, [&](int i) { return Expr(near(l, i, e, g, b)); }));
        LaneSums near_sums(near_lane, v, group, {g, b});
        const float near_count = float(columns * ceil_div(rows, step));
        shift(e, g, b) = first + near_sums.result()(e, g, b) / (real_lanes * near_count);

        Func sums("sums"), sums_lane("sums_lane");
        Expr deviation = x(l, d.x * unroll + u, d.y, at(e), b) - shift(e, g, b);
        sums(l, u, e, g, b) = Tuple(nothing(), nothing());
        sums(l, u, e, g, b) = Tuple(sums(l, u, e, g, b)[0] + deviation, sums(l, u, e, g, b)[1] + deviation * deviation);
        auto sum_of = [&](int which, Expr element) {
            return real(over(unroll, [&](int i) { return Expr(sums(l, i, element, g, b)[which]); }));
        };
        sums_lane(l, e, g, b) = select(e < group, sum_of(0, e % group), sum_of(1, e % group));
        LaneSums lane_sums(sums_lane, v, 2 * group, {g, b});

        Func moments("moments");
        moments(e, g, b) = moments_of(shift(e, g, b), lane_sums.result()(e, g, b), lane_sums.result()(group + e, g, b),
                                      real_lanes * float(columns * rows));
        Expr gi = channel / group, local = channel - (c % group ? min(gi * group, c - group) : gi * group);
        partial(s, channel, b) = mux(s, {moments(local, gi, b)[0], moments(local, gi, b)[1], moments(local, gi, b)[2]});

        Var go("go"), ci("ci");
        partial.bound(s, 0, 3).split(channel, go, ci, group, TailStrategy::GuardWithIf).reorder(s, ci, go, b);
        partial.unroll(s).unroll(ci).never_partition_all();
        near_sums.compute_at(partial, go);
        lane_sums.compute_at(partial, go);
        for (Func f : {shift, moments}) f.compute_at(partial, go).bound(e, 0, group).vectorize(e, group);
        for (Func f : {near_lane, sums_lane}) f.compute_at(partial, go).bound(l, 0, v).vectorize(l, v).unroll(e);
        near_lane.bound(e, 0, group);
        sums_lane.bound(e, 0, 2 * group);
        for (Func f : {near, sums}) f.compute_at(partial, go).bound(l, 0, v).bound(u, 0, unroll).bound(e, 0, group);
        for (Func f : {near, sums}) f.vectorize(l, v).unroll(u).unroll(e);
        near.update().reorder(l, u, e, ds.x, ds.y).vectorize(l, v).unroll(u).unroll(e).never_partition_all();
        sums.update().reorder(l, u, e, d.x, d.y).vectorize(l, v).unroll(u).unroll(e).never_partition_all();
    }

private:
    // The same in vectors of channels.
    void generate_turned(int v) {
        const int pixels = int(h) * int(w), width = vector_width(c, natural_vector_size<float>());
        Var i("i"), l("l"), p("p"), b("b"), s("s"), io("io"), ii("ii");
        Turn turn("turned", i, l, {p, b}, x(l, p % w, p / w, i, b));
        RDom d(0, v, 0, pixels);
        Expr real_lanes = clamp(valid - b * v, 0, v), count = cast<float>(real_lanes * pixels);
        // Strict: LLVM would make one subtraction of the sum of all differences, which then cancels.
        auto near_to = [&](const Expr &from) {
            return select(d.x < real_lanes, strict_sub(turn.turned(i, d.x, d.y, b), from), 0.f);
        };
        Func near("near"), shift("shift"), sums("sums"), moments("moments");
        Expr first = turn.turned(i, 0, 0, b);
        near(i, b) = nothing();
        near(i, b) += near_to(first);
        shift(i, b) = first + near(i, b) / count;
        Expr deviation = near_to(shift(i, b));
        sums(i, b) = Tuple(nothing(), nothing());
        sums(i, b) = Tuple(sums(i, b)[0] + deviation, sums(i, b)[1] + deviation * deviation);
        moments(i, b) = moments_of(shift(i, b), sums(i, b)[0], sums(i, b)[1], count);
        partial(s, i, b) = mux(s, {moments(i, b)[0], moments(i, b)[1], moments(i, b)[2]});

        partial.bound(s, 0, 3).split(i, io, ii, width, TailStrategy::ShiftInwards).reorder(s, ii, io, b);
        partial.unroll(s).vectorize(ii).never_partition_all();
        for (Func f : {near, shift, sums, moments}) f.compute_at(partial, io).vectorize(i, width);
        for (Func f : {near, sums}) f.update().reorder(i, d.x, d.y).vectorize(i, width).unroll(d.x).unroll(d.y);
        turn.schedule(Halide::LoopLevel(partial, io), v, width, width);
    }

    // Mean, sum of squared deviations from it, and what rounding took from it, of sums of deviations from a shift.
    static Tuple moments_of(const Expr &shift, const Expr &deviations, const Expr &squares, const Expr &count) {
        Expr sum = deviations / count, m2 = squares - sum * sum * count;
        Expr mean = strict_add(shift, sum), rest = strict_sub(sum, strict_sub(mean, shift));
        // Of a mean that is infinite or NaN nothing is left.
        return {mean, select(is_nan(m2), m2, max(m2, 0.f)), select(is_nan(rest), 0.f, rest)};
    }

    // Pixels are dealt out to parts; a value is a lane's sum over a part, then over parts, then over lanes. Two passes
    // over the block: the mean relative to the first value, then squared deviations from it.
    void generate_gpu() {
        const int v = resolve_lanes(get_target(), lanes), columns = w, pixels = columns * static_cast<int>(h);
        const int parts = std::min(pixels, std::max(1, gpu::group / v)), all = v * parts;
        set_blocks(x, {v, w, h, c}, 0);
        set_blocks(partial, {3, c, 1}, 0);
        Var m("m"), i("i"), one("one"), b("b"), s("s");
        Expr lane = m % v, real = lane < valid - b * v;
        Expr count = cast<float>(clamp(valid - b * v, 0, v)) * float(pixels), first = x(0, 0, 0, i, b);
        RDom d(0, gpu::rounds(parts, pixels));
        gpu::Dealt pixel = gpu::dealt(d, m / v, parts, pixels);
        if (pixel.inside.defined()) real = real && pixel.inside;
        Expr value = x(lane, pixel.index % columns, pixel.index / columns, i, b);

        // Of a term that all threads have: each thread's sum, and the sum of those.
        auto summed = [&](const std::string &name, const Expr &term) {
            Func sum(name), shared(name + "_shared"), total(name + "_total");
            sum(m, i, b) = 0.f;
            sum(m, i, b) += select(real, term, 0.f);
            shared(m, i, b) = sum(m, i, b);
            total(i, b) = gpu::tree(all, [&](int at) { return Expr(shared(at, i, b)); });
            return std::array<Func, 3>{sum, shared, total};
        };
        auto near = summed("near", value - first);
        Func mean("mean"), rest("rest");
        Expr from_first = near[2](i, b) / count;
        mean(i, b) = strict_add(first, from_first);
        rest(i, b) = strict_sub(from_first, strict_sub(mean(i, b), first));
        Expr deviation = value - mean(i, b);
        auto m2 = summed("m2", deviation * deviation);
        // Of a mean that is infinite or NaN nothing is left.
        partial(s, i, one, b) = mux(s, {mean(i, b), m2[2](i, b), select(is_nan(rest(i, b)), 0.f, rest(i, b))});

        Func out = partial;
        out.bound(s, 0, 3).reorder(s, one, i, b).unroll(s).gpu_blocks(i, b).never_partition_all();
        for (auto [sum, shared, total] : {near, m2}) {
            shared.compute_at(out, i).store_in(Halide::MemoryType::GPUShared).bound(m, 0, all).gpu_threads(m);
            sum.compute_at(shared, m).store_in(Halide::MemoryType::Register).update().never_partition_all();
        }
        for (Func f : {mean, rest, m2[2]}) f.compute_at(out, i).store_in(Halide::MemoryType::GPUShared);
    }

    // Channels whose lane sums go together: several only where the planes are too small to hide them.
    int group_size(int v) const {
        const int most = registers_of(get_target(), v).count >= 32 ? 8 : 4;
        return int(h) * int(w) > 256 ? 1 : power(c, most);
    }

    static int power(int extent, int most) {
        int result = 1;
        while (result * 2 <= std::min(extent, most)) result *= 2;
        return result;
    }

    static Expr over(int count, const std::function<Expr(int)> &term) {
        Expr sum = term(0);
        for (int i = 1; i < count; i++) sum += term(i);
        return sum;
    }
};

class BatchStatsMerge : public Halide::Generator<BatchStatsMerge> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, count{"count", 1}, max_batch{"max_batch", 1};
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> partial{"partial"};
    // mean and variance
    Output<Func> out{"out", {Halide::Float(32), Halide::Float(32)}, 1};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), width = vector_width(c, natural_vector_size<float>());
        set_blocks(partial, {3, c}, 0);
        Var i("i"), io("io"), ii("ii");
        Func merged("merged"), result("result");
        RDom d(1, (batch - 1) / v);
        Expr before = cast<double>(d.x * v), weight = cast<double>(min(batch - d.x * v, v));
        Expr share = weight / (before + weight);
        auto mean_of = [&](Expr block) {
            return cast<double>(partial(0, i, block)) + cast<double>(partial(2, i, block));
        };
        merged(i) = Tuple(mean_of(0), cast<double>(partial(1, i, 0)));
        Expr mean = merged(i)[0], m2 = merged(i)[1];
        Expr delta = mean_of(d.x) - mean;
        merged(i) = Tuple(mean + delta * share, m2 + cast<double>(partial(1, i, d.x)) +
                                                    delta * delta * (share * before * Expr(double(count))));
        result(i) =
            Tuple(cast<float>(merged(i)[0]), cast<float>(merged(i)[1] / (cast<double>(batch) * Expr(double(count)))));
        out = result;
        auto buffers = result.output_buffers();
        buffers[0].dim(0).set_bounds(0, c); // the second buffer has them too
        for (Halide::OutputImageParam buffer : buffers) { buffer.dim(0).set_stride(1); }
        if (is_gpu(get_target())) return gpu::whole_map(result);
        result.split(i, io, ii, width, TailStrategy::ShiftInwards).vectorize(ii, width).never_partition_all();
        merged.compute_at(result, io).vectorize(i, width);
        merged.update().reorder(i, d.x).vectorize(i, width).never_partition_all();
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::BatchStats, batch_stats)
HALIDE_REGISTER_GENERATOR(cryolite::BatchStatsMerge, batch_stats_merge)

CRYOLITE_TUNING(batch_stats, [](const cryolite::KernelShape &q) {
    cryolite::TuningSpace space;
    if (cryolite::turned_stats(q.integer("c"), q.integer("h"), q.integer("w"))) return space;
    space.knobs = {{"channels", {}}, {"columns_at_once", cryolite::divisors(q.integer("w"), 8)}};
    for (int channels = 1; channels <= std::min(q.integer("c"), 8); channels *= 2)
        space.knobs[0].values.push_back(channels);
    space.refuse = [registers = q.registers](const cryolite::Knobs &knobs) {
        const int sums =
            2 * std::max(1, cryolite::knob(knobs, "channels")) * std::max(1, cryolite::knob(knobs, "columns_at_once"));
        return cryolite::refuse_accumulators(sums, 1, registers);
    };
    return space;
})
