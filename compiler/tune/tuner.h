// Searches the schedule of one kernel. Candidates are compiled, checked and timed in child processes: one that crashes,
// hangs, spills, writes where it must not or gives other numbers than the generator's own choice never wins.
#ifndef CRYOLITE_TUNE_TUNER_H
#define CRYOLITE_TUNE_TUNER_H

#include "../schedule_database.h"

#include "../../runtime/device/device.h"

#include <csignal>
#include <functional>

namespace cryolite {

struct TuneCounts {
    int refused = 0; // by the space: never compiled
    int by_code = 0; // rejected for their machine code, which spills, or is another's: never run
    int failed = 0;  // did not compile, crashed, took too long, gave other numbers
    int timed = 0;
    int rejected() const { return refused + by_code + failed; }
};

struct TunePoint {
    double seconds; // since the search began
    double best;    // of one call, the best known then
};

struct TuneProgress {
    const TuneCounts &counts;
    double passed, budget; // seconds
    double own, best;      // seconds of a call, 0 while not known
};

struct TuneOptions {
    double budget = 60; // seconds
    int64_t batch = 256;
    int jobs = 0;         // candidates compiled at once; 0: one a core
    double patience = 10; // seconds that a candidate may take to compile, and to run
    uint64_t seed = 1;
    int pairs = 15;                                                         // of a duel
    std::function<void(const Knobs &, const std::string &outcome)> explain; // every candidate
    std::function<void(const TuneProgress &)> progress;                     // often
    const volatile std::sig_atomic_t *stop = nullptr;                       // not 0: come to an end

    // Of kernels for devices: what opens theirs, in a child, and what they call.
    std::function<runtime::Device *(std::string &why)> device = {};
    std::vector<HostFunction> functions = {};
};

struct Tuned {
    TunedSchedule schedule; // empty knobs: nothing beats the generator's own choice
    TuneCounts counts;
    double seconds = 0;     // that it took
    bool exhausted = false; // the whole space was seen
    std::vector<TunePoint> curve;
};

// Goes on where an earlier call with this database ended; a row of the kernel's is the first candidate. What is found
// is in the database as soon as it is known, and re-measured at the end. The calling process must have one thread.
Tuned tune(const KernelSpec &kernel, const KernelTarget &target, ScheduleDatabase &database,
           const TuneOptions &options);

// The processor's name as its maker has it, from /proc/cpuinfo; "unknown".
std::string processor_name();
// The device's, opened in a child, as a word: '_' for spaces. Throws InternalError that says why there is none.
std::string device_name(const std::function<runtime::Device *(std::string &why)> &open);

} // namespace cryolite
#endif
