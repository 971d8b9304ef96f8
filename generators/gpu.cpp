// What the GPU schedules share: gpu.h.
#include "gpu.h"

#include "schedule.h"

#include <algorithm>

namespace cryolite::gpu {
using Halide::Expr, Halide::Func, Halide::MemoryType, Halide::RDom, Halide::TailStrategy, Halide::Var;

int beside(int lanes, int extent) { return std::clamp(warp / lanes, 1, std::max(1, extent)); }

int tile_of(int extent, int most) {
    auto covered = [&](int tile) { return (extent + tile - 1) / tile * tile; };
    int best = std::min(extent, most);
    for (int tile = best; tile >= 1 && tile > best / 2; tile--)
        if (covered(tile) < covered(best)) best = tile;
    return best;
}

// All arguments between the first and the last as one.
static Var fused_inner(Func f, size_t first, size_t end) {
    const std::vector<Var> args = f.args();
    Var inner = args[first];
    for (size_t i = first + 1; i < end; i++) {
        Var both;
        f.fuse(inner, args[i], both);
        inner = both;
    }
    return inner;
}

void block_map(Func out, int lanes) {
    const std::vector<Var> args = out.args();
    const Var l = args.front(), b = args.back();
    const int neighbours = std::max(1, group / lanes);
    Var outer("outer"), inner("inner");
    if (args.size() == 2) {
        out.split(b, outer, inner, neighbours, TailStrategy::GuardWithIf).gpu_blocks(outer);
    } else {
        Var all = fused_inner(out, 1, args.size() - 1);
        out.split(all, outer, inner, neighbours, TailStrategy::GuardWithIf).gpu_blocks(outer, b);
    }
    out.bound(l, 0, lanes).gpu_threads(l, inner).never_partition_all();
}

void whole_map(Func out) {
    Var all = fused_inner(out, 0, out.args().size()), outer("outer"), inner("inner");
    out.split(all, outer, inner, group, TailStrategy::GuardWithIf).gpu_blocks(outer).gpu_threads(inner);
    out.never_partition_all();
}

void group_map(Func out, int lanes) {
    const std::vector<Var> args = out.args();
    Var all = fused_inner(out, lanes > 0, args.size() - (lanes >= 0)), group("group"), one;
    out.split(all, group, one, 1);
    if (lanes > 0) out.reorder(one, args.front(), group).bound(args.front(), 0, lanes).gpu_threads(args.front());
    if (lanes >= 0)
        out.gpu_blocks(group, args.back());
    else
        out.gpu_blocks(group);
    out.never_partition_all();
}

void sample_map(Func out, int lanes, const std::vector<Func> &within) {
    const std::vector<Var> args = out.args();
    const Var l = args.front(), b = args.back();
    std::vector<Halide::VarOrRVar> order(args.begin() + 1, args.end() - 1);
    order.insert(order.end(), {l, b});
    out.reorder(order).bound(l, 0, lanes).gpu_threads(l).gpu_blocks(b).never_partition_all();
    for (Func f : within) f.compute_at(out, l).store_in(MemoryType::Register);
}

int most_results(int64_t results) {
    constexpr int64_t enough_threads = 1 << 16;
    return int(std::clamp<int64_t>(results / enough_threads, 1, 1 << 10));
}

// Accumulators in registers. Where there are few results, the terms are dealt out to parts, whose sums meet in shared
// memory.
Func product(const Product &p) {
    const int64_t results = p.lanes * p.blocks * p.channels;
    const int tile = tile_of(p.channels, std::min(8, most_results(results))), tiles = (p.channels + tile - 1) / tile;
    const int parts = tile > 1 ? 1 : largest_divisor(p.terms, 8), chunk = p.terms / parts;
    const int warps = parts > 1 ? 1 : tile_of(tiles, 4), together = largest_divisor(chunk, tile > 4 ? 4 : 8);
    Var l("l"), o("o"), b("b"), part("part"), co("co"), ci("ci"), cb("cb"), cw("cw"), bo("bo"), bi("bi");
    Func sum("sum"), shared("shared"), out("out");
    RDom d(0, chunk);
    sum(l, o, part, b) = 0.f;
    sum(l, o, part, b) += p.term(l, d.x * parts + part, o, b);
    Func from = sum;
    if (parts > 1) {
        shared(l, o, part, b) = sum(l, o, part, b);
        from = shared;
    }
    out(l, o, b) = p.start(o) + tree(parts, [&](int i) { return Expr(from(l, o, i, b)); });
    out.split(o, co, ci, tile, TailStrategy::ShiftInwards).split(co, cb, cw, warps, TailStrategy::GuardWithIf);
    out.split(b, bo, bi, parts > 1 ? 1 : beside(p.lanes, warp), TailStrategy::GuardWithIf);
    out.reorder(ci, l, bi, cw, cb, bo).bound(l, 0, p.lanes).unroll(ci).never_partition_all();
    out.gpu_threads(l, bi, cw).gpu_blocks(cb, bo);
    if (parts > 1) {
        shared.compute_at(out, cb).store_in(MemoryType::GPUShared).bound(l, 0, p.lanes).bound(part, 0, parts);
        shared.reorder(o, b, l, part).gpu_threads(l, part);
        sum.compute_at(shared, l);
    } else {
        sum.compute_at(out, l);
    }
    sum.store_in(MemoryType::Register).unroll(o);
    sum.update().reorder(o, d.x).unroll(o).unroll(d.x, together).never_partition_all();
    return out;
}

// Blocks are dealt out to parts, whose sums meet in shared memory.
Func linear_grad_weight(const Element &x, const Element &dy, int lanes, int inputs, int outputs, const Expr &blocks) {
    constexpr int parts = 8;
    const int tile = tile_of(outputs, 4), width = std::min(warp, inputs);
    Var i("i"), o("o"), part("part"), io("io"), ii("ii"), oo("oo"), oi("oi");
    Func sum("sum"), shared("shared"), dw("dw");
    RDom d(0, lanes, 0, (blocks + parts - 1) / parts);
    Expr block = d.y * parts + part, at = min(block, blocks - 1);
    sum(i, o, part) = 0.f;
    sum(i, o, part) += x(i, d.x, at) * select(block < blocks, dy(d.x, o, at), 0.f);
    shared(i, o, part) = sum(i, o, part);
    dw(i, o) = tree(parts, [&](int p) { return Expr(shared(i, o, p)); });
    dw.split(i, io, ii, width, TailStrategy::ShiftInwards).split(o, oo, oi, tile, TailStrategy::ShiftInwards);
    dw.reorder(oi, ii, io, oo).unroll(oi).gpu_threads(ii).gpu_blocks(io, oo).never_partition_all();
    shared.compute_at(dw, io).store_in(MemoryType::GPUShared).bound_extent(i, width).bound_extent(o, tile);
    shared.bound_extent(part, parts).reorder(o, i, part).unroll(o).gpu_threads(i, part);
    sum.compute_at(shared, i).store_in(MemoryType::Register).unroll(o);
    sum.update().reorder(o, d.x, d.y).unroll(o).unroll(d.x, 4).never_partition_all();
    return dw;
}

Dealt dealt(const Expr &round, const Expr &part, int parts, int count) {
    Expr index = round * parts + part;
    if (count % parts == 0) return {index, Expr()};
    return {min(index, count - 1), index < count};
}

static Expr part_of_tree(int first, int count, const std::function<Expr(int)> &term) {
    if (count == 1) return term(first);
    return part_of_tree(first, count / 2, term) + part_of_tree(first + count / 2, count - count / 2, term);
}

Expr tree(int count, const std::function<Expr(int)> &term) { return part_of_tree(0, count, term); }

} // namespace cryolite::gpu
