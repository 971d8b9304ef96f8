// One kernel: its generator's own schedule, tuned, and under Halide's autoschedulers; one line of JSON.
//   tuning_bench [--budget SECONDS] [--database FILE] GENERATOR NAME=VALUE...
// What was tuned is measured three times more against the generator's own schedule at the end.
#include "autoscheduled.h"

#include "graph.h"
#include "jit.h"
#include "tune/child.h"
#include "tune/duel.h"
#include "tune/kernel_arguments.h"
#include "tune/tuner.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <unistd.h>

using namespace cryolite;
using Json = nlohmann::ordered_json;

namespace {

constexpr double patience = 120; // seconds that an autoscheduler may take
constexpr int pairs = 25;

struct Options {
    double budget = 60;
    std::string database;
    KernelSpec kernel;
};

Options parse(int argc, char **argv, const KernelTarget &target) {
    Options options;
    options.kernel.parameters["lanes"] = std::to_string(target.lanes);
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        const size_t equal = word.find('=');
        if (word == "--budget" && i + 1 < argc)
            options.budget = std::atof(argv[++i]);
        else if (word == "--database" && i + 1 < argc)
            options.database = argv[++i];
        else if (equal != std::string::npos)
            options.kernel.parameters[word.substr(0, equal)] = word.substr(equal + 1);
        else
            options.kernel.generator = word;
    }
    if (options.kernel.generator.empty() || !(options.budget > 0))
        throw CompileError("usage: tuning_bench [--budget SECONDS] [--database FILE] GENERATOR NAME=VALUE...");
    return options;
}

// In a child; the text it hands back, or what went wrong as an exception.
std::string apart(const std::function<std::string()> &work, double seconds) {
    const std::vector<int> cores = usable_cores();
    Child child(work, seconds, cores.empty() ? cores : std::vector<int>{cores.back()});
    while (!child.finished()) Child::wait({&child}, 1);
    if (!child.succeeded()) throw InternalError(child.failure());
    return child.text();
}

class Bench {
public:
    Bench(const Options &options, const KernelTarget &target)
        : options_(options), target_(target), own_(compile_kernel(options.kernel, target)),
          arguments_(options.kernel, target, 256) {}

    Json run() {
        const std::string file = options_.database.empty() ? temporary() : options_.database;
        Json row = {{"kernel", options_.kernel.key()}, {"budget_s", options_.budget}};
        {
            ScheduleDatabase database(file, ScheduleDatabase::write);
            const Tuned tuned = tune(options_.kernel, target_, database, {.budget = options_.budget});
            row.update(tuned_json(tuned));
        }
        if (options_.database.empty())
            for (const char *end : {"", "-wal", "-shm"}) std::filesystem::remove(file + end);
        row["autoschedulers"] = Json::object();
        if (can_be_autoscheduled(options_.kernel))
            for (const std::string &name : autoschedulers) row["autoschedulers"][name] = autoscheduled(name);
        return row;
    }

private:
    static std::string temporary() {
        return (std::filesystem::temp_directory_path() / ("tuning_bench_" + std::to_string(getpid()) + ".db")).string();
    }

    KernelFunction own(const LinkedObjects &linked) const {
        return linked.lookup<KernelFunction>(kernel_symbol(options_.kernel, target_) + "_argv");
    }

    // Of a challenger against the generator's own schedule.
    Json against_own(KernelFunction own, KernelFunction challenger) const {
        auto time = [&](KernelFunction f) { return [this, f] { return arguments_.seconds(f); }; };
        const Verdict verdict = judge(duel(time(own), time(challenger), pairs));
        return {{"us", verdict.challenger * 1e6}, {"own_us", verdict.champion * 1e6}, {"gain", verdict.gain}};
    }

    Json tuned_json(const Tuned &tuned) const {
        Json json = {{"knobs", print(tuned.schedule.knobs)},
                     {"own_us", tuned.schedule.own_seconds * 1e6},
                     {"tuned_us", tuned.schedule.seconds * 1e6},
                     {"seconds", tuned.seconds},
                     {"timed", tuned.counts.timed},
                     {"by_code", tuned.counts.by_code},
                     {"failed", tuned.counts.failed},
                     {"refused", tuned.counts.refused},
                     {"exhausted", tuned.exhausted}};
        for (const TunePoint &point : tuned.curve) json["curve"].push_back({point.seconds, point.best * 1e6});
        json["again"] = Json::array();
        if (tuned.schedule.knobs.empty()) return json;
        const KernelSpec kernel = with_knobs(options_.kernel, tuned.schedule.knobs);
        const CompiledObject object = compile_kernel(kernel, target_);
        for (int i = 0; i < 3; i++)
            json["again"].push_back(Json::parse(apart(
                [&] {
                    const LinkedObjects linked({own_, object}, target_.name, "tuned");
                    const std::string symbol = kernel_symbol(kernel, target_) + "_argv";
                    return against_own(own(linked), linked.lookup<KernelFunction>(symbol)).dump();
                },
                patience)));
        return json;
    }

    Json autoscheduled(const std::string &name) {
        try {
            const auto start = std::chrono::steady_clock::now();
            const std::string bytes = apart(
                [&] {
                    const CompiledObject object = compile_autoscheduled(options_.kernel, target_, name);
                    return std::string(object.bytes.begin(), object.bytes.end());
                },
                patience);
            const double compiled = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            const CompiledObject object{name + ".o", {bytes.begin(), bytes.end()}, {}};
            Json json = Json::parse(apart(
                [&] {
                    const LinkedObjects linked({own_, object}, target_.name, name);
                    const auto function = linked.lookup<KernelFunction>(autoscheduled_symbol(name) + "_argv");
                    arguments_.try_out(own(linked));
                    const std::vector<float> expected = arguments_.results();
                    const std::string fault = arguments_.try_out(function);
                    Json json = against_own(own(linked), function);
                    json["error"] = fault.empty() ? difference(arguments_.results(), expected) : INFINITY;
                    return json.dump();
                },
                patience));
            json["compile_s"] = compiled;
            return json;
        } catch (const std::exception &error) { return {{"failure", std::string(error.what()).substr(0, 200)}}; }
    }

    const Options &options_;
    const KernelTarget &target_;
    CompiledObject own_;
    KernelArguments arguments_;
};

} // namespace

int main(int argc, char **argv) {
    setenv("HL_NUM_THREADS", "1", 1); // of autoscheduled code: its work is then this thread's
    try {
        const KernelTarget target = resolve_target({});
        const Options options = parse(argc, argv, target);
        std::printf("%s\n", Bench(options, target).run().dump().c_str());
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "tuning_bench: %s\n", error.what());
        return 1;
    }
}
