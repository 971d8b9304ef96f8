// tune: searches the schedules of a network's kernels, or of one kernel given by its generator and parameters; then the
// decisions over its whole step.
// schedules: what a database holds, as text, and back.
#include "command.h"

#include "../data/whole_file.h"
#include "../device_functions.h"
#include "../graph.h"
#include "../progress.h"
#include "../tune/step_tuner.h"
#include "../tune/tuner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <sstream>

namespace cryolite {

namespace {

volatile std::sig_atomic_t interrupted = 0;

// The first interrupt ends the search, the second one the program.
class Interruptible {
public:
    Interruptible() {
        before_ = std::signal(SIGINT, [](int) {
            interrupted = 1;
            std::signal(SIGINT, SIG_DFL);
        });
    }
    ~Interruptible() { std::signal(SIGINT, before_); }

private:
    void (*before_)(int);
};

struct Options {
    NetworkOptions network;
    std::string budget = "10m", kernel_filter, part = "all", mode = "train";
    std::vector<std::string> kernel;
    int threads = 0; // of a step
    bool explain = false, curve = false;
};

double parse_duration(const std::string &text) {
    char *end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const std::string unit = end;
    const double seconds = value * (unit.empty() || unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : 0);
    if (end == text.c_str() || !(seconds > 0) || seconds > 1e6)
        throw UsageError("'" + text + "' is no duration; write 30s, 10m or 1h");
    return seconds;
}

// "conv2d n=32 c=64 ...", with lanes where the generator takes it.
KernelSpec parse_kernel(const std::vector<std::string> &words, const KernelTarget &target, int64_t &batch) {
    KernelSpec kernel{words[0], {{"lanes", std::to_string(target.lanes)}}};
    const std::vector<std::string> known = tunable_generators(target.gpu);
    if (std::find(known.begin(), known.end(), words[0]) == known.end())
        throw UsageError(
            fmt::format("'{}' is no generator with anything to tune; these are: {}", words[0], fmt::join(known, " ")));
    for (size_t i = 1; i < words.size(); i++) {
        const size_t equal = words[i].find('=');
        if (equal == std::string::npos || equal == 0) throw UsageError("'" + words[i] + "' is not name=value");
        kernel.parameters[words[i].substr(0, equal)] = words[i].substr(equal + 1);
    }
    // Squares need not be written twice.
    for (auto [from, to] : {std::pair("h", "w"), std::pair("r", "s")})
        if (kernel.parameters.count(from)) kernel.parameters.emplace(to, kernel.parameters[from]);
    // Generators that take a block of samples a call have n; the others are told how many samples there are.
    if (auto n = kernel.parameters.find("n"); n != kernel.parameters.end()) batch = std::atoll(n->second.c_str());
    return kernel;
}

std::function<runtime::Device *(std::string &)> device_of(const KernelTarget &target) {
    return [name = target.name](std::string &why) { return open_device(name, why); };
}

struct Job {
    KernelSpec kernel;
    double share; // of the budget
};

class Tuning {
public:
    Tuning(const Options &options, const KernelTarget &target, int64_t batch)
        : options_(options), target_(target), batch_(batch),
          database_(options.network.compile.schedules, ScheduleDatabase::write) {}

    // network: whose step comes after the kernels; null: none's.
    void run(const std::vector<Job> &jobs, const Network *network) {
        std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ); // who reads along in a pipe sees results as they come
        const double budget = parse_duration(options_.budget);
        Interruptible interruptible;
        double left = network && !jobs.empty() ? budget / 2 : budget;
        for (size_t i = 0; i < jobs.size() && !interrupted; i++) {
            double shares = 0;
            for (size_t j = i; j < jobs.size(); j++) shares += jobs[j].share;
            const Tuned tuned = tune_one(jobs[i].kernel, left * jobs[i].share / shares, int(i), int(jobs.size()));
            left = std::max(0.1, left - tuned.seconds);
        }
        if (network && !interrupted) tune_whole_step(*network, jobs.empty() ? budget : budget / 2);
        if (interrupted)
            throw Failure("interrupted; what was found is in '" + options_.network.compile.schedules +
                          "', and the same command goes on from there");
    }

private:
    Tuned tune_one(const KernelSpec &kernel, double budget, int index, int count) {
        Progress bar(fmt::format("tuning {}/{}", index + 1, count));
        TuneOptions options{.budget = budget, .batch = batch_, .jobs = options_.network.compile.jobs};
        options.stop = &interrupted;
        if (target_.gpu) options.device = device_of(target_), options.functions = device_functions();
        options.progress = [&](const TuneProgress &p) {
            const double faster = p.best > 0 ? p.own / p.best : 1;
            bar.update(int64_t(p.passed * 1e3), int64_t(p.budget * 1e3),
                       fmt::format("{} {:.2f}x, {} timed, {} rejected", kernel.generator, faster, p.counts.timed,
                                   p.counts.rejected()),
                       p.budget - p.passed);
        };
        if (options_.explain)
            options.explain = [&](const Knobs &knobs, const std::string &outcome) {
                bar.clear();
                fmt::print("  {}: {}\n", print(knobs), outcome);
            };
        if (options_.explain) fmt::print("{}\n", kernel.key());
        try {
            Tuned tuned = tune(kernel, target_, database_, options);
            bar.clear();
            print_result(kernel, tuned);
            return tuned;
        } catch (const InternalError &error) {
            if (options_.kernel.empty()) throw;
            throw Failure(error.what()); // the parameters are the user's
        }
    }

