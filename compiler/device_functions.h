// What kernels for devices call, for those who link them in this process: of the library cryolite_device.
#ifndef CRYOLITE_DEVICE_FUNCTIONS_H
#define CRYOLITE_DEVICE_FUNCTIONS_H

#include "compile.h"

#include "../runtime/device/device.h"

#include <string>
#include <vector>

namespace cryolite {

inline std::vector<HostFunction> device_functions() {
    std::vector<HostFunction> functions;
    size_t count = 0;
    const runtime::KernelFunction *of_device = runtime::kernel_functions(count);
    for (size_t i = 0; i < count; i++) functions.push_back({of_device[i].name, of_device[i].address});
    return functions;
}

// The device that kernels of a target run on. Null where there is none; why says the reason.
inline runtime::Device *open_device(const std::string &target, std::string &why) {
    runtime::Text error;
    const bool cuda = target.find("cuda") != std::string::npos;
    runtime::Device *device = cuda ? runtime::Device::cuda(error) : runtime::Device::opencl(error);
    why = error.get();
    return device;
}

} // namespace cryolite
#endif
