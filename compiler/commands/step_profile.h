// Times single steps of an open model, some with the runtime's profile, and turns those into a Profile.
#ifndef CRYOLITE_STEP_PROFILE_H
#define CRYOLITE_STEP_PROFILE_H

#include "loaded_network.h"
#include "tools/profile.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <vector>

namespace cryolite {

// Seconds of steps, sorted.
struct Timing {
    std::vector<double> seconds;
    double quantile(double q) const; // 0: the fastest, 1: the slowest
};

// Runs step until it has done so for `seconds`, but at least three times; each kind of step, when profiled.
class StepTimer {
public:
    StepTimer(const LoadedNetwork &network, std::string mode, std::function<void()> step)
        : network_(network), mode_(std::move(mode)), step_(std::move(step)) {}

    // profiled: steps with and without the runtime's profile take turns.
    void run(double seconds, bool profiled);

    Timing timing() const; // of the steps without profile

    // Means over the faster half of the profiled steps, so that the kernels add up to the step. machine: measured while
    // as many threads work. Without title and machine's facts nothing else is missing.
    Profile profile(const std::string &title, int threads, const Machine &machine) const;

private:
    struct Sample { // of one profiled step
        double seconds;
        std::vector<double> kernels, phases; // by row and by phase of the mode
    };
    double timed_step() const;
    Sample profiled_step() const;

    const LoadedNetwork &network_;
    std::string mode_;
    std::function<void()> step_;
    std::vector<double> seconds_;
    std::vector<Sample> samples_;
};

// Columns: phase, layer, kernel, calls and ms a step, share of all threads' time, GFLOP/s, GB/s, share of the roof.
std::string profile_text(const Profile &profile);
nlohmann::ordered_json profile_json(const Profile &profile);

} // namespace cryolite
#endif
