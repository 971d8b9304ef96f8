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

// What each iteration of a loop asks for, into L2: lines of a buffer, `count` times `step` floats apart, for each of
// `places`. index is of the first one, an expression in the place, Variable "place", and in the loops around.
struct LinesAhead {
    std::string buffer;
    Halide::Expr index;
    int places, count, step;
};
// In the last of `loops`, each inside the one before it. An error where there are no such loops.
void prefetch_in_loop(Halide::Pipeline pipeline, const std::vector<std::string> &loops,
                      const std::vector<LinesAhead> &lines);

// The variable of a loop, by its name in the lowered code: "<func>.s<stage>.<var>".
Halide::Expr loop_variable(const std::string &name);

} // namespace cryolite
