// Winograd's one-dimensional transforms as expressions.
#pragma once

#include "Halide.h"
#include "winograd.h"

namespace cryolite {

using Exprs = std::vector<Halide::Expr>;

// matrix * in, with few operations: zeros cost nothing, and what the points p and -p have in common is computed once.
Exprs transform(Matrix matrix, Exprs in);

} // namespace cryolite
