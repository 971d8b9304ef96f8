// Arguments for one kernel alone, outside of any plan: it says itself what it wants, by a bounds query.
#ifndef CRYOLITE_TUNE_KERNEL_ARGUMENTS_H
#define CRYOLITE_TUNE_KERNEL_ARGUMENTS_H

#include "../codegen.h"

#include "../../runtime/device/device.h"

#include <cstdint>
#include <memory>

namespace cryolite {

using KernelFunction = int (*)(void **);

class KernelArguments {
public:
    // batch: samples, for kernels that walk all blocks. Compiles the kernel once more, in this thread. functions: what
    // kernels for devices call; none is called, as questions open no device.
    KernelArguments(const KernelSpec &kernel, const KernelTarget &target, int64_t batch,
                    const std::vector<HostFunction> &functions = {});
    ~KernelArguments();
    KernelArguments(const KernelArguments &) = delete;
    KernelArguments &operator=(const KernelArguments &) = delete;

    // Copies all buffers there; from now on kernels get those. Throws InternalError.
    void move_to(runtime::Device &device);

    int64_t bytes() const;                    // of all buffers
    void call(KernelFunction function) const; // throws InternalError when it fails
    // Outputs become NaN, the kernel is called once. Empty, or what it did outside of its buffers.
    std::string try_out(KernelFunction function);
    std::vector<float> results() const; // of all outputs but scratch
    // Least noisy way to time: thread time of one call, or the device's, from as many calls as make `least` seconds.
    double seconds(KernelFunction function, double least = 3e-4) const;

private:
    struct Argument;
    double device_seconds(KernelFunction function, int calls) const;
    std::vector<std::unique_ptr<Argument>> arguments_;
    runtime::Device *device_ = nullptr;
    mutable std::vector<void *> argv_;
};

// The largest difference over the largest expected value; infinite where one is not a number and the other is, or where
// one is missing.
double difference(const std::vector<float> &results, const std::vector<float> &expected);

} // namespace cryolite
#endif
