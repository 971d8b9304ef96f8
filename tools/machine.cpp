// Multiply-adds on independent accumulators, enough of them to hide the latency of two units; reads and STREAM's triad.
#include "machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cryolite {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#if defined(__x86_64__)

constexpr long rounds = 300000;

// Named variables, since an array would live in memory. The empty asm keeps the compiler from folding rounds.
#define CRYOLITE_TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CRYOLITE_AVX512(i)                                                                                             \
    a##i = _mm512_fmadd_ps(a##i, x, y);                                                                                \
    b##i = _mm512_fmadd_ps(b##i, x, y);                                                                                \
    __asm__ volatile("" : "+v"(a##i), "+v"(b##i));
#define CRYOLITE_AVX2(i)                                                                                               \
    a##i = _mm256_fmadd_ps(a##i, x, y);                                                                                \
    __asm__ volatile("" : "+x"(a##i));
#define CRYOLITE_SSE(i)                                                                                                \
    a##i = _mm_add_ps(_mm_mul_ps(a##i, x), y);                                                                         \
    __asm__ volatile("" : "+x"(a##i));

// Once per vector type: a target attribute reaches one function only.
__attribute__((target("avx512f"), noinline)) double flops_avx512() {
    __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    __m512 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    __m512 b0 = x, b1 = x, b2 = x, b3 = x, b4 = x, b5 = x, b6 = x, b7 = x, b8 = x, b9 = x, b10 = x, b11 = x;
    double start = now();
    for (long i = 0; i < rounds; i++) { CRYOLITE_TWELVE(CRYOLITE_AVX512) }
    return 24.0 * 16 * 2 * rounds / (now() - start);
}

__attribute__((target("avx2,fma"), noinline)) double flops_avx2() {
    __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    __m256 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    double start = now();
    for (long i = 0; i < rounds; i++) { CRYOLITE_TWELVE(CRYOLITE_AVX2) }
    return 12.0 * 8 * 2 * rounds / (now() - start);
}

__attribute__((noinline)) double flops_sse() {
    __m128 x = _mm_set1_ps(0.999f), y = _mm_set1_ps(1e-3f);
    __m128 a0 = x, a1 = x, a2 = x, a3 = x, a4 = x, a5 = x, a6 = x, a7 = x, a8 = x, a9 = x, a10 = x, a11 = x;
    double start = now();
    for (long i = 0; i < rounds; i++) { CRYOLITE_TWELVE(CRYOLITE_SSE) }
    return 12.0 * 4 * 2 * rounds / (now() - start);
}

// count is a multiple of 64. The sums are handed on so that the loads stay.
__attribute__((target("avx512f"), noinline)) float read_avx512(const float *p, size_t count) {
    __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
    for (size_t i = 0; i < count; i += 64) {
        a = _mm512_add_ps(a, _mm512_load_ps(p + i));
        b = _mm512_add_ps(b, _mm512_load_ps(p + i + 16));
        c = _mm512_add_ps(c, _mm512_load_ps(p + i + 32));
        d = _mm512_add_ps(d, _mm512_load_ps(p + i + 48));
    }
    return _mm512_cvtss_f32(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
}

__attribute__((target("avx2"), noinline)) float read_avx2(const float *p, size_t count) {
    __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (size_t i = 0; i < count; i += 64) {
        a = _mm256_add_ps(a, _mm256_load_ps(p + i));
        b = _mm256_add_ps(b, _mm256_load_ps(p + i + 8));
        c = _mm256_add_ps(c, _mm256_load_ps(p + i + 16));
        d = _mm256_add_ps(d, _mm256_load_ps(p + i + 24));
        e = _mm256_add_ps(e, _mm256_load_ps(p + i + 32));
        f = _mm256_add_ps(f, _mm256_load_ps(p + i + 40));
        g = _mm256_add_ps(g, _mm256_load_ps(p + i + 48));
        h = _mm256_add_ps(h, _mm256_load_ps(p + i + 56));
    }
    a = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    return _mm256_cvtss_f32(_mm256_add_ps(a, _mm256_add_ps(_mm256_add_ps(e, f), _mm256_add_ps(g, h))));
}

__attribute__((target("avx512f"), noinline)) void triad_avx512(float *a, const float *b, const float *c, size_t count) {
    __m512 s = _mm512_set1_ps(0.5f);
    for (size_t i = 0; i < count; i += 16)
        _mm512_store_ps(a + i, _mm512_add_ps(_mm512_load_ps(b + i), _mm512_mul_ps(s, _mm512_load_ps(c + i))));
}

__attribute__((target("avx2"), noinline)) void triad_avx2(float *a, const float *b, const float *c, size_t count) {
    __m256 s = _mm256_set1_ps(0.5f);
    for (size_t i = 0; i < count; i += 8)
        _mm256_store_ps(a + i, _mm256_add_ps(_mm256_load_ps(b + i), _mm256_mul_ps(s, _mm256_load_ps(c + i))));
}

#endif

float read_all(const float *p, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512(p, count);
    if (__builtin_cpu_supports("avx2")) return read_avx2(p, count);
#endif
    float sums[16] = {};
    for (size_t i = 0; i < count; i += 16)
        for (size_t j = 0; j < 16; j++) sums[j] += p[i + j];
    return sums[0];
}

void triad(float *a, const float *b, const float *c, size_t count) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return triad_avx512(a, b, c, count);
    if (__builtin_cpu_supports("avx2")) return triad_avx2(a, b, c, count);
#endif
    for (size_t i = 0; i < count; i++) a[i] = b[i] + 0.5f * c[i];
}

// A third of `count` floats each: a, b and c of the triad; the read goes over all of them.
struct Arrays {
    std::unique_ptr<float, decltype(&std::free)> memory{nullptr, std::free};
    size_t count;
    explicit Arrays(int64_t bytes) : count(size_t(bytes) / (3 * 64 * sizeof(float)) * (3 * 64)) {
        memory.reset(static_cast<float *>(std::aligned_alloc(64, count * sizeof(float))));
        std::fill(memory.get(), memory.get() + count, 1.0f); // the thread's own pages
    }
};

struct Rates {
    double read = 0, triad = 0;
};

// GB/s of the calling thread, best of several passes.
Rates measure_rates(const Arrays &arrays) {
    float *p = arrays.memory.get();
    size_t third = arrays.count / 3, bytes = arrays.count * sizeof(float);
    const size_t passes = std::max<size_t>(1, (size_t(1) << 22) / bytes);
    Rates best;
    double stop = now() + 0.03;
    for (int run = 0; run < 3 || now() < stop; run++) {
        double start = now();
        for (size_t i = 0; i < passes; i++) {
            volatile float sink = read_all(p, arrays.count);
            (void)sink;
        }
        double middle = now();
        for (size_t i = 0; i < passes; i++) triad(p, p + third, p + 2 * third, third);
        best.read = std::max(best.read, double(passes * bytes) / (middle - start) * 1e-9);
        best.triad = std::max(best.triad, double(passes * bytes) / (now() - middle) * 1e-9);
    }
    return best;
}

// The slowest thread's rates while all of them run.
Rates measure_rates(int64_t bytes, int threads) {
    std::vector<Rates> rates(static_cast<size_t>(threads));
    std::atomic<int> ready{0};
    auto work = [&](int t) {
        Arrays arrays(bytes);
        ready++;
        while (ready < threads) std::this_thread::yield();
        rates[size_t(t)] = measure_rates(arrays);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; t++) others.emplace_back(work, t);
    work(0);
    for (std::thread &other : others) other.join();
    Rates slowest = rates[0];
    for (const Rates &r : rates) slowest = {std::min(slowest.read, r.read), std::min(slowest.triad, r.triad)};
    return slowest;
}

// Half a turn of a counter that two threads count up by turns, in seconds: the least of several runs.
double measure_line() {
    constexpr int turns = 500, runs = 20;
    alignas(64) std::atomic<int> counter{0};
    auto wait_for = [&](int value) {
        for (int spins = 0; counter.load(std::memory_order_acquire) != value; spins++)
            if (spins > 10000) std::this_thread::yield(); // one core for both
    };
    std::thread other([&] {
        for (int i = 0; i < turns * runs; i++) {
            wait_for(2 * i + 1);
            counter.store(2 * i + 2, std::memory_order_release);
        }
    });
    double least = 0;
    for (int run = 0; run < runs; run++) {
        const double start = now();
        for (int i = run * turns; i < (run + 1) * turns; i++) {
            counter.store(2 * i + 1, std::memory_order_release);
            wait_for(2 * i + 2);
        }
        const double half = (now() - start) / (2 * turns);
        if (run == 0 || half < least) least = half;
    }
    other.join();
    return least;
}

// Data cache of a level as Linux tells it; 0 when unknown. (sysconf asks the processor, which in a virtual machine may
// name the whole host's.)
int64_t cache_bytes(int wanted) {
    for (int index = 0; index < 8; index++) {
        const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
        std::string type;
        int level = 0;
        int64_t size = 0;
        char unit = 0;
        std::ifstream(folder + "type") >> type;
        std::ifstream(folder + "level") >> level;
        std::ifstream(folder + "size") >> size >> unit;
        if (level == wanted && type != "Instruction") return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
    }
    return 0;
}

} // namespace

double fma_peak() {
    double best = 0;
#if defined(__x86_64__)
    for (int i = 0; i < 20; i++)
        best = std::max(best, __builtin_cpu_supports("avx512f")                                 ? flops_avx512()
                              : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? flops_avx2()
                                                                                                : flops_sse());
#endif
    return best * 1e-9;
}

Machine measure_machine(int threads) {
    Machine machine{threads, fma_peak(), threads > 1 ? measure_line() * 1e9 : 0, {}};
    int64_t largest = 0;
    const char *const names[] = {"L1", "L2", "L3"};
    for (int level = 1; level <= 3; level++) {
        const char *const name = names[level - 1];
        int64_t bytes = cache_bytes(level) / (level == 3 ? threads : 1);
        if (bytes <= largest) continue; // unknown, or no larger than the level below
        Rates rates = measure_rates(bytes / 2, threads);
        machine.levels.push_back({name, bytes, rates.read, rates.triad});
        largest = bytes;
    }
    Rates rates = measure_rates(std::clamp<int64_t>(largest * 4, 32 << 20, 256 << 20), threads);
    machine.levels.push_back({"memory", INT64_MAX, rates.read, rates.triad});
    return machine;
}

double Machine::bandwidth(double bytes) const {
    for (const MemoryLevel &level : levels)
        if (bytes <= double(level.bytes)) return level.read;
    return 0;
}

double Machine::least_seconds(double flops, double bytes) const {
    double rate = bandwidth(bytes);
    return std::max(fma_gflops > 0 ? flops / (fma_gflops * 1e9) : 0, rate > 0 ? bytes / (rate * 1e9) : 0);
}

void Machine::merge(const Machine &other) {
    fma_gflops = std::max(fma_gflops, other.fma_gflops);
    if (other.line_ns > 0) line_ns = line_ns > 0 ? std::min(line_ns, other.line_ns) : other.line_ns;
    for (size_t i = 0; i < levels.size() && i < other.levels.size(); i++) {
        levels[i].read = std::max(levels[i].read, other.levels[i].read);
        levels[i].triad = std::max(levels[i].triad, other.levels[i].triad);
    }
}

} // namespace cryolite
