// The arithmetic of kernels: round to nearest, no traps, denormals flushed. They slow training down 5 to 50 times.
#ifndef CRYOLITE_RUNTIME_FLOAT_MODE_H
#define CRYOLITE_RUNTIME_FLOAT_MODE_H

#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace cryolite::runtime {

// Sets the mode of this thread, and puts back the one before.
class FloatMode {
public:
#if defined(__x86_64__)
    FloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); } // all exceptions masked, FTZ, DAZ
    ~FloatMode() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
    FloatMode() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" : : "r"(uint64_t(1) << 24));
    }
    ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
    FloatMode() {}
    ~FloatMode() {}
#endif
    FloatMode(const FloatMode &) = delete;
    FloatMode &operator=(const FloatMode &) = delete;

private:
#if defined(__x86_64__)
    uint32_t before_;
#elif defined(__aarch64__)
    uint64_t before_;
#endif
};

} // namespace cryolite::runtime
#endif
