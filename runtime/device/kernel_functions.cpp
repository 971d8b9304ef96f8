// What programs for devices name, by name.
#include "model_on_device.h"

using cryolite::runtime::KernelFunction;

extern "C" {
int halide_copy_to_device();
#define CRYO_DECLARE(api)                                                                                              \
    int halide_##api##_device_interface();                                                                             \
    int halide_##api##_initialize_kernels();                                                                           \
    int halide_##api##_finalize_kernels();                                                                             \
    int halide_##api##_run();
CRYO_DECLARE(opencl)
CRYO_DECLARE(cuda)
#undef CRYO_DECLARE
}

const KernelFunction *cryolite::runtime::kernel_functions(size_t &count) {
#define CRYO_FUNCTION(name)                                                                                            \
    { #name, reinterpret_cast < void *>(name) }
#define CRYO_FUNCTIONS(api)                                                                                            \
    CRYO_FUNCTION(halide_##api##_device_interface), CRYO_FUNCTION(halide_##api##_initialize_kernels),                  \
        CRYO_FUNCTION(halide_##api##_finalize_kernels), CRYO_FUNCTION(halide_##api##_run)
    static const KernelFunction functions[] = {
        CRYO_FUNCTION(halide_copy_to_device),
        CRYO_FUNCTIONS(opencl),
        CRYO_FUNCTIONS(cuda),
        {"cryo_opencl", const_cast<cryo_device *>(&cryo_opencl)},
        {"cryo_cuda", const_cast<cryo_device *>(&cryo_cuda)},
    };
#undef CRYO_FUNCTIONS
#undef CRYO_FUNCTION
    count = sizeof functions / sizeof functions[0];
    return functions;
}
