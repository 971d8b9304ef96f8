// Convolution and its gradients on a GPU: conv2d_gpu.h.
//
// A thread has a tile of rows by output channels of one column and one sample in registers: a pixel is loaded once for
// the window's rows and all channels, a weight, the same for the whole warp, once for all rows of the tile.
#include "conv2d_gpu.h"

#include <algorithm>

namespace cryolite::gpu {
using Halide::Expr, Halide::Func, Halide::MemoryType, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

constexpr int most_unrolled_fmas = 200; // of one round of the innermost loop that remains

Expr inside(const Expr &value, const Expr &at, int extent) { return select(at >= 0 && at < extent, value, 0.f); }
Expr kept(const Expr &at, int extent) { return clamp(at, 0, extent - 1); }

// Of `out` and of the sums of its tiles: extents, channels of a group, taps of a window's column and row.
struct Sums {
    int lanes, columns, rows, channels, of_group, down, across;
    int parity = 1; // rows that are so far apart share weights: a tile has as many of each, sum one argument more
};

// Rows (of each parity) by channels: the largest tile that leaves threads enough.
struct RowTile {
    int y, c;
};
RowTile choose_tile(const Sums &q, const GpuTile &wanted) {
    const int rows = (q.rows + q.parity - 1) / q.parity;
    const int most = most_results(q.lanes * wanted.blocks * q.columns * q.rows * q.channels);
    auto y = [&](int at_most) { return tile_of(rows, at_most); };
    auto c = [&](int at_most) { return std::min(tile_of(q.channels, at_most), q.of_group); };
    if (wanted.y && wanted.c) return {y(wanted.y), c(wanted.c)};
    RowTile tile{y(std::max(1, 8 / q.parity)), c(8)};
    while (tile.y * q.parity * tile.c > most && tile.y * tile.c > 1)
        if (tile.y >= tile.c)
            tile.y = y(tile.y / 2);
        else
            tile.c = c(tile.c / 2);
    return tile;
}

// Window rows are d.y.
void schedule_tiles(Func out, Func sum, const RDom &d, const Sums &q, const GpuTile &wanted) {
    const std::vector<Var> v = out.args(), s = sum.args();
    const Var l = v[0], x = v[1], y = v[2], c = v[3], b = v[4];
    const RowTile tile = choose_tile(q, wanted);
    const int warps = tile_of((q.channels + tile.c - 1) / tile.c, 4);
    Var ys("ys"), yp("yp"), yo("yo"), yi("yi"), co("co"), ci("ci"), xo("xo"), xi("xi"), cb("cb"), cw("cw"), p("p");
    if (q.parity > 1) {
        out.split(y, ys, yp, q.parity, TailStrategy::GuardWithIf);
        out.split(ys, yo, yi, tile.y, TailStrategy::GuardWithIf);
    } else {
        out.split(y, yo, yi, tile.y, TailStrategy::ShiftInwards);
    }
    out.split(c, co, ci, tile.c, TailStrategy::ShiftInwards);
    out.split(x, xo, xi, beside(q.lanes, q.columns), TailStrategy::GuardWithIf);
    out.split(co, cb, cw, warps, TailStrategy::GuardWithIf);
    std::vector<Halide::VarOrRVar> order{yi, ci, l, xi, cw, xo, yo, cb, b};
    if (q.parity > 1) order.insert(order.begin(), yp);
    out.reorder(order).fuse(xo, yo, p);
    if (q.parity > 1) out.unroll(yp);
    out.bound(l, 0, q.lanes).unroll(yi).unroll(ci).gpu_threads(l, xi, cw).gpu_blocks(p, cb, b).never_partition_all();
    sum.compute_at(out, l).store_in(MemoryType::Register).bound_extent(s[2], tile.y).unroll(s[2]).unroll(c);
    sum.update().reorder(s[2], c, d.y, d.x, d.z).unroll(s[2]).unroll(c).never_partition_all();
    if (q.parity > 1) {
        sum.bound(s[3], 0, q.parity).unroll(s[3]);
        sum.update().reorder(s[2], c, s[3], d.y, d.x, d.z).unroll(s[3]);
    }
    const int most = wanted.unroll ? wanted.unroll : most_unrolled_fmas, column = q.down * tile.y * q.parity * tile.c;
    if (column <= most) sum.update().unroll(d.y);
    if (column * q.across <= most) sum.update().unroll(d.x);
}

} // namespace

