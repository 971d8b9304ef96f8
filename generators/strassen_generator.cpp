// Generators `strassen_weight` and `conv2d_strassen` (kernels.md).
// GFLOP/s of direct convolution's operations on one Zen 5 core, AVX-512, FMA peak 265 to 274, and direct convolution in
// the same run, values in the caches: 256 -> 1024 @ 7: 287, 252; 1024 -> 256 @ 7: 272, 239; 128 -> 512 @ 14: 277, 251;
// 512 -> 128 @ 14: 267, 244; 512 -> 2048 @ 4: 289, 253; 832 -> 384 @ 3: 276, 256; a single pixel in a tile that
// overlaps instead, 7x7 takes 1.06 times as long. AVX2 on the same machine, peak 134: 256 -> 1024 @ 7: 136, 126; 512 ->
// 128 @ 14: 137, 126. Inside resnet50's inference of 16 images, two threads: 512 -> 128 @ 14: 253, 230; 512 -> 2048 @
// 4: 268, 237, where memory is slow 190-208. Without the lines of the next channel tile's weights and results asked for
// ahead 256 -> 256 @ 7 from memory takes 1.1 times as long; tiles of 3 pixels by 8 channels are slower by 3% to 8%.
#include "appended_program.h"
#include "gpu.h"
#include "lanes.h"
#include "prefetch.h"
#include "scratch.h"
#include "strassen.h"
#include "turn.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// The sum that a row of one of the matrices asks for.
template <size_t n, class F> Expr signed_sum(const std::array<int, n> &signs, F term) {
    Expr sum;
    for (int i = 0; i < int(n); i++) {
        if (!signs[size_t(i)]) continue;
        const Expr value = term(i);
        const bool minus = signs[size_t(i)] < 0;
        sum = !sum.defined() ? (minus ? -value : value) : minus ? sum - value : sum + value;
    }
    return sum;
}

} // namespace

class Conv2dStrassen : public Halide::Generator<Conv2dStrassen> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 2}, w{"w", 2}, k{"k", 2};
    GeneratorParam<bool> bias{"bias", false};
    GeneratorParam<int> parts{"parts", 1}; // > 1: a call makes one of so many ranges of pixel tiles
    GeneratorParam<std::string> program{"program", ""};
    Input<Buffer<float, 5>> x{"x"};
    Input<Buffer<float, 4>> u{"u"};
    Output<Buffer<float, 1>> scratch{"scratch"};
    Output<Buffer<float, 5>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
        program_.add_inputs(*this, program);
        if (parts > 1) part_ = add_input<int>("part");
    }

    void generate() {
        refuse_gpu(get_target());
        const StrassenConv q = shape();
        const int half_c = q.c / 2, half_k = q.k / 2, tile_x = q.tile_x(), tile_k = q.tile_k();
        auto image = [&](auto &buffer, int channels) { set_dense(buffer, {q.lanes, q.pixels, 1, channels, 1}); };
        image(x, q.c);
        image(y, q.k);
        program_.each_input([&](auto &other) { image(other, q.k); });
        set_dense(u, {tile_k, half_c, strassen_products, q.channel_tiles()});
        if (bias_) set_dense(*bias_, {q.k});
        set_dense(scratch, {int(q.scratch_elements())});

        // What is multiplied of a pixel tile. Channels of x are planes apart; here they follow each other.
        Var l("l"), xi("xi"), ci("ci"), i("i"), ko("ko"), kt("kt"), g("g"), e("e");
        std::vector<Expr> sums;
        for (const auto &signs : strassen_matrices.input)
            sums.push_back(signed_sum(signs, [&](int quadrant) {
                return x(l, first_pixel(q, g) + quadrant % 2 * tile_x + xi, 0, quadrant / 2 * half_c + ci, 0);
            }));
        side_(l, xi, ci, i, g) = mux(i, sums);

        Func sum("sum");
        sum_ = sum.name();
        RDom rc(0, half_c);
        sum(l, xi, ko, i, kt, g) = nothing();
        sum(l, xi, ko, i, kt, g) += side_(l, xi, rc, i, g) * u(ko, rc, i, kt);
        product_(l, xi, ko, i, kt, g) = sum(l, xi, ko, i, kt, g);

        const Expr first = part_ ? first_tile(*part_) : 0;
        const Expr tiles = part_ ? first_tile(*part_ + 1) - first : q.pixel_tiles();
        RDom d(0, tile_x, 0, 2, 0, 2, 0, tile_k, 0, q.channel_tiles(), 0, tiles); // 1, 2: halves of pixels, channels
        const Expr tile = first + d[5], in_half = d[4] * tile_k + d[3];
        std::vector<Expr> results;
        for (const auto &signs : strassen_matrices.output)
            results.push_back(signed_sum(signs, [&](int p) { return product_(l, d[0], d[3], p, d[4], tile); }));
        Expr value = mux(d[2] * 2 + d[1], results);
        if (half_k % tile_k) d.where(in_half < half_k);
        const Expr channel = unsafe_promise_clamped(d[2] * half_k + in_half, 0, q.k - 1);
        const Expr pixel = unsafe_promise_clamped(first_pixel(q, tile) + d[1] * tile_x + d[0], 0, q.pixels - 1);
        if (bias_) value += (*bias_)(channel);
        Var px("x"), py("y"), pc("c"), pb("b");
        y(l, px, py, pc, pb) = Halide::undef<float>();
        y(l, pixel, 0, channel, 0) = program_.of(value, {l, pixel, 0, channel, 0});
        scratch(e) = Halide::undef<float>();
        if (q.has_single_pixel()) make_single_pixel(q);

        const std::string update = Func(y).name() + ".s1.";
        tile_loop_ = update + d[5].name();
        channel_loop_ = update + d[4].name();

        // Schedule.
        auto out = Func(y).update();
        out.reorder(l, d[0], d[1], d[2], d[3], d[4], d[5]).vectorize(l, q.lanes);
        out.unroll(d[0]).unroll(d[1]).unroll(d[2]).never_partition_all();
        product_.compute_at(y, d[4]).bound(xi, 0, tile_x).bound(ko, 0, tile_k).bound(i, 0, strassen_products);
        product_.reorder(l, xi, ko, i, kt).vectorize(l, q.lanes).unroll(xi).unroll(ko);
        sum.compute_at(product_, i).vectorize(l, q.lanes).unroll(xi).unroll(ko);
        sum.update().reorder(l, xi, ko, rc).vectorize(l, q.lanes).unroll(xi).unroll(ko);
        sum.update().unroll(rc, largest_divisor(half_c, 4)).never_partition_all();
        side_.compute_at(y, d[5]).bound(xi, 0, tile_x).bound(i, 0, strassen_products).bound(ci, 0, half_c);
        side_.reorder(l, xi, i, ci).vectorize(l, q.lanes).unroll(xi).unroll(i).never_partition_all();
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Conv2dStrassen>::build_pipeline();
        place_in_scratch(pipeline, Func(scratch).name(), shape().scratch_elements(), {side_});
        prefetch(pipeline);
        return pipeline;
    }

