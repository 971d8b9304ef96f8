// Generators `conv2d`, `conv2d_grad_input` and `conv2d_grad_weight` (kernels.md): direct convolution with one sample a
// vector lane, so that every channel count, window and stride fills the vectors.
// Share of the FMA peak of one core; above 100%: products with the padding count, but are not computed.
// Zen 5, AVX-512, with earlier tiles: forward, input, weight gradient
//   5x5 1 -> 6 @ 28: 98%, 85%, 98%.   5x5 6 -> 16 @ 12: 100%, 100%, 91%.   1x1 stride 2 64 -> 128 @ 16: 78%, 65%, 57%
//   3x3 64 -> 64 @ 32 padded: 101%, 102%, 98%.   3x3 stride 2 64 -> 128 @ 16 padded: 107%, 103%, 96%
// Zen 3, AVX2, least thread CPU time on a busy machine (peak 88-90 GFLOP/s): forward, input, weight gradient
//   3x3 padded 64 @ 32: 102%, 103%, 113%.   128 @ 16: 111%, 103%, 111%.   256 @ 8: 117%, 98%, 108%.
//   512 @ 4: 110%, 76-110%, 107%.   stride 2 64 -> 128 @ 32: 99%, 76%, 81%.   256 @ 7: 84%, 75%, 111%
//   1x1 64 -> 256 @ 28: 94-101%, 71-78%, 81%.   1024 -> 256 @ 7: 88%, 76%, 90%.   7x7 stride 2 3 -> 64 @ 112: below,
//   not measured, 69%.   depthwise 3x3 144 @ 24: 107%, 104%, 76%; stride 2: 64%, 55%, 58%
// 1x1 with packed pixels, inside resnet50's step (`bench --profile`), a Xeon with AVX-512 whose peak is 240 and whose
// L3 gives 14 GB/s a core, GFLOP/s (and before): forward 2048 -> 128 @ 4: 134 (67), 256 -> 32 @ 28: 105 (70).
// 1x1 inside resnet50's inference of 16 images, Zen 5, AVX-512, of a peak of 265, two threads (and with lines ahead
//   asked for at once): 64 -> 256 @ 28: 236-240 (128-143), where memory is slow 171-190, 256 -> 64 @ 28: 243 (196-207),
//   128 -> 512 @ 14: 233 (190-205), 1024 -> 256 @ 7: 235 (202), 256 -> 1024 @ 7: 230 (200), 512 -> 2048 @ 4: 241 (218)
// Input gradients of swapped weights, inside resnet50's step on the Zen 3, two threads, of a peak of 100 (and not
// swapped):
//   1x1 1024 -> 256 @ 7: 72 (35), 1024 -> 512 @ 7: 72 (25), 2048 -> 512 @ 4: 75 (30).   3x3 stride 2 256 @ 14: 49 (18),
//   512 @ 7: 65 (18)
// First layers, the Zen 3, of a peak of 104 GFLOP/s: forward (by 12 sums, see is_first)
//   5x5 1 -> 6 @ 28: 86% (48%), padded 94% (85%).   3x3 padded 1 -> 32 @ 28: 89% (87%).   3x3 padded 3 -> 64 @ 32: 93%
//   (82%), stride 2 3 -> 32 @ 96: 78-86% (48%).   7x7 stride 2 3 -> 64 @ 112: 92% (56%)
#include "appended_program.h"
#include "conv2d_gpu.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// Code grows with the unrolled taps times the accumulators; more than this is left as a loop: whole windows of 5x5 by
// 16 sums, 6 -> 16 @ 12, take 1.19 times as long as rows of them (AVX-512). Knob `unroll` says another number.
constexpr int most_unrolled_fmas = 384;

// Bits: which loops over a window are unrolled, around a tile of so many multiply-adds.
enum Unrolled { over_columns = 1, over_rows = 2 };
int unrolled_loops(int s, int r, int tile, int most) {
    return (s > 1 && s * tile <= most ? over_columns : 0) | (r > 1 && s * tile * r <= most ? over_rows : 0);
}

