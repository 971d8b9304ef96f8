// The float32 FMA peak of one core, measured: what a kernel's GFLOP/s are compared with.
#ifndef CRYOLITE_BENCH_PEAK_H
#define CRYOLITE_BENCH_PEAK_H

namespace cryolite::bench {

// GFLOP/s of independent multiply-adds in registers, at the widest vectors of this machine. Best of several tries,
// about 0.1 s in all. 0 on machines that are not x86.
double fma_peak();

} // namespace cryolite::bench
#endif
