// Generators `linear`, `linear_grad_input` and `linear_grad_weight` (kernels.md).
// Share of the FMA peak of one Zen 5 core (AVX-512, minima, earlier tiles): forward, input, weight gradient
//   256 -> 120: 95%, 89%, 99%.   120 -> 84: 93%, 94%, 83%.   84 -> 10: 87%, 85%, 87%
//   784 -> 256: 95%, 92%, 94%.   256 -> 256: 92%, 92%, 99%.   256 -> 10: 88%, 83%, 99%
#include "gpu.h"
#include "lanes.h"
#include "tuning.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// Register tiles of output channels by blocks: a weight is loaded once for all blocks of the tile.
void schedule_product(Func out, Func sum, Var l, Var channel, Var b, const RDom &d, Tile tile, int lanes, int unroll) {
    Var co("co"), ci("ci"), bo("bo"), bi("bi");
    out.split(channel, co, ci, tile.c, TailStrategy::ShiftInwards).split(b, bo, bi, tile.x, TailStrategy::ShiftInwards);
    out.reorder(l, bi, ci, co, bo).vectorize(l, lanes).unroll(bi).unroll(ci).never_partition_all();
    sum.compute_at(out, co).vectorize(l, lanes).unroll(b).unroll(channel);
    sum.update().reorder(l, b, channel, d.x).vectorize(l, lanes).unroll(b).unroll(channel);
    if (unroll > 1) sum.update().unroll(d.x, unroll);
    sum.update().never_partition_all();
}

} // namespace

template <class Derived> class LinearBase : public Halide::Generator<Derived> {
public:
    Halide::GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, k{"k", 1};
    Halide::GeneratorParam<int> tile_x{"tile_x", 0}, tile_c{"tile_c", 0}, unroll{"unroll", 0}; // knobs (tuning.h)

protected:
    int lane_count() const { return resolve_lanes(this->get_target(), lanes); }
    int blocks() const { return resolve_blocks(this->get_target(), n, lane_count()); }
    int accumulators() const { return registers_of(this->get_target(), lane_count()).accumulators(); }
};

class Linear : public LinearBase<Linear> {
public:
    GeneratorParam<bool> bias{"bias", false};
    Input<Buffer<float, 3>> x{"x"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
    }

    void generate() {
        const int v = lane_count(), nb = blocks();
        set_blocks(x, {v, c}, nb);
        set_dense(weight, {c, k});
        set_blocks(y, {v, k}, nb);
        if (bias_) set_dense(*bias_, {k});
        if (is_gpu(get_target())) {
            y = gpu::product({v, c, k, gpu::blocks_of(n, v),
                              [&](Expr o) { return bias_ ? Expr((*bias_)(o)) : nothing(); },
                              [&](Expr l, Expr i, Expr o, Expr b) { return x(l, i, b) * weight(i, o); }});
            set_blocks(y, {v, k}, nb);
            return;
        }
        Var l("l"), o("o"), b("b");
        Func sum("sum");
        RDom d(0, c);
        sum(l, o, b) = bias_ ? Expr((*bias_)(o)) : nothing();
        sum(l, o, b) += x(l, d.x, b) * weight(d.x, o);
        y(l, o, b) = sum(l, o, b);
        // Each output channel is a stream of weights, c floats from the next.
        Tile tile = chosen_tile({.x = nb, .c = k, .steps = c, .most_c = cached_streams(4L * c)}, {tile_x, tile_c},
                                accumulators());
        if (using_autoscheduler()) return;
        schedule_product(y, sum, l, o, b, d, tile, v, unroll ? int(unroll) : largest_divisor(c, 4));
    }

private:
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
};

