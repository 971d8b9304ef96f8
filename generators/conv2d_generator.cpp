// Generators `conv2d`, `conv2d_grad_input` and `conv2d_grad_weight` (kernels.md): direct convolution with one sample a
// vector lane, so that every channel count, window and stride fills the vectors.
// Share of the FMA peak of one Zen 5 core (AVX-512, minima; bench/kernel_bench): forward, input, weight gradient
//   5x5 1 -> 6 @ 28: 98%, 85%, 98%.   5x5 6 -> 16 @ 12: 100%, 100%, 91%.   1x1 stride 2 64 -> 128 @ 16: 78%, 65%, 57%
//   3x3 64 -> 64 @ 32 padded: 101%, 102%, 98%.   3x3 stride 2 64 -> 128 @ 16 padded: 107%, 103%, 96%
// Above 100%: products with the padding count, but are not computed.
#include "lanes.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// Code grows with the unrolled taps times the accumulators; more than this is left as a loop.
constexpr int most_unrolled_fmas = 400;

// Of one group; the groups of a block lie one after another, as blocks of fewer channels.
struct ConvShape {
    int lanes, blocks, groups, c, h, w, k, r, s, stride, padding;

    int ho() const { return (h + 2 * padding - r) / stride + 1; }
    int wo() const { return (w + 2 * padding - s) / stride + 1; }
};

struct ConvVars {
    Var l{"l"}, x{"x"}, y{"y"}, c{"c"}, b{"b"};
};

Expr within(const Expr &i, int extent) { return i >= 0 && i < extent; }

// Tells loop partitioning that most tiles lie inside.
Expr inner_clamp(const Expr &i, int extent) { return clamp(likely(i), 0, extent - 1); }

// y = bias + sum over r, s, c of x * weight. Rows outside the image are skipped by the reduction domain; columns
// outside are selects whose conditions are constants in the first, steady and last tiles that loop partitioning makes.
template <class X, class Weight> struct Forward {
    ConvVars v;
    Func sum{"sum"}, y{"y"};
    RDom d;

    Forward(const ConvShape &q, X &x, Weight &weight, const std::function<Expr(Expr, Expr)> &bias)
        : d(0, q.s, 0, q.r, 0, q.c) {
        Expr row = v.y * q.stride + d.y - q.padding, column = v.x * q.stride + d.x - q.padding;
        Expr value;
        if (q.padding) {
            d.where(within(row, q.h));
            value = select(within(column, q.w),
                           likely(x(v.l, inner_clamp(column, q.w), clamp(row, 0, q.h - 1), d.z, v.b)), 0.f);
        } else {
            value = x(v.l, column, row, d.z, v.b);
        }
        sum(v.l, v.x, v.y, v.c, v.b) = bias(v.c, v.b % q.groups);
        sum(v.l, v.x, v.y, v.c, v.b) += value * weight(d.x, d.y, d.z, v.b % q.groups * q.k + v.c);
        y(v.l, v.x, v.y, v.c, v.b) = sum(v.l, v.x, v.y, v.c, v.b);
    }
};

