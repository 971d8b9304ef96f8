// eval: loss and accuracy of a checkpoint on the test set.
#include "loaded_network.h"

#include <fmt/format.h>

namespace cryolite {

namespace {

struct Options {
    NetworkOptions network;
    std::string data, load;
    int threads = 0;
    bool check_finite = false;
};

void run(const Options &options) {
    std::unique_ptr<Network> network = build_network(options.network);
    Dataset test = load_fitting_dataset(*network, options.data, "t10k");
    // With the train plan: its kernels are in the cache after train, and checkpoints may hold an optimizer's state.
    LoadedNetwork loaded(*network, options.network.compile, options.threads);
    loaded.check(cryo_set_check_finite(loaded.get(), options.check_finite));
    loaded.load(options.load);
    Score score = loaded.evaluate(test);
    fmt::print("test accuracy {:.6f}, loss {:.6f}, {} samples\n", score.accuracy, score.loss, test.count);
}

} // namespace

void add_eval_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("eval", "Loss and accuracy of a checkpoint on the test set");
    command->add_option("--data", options->data, "Folder of t10k-images-idx3-ubyte[.gz] and its labels")->required();
    command->add_option("--load", options->load, "Checkpoint")->required();
    command->add_option("--threads", options->threads, "0: as many as the machine has cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command->add_flag("--check-finite", options->check_finite, "Stop at the first NaN or infinity, and name its layer");
    add_network_options(*command, options->network);
    command->callback([options] { run(*options); });
}

} // namespace cryolite
