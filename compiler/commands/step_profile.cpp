// Samples to means, means to a table.
#include "step_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace cryolite {

namespace {

constexpr size_t least_steps = 3;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<cryo_profile_row> rows_of(const LoadedNetwork &network, const std::string &mode) {
    std::vector<cryo_profile_row> rows;
    for (size_t i = 0; i < cryo_profile_count(network.get()); i++) {
        cryo_profile_row row = {};
        network.check(cryo_profile_at(network.get(), i, &row));
        if (mode == row.mode) rows.push_back(row);
    }
    return rows;
}

std::vector<cryo_profile_phase> phases_of(const LoadedNetwork &network, const std::string &mode) {
    std::vector<cryo_profile_phase> phases;
    for (size_t i = 0; i < cryo_profile_phase_count(network.get()); i++) {
        cryo_profile_phase phase = {};
        network.check(cryo_profile_phase_at(network.get(), i, &phase));
        if (mode == phase.mode) phases.push_back(phase);
    }
    return phases;
}

} // namespace

double Timing::quantile(double q) const { return seconds.at(size_t(std::lround(q * double(seconds.size() - 1)))); }

double StepTimer::timed_step() const {
    double start = now();
    step_();
    return now() - start;
}

StepTimer::Sample StepTimer::profiled_step() const {
    network_.check(cryo_set_profiling(network_.get(), 1));
    Sample sample{timed_step(), {}, {}};
    for (const cryo_profile_row &row : rows_of(network_, mode_)) sample.kernels.push_back(row.seconds);
    for (const cryo_profile_phase &phase : phases_of(network_, mode_)) sample.phases.push_back(phase.seconds);
    network_.check(cryo_set_profiling(network_.get(), 0));
    return sample;
}

void StepTimer::run(double seconds, bool profiled) {
    seconds_.clear();
    samples_.clear();
    double stop = now() + seconds;
    while (seconds_.size() < least_steps || now() < stop) {
        seconds_.push_back(timed_step());
        if (profiled) samples_.push_back(profiled_step());
    }
}

Timing StepTimer::timing() const {
    Timing timing{seconds_};
    std::sort(timing.seconds.begin(), timing.seconds.end());
    return timing;
}

Profile StepTimer::profile(const std::string &title, int threads, const Machine &machine) const {
    std::vector<Sample> samples = samples_;
    std::sort(samples.begin(), samples.end(), [](const Sample &a, const Sample &b) { return a.seconds < b.seconds; });
    const double median = samples.at(samples.size() / 2).seconds;
    samples.resize((samples.size() + 1) / 2);
    const auto mean = [&](auto value) {
        double sum = 0;
        for (const Sample &sample : samples) sum += value(sample);
        return sum / double(samples.size());
    };

    Profile profile{.title = title, .threads = threads, .machine = machine};
    profile.seconds = mean([](const Sample &s) { return s.seconds; });
    profile.cost = median / timing().quantile(0.5) - 1;
    profile.steps = int(samples.size());
    for (size_t p = 0; p < samples[0].phases.size(); p++)
        profile.phases.push_back({int(p), mean([p](const Sample &s) { return s.phases[p]; }), {}});
    const std::vector<cryo_profile_row> rows = rows_of(network_, mode_); // of the last step: calls, flops and bytes
    for (size_t r = 0; r < rows.size(); r++) {
        const cryo_profile_row &row = rows[r];
        KernelTime time{row.name, row.kernel, double(row.calls), 0, row.flops, row.bytes};
        time.seconds = mean([r](const Sample &s) { return s.kernels[r]; });
        time.fastest_seconds = time.seconds;
        for (const Sample &sample : samples_) time.fastest_seconds = std::min(time.fastest_seconds, sample.kernels[r]);
        if (row.calls > 0)
            time.least_seconds = time.calls * machine.least_seconds(row.flops / time.calls, row.bytes / time.calls);
        profile.phases.at(size_t(row.phase)).kernels.push_back(std::move(time));
    }
    return profile;
}

// ---------------------------------------------------------------------------------------------------------------------
// Output

