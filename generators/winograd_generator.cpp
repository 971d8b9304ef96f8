// Generators `winograd_weight` and `conv2d_winograd` (kernels.md).
// Effective GFLOP/s (of direct convolution's operations) on one Zen 3 core, AVX2, FMA peak 104, other programs running
// (bench/winograd_bench): 3x3 by F(4, 3) 64 -> 64 @ 32: 217, 128 @ 16: 246, 256 @ 8: 241, 64 @ 56: 219, 128 @ 28: 270;
// 512 @ 4, whose weights come from memory: 143, by F(2, 3) 141. Direct in the same run: 83, 49, 76, 37, 46, 98, 95.
// Prefetched, inside resnet18_cifar's inference of 64 images, two threads (and not prefetched): 256 @ 8: 260 (210),
// 512 @ 4 by F(2, 3): 172 (142). Zen 4, AVX-512, peak 118, winograd_bench, and direct: 64 @ 32: 370, 120; 256 @ 8: 420,
// 126; 512 @ 4: 410, 135; 6 -> 16 @ 12 by F(2, 5): 171, 117; its input gradient, spread, 1.47 times as fast as direct.
// Inside resnet18_cifar's inference of 64 images (and without asking for tiles ahead): 64 @ 32: 344 (294), 128 @ 16:
// 394 (365).
#include "gpu.h"
#include "lanes.h"
#include "nest.h"
#include "prefetch.h"
#include "scratch.h"
#include "winograd_transform.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

Expr promised(const Expr &i, int extent) { return unsafe_promise_clamped(i, 0, extent - 1); }

} // namespace

