// What one machine can do, measured: the roof that a kernel's speed is compared with.
#ifndef CRYOLITE_MACHINE_H
#define CRYOLITE_MACHINE_H

#include <cstdint>
#include <vector>

namespace cryolite {

// GFLOP/s of independent float32 multiply-adds in registers, one core, at the widest vectors of this machine (AVX-512,
// AVX2; SSE multiplies and adds apart). Best of several tries, some 20 ms in all. 0 on machines that are not x86.
double fma_peak();

// One level of the memory: a core's caches, then main memory.
struct MemoryLevel {
    const char *name; // "L1", "L2", "L3", "memory"
    int64_t bytes;    // what fits; INT64_MAX for main memory
    double read;      // GB/s of one thread while `threads` of them read arrays of their own
    double triad;     // a = b + s * c, bytes of all three counted once, as STREAM does
};

struct Machine {
    int threads = 1;
    double fma_gflops = 0; // one core
    double line_ns = 0;    // a cache line written by one thread until another has read it; 0 for one thread
    std::vector<MemoryLevel> levels;

    // GB/s of one thread from the smallest level that holds so many bytes.
    double bandwidth(double bytes) const;
    // The least seconds in which one thread can do this work: the roof of the roofline model. 0 when neither is known.
    double least_seconds(double flops, double bytes) const;
    // Keeps the faster one of two measurements, number by number: other programs only make them slower.
    void merge(const Machine &other);
};

// Some 0.2 s. The first two threads tell line_ns: some 40 ns where their cores share a cache, 200 where they do not; a
// virtual machine's cores may be moved. All threads read and write at once, as a step's threads do. Level 3 is shared:
// a thread gets its part.
Machine measure_machine(int threads);

} // namespace cryolite
#endif
