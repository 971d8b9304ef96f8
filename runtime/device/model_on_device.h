// A model on a device: parameters, prepared values, rows, activations and gradients in one piece of its memory.
#ifndef CRYOLITE_RUNTIME_MODEL_ON_DEVICE_H
#define CRYOLITE_RUNTIME_MODEL_ON_DEVICE_H

#include "../device_model.h"
#include "device.h"

namespace cryolite::runtime {

// cryo_device::open for a device. The program's kernels run there, whatever device is given here: a test may give one
// that fails.
cryo_status open_on(Device &device, const cryo_program &program, uint8_t *parameters,
                    std::unique_ptr<DeviceModel> &model, Text &error);

} // namespace cryolite::runtime

// What programs made for OpenCL and for CUDA name.
extern "C" const cryo_device cryo_opencl, cryo_cuda;

#endif
