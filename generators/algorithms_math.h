// Scalar float32 maths as Halide expressions: accurate to about 2 ulp, NaN in gives NaN out, right limits at +-Inf,
// vectorises at any width and needs neither libm nor Halide's runtime.
#pragma once

#include "Halide.h"

namespace cryolite {

Halide::Expr float_exp(Halide::Expr x);
Halide::Expr float_log(Halide::Expr x);
Halide::Expr float_sigmoid(Halide::Expr x);
Halide::Expr float_tanh(Halide::Expr x);

// Halide's max and min return the second operand when the first is NaN; these keep a NaN of either.
Halide::Expr max_with_nan(Halide::Expr a, Halide::Expr b);
Halide::Expr min_with_nan(Halide::Expr a, Halide::Expr b);

// One operation that is neither reassociated nor folded. (Halide's strict_float also reaches everything below it, and
// so takes the FMAs away.)
Halide::Expr strict_add(Halide::Expr a, Halide::Expr b);
Halide::Expr strict_sub(Halide::Expr a, Halide::Expr b);
Halide::Expr strict_mul(Halide::Expr a, Halide::Expr b);
Halide::Expr strict_div(Halide::Expr a, Halide::Expr b);
Halide::Expr strict_less(Halide::Expr a, Halide::Expr b);
Halide::Expr strict_equal(Halide::Expr a, Halide::Expr b);

// A term of a sum, or of a maximum, over `r`. Halide loops over those dimensions only that an update names: without, a
// term that does not depend on one would be added once.
Halide::Expr over_all(const Halide::RDom &r, Halide::Expr term, float neutral = 0);

// A well mixed 32-bit hash of a 32-bit integer.
Halide::Expr mixed_bits(Halide::Expr x);

} // namespace cryolite
