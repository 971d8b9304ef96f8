// A network compiled in this process, with a batch of random images: what the benchmarks run.
#ifndef CRYOLITE_BENCH_MODEL_H
#define CRYOLITE_BENCH_MODEL_H

#include "compile.h"
#include "cryolite_runtime.h"

#include <string>
#include <vector>

namespace cryolite::bench {

class BenchModel {
public:
    // net: "lenet", "lenet_scratch" or "mlp". Throws on failure, as do the steps.
    BenchModel(const std::string &net, int threads, int64_t batch = 256);
    ~BenchModel() { cryo_close(model_); }
    BenchModel(const BenchModel &) = delete;
    BenchModel &operator=(const BenchModel &) = delete;

    void train(int64_t batch);
    void infer(int64_t batch);
    cryo_model *get() const { return model_; }
    const CompiledModel &compiled() const { return compiled_; }

private:
    void check(cryo_status status) const;
    CompiledModel compiled_;
    LoadedModel loaded_;
    cryo_model *model_ = nullptr;
    std::vector<float> images_, outputs_;
    std::vector<int32_t> labels_;
};

} // namespace cryolite::bench
#endif