    void print_result(const KernelSpec &kernel, const Tuned &tuned) const {
        const TunedSchedule &s = tuned.schedule;
        const TuneCounts &n = tuned.counts;
        if (s.seconds <= 0) {
            fmt::print("{}: nothing was timed in {:.1f} s\n", kernel.key(), tuned.seconds);
            return;
        }
        fmt::print("{}: {}, {:.3f} us, {:.2f}x the generator's own choice; {} timed, {} refused, {} rejected by their "
                   "code, {} failed "
                   "in {:.1f} s{}\n",
                   kernel.key(), print(s.knobs), s.seconds * 1e6, s.own_seconds / s.seconds, n.timed, n.refused,
                   n.by_code, n.failed, tuned.seconds, tuned.exhausted ? ", all there are" : "");
        if (options_.curve)
            for (const TunePoint &point : tuned.curve)
                fmt::print("  after {:.2f} s: {:.3f} us\n", point.seconds, point.best * 1e6);
    }

    void tune_whole_step(const Network &network, double budget) {
        Progress bar("tuning " + options_.mode);
        StepTuneOptions options{.mode = options_.mode == "train" ? Mode::train : Mode::infer,
                                .threads = options_.threads > 0 ? options_.threads : processors_here(),
                                .budget = budget};
        options.stop = &interrupted;
        options.progress = [&](const StepTuneProgress &p) {
            const double faster = p.best > 0 ? p.before / p.best : 1;
            bar.update(int64_t(p.passed * 1e3), int64_t(p.budget * 1e3),
                       fmt::format("step {:.2f}x, {} alternatives timed, {} rejected", faster, p.timed, p.failed),
                       std::max(0.0, p.budget - p.passed));
        };
        if (options_.explain)
            options.explain = [&](const Decision &decision, const Knobs &option, const std::string &outcome) {
                bar.clear();
                fmt::print("  {} {}: {}: {}\n", decision.kind, decision.about, print(option), outcome);
            };
        const TunedStep tuned = tune_step(network, options_.network.compile, database_, options);
        bar.clear();
        const std::string gain = tuned.seconds > 0
                                     ? fmt::format(", {:.3f} ms a step, {:.2f}x what it was", tuned.seconds * 1e3,
                                                   tuned.before_seconds / tuned.seconds)
                                     : "";
        fmt::print(
            "{} step of {}: {} of {} decisions taken otherwise{}; {} alternatives timed, {} failed in {:.1f} s{}\n",
            options_.mode, network.name(), tuned.kept.size(), tuned.decisions, gain, tuned.timed, tuned.failed,
            tuned.passed, tuned.exhausted ? ", all there are" : "");
        for (const TunedSchedule &row : tuned.kept)
            fmt::print("  {} {}: {}\n", row.key.generator, row.key.shape, print(row.knobs));
    }