class Conv2dWinograd : public Halide::Generator<Conv2dWinograd> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 3}, padding{"padding", 0},
        m{"m", 4};
    GeneratorParam<bool> bias{"bias", false}, spread{"spread", false};
    GeneratorParam<int> parts{"parts", 1}; // > 1: a call makes one of so many ranges of groups
    Input<Buffer<float, 5>> x{"x"};
    Input<Buffer<float, 4>> u{"u"};
    Output<Buffer<float, 1>> scratch{"scratch"};
    Output<Buffer<float, 5>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
        if (parts > 1) part_ = add_input<int>("part");
    }

    void generate() {
        refuse_gpu(get_target());
        const WinogradConv q = shape();
        const WinogradConv::Schedule s = q.schedule();
        const int t = q.t();
        if (q.spread && (bias || part_)) throw Halide::CompileError("what spreads has neither a bias nor parts");
        set_dense(x, {q.lanes, q.w, q.h, q.c, 1});
        set_dense(u, {s.tile_k * s.u_c, s.channel_tiles, t * t, s.channel_blocks});
        if (bias_) set_dense(*bias_, {q.k});
        set_dense(y, {q.lanes, q.wo(), q.ho(), q.k, 1});
        set_dense(scratch, {int(q.scratch_elements())});

        Var l("l"), i("i"), px("px"), py("py"), ti("ti"), ci("ci"), kt("kt"), ko("ko"), kb("kb"), g("g"), ix("ix"),
            iy("iy");
        // Input transform of one tile: rows, then columns.
        Expr tile = tile_at(q, s, g, ti);
        Expr left = tile % q.tiles_x() * q.m + q.read_from(), top = tile / q.tiles_x() * q.m + q.read_from();
        Expr row = top + i;
        Func rows("rows");
        Exprs in;
        for (int at = 0; at < q.reads(); at++) {
            Expr column = left + at;
            Expr value = x(l, clamp(column, 0, q.w - 1), clamp(row, 0, q.h - 1), ci, 0);
            if (q.leaves_x(at)) value = select(column >= 0 && column < q.w, value, 0.f);
            in.push_back(value);
        }
        rows(l, px, i, ti, ci, g) = mux(px, transform(q.read_matrix(), in));
        Exprs down;
        for (int at = 0; at < q.reads(); at++) {
            Expr line = top + at;
            Expr value = rows(l, px, at, ti, ci, g);
            if (q.leaves_y(at)) value = select(line >= 0 && line < q.h, value, 0.f);
            down.push_back(value);
        }
        input_(l, ti, ci, px, py, g) = mux(py, transform(q.read_matrix(), down));

        // Products, one matrix multiplication a point.
        Func sum("sum");
        sum_ = sum.name();
        RDom rc(0, q.c);
        sum(l, ti, ko, kt, px, py, kb, g) = nothing();
        sum(l, ti, ko, kt, px, py, kb, g) += input_(l, ti, rc, px, py, g) * u(rc * s.tile_k + ko, kt, px + t * py, kb);
        product_(l, ti, ko, kt, px, py, kb, g) = sum(l, ti, ko, kt, px, py, kb, g);

        // Output transform.
        Func lines("lines");
        Exprs across, along;
        for (int at = 0; at < t; at++) across.push_back(product_(l, ti, ko, kt, at, py, kb, g));
        lines(l, ix, py, ti, ko, kt, kb, g) = mux(ix, transform(q.write_matrix(), across));
        const Expr first = part_ ? first_group(*part_) : 0;
        const Expr groups = part_ ? first_group(*part_ + 1) - first : ceil_div(q.tiles(), s.group);
        RDom d(0, q.writes(), 0, q.writes(), 0, s.group, 0, s.tile_k, 0, s.channel_tiles, 0, s.channel_blocks, 0,
               groups);
        const Expr group = first + d[6];
        for (int at = 0; at < t; at++) along.push_back(lines(l, d[0], at, d[2], d[3], d[4], d[5], group));
        Expr value = mux(d[1], transform(q.write_matrix(), along));
        Expr out_tile = group * s.group + d[2];
        Expr out_x = out_tile % q.tiles_x() * q.m + q.write_from() + d[0];
        Expr out_y = out_tile / q.tiles_x() * q.m + q.write_from() + d[1];
        Expr channel = (d[5] * s.channel_tiles + d[4]) * s.tile_k + d[3];
        if (q.tiles() % s.group) d.where(out_tile < q.tiles());
        if (s.padded_k() > q.k) d.where(channel < q.k);
        if (q.write_from() < 0) d.where(out_y >= 0 && out_x >= 0);
        if (q.exceeds_y()) d.where(out_y < q.ho());
        if (q.exceeds_x()) d.where(out_x < q.wo());
        Expr channel_in = promised(channel, q.k);
        if (bias_) value += (*bias_)(channel_in);
        Var px_("x"), py_("y"), pc("c"), pb("b"), e("e");
        Halide::FuncRef place = y(l, promised(out_x, q.wo()), promised(out_y, q.ho()), channel_in, 0);
        if (q.spread) {
            y(l, px_, py_, pc, pb) = 0.f;
            place += value;
        } else {
            y(l, px_, py_, pc, pb) = Halide::undef<float>();
            place = value;
        }
        scratch(e) = Halide::undef<float>();

        const std::string update = Func(y).name() + ".s1.";
        group_loop_ = update + d[6].name();
        block_loop_ = update + d[5].name();

        // Schedule.
        Func out = y;
        if (q.spread) out.vectorize(l, q.lanes);
        out.update()
            .reorder(l, d[0], d[1], d[2], d[3], d[4], d[5], d[6])
            .vectorize(l, q.lanes)
            .unroll(d[0])
            .unroll(d[1]);
        out.update().never_partition_all();
        lines.compute_at(out, d[2]).vectorize(l, q.lanes).unroll(ix).unroll(py);
        product_.compute_at(out, d[5]).bound(ti, 0, s.group).bound(ko, 0, s.tile_k).bound(kt, 0, s.channel_tiles);
        Var to("to"), tx("tx");
        product_.align_storage(kt, s.stored_channel_tiles).split(ti, to, tx, s.tile_x);
        product_.reorder(l, tx, ko, to, kt, px, py).vectorize(l, q.lanes).unroll(tx).unroll(ko);
        sum.compute_at(product_, to).vectorize(l, q.lanes).unroll(ti).unroll(ko);
        sum.update().reorder(l, ti, ko, rc).vectorize(l, q.lanes).unroll(ti).unroll(ko);
        sum.update().unroll(rc, largest_divisor(q.c, 4)).never_partition_all();
        input_.compute_at(out, d[6]).bound(ti, 0, s.group).align_storage(ci, s.stored_c);
        input_.reorder(l, px, py, ti, ci).vectorize(l, q.lanes).unroll(px).unroll(py).never_partition_all();
        rows.compute_at(input_, ti).vectorize(l, q.lanes).unroll(px).unroll(i).never_partition_all();
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Conv2dWinograd>::build_pipeline();
        place_in_scratch(pipeline, Func(scratch).name(), shape().scratch_elements(), {input_, product_});
        prefetch_weights(pipeline, "u");
        prefetch_sides(pipeline);
        return pipeline;
    }

