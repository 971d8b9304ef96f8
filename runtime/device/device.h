// A device that kernels made for OpenCL or CUDA run on. Programs for CPUs neither need this library nor link it; the
// system's libOpenCL or libcuda is opened when a device is asked for.
//
// Memory is an address, with which one may calculate, as kernels' arguments are an arena's base and an offset (OpenCL:
// shared virtual memory). Kernels made by Halide call a handful of functions of its runtime; kernel_functions() are
// these, for both.
#ifndef CRYOLITE_RUNTIME_DEVICE_H
#define CRYOLITE_RUNTIME_DEVICE_H

#include "../text.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cryolite::runtime {

class Device {
public:
    // The process's device of that kind, opened by the first call. Null where there is none; error says why.
    static Device *opencl(Text &error);
    static Device *cuda(Text &error);

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

    // Notes, under a number, the time when all that was called before will be done. seconds: between two notes, after a
    // finish.
    virtual cryo_status mark(size_t number, Text &error) = 0;
    virtual double seconds(size_t from, size_t to) const = 0;

    // Where a device records: between begin and end, by one thread, kernels are called in order to be recorded, not
    // made; replay makes them all, with the arguments they were called with. Kernels that have never been called cannot
    // be recorded. What is called between after and note is made when the notes before it are, and has that number;
    // what does not depend on each other may be made side by side.
    using Recording = void *;
    virtual bool records() const { return false; }
    virtual cryo_status begin_recording(Text &) { return CRYO_DEVICE_ERROR; }
    virtual cryo_status after(const std::vector<size_t> &, Text &) { return CRYO_DEVICE_ERROR; }
    virtual cryo_status note(size_t, Text &) { return CRYO_DEVICE_ERROR; }
    virtual cryo_status end_recording(Recording &, Text &) { return CRYO_DEVICE_ERROR; }
    virtual cryo_status replay(Recording, Text &) { return CRYO_DEVICE_ERROR; }
    virtual void forget(Recording) {}

protected:
    ~Device() = default; // lives as long as the process
};

// What a program for a device and its kernels need: for those who link them in the process themselves.
struct KernelFunction {
    const char *name;
    void *address;
};
const KernelFunction *kernel_functions(size_t &count);

} // namespace cryolite::runtime
#endif