Func conv2d(const ConvShape &q, const GpuTile &wanted, const At &x, const At &weight, const At &bias) {
    Var l("l"), i("x"), j("y"), k("c"), b("b");
    Func sum("sum"), out("out");
    RDom d(0, q.s, 0, q.r, 0, q.c);
    Expr column = i * q.stride + d.x - q.padding, row = j * q.stride + d.y - q.padding;
    Expr channel = q.groups > 1 ? k / q.k * q.c + d.z : d.z;
    Expr value = x({l, kept(column, q.w), kept(row, q.h), channel, b});
    if (q.padding) value = inside(inside(value, column, q.w), row, q.h);
    sum(l, i, j, k, b) = bias ? bias({k}) : nothing();
    sum(l, i, j, k, b) += value * weight({d.x, d.y, d.z, k});
    out(l, i, j, k, b) = sum(l, i, j, k, b);
    schedule_tiles(out, sum, d, {q.lanes, q.wo(), q.ho(), q.k * q.groups, q.k, q.r, q.s}, wanted);
    return out;
}

// Every pixel of dx has its own window of dy: with a stride, the taps whose distance to it the stride divides.
Func conv2d_grad_input(const ConvShape &q, const GpuTile &wanted, const At &dy, const At &weight) {
    Var l("l"), i("x"), j("y"), of("of"), c("c"), b("b");
    Func sum("sum"), out("out");
    const int stride = q.stride, across = ceil_div(q.s, stride), down = ceil_div(q.r, stride);
    RDom d(0, across, 0, down, 0, q.k);
    auto product = [&](const Expr &of) { // of row j * stride + of
        Expr s = (i + q.padding) % stride + stride * d.x, column = (i + q.padding) / stride - d.x;
        Expr r = (of + q.padding) % stride + stride * d.y, row = j + (of + q.padding) / stride - d.y;
        Expr group = c / q.c, channel = q.groups > 1 ? group * q.k + d.z : d.z;
        Expr value = dy({l, kept(column, q.wo()), kept(row, q.ho()), channel, b});
        value = inside(inside(value, column, q.wo()), row, q.ho());
        if (q.s % stride) value = select(s < q.s, value, 0.f);
        Expr w = weight({kept(s, q.s), kept(r, q.r), q.groups > 1 ? c % q.c : c, channel});
        return value * (q.r % stride ? select(r < q.r, w, 0.f) : w);
    };
    if (stride == 1) {
        sum(l, i, j, c, b) = nothing();
        sum(l, i, j, c, b) += product(0);
        out(l, i, j, c, b) = sum(l, i, j, c, b);
    } else {
        sum(l, i, j, of, c, b) = nothing();
        sum(l, i, j, of, c, b) += product(of);
        out(l, i, j, c, b) = sum(l, i, j / stride, j % stride, c, b);
    }
    schedule_tiles(out, sum, d, {q.lanes, q.w, q.h, q.c * q.groups, q.c, down, across, stride}, wanted);
    return out;
}

namespace {

// A thread's sums: window columns x input channels x output channels; and the warps of a group, which share the rows.
struct WeightTile {
    int c, k, count, warps, unroll;

    WeightTile(const ConvShape &q, const GpuTile &wanted, bool per_block) {
        constexpr int shared_floats = 12 << 10;
        c = largest_divisor(q.c, wanted.c ? wanted.c : std::max(1, std::min(4, 64 / q.s)));
        k = largest_divisor(q.k, wanted.k ? wanted.k : std::max(1, std::min(8, 96 / (q.s * c))));
        count = q.s * c * k;
        const int64_t groups = int64_t(q.r) * (q.c / c) * (q.k / k) * q.groups * (per_block ? wanted.blocks : 1);
        const int enough = int(std::clamp<int64_t>(2048 / groups, 1, 8));
        warps = std::min({wanted.y ? wanted.y : enough, q.ho(), std::max(1, shared_floats / (count * warp))});
        const int rounds = gpu::rounds(beside(q.lanes, q.wo()), q.wo());
        unroll = largest_divisor(rounds, std::max(1, (wanted.unroll ? wanted.unroll : most_unrolled_fmas) / count));
    }
};

} // namespace