// Images of few channels, with 16 registers. Their planes and weights lie in L1: loads are cheap, and a tile of 8 sums
// leaves registers for what the compiler keeps of the source from one window column to the next. With 12 sums, or rows
// unrolled as well, these spill. Of more channels, from L2, 12 sums gain more than they lose.
bool is_first(const ConvShape &q, const Registers &registers) {
    return q.c <= 4 && q.k > 1 && q.s > 1 && registers.count < 32;
}
int usually_unrolled(bool first) { return first ? most_unrolled_fmas / 4 : most_unrolled_fmas; }

// Knob `order`: bits that turn the schedule's own order of loops round.
enum Order {
    other_waits = 1,  // which side of a register tile waits in registers while the other passes
    channels_last = 2 // the loop over channel tiles around the one over a row's tiles, not inside
};

struct ConvVars {
    Var l{"l"}, x{"x"}, y{"y"}, c{"c"}, b{"b"};
};

// What a sum over a window reads: images of `channels` planes of w columns and h rows. padded: windows leave the image.
// packed: the window is one pixel, and a tile's pixels are copied.
struct Source {
    int w, h, channels, s, r;
    bool padded, packed = false;
};

// out = start + sum over a window's columns, rows and channels of source * weight. Rows outside the image are skipped
// by the reduction domain; columns outside are selects whose conditions are constants in the first, steady and last
// tiles that loop partitioning makes.
struct Gather {
    ConvVars v;
    Func sum{"sum"}, out{"out"}, copy{"copy"};
    RDom d; // window column, window row, channel of the source

    explicit Gather(const Source &q) : d(0, q.s, 0, q.r, 0, q.channels), source_(q) {}

    // program: what is stored of a sum.
    template <class X>
    void define(X &x, const Expr &column, const Expr &row, const Expr &start, const Expr &weight,
                const AppendedProgram &program = {}) {
        const Source &q = source_;
        Expr value;
        if (q.padded) {
            d.where(within(row, q.h));
            value = select(within(column, q.w),
                           likely(x(v.l, inner_clamp(column, q.w), clamp(row, 0, q.h - 1), d.z, v.b)), 0.f);
        } else if (q.packed) {
            copy(v.l, v.x, v.y, v.c, v.b) = x(v.l, v.x, v.y, v.c, v.b);
            value = copy(v.l, column, row, d.z, v.b);
        } else {
            value = x(v.l, column, row, d.z, v.b);
        }
        sum(v.l, v.x, v.y, v.c, v.b) = start;
        sum(v.l, v.x, v.y, v.c, v.b) += value * weight;
        const std::vector<Expr> at{v.l, v.x, v.y, v.c, v.b};
        out(at) = program.of(sum(at), at);
    }

    // Register tiles of x positions and channels; for each, all taps. Channel tiles are inside the row, so that the
    // tile's source stays in L1 while the weights pass. Tiles that do not divide overlap.
    void schedule(Tile tile, int lanes, int width, int most_unrolled, int order) {
        Var xo("xo"), xi("xi"), co("co"), ci("ci");
        out.split(v.x, xo, xi, tile.x, TailStrategy::ShiftInwards);
        out.split(v.c, co, ci, tile.c, TailStrategy::ShiftInwards);
        const Var &inner = order & channels_last ? xo : co, &outer = order & channels_last ? co : xo;
        out.reorder(v.l, xi, ci, inner, outer, v.y, v.b).vectorize(v.l, lanes).unroll(xi).unroll(ci);
        out.never_partition_all();
        if (width > tile.x) out.partition(xo, Halide::Partition::Auto);
        // One row is needed, but bounds inference makes no constant of it where padding exceeds the window.
        sum.compute_at(out, inner).bound_extent(v.y, 1);
        sum.vectorize(v.l, lanes).unroll(v.x).unroll(v.c).never_partition_all();
        // The smaller side of the tile waits in registers while the other passes. The whole window is inside the loop
        // over channels: source and weights are then read front to back, each cache line once.
        const bool pixels_wait = (tile.x <= tile.c) != bool(int(order) & other_waits);
        const Var &first = pixels_wait ? v.x : v.c, &second = pixels_wait ? v.c : v.x;
        sum.update().reorder(v.l, first, second, d.x, d.y, d.z);
        const int unrolled = unrolled_loops(source_.s, source_.r, tile.x * tile.c, most_unrolled);
        if (unrolled & over_columns) sum.update().unroll(d.x);
        if (unrolled & over_rows) sum.update().unroll(d.y);
        sum.update().vectorize(v.l, lanes).unroll(v.x).unroll(v.c).never_partition_all();
        if (!source_.packed) return;
        sum.update().unroll(d.z, largest_divisor(source_.channels, 4));
        copy.compute_at(out, xo).bound_extent(v.x, tile.x).bound_extent(v.y, 1).bound_extent(v.c, source_.channels);
        copy.reorder(v.l, v.x, v.c).vectorize(v.l, lanes).unroll(v.x).never_partition_all();
    }

