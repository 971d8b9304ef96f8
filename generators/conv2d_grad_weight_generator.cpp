// Generators `conv2d_grad_weight`, for one block, and `conv2d_grad_weight_tiles`, for a tile of output channels over
// all blocks (kernels.md). dw = sum over lanes and output pixels of x * dy.
#include "conv2d.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// A tile of sums in registers: s columns of the window by c input channels by k output channels, over all pixels. The
// parameters tile_x, tile_c and tile_k ask for one.
struct WeightTile {
    int s = 1, c = 1, k = 1;
};

WeightTile choose_tile(const ConvShape &q, const WeightTile &wanted, const Registers &registers) {
    if (wanted.s > 0 && wanted.c > 0 && wanted.k > 0)
        return {std::min(wanted.s, q.s), std::min(wanted.c, q.c), std::min(wanted.k, q.k)};
    const int most = registers.accumulators(), steps = q.wo() * q.ho() * q.blocks;
    const int most_k = registers.count >= 32 ? most : 3; // vectors of dy that wait in registers
    WeightTile best;
    double best_cost = 0;
    for (int s = std::min(q.s, most); s >= 1; s--) {
        for (int c = 1; c <= std::min(q.c, most / s); c++) {
            for (int k = 1; k <= std::min({q.k, most / (s * c), most_k}); k++) {
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

// First index of tile i of size `tile`, the last of which overlaps the one before.
Expr base(const Expr &i, int tile, int extent) { return extent % tile ? min(i * tile, extent - tile) : i * tile; }

class WeightGradient {
public:
    WeightGradient(const ConvShape &q, const WeightTile &tile) : q(q), t(tile) {}

    // `blocks` of x and dy are summed up.
    template <class X, class Dy, class Dw> void define(X &x, Dy &dy, Dw &dw, const Expr &blocks) {
        d = RDom(0, q.wo(), 0, q.ho(), 0, blocks);
        Expr row = d.y * q.stride + r - q.padding;
        Expr column = d.x * q.stride + base(so, t.s, q.s) + e / t.k % t.s - q.padding;
        Expr input_channel = base(co, t.c, q.c) + e / (t.k * t.s), output_channel = base(ko, t.k, q.k) + e % t.k;
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
        sum(l, e, so, r, co, ko, g) = nothing();
        sum(l, e, so, r, co, ko, g) += value * dy(l, d.x, d.y, output_channel, block);

        LaneSums lane_sums(sum, q.lanes, t.s * t.c * t.k, {so, r, co, ko, g});
        Expr place =
            k - base(k / t.k, t.k, q.k) + t.k * (s - base(s / t.s, t.s, q.s) + t.s * (c - base(c / t.c, t.c, q.c)));
        dw(s, r, c, k, g) = lane_sums.result()(place, s / t.s, r, c / t.c, k / t.k, g);
        schedule(dw, lane_sums);
    }

private:
    // The loop over output channels is inside the one over input channels: a tile's x stays in cache meanwhile. Vectors
    // of dy wait in registers, those of x pass.
    void schedule(Func dw, LaneSums &lane_sums) {
        Var si("si"), ci("ci"), ki("ki");
        dw.split(s, so, si, t.s, TailStrategy::GuardWithIf).split(c, co, ci, t.c, TailStrategy::GuardWithIf);
        dw.split(k, ko, ki, t.k, TailStrategy::GuardWithIf);
        dw.reorder(si, ci, ki, so, r, ko, co, g).unroll(si).unroll(ci).unroll(ki).never_partition_all();
        lane_sums.compute_at(dw, so);
        sum.compute_at(dw, so).bound(l, 0, q.lanes).bound(e, 0, t.s * t.c * t.k);
        sum.vectorize(l, q.lanes).unroll(e);
        sum.update().reorder(l, e, d.x, d.y, d.z).vectorize(l, q.lanes).unroll(e).never_partition_all();
        if (q.padding) sum.update().partition(d.x, Halide::Partition::Auto);
    }

    ConvShape q;
    WeightTile t;
    Var l{"l"}, e{"e"}, so{"so"}, r{"r"}, co{"co"}, ko{"ko"}, g{"g"}, s{"s"}, c{"c"}, k{"k"};
    Func sum{"sum"};
    RDom d; // output column, output row, block
};

} // namespace

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
        WeightGradient(q, choose_tile(q, {tile_x, tile_c, tile_k}, registers_of(get_target(), q.lanes)))
            .define(x, dy, dw, q.blocks);
    }
};

// Sums over all blocks, so that a network's largest weights need no partial sum for each block: those would be written
// and read again, for 512 -> 512 channels and 8 blocks 150 MB.
class Conv2dGradWeightTiles : public ConvBase<Conv2dGradWeightTiles> {
public:
    GeneratorParam<int> tile{"tile", 0}, tile_k{"tile_k", 0};
    Input<int> batch{"batch"};
    Input<Buffer<float, 5>> x{"x"}, dy{"dy"};
    Output<Buffer<float, 5>> dw{"dw"};

    void generate() {
        const ConvShape q = shape();
        if (q.groups > 1) throw Halide::CompileError("tiles are for convolutions of one group");
        ConvShape part = q;
        if (tile) part.k = tile;
        set_dense(x, {q.lanes, q.w, q.h, q.c, 0});
        set_dense(dy, {q.lanes, q.wo(), q.ho(), part.k, 0});
        dy.dim(4).set_stride(q.lanes * q.wo() * q.ho() * q.k);
        set_dense(dw, {q.s, q.r, q.c, part.k, 1});
        ConvShape model = part;
        model.blocks = 4; // how long a sum is: enough to pay for its end
        WeightGradient(part, choose_tile(model, {tile_x, tile_c, tile_k}, registers_of(get_target(), q.lanes)))
            .define(x, dy, dw, (batch + q.lanes - 1) / q.lanes);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeight, conv2d_grad_weight)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeightTiles, conv2d_grad_weight_tiles)
