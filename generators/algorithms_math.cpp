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

Expr clamped(Expr x, float low, float high) {
    x = select(strict_less(x, low), low, x);
    return select(strict_less(high, x), high, x);
}

// e^x = 2^exponent * power with power in [0.7, 1.42]; `biased` = exponent + 127. |x| < 105.
struct Reduced {
    Expr biased, power;
};

Reduced reduced_exp(Expr x) {
    // Truncation is one instruction, rounding may be several; + 127.5 makes the operand positive on the range in use.
    Expr biased = cast<int>(x * log2_e + 127.5f);
    Expr k = cast<float>(biased - 127);
    Expr r = strict_sub(x, strict_mul(k, ln2_high)) - k * ln2_low;
    // Minimax of e^r on |r| <= ln 2 / 2, relative error 2^-28.
    Expr p = 0x1.685ee8p-10f;
    for (float c : {0x1.123d3ap-7f, 0x1.555b8ep-5f, 0x1.55548cp-3f, 0x1.fffff8p-2f, 1.f, 1.f}) p = p * r + c;
    return {biased, p};
}

Expr power_of_two(Expr biased) { return reinterpret(Float(32), biased << 23); }

} // namespace

Expr float_exp(Expr x) {
    // Two factors reach below the normal range and overflow to Inf by themselves. The bias of 2 * 127 keeps the
    // truncated operand of reduced_exp positive.
    x = clamped(x, -104.5f, 89.f);
    Expr biased = cast<int>(x * log2_e + 254.5f);
    Expr k = cast<float>(biased - 254);
    Expr r = strict_sub(x, strict_mul(k, ln2_high)) - k * ln2_low;
    Expr p = 0x1.685ee8p-10f;
    for (float c : {0x1.123d3ap-7f, 0x1.555b8ep-5f, 0x1.55548cp-3f, 0x1.fffff8p-2f, 1.f, 1.f}) p = p * r + c;
    Expr half = biased >> 1;
    return strict_mul(strict_mul(p, power_of_two(half)), power_of_two(biased - half));
}

Expr float_sigmoid(Expr x) {
    // 1 / (1 + e^-x). At -x >= 88.4 the power of two is Inf and the result 0, at -x = -87 the sum is 1.
    Reduced e = reduced_exp(clamped(-x, -87.f, 88.8f));
    return strict_div(1.f, e.power * power_of_two(e.biased) + 1.f);
}

Expr float_tanh(Expr x) {
    Expr z = x * x;
    Expr p = -5.70498872745e-3f;
    for (float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f}) p = p * z + c;
    Expr small = x + x * z * p;
    Expr a = abs(x);
    Reduced e = reduced_exp(clamped(a + a, 0.f, 20.f)); // tanh(10) rounds to 1
    Expr large = 1.f - strict_div(2.f, e.power * power_of_two(e.biased) + 1.f);
    return select(strict_less(0.625f, a), select(strict_less(x, 0.f), -large, large),
                  small); // NaN takes the polynomial
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

Expr mixed_bits(Expr x) {
    x = cast<uint32_t>(x);
    x = (x ^ (x >> 16)) * Expr(uint32_t(0x7feb352d));
    x = (x ^ (x >> 15)) * Expr(uint32_t(0x846ca68b));
    return x ^ (x >> 16);
}

} // namespace cryolite