private:
    StrassenConv shape() const {
        const StrassenConv q{resolve_lanes(get_target(), lanes), c, k, w};
        if (!q.possible()) throw Halide::CompileError("no halves of these channels, or too few pixels");
        return q;
    }
    // The last pixel: y1 = W11 x1 + W12 x2, y2 = W21 x1 + W22 x2, of weights that u holds: the third and fourth
    // product's are W11 and W22, the next two's W11 + W12 and W21 - W11.
    void make_single_pixel(const StrassenConv &q) {
        const int half_c = q.c / 2, half_k = q.k / 2, tile_k = q.tile_k(), last = q.pixels - 1;
        Var l("l"), ko("ko"), half("half"), kt("kt");
        RDom rc(0, half_c);
        const Expr x1 = x(l, last, 0, rc, 0), x2 = x(l, last, 0, half_c + rc, 0);
        auto weight = [&](int product) { return u(ko, rc, product, kt); };
        Func sum("single");
        sum(l, ko, half, kt) = nothing();
        sum(l, ko, half, kt) +=
            mux(half, {weight(2) * (x1 - x2) + weight(4) * x2, (weight(5) + weight(2)) * x1 + weight(3) * x2});
        const Expr calls = part_ ? select(*part_ == parts - 1, 1, 0) : 1; // that make it
        RDom d(0, 2, 0, tile_k, 0, q.channel_tiles(), 0, calls);
        const Expr in_half = d[2] * tile_k + d[1];
        if (half_k % tile_k) d.where(in_half < half_k);
        const Expr channel = unsafe_promise_clamped(d[0] * half_k + in_half, 0, q.k - 1);
        Expr value = sum(l, d[1], d[0], d[2]);
        if (bias_) value += (*bias_)(channel);
        y(l, last, 0, channel, 0) = program_.of(value, {l, last, 0, channel, 0});

        auto out = Func(y).update(1);
        out.reorder(l, d[0], d[1], d[2], d[3]).vectorize(l, q.lanes).unroll(d[0]).never_partition_all();
        sum.compute_at(y, d[2]).bound(ko, 0, tile_k).bound(half, 0, 2);
        sum.vectorize(l, q.lanes).unroll(ko).unroll(half);
        sum.update().reorder(l, ko, half, rc).vectorize(l, q.lanes).unroll(ko).unroll(half).never_partition_all();
    }

    static Expr first_pixel(const StrassenConv &q, const Expr &tile) {
        const int width = 2 * q.tile_x();
        return q.pixels % width > 1 ? min(tile * width, q.pixels - width) : tile * width;
    }
    Expr first_tile(const Expr &part) { return part * shape().pixel_tiles() / int(parts); }

    // Beside the products of each of a pixel tile's channel tiles: the next one's weights, where the first pixel tile
    // reads them, and of images that no cache holds a part of the next pixel tile of x, and the lines that are about to
    // be loaded for the program, or stored.
    void prefetch(Halide::Pipeline pipeline) {
        const StrassenConv q = shape();
        const int channel_tiles = q.channel_tiles(), width = 2 * q.tile_x();
        const Expr tile = loop_variable(tile_loop_) + (part_ ? first_tile(*part_) : 0);
        const Expr channel_tile = channel_tiles > 1 ? loop_variable(channel_loop_) : Expr(0);
        if (q.pixel_tiles() <= parts) return; // no loop over tiles
        TileAhead ahead{{tile_loop_}, sum_, {}};
        if (channel_tiles > 1) ahead.loops.push_back(channel_loop_);
        auto ask = [&](const std::string &buffer, const Expr &of_tile, const Expr &channel, int channels) {
            const Expr pixel = min(of_tile * width, q.pixels - width) + loop_variable("place");
            ahead.lines.push_back(
                {buffer, (channel * q.pixels + pixel) * q.lanes, width, channels, q.pixels * q.lanes});
        };
        if (4L * q.lanes * q.pixels * (q.c + q.k) >= cached_images) {
            const int share = ceil_div(q.c, channel_tiles), results = std::min(q.tile_k(), q.k / 2);
            ask("x", tile + 1, min(channel_tile * share, q.c - share), share);
            std::vector<std::string> stored = program_.input_names();
            stored.push_back(Func(y).name());
            const Expr last = channel_tile == channel_tiles - 1;
            const Expr next_tile = tile + select(last, 1, 0);
            const Expr next_channels = select(last, 0, channel_tile + 1) * results;
            for (const std::string &buffer : stored)
                for (int half : {0, 1})
                    ask(buffer, next_tile, half * (q.k / 2) + min(next_channels, q.k / 2 - results), results);
        }
        if (channel_tiles > 1) {
            const int line = 16, weights = q.tile_k() * (q.c / 2) * strassen_products; // floats, of a channel tile
            ahead.lines.push_back({"u", min(channel_tile + 1, channel_tiles - 1) * weights, 1, ceil_div(weights, line),
                                   line, loop_variable(tile_loop_) == 0});
        }
        prefetch_beside_products(pipeline, ahead);
    }

    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
    Halide::GeneratorInput<int> *part_ = nullptr;
    AppendedProgram program_;
    Func side_{"side"}, product_{"product"};
    std::string sum_, tile_loop_, channel_loop_;
};

