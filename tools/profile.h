// Where the time of a step went: what `bench --profile` measures, prints and draws.
#ifndef CRYOLITE_PROFILE_H
#define CRYOLITE_PROFILE_H

#include "tools/machine.h"

#include <string>
#include <vector>

namespace cryolite {

// Everything is of one step. Seconds of kernels are summed over threads.
struct KernelTime {
    std::string layer, kernel; // the kernel's readable key
    double calls = 0, seconds = 0, flops = 0, bytes = 0;
    double least_seconds = 0;   // at the roof; 0 when unknown
    double fastest_seconds = 0; // in the step where it was fastest

    std::string generator() const { return kernel.substr(0, kernel.find(' ')); }
    double of_roof() const { return seconds > 0 ? least_seconds / seconds : 0; }
};

struct PhaseTime {
    int phase = 0;
    double seconds = 0; // from its first task to the end of its tail
    std::vector<KernelTime> kernels;
    double kernel_seconds() const;
};

struct Profile {
    std::string title; // "lenet train, batch 256, 2 threads"
    int threads = 1;
    double seconds = 0; // the whole step
    double cost = 0;    // what profiling adds to a step, as a share of it
    int steps = 0;      // that were measured
    std::vector<PhaseTime> phases;
    Machine machine;

    double kernel_seconds() const;
    double thread_seconds() const { return seconds * threads; }
    double waiting_share() const { return seconds > 0 ? 1 - kernel_seconds() / thread_seconds() : 0; }
};

// The whole file: the step as a ribbon in the order of its kernels, where width is time, the dark part of a kernel is
// its share of the roof and grey is waiting; below it the generators' shares and the kernels that lose most to the
// roof.
std::string draw_profile(const Profile &profile);

} // namespace cryolite
#endif
