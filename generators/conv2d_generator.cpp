// 2-D convolution in the lane layout, forward and both gradients. Contract: kernels.md.
//
// Every kernel is vectorised over lanes and reads weights as scalars. A tile of pixels times channels is accumulated in
// registers, fully unrolled, over the whole reduction.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

namespace {

// The image with zeros around it; without padding the image itself.
Func padded(Func image, int w, int h, int padding) {
    if (padding == 0) return image;
    Var l, x, y, c, b;
    Func f("padded");
    Expr inside = x >= 0 && x < w && y >= 0 && y < h;
    f(l, x, y, c, b) = select(inside, image(l, clamp(x, 0, w - 1), clamp(y, 0, h - 1), c, b), 0.f);
    return f;
}

template <typename T> class Conv2dGenerator : public Generator<T> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0};
    GeneratorParam<int> c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 1}, s{"s", 1};
    GeneratorParam<int> stride{"stride", 1}, padding{"padding", 0};

protected:
    Var l{"l"}, x{"x"}, y{"y"}, ch{"ch"}, b{"b"}, xo, xi, co, ci;
    int v() const { return resolve_lanes(lanes, this->get_target()); }
    int blocks() const { return n > 0 ? n / v() : 1; }
    int ho() const { return (h + 2 * padding - r) / stride + 1; }
    int wo() const { return (w + 2 * padding - s) / stride + 1; }
    int budget() const { return accumulators(this->get_target()); }
    std::vector<int> x_extents() const { return {v(), w, h, c, blocks()}; }
    std::vector<int> y_extents() const { return {v(), wo(), ho(), k, blocks()}; }
    std::vector<int> weight_extents() const { return {s, r, c, k}; }
};

} // namespace

class Conv2d : public Conv2dGenerator<Conv2d> {
public:
    GeneratorParam<bool> bias{"bias", true};
    Input<Buffer<float, 5>> input{"input"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> output{"output"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
    }
    void generate() {
        RDom t(0, s, 0, r, 0, c);
        Func image = padded(input, w, h, padding), sum("sum");
        sum(l, x, y, ch, b) = bias ? Expr((*bias_)(ch)) : Expr(0.f);
        sum(l, x, y, ch, b) +=
            image(l, x * stride + t.x - padding, y * stride + t.y - padding, t.z, b) * weight(t.x, t.y, t.z, ch);
        output(l, x, y, ch, b) = sum(l, x, y, ch, b);

        Tile tile = register_tile(wo(), k, budget());
        output.split(x, xo, xi, tile.pixels, TailStrategy::ShiftInwards)
            .split(ch, co, ci, tile.channels, TailStrategy::ShiftInwards)
            .reorder(l, xi, ci, co, xo, y, b)
            .vectorize(l, v())
            .unroll(xi)
            .unroll(ci);
        sum.compute_at(output, co)
            .store_in(MemoryType::Stack)
            .bound_extent(l, v())
            .vectorize(l, v())
            .unroll(x)
            .unroll(ch);
        sum.update().reorder(l, x, ch, t.x, t.y, t.z, y, b).vectorize(l, v()).unroll(x).unroll(ch).unroll(t.x);
        set_dense(input, x_extents());
        set_dense(weight, weight_extents());
        if (bias) set_dense(*bias_, {k});
        set_dense(output, y_extents());
    }

private:
    Input<Buffer<float, 1>> *bias_ = nullptr;
};

class Conv2dGradInput : public Conv2dGenerator<Conv2dGradInput> {
public:
    Input<Buffer<float, 5>> dy{"dy"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> dx{"dx"};

    void generate() {
        // A whole row of few pixels fits the registers: each dy is scattered to the pixels it came from, and no product
        // with the zeros around dy is ever made.
        if (stride == 1 && padding == 0 && w <= budget())
            scatter();
        else
            gather();
        set_dense(dy, y_extents());
        set_dense(weight, weight_extents());
        set_dense(dx, x_extents());
    }

private:
    void scatter() {
        RDom t(0, wo(), 0, s, 0, k, 0, r);
        t.where(y - t[3] >= 0 && y - t[3] < ho());
        Func sum("sum");
        sum(l, x, y, ch, b) = 0.f;
        sum(l, t[0] + t[1], y, ch, b) +=
            dy(l, t[0], clamp(y - t[3], 0, ho() - 1), t[2], b) * weight(t[1], t[3], ch, t[2]);
        dx(l, x, y, ch, b) = sum(l, x, y, ch, b);
        int channels = tile_extent(c, std::max(1, budget() / w));
        dx.split(ch, co, ci, channels, TailStrategy::ShiftInwards)
            .reorder(l, x, ci, co, y, b)
            .vectorize(l, v())
            .unroll(x)
            .unroll(ci);
        sum.compute_at(dx, co).store_in(MemoryType::Stack).bound_extent(l, v()).vectorize(l, v()).unroll(x).unroll(ch);
        sum.update()
            .reorder(l, ch, t[0], t[1], t[2], t[3], y, b)
            .vectorize(l, v())
            .unroll(ch)
            .unroll(t[0])
            .unroll(t[1]);
    }
    void gather() {
        RDom t(0, s, 0, r, 0, k);
        Func sum("sum");
        Expr ax = x + padding - t.x, ay = y + padding - t.y;
        Expr inside =
            ax >= 0 && ay >= 0 && ax % stride == 0 && ay % stride == 0 && ax / stride < wo() && ay / stride < ho();
        Expr from = dy(l, clamp(ax / stride, 0, wo() - 1), clamp(ay / stride, 0, ho() - 1), t.z, b);
        sum(l, x, y, ch, b) = 0.f;
        sum(l, x, y, ch, b) += select(inside, from, 0.f) * weight(t.x, t.y, ch, t.z);
        dx(l, x, y, ch, b) = sum(l, x, y, ch, b);
        Tile tile = register_tile(w, c, budget());
        dx.split(x, xo, xi, tile.pixels, TailStrategy::ShiftInwards)
            .split(ch, co, ci, tile.channels, TailStrategy::ShiftInwards)
            .reorder(l, xi, ci, co, xo, y, b)
            .vectorize(l, v())
            .unroll(xi)
            .unroll(ci);
        sum.compute_at(dx, co).store_in(MemoryType::Stack).bound_extent(l, v()).vectorize(l, v()).unroll(x).unroll(ch);
        sum.update().reorder(l, x, ch, t.x, t.y, t.z, y, b).vectorize(l, v()).unroll(x).unroll(ch);
    }
};

class Conv2dGradWeight : public Conv2dGenerator<Conv2dGradWeight> {
public:
    Input<Buffer<float, 5>> input{"input"}, dy{"dy"};
    Output<Buffer<float, 4>> dw{"dw"};

