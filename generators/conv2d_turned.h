// Weight gradients as products of matrices: one side is turned round, so that its vectors hold channels, and the other
// is broadcast sample by sample. No sum runs over a vector, and every element of the turned side serves all channels of
// the other.
#pragma once

#include "conv2d_gpu.h"

namespace cryolite {

// Of a window of one pixel x is turned, and chunks are of pixels; of a larger window, or of few output channels, dy is.
struct Turned {
    int vectors = 0, other = 1; // a register tile: vectors of turned channels by channels of the other side,
    int s = 1;                  // by window columns
    int columns = 1, rows = 1;  // pixels of dy in a chunk, whose turned vectors stay in L1
    int others = 1;             // channels of the other side for which one is turned once
};

// Whether the gradient is made so: of one group, and whole vectors of the channels that are turned.
bool is_turned(const ConvShape &shape, const Registers &registers);
bool turns_x(const ConvShape &shape);

// wanted: vectors, other, s and columns that knobs ask for, 0: the best ones.
Turned choose_turned(const ConvShape &shape, const Turned &wanted, const Registers &registers);

// dw(s, r, c, k, g) of x(l, column, row, c, block) and dy(l, column, row, k, block), summed over so many blocks.
// Defined and scheduled. Returns what the kernel should ask for ahead.
TileAhead turned_grad_weight(const ConvShape &shape, const Turned &tile, const gpu::At &x, const gpu::At &dy,
                             Halide::Func dw, const Halide::Expr &blocks);

} // namespace cryolite
