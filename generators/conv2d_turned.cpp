// Tiles and schedules of turned weight gradients (conv2d_turned.h). Beside sums over lanes at the end of each register
// tile, AVX2, Zen 3, in turns, one block a call: 256 -> 128 of 256 pixels 1.5 times as fast, 64 -> 256 of 784 1.6, 256
// -> 1024 of 49 1.1, 832 -> 32 of 9 2.1, 512 -> 128 of 4 3.3, 24 -> 144 of 576 1.8; 480 -> 16 of 36 0.9. 5x5 6 -> 16 @
// 12 1.3. 3x3 padded 512 -> 512 @ 4 2.7, 192 -> 384 @ 3 3.8, 64 -> 64 @ 28 1.2; of stride 2 256 -> 256 @ 14 1.4, 512 ->
// 512 @ 7 2.5, 64 -> 128 @ 32 1.4. 7x7 of stride 2 3 -> 64 @ 112 1.7. AVX-512, Zen 4, inside resnet50's and googlenet's
// steps: 3x3 512 -> 512 @ 4 1.4, @ 7 of stride 2 1.3, 160 -> 320 @ 3 1.3; 2048 -> 512 of 16 pixels 1.3, 832 -> 256 of 9
// 1.3, 480 -> 16 of 36 1.5; whole steps 1.03 and 1.05.
#include "conv2d_turned.h"

#include "nest.h"
#include "turn.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::LoopLevel, Halide::RDom, Halide::TailStrategy, Halide::Var, Halide::VarOrRVar;

// The turned vectors of a chunk, and the sums of a tile of turned channels; both on the stack. A pass's dy.
constexpr int turned_share = 16 << 10, sums_share = 16 << 10, l2_share = 256 << 10;

bool turns_x(const ConvShape &q) {
    // The side of few channels costs less to turn: 480 -> 16 @ 6 and 192 -> 32 @ 12 take 0.9 of the time (AVX-512), 192
    // -> 16 @ 12 and 144 -> 24 @ 24 0.8 (AVX2); but 512 -> 64 @ 6 would take 1.03 and 1.4. Sums of x are stored as they
    // come.
    const bool few = q.k <= 3 * q.lanes && q.c >= 3 * q.k && q.k % q.lanes == 0;
    return q.h == 1 && q.r * q.s == 1 && q.stride == 1 && q.padding == 0 && !few;
}

bool is_turned(const ConvShape &q, const Registers &registers) {
    // A vector costs to turn what two or three multiply-adds cost: 3 -> 64 @ 32 of 3x3 took 1.4 times as long. Sums of
    // a large window leave room for few channels: 16 -> 16 @ 20 of 11x11 1.3 times, and with vectors of 16 7x7 3 -> 64
    // @ 96.
    const int uses = turns_x(q) ? q.k : q.c * q.r * q.s, enough = turns_x(q) ? 24 : 64;
    const int large = registers.count < 32 ? 49 : 25;
    return q.groups == 1 && (turns_x(q) ? q.c : q.k) % q.lanes == 0 && uses >= enough && q.r * q.s <= large &&
           largest_divisor(q.wo(), 64) >= std::min(8, q.wo());
}

namespace {

// Balanced passes over n, each whole tiles that fit.
int pass_of(int n, int fit, int tile) {
    const int most = std::max(1, fit / tile) * tile;
    return ceil_div(ceil_div(n, ceil_div(n, most)), tile) * tile;
}

// A chunk's pixels, and what a register tile costs, for each useful multiply-add.
double consider(const ConvShape &q, Turned &t, int most_columns, bool few_registers) {
    const int room = std::max(1, turned_share / (4 * q.lanes * q.lanes * t.vectors));
    t.columns = largest_divisor(q.wo(), most_columns ? std::min(most_columns, room) : room);
    t.rows = t.columns == q.wo() ? largest_divisor(q.ho(), std::max(1, room / t.columns)) : 1;
    const int others = turns_x(q) ? q.k : q.c, sums = t.s * t.other;
    const double waste = double(ceil_div(q.s, t.s) * t.s) / q.s * (ceil_div(others, t.other) * t.other) / others;
    const TileQuery query{.x = t.vectors,
                          .c = sums,
                          .steps = t.columns * t.rows * q.lanes,
                          .x_cycles = few_registers ? 0.5 : 0.1,
                          .c_cycles = few_registers ? 0.1 : 0.05};
    if (few_registers) return waste * tile_cost(query, {t.vectors, sums});
    // What a chunk's sums cost to be added to those of the chunks before, and tiles that overlap or leave a pass early.
    const double added = 2.0 / query.steps, odd = others % t.other ? 1.08 : 1;
    return odd * waste * (tile_cost(query, {t.vectors, sums}) + added);
}

} // namespace