// The seven sums of the weight's quadrants, in the order in which conv2d_strassen reads them. flip: for the input
// gradient, whose input channels are the convolution's output channels. Of `tiles` convolutions side by side, each of k
// output channels.
class StrassenWeight : public Halide::Generator<StrassenWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 2}, k{"k", 2}, tiles{"tiles", 1};
    GeneratorParam<bool> flip{"flip", false};
    GeneratorParam<bool> in_parts{"in_parts", false}; // a call makes one channel tile
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 4>> u{"u"};

    void configure() {
        if (in_parts) part_ = add_input<int>("channel_tile");
    }

    void generate() {
        refuse_gpu(get_target());
        const StrassenConv q{resolve_lanes(get_target(), lanes), c, k};
        const int half_c = q.c / 2, half_k = q.k / 2, tile_k = q.tile_k(), all = q.channel_tiles(), of = tiles;
        if (flip)
            set_dense(weight, {1, 1, q.k * of, q.c});
        else
            set_dense(weight, {1, 1, q.c, q.k * of});
        set_dense(u, {tile_k, half_c, strassen_products, in_parts ? 1 : all * of});
        Var ko("ko"), ci("ci"), p("p"), kt("kt"), co("co"), cv("cv");
        const Expr tile = part_ ? Expr(*part_) + kt : Expr(kt);
        const Expr first = tile / all * q.k, in_half = min(tile % all * tile_k + ko, half_k - 1);
        std::vector<Expr> sums;
        for (const auto &signs : strassen_matrices.weight)
            sums.push_back(signed_sum(signs, [&](int quadrant) {
                const Expr output = first + quadrant / 2 * half_k + in_half, input = quadrant % 2 * half_c + ci;
                return flip ? weight(0, 0, output, input) : weight(0, 0, input, output);
            }));

        // Both sides are read in vectors: of output channels where they lie side by side, else of input channels.
        const int step = vector_width(half_c, 16);
        Func out = u;
        if (flip) {
            u(ko, ci, p, kt) = mux(p, sums);
            out.reorder(ko, p, ci, kt).vectorize(ko).unroll(p);
        } else {
            Turn turn("turned", ko, ci, {p, kt}, mux(p, sums));
            u(ko, ci, p, kt) = turn.turned(ko, ci, p, kt);
            out.split(ci, co, cv, step, TailStrategy::ShiftInwards).reorder(ko, cv, p, co, kt).vectorize(ko);
            turn.schedule({u, co}, step, tile_k, tile_k);
            turn.turned.unroll(p);
        }
        out.never_partition_all();
    }

private:
    Halide::GeneratorInput<int> *part_ = nullptr;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dStrassen, conv2d_strassen)
HALIDE_REGISTER_GENERATOR(cryolite::StrassenWeight, strassen_weight)