class LinearGradInput : public LinearBase<LinearGradInput> {
public:
    Input<Buffer<float, 3>> dy{"dy"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> dx{"dx"};

    void generate() {
        const int v = lane_count(), nb = blocks();
        set_blocks(dy, {v, k}, nb);
        set_dense(weight, {c, k});
        set_blocks(dx, {v, c}, nb);
        if (is_gpu(get_target())) {
            dx = gpu::product({v, k, c, gpu::blocks_of(n, v), [](const Expr &) { return nothing(); },
                               [&](Expr l, Expr o, Expr i, Expr b) { return dy(l, o, b) * weight(i, o); }});
            set_blocks(dx, {v, c}, nb);
            return;
        }
        Var l("l"), i("i"), b("b");
        Func sum("sum");
        RDom d(0, k);
        sum(l, i, b) = nothing();
        sum(l, i, b) += dy(l, d.x, b) * weight(i, d.x);
        dx(l, i, b) = sum(l, i, b);
        Tile tile = chosen_tile({.x = nb, .c = c, .steps = k}, {tile_x, tile_c}, accumulators());
        if (using_autoscheduler()) return;
        schedule_product(dx, sum, l, i, b, d, tile, v, unroll ? int(unroll) : 1);
    }
};

// Outer products of a sample's row of x and its column of dy, summed over all samples of all blocks: no partial sums.
class LinearGradWeight : public Halide::Generator<LinearGradWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, k{"k", 1}, tile{"tile", 0}, tile_x{"tile_x", 0},
        tile_c{"tile_c", 0}, unroll{"unroll", 0};
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> xt{"xt"}, dy{"dy"};
    Output<Buffer<float, 2>> dw{"dw"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), columns = tile ? int(tile) : int(k);
        set_dense(xt, {c, v, 0});
        set_dense(dy, {v, columns, 0});
        leave_block_stride(dy);
        set_dense(dw, {c, columns});
        Var i("i"), o("o"), io("io"), ii("ii"), oo("oo"), oi("oi");
        Func sum("sum");
        Expr blocks = (batch + v - 1) / v;
        if (is_gpu(get_target())) {
            dw = gpu::linear_grad_weight([&](Expr i, Expr l, Expr b) { return Expr(xt(i, l, b)); },
                                         [&](Expr l, Expr o, Expr b) { return Expr(dy(l, o, b)); }, v, c, columns,
                                         blocks);
            set_dense(dw, {c, columns});
            return;
        }
        RDom d(0, v, 0, blocks);
        sum(i, o) = nothing();
        sum(i, o) += xt(i, d.x, d.y) * dy(d.x, o, d.y);
        dw(i, o) = sum(i, o);

        const int width = vector_width(c, natural_vector_size<float>());
        const int vectors = std::max(1, c / width);
        // The last vector overlaps the one before when the width does not divide.
        Tile t = chosen_tile({.x = ceil_div(c, width), .c = columns, .steps = 256, .x_cycles = grad_weight_x_cycles},
                             {tile_x, tile_c}, registers_of(get_target(), width).accumulators());
        t.x = std::min(t.x, vectors);
        dw.split(i, io, ii, width * t.x, TailStrategy::ShiftInwards).split(o, oo, oi, t.c, TailStrategy::ShiftInwards);
        dw.reorder(ii, oi, oo, io).vectorize(ii, width).unroll(ii).unroll(oi).never_partition_all();
        sum.compute_at(dw, oo).vectorize(i, width).unroll(i).unroll(o);
        sum.update()
            .reorder(i, o, d.x, d.y)
            .vectorize(i, width)
            .unroll(i)
            .unroll(o)
            .unroll(d.x, unroll ? int(unroll) : 4);
        sum.update().never_partition_all();
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Linear, linear)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradInput, linear_grad_input)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradWeight, linear_grad_weight)

namespace {

using namespace cryolite;

// Of x by c results, each a sum of `terms`; c results read streams that lie `stride` bytes apart.
TuningSpace product_space(const Registers &registers, int x, int c, int terms, long stride) {
    TuningSpace space;
    space.knobs = {{"tile_x", from_one_to(std::min(x, registers.count - 1))},
                   {"tile_c", from_one_to(std::min(c, registers.count - 1))},
                   {"unroll", divisors(terms, 16)}};
    space.together = {"tile_x", "tile_c"};
    space.refuse = [=](const Knobs &knobs) -> std::string {
        const int tile_x = knob(knobs, "tile_x"), tile_c = knob(knobs, "tile_c");
        if (tile_x == 0) return "";
        if (tile_c > cached_streams(stride))
            return std::to_string(tile_c) + " streams of weights share too few sets of L1";
        return refuse_accumulators(tile_x * tile_c, x * c, registers);
    };
    return space;
}

int blocks_of(const KernelShape &q) { return std::max(1, q.integer("n", 0) / q.lanes); }

} // namespace

CRYOLITE_TUNING(linear, [](const KernelShape &q) {
    return product_space(q.registers, blocks_of(q), q.integer("k"), q.integer("c"), 4L * q.integer("c"));
})
CRYOLITE_TUNING(linear_grad_input, [](const KernelShape &q) {
    return product_space(q.registers, blocks_of(q), q.integer("c"), q.integer("k"), 4);
})
CRYOLITE_TUNING(linear_grad_weight, [](const KernelShape &q) {
    const int columns = q.integer("tile", 0) ? q.integer("tile") : q.integer("k"), c = q.integer("c");
    const int width = vector_width(c, q.vector);
    return product_space({.count = q.registers.count, .per_value = 1}, std::max(1, c / width), columns, q.lanes, 4);
})
