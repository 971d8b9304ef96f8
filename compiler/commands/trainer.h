// The training loop: shuffled epochs over a data set, a score on another after each.
#ifndef CRYOLITE_TRAINER_H
#define CRYOLITE_TRAINER_H

#include "../progress.h"
#include "training_log.h"

#include <chrono>
#include <vector>

namespace cryolite {

// A permutation of 0 .. count - 1 that depends on seed and epoch alone, the same with every compiler and library.
std::vector<int32_t> permutation(int64_t count, uint64_t seed, uint64_t epoch);

struct TrainerOptions {
    int epochs = 10;
    uint64_t seed = 0; // of the order of samples
};

class Trainer {
public:
    // Throws Failure where the set is smaller than the smallest batch that the network can be trained on.
    Trainer(const LoadedNetwork &network, const Dataset &train, const Dataset &test, const TrainerOptions &options,
            TrainingLog &log);
    // Prints one line an epoch. Throws Failure as soon as a loss is not finite; then the log has the epochs before.
    void run();

private:
    using Clock = std::chrono::steady_clock;
    void run_epoch(int epoch);
    void step(const std::vector<int32_t> &order, int64_t first, Tally &tally);
    LogRow row(const Tally &tally, double epoch_seconds) const;
    void show(int epoch, int64_t done, const Tally &tally, double epoch_seconds);
    void check_finite(double loss, const char *which) const;

    const LoadedNetwork &network_;
    const Dataset &train_, &test_;
    TrainerOptions options_;
    TrainingLog &log_;
    int64_t batch_, steps_; // an epoch's
    Clock::time_point start_ = Clock::now();
    double test_seconds_ = 0; // the last evaluation's
    std::vector<float> images_;
    std::vector<int32_t> labels_;
    Progress bar_{"training"};
};

} // namespace cryolite
#endif