// dx = sum over k, r, s of dy * weight, scattered into a tile of `width` columns: each output pixel that touches the
// tile is loaded once and added to the columns under its window. Pixels and window columns are unrolled, so which of
// them meet the tile is known when the code is made: no multiply-add is wasted, whatever the stride.
template <class Dy, class Weight> struct GradInput {
    ConvVars v;
    Var tile{"tile"}; // the x of `sum` counts from the tile's first column
    Func sum{"sum"}, dx{"dx"};
    RDom d; // output pixel, window column, output channel, window row

    // `width` is a multiple of the stride, unless there is one tile.
    GradInput(const ConvShape &q, Dy &dy, Weight &weight, int width) {
        const int wo = q.wo(), ho = q.ho();
        const int first = ceil_div(std::max(0, q.padding - (q.s - 1)), q.stride);
        const int before = std::max(0, (q.s - 1 - q.padding) / q.stride), start = first > 0 ? first : -before;
        const int stop = (width - 1 + q.padding) / q.stride;
        d = RDom(start, stop - start + 1, 0, q.s, 0, q.k, 0, q.r);
        Expr x = d[0] * q.stride + d[1] - q.padding, row = v.y + q.padding - d[3];
        d.where(within(x, width) && row % q.stride == 0 && within(row, (ho - 1) * q.stride + 1));
        Expr pixel = tile * (width / q.stride) + d[0];
        Expr value = select(within(pixel, wo),
                            likely(dy(v.l, inner_clamp(pixel, wo), clamp(row / q.stride, 0, ho - 1), d[2], v.b)), 0.f);
        sum(v.l, v.x, tile, v.y, v.c, v.b) = nothing();
        sum(v.l, clamp(x, 0, width - 1), tile, v.y, v.c, v.b) +=
            value * weight(d[1], d[3], v.c, v.b % q.groups * q.k + d[2]);
        dx(v.l, v.x, v.y, v.c, v.b) = sum(v.l, v.x % width, v.x / width, v.y, v.c, v.b);
    }

    void schedule(Tile t, int lanes, int tiles) {
        Var xo("xo"), xi("xi"), co("co"), ci("ci");
        dx.split(v.x, xo, xi, t.x, TailStrategy::GuardWithIf).split(v.c, co, ci, t.c, TailStrategy::ShiftInwards);
        dx.reorder(v.l, xi, ci, co, xo, v.y, v.b).vectorize(v.l, lanes).unroll(xi).unroll(ci).never_partition_all();
        if (tiles > 1) dx.partition(xo, Halide::Partition::Auto);
        sum.compute_at(dx, co).bound(v.x, 0, t.x).bound_extent(v.y, 1);
        sum.vectorize(v.l, lanes).unroll(v.x).unroll(v.c).never_partition_all();
        sum.update().reorder(v.l, v.c, d[0], d[1], d[2], d[3]).vectorize(v.l, lanes);
        sum.update().unroll(v.c).unroll(d[0]).unroll(d[1]).never_partition_all();
    }
};

// Register tiles of x positions and channels; for each, all taps. Channel tiles are inside the row, so that the tile's
// input stays in L1 while the weights pass. Tiles that do not divide overlap.
void schedule_tiles(Func out, Func sum, const ConvVars &v, const RDom &d, Tile tile, int lanes, int window,
                    int tiles_x) {
    Var xo("xo"), xi("xi"), co("co"), ci("ci");
    out.split(v.x, xo, xi, tile.x, TailStrategy::ShiftInwards).split(v.c, co, ci, tile.c, TailStrategy::ShiftInwards);
    out.reorder(v.l, xi, ci, co, xo, v.y, v.b).vectorize(v.l, lanes).unroll(xi).unroll(ci);
    out.never_partition_all();
    if (tiles_x > 1) out.partition(xo, Halide::Partition::Auto);
    // One row is needed, but bounds inference makes no constant of it where padding exceeds the window.
    sum.compute_at(out, co).bound_extent(v.y, 1);
    sum.vectorize(v.l, lanes).unroll(v.x).unroll(v.c).never_partition_all();
    const bool unroll = window * tile.x * tile.c <= most_unrolled_fmas;
    sum.update().reorder(v.l, v.x, v.c, d.x, d.z, d.y).vectorize(v.l, lanes).unroll(v.x).unroll(v.c);
    if (unroll) sum.update().unroll(d.x);
    sum.update().never_partition_all();
}

} // namespace

template <class Derived> class ConvBase : public Halide::Generator<Derived> {
public:
    Halide::GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 1},
        s{"s", 1}, stride{"stride", 1}, padding{"padding", 0}, groups{"groups", 1};
    Halide::GeneratorParam<int> tile_x{"tile_x", 0}, tile_c{"tile_c", 0};