Turned choose_turned(const ConvShape &q, const Turned &wanted, const Registers &registers) {
    const bool few_registers = registers.count < 32;
    const int most = registers.accumulators(), all = (turns_x(q) ? q.c : q.k) / q.lanes;
    const int others = turns_x(q) ? q.k : q.c;
    Turned t;
    if (wanted.vectors && wanted.other && wanted.s) {
        t.vectors = largest_divisor(all, wanted.vectors);
        t.other = std::min({others, wanted.other, std::max(1, sums_share / (4 * q.lanes * t.vectors * q.r * q.s))});
        t.s = std::min(q.s, wanted.s);
        consider(q, t, wanted.columns, few_registers);
    } else {
        // Planes that L1 holds side by side: of 64 pixels in vectors of 16 all begin in one set, and 480 -> 128 in
        // tiles of 16 took 1.8 times as long as in tiles of 8.
        const int pixels = turns_x(q) ? q.w : q.w * q.h;
        const int streams = cached_streams(4L * q.lanes * pixels);
        double best = 0;
        for (int vectors = 1; vectors <= std::min(all, most); vectors++)
            for (int s = 1; all % vectors == 0 && s <= std::min(q.s, most / vectors); s++)
                for (int other = 1; other <= std::min({others, streams, most / (vectors * s)}); other++) {
                    if (4 * q.lanes * vectors * q.r * q.s * other > sums_share) continue;
                    Turned tile{.vectors = vectors, .other = other, .s = s};
                    const double cost = consider(q, tile, wanted.columns, few_registers);
                    if (best == 0 || cost < best) best = cost, t = tile;
                }
    }
    const int fit =
        turns_x(q) ? l2_share / (4 * q.lanes * t.columns) : sums_share / (4 * q.lanes * t.vectors * q.r * q.s);
    t.others = pass_of(others, fit, t.other);
    return t;
}

namespace {

// Of `count` channels from the first on, in a chunk of a block of one row: what loops from the loop-th on ask for.
LinesAhead lines_of_chunk(const Nest &nest, size_t loop, const std::string &buffer, const ConvShape &q, int columns,
                          const Expr &blocks, const Expr &block, const Expr &chunk, const Expr &first, int count) {
    const int channels = buffer == "x" ? q.c : q.k;
    const bool known = Halide::Internal::is_const(blocks);
    const Expr stride = known ? Expr(channels * q.w * q.lanes) : loop_variable(buffer + ".stride.4");
    return nest.lines(buffer, count * columns, loop, [&](const Expr &line) {
        const Expr channel = min(first + line / columns, channels - 1), pixel = chunk * columns + line % columns;
        return (channel * q.w + pixel) * q.lanes + block * stride;
    });
}

struct Vars {
    Var l{"l"}, c{"c"}, k{"k"}, s{"s"}, r{"r"}, g{"g"};
    Var px{"px"}, py{"py"}, jx{"jx"}, jy{"jy"}, z{"z"}; // pixel of a chunk, chunk, block
    Var io{"io"}, ii{"ii"}, iv{"iv"}, il{"il"}, kc{"kc"}, kr{"kr"}, ko{"ko"}, ki{"ki"}, so{"so"}, si{"si"};
};

// Of one pixel. A chunk's output channels pass inside its input channels, whose vectors stay in L1 meanwhile, and all
// sums are added to, chunk by chunk: 256 -> 1024 @ 7 takes 0.73 of the time of chunks inside tiles of sums, which turn
// x again for each pass over dy, 1024 -> 256 @ 7 0.9 (AVX-512 and AVX2).
class TurnedX : Vars {
public:
    TurnedX(const ConvShape &q, const Turned &t) : q(q), t(t) {}

