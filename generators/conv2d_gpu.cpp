// Convolution and its gradients on a GPU: conv2d_gpu.h.
//
// A thread has a tile of columns by rows by output channels of one sample in registers: a pixel is loaded once for the
// window's rows and all channels, a weight, the same for the whole warp, once for all pixels of the tile.
#include "conv2d_gpu.h"

#include <algorithm>

namespace cryolite::gpu {
using Halide::cast, Halide::Expr, Halide::Func, Halide::MemoryType, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

Expr inside(const Expr &value, const Expr &at, int extent) { return select(at >= 0 && at < extent, value, 0.f); }
Expr kept(const Expr &at, int extent) { return clamp(at, 0, extent - 1); }

// Of `out` and of the sums of its tiles: extents, channels of a group, taps of a window's column and row, pixels of the
// source from one to the next.
struct Sums {
    int lanes, columns, rows, channels, of_group, down, across, stride = 1;
    int parity = 1; // rows that are so far apart share weights: a tile has as many of each, sum one argument more
};

// A thread's columns, rows (of each parity) and channels; unroll: the most multiply-adds of its loop's code.
struct ThreadTile {
    int x, y, c, unroll = 200;

    int results() const { return x * y * c; }
};

// Measured on an H100, batch 256, TFLOP/s of its 67, forward and input gradient of padded 3x3 convolutions:
//   512 @ 4: 43 and 47, whole images, so that no product with the padding is left (28 with tiles of rows).
//   256 @ 8: 41 and 41, whole rows (36).   128 @ 16: 37 and 36.   64 @ 32: 38 and 37 (35).
//   stride 2: 64 -> 128 @ 32: 31 and 25.   128 -> 256 @ 16: 25 and 22.   256 -> 512 @ 8: 23 and 20
ThreadTile choose_tile(const Sums &q, const GpuTile &wanted) {
    const int rows = ceil_div(q.rows, q.parity), pixels = q.columns * q.rows;
    const int most = most_results(q.lanes * wanted.blocks * pixels * q.channels) / q.parity;
    auto y = [&](int at_most) { return tile_of(rows, at_most); };
    auto c = [&](int at_most) { return std::min(tile_of(q.channels, at_most), q.of_group); };
    if (wanted.x && wanted.y && wanted.c) {
        const int x = q.columns % wanted.x ? 1 : wanted.x;
        return {x, y(wanted.y), c(wanted.c), wanted.unroll ? wanted.unroll : 600};
    }
    ThreadTile tile{1, y(8), c(8)};
    if (q.parity > 1)
        tile.c = c(std::max(1, 64 / (q.parity * tile.y)));
    else if (q.stride > 1 && q.down > 1 && tile.y <= 4)
        tile.c = c(4);
    else if (q.stride == 1 && q.lanes == warp && most >= 32) {
        if (pixels <= 16)
            tile = {q.columns, q.rows, c(32 / pixels), 600};
        else if (q.columns <= 8)
            tile = {q.columns, y(2), c(4), 600};
        else if (q.columns % 2 == 0)
            tile = {2, y(4), c(8), 600};
    }
    while (tile.results() > most && tile.y * tile.c > 1)
        if (tile.y > tile.c)
            tile.y = y(tile.y / 2);
        else
            tile.c = c(tile.c / 2);
    if (wanted.unroll) tile.unroll = wanted.unroll;
    return tile;
}

// Window rows are d.y.
void schedule_tiles(Func out, Func sum, const RDom &d, const Sums &q, const GpuTile &wanted) {
    const std::vector<Var> v = out.args(), s = sum.args();
    const Var l = v[0], x = v[1], y = v[2], c = v[3], b = v[4];
    const ThreadTile tile = choose_tile(q, wanted);
    const int warps = tile_of((q.channels + tile.c - 1) / tile.c, 4);
    Var ys("ys"), yp("yp"), yo("yo"), yi("yi"), co("co"), ci("ci"), xt("xt"), xu("xu"), xo("xo"), xi("xi"), cb("cb"),
        cw("cw"), p("p");
    if (q.parity > 1) {
        out.split(y, ys, yp, q.parity, TailStrategy::GuardWithIf);
        out.split(ys, yo, yi, tile.y, TailStrategy::GuardWithIf);
    } else {
        out.split(y, yo, yi, tile.y, TailStrategy::ShiftInwards);
    }
    out.split(c, co, ci, tile.c, TailStrategy::ShiftInwards);
    out.split(x, xt, xu, tile.x).split(xt, xo, xi, beside(q.lanes, q.columns / tile.x), TailStrategy::GuardWithIf);
    out.split(co, cb, cw, warps, TailStrategy::GuardWithIf);
    std::vector<Halide::VarOrRVar> order{xu, yi, ci, l, xi, cw, xo, yo, cb, b};
    if (q.parity > 1) order.insert(order.begin(), yp);
    out.reorder(order).fuse(xo, yo, p);
    if (q.parity > 1) out.unroll(yp);
    out.bound(l, 0, q.lanes)
        .unroll(xu)
        .unroll(yi)
        .unroll(ci)
        .gpu_threads(l, xi, cw)
        .gpu_blocks(p, cb, b)
        .never_partition_all();
    sum.compute_at(out, l).store_in(MemoryType::Register).bound_extent(x, tile.x).bound_extent(s[2], tile.y);
    sum.unroll(x).unroll(s[2]).unroll(c).never_partition_all();
    sum.update().reorder(x, s[2], c, d.y, d.x, d.z).unroll(x).unroll(s[2]).unroll(c).never_partition_all();
    if (q.parity > 1) {
        sum.bound(s[3], 0, q.parity).unroll(s[3]);
        sum.update().reorder(x, s[2], c, s[3], d.y, d.x, d.z).unroll(s[3]);
    }
    const int column = q.down * q.parity * tile.results();
    if (column <= tile.unroll) sum.update().unroll(d.y);
    if (column * q.across <= tile.unroll) sum.update().unroll(d.x);
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
    schedule_tiles(out, sum, d, {q.lanes, q.wo(), q.ho(), q.k * q.groups, q.k, q.r, q.s, q.stride}, wanted);
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
    schedule_tiles(out, sum, d, {q.lanes, q.w, q.h, q.c * q.groups, q.c, down, across, 1, stride}, wanted);
    return out;
}

namespace {

// A thread's sums: window columns x input channels x output channels. The warps of a group differ in window row and in
// input channels, so that what one of them loads of dy the others find in L1; where warps are few they share the lines.
// On an H100, batch 256, TFLOP/s (and before warps shared what they load): padded 3x3 64 @ 32: 31 (18). 128 @ 16: 33
// (20). 256 @ 8: 35 (28). 512 @ 4: 39 (23). Stride 2 64 -> 128 @ 32: 28 (15), 128 -> 256 @ 16: 29 (4)
struct WeightTile {
    int c, k, count, rows, channels, lines, unroll;

