// Copies to and from the device: device_value.h.
#include "device_value.h"

#include "graph.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace cryolite::test {

constexpr uint32_t nan_pattern = 0x7fc0ffee;

DeviceValue::DeviceValue(runtime::Device &device, Guarded &host)
    : device_(&device), host_(&host), memory_(device.allocate(4 * (host.size() + 2 * margin))),
      words_(host.size() + 2 * margin, nan_pattern) {
    if (!memory_) throw std::runtime_error("no memory on the device");
    std::copy_n(host.data(), host.size(), words_.begin() + margin);
    runtime::Text error;
    if (device.upload(memory_, words_.data(), 4 * words_.size(), error) != CRYO_OK)
        throw std::runtime_error(error.get());
}

DeviceValue::DeviceValue(DeviceValue &&other) noexcept
    : device_(other.device_), host_(other.host_), memory_(std::exchange(other.memory_, 0)),
      words_(std::move(other.words_)) {}

DeviceValue::~DeviceValue() { device_->release(memory_); }

void DeviceValue::take_back(const std::string &what) {
    runtime::Text error;
    if (device_->download(words_.data(), memory_, 4 * words_.size(), error) != CRYO_OK)
        throw std::runtime_error(error.get());
    auto whole = [](auto begin) { return std::count(begin, begin + margin, nan_pattern) == margin; };
    if (!whole(words_.begin()) || !whole(words_.end() - margin))
        throw InternalError(what + " writes around its result");
    std::copy_n(words_.begin() + margin, host_->size(), host_->data());
}

} // namespace cryolite::test
