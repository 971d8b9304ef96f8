// bench: times steps on random data, and says where their time goes.
#include "../codegen.h"
#include "../data/whole_file.h"
#include "step_profile.h"

#include <fmt/format.h>

#include <iostream>
#include <random>

namespace cryolite {

namespace {

struct Options {
    NetworkOptions network;
    std::string mode = "train", svg;
    int threads = 0;
    double seconds = 3;
    bool profile = false, json = false, serve = false;
};

// An open model and a batch for it.
class Subject {
public:
    Subject(const Network &network, const Options &options)
        : mode_(options.mode), loaded_(network, compile_options(options), options.threads) {
        cryo_model *model = loaded_.get();
        loaded_.check(cryo_initialize(model, 1));
        loaded_.check(cryo_set_learning_rate(model, 0)); // labels are random: nothing may run away
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        images_.resize(size_t(batch()) * cryo_input_elements(model));
        for (float &pixel : images_) pixel = normal(random);
        for (int64_t i = 0; i < batch(); i++) labels_.push_back(int32_t(random() % uint32_t(cryo_classes(model))));
        outputs_.resize(size_t(batch() * cryo_classes(model)));
    }

    void step() {
        cryo_model *model = loaded_.get();
        loaded_.check(mode_ == "train"      ? cryo_train_step(model, images_.data(), labels_.data(), batch(), nullptr)
                      : mode_ == "evaluate" ? cryo_evaluate(model, images_.data(), labels_.data(), batch(), nullptr)
                                            : cryo_infer(model, images_.data(), batch(), outputs_.data()));
    }

    std::string plan() const { // that runs
        const bool one = mode_ == "infer" && batch() <= loaded_.compiled().infer_one_batch;
        return one ? "infer_one" : mode_;
    }
    const LoadedNetwork &loaded() const { return loaded_; }
    int64_t batch() const { return loaded_.max_batch(); }

private:
    static CompileOptions compile_options(const Options &options) {
        CompileOptions compile = options.network.compile;
        compile.train = options.mode == "train";
        return compile;
    }

    std::string mode_;
    LoadedNetwork loaded_;
    std::vector<float> images_, outputs_;
    std::vector<int32_t> labels_;
};

// What one run measures, as text or as one line of JSON.
class Bench {
public:
    Bench(const Network &network, const Options &options)
        : options_(options), subject_(network, options),
          timer_(subject_.loaded(), subject_.plan(), [this] { subject_.step(); }),
          on_device_(resolve_target(options.network.compile).gpu) {
        const std::string &target = options.network.compile.target;
        title_ = fmt::format("{} {}, batch {}, {}", network.name(), options.mode, subject_.batch(),
                             on_device_             ? "on " + target
                             : options_.threads > 1 ? fmt::format("{} threads", options_.threads)
                                                    : "1 thread");
        name_ = network.name();
        timer_.run(0.1 * options.seconds, false); // caches, page faults, the clock of the core
    }

    void run(double seconds) {
        Machine machine; // of a device nothing is known
        const bool measured = options_.profile && !on_device_;
        if (measured) machine = measure_machine(options_.threads);
        timer_.run(seconds, options_.profile);
        if (measured) machine.merge(measure_machine(options_.threads)); // again: the core may have been disturbed
        if (options_.profile) profile_ = timer_.profile(title_, on_device_ ? 1 : options_.threads, machine);
    }

    std::string text() const {
        const Timing timing = timer_.timing();
        std::string text = fmt::format(
            "{}: {:.4f} ms a step, {:.0f} images/s (median of {} steps; fastest {:.4f}, quartiles {:.4f} and {:.4f}, "
            "slowest {:.4f})\n",
            title_, timing.quantile(0.5) * 1e3, double(subject_.batch()) / timing.quantile(0.5), timing.seconds.size(),
            timing.quantile(0) * 1e3, timing.quantile(0.25) * 1e3, timing.quantile(0.75) * 1e3,
            timing.quantile(1) * 1e3);
        return options_.profile ? text + profile_text(profile_) : text;
    }

    nlohmann::ordered_json json() const {
        const Timing timing = timer_.timing();
        const CompiledModel &compiled = subject_.loaded().compiled();
        nlohmann::ordered_json json = {{"network", name_},
                                       {"mode", options_.mode},
                                       {"batch", subject_.batch()},
                                       {"threads", options_.threads},
                                       {"steps", timing.seconds.size()},
                                       {"ms_median", timing.quantile(0.5) * 1e3},
                                       {"ms_fastest", timing.quantile(0) * 1e3},
                                       {"ms_quartiles", {timing.quantile(0.25) * 1e3, timing.quantile(0.75) * 1e3}},
                                       {"arena_bytes", compiled.arena_bytes},
                                       {"scratch_bytes", compiled.scratch_bytes},
                                       {"parameter_bytes", compiled.parameter_bytes}};
        if (options_.profile) json["profile"] = profile_json(profile_);
        return json;
    }

    void draw() const {
        if (!options_.svg.empty()) write_whole_file(options_.svg, draw_profile(profile_));
    }

private:
    const Options &options_;
    Subject subject_;
    StepTimer timer_;
    bool on_device_; // then its clock takes the kernels' times, one kernel after another
    std::string title_, name_;
    Profile profile_;
};

double parse_seconds(const std::string &line) {
    double seconds = 0;
    if (!CLI::detail::lexical_cast(line, seconds) || !(seconds > 0 && seconds <= 3600))
        throw Failure("'" + line + "' is no number of seconds");
    return seconds;
}

void run(Options &options) {
    if (!options.svg.empty()) {
        options.profile = true;
        check_writable(options.svg);
    }
    if (options.threads == 0) options.threads = processors_here();
    int &processors = options.network.compile.processors;
    if (processors == 0) processors = options.threads;
    std::unique_ptr<Network> network = build_network(options.network);
    Bench bench(*network, options);
    if (options.serve) {
        for (std::string line; std::getline(std::cin, line);) {
            bench.run(parse_seconds(line));
            fmt::print("{}\n", bench.json().dump());
            std::fflush(stdout);
        }
        return;
    }
    bench.run(options.seconds);
    bench.draw();
    if (options.json)
        fmt::print("{}\n", bench.json().dump(1));
    else
        fmt::print("{}", bench.text());
}

} // namespace

void add_bench_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("bench", "Time steps on random data, and say where their time goes");
    command->add_option("--mode", options->mode, "train, evaluate or infer")
        ->check(CLI::IsMember({"train", "evaluate", "infer"}))
        ->capture_default_str();
    command->add_option("--threads", options->threads, "0: as many as the machine has cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command->add_option("--seconds", options->seconds, "Of timing")
        ->check(CLI::Range(1e-3, 3600.0))
        ->capture_default_str();
    command->add_flag("--profile", options->profile, "Time of every kernel, beside the machine's limits");
    command->add_flag("--json", options->json, "Print JSON");
    command->add_option("--svg", options->svg, "Draw the profile into this file");
    command->add_flag("--serve", options->serve,
                      "Time again for every line of standard input, which says how many "
                      "seconds; one line of JSON each");
    add_network_options(*command, options->network);
    command->callback([options] { run(*options); });
}

} // namespace cryolite
