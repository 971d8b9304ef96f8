// Generators `conv2d_grad_weight`, for one block, and `conv2d_grad_weight_tiles`, for a tile of output channels over
// all blocks (kernels.md). dw = sum over lanes and output pixels of x * dy.
#include "conv2d_turned.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// A tile of sums in registers: s columns and r rows of the window by c input channels by k output channels, over all
// pixels. The parameters tile_x, tile_c and tile_k ask for s, c and k. Rows are together where there is one channel: a
// depthwise convolution has too few sums otherwise.
struct WeightTile {
    int s = 1, c = 1, k = 1, r = 1;

    int count() const { return s * r * c * k; }
};

WeightTile choose_tile(const ConvShape &q, const WeightTile &wanted, const Registers &registers) {
    if (wanted.s > 0 && wanted.c > 0 && wanted.k > 0)
        return {std::min(wanted.s, q.s), std::min(wanted.c, q.c), std::min(wanted.k, q.k)};
    const int most = registers.accumulators(), steps = q.wo() * q.ho() * q.blocks;
    const int most_k = registers.count >= 32 ? most : 3; // vectors of dy that wait in registers
    WeightTile best;
    double best_cost = 0;
    auto consider = [&](const WeightTile &t) {
        // Sums, and the dy that waits: 200 -> 11 @ 9 of one pixel takes with c and k of 8 3 0.83 of the time with
        // 2 11, some of which lie in memory (AVX-512, Zen 5).
        if (registers.per_value * (t.count() + t.k) > registers.count) return;
        // In terms of the model: s * r * c vectors of x, k of dy. Window columns share vectors of x over time.
        double waste = double(ceil_div(q.s, t.s) * t.s) / q.s * (ceil_div(q.c, t.c) * t.c) / q.c;
        TileQuery query{.x = t.s * t.r * t.c, .c = q.k, .steps = steps};
        double odd = t.count() % 4 ? 1.02 : 1; // the lane sums then take narrower vectors
        if (t.s < q.s) odd *= 1.03;            // vectors of x are loaded again for the other columns
        double cost = tile_cost(query, {t.s * t.r * t.c, t.k}) * waste * odd;
        // Vectors that no column before has loaded, of planes far apart, show. By s, c and k of a tile, Zen 5: 7x7 of
        // stride 2 3 -> 64 @ 64 takes with 7 1 3 0.7 of the time with 1 3 8, 3x3 3 -> 64 @ 32 with 3 3 2 0.78 of that
        // with 3 1 8; but 1x1 32 -> 16 @ 48 would take with 1 3 8 1.08 of that with 1 4 4.
        if (registers.count < 32 || q.s > 1)
            cost += 0.5 * (t.c * t.r * std::min(t.s, q.stride) + t.k) / t.count() * waste;
        if (best_cost == 0 || cost < best_cost) best = t, best_cost = cost;
    };
    for (int s = std::min(q.s, most); s >= 1; s--)
        for (int c = 1; c <= std::min(q.c, most / s); c++)
            for (int k = 1; k <= std::min({q.k, most / (s * c), most_k}); k++) {
                consider({s, c, k});
                if (q.c == 1 && q.r > 1 && s == q.s && s * q.r * k <= most) consider({s, c, k, q.r});
            }
    return best;
}

// What the same parameters ask of a turned gradient: tile_c, or tile_k where dy is turned, in whole vectors, and tile_x
// for pixels of a chunk of x, or for window columns.
Turned turned_of(const ConvShape &q, int tile_x, int tile_c, int tile_k) {
    if (turns_x(q)) return {.vectors = tile_c / q.lanes, .other = tile_k, .s = 1, .columns = tile_x};
    return {.vectors = tile_k / q.lanes, .other = tile_c, .s = tile_x, .columns = 0};
}

// First index of tile i of size `tile`, the last of which overlaps the one before.
Expr base(const Expr &i, int tile, int extent) { return extent % tile ? min(i * tile, extent - tile) : i * tile; }

