// compile: a network becomes lib<name>.a and <name>.h; or one stage on the way is printed.
#include "command.h"

#include "../data/whole_file.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <sstream>

namespace cryolite {

namespace {

struct Options {
    NetworkOptions network;
    std::string folder;
    bool no_train = false;
    std::string stage, mode, kernel;
};

void list_stages() {
    for (const EmitStage &stage : emit_stages()) fmt::print("{:<18} {}\n", stage.name, stage.what);
}

void print_stage(const Network &network, const Options &options) {
    std::string mode = !options.mode.empty() ? options.mode : options.network.compile.train ? "train" : "infer";
    std::ostringstream text;
    emit(network, options.network.compile, options.stage, mode, options.kernel, text);
    if (text.str().empty() && !options.kernel.empty())
        throw Failure("no kernel of the " + mode + " plan has '" + options.kernel + "' in its key");
    fmt::print("{}", text.str());
}

// Before the long work: a folder that cannot be made or written is known at once.
void check_folder(const std::string &folder, const std::string &name) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw Failure("'" + folder + "' cannot be made: " + error.message());
    check_writable(folder + "/lib" + name + ".a");
    check_writable(folder + "/" + name + ".h");
}

void write(const Network &network, const Options &options) {
    check_folder(options.folder, network.name());
    auto start = std::chrono::steady_clock::now();
    CompiledModel model = compile_with_progress(network, options.network.compile);
    write_library(model, options.folder);
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    auto bytes = std::filesystem::file_size(std::filesystem::path(options.folder) / ("lib" + model.name + ".a"));
    fmt::print("{}: {} kernels ({} cached) in {:.1f} s; library {} bytes, arena {} bytes, scratch {} bytes a thread\n",
               model.name, model.kernels, model.cached, seconds, bytes, model.arena_bytes, model.scratch_bytes);
}

void run(Options &options) {
    if (options.stage == "help") return list_stages();
    bool emits = !options.stage.empty();
    if (!emits && (!options.mode.empty() || !options.kernel.empty()))
        throw UsageError("--mode and --kernel go with --emit");
    if (!emits && options.folder.empty()) throw UsageError("-o is required, or --emit");
    if (emits && !options.folder.empty()) throw UsageError("-o and --emit exclude each other");
    options.network.compile.train = !options.no_train;
    std::unique_ptr<Network> network = build_network(options.network);
    if (emits)
        print_stage(*network, options);
    else
        write(*network, options);
}

} // namespace

void add_compile_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("compile", "Write the library and its header");
    command->add_option("-o,--output", options->folder, "Folder for lib<name>.a and <name>.h");
    add_network_options(*command, options->network);
    command->add_flag("--no-train", options->no_train, "Evaluate and infer only");
    command->add_flag("--checked", options->network.compile.checked, "Kernels check every bound");
    command->add_option("--emit", options->stage, "Print this stage instead; help lists them");
    command->add_option("--mode", options->mode, "Of --emit: train, evaluate or infer")
        ->check(CLI::IsMember({"train", "evaluate", "infer", "infer_one"}));
    command->add_option("--kernel", options->kernel, "Of --emit stmt and asm: kernels whose key contains this");
    command->callback([options] { run(*options); });
}

} // namespace cryolite