protected:
    ConvShape shape() const {
        const int v = resolve_lanes(this->get_target(), lanes);
        const int g = groups, of_x = c, of_y = k;
        if (g < 1 || of_x % g || of_y % g) throw Halide::CompileError("the groups do not divide the channels");
        ConvShape q{v, resolve_blocks(n, v), g, of_x / g, h, w, of_y / g, r, s, stride, padding};
        if (q.stride < 1 || q.padding < 0 || q.h + 2 * q.padding < q.r || q.w + 2 * q.padding < q.s)
            throw Halide::CompileError("the window does not fit the padded input");
        return q;
    }
    int accumulators() const { return registers_of(this->get_target(), shape().lanes).accumulators(); }

    template <class B> static void set_input(B &x, const ConvShape &q) {
        set_dense(x, {q.lanes, q.w, q.h, q.c, q.blocks * q.groups});
    }
    template <class B> static void set_output(B &y, const ConvShape &q) {
        set_dense(y, {q.lanes, q.wo(), q.ho(), q.k, q.blocks * q.groups});
    }
    template <class B> static void set_weight(B &weight, const ConvShape &q) {
        set_dense(weight, {q.s, q.r, q.c, q.k * q.groups});
    }
};

class Conv2d : public ConvBase<Conv2d> {
public:
    GeneratorParam<bool> bias{"bias", false};
    Input<Buffer<float, 5>> x{"x"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
    }

    void generate() {
        const ConvShape q = shape();
        set_input(x, q);
        set_weight(weight, q);
        if (bias_) set_dense(*bias_, {q.k * q.groups});
        Forward conv(q, x, weight, [&](Expr channel, Expr group) {
            return bias_ ? Expr((*bias_)(group * q.k + channel)) : nothing();
        });
        y = conv.y;
        set_output(y, q);
        const long weight_stride = 4L * q.c * q.r * q.s;
        Tile tile = chosen_tile({.x = q.wo(),
                                 .c = q.k,
                                 .steps = q.c * q.r * q.s,
                                 .most_c = cached_streams(weight_stride),
                                 .x_cycles = 0.15,
                                 .c_cycles = 0.05},
                                {tile_x, tile_c}, accumulators());
        schedule_tiles(conv.y, conv.sum, conv.v, conv.d, tile, q.lanes, q.s, ceil_div(q.wo(), tile.x));
    }

private:
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
};

class Conv2dGradInput : public ConvBase<Conv2dGradInput> {
public:
    Input<Buffer<float, 5>> dy{"dy"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> dx{"dx"};

    void generate() {
        const ConvShape q = shape();
        set_output(dy, q);
        set_weight(weight, q);
        // Columns that no window reaches (a stride above the window) cost no register and no time.
        const int reached = std::max(1, std::min(q.stride, q.s));
        const int taps = std::max(1, q.k * ceil_div(q.r, q.stride) * ceil_div(q.s, q.stride));
        const int budget =
            std::min(accumulators() * q.stride / reached, std::max(1, most_unrolled_fmas * q.stride / q.s));
        // Weights wait in registers for the next pixel; pixels pass.
        const Tile tile = chosen_tile(
            {.x = q.w, .c = q.c, .steps = taps, .multiple_of_x = q.stride, .x_cycles = 0.05, .c_cycles = 0.2},
            {tile_x, tile_c}, budget);
        GradInput conv(q, dy, weight, tile.x);
        dx = conv.dx;
        set_input(dx, q);
        conv.schedule(tile, q.lanes, ceil_div(q.w, tile.x));
    }
};

// dw = sum over lanes and output pixels of x * dy. A tile is st columns of the window by ct input channels by kt output
// channels, accumulated in registers over all pixels, then summed over lanes. tile_x, tile_c and tile_k are st, ct, kt.
class Conv2dGradWeight : public ConvBase<Conv2dGradWeight> {
public:
    GeneratorParam<int> tile_k{"tile_k", 0};
    Input<Buffer<float, 5>> x{"x"}, dy{"dy"};
    Output<Buffer<float, 5>> dw{"dw"};

