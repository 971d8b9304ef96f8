// train: compiles the network, trains it on IDX files in this process, saves a checkpoint and a curve.
#include "../data/whole_file.h"
#include "trainer.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace cryolite {

namespace {

struct Options {
    NetworkOptions network;
    TrainerOptions trainer;
    std::string data, save, load, log;
    double learning_rate = 0; // 0: the network's
    int threads = 0;
    bool check_finite = false;
    int64_t limit = std::numeric_limits<int64_t>::max();
};

std::string check_rate(const std::string &text) {
    double rate = 0;
    if (!CLI::detail::lexical_cast(text, rate) || !std::isfinite(rate) || rate <= 0)
        return "Value " + text + " is not a positive number";
    return {};
}

void run(const Options &options) {
    // What can fail at once comes before what takes long.
    for (const std::string &path : {options.save, options.log})
        if (!path.empty()) check_writable(path);
    if (!options.save.empty() && options.save == options.log) throw UsageError("--save and --log name the same file");
    std::unique_ptr<Network> network = build_network(options.network);
    Dataset train = load_fitting_dataset(*network, options.data, "train");
    Dataset test = load_fitting_dataset(*network, options.data, "t10k");
    train.truncate(options.limit);

    LoadedNetwork loaded(*network, options.network.compile, options.threads);
    loaded.check(cryo_set_check_finite(loaded.get(), options.check_finite));
    if (options.load.empty())
        loaded.check(cryo_initialize(loaded.get(), options.trainer.seed));
    else
        loaded.load(options.load);
    if (options.learning_rate > 0) loaded.check(cryo_set_learning_rate(loaded.get(), options.learning_rate));
    fmt::print("{}: {} training samples, {} test samples, batch {}, learning rate {}, {} of {} kernels cached\n",
               network->name(), train.count, test.count, loaded.max_batch(), cryo_learning_rate(loaded.get()),
               loaded.compiled().cached, loaded.compiled().kernels);
    std::fflush(stdout);

    TrainingLog log(options.log);
    Trainer(loaded, train, test, options.trainer, log).run();
    if (options.save.empty()) return;
    loaded.save(options.save);
    fmt::print("saved {}\n", options.save);
}

} // namespace

void add_train_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("train", "Train on IDX files, and test after every epoch");
    command->add_option("--data", options->data, "Folder of train-images-idx3-ubyte[.gz] and its three companions")
        ->required();
    command->add_option("--epochs", options->trainer.epochs, "Passes over the training set")
        ->check(from_one(1000000))
        ->capture_default_str();
    command->add_option("--learning-rate", options->learning_rate, "Instead of the network's")->check(check_rate);
    command->add_option("--seed", options->trainer.seed, "Of parameters and of the order of samples")
        ->capture_default_str();
    command->add_option("--threads", options->threads, "0: as many as the machine has cores")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command->add_flag("--check-finite", options->check_finite, "Stop at the first NaN or infinity, and name its layer");
    command->add_option("--save", options->save, "Checkpoint to write at the end");
    command->add_option("--load", options->load, "Checkpoint to start from");
    command->add_option("--log", options->log, "CSV file of the curve");
    command->add_option("--limit", options->limit, "Train on the first so many samples only")
        ->check(from_one(std::numeric_limits<int32_t>::max()));
    add_network_options(*command, options->network);
    command->callback([options] { run(*options); });
}

} // namespace cryolite