// Sums of a thread over its columns of its rows in registers; the group's, through shared memory: thread j adds row j,
// each beginning at another column, so that no two read the same bank.
Func conv2d_grad_weight(const ConvShape &q, const GpuTile &wanted, const At &x, const At &dy, const Expr &blocks) {
    const bool per_block = !blocks.defined();
    const WeightTile t(q, wanted, per_block);
    const int parts = beside(q.lanes, q.wo()), threads = q.lanes * parts * t.warps;
    const int tiles_c = q.c / t.c, tiles_k = q.k / t.k;
    Var m("m"), e("e"), tile("tile"), g("g"), b("b"), s("s"), r("r"), c("c"), k("k");
    Func sum("sum"), shared("shared"), dw("dw");
    RDom d(0, rounds(parts, q.wo()), 0, rounds(t.warps, q.ho()), 0, per_block ? Expr(1) : blocks);
    Expr block = per_block ? Expr(b) : Expr(d.z), lane = m % q.lanes;
    Dealt pixel = dealt(d.x, m / q.lanes % parts, parts, q.wo()),
          line = dealt(d.y, m / (q.lanes * parts), t.warps, q.ho());
    Expr from = g * q.c + tile / q.r % tiles_c * t.c + e / q.s % t.c;
    Expr to = g * q.k + tile / (q.r * tiles_c) % tiles_k * t.k + e / (q.s * t.c);
    Expr column = pixel.index * q.stride + e % q.s - q.padding, row = line.index * q.stride + tile % q.r - q.padding;
    Expr value = x({lane, kept(column, q.w), kept(row, q.h), from, block});
    if (q.padding) value = inside(inside(value, column, q.w), row, q.h);
    Expr gradient = dy({lane, pixel.index, line.index, to, block});
    for (const Expr &inside : {pixel.inside, line.inside})
        if (inside.defined()) gradient = select(inside, gradient, 0.f);
    auto args = [&](std::vector<Expr> from) {
        if (per_block) from.push_back(b);
        return from;
    };
    std::vector<Var> vars{m, e, tile, g}, of_dw{s, r, c, k, g};
    if (per_block) vars.push_back(b), of_dw.push_back(b);
    sum(vars) = nothing();
    sum(vars) += gradient * value;
    shared(vars) = sum(vars);
    Expr place = s + q.s * (c % t.c + t.c * (k % t.k)), where = r + q.r * (c / t.c + tiles_c * (k / t.k));
    dw(of_dw) = tree(threads, [&](int i) { return Expr(shared(args({(place + i) % threads, place, where, g}))); });

    Var co("co"), ci("ci"), ko("ko"), ki("ki"), in("in"), out("out"), outer("outer"), inner("inner"), both, rows,
        window;
    dw.split(c, co, ci, t.c).split(k, ko, ki, t.k).reorder(s, ci, ki, r, co, ko, g);
    dw.fuse(s, ci, both).fuse(both, ki, in).fuse(r, co, rows).fuse(rows, ko, window).fuse(window, g, out);
    dw.split(in, outer, inner, threads, TailStrategy::GuardWithIf).gpu_threads(inner).never_partition_all();
    if (per_block)
        dw.gpu_blocks(out, b);
    else
        dw.gpu_blocks(out);
    shared.compute_at(dw, out).store_in(MemoryType::GPUShared).bound_extent(m, threads).bound_extent(e, t.count);
    shared.reorder(e, m).unroll(e).gpu_threads(m);
    sum.compute_at(shared, m).store_in(MemoryType::Register).unroll(e);
    sum.update().reorder(e, d.x, d.y, d.z).unroll(e).unroll(d.x, t.unroll).never_partition_all();
    return dw;
}

} // namespace cryolite::gpu