    const Options &options_;
    const KernelTarget &target_;
    int64_t batch_;
    ScheduleDatabase database_;
};

// Kernels of a network that have something to tune; a share is the square root of the work, for small kernels to have a
// chance.
std::vector<Job> network_jobs(const Network &network, const CompileOptions &options, const KernelTarget &target,
                              const std::string &filter) {
    std::vector<Job> jobs;
    for (const KernelWork &work : kernel_work(network, options)) {
        if (work.kernel.key().find(filter) == std::string::npos) continue;
        if (tuning_space(work.kernel, target).knobs.empty()) continue;
        jobs.push_back({work.kernel, std::sqrt(std::max(work.flops, 1e4))});
    }
    std::stable_sort(jobs.begin(), jobs.end(), [](const Job &a, const Job &b) { return a.share > b.share; });
    return jobs;
}

void run(Options &options) {
    CompileOptions &compile = options.network.compile;
    if (compile.schedules.empty()) compile.schedules = ScheduleDatabase::usual_file();
    KernelTarget target = resolve_target(compile);
    if (target.gpu) {
        try {
            target.cpu = device_name(device_of(target));
        } catch (const InternalError &error) { throw Failure(error.what()); }
    }
    int64_t batch = compile.batch;
    std::vector<Job> jobs;
    std::unique_ptr<Network> network;
    const bool kernels = options.part != "step", step = options.part != "kernels" && options.kernel_filter.empty();
    if (!options.kernel.empty()) {
        jobs.push_back({parse_kernel(options.kernel, target, batch), 1});
    } else {
        network = build_network(options.network);
        if (kernels) jobs = network_jobs(*network, compile, target, options.kernel_filter);
        if (!step || target.gpu) network = nullptr; // a device's plans leave nothing open
    }
    if (jobs.empty() && !network) throw Failure("there is nothing to tune");
    Tuning(options, target, batch).run(jobs, network.get());
}

std::string text_of(const std::string &file) {
    if (file != "-") return read_whole_file(file, 64 << 20);
    std::ostringstream text;
    text << std::cin.rdbuf();
    return text.str();
}

void import_schedules(const std::string &database, const std::string &file) {
    const std::vector<TunedSchedule> schedules = parse_schedules(text_of(file));
    ScheduleDatabase(database, ScheduleDatabase::write).store(schedules);
    fmt::print("{} schedules are in '{}' now\n", schedules.size(), database);
}

void export_schedules(const std::string &database, const std::string &file) {
    const std::vector<TunedSchedule> schedules = ScheduleDatabase(database, ScheduleDatabase::read).all();
    if (file == "-") {
        fmt::print("{}", print(schedules));
        return;
    }
    write_whole_file(file, print(schedules));
    fmt::print("{} schedules are in '{}' now\n", schedules.size(), file);
}

} // namespace

void add_tune_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("tune", "Search faster schedules for the kernels, and keep them");
    command->add_option("kernel", options->kernel,
                        "Instead of a network's kernels this one: a generator and its parameters, as conv2d n=32 c=64 "
                        "h=32 k=64 r=3 padding=1");
    command->add_option("--budget", options->budget, "Time for all of them: 30s, 10m, 1h")->capture_default_str();
    command->add_option("--kernel", options->kernel_filter, "Only kernels whose key contains this");
    command
        ->add_option(
            "--part", options->part,
            "kernels: their schedules; step: which algorithm, in which phase, what is stored, by the time of a "
            "whole step; all: one after the other, half of the budget each")
        ->check(CLI::IsMember({"all", "kernels", "step"}))
        ->capture_default_str();
    command->add_option("--mode", options->mode, "Whose step: train or infer")
        ->check(CLI::IsMember({"train", "infer"}))
        ->capture_default_str();
    command->add_option("--threads", options->threads, "Of a step; 0: as many as the machine has cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command->add_flag("--explain", options->explain, "Print why each candidate was rejected, or won");
    command->add_flag("--curve", options->curve, "Print the best time so far, whenever it changed");
    add_network_options(*command, options->network);
    command->callback([options] { run(*options); });
}

void add_schedules_command(CLI::App &app) {
    struct Files {
        std::string database, text = "-";
    };
    auto files = std::make_shared<Files>();
    CLI::App *command = app.add_subcommand("schedules", "What a database of tuned schedules holds, as text");
    command->require_subcommand(1);
    for (const char *name : {"export", "import"}) {
        const bool out = name[0] == 'e';
        CLI::App *sub = command->add_subcommand(name, out ? "Write it as text" : "Add what a text holds");
        sub->add_option("file", files->text, "Text; -: standard output or input")->capture_default_str();
        sub->add_option("--schedules", files->database, "The database; default: the one that tune writes")
            ->envname("CRYOLITE_SCHEDULES");
        sub->callback([files, out] {
            if (files->database.empty()) files->database = ScheduleDatabase::usual_file();
            out ? export_schedules(files->database, files->text) : import_schedules(files->database, files->text);
        });
    }
}

} // namespace cryolite
