// The weight gradient of a window of one pixel as a product of matrices, for targets with 16 vector registers: x is
// turned round, so that vectors hold input channels, and dy is broadcast sample by sample. No sum runs over a vector,
// and every element of the turned x serves all output channels.
#pragma once

#include "conv2d_gpu.h"

namespace cryolite {

struct Turned {
    int vectors = 0, k = 1; // a register tile: vectors of input channels by output channels
    int pixels = 1;         // of a chunk, whose turned vectors stay in L1
    int outputs = 1;        // output channels for which x is turned once, and whose dy stays in L2:
    bool whole = false;     // of all pixels and blocks, while one tile of input channels is finished; else of a chunk
};

// Whether the gradient is made so: images in one row (by_pixels), of one group and whole vectors of input channels.
bool is_turned(const ConvShape &shape, const Registers &registers);

// wanted: vectors, k and pixels that knobs ask for, 0: the best ones.
Turned choose_turned(const ConvShape &shape, const Turned &wanted, const Registers &registers);

// dw(s, r, c, k, g) of x(l, pixel, 0, c, block) and dy(l, pixel, 0, k, block), summed over so many blocks. Defined and
// scheduled.
void turned_grad_weight(const ConvShape &shape, const Turned &tile, const gpu::At &x, const gpu::At &dy,
                        Halide::Func dw, const Halide::Expr &blocks);

} // namespace cryolite