    // Of windows of one pixel, what a tile of them asks for, beside the products of each of its channel tiles: a part
    // of the next tile's source, and the lines of `stored`, images of k results, that the next channel tile will load
    // and store: its own would come too late, 64 -> 256 @ 28 with a residual sum takes 1.2 times as long (Zen 5). Their
    // channels are planes apart, which no cache foresees. While the weights pass for the first time, also those
    // of the next channel tile, if they are `rows` of a result each. Nothing where all of it lies within caches.
    TileAhead ahead(Tile tile, int lanes, int k, int plane, int order, const std::string &source,
                    const std::vector<std::string> &stored, bool rows) const {
        const Source &q = source_;
        const int channel_tiles = ceil_div(k, tile.c), share = ceil_div(q.channels, channel_tiles);
        const bool large = 4L * lanes * plane * (q.channels + k) >= cached_images;
        const int tiles = ceil_div(q.w, tile.x); // of two the last, which overlaps, leaves no loop
        if (!large || q.h > 1 || tiles < 3 || (channel_tiles > 1 && (order & channels_last))) return {};
        const std::string row = out.name() + ".s0.x.xo", column = out.name() + ".s0.c.co";
        const Expr tile_at = loop_variable(row), place = loop_variable("place");
        const Expr channel_tile = channel_tiles > 1 ? loop_variable(column) : Expr(0);
        auto lines = [&](const std::string &buffer, const Expr &at, const Expr &part, int channels,
                         int all) -> LinesAhead {
            const Expr x = min(at * tile.x, q.w - tile.x), channel = min(part * channels, all - channels);
            return {buffer, (channel * plane + x + place) * lanes, tile.x, channels, plane * lanes};
        };
        TileAhead result{{row}, sum.name(), {lines(source, tile_at + 1, channel_tile, share, q.channels)}};
        if (channel_tiles > 1) result.loops.push_back(column);
        const Expr last = channel_tile == channel_tiles - 1;
        const Expr next_tile = tile_at + select(last, 1, 0), next_channels = select(last, 0, channel_tile + 1);
        for (const std::string &buffer : stored)
            result.lines.push_back(lines(buffer, next_tile, next_channels, tile.c, k));
        if (channel_tiles > 1 && rows) {
            const Expr result_at = min((channel_tile + 1) * tile.c, k - tile.c) + place;
            const int line = 16; // floats
            result.lines.push_back(
                {"weight", result_at * q.channels, tile.c, ceil_div(q.channels, line), line, tile_at == 0});
        }
        return result;
    }

private:
    Source source_;
};