    void generate() {
        const ConvShape q = shape();
        set_input(x, q);
        set_output(dy, q);
        set_dense(dw, {q.s, q.r, q.c, q.k, q.groups});
        const Tiles t = choose_tiles(q);

        Var l("l"), e("e"), so("so"), r("r"), co("co"), ko("ko"), g("g"), s("s"), c("c"), k("k");
        // First index of tile i of size `tile`, the last of which overlaps the one before.
        auto base = [](Expr i, int tile, int extent) {
            return extent % tile ? min(i * tile, extent - tile) : i * tile;
        };
        RDom d(0, q.wo(), 0, q.ho(), 0, q.blocks);
        Expr row = d.y * q.stride + r - q.padding;
        Expr column = d.x * q.stride + base(so, t.s, q.s) + e % t.s - q.padding;
        Expr input_channel = base(co, t.c, q.c) + e / t.s % t.c, output_channel = base(ko, t.k, q.k) + e / (t.s * t.c);
        Expr value, block = d.z * q.groups + g;
        if (q.padding) {
            Expr inside = within(column, q.w);
            // A domain of one row would be folded into the bounds of r.
            if (q.ho() > 1)
                d.where(within(row, q.h));
            else
                inside = within(row, q.h) && inside;
            value = select(inside, likely(x(l, inner_clamp(column, q.w), clamp(row, 0, q.h - 1), input_channel, block)),
                           0.f);
        } else {
            value = x(l, column, row, input_channel, block);
        }
        Func sum("sum");
        sum(l, e, so, r, co, ko, g) = nothing();
        sum(l, e, so, r, co, ko, g) += value * dy(l, d.x, d.y, output_channel, block);

        LaneSums lane_sums(sum, q.lanes, t.s * t.c * t.k, {so, r, co, ko, g});
        Expr place =
            s - base(s / t.s, t.s, q.s) + t.s * (c - base(c / t.c, t.c, q.c) + t.c * (k - base(k / t.k, t.k, q.k)));
        dw(s, r, c, k, g) = lane_sums.result()(place, s / t.s, r, c / t.c, k / t.k, g);

        schedule(q, t, sum, lane_sums, d, {l, e, so, r, co, ko, g, s, c, k});
    }

private:
    struct Tiles {
        int s, c, k;
    };

    Tiles choose_tiles(const ConvShape &q) const {
        if (tile_x > 0 && tile_c > 0 && tile_k > 0)
            return {std::min<int>(tile_x, q.s), std::min<int>(tile_c, q.c), std::min<int>(tile_k, q.k)};
        const int most = accumulators(), steps = q.wo() * q.ho() * q.blocks;
        Tiles best{1, 1, 1};
        double best_cost = 0;
        for (int s = std::min(q.s, most); s >= 1; s--) {
            for (int c = 1; c <= std::min(q.c, most / s); c++) {
                for (int k = 1; k <= std::min(q.k, most / (s * c)); k++) {
                    // In terms of the model: s * c vectors of x, k of dy. Window columns share vectors of x over time.
                    double waste = double(ceil_div(q.s, s) * s) / q.s * (ceil_div(q.c, c) * c) / q.c;
                    TileQuery query{.x = s * c, .c = q.k, .steps = steps};
                    double odd = s * c * k % 4 ? 1.02 : 1; // the lane sums then take narrower vectors
                    if (s < q.s) odd *= 1.03;              // vectors of x are loaded again for the other columns
                    double cost = tile_cost(query, {s * c, k}) * waste * odd;
                    if (best_cost == 0 || cost < best_cost) best = {s, c, k}, best_cost = cost;
                }
            }
        }
        return best;
    }

    struct Vars {
        Var l, e, so, r, co, ko, g, s, c, k;
    };

    void schedule(const ConvShape &q, const Tiles &t, Func sum, LaneSums &lane_sums, const RDom &d, Vars v) {
        Var si("si"), ci("ci"), ki("ki");
        dw.split(v.s, v.so, si, t.s, TailStrategy::GuardWithIf).split(v.c, v.co, ci, t.c, TailStrategy::GuardWithIf);
        dw.split(v.k, v.ko, ki, t.k, TailStrategy::GuardWithIf);
        dw.reorder(si, ci, ki, v.so, v.r, v.co, v.ko, v.g).unroll(si).unroll(ci).unroll(ki).never_partition_all();
        lane_sums.compute_at(dw, v.so);
        sum.compute_at(dw, v.so).bound(v.l, 0, q.lanes).bound(v.e, 0, t.s * t.c * t.k);
        sum.vectorize(v.l, q.lanes).unroll(v.e);
        sum.update().reorder(v.l, v.e, d.x, d.y, d.z).vectorize(v.l, q.lanes).unroll(v.e).never_partition_all();
        if (q.padding) sum.update().partition(d.x, Halide::Partition::Auto);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2d, conv2d)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradInput, conv2d_grad_input)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeight, conv2d_grad_weight)