private:
    WinogradConv shape() const {
        WinogradConv q{resolve_lanes(get_target(), lanes), c, h, w, k, r, padding, m, spread};
        if (winograd_points(q.t()).empty() || q.padding < 0 || q.ho() < 1 || q.wo() < 1)
            throw Halide::CompileError("no Winograd convolution for this window, tile and padding");
        return q;
    }
    Expr first_group(const Expr &part) {
        const WinogradConv q = shape();
        return part * ceil_div(q.tiles(), q.schedule().group) / int(parts);
    }
    // The last group may have fewer tiles; what it lacks repeats its last one.
    static Expr tile_at(const WinogradConv &q, const WinogradConv::Schedule &s, const Expr &group, const Expr &at) {
        Expr tile = group * s.group + at;
        return q.tiles() % s.group ? min(tile, q.tiles() - 1) : tile;
    }

    // With every point of a group one pixel of the next group's tiles of x, and of this group's of y. Within caches, or
    // beside the products of few channels, it only costs: 6 -> 16 @ 12 by F(2, 5) 1.15x, 3 -> 64 @ 32 1.2x.
    void prefetch_sides(Halide::Pipeline pipeline) {
        const WinogradConv q = shape();
        const WinogradConv::Schedule s = q.schedule();
        const long bytes = 4L * q.lanes * (q.c * q.h * q.w + q.k * q.ho() * q.wo());
        if (ceil_div(q.tiles(), s.group) <= int(parts) || bytes < cached_images || q.c < 16 || q.spread) return;
        const std::string point = product_.name() + ".s0.";
        // Channels of the channel block at hand, of `all`.
        auto first = [&](int channels, int all) {
            return s.channel_blocks > 1 ? min(loop_variable(block_loop_) * channels, all - channels) : Expr(0);
        };
        auto ahead = [&](const std::string &buffer, const Expr &group, int padding, int w, int h, int channels,
                         int all) -> LinesAhead {
            const Expr tile = tile_at(q, s, group, loop_variable("place"));
            const Expr column = tile % q.tiles_x() * q.m + loop_variable(point + "px") - padding;
            const Expr row = tile / q.tiles_x() * q.m + loop_variable(point + "py") - padding;
            const Expr pixel = first(channels, all) * (w * h) + clamp(row, 0, h - 1) * w + clamp(column, 0, w - 1);
            return {buffer, pixel * q.lanes, s.group, channels, w * h * q.lanes};
        };
        const Expr group = loop_variable(group_loop_) + (part_ ? first_group(*part_) : 0);
        prefetch_beside_products(
            pipeline,
            {{group_loop_, point + "px"},
             sum_,
             {ahead("x", group + 1, q.padding, q.w, q.h, ceil_div(q.c, s.channel_blocks), q.c),
              ahead(Func(y).name(), group, 0, q.wo(), q.ho(), std::min(q.k, s.tile_k * s.channel_tiles), q.k)}});
    }

    std::string group_loop_, block_loop_, sum_;
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
    Halide::GeneratorInput<int> *part_ = nullptr;
    Func input_{"input"}, product_{"product"};
};

