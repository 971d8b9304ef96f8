// A value on the device for one call of a kernel, between margins that nobody may write and whose contents are NaN.
#ifndef CRYOLITE_TESTS_DEVICE_VALUE_H
#define CRYOLITE_TESTS_DEVICE_VALUE_H

#include "device_functions.h"
#include "guarded.h"

#include <string>
#include <vector>

namespace cryolite::test {

class DeviceValue {
public:
    // A copy of what `host` has. Throws std::runtime_error.
    DeviceValue(runtime::Device &device, Guarded &host);
    ~DeviceValue();
    DeviceValue(DeviceValue &&other) noexcept;
    DeviceValue(const DeviceValue &) = delete;
    DeviceValue &operator=(const DeviceValue &) = delete;

    uint64_t address(int64_t element) const { return memory_ + 4 * uint64_t(margin + element); }
    // Into `host`. Throws InternalError that begins with `what` where a margin has been written.
    void take_back(const std::string &what);

private:
    static constexpr int64_t margin = 64; // elements
    runtime::Device *device_;
    Guarded *host_;
    uintptr_t memory_ = 0;
    std::vector<uint32_t> words_;
};

} // namespace cryolite::test
#endif
