// A device that kernels made for OpenCL run on. Programs for CPUs neither need this library nor link it; the system's
// libOpenCL is opened when a device is asked for.
//
// Memory is shared virtual memory: an address, with which one may calculate, as kernels' arguments are an arena's base
// and an offset. Kernels made by Halide call a handful of functions of its runtime; kernel_functions() are these, for
// this device.
#ifndef CRYOLITE_RUNTIME_DEVICE_H
#define CRYOLITE_RUNTIME_DEVICE_H

#include "../text.h"

#include <cstddef>
#include <cstdint>

namespace cryolite::runtime {

class Device {
public:
    // The process's device, opened by the first call. Null where there is none; error says why.
    static Device *opencl(Text &error);

    virtual const char *name() const = 0;
    virtual uintptr_t allocate(size_t bytes) = 0; // 0: out of memory
    virtual void release(uintptr_t memory) = 0;
    // In the order of calls, one after another with the kernels called in between. An upload returns when the bytes
    // have been taken, a download when they are there; clear writes zeros, whole words of 4 bytes.
    virtual cryo_status clear(uintptr_t memory, size_t bytes, Text &error) = 0;
    virtual cryo_status upload(uintptr_t to, const void *from, size_t bytes, Text &error) = 0;
    virtual cryo_status download(void *to, uintptr_t from, size_t bytes, Text &error) = 0;
    // Waits for all kernels. Errors of kernels may be seen here first.
    virtual cryo_status finish(Text &error) = 0;
    // Of the calling thread's last kernel that returned an error.
    virtual const char *kernel_error() const = 0;

protected:
    ~Device() = default; // lives as long as the process
};

// What a program for OpenCL and its kernels need: for those who link them in the process themselves.
struct KernelFunction {
    const char *name;
    void *address;
};
const KernelFunction *kernel_functions(size_t &count);

} // namespace cryolite::runtime
#endif