// u = G w G^T for every pair of channels, in the order in which conv2d_winograd reads it. flip: for the input gradient,
// whose input channels are the convolution's output channels and whose window is turned. Channels that fill the last
// tile up repeat the last one, and so do the input channels of u_c behind the c-th, which are not read: with
// them points share no sets of the caches, and 256 -> 256 takes 0.7 of the time (Zen 5, inside resnet50's step).
class WinogradWeight : public Halide::Generator<WinogradWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, k{"k", 1}, r{"r", 3}, m{"m", 4}, tile_k{"tile_k", 1},
        channel_tiles{"channel_tiles", 1}, channel_blocks{"channel_blocks", 1}, u_c{"u_c", 0};
    // A call makes one part of u: one of several channel blocks, or of so many channel tiles of the only block.
    GeneratorParam<bool> in_parts{"in_parts", false};
    GeneratorParam<int> of_tiles{"of_tiles", 0};
    GeneratorParam<bool> flip{"flip", false};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 4>> u{"u"};

    void configure() {
        if (in_parts) part_ = add_input<int>("part");
    }

    void generate() {
        refuse_gpu(get_target());
        const int window = r, size = m, t = size + window - 1, tile = tile_k, tiles = channel_tiles,
                  blocks = channel_blocks, pairs = this->pairs();
        const WinogradMatrices matrices = winograd_matrices(size, window);
        if (flip)
            set_dense(weight, {window, window, k, c});
        else
            set_dense(weight, {window, window, c, k});
        set_dense(u, {pairs, tiles, t * t, blocks});
        if (const int whole = of_tiles) {
            u.dim(2).set_stride(pairs * whole);
            u.dim(3).set_stride(pairs * whole * t * t);
        }
        Var kt("kt"), p("p"), kb("kb"), px("px"), i("i"), e("e"), eo("eo"), ei("ei"), j("j");
        // What one channel tile reads for one point is contiguous: e counts pairs of channels in that order.
        Expr channel_tile = (part_ ? Expr(*part_) + kb : Expr(kb)) * tiles + kt;
        Expr channel = clamp(channel_tile * tile + e % tile, 0, k - 1), from = min(e / tile, c - 1);
        Func taps("taps"), rows("rows"), both("both");
        taps(e, j, i, kt, kb) =
            flip ? weight(window - 1 - j, window - 1 - i, channel, from) : weight(j, i, from, channel);
        Exprs in, down;
        for (int at = 0; at < window; at++) in.push_back(taps(e, at, i, kt, kb));
        rows(e, px, i, kt, kb) = mux(px, transform(matrices.weight, in));
        for (int at = 0; at < window; at++) down.push_back(rows(e, px, at, kt, kb));
        both(e, px, i, kt, kb) = mux(i, transform(matrices.weight, down));
        u(e, kt, p, kb) = both(e, p % t, p / t, kt, kb);

        // A whole cache line for every point: the points lie far apart, often in the same set of the caches.
        const int step = pairs >= 16 ? 16 : vector_width(pairs, 8), width = std::min(step, 8);
        Func out = u;
        out.split(e, eo, ei, step, TailStrategy::ShiftInwards);
        out.reorder(ei, p, eo, kt, kb).vectorize(ei, width).unroll(ei).unroll(p).never_partition_all();
        for (Func f : {taps, rows, both})
            f.compute_at(out, eo).bound_extent(e, step).vectorize(e, width).unroll(e).unroll(f.args()[1]).unroll(i);
        ask_ahead(out.name(), step);
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<WinogradWeight>::build_pipeline();
        prefetch_beside_products(pipeline, ahead_);
        return pipeline;
    }

private:
    int pairs() const { return tile_k * (u_c ? int(u_c) : int(c)); }

    // While `step` pairs are transformed, the next ones' lines: of u, whose points lie far apart, and of weights that
    // are flipped, whose channels do. From memory and with AVX-512, on an Emerald Rapids, 256 -> 256 flipped takes 1.1
    // ms instead of 6, not flipped 1.0 instead of 1.4; 512 -> 512, whose tiles are four times as wide, as long as
    // without.
    void ask_ahead(const std::string &out, int step) {
        const std::string loop = out + ".s0.";
        const Nest nest({{loop + "kb", int(channel_blocks)},
                         {loop + "kt", int(channel_tiles)},
                         {loop + "e.eo", ceil_div(pairs(), step)}});
        if (!nest.repeats(2)) return;
        const int line = 16, t = int(m) + int(r) - 1, taps = int(r) * int(r);
        const std::vector<Expr> next = nest.next(2);
        const Expr place = loop_variable("place"), pair = min(next[2] * step, pairs() - step);
        const int of_point = pairs() * (of_tiles ? int(of_tiles) : int(channel_tiles));
        ahead_ = {nest.names(),
                  "",
                  {{out, ((next[0] * (t * t)) + place) * of_point + next[1] * pairs() + pair, t * t, 1, line}}};
        if (!flip) return;
        const Expr channel_tile = (part_ ? *part_ + next[0] : next[0]) * int(channel_tiles) + next[1];
        const Expr channel = min(channel_tile * int(tile_k) + pair % int(tile_k), k - 1);
        const Expr from = min(pair / int(tile_k) + place, c - 1);
        const int rows = ceil_div(step, tile_k), floats = taps * std::min<int>(step, tile_k);
        ahead_.lines.push_back({"weight", (from * int(k) + channel) * taps, rows, floats / line + 1, line});
    }

    Halide::GeneratorInput<int> *part_ = nullptr;
    TileAhead ahead_;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dWinograd, conv2d_winograd)
HALIDE_REGISTER_GENERATOR(cryolite::WinogradWeight, winograd_weight)
