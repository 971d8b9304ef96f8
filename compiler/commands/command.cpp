// Options of the network, and how a network is chosen and compiled.
#include "command.h"

#include "../progress.h"

#include <fmt/format.h>

namespace cryolite {

CLI::Range from_one(int64_t limit) { return CLI::Range(int64_t(1), limit, fmt::format("1 to {}", limit)); }

void add_network_options(CLI::App &command, NetworkOptions &options) {
    CompileOptions &compile = options.compile;
    command.add_option("--network", options.network, "Which network, where the program holds several");
    command
        .add_option("--math", options.math,
                    "Which algorithms may be chosen for speed, instead of what the network says")
        ->check(CLI::IsMember({"strict", "measured", "fast"}));
    command.add_option("--batch", compile.batch, "Largest batch; smaller ones work too")
        ->check(from_one(1 << 20))
        ->capture_default_str();
    command.add_option("--target", compile.target, "Halide target, as x86-64-linux-avx2-fma; opencl, cuda: a device")
        ->capture_default_str();
    command.add_option("--device", compile.device,
                       "Of targets opencl and cuda: whose tuned schedules to take; default: any device's");
    command
        .add_option("--processors", compile.processors, "To be kept busy by few samples; 0: as many as the machine has")
        ->check(CLI::Range(0, 1024));
    command
        .add_option("--few", compile.few,
                    "Largest batch inferred sample by sample; 0: none, -1: as is estimated to be fastest")
        ->check(CLI::Range(-1, 1 << 20))
        ->capture_default_str();
    command.add_option("--lanes", compile.lanes, "Samples side by side; 0: the target's vector width")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command.add_option("--jobs", compile.jobs, "Kernels compiled at once; 0: one a core")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command
        .add_option("--schedules", compile.schedules,
                    "Database of tuned schedules, as `tune` writes it; default: what ships with the compiler")
        ->envname("CRYOLITE_SCHEDULES");
    command.add_option("--cache", compile.cache, "Folder of compiled kernels, or off; default: ~/.cache/cryolite");
}

std::unique_ptr<Network> build_network(const NetworkOptions &options) {
    const std::string &name = options.network;
    const std::vector<NetworkEntry> &entries = registered_networks();
    std::string names;
    for (const NetworkEntry &entry : entries) {
        names += " " + entry.name;
        if (entry.name != name && !(name.empty() && entries.size() == 1)) continue;
        std::unique_ptr<Network> network = entry.build();
        if (!options.math.empty())
            network->math(options.math == "strict" ? Math::strict
                          : options.math == "fast" ? Math::fast
                                                   : Math::measured);
        return network;
    }
    if (entries.empty()) throw Failure("this program holds no network: none is registered with CRYOLITE_NETWORK");
    if (name.empty()) throw UsageError("choose one with --network; networks are:" + names);
    throw UsageError("there is no network '" + name + "'; networks are:" + names);
}

CompiledModel compile_with_progress(const Network &network, CompileOptions options) {
    Progress bar("compiling");
    options.progress = [&](int done, int total, const std::string &kernel) {
        bar.update(done, total, kernel.substr(0, kernel.find(' ')));
    };
    return compile(network, options);
}

} // namespace cryolite
