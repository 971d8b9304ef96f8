// Linear layers in the lane layout, forward and both gradients. Contract: kernels.md.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

namespace {

template <typename T> class LinearGenerator : public Generator<T> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, k{"k", 1};

protected:
    Var l{"l"}, f{"f"}, b{"b"}, fo, fi;
    int v() const { return resolve_lanes(lanes, this->get_target()); }
    int blocks() const { return n > 0 ? n / v() : 1; }

    // output(l, f, b) = first(f) + sum over t of image(l, t, b) * weight: features in registers, fully unrolled.
    void product(Func output, Expr first, Expr term, RDom t, int features) {
        Func sum("sum");
        sum(l, f, b) = first;
        sum(l, f, b) += term;
        output(l, f, b) = sum(l, f, b);
        int tile = tile_extent(features, accumulators(this->get_target()));
        output.split(f, fo, fi, tile, TailStrategy::ShiftInwards).reorder(l, fi, fo, b).vectorize(l, v()).unroll(fi);
        sum.compute_at(output, fo).store_in(MemoryType::Stack).bound_extent(l, v()).vectorize(l, v()).unroll(f);
        sum.update().reorder(l, f, t, b).vectorize(l, v()).unroll(f);
    }
};

} // namespace

class Linear : public LinearGenerator<Linear> {
public:
    GeneratorParam<bool> bias{"bias", true};
    Input<Buffer<float, 3>> input{"input"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> output{"output"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
    }
    void generate() {
        RDom t(0, c);
        product(output, bias ? Expr((*bias_)(f)) : Expr(0.f), input(l, t, b) * weight(t, f), t, k);
        set_dense(input, {v(), c, blocks()});
        set_dense(weight, {c, k});
        if (bias) set_dense(*bias_, {k});
        set_dense(output, {v(), k, blocks()});
    }

private:
    Input<Buffer<float, 1>> *bias_ = nullptr;
};

class LinearGradInput : public LinearGenerator<LinearGradInput> {
public:
    Input<Buffer<float, 3>> dy{"dy"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> dx{"dx"};

    void generate() {
        RDom t(0, k);
        product(dx, 0.f, dy(l, t, b) * weight(f, t), t, c);
        set_dense(dy, {v(), k, blocks()});
        set_dense(weight, {c, k});
        set_dense(dx, {v(), c, blocks()});
    }
};

// One tile of output features, over all blocks: outer products of rows of x (vectors of input features) and scalars of
// dy. No partial sums, the order of the sum is that of the samples.
class LinearGradWeight : public Generator<LinearGradWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, k{"k", 1}, tile{"tile", 1};
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> xt{"xt"}, dy{"dy"};
    Output<Buffer<float, 2>> dw{"dw"};

    void generate() {
        int v = resolve_lanes(lanes, get_target()), vector = get_target().natural_vector_size<float>();
        while (vector > c) vector /= 2;
        Tile registers = register_tile((c + vector - 1) / vector, tile, accumulators(get_target()));
        while (registers.pixels * vector > c) registers.pixels--;
        Var i("i"), f("f"), io, ii, fo, fi;
        RDom t(0, v, 0, (batch + v - 1) / v);
        Func sum("sum");
        sum(i, f) = 0.f;
        sum(i, f) += xt(i, t.x, t.y) * dy(t.x, f, t.y);
        dw(i, f) = sum(i, f);
        dw.split(i, io, ii, vector * registers.pixels, TailStrategy::ShiftInwards)
            .split(f, fo, fi, registers.channels, TailStrategy::ShiftInwards)
            .reorder(ii, fi, fo, io)
            .vectorize(ii, vector)
            .unroll(ii)
            .unroll(fi);
        sum.compute_at(dw, fo).store_in(MemoryType::Stack).vectorize(i, vector).unroll(i).unroll(f);
        sum.update().reorder(i, f, t.x, t.y).vectorize(i, vector).unroll(i).unroll(f).unroll(t.x, 4);
        xt.dim(0).set_bounds(0, c).set_stride(1);
        xt.dim(1).set_bounds(0, v).set_stride(c);
        xt.dim(2).set_min(0).set_stride(c * v);
        dy.dim(0).set_bounds(0, v).set_stride(1);
        dy.dim(1).set_bounds(0, tile).set_stride(v);
        dy.dim(2).set_min(0).set_stride(v * k);
        set_dense(dw, {c, tile});
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Linear, linear)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradInput, linear_grad_input)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradWeight, linear_grad_weight)
