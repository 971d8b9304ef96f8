// What the model tests share: PyTorch's fixtures and a model compiled in this process.
//
//   Batches batches;                                       // 20 real batches of 256
//   TestModel model(build(lenet), {.batch = 256}, 2);      // compile, link with ORC, open with 2 threads
//   model.set(load_tensors("lenet.initial.safetensors"));
//   double loss = model.train(batches, step).loss;
#ifndef CRYOLITE_TESTS_FIXTURE_H
#define CRYOLITE_TESTS_FIXTURE_H

#include "compile.h"
#include "cryolite_runtime.h"

#include <map>
#include <string>
#include <vector>

namespace cryolite::test {

using Tensors = std::map<std::string, std::vector<float>>;
using Define = void (*)(Network &);

// The fixture images scaled to [0, 1], as PyTorch got them.
struct Batches {
    static constexpr int count = 20, size = 256;
    std::vector<float> images; // [5120][784]
    std::vector<int32_t> labels;
    Batches();
    const float *image(int64_t row) const { return images.data() + row * 784; }
    const int32_t *label(int64_t row) const { return labels.data() + row; }
};

Tensors load_tensors(const std::string &name);                                      // a safetensors fixture
std::vector<double> load_losses(const std::string &net, const std::string &recipe); // of losses.json

// The numbers of make_fixtures.py's deterministic().
std::vector<float> deterministic(uint64_t seed, size_t count, double bound);

std::unique_ptr<Network> build(Define define, const Sgd &sgd = {.learning_rate = 0.1}, const char *name = "net");

std::string test_cache(); // the folder of compiled kernels

// Largest absolute difference over the largest absolute value of b.
double difference(const std::vector<float> &a, const std::vector<float> &b);

class TestModel {
public:
    // Kernels are cached in the build folder. threads as in cryo_options.
    TestModel(const Network &network, CompileOptions options, int threads = 2);
    ~TestModel() { cryo_close(model_); }
    TestModel(const TestModel &) = delete;
    TestModel &operator=(const TestModel &) = delete;

    cryo_model *get() const { return model_; }
    const CompiledModel &compiled() const { return compiled_; }
    const cryo_program *program() const { return loaded_.program(); }
    void reopen(int threads); // the same objects, a fresh model

    // All of these fail the test when the call does.
    void initialize(uint64_t seed);
    void set(const Tensors &tensors); // those that the model has; others are ignored
    Tensors parameters() const;       // and states, optimizer's too
    uint64_t hash() const;            // of the bits of all of them
    cryo_result train(const Batches &batches, int64_t first, int64_t size);
    cryo_result evaluate(const Batches &batches, int64_t first, int64_t size);
    std::vector<float> infer(const Batches &batches, int64_t first, int64_t size);

private:
    void check(cryo_status status, const char *call) const;
    CompiledModel compiled_;
    LoadedModel loaded_;
    cryo_model *model_ = nullptr;
};

} // namespace cryolite::test
#endif
