// What the subcommands share: how they are added, how they fail, the network they work on.
#ifndef CRYOLITE_COMMAND_H
#define CRYOLITE_COMMAND_H

#include "../compile.h"

#include <CLI/CLI.hpp>

#include <memory>
#include <string>

namespace cryolite {

// A failure that the user can understand, in one line. Exit code 1.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// A wrong command line that CLI11 does not see as such. Exit code 2.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Each adds its subcommand, which runs while app parses.
void add_bench_command(CLI::App &app);
void add_compile_command(CLI::App &app);
void add_schedules_command(CLI::App &app);
void add_train_command(CLI::App &app);
void add_tune_command(CLI::App &app);
void add_eval_command(CLI::App &app);
void add_inspect_command(CLI::App &app);

// --network, --math, --batch, --target, --lanes, --jobs, --cache: what a network is compiled with. jobs and progress
// aside, equal options give equal kernels, so that the commands share the cache.
struct NetworkOptions {
    std::string network;
    std::string math; // strict, measured, fast; "": the network's own
    CompileOptions compile;
};
void add_network_options(CLI::App &command, NetworkOptions &options);

// The registered network that the options name, or the only one. Throws UsageError.
std::unique_ptr<Network> build_network(const NetworkOptions &options);

// compile() with a bar on the terminal.
CompiledModel compile_with_progress(const Network &network, CompileOptions options);

// A whole number from 1 to limit, for CLI::Option::check.
CLI::Range from_one(int64_t limit);

} // namespace cryolite
#endif
