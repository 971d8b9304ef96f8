// Multiply-adds on independent accumulators, enough of them to hide the latency of two units.
#include "peak.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cryolite::bench {

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#if defined(__x86_64__)

constexpr long rounds = 1000000;

// Named variables, since an array would live in memory. The empty asm keeps the compiler from folding rounds.
#define CRYOLITE_TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CRYOLITE_AVX512(i)                                                                                             \
    a##i = _mm512_fmadd_ps(a##i, x, y);                                                                                \
    b##i = _mm512_fmadd_ps(b##i, x, y);                                                                                \
    __asm__ volatile("" : "+v"(a##i), "+v"(b##i));
#define CRYOLITE_AVX2(i)                                                                                               \
    a##i = _mm256_fmadd_ps(a##i, x, y);                                                                                \
    __asm__ volatile("" : "+x"(a##i));

// Once per vector type: a target attribute reaches one function only.
__attribute__((target("avx512f"), noinline)) double flops_avx512() {
    __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    __m512 b0 = x, b1 = x, b2 = x, b3 = x, b4 = x, b5 = x, b6 = x, b7 = x, b8 = x, b9 = x, b10 = x, b11 = x;
    double start = seconds();
    for (long i = 0; i < rounds; i++) { CRYOLITE_TWELVE(CRYOLITE_AVX512) }
    return 24.0 * 16 * 2 * rounds / (seconds() - start);
}

__attribute__((target("avx2,fma"), noinline)) double flops_avx2() {
    __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    __m256 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    double start = seconds();
    for (long i = 0; i < rounds; i++) { CRYOLITE_TWELVE(CRYOLITE_AVX2) }
    return 12.0 * 8 * 2 * rounds / (seconds() - start);
}

#endif

} // namespace

double fma_peak() {
    double best = 0;
#if defined(__x86_64__)
    for (int i = 0; i < 10; i++) {
        if (__builtin_cpu_supports("avx512f"))
            best = std::max(best, flops_avx512());
        else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            best = std::max(best, flops_avx2());
    }
#endif
    return best * 1e-9;
}

} // namespace cryolite::bench
