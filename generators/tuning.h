// What a tuner may change of a kernel without changing what it computes. No Halide here.
//
// Knobs are generator parameters of integers, of which 0 means the generator's own choice. Each generator declares its
// knobs, their values and what is not worth compiling once, below itself:
//
//   CRYOLITE_TUNING(conv2d, [](const KernelShape &q) -> TuningSpace { ... })
//   CRYOLITE_GPU_TUNING(conv2d, ...)    its schedule for GPUs
#pragma once

#include "schedule.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace cryolite {

using Knobs = std::map<std::string, int>;

// A kernel's parameters, as its generator reads them, and the registers of its target.
class KernelShape {
public:
    KernelShape(std::map<std::string, std::string> parameters, Registers registers, int lanes, int vector)
        : registers(registers), lanes(lanes), vector(vector), parameters_(std::move(parameters)) {}

    int integer(const std::string &name, int otherwise = 1) const;
    std::string text(const std::string &name) const; // "" where it is not given

    Registers registers; // for values of `lanes` samples
    int lanes;           // samples side by side
    int vector;          // float32 elements of a vector register
    bool gpu = false;    // kernels of the whole batch; registers and vector mean nothing

private:
    std::map<std::string, std::string> parameters_;
};

struct Knob {
    std::string name;
    std::vector<int> values; // without 0
};

struct TuningSpace {
    std::vector<Knob> knobs;
    std::vector<std::string> together; // knobs that mean something together only: all of them 0, or none
    // Why a point, whose knobs are all in range, is not worth compiling: registers, caches. Empty where it is.
    std::function<std::string(const Knobs &)> refuse;

    // refuse(), and the same for a knob or a value that this space lacks. Knobs that are not given are 0.
    std::string refusal(const Knobs &knobs) const;
    double points() const; // refused ones among them
};

using DescribeSpace = TuningSpace (*)(const KernelShape &);

// The space of one kernel; without knobs where the generator has none, or none on a GPU.
TuningSpace tuning_space(const std::string &generator, const KernelShape &shape);
std::vector<std::string> tunable_generators(bool gpu = false);
// The source file that declares a generator's space, without folders; "" where there is none.
std::string tuning_file(const std::string &generator);

struct TuningRegistration {
    TuningRegistration(const char *generator, const char *file, DescribeSpace describe);
    TuningRegistration(const char *generator, DescribeSpace describe_on_gpu);
};

// What several spaces have in common.
std::vector<int> from_one_to(int limit);
std::vector<int> divisors(int n, int limit);
int knob(const Knobs &knobs, const std::string &name); // 0 where it is not given
// Whether `values` accumulators, and one register more for an operand, are within the target's registers; and enough of
// them to hide the latency of a multiply-add, where the extents have `most`. Text as refuse()'s.
std::string refuse_accumulators(int values, int most, const Registers &registers);

} // namespace cryolite

#define CRYOLITE_TUNING(generator, ...)                                                                                \
    static const cryolite::TuningRegistration tuning_of_##generator(#generator, __FILE__, __VA_ARGS__);
#define CRYOLITE_GPU_TUNING(generator, ...)                                                                            \
    static const cryolite::TuningRegistration gpu_tuning_of_##generator(#generator, __VA_ARGS__);