namespace {

std::string machine_text(const Machine &machine) {
    if (machine.fma_gflops == 0) return "";
    std::string text = fmt::format("one core: {:.1f} GFLOP/s of multiply-adds", machine.fma_gflops);
    for (const MemoryLevel &level : machine.levels)
        text += fmt::format(", {} {:.1f} GB/s read, {:.1f} triad", level.name, level.read, level.triad);
    if (machine.threads <= 1) return text + "\n";
    return text + fmt::format(" (a thread, {} at once); a cache line to another core {:.0f} ns\n", machine.threads,
                              machine.line_ns);
}

std::string shortened(const std::string &text, size_t length) {
    return text.size() <= length ? text : text.substr(0, length - 3) + "...";
}

std::string rate(double amount, double seconds) {
    return amount > 0 && seconds > 0 ? fmt::format("{:.1f}", amount / seconds * 1e-9) : "";
}

std::string line(const KernelTime &time, double thread_seconds) {
    return fmt::format("  {:<24} {:>7.0f} {:>9.4f} {:>6.1f}% {:>8} {:>8} {:>7}  {}\n", shortened(time.layer, 24),
                       time.calls, time.seconds * 1e3, 100 * time.seconds / thread_seconds,
                       rate(time.flops, time.seconds), rate(time.bytes, time.seconds),
                       time.least_seconds > 0 ? fmt::format("{:.0f}%", 100 * time.of_roof()) : "",
                       shortened(time.kernel, 72));
}

} // namespace

std::string profile_text(const Profile &profile) {
    const double all = profile.thread_seconds();
    std::string text = machine_text(profile.machine);
    text += fmt::format(
        "profile: {:.3f} ms a step, kernels {:.3f} ms in {} thread{}, waiting {:.1f}%; profiling itself "
        "adds {:.1f}%; means over the faster half of {} steps\n\n",
        profile.seconds * 1e3, profile.kernel_seconds() * 1e3, profile.threads, profile.threads > 1 ? "s" : "",
        100 * profile.waiting_share(), 100 * profile.cost, 2 * profile.steps);
    text += fmt::format("  {:<24} {:>7} {:>9} {:>7} {:>8} {:>8} {:>7}  {}\n", "layer", "calls", "ms", "share",
                        "GFLOP/s", "GB/s", "of roof", "kernel");
    for (const PhaseTime &phase : profile.phases) {
        const auto runs = [](const KernelTime &time) { return time.calls > 0; };
        if (std::none_of(phase.kernels.begin(), phase.kernels.end(), runs)) {
            text += fmt::format("phase {}: {} kernels of parameters alone, which run when these have changed\n",
                                phase.phase, phase.kernels.size());
            continue;
        }
        const double threads = phase.seconds * profile.threads;
        text += fmt::format("phase {}: {:.4f} ms, {:.1f}% of the step, waiting {:.0f}% of it\n", phase.phase,
                            phase.seconds * 1e3, 100 * phase.seconds / profile.seconds,
                            threads > 0 ? 100 * (1 - phase.kernel_seconds() / threads) : 0);
        for (const KernelTime &time : phase.kernels)
            if (runs(time)) text += line(time, all);
    }
    return text;
}

nlohmann::ordered_json profile_json(const Profile &profile) {
    using Json = nlohmann::ordered_json;
    Json levels = Json::array(), phases = Json::array();
    for (const MemoryLevel &level : profile.machine.levels)
        levels.push_back(
            {{"level", level.name}, {"read_gbytes_per_s", level.read}, {"triad_gbytes_per_s", level.triad}});
    for (const PhaseTime &phase : profile.phases) {
        Json kernels = Json::array();
        for (const KernelTime &time : phase.kernels)
            kernels.push_back({{"layer", time.layer},
                               {"kernel", time.kernel},
                               {"calls", time.calls},
                               {"ms", time.seconds * 1e3},
                               {"ms_fastest", time.fastest_seconds * 1e3},
                               {"share", time.seconds / profile.thread_seconds()},
                               {"flops", time.flops},
                               {"bytes", time.bytes},
                               {"of_roof", time.of_roof()}});
        phases.push_back({{"phase", phase.phase}, {"ms", phase.seconds * 1e3}, {"kernels", kernels}});
    }
    return {{"steps", profile.steps},
            {"ms", profile.seconds * 1e3},
            {"ms_kernels", profile.kernel_seconds() * 1e3},
            {"waiting_share", profile.waiting_share()},
            {"cost", profile.cost},
            {"fma_gflops", profile.machine.fma_gflops},
            {"line_ns", profile.machine.line_ns},
            {"memory", levels},
            {"phases", phases}};
}

} // namespace cryolite