// dx = sum over k, r, s of dy * weight, scattered into a tile of `width` columns: each output pixel that touches the
// tile is loaded once and added to the columns under its window. Pixels and window columns are unrolled, so which of
// them meet the tile is known when the code is made: no multiply-add is wasted, whatever the stride.
template <class Dy> struct GradInput {
    ConvVars v;
    Var tile{"tile"}; // the x of `sum` counts from the tile's first column
    Func sum{"sum"}, dx{"dx"};
    RDom d; // output pixel, window column, output channel, window row

    // `width` is a multiple of the stride, unless there is one tile.
    GradInput(const ConvShape &q, Dy &dy, const gpu::At &weight, int width) {
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
            value * weight({d[1], d[3], v.c, v.b % q.groups * q.k + d[2]});
        dx(v.l, v.x, v.y, v.c, v.b) = sum(v.l, v.x % width, v.x / width, v.y, v.c, v.b);
    }

    // few: 16 registers, in which pixels wait while weights pass, row by row of the window; with 32 weights wait.
    void schedule(Tile t, int lanes, int tiles, bool few, int rows) {
        Var xo("xo"), xi("xi"), co("co"), ci("ci");
        dx.split(v.x, xo, xi, t.x, TailStrategy::GuardWithIf).split(v.c, co, ci, t.c, TailStrategy::ShiftInwards);
        dx.reorder(v.l, xi, ci, co, xo, v.y, v.b).vectorize(v.l, lanes).unroll(xi).unroll(ci).never_partition_all();
        if (tiles > 1) dx.partition(xo, Halide::Partition::Auto);
        sum.compute_at(dx, co).bound(v.x, 0, t.x).bound_extent(v.y, 1);
        sum.vectorize(v.l, lanes).unroll(v.x).unroll(v.c).never_partition_all();
        if (few)
            sum.update().reorder(v.l, d[0], v.c, d[1], d[3], d[2]);
        else
            sum.update().reorder(v.l, v.c, d[0], d[1], d[2], d[3]);
        if (few && rows * t.x * t.c <= most_unrolled_fmas / 4) sum.update().unroll(d[3]);
        sum.update().vectorize(v.l, lanes).unroll(v.c).unroll(d[0]).unroll(d[1]).never_partition_all();
    }
};

} // namespace

class Conv2d : public ConvBase<Conv2d> {
public:
    GeneratorParam<bool> bias{"bias", false};
    GeneratorParam<std::string> program{"program", ""};
    GeneratorParam<int> unroll{"unroll", 0}, order{"order", 0};
    Input<Buffer<float, 5>> x{"x"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
        program_.add_inputs(*this, program);
        add_scratch();
    }

    void generate() {
        const ConvShape q = shape();
        set_input(x, q);
        set_weight(weight, q);
        if (bias_) set_dense(*bias_, {q.k * q.groups});
        program_.each_input([&](auto &other) { set_output(other, q); });
        if (is_gpu(get_target())) {
            if (!program.value().empty()) throw Halide::CompileError("no program behind a convolution on a GPU");
            GpuTile tile = gpu_tile();
            tile.unroll = unroll;
            y = gpu::conv2d(q, tile, gpu::element(x), gpu::element(weight), bias_ ? gpu::element(*bias_) : nullptr);
            set_output(y, q);
            return;
        }
        Gather conv({.w = q.w, .h = q.h, .channels = q.c, .s = q.s, .r = q.r, .padded = q.padding > 0, .packed = pack});
        const auto &[v, d] = std::tie(conv.v, conv.d);
        Expr channel = v.b % q.groups * q.k + v.c;
        conv.define(x, v.x * q.stride + d.x - q.padding, v.y * q.stride + d.y - q.padding,
                    bias_ ? Expr((*bias_)(channel)) : nothing(), weight(d.x, d.y, d.z, channel), program_);
        y = conv.out;
        set_output(y, q);
        const long weight_stride = 4L * q.c * q.r * q.s;
        const bool first = is_first(q, registers_of(get_target(), q.lanes));
        Tile tile = chosen_tile({.x = q.wo(),
                                 .c = q.k,
                                 .steps = q.c * q.r * q.s,
                                 .most_x = first ? 4 : most_x(),
                                 .most_c = cached_streams(weight_stride),
                                 .x_cycles = 0.15,
                                 .c_cycles = 0.05},
                                {tile_x, tile_c}, first ? std::min(8, accumulators()) : accumulators());
        const int most = unroll ? int(unroll) : usually_unrolled(first);
        if (!using_autoscheduler()) conv.schedule(tile, q.lanes, q.wo(), most, order);
        if (pack) place_copy(conv.copy, q.c);
        std::vector<std::string> stored = program_.input_names();
        stored.push_back(Func(y).name());
        if (!using_autoscheduler() && is_product(q))
            prefetch(conv.ahead(tile, q.lanes, q.k, row_pixels(q), order, "x", stored, true));
    }

private:
    AppendedProgram program_;
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
};

