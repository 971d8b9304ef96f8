// Scratch of a kernel that is too large for the stack: an argument of the call instead of an allocation.
#pragma once

#include "Halide.h"

#include <string>
#include <vector>

namespace cryolite {

// The allocations of `funcs`, one after another, become places in the buffer argument `scratch`, a dense one of
// `elements` floats that the pipeline itself does not use. Their sizes must be constants.
void place_in_scratch(Halide::Pipeline pipeline, const std::string &scratch, long elements,
                      const std::vector<Halide::Func> &funcs);

} // namespace cryolite
