// Generators `linear` and `linear_grad_input` (kernels.md).
// Share of the FMA peak of one Zen 5 core (AVX-512, minima, earlier tiles): forward, input gradient
//   256 -> 120: 95%, 89%.   120 -> 84: 93%, 94%.   84 -> 10: 87%, 85%
//   784 -> 256: 95%, 92%.   256 -> 256: 92%, 92%.   256 -> 10: 88%, 83%
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

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Linear, linear)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradInput, linear_grad_input)

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
