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

// `columns` x `rows` x `channels`, `of_group` channels a group, `taps` multiply-adds of a window's column. Window rows
// are d.y.
void schedule_tiles(Func out, Func sum, const RDom &d, int lanes, int columns, int rows, int channels, int of_group,
                    int most_rows, int taps) {
    const std::vector<Var> v = sum.args();
    const Var l = v[0], x = v[1], y = v[2], c = v[3], b = v[4];
    const int tile_y = tile_of(rows, most_rows), tile_c = std::min(tile_of(channels, 8), of_group);
    const int warps = tile_of((channels + tile_c - 1) / tile_c, 4);
    Var yo("yo"), yi("yi"), co("co"), ci("ci"), xo("xo"), xi("xi"), cb("cb"), cw("cw"), p("p");
    out.split(y, yo, yi, tile_y, TailStrategy::ShiftInwards).split(c, co, ci, tile_c, TailStrategy::ShiftInwards);
    out.split(x, xo, xi, beside(lanes, columns), TailStrategy::GuardWithIf);
    out.split(co, cb, cw, warps, TailStrategy::GuardWithIf).reorder(yi, ci, l, xi, cw, xo, yo, cb, b).fuse(xo, yo, p);
    out.bound(l, 0, lanes).unroll(yi).unroll(ci).gpu_threads(l, xi, cw).gpu_blocks(p, cb, b).never_partition_all();
    sum.compute_at(out, l).store_in(MemoryType::Register).unroll(y).unroll(c);
    sum.update().reorder(y, c, d.y, d.x, d.z).unroll(y).unroll(c).never_partition_all();
    if (taps * tile_y * tile_c <= most_unrolled_fmas) sum.update().unroll(d.y);
}

} // namespace

Func conv2d(const ConvShape &q, const At &x, const At &weight, const At &bias) {
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
    schedule_tiles(out, sum, d, q.lanes, q.wo(), q.ho(), q.k * q.groups, q.k, 8, q.r);
    return out;
}

// Every pixel of dx has its own window of dy: with a stride, the taps whose distance to it the stride divides.
Func conv2d_grad_input(const ConvShape &q, const At &dy, const At &weight) {
    Var l("l"), i("x"), j("y"), c("c"), b("b");
    Func sum("sum"), out("out");
    const int stride = q.stride, across = ceil_div(q.s, stride), down = ceil_div(q.r, stride);
    RDom d(0, across, 0, down, 0, q.k);
    Expr s = (i + q.padding) % stride + stride * d.x, column = (i + q.padding) / stride - d.x;
    Expr r = (j + q.padding) % stride + stride * d.y, row = (j + q.padding) / stride - d.y;
    Expr group = c / q.c, channel = q.groups > 1 ? group * q.k + d.z : d.z;
    Expr value = dy({l, kept(column, q.wo()), kept(row, q.ho()), channel, b});
    value = inside(inside(value, column, q.wo()), row, q.ho());
    if (q.s % stride) value = select(s < q.s, value, 0.f);
    if (q.r % stride) value = select(r < q.r, value, 0.f);
    sum(l, i, j, c, b) = nothing();
    sum(l, i, j, c, b) += value * weight({kept(s, q.s), kept(r, q.r), q.groups > 1 ? c % q.c : c, channel});
    out(l, i, j, c, b) = sum(l, i, j, c, b);
    // Rows next to each other have different weights where there is a stride.
    schedule_tiles(out, sum, d, q.lanes, q.w, q.h, q.c * q.groups, q.c, stride == 1 ? 8 : 2, down);
    return out;
}

namespace {

// A warp's sums, one for each thread, of a tile: window columns x input channels x output channels.
struct WeightTile {
    int c, k, count;

    explicit WeightTile(const ConvShape &q)
        : c(largest_divisor(q.c, std::max(1, std::min(4, 64 / q.s)))),
          k(largest_divisor(q.k, std::max(1, std::min(8, 96 / (q.s * c))))), count(q.s * c * k) {}
};

} // namespace

// Sums of a thread over its columns of all rows in registers; the warp's, through shared memory: thread j adds row j,
// each beginning at another column, so that no two read the same bank.
Func conv2d_grad_weight(const ConvShape &q, const At &x, const At &dy, const Expr &blocks) {
    const WeightTile t(q);
    const bool per_block = !blocks.defined();
    const int parts = beside(q.lanes, q.wo()), threads = q.lanes * parts, tiles_c = q.c / t.c, tiles_k = q.k / t.k;
    Var m("m"), e("e"), tile("tile"), g("g"), b("b"), s("s"), r("r"), c("c"), k("k");
    Func sum("sum"), shared("shared"), dw("dw");
    RDom d(0, rounds(parts, q.wo()), 0, q.ho(), 0, per_block ? Expr(1) : blocks);
    Expr block = per_block ? Expr(b) : Expr(d.z), lane = m % q.lanes;
    Dealt pixel = dealt(d.x, m / q.lanes, parts, q.wo());
    Expr from = g * q.c + tile / q.r % tiles_c * t.c + e / q.s % t.c;
    Expr to = g * q.k + tile / (q.r * tiles_c) % tiles_k * t.k + e / (q.s * t.c);
    Expr column = pixel.index * q.stride + e % q.s - q.padding, row = d.y * q.stride + tile % q.r - q.padding;
    Expr value = x({lane, kept(column, q.w), kept(row, q.h), from, block});
    if (q.padding) value = inside(inside(value, column, q.w), row, q.h);
    Expr gradient = dy({lane, pixel.index, d.y, to, block});
    if (pixel.inside.defined()) gradient = select(pixel.inside, gradient, 0.f);
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
    sum.update().reorder(e, d.x, d.y, d.z).unroll(e).never_partition_all();
    return dw;
}

} // namespace cryolite::gpu