    TileAhead define(const gpu::At &x, const gpu::At &dy, Func dw, const Expr &blocks) {
        Turn turn("turned", c, l, {px, jx, z}, x({l, jx * t.columns + px, 0, c, z}));
        n = RDom(0, q.lanes, 0, t.columns);
        sum(c, k, jx, z) = nothing();
        sum(c, k, jx, z) += turn.turned(c, n.x, n.y, jx, z) * dy({n.x, jx * t.columns + n.y, 0, min(k, q.k - 1), z});
        RDom parts(0, q.w / t.columns, 0, blocks);
        dw(s, r, c, k, g) = nothing();
        dw(s, r, c, k, g) += sum(c, k, parts.x, parts.y);
        dw.vectorize(c, q.lanes);
        Halide::Stage update = dw.update();
        update.split(k, kc, kr, t.others, TailStrategy::GuardWithIf)
            .split(kr, ko, ki, t.other, TailStrategy::GuardWithIf);
        update.split(c, io, ii, channels()).split(ii, iv, il, q.lanes);
        update.reorder(il, iv, ki, ko, io, parts.x, parts.y, kc, s, r, g);
        update.vectorize(il).unroll(iv).unroll(ki).never_partition_all();
        sum.compute_at(dw, ko).bound_extent(c, channels()).bound_extent(k, t.other);
        sum.vectorize(c, q.lanes).unroll(c).unroll(k);
        sum.update().reorder(c, k, n.x, n.y).vectorize(c, q.lanes).unroll(c).unroll(k).unroll(n.x, 2);
        sum.update().never_partition_all();
        turn.schedule(LoopLevel(dw, io), q.lanes, q.lanes, channels());
        return ahead(dw.name(), blocks, parts);
    }

private:
    int channels() const { return t.vectors * q.lanes; }

    // The x that is turned next, and the dy of the next chunk.
    TileAhead ahead(const std::string &dw, const Expr &blocks, const RDom &parts) const {
        const std::string at = dw + ".s1.";
        const int pass = 0, block = 1, chunk = 2, tile = 3, register_tile = 4;
        const Nest nest({{at + "k.kc", ceil_div(q.k, t.others)},
                         {at + parts.y.name(), blocks},
                         {at + parts.x.name(), q.w / t.columns},
                         {at + "c.io", q.c / channels()},
                         {at + "k.kr.ko", ceil_div(t.others, t.other)}});
        if (!nest.repeats(tile)) return {};
        const std::vector<Expr> turned = nest.next(tile), after = nest.next(chunk);
        auto lines = [&](const std::string &buffer, const std::vector<Expr> &next, int loop, const Expr &first,
                         int count) {
            return lines_of_chunk(nest, loop, buffer, q, t.columns, blocks, next[block], next[chunk], first, count);
        };
        return {nest.names(),
                sum.name(),
                {lines("x", turned, register_tile, turned[tile] * channels(), channels()),
                 lines("dy", after, tile, after[pass] * t.others, t.others)}};
    }

    ConvShape q;
    Turned t;
    Func sum{"sum"};
    RDom n; // lanes, pixels of a chunk
};

// Of larger windows. The sums of a tile of output channels are finished in all chunks before they are turned back.
class TurnedDy : Vars {
public:
    TurnedDy(const ConvShape &q, const Turned &t) : q(q), t(t) {}

