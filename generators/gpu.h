// Schedules for GPUs, beside each generator's schedule for the CPU: same values in the same layout, but one call works
// on all blocks of a batch (kernels.md, "On a GPU").
//
// Samples side by side are threads side by side: a row of V lanes by 32 / V neighbours is a warp. Nothing is allocated
// and nothing is added atomically: sums over samples go from registers to shared memory to one partial sum a block.
#pragma once

#include "Halide.h"

#include <functional>
#include <vector>

namespace cryolite {

inline bool is_gpu(const Halide::Target &target) { return target.has_gpu_feature(); }

// Of a generator without a schedule for GPUs.
inline void refuse_gpu(const Halide::Target &target) {
    if (is_gpu(target)) throw Halide::CompileError("there is no schedule of it for GPUs");
}

namespace gpu {

constexpr int warp = 32, group = 128; // threads

// Neighbours (pixels, blocks) beside the lanes in one warp: at most `extent`.
int beside(int lanes, int extent);

// The largest tile up to `most` among those that cover `extent` with the least excess.
int tile_of(int extent, int most);

// One thread a value of `out`, whose arguments are the lane, others, and the block.
void block_map(Halide::Func out, int lanes);

// One thread a value of `out`, a value without samples.
void whole_map(Halide::Func out);

// A group of threads a value of `out`, whose loop is Var("group"): what its threads compute is the caller's. lanes: the
// first argument is the lane, the last the block, and a group has all lanes; 0: no lane; -1: no block either.
void group_map(Halide::Func out, int lanes);

// One thread a sample, which runs through all that `out` has of it: the arguments are the lane, others, and the block.
// `within`: computed before, by the same thread.
void sample_map(Halide::Func out, int lanes, const std::vector<Halide::Func> &within);

// Results a thread, at most: so few that a launch that makes `results` of them fills a large GPU.
int most_results(int64_t results);

// The blocks of the batch that a schedule is made for; 0: many.
inline int64_t blocks_of(int batch, int lanes) { return batch ? (batch + lanes - 1) / lanes : 1 << 16; }

// out(l, o, b) = start(o) + the sum of term(l, t, o, b) over `terms` t, for `channels` o and about `blocks` blocks.
struct Product {
    int lanes, terms, channels;
    int64_t blocks;
    std::function<Halide::Expr(Halide::Expr)> start;
    std::function<Halide::Expr(Halide::Expr, Halide::Expr, Halide::Expr, Halide::Expr)> term;
};
Halide::Func product(const Product &product);

// dw(i, o): sum over lanes l and blocks b of x(i, l, b) * dy(l, o, b), for `inputs` by `outputs` of them.
using Element = std::function<Halide::Expr(Halide::Expr, Halide::Expr, Halide::Expr)>;
Halide::Func linear_grad_weight(const Element &x, const Element &dy, int lanes, int inputs, int outputs,
                                const Halide::Expr &blocks);

// The index of part `part` of `parts` in round `round`, of a loop over `count` things dealt out to parts. Where the
// parts do not divide, `inside` tells what is there; else it is undefined.
struct Dealt {
    Halide::Expr index, inside;
};
Dealt dealt(const Halide::Expr &round, const Halide::Expr &part, int parts, int count);
inline int rounds(int parts, int count) { return (count + parts - 1) / parts; }

// Sum of term(0), ..., term(count - 1) as a tree, in one expression.
Halide::Expr tree(int count, const std::function<Halide::Expr(int)> &term);

} // namespace gpu
} // namespace cryolite