// Pixels of dy that are summed up before the next ones: columns of a row where a window is one pixel, else rows. A tile
// of input channels reads the planes of dy again, in which so many pixels stay in L2. 0: all.
struct Chunk {
    int columns = 0, rows = 0;
};

// Inside resnet50's step, on a Xeon with AVX-512, 64 -> 64 @ 28: 127 GFLOP/s instead of 57. Inside resnet18_cifar's,
// with AVX2, 3x3 64 -> 128 @ 32 of stride 2: 64 instead of 22 in tiles of output channels.
Chunk choose_chunk(const ConvShape &q, const WeightTile &tile) {
    const int l2_share = q.lanes >= 16 ? 768 << 10 : 256 << 10, least = 32;
    if (q.h == 1 && q.r * q.s == 1 && q.stride == 1 && !q.padding) { // x passes as well
        const int plane = 4 * q.lanes * (q.c + q.k);
        if (plane * q.w <= l2_share) return {};
        const int columns = largest_divisor(q.w, std::max(2 * least, l2_share / plane));
        return {.columns = columns >= least && columns < q.w ? columns : 0};
    }
    const int row = 4 * q.lanes * q.k * q.wo(), passes = ceil_div(q.c, tile.c) * ceil_div(q.r, tile.r);
    if (row * q.ho() <= 2 * l2_share || passes < 4) return {};
    const int rows = largest_divisor(q.ho(), std::max(ceil_div(least, q.wo()), l2_share / row));
    return {.rows = rows * q.wo() >= least && rows < q.ho() ? rows : 0};
}

class WeightGradient {
public:
    WeightGradient(const ConvShape &q, const WeightTile &tile, const Chunk &chunk = {})
        : q(q), t(tile), columns(chunk.columns ? chunk.columns : q.wo()), rows(chunk.rows ? chunk.rows : q.ho()),
          chunks(q.wo() / columns * (q.ho() / rows)) {}

    // `blocks` of x and dy are summed up.
    template <class X, class Dy, class Dw> void define(X &x, Dy &dy, Dw &dw, const Expr &blocks) {
        d = RDom(0, columns, 0, rows, 0, blocks);
        Expr pixel = columns < q.wo() ? part * columns + d.x : Expr(d.x);
        Expr line = rows < q.ho() ? part * rows + d.y : Expr(d.y);
        Expr row = line * q.stride + base(ro, t.r, q.r) + e / (t.k * t.s) % t.r - q.padding;
        Expr column = pixel * q.stride + base(so, t.s, q.s) + e / t.k % t.s - q.padding;
        Expr input_channel = base(co, t.c, q.c) + e / (t.k * t.s * t.r);
        Expr output_channel = base(ko, t.k, q.k) + e % t.k;
        Expr value, block = d.z * q.groups + g;
        if (q.padding) {
            Expr inside = within(column, q.w);
            // Rows of their own are skipped. A domain of one row would be folded into the bounds of ro.
            if (t.r == 1 && rows > 1)
                d.where(within(row, q.h));
            else
                inside = within(row, q.h) && inside;
            value = select(inside, likely(x(l, inner_clamp(column, q.w), clamp(row, 0, q.h - 1), input_channel, block)),
                           0.f);
        } else {
            value = x(l, column, row, input_channel, block);
        }
        sum(l, e, so, ro, co, ko, g, part) = nothing();
        sum(l, e, so, ro, co, ko, g, part) += value * dy(l, pixel, line, output_channel, block);

        LaneSums lane_sums(sum, q.lanes, t.count(), {so, ro, co, ko, g, part});
        auto within_tile = [](const Expr &i, int tile, int extent) { return i - base(i / tile, tile, extent); };
        Expr tap = within_tile(s, t.s, q.s) + t.s * (within_tile(r, t.r, q.r) + t.r * within_tile(c, t.c, q.c));
        Expr place = within_tile(k, t.k, q.k) + t.k * tap;
        auto result = [&](const Expr &of) {
            return Expr(lane_sums.result()(place, s / t.s, r / t.r, c / t.c, k / t.k, g, of));
        };
        if (chunks == 1) {
            dw(s, r, c, k, g) = result(0);
            schedule(dw, Func(dw), lane_sums);
            return;
        }
        parts = RDom(0, chunks);
        dw(s, r, c, k, g) = 0.f;
        dw(s, r, c, k, g) += result(parts);
        schedule(dw, Func(dw).update(), lane_sums);
    }

private:
    // The loop over output channels is inside the one over input channels: a tile's x stays in cache meanwhile. Vectors
    // of dy wait in registers, those of x pass.
    void schedule(Func dw, Halide::Stage stage, LaneSums &lane_sums) {
        Var si("si"), ri("ri"), ci("ci"), ki("ki");
        stage.split(s, so, si, t.s, TailStrategy::GuardWithIf).split(c, co, ci, t.c, TailStrategy::GuardWithIf);
        stage.split(k, ko, ki, t.k, TailStrategy::GuardWithIf).split(r, ro, ri, t.r, TailStrategy::GuardWithIf);
        std::vector<Halide::VarOrRVar> loops{si, ri, ci, ki, so, ro, ko, co, g};
        if (chunks > 1) loops.push_back(parts.x);
        stage.reorder(loops);
        stage.unroll(si).unroll(ri).unroll(ci).unroll(ki).never_partition_all();
        lane_sums.compute_at(dw, so);
        sum.compute_at(dw, so).bound(l, 0, q.lanes).bound(e, 0, t.count());
        sum.vectorize(l, q.lanes).unroll(e);
        sum.update().reorder(l, e, d.x, d.y, d.z).vectorize(l, q.lanes).unroll(e).never_partition_all();
        if (q.padding) sum.update().partition(d.x, Halide::Partition::Auto);
        if (q.padding && t.r > 1) sum.update().partition(d.y, Halide::Partition::Auto);
    }