class Conv2dGradInput : public ConvBase<Conv2dGradInput> {
public:
    GeneratorParam<bool> swapped{"swapped", false}; // the weight is (s, r, k, c), of one group
    GeneratorParam<int> unroll{"unroll", 0}, order{"order", 0};
    Input<Buffer<float, 5>> dy{"dy"};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> dx{"dx"};

    void configure() { add_scratch(); }

    void generate() {
        const ConvShape q = shape();
        set_output(dy, q);
        if (swapped) {
            if (q.groups > 1) throw Halide::CompileError("weights of one group are swapped");
            set_dense(weight, {q.s, q.r, q.k, q.c});
        } else {
            set_weight(weight, q);
        }
        if (is_gpu(get_target())) {
            GpuTile tile = gpu_tile();
            tile.unroll = unroll;
            dx = gpu::conv2d_grad_input(q, tile, gpu::element(dy), weights());
            set_input(dx, q);
            return;
        }
        if (q.stride == 1) {
            gather(q);
            return;
        }
        // Columns that no window reaches (a stride above the window) cost no register and no time.
        const int reached = std::max(1, std::min(q.stride, q.s));
        const int taps = std::max(1, q.k * ceil_div(q.r, q.stride) * ceil_div(q.s, q.stride));
        // Swapped weights lie side by side: they wait, and a tile of few channels loads few of them for each pixel.
        // Inside resnet50's step 256 @ 14 takes half of the time (AVX2). They leave room for 8 sums: of 12 one is in
        // memory, and 128 @ 28 takes 1.15 times as long; but where rows are short, 512 @ 7, 8 take 1.2 times as long.
        const bool registers_are_few = registers_of(get_target(), q.lanes).count < 32, side_by_side = swapped;
        const bool few_sums = registers_are_few && side_by_side && q.w > 8;
        const int sums = (few_sums ? accumulators() * 2 / 3 : accumulators()) * q.stride / reached;
        const int budget = std::min(sums, std::max(1, most_unrolled_fmas * q.stride / q.s));
        const bool few = (registers_are_few && !side_by_side) != bool(int(order) & other_waits);
        TileQuery query{
            .x = q.w, .c = q.c, .steps = taps, .multiple_of_x = q.stride, .x_cycles = 0.05, .c_cycles = 0.2};
        if (registers_are_few && side_by_side) query.x_cycles = 0.25, query.c_cycles = 1;
        const Tile tile = chosen_tile(query, {tile_x, tile_c}, budget);
        GradInput conv(q, dy, weights(), tile.x);
        dx = conv.dx;
        set_input(dx, q);
        conv.schedule(tile, q.lanes, ceil_div(q.w, tile.x), few, q.r);
    }

private:
    // By window column and row, input and output channel.
    gpu::At weights() {
        return [this](const std::vector<Expr> &at) {
            return swapped ? Expr(weight(at[0], at[1], at[3], at[2])) : Expr(weight(at));
        };
    }

    // With stride 1 every pixel of dx sees a whole window of dy, turned round.
    void gather(const ConvShape &q) {
        Gather conv({.w = q.wo(),
                     .h = q.ho(),
                     .channels = q.k,
                     .s = q.s,
                     .r = q.r,
                     .padded = q.padding < std::max(q.r, q.s) - 1,
                     .packed = pack});
        const auto &[v, d] = std::tie(conv.v, conv.d);
        conv.define(dy, v.x + q.padding - d.x, v.y + q.padding - d.y, nothing(),
                    weights()({d.x, d.y, v.c, v.b % q.groups * q.k + d.z}));
        dx = conv.out;
        set_input(dx, q);
        Tile tile = chosen_tile({.x = q.w,
                                 .c = q.c,
                                 .steps = q.k * q.r * q.s,
                                 .most_x = most_x(),
                                 .most_c = swapped ? cached_streams(4L * q.k * q.r * q.s) : q.c,
                                 .x_cycles = 0.15,
                                 .c_cycles = 0.05},
                                {tile_x, tile_c}, accumulators());
        if (!using_autoscheduler()) conv.schedule(tile, q.lanes, q.w, unroll ? int(unroll) : most_unrolled_fmas, order);
        if (pack) place_copy(conv.copy, q.k);
        if (!using_autoscheduler() && is_product(q))
            prefetch(conv.ahead(tile, q.lanes, q.c, row_pixels(q), order, "dy", {Func(dx).name()}, swapped));
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2d, conv2d)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradInput, conv2d_grad_input)