    // Accumulators are the s taps of a window row times some output channels, side by side in q; lanes are summed by
    // halving: pairs of neighbours, three times, on the flattened (lane, q), then pairs of what is left.
    void generate() {
        Var q("q"), ky("ky"), i("i"), g("g"), kx("kx"), ko("ko"), j("j");
        int channels = tile_extent(k, std::max(1, budget() / s)), z = s * channels;
        RDom t(0, wo(), 0, ho(), 0, blocks());
        Func image = padded(input, w, h, padding), sum("sum");
        // q runs over s * channels; the last group of channels is shifted back to end at k.
        Expr channel = min(g * channels, k - channels) + q / s;
        sum(l, q, ky, i, g) = 0.f;
        sum(l, q, ky, i, g) += dy(l, t.x, t.y, channel, t.z) *
                               image(l, t.x * stride + q % s - padding, t.y * stride + ky - padding, i, t.z);

        // Halvings of v * z values down to z.
        std::vector<Func> halves;
        Func last = sum;
        bool first = true;
        int size = v() * z;
        while (size > 2 * z) {
            Func half("half");
            Expr a = 2 * j, c2 = 2 * j + 1;
            half(j, ky, i, g) = first ? sum(a % v(), a / v(), ky, i, g) + sum(c2 % v(), c2 / v(), ky, i, g)
                                      : last(a, ky, i, g) + last(c2, ky, i, g);
            halves.push_back(half);
            last = half;
            first = false;
            size /= 2;
        }
        Func total("total");
        total(q, ky, i, g) = last(2 * q, ky, i, g) + last(2 * q + 1, ky, i, g);
        int groups = (k + channels - 1) / channels;
        // Channel ch lies in group g = ch / channels, or in the last, shifted one.
        Expr group = min(ch / channels, groups - 1);
        Expr place = kx + s * (ch - min(group * channels, k - channels));
        dw(kx, ky, i, ch) = total(place, ky, i, group);

        dw.split(ch, co, ci, channels, TailStrategy::GuardWithIf).reorder(kx, ci, ky, i, co).unroll(kx);
        total.compute_at(dw, ky).store_in(MemoryType::Stack).bound_extent(q, z).bound_extent(g, 1);
        size = v() * z / 2;
        for (Func half : halves) {
            int width = size % 16 == 0 ? 16 : size % 8 == 0 ? 8 : size % 4 == 0 ? 4 : 2;
            half.compute_at(dw, ky)
                .store_in(MemoryType::Stack)
                .bound_extent(j, size)
                .bound_extent(g, 1)
                .vectorize(j, width)
                .unroll(j);
            size /= 2;
        }
        sum.compute_at(dw, ky)
            .store_in(MemoryType::Stack)
            .bound_extent(l, v())
            .bound_extent(q, z)
            .bound_extent(g, 1)
            .vectorize(l, v())
            .unroll(q);
        sum.update().reorder(l, q, t.x, t.y, t.z).vectorize(l, v()).unroll(q);
        set_dense(input, x_extents());
        set_dense(dy, y_extents());
        set_dense(dw, weight_extents());
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2d, conv2d)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradInput, conv2d_grad_input)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeight, conv2d_grad_weight)