    WeightTile(const ConvShape &q, const GpuTile &wanted, bool per_block) {
        constexpr int most_warps = 8, shared_floats = 12 << 10;
        c = largest_divisor(q.c, wanted.c ? wanted.c : std::max(1, std::min(4, 64 / q.s)));
        k = largest_divisor(q.k, wanted.k ? wanted.k : std::max(1, std::min(8, 96 / (q.s * c))));
        count = q.s * c * k;
        const int most = std::clamp(shared_floats / (count * warp), 1, most_warps);
        const int64_t warps = int64_t(q.r) * (q.c / c) * (q.k / k) * q.groups * (per_block ? wanted.blocks : 1);
        lines = int(std::clamp<int64_t>(2048 / warps, 1, std::min(most, q.ho())));
        rows = largest_divisor(q.r, most / lines);
        channels = largest_divisor(q.c / c, std::clamp(wanted.x ? wanted.x : 4 / rows, 1, most / (lines * rows)));
        const int rounds = gpu::rounds(beside(q.lanes, q.wo()), q.wo());
        // Columns side by side share loads of x; whole rows unrolled were slower.
        const int most_columns = wanted.unroll ? wanted.unroll / count : std::min(400 / count, rounds / 2);
        unroll = largest_divisor(rounds, std::max(1, most_columns));
    }
};

} // namespace

// Sums of a thread over its columns of its lines in registers; those of all threads with the same results, through
// shared memory: each result's thread begins at another column, so that no two read the same bank.
Func conv2d_grad_weight(const ConvShape &q, const GpuTile &wanted, const At &x, const At &dy, const Expr &blocks) {
    const bool per_block = !blocks.defined();
    const WeightTile t(q, wanted, per_block);
    const int parts = beside(q.lanes, q.wo()), row = q.lanes * parts, same = row * t.lines;
    const int threads = same * t.rows * t.channels, down = q.r / t.rows, across = q.c / (t.c * t.channels);
    Var m("m"), e("e"), tile("tile"), g("g"), b("b"), s("s"), r("r"), c("c"), k("k");
    Func sum("sum"), shared("shared"), dw("dw");
    RDom d(0, rounds(parts, q.wo()), 0, rounds(t.lines, q.ho()), 0, per_block ? Expr(1) : blocks);
    Expr block = per_block ? Expr(b) : Expr(d.z), lane = m % q.lanes, of_row = m / same % t.rows;
    Expr of_channels = m / (same * t.rows);
    Dealt pixel = dealt(d.x, m / q.lanes % parts, parts, q.wo()), line = dealt(d.y, m / row % t.lines, t.lines, q.ho());
    Expr from = g * q.c + (tile / down % across * t.channels + of_channels) * t.c + e / q.s % t.c;
    Expr to = g * q.k + tile / (down * across) * t.k + e / (q.s * t.c);
    Expr column = pixel.index * q.stride + e % q.s - q.padding;
    Expr at = line.index * q.stride + tile % down * t.rows + of_row - q.padding;
    Expr value = x({lane, kept(column, q.w), kept(at, q.h), from, block});
    if (q.padding) {
        value = inside(value, column, q.w);
        // Where Halide understands the condition it cuts the loop over lines, for each thread.
        value = wanted.uniform ? select(cast<uint32_t>(at) < cast<uint32_t>(q.h), value, 0.f) : inside(value, at, q.h);
    }
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
    Expr place = s + q.s * (c % t.c + t.c * (k % t.k)), first = same * (r % t.rows + t.rows * (c / t.c % t.channels));
    Expr where = r / t.rows + down * (c / (t.c * t.channels) + across * (k / t.k));
    dw(of_dw) = tree(same, [&](int i) { return Expr(shared(args({first + (place + i) % same, place, where, g}))); });

    Var co("co"), ci("ci"), ko("ko"), ki("ki"), ro("ro"), ri("ri"), in("in"), out("out"), outer("outer"),
        inner("inner");
    dw.split(c, co, ci, t.c * t.channels).split(k, ko, ki, t.k).split(r, ro, ri, t.rows);
    dw.reorder(s, ci, ki, ri, ro, co, ko, g).fuse(s, ci, in).fuse(in, ki, in).fuse(in, ri, in);
    dw.fuse(ro, co, out).fuse(out, ko, out).fuse(out, g, out);
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

namespace {

using namespace cryolite;

// Powers of two, and `extent` itself, up to `most`.
std::vector<int> tile_extents(int extent, int most) {
    std::vector<int> values;
    for (int i = 1; i <= std::min(extent, most); i *= 2) values.push_back(i);
    if (extent <= most && extent != values.back()) values.push_back(extent);
    return values;
}

// Results of a thread: fewer do not hide the latency of loads, more do not fit into its registers.
std::string refuse_results(int results) {
    if (results > 128) return std::to_string(results) + " sums of at most 255 registers";
    return "";
}

// Of a pass with results of w columns, h rows and c channels; `parity` of them share a tile's rows.
TuningSpace tile_space(int w, int h, int c, int parity) {
    TuningSpace space;
    space.knobs = {{"tile_x", parity > 1 ? std::vector<int>{1} : tile_extents(w, 16)},
                   {"tile_y", tile_extents(ceil_div(h, parity), 16)},
                   {"tile_c", tile_extents(c, 16)},
                   {"unroll", {100, 200, 300, 600, 1000}}};
    space.together = {"tile_x", "tile_y", "tile_c"};
    space.refuse = [=](const Knobs &knobs) -> std::string {
        const int x = knob(knobs, "tile_x");
        if (x > 1 && w % x) return std::to_string(x) + " columns do not divide " + std::to_string(w);
        return refuse_results(x * knob(knobs, "tile_y") * knob(knobs, "tile_c") * parity);
    };
    return space;
}

TuningSpace gpu_weight_space(const KernelShape &q) {
    const ConvShape shape = conv_shape(q);
    TuningSpace space;
    space.knobs = {{"tile_x", {1, 2, 4}},
                   {"tile_c", divisors(shape.c, 8)},
                   {"tile_k", divisors(shape.k, 16)},
                   {"unroll", {100, 200, 400, 800}}};
    space.together = {"tile_c", "tile_k"};
    space.refuse = [s = shape.s](const Knobs &knobs) {
        return refuse_results(s * knob(knobs, "tile_c") * knob(knobs, "tile_k"));
    };
    return space;
}

} // namespace

CRYOLITE_GPU_TUNING(conv2d, [](const KernelShape &q) {
    const ConvShape shape = conv_shape(q);
    return tile_space(shape.wo(), shape.ho(), shape.k, 1);
})
CRYOLITE_GPU_TUNING(conv2d_grad_input, [](const KernelShape &q) {
    const ConvShape shape = conv_shape(q);
    return tile_space(shape.w, shape.h, shape.c, shape.stride);
})
CRYOLITE_GPU_TUNING(conv2d_grad_weight, gpu_weight_space)
CRYOLITE_GPU_TUNING(conv2d_grad_weight_tiles, gpu_weight_space)