    TileAhead define(const gpu::At &x, const gpu::At &dy, Func dw, const Expr &blocks) {
        const int channels = t.vectors * q.lanes;
        Turn turn("turned", k, l, {px, py, jx, jy, z}, dy({l, jx * t.columns + px, jy * t.rows + py, k, z}));
        RDom n(0, q.lanes, 0, t.columns, 0, t.rows); // lanes, pixels of a chunk
        RDom parts(0, q.wo() / t.columns, 0, q.ho() / t.rows, 0, blocks);
        Expr column = (jx * t.columns + n.y) * q.stride + min(s, q.s - 1) - q.padding;
        Expr row = (jy * t.rows + n.z) * q.stride + r - q.padding, input = min(c, q.c - 1), value;
        if (q.padding) {
            Expr inside = within(column, q.w);
            // Rows outside are skipped. A domain of one row would be folded into the bounds of r.
            if (t.rows > 1)
                n.where(within(row, q.h));
            else if (q.ho() > 1)
                parts.where(within(parts.y * q.stride + r - q.padding, q.h));
            else
                inside = within(row, q.h) && inside;
            value = select(inside, likely(x({n.x, inner_clamp(column, q.w), clamp(row, 0, q.h - 1), input, z})), 0.f);
        } else {
            value = x({n.x, column, row, input, z});
        }
        Func sum("sum"), total("total");
        sum(k, s, r, c, jx, jy, z) = nothing();
        sum(k, s, r, c, jx, jy, z) += turn.turned(k, n.x, n.y, n.z, jx, jy, z) * value;
        total(k, s, r, c) = nothing();
        total(k, s, r, c) += sum(k, s, r, c, parts.x, parts.y, parts.z);
        dw(s, r, c, k, g) = total(k, s, r, c);

        Var cc("cc"), ci("ci"), co("co");
        dw.split(k, ko, ki, channels).split(c, cc, ci, t.others, TailStrategy::GuardWithIf);
        dw.reorder(s, r, ci, ki, cc, ko, g).never_partition_all();
        total.compute_at(dw, cc).bound_extent(k, channels).bound_extent(c, t.others).vectorize(k, q.lanes);
        total.store_in(Halide::MemoryType::Stack);
        Halide::Stage update = total.update();
        update.split(k, iv, il, q.lanes).split(s, so, si, t.s, TailStrategy::GuardWithIf);
        update.split(c, co, ci, t.other, TailStrategy::GuardWithIf);
        update.reorder(il, iv, si, ci, so, r, co, parts.x, parts.y, parts.z).never_partition_all();
        update.vectorize(il).unroll(iv).unroll(si).unroll(ci);
        sum.compute_at(total, so).bound_extent(k, channels).bound_extent(s, t.s);
        sum.bound_extent(r, 1).bound_extent(c, t.other).vectorize(k, q.lanes).unroll(k).unroll(s).unroll(c);
        sum.update().reorder(k, s, c, n.x, n.y, n.z).vectorize(k, q.lanes).unroll(k).unroll(s).unroll(c);
        sum.update().unroll(n.x, 2).never_partition_all();
        if (q.padding) sum.update().partition(n.y, Halide::Partition::Auto);
        turn.schedule(LoopLevel(total, parts.x), q.lanes, q.lanes, channels);
        return ahead(dw.name(), total.name(), sum.name(), blocks, parts);
    }

private:
    // The dy that is turned next, and the x beside it: of windows of one pixel. Others compute long with each line, and
    // ask for all lines of a chunk at once: 3x3 24 -> 64 @ 6 would take 1.07 times as long.
    TileAhead ahead(const std::string &dw, const std::string &total, const std::string &sum, const Expr &blocks,
                    const RDom &parts) const {
        if (q.h > 1 || q.r * q.s > 1 || q.stride > 1 || q.padding > 0) return {};
        const std::string outer = dw + ".s0.", inner = total + ".s1.";
        const int channels = t.vectors * q.lanes, tile = 0, pass = 1, block = 2, chunk = 3, register_tile = 4;
        const Nest nest({{outer + "k.ko", q.k / channels},
                         {outer + "c.cc", ceil_div(q.c, t.others)},
                         {inner + parts.z.name(), blocks},
                         {inner + parts.x.name(), q.w / t.columns},
                         {inner + "c.co", ceil_div(t.others, t.other)}});
        if (!nest.repeats(chunk)) return {};
        const std::vector<Expr> next = nest.next(chunk);
        auto lines = [&](const std::string &buffer, const Expr &first, int count) {
            return lines_of_chunk(nest, register_tile, buffer, q, t.columns, blocks, next[block], next[chunk], first,
                                  count);
        };
        return {nest.names(),
                sum,
                {lines("x", next[pass] * t.others, t.others), lines("dy", next[tile] * channels, channels)}};
    }

    ConvShape q;
    Turned t;
};

} // namespace

TileAhead turned_grad_weight(const ConvShape &q, const Turned &t, const gpu::At &x, const gpu::At &dy, Func dw,
                             const Expr &blocks) {
    return turns_x(q) ? TurnedX(q, t).define(x, dy, std::move(dw), blocks)
                      : TurnedDy(q, t).define(x, dy, std::move(dw), blocks);
}

} // namespace cryolite