    ConvShape q;
    WeightTile t;
    int columns, rows, chunks; // of dy: of a chunk, and how many
    Var part{"part"};
    Var l{"l"}, e{"e"}, so{"so"}, ro{"ro"}, r{"r"}, co{"co"}, ko{"ko"}, g{"g"}, s{"s"}, c{"c"}, k{"k"};
    Func sum{"sum"};
    RDom d;     // output column, output row, block
    RDom parts; // chunks
};

} // namespace

class Conv2dGradWeight : public ConvBase<Conv2dGradWeight> {
public:
    GeneratorParam<int> tile_k{"tile_k", 0}, unroll{"unroll", 0};
    Input<Buffer<float, 5>> x{"x"}, dy{"dy"};
    Output<Buffer<float>> dw{"dw"};

    void configure() { dw.set_dimensions(is_gpu(get_target()) ? 6 : 5); }

    void generate() {
        const ConvShape q = shape();
        set_input(x, q);
        set_output(dy, q);
        if (is_gpu(get_target())) {
            GpuTile wanted = gpu_tile();
            wanted.k = tile_k, wanted.unroll = unroll;
            dw = gpu::conv2d_grad_weight(q, wanted, gpu::element(x), gpu::element(dy));
            set_blocks(dw, {q.s, q.r, q.c, q.k, q.groups}, 0);
            return;
        }
        set_dense(dw, {q.s, q.r, q.c, q.k, q.groups});
        const Registers registers = registers_of(get_target(), q.lanes);
        if (is_turned(q, registers)) {
            const Turned turned = choose_turned(q, turned_of(q, tile_x, tile_c, tile_k), registers);
            prefetch(turned_grad_weight(q, turned, gpu::element(x), gpu::element(dy), dw, q.blocks));
            return;
        }
        const WeightTile tile = choose_tile(q, {tile_x, tile_c, tile_k}, registers);
        WeightGradient(q, tile, choose_chunk(q, tile)).define(x, dy, dw, q.blocks);
    }
};

