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

// The loops are written once per vector type: a target attribute reaches one function only.
__attribute__((target("avx512f"), noinline)) double flops_avx512() {
    __m512 sums[24], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (auto &sum : sums) sum = _mm512_setzero_ps();
    double start = seconds();
    for (long i = 0; i < rounds; i++) {
#pragma GCC unroll 24
        for (int j = 0; j < 24; j++) {
            sums[j] = _mm512_fmadd_ps(sums[j], x, y);
            __asm__ volatile("" : "+v"(sums[j])); // keeps the compiler from folding rounds
        }
    }
    return 24.0 * 16 * 2 * rounds / (seconds() - start);
}

__attribute__((target("avx2,fma"), noinline)) double flops_avx2() {
    __m256 sums[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (auto &sum : sums) sum = _mm256_setzero_ps();
    double start = seconds();
    for (long i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) {
            sums[j] = _mm256_fmadd_ps(sums[j], x, y);
            __asm__ volatile("" : "+x"(sums[j]));
        }
    }
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
