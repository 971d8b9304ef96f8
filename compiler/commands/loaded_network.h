// A network compiled and opened in this process, and the data that fits it: what train, eval and inspect work on.
#ifndef CRYOLITE_LOADED_NETWORK_H
#define CRYOLITE_LOADED_NETWORK_H

#include "../data/idx.h"
#include "command.h"

#include "../../runtime/cryolite_runtime.h"

namespace cryolite {

// Mean loss and share of right answers over a set.
struct Score {
    double loss = 0, accuracy = 0;
};
// Adds up results of batches.
struct Tally {
    double loss = 0; // summed over samples
    int64_t correct = 0, samples = 0;
    void add(const cryo_result &result, int64_t batch) {
        loss += result.loss * double(batch);
        correct += result.correct;
        samples += batch;
    }
    Score score() const {
        double n = double(std::max(samples, int64_t(1)));
        return {loss / n, double(correct) / n};
    }
};

// The very objects that ship, through LLVM's ORC. Functions throw Failure with the runtime's text.
class LoadedNetwork {
public:
    LoadedNetwork(const Network &network, const CompileOptions &options, int threads);
    ~LoadedNetwork() { cryo_close(model_); }
    LoadedNetwork(const LoadedNetwork &) = delete;
    LoadedNetwork &operator=(const LoadedNetwork &) = delete;

    cryo_model *get() const { return model_; }
    const CompiledModel &compiled() const { return compiled_; }
    int64_t max_batch() const { return cryo_max_batch(model_); }
    int64_t min_train_batch() const; // smaller ones have no batch statistics

    void load(const std::string &path) const;
    void save(const std::string &path) const;
    cryo_result train_step(const float *images, const int32_t *labels, int64_t batch) const;
    // In batches of the maximum, in order.
    Score evaluate(const Dataset &data) const;
    void check(cryo_status status) const;

private:
    CompiledModel compiled_;
    LoadedModel loaded_;
    cryo_model *model_ = nullptr;
};

// load_dataset, and a DataError where the images have another shape than the network's input. Known from the network
// as written, so that wrong data is found before anything is compiled.
Dataset load_fitting_dataset(const Network &network, const std::string &folder, const std::string &split);

} // namespace cryolite
#endif
