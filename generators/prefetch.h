// Weights and values asked for while the ones before them are in use.
#pragma once

#include "Halide.h"

#include <string>
#include <vector>

namespace cryolite {

// For a buffer that the loops of a kernel read front to back. Where they read it a chunk at a time, and each chunk
// several times before the next, every reading asks for its share of the next chunk, so that the chunk comes from
// memory while this one is computed with: a cache's own prefetcher follows the first reading alone, and then waits with
// the core. Where they read every value once, each read asks for what lies 4 KiB ahead: those prefetchers stop at the
// end of a page. Loops in another order are left as they are.
void prefetch_weights(Halide::Pipeline pipeline, const std::string &buffer);

// Bytes of images that a core's caches hold: kernels of fewer ask for nothing ahead.
constexpr long cached_images = 512 * 1024;

// Lines of a buffer, `count` times `step` floats apart, for each of `places`. index is of the first one, an expression
// in the place, Variable "place", and in the loops around the tile that asks for them.
struct LinesAhead {
    std::string buffer;
    Halide::Expr index;
    int places, count, step;
    Halide::Expr when; // of those loops too; undefined: always
};

// What a register tile asks for while it computes the products of a Func, into L2. `loops`, each inside the one before
// it, are around the tile.
struct TileAhead {
    std::vector<std::string> loops;
    std::string products;          // empty: all at once, when the tile begins
    std::vector<LinesAhead> lines; // none: nothing
};

// The loops over a tile's products ask for equal parts of the lines. All lines at the tile's beginning would fill the
// queue of what a core waits for, behind which the products' own values, from L2, have to wait: resnet50's inference of
// 16 images takes 0.89 of the time and its step 0.96, the step of resnet18_cifar 0.93 (Zen 5). Products without loops
// ask for nothing. An error where the loops around the tile are not there.
void prefetch_beside_products(Halide::Pipeline pipeline, const TileAhead &ahead);

// The variable of a loop, by its name in the lowered code: "<func>.s<stage>.<var>".
Halide::Expr loop_variable(const std::string &name);

} // namespace cryolite
