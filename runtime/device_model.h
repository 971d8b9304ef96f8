// A model on a device, as the runtime sees it. A program made for a device names what opens it there
// (cryo_program::device); that part (device/) is linked with such programs alone.
#ifndef CRYOLITE_RUNTIME_DEVICE_MODEL_H
#define CRYOLITE_RUNTIME_DEVICE_MODEL_H

#include "executor.h"
#include "program.h"

namespace cryolite::runtime {

// Plans and all their memory on a device. Several threads may call; what they ask for happens one after another.
class DeviceModel {
public:
    virtual ~DeviceModel() = default;
    virtual size_t memory_bytes() const = 0;

    // The parameter block that the model was opened with is on the host. After the first call all of it counts, from
    // the next run on; after the second it has what train steps made on the device.
    virtual void parameters_changed() = 0;
    virtual cryo_status fetch_parameters(Text &error) = 0;

    // rows have been checked. result may be null.
    virtual cryo_status run(int mode, const cryo_control &control, const Rows &rows, cryo_result *result,
                            Text &error) = 0;

    virtual cryo_status set_check_finite(bool on, Text &error) = 0;
    virtual PlanProfile &plan(int mode) = 0;
};

} // namespace cryolite::runtime

struct cryo_device {
    cryo_status (*open)(const cryo_program &program, uint8_t *parameters,
                        std::unique_ptr<cryolite::runtime::DeviceModel> &model, cryolite::runtime::Text &error);
};

#endif
