// Epochs. Samples are gathered into one batch after the other; the runtime spreads each over its threads.
#include "trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace cryolite {

namespace {

// SplitMix64.
uint64_t next_random(uint64_t &state) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

constexpr int64_t rows_per_epoch = 10;

} // namespace

std::vector<int32_t> permutation(int64_t count, uint64_t seed, uint64_t epoch) {
    std::vector<int32_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    uint64_t state = seed;
    state = next_random(state) + epoch;
    // Fisher-Yates; the high half of a 64-bit product is even enough for counts below 2^31.
    for (size_t i = order.size(); i > 1; i--) {
        size_t j = size_t(((next_random(state) >> 32) * uint64_t(i)) >> 32);
        std::swap(order[i - 1], order[j]);
    }
    return order;
}

Trainer::Trainer(const LoadedNetwork &network, const Dataset &train, const Dataset &test, const TrainerOptions &options,
                 TrainingLog &log)
    : network_(network), train_(train), test_(test), options_(options), log_(log), batch_(network.max_batch()) {
    int64_t smallest = network.min_train_batch(), last = train.count % batch_;
    steps_ = train.count / batch_ + (last >= smallest && last > 0);
    if (batch_ < smallest || steps_ == 0)
        throw Failure(fmt::format("{} samples in batches of {} are too few: the network's statistics need at least {}",
                                  train.count, batch_, smallest));
    if (last > 0 && last < smallest)
        fmt::print("the last {} of {} samples of an epoch are left out: a batch must have at least {}\n", last,
                   train.count, smallest);
    images_.resize(size_t(batch_ * train.sample_elements()));
    labels_.resize(size_t(batch_));
}

void Trainer::run() {
    for (int epoch = 1; epoch <= options_.epochs; epoch++) run_epoch(epoch);
}

void Trainer::run_epoch(int epoch) {
    auto started = Clock::now();
    auto seconds = [](Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); };
    auto past = uint64_t(cryo_steps(network_.get()) / steps_); // a loaded model goes on with its next order
    std::vector<int32_t> order = permutation(train_.count, options_.seed, past);
    Tally tally;
    for (int64_t s = 0; s < steps_; s++) {
        step(order, s * batch_, tally);
        bool last = s + 1 == steps_;
        if (!last && (s + 1) * rows_per_epoch / steps_ > s * rows_per_epoch / steps_)
            log_.add(row(tally, seconds(started)));
        show(epoch, s + 1, tally, seconds(started));
    }
    LogRow end = row(tally, seconds(started));
    auto tested = Clock::now();
    end.test = network_.evaluate(test_);
    test_seconds_ = seconds(tested);
    check_finite(end.test->loss, "test loss");
    end.seconds = seconds(start_);
    log_.add(end);
    log_.write();
    bar_.clear();
    fmt::print("epoch {:>{}}/{}  loss {:.4f}  train {:.4f}  test {:.4f} (loss {:.4f})  {:.0f} images/s\n", epoch,
               std::to_string(options_.epochs).size(), options_.epochs, end.train.loss, end.train.accuracy,
               end.test->accuracy, end.test->loss, end.images_per_second);
    std::fflush(stdout);
}

void Trainer::step(const std::vector<int32_t> &order, int64_t first, Tally &tally) {
    int64_t batch = std::min(batch_, train_.count - first), elements = train_.sample_elements();
    for (int64_t i = 0; i < batch; i++) {
        int64_t sample = order[size_t(first + i)];
        std::memcpy(&images_[size_t(i * elements)], train_.sample(sample), size_t(elements) * sizeof(float));
        labels_[size_t(i)] = train_.labels[size_t(sample)];
    }
    cryo_result result = network_.train_step(images_.data(), labels_.data(), batch);
    check_finite(result.loss, "loss");
    tally.add(result, batch);
}

LogRow Trainer::row(const Tally &tally, double epoch_seconds) const {
    int64_t step = cryo_steps(network_.get());
    double total = std::chrono::duration<double>(Clock::now() - start_).count();
    return {double(step) / double(steps_), step, tally.score(), {}, double(tally.samples) / epoch_seconds, total};
}

void Trainer::show(int epoch, int64_t done, const Tally &tally, double epoch_seconds) {
    if (!bar_.visible()) return;
    Score score = tally.score();
    double pace = epoch_seconds / double(done);
    double remaining = pace * double(steps_ - done) + test_seconds_ +
                       (pace * double(steps_) + test_seconds_) * (options_.epochs - epoch);
    bar_.retitle(fmt::format("epoch {}/{}", epoch, options_.epochs));
    bar_.update(done, steps_,
                fmt::format("loss {:.3f}  accuracy {:.3f}  {:.0f} images/s", score.loss, score.accuracy,
                            double(tally.samples) / epoch_seconds),
                remaining);
}

void Trainer::check_finite(double loss, const char *which) const {
    if (std::isfinite(loss)) return;
    throw Failure(fmt::format(
        "the training diverged: {} is {} at step {}; the learning rate {} may be too high; nothing "
        "was saved",
        which, std::isnan(loss) ? "nan" : "infinite", cryo_steps(network_.get()), cryo_learning_rate(network_.get())));
}

} // namespace cryolite