namespace {

using namespace cryolite;

// Of a Gather of `x` columns and `c` results, which unrolls `usual`; weights of two results lie `weight_stride` bytes
// apart.
TuningSpace gather_space(const KernelShape &q, int x, int c, long weight_stride, int usual) {
    const std::vector<int> limits = {1, 100, 200, 400, 800, 1600};
    TuningSpace space;
    space.knobs = {{"tile_x", from_one_to(std::min(x, q.registers.count - 1))},
                   {"tile_c", from_one_to(std::min(c, q.registers.count - 1))},
                   {"unroll", limits},
                   {"order", {other_waits, channels_last, other_waits | channels_last}}};
    space.together = {"tile_x", "tile_c"};
    const bool packed = q.text("pack") == "true";
    space.refuse = [=, s = q.integer("s"), r = q.integer("r"),
                    registers = q.registers](const Knobs &knobs) -> std::string {
        const int tile_x = knob(knobs, "tile_x"), tile_c = knob(knobs, "tile_c");
        if (tile_x == 0) return "";
        if (const int limit = knob(knobs, "unroll")) { // most limits make the same code
            auto loops = [&](int most) { return unrolled_loops(s, r, tile_x * tile_c, most); };
            if (loops(usual) == loops(limit)) return "unrolled as usual";
            for (int lower : limits)
                if (lower < limit && loops(lower) == loops(limit)) return "unrolled as by " + std::to_string(lower);
        }
        const int order = knob(knobs, "order"), sums = tile_x * tile_c;
        if ((order & channels_last) && (tile_x >= x || tile_c >= c)) return "one of the loops over tiles has one";
        const int waiting = (tile_x <= tile_c) != bool(order & other_waits) ? tile_x : tile_c;
        if (sums * registers.per_value + waiting > registers.count)
            return std::to_string(sums) + " sums leave no room for " + std::to_string(waiting) + " operands that wait";
        if (packed && tile_x > most_packed_pixels) return "more pixels than the scratch has room for";
        if (tile_c > cached_streams(weight_stride))
            return std::to_string(tile_c) + " streams of weights share too few sets of L1";
        return refuse_accumulators(sums, x * c, registers);
    };
    return space;
}

// Of a GradInput: columns that no window reaches cost no register.
TuningSpace scatter_space(const KernelShape &q, const ConvShape &shape) {
    TuningSpace space;
    std::vector<int> widths;
    for (int width = shape.stride; width < shape.w + shape.stride && width < q.registers.count * shape.stride;
         width += shape.stride)
        widths.push_back(std::min(width, shape.w));
    space.knobs = {{"tile_x", widths},
                   {"tile_c", from_one_to(std::min(shape.c, q.registers.count - 1))},
                   {"order", {other_waits}}};
    const int reached = std::max(1, std::min(shape.stride, shape.s));
    space.together = {"tile_x", "tile_c"};
    space.refuse = [=, registers = q.registers](const Knobs &knobs) -> std::string {
        const int columns = ceil_div(knob(knobs, "tile_x") * reached, shape.stride), tile_c = knob(knobs, "tile_c");
        if (tile_c == 0) return "";
        if (columns * tile_c * shape.s > 2 * most_unrolled_fmas) return "the code would be large";
        return refuse_accumulators(columns * tile_c, shape.w * shape.c, registers);
    };
    return space;
}

} // namespace

CRYOLITE_TUNING(conv2d, [](const KernelShape &q) {
    const ConvShape shape = conv_shape(q);
    return gather_space(q, shape.wo(), shape.k, 4L * shape.c * shape.r * shape.s,
                        usually_unrolled(is_first(shape, q.registers)));
})
CRYOLITE_TUNING(conv2d_grad_input, [](const KernelShape &q) {
    const ConvShape shape = conv_shape(q);
    const long weights = 4L * shape.r * shape.s * (q.text("swapped") == "true" ? shape.k : 1);
    return shape.stride > 1 ? scatter_space(q, shape)
                            : gather_space(q, shape.w, shape.c, weights, usually_unrolled(false));
})
