// Tuned schedules: knobs (generators/tuning.h) of kernels, by what they were measured for.
//
// Two sources, the user's first: a database that the user names (schedule_database.h), and what ships with the compiler
// (generators/schedules/*.schedules, part of the build). Rows of other generator sources, targets, processors or Halide
// versions are stale and ignored, and so are knobs that the generator does not know or refuses. Decisions of passes
// (choices.h) are rows like kernels. A kernel without a row
// takes the nearest shape's; without one, the generator's own choice. A kernel for a device that the options do not
// name takes those of any device of its kind.
#ifndef CRYOLITE_SCHEDULES_H
#define CRYOLITE_SCHEDULES_H

#include "choices.h"
#include "codegen.h"

#include "../generators/tuning.h"

namespace cryolite {

// What a schedule was tuned for.
struct ScheduleKey {
    std::string generator;
    std::string shape;  // the kernel's parameters, knobs aside: "c=64 h=32 k=64 ..."
    std::string type;   // "f32"
    std::string path;   // layout: "lanes" or "channels"
    std::string target; // Halide's full name; of kernels for devices "cryo_cuda" or "cryo_opencl"
    std::string cpu;    // LLVM's name of the processor, or the device's with '_' for spaces; "any": not known
    std::string halide; // "21.0.0"
    std::string source; // hash of the generator's source

    auto operator<=>(const ScheduleKey &) const = default;
    std::string text() const; // all of it, in one line
};

struct TunedSchedule {
    ScheduleKey key;
    Knobs knobs;                         // empty: the generator's own choice is the best known
    double seconds = 0, own_seconds = 0; // least thread time of one call: with the knobs, with the generator's choice
    double spread = 0;                   // median absolute deviation of the pairs' ratios
    double error = 0;                    // largest difference from the generator's choice, over the largest value
    std::string made, machine;           // day, processor as its maker calls it
};

// One line, and back. parse throws CompileError that says what is wrong.
std::string print(const TunedSchedule &schedule);
TunedSchedule parse_schedule(const std::string &line);
// Lines, sorted; '#' begins a comment line.
std::string print(const std::vector<TunedSchedule> &schedules);
std::vector<TunedSchedule> parse_schedules(const std::string &text);

std::string print(const Knobs &knobs); // "tile_c=4 tile_x=3"; "own" where there are none
Knobs parse_knobs(const std::string &text);

ScheduleKey schedule_key(const KernelSpec &kernel, const KernelTarget &target);
ScheduleKey decision_key(const std::string &kind, const std::string &about, const KernelTarget &target);
// The kernel with its generator parameters set to the knobs.
KernelSpec with_knobs(KernelSpec kernel, const Knobs &knobs);
TuningSpace tuning_space(const KernelSpec &kernel, const KernelTarget &target);

// The kernels of all plans of a network, each once, without tuned schedules, and their work in one step of each.
struct KernelWork {
    KernelSpec kernel;
    double flops;
};
std::vector<KernelWork> kernel_work(const Network &network, const CompileOptions &options);

class Schedules {
public:
    // Earlier added ones are preferred.
    void add(std::vector<TunedSchedule> schedules);
    // The knobs for a kernel, or none. nearest: from another shape as well.
    Knobs find(const KernelSpec &kernel, const KernelTarget &target, bool nearest = true) const;
    // The decisions that were found to be better otherwise. Never null.
    std::shared_ptr<Choices> choices(const KernelTarget &target) const;

private:
    std::multimap<std::string, TunedSchedule> by_generator_;
};

// With schedules that are no file's; compile.h has the other one.
CompiledModel compile(const Network &network, const CompileOptions &options, const Schedules &schedules);
// Those that the passes of a mode take, by kind, the most work first.
std::vector<Decision> decisions(const Network &network, const CompileOptions &options, Mode mode,
                                const Schedules &schedules);

// What ships, behind the database in `file`; "": what ships alone. Throws CompileError for a file that is no database.
Schedules load_schedules(const std::string &file);

} // namespace cryolite
#endif
