// exp, log, sigmoid and tanh by range reduction and minimax polynomials. Three rules keep them right under Halide's
// default (fast) float mode: steps that must not be reassociated are strict; clamps are selects on strict comparisons,
// which keep NaN (others become max or min and lose it); nothing relies on x - x or 0 * x.
// Comparisons of floats are strict everywhere: others are undefined for NaN and infinities, and -inf < a - b may turn
// into b < a + inf, upon which LLVM drops the whole kernel.
#include "algorithms_math.h"

namespace cryolite {
using Halide::Expr, Halide::Float, Halide::Int, Halide::UInt, Halide::cast, Halide::reinterpret, Halide::select;

namespace {

constexpr float log2_e = 1.44269504f;
// ln 2 in two parts; the high part has so few bits that its product with an exponent is exact.
constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
// Added to a number below 2^22, it leaves the nearest integer in the low bits: rounding costs no instruction more.
constexpr float rounder = 12582912.f; // 1.5 * 2^23

Expr clamped(Expr x, float low, float high) {
    x = select(strict_less(x, low), low, x);
    return select(strict_less(high, x), high, x);
}

// x = exponent * ln 2 + rest with |rest| <= ln 2 / 2. The low bits of `bits` are exponent + bias.
struct Reduced {
    Expr bits, rest;
};

Reduced reduced(Expr x, float bias) {
    Expr shifted = x * log2_e + (rounder + bias);
    Expr k = strict_sub(shifted, rounder + bias);
    return {reinterpret(UInt(32), shifted), strict_sub(x, strict_mul(k, ln2_high)) - k * ln2_low};
}

// Minimax of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2; relative error of e^r 2^-28.
Expr exp_tail(Expr r) {
    Expr p = 0x1.685ee8p-10f;
    for (float c : {0x1.123d3ap-7f, 0x1.555b8ep-5f, 0x1.55548cp-3f, 0x1.fffff8p-2f}) p = p * r + c;
    return p;
}

Expr exp_of_rest(Expr r) { return (exp_tail(r) * r + 1.f) * r + 1.f; }

// 2^exponent from exponent + 127 below 256 in the low bits; what is above them is shifted out.
Expr power_of_two(Expr biased) { return reinterpret(Float(32), biased << 23); }

} // namespace

Expr float_exp(Expr x) {
    // Two factors reach below the normal range and overflow to Inf by themselves.
    Reduced e = reduced(clamped(x, -104.5f, 89.f), 254.f);
    Expr both = e.bits & 0x1ff, half = both >> 1;
    Expr p = exp_of_rest(e.rest);
    return strict_mul(strict_mul(p, power_of_two(half)), power_of_two(both - half));
}

Expr float_sigmoid(Expr x) {
    // 1 / (1 + e^-x). At x <= -88.4 the power of two is Inf and the result 0, at x = 87 the sum is 1.
    Reduced e = reduced(-clamped(x, -88.8f, 87.f), 127.f);
    return strict_div(1.f, exp_of_rest(e.rest) * power_of_two(e.bits) + 1.f);
}

Expr float_tanh(Expr x) {
    // m / (m + 2) with m = e^|2x| - 1 = 2^k (e^r - 1) + (2^k - 1), which loses nothing near 0. tanh(10) rounds to 1.
    Expr twice = clamped(abs(x + x), 0.f, 20.f);
    Reduced e = reduced(twice, 127.f);
    Expr power = power_of_two(e.bits), less_one = e.rest * e.rest * exp_tail(e.rest) + e.rest;
    Expr m = strict_add(strict_mul(less_one, power), strict_sub(power, 1.f));
    Expr sign = reinterpret(UInt(32), x) & Expr(0x80000000u);
    return reinterpret(Float(32), reinterpret(UInt(32), strict_div(m, m + 2.f)) | sign);
}

Expr float_log(Expr x) {
    const float tiny = 1.17549435e-38f;
    Expr small = strict_less(x, tiny),
         normal = select(small, x * 8388608.f, x); // denormals, where they are not flushed
    Expr bits = reinterpret(Int(32), normal);
    // m in [sqrt(1/2), sqrt(2))
    Expr exponent = (bits - 0x3f3504f3) >> 23;
    Expr m = reinterpret(Float(32), bits - (exponent << 23));
    Expr e = cast<float>(exponent) - select(small, 23.f, 0.f);
    Expr r = strict_sub(m, 1.f);
    Expr p = 7.0376836292e-2f;
    for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                    2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
        p = p * r + c;
    Expr z = r * r;
    Expr tail = strict_sub(strict_add(strict_mul(z, r * p), strict_mul(e, ln2_low)), strict_mul(z, 0.5f));
    Expr y = strict_add(strict_add(r, tail), strict_mul(e, ln2_high));
    const float inf = std::numeric_limits<float>::infinity();
    // +Inf and NaN, told by their bits.
    y = select((reinterpret(Int(32), x) & 0x7fffffff) < 0x7f800000, y, x);
    y = select(strict_equal(x, 0.f), -inf, y);
    return select(strict_less(x, 0.f), std::numeric_limits<float>::quiet_NaN(), y);
}

namespace {

Expr strict(Halide::Internal::Call::IntrinsicOp op, Expr a, Expr b, Halide::Type type = Float(32)) {
    return Halide::Internal::Call::make(type, op, {a, b}, Halide::Internal::Call::PureIntrinsic);
}

} // namespace

Expr strict_add(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_add, a, b); }

Expr strict_sub(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_sub, a, b); }

Expr strict_mul(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_mul, a, b); }

Expr strict_div(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_div, a, b); }

Expr strict_less(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_lt, a, b, Halide::Bool()); }

Expr strict_equal(Expr a, Expr b) { return strict(Halide::Internal::Call::strict_eq, a, b, Halide::Bool()); }

Expr max_with_nan(Expr a, Expr b) { return select(is_nan(a) || strict_less(b, a), a, b); }

Expr min_with_nan(Expr a, Expr b) { return select(is_nan(a) || strict_less(a, b), a, b); }

Expr over_all(const Halide::RDom &r, Expr term, float neutral) {
    for (int d = 0; d < r.dimensions(); d++)
        if (!Halide::Internal::expr_uses_var(term, r[d].name())) term = select(r[d] >= 0, term, neutral);
    return term;
}

Expr mixed_bits(Expr x) {
    x = cast<uint32_t>(x);
    x = (x ^ (x >> 16)) * Expr(uint32_t(0x7feb352d));
    x = (x ^ (x >> 15)) * Expr(uint32_t(0x846ca68b));
    return x ^ (x >> 16);
}

} // namespace cryolite
