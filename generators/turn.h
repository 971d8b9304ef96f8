// Planes of lanes turned round into vectors of channels, for sums over samples: no sum then runs across a vector.
#pragma once

#include "Halide.h"

#include <vector>

namespace cryolite {

// turned(c, l, pixels...) = value, an expression in l, c and the pixels. Turned by half vectors, so that the shuffles
// stay within two registers.
class Turn {
public:
    Turn(const std::string &name, const Halide::Var &c, const Halide::Var &l, const std::vector<Halide::Var> &pixels,
         const Halide::Expr &value);

    // `channels` of it at `level`, on the stack: vectors of `width` channels, of as many lanes as the target has.
    void schedule(const Halide::LoopLevel &level, int lanes, int width, int channels);

    Halide::Func turned;

private:
    Halide::Func part_{"part"}, flipped_{"flipped"};
    Halide::Var c_, l_;
};

} // namespace cryolite
