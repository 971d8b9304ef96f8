// A plain float64 interpreter of pointwise programs and a runner of compiled ones, for tests of the generators.
#pragma once

#include "generators/program.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace cryolite::testing {

// A dense value in the graph's order [n, c, h, w], with n = all samples of one call.
struct Tensor {
    std::vector<int> dims;
    std::vector<double> data;

    size_t size() const;
};

struct ProgramCall {
    std::map<std::string, Tensor> inputs;
    int valid = 0, block = 0, batch = 0;
    int samples = 0; // n
};

// The outputs, in order.
std::vector<Tensor> interpret(const Program &program, const ProgramCall &call);

// A kernel compiled with the release flags to an object that refers to no symbol at all, and loaded.
class LoadedKernel {
public:
    // Parameters besides the name; throws what the generator throws.
    LoadedKernel(const std::string &generator, const std::map<std::string, std::string> &parameters,
                 const std::string &target = "host");
    ~LoadedKernel();
    LoadedKernel(const LoadedKernel &) = delete;

    void call(void **arguments) const { function_(arguments); }

private:
    using Function = int (*)(void **);

    void *library_ = nullptr;
    Function function_ = nullptr;
};

// Runs a program's kernel on one call's values.
std::vector<Tensor> run_kernel(const LoadedKernel &kernel, const Program &program, const ProgramCall &call, int lanes);

// Uniform in [low, high], the same for the same seed.
Tensor random_tensor(const std::vector<int> &dims, uint32_t seed, double low = -1, double high = 1);

// Random inputs for every buffer of the program.
ProgramCall random_call(const Program &program, int samples, double low = -1, double high = 1);

} // namespace cryolite::testing