// Sums over all blocks, so that a network's largest weights need no partial sum for each block: those would be written
// and read again, for 512 -> 512 channels and 8 blocks 150 MB.
class Conv2dGradWeightTiles : public ConvBase<Conv2dGradWeightTiles> {
public:
    GeneratorParam<int> tile{"tile", 0}, tile_k{"tile_k", 0}, unroll{"unroll", 0};
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
        leave_block_stride(x);
        leave_block_stride(dy);
        Expr blocks = (batch + q.lanes - 1) / q.lanes;
        if (is_gpu(get_target())) {
            GpuTile wanted = gpu_tile();
            wanted.k = tile_k, wanted.unroll = unroll;
            dw = gpu::conv2d_grad_weight(part, wanted, gpu::element(x), gpu::element(dy), blocks);
            set_dense(dw, {q.s, q.r, q.c, part.k, 1});
            return;
        }
        set_dense(dw, {q.s, q.r, q.c, part.k, 1});
        if (const int whole = weight_c) dw.dim(3).set_stride(q.s * q.r * whole);
        const Registers registers = registers_of(get_target(), q.lanes);
        ConvShape model = part;
        model.blocks = 4; // how long a sum is: enough to pay for its end
        if (is_turned(part, registers)) {
            const Turned turned = choose_turned(model, turned_of(q, tile_x, tile_c, tile_k), registers);
            prefetch(turned_grad_weight(part, turned, gpu::element(x), gpu::element(dy), dw, blocks));
            return;
        }
        WeightGradient(part, choose_tile(model, {tile_x, tile_c, tile_k}, registers)).define(x, dy, dw, blocks);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeight, conv2d_grad_weight)
HALIDE_REGISTER_GENERATOR(cryolite::Conv2dGradWeightTiles, conv2d_grad_weight_tiles)

namespace {

using namespace cryolite;

TuningSpace weight_space(const KernelShape &q) {
    ConvShape shape = conv_shape(q);
    if (const int tile = q.integer("tile", 0)) shape.k = tile;
    const int k = shape.k;
    TuningSpace space;
    if (is_turned(shape, q.registers)) {
        const bool of_x = turns_x(shape);
        std::vector<int> channels = divisors((of_x ? shape.c : k) / shape.lanes, 4);
        for (int &vectors : channels) vectors *= shape.lanes;
        const std::vector<int> others = from_one_to(std::min(of_x ? k : shape.c, q.registers.count - 1));
        space.knobs = {{"tile_x", of_x ? divisors(shape.w, 64) : from_one_to(std::min(shape.s, 8))},
                       {"tile_c", of_x ? channels : others},
                       {"tile_k", of_x ? others : channels}};
        space.together = {"tile_c", "tile_k"};
        if (!of_x) space.together.insert(space.together.begin(), "tile_x");
        space.refuse = [=, registers = q.registers](const Knobs &knobs) -> std::string {
            const int columns = of_x ? 1 : knob(knobs, "tile_x");
            const int sums = columns * knob(knobs, "tile_c") * knob(knobs, "tile_k") / shape.lanes;
            return sums == 0 ? "" : refuse_accumulators(sums, shape.s * shape.c * k / shape.lanes, registers);
        };
        return space;
    }
    space.knobs = {{"tile_x", from_one_to(std::min(shape.s, 8))},
                   {"tile_c", from_one_to(std::min(shape.c, 16))},
                   {"tile_k", from_one_to(std::min(k, 16))}};
    space.together = {"tile_x", "tile_c", "tile_k"};
    space.refuse = [=, registers = q.registers](const Knobs &knobs) -> std::string {
        const int sums = knob(knobs, "tile_x") * knob(knobs, "tile_c") * knob(knobs, "tile_k");
        return sums == 0 ? "" : refuse_accumulators(sums, shape.s * shape.c * k, registers);
    };
    return space;
}

} // namespace

CRYOLITE_TUNING(conv2d_grad_weight, weight_space)
CRYOLITE_TUNING(conv2d_grad_weight_tiles, weight_space)
