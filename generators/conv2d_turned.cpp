// Tiles and schedule of turned weight gradients (conv2d_turned.h). Beside sums over lanes at the end of each register
// tile, AVX2, Zen 3, in turns, one block a call: 256 -> 128 of 256 pixels 1.5 times as fast, 64 -> 256 of 784 1.6, 256
// -> 1024 of 49 1.1, 832 -> 32 of 9 2.1, 512 -> 128 of 4 3.3, 24 -> 144 of 576 1.8; 480 -> 16 of 36 0.9.
#include "conv2d_turned.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var, Halide::VarOrRVar;

bool is_turned(const ConvShape &q, const Registers &registers) {
    return registers.count < 32 && q.h == 1 && q.r * q.s == 1 && q.stride == 1 && q.padding == 0 && q.groups == 1 &&
           q.c % q.lanes == 0;
}

Turned choose_turned(const ConvShape &q, const Turned &wanted, const Registers &registers) {
    // On the stack, each: the turned vectors of a chunk, and the sums of a tile of input channels.
    constexpr int l1_share = 16 << 10, l2_share = 256 << 10, few_outputs = 64;
    Turned t;
    const int most = registers.accumulators(), all = q.c / q.lanes;
    double best = 0;
    auto consider = [&](int vectors, int k) {
        const int room = std::max(1, l1_share / (4 * q.lanes * q.lanes * vectors));
        const int pixels = largest_divisor(q.w, wanted.pixels ? std::min(wanted.pixels, room) : room);
        const TileQuery query{.x = all, .c = q.k, .steps = pixels * q.lanes, .x_cycles = 0.5, .c_cycles = 0.1};
        const double cost = tile_cost(query, {vectors, k});
        if (best == 0 || cost < best) best = cost, t = {.vectors = vectors, .k = k, .pixels = pixels};
    };
    if (wanted.vectors && wanted.k) {
        consider(largest_divisor(all, wanted.vectors), std::min(q.k, wanted.k));
    } else {
        for (int vectors = 1; vectors <= std::min(all, most); vectors++)
            for (int k = 1; all % vectors == 0 && k <= std::min(q.k, most / vectors); k++) consider(vectors, k);
    }
    const int plane = 4 * q.lanes * q.w * q.blocks;
    t.whole = l2_share / plane >= std::min(few_outputs, q.k);
    int fit = l2_share / (t.whole ? plane : 4 * q.lanes * t.pixels);
    if (t.whole) fit = std::min(fit, l1_share / (4 * q.lanes * t.vectors));
    const int passes = ceil_div(q.k, std::max(fit, t.k));
    t.outputs = ceil_div(ceil_div(q.k, passes), t.k) * t.k;
    return t;
}

namespace {

class TurnedGradient {
public:
    TurnedGradient(const ConvShape &q, const Turned &t) : q(q), t(t) {}

    void define(const gpu::At &x, const gpu::At &dy, Func dw, const Expr &blocks) {
        part(l, c, p, j, z) = x({l, j * t.pixels + p, 0, c, z});
        flipped(c, l, p, j, z) = part(l, c, p, j, z);
        turned(c, l, p, j, z) = flipped(c, l, p, j, z);
        n = RDom(0, q.lanes, 0, t.pixels);
        sum(c, k, j, z) = nothing();
        sum(c, k, j, z) += turned(c, n.x, n.y, j, z) * dy({n.x, j * t.pixels + n.y, 0, min(k, q.k - 1), z});
        parts = RDom(0, q.w / t.pixels, 0, blocks);
        if (t.whole) {
            total(c, k) = 0.f;
            total(c, k) += sum(c, k, parts.x, parts.y);
            dw(s, r, c, k, g) = total(c, k);
            dw.split(c, io, ii, channels()).split(k, kc, kr, t.outputs, TailStrategy::GuardWithIf);
            dw.reorder(ii, kr, io, kc, s, r, g).vectorize(ii, q.lanes).never_partition_all();
            total.compute_at(dw, io).bound_extent(c, channels()).bound_extent(k, t.outputs).vectorize(c, q.lanes);
            schedule(total, {parts.x, parts.y}, parts.x);
        } else {
            dw(s, r, c, k, g) = 0.f;
            dw(s, r, c, k, g) += sum(c, k, parts.x, parts.y);
            dw.vectorize(c, q.lanes);
            dw.update().split(k, kc, k, t.outputs, TailStrategy::GuardWithIf);
            schedule(dw, {parts.x, parts.y, kc, s, r, g}, io);
        }
    }

private:
    int channels() const { return t.vectors * q.lanes; }

    // to: what sums are added to, register tile by register tile; outer: the loops around these; loop: the one in which
    // x is turned. Output channels are inside input channels, whose vectors stay in L1 meanwhile.
    void schedule(Func to, const std::vector<VarOrRVar> &outer, const VarOrRVar &loop) {
        Halide::Stage update = to.update();
        update.split(c, io, ii, channels()).split(ii, iv, il, q.lanes);
        update.split(k, ko, ki, t.k, TailStrategy::GuardWithIf);
        std::vector<VarOrRVar> loops{il, iv, ki, ko, io};
        loops.insert(loops.end(), outer.begin(), outer.end());
        update.reorder(loops).vectorize(il).unroll(iv).unroll(ki).never_partition_all();
        sum.compute_at(to, ko).bound_extent(c, channels()).bound_extent(k, t.k);
        sum.vectorize(c, q.lanes).unroll(c).unroll(k);
        sum.update().reorder(c, k, n.x, n.y).vectorize(c, q.lanes).unroll(c).unroll(k).unroll(n.x, 2);
        sum.update().never_partition_all();

        // By half vectors, so that the shuffles stay within two registers.
        Var co("co"), cv("cv"), lo("lo"), li("li");
        turned.compute_at(Halide::LoopLevel(to, loop))
            .bound_extent(c, channels())
            .split(c, co, cv, q.lanes, TailStrategy::RoundUp);
        turned.split(l, lo, li, std::max(1, q.lanes / 2), TailStrategy::RoundUp).reorder(cv, li, lo, p, co);
        turned.vectorize(cv).unroll(li).never_partition_all();
        flipped.compute_at(turned, lo).vectorize(c).vectorize(l);
        part.compute_at(turned, lo).vectorize(l).unroll(c);
    }

    ConvShape q;
    Turned t;
    Var l{"l"}, c{"c"}, k{"k"}, p{"p"}, j{"j"}, z{"z"}, s{"s"}, r{"r"}, g{"g"}; // p: pixel of chunk j, z: block
    Var io{"io"}, ii{"ii"}, iv{"iv"}, il{"il"}, kc{"kc"}, kr{"kr"}, ko{"ko"}, ki{"ki"};
    Func part{"part"}, flipped{"flipped"}, turned{"turned"}, sum{"sum"}, total{"total"};
    RDom n, parts; // lanes and pixels of a chunk; chunks and blocks
};

} // namespace

void turned_grad_weight(const ConvShape &shape, const Turned &tile, const gpu::At &x, const gpu::At &dy, Func dw,
                        const Expr &blocks) {
    TurnedGradient(shape, tile).define(x, dy, std::move(dw), blocks);
}

} // namespace cryolite
