// What goes to the device in a step: the control region with the labels behind it, and the images; what comes back:
// loss and right answers, or the outputs.
#include "model_on_device.h"

#include "device_plan.h"

#include <cmath>
#include <cstring>
#include <mutex>
#include <new>

namespace cryolite::runtime {

namespace {

class ModelOnDevice final : public DeviceModel {
public:
    ModelOnDevice(Device &device, const cryo_program &program, uint8_t *parameters)
        : device_(device), program_(program), layout_(device_layout(program)), row_(row_bytes(program)),
          parameters_(parameters) {}
    ~ModelOnDevice() override {
        Text ignored;
        if (memory_) (void)device_.finish(ignored);
        for (DevicePlan &plan : plans_) plan.forget_recordings(device_);
        device_.release(memory_);
    }
    cryo_status open(Text &error);

    size_t memory_bytes() const override { return layout_.bytes; }
    PlanProfile &plan(int mode) override { return plans_[mode]; }
    void parameters_changed() override {
        std::lock_guard<std::mutex> lock(mutex_);
        newer_ = Newer::host;
    }
    cryo_status fetch_parameters(Text &error) override;
    cryo_status run(int mode, const cryo_control &control, const Rows &rows, cryo_result *result, Text &error) override;
    cryo_status set_check_finite(bool on, Text &error) override;

private:
    uintptr_t at(size_t offset) const { return memory_ + offset; }
    size_t parameter_bytes() const { return size_t(program_.parameter_bytes); }
    cryo_status send_parameters(Text &error);
    cryo_status send_rows(const cryo_control &control, const Rows &rows, Text &error);
    cryo_status fetch_number(int64_t offset, double &number, Text &error);

    Device &device_;
    const cryo_program &program_;
    const Layout layout_;
    const RowBytes row_;
    uint8_t *const parameters_; // on the host
    uintptr_t memory_ = 0;
    DevicePlan plans_[MODES];
    std::vector<uint8_t> control_and_labels_; // on their way
    enum class Newer { neither, host, device } newer_ = Newer::neither;
    int prepared_ = -1; // the mode whose prepared values are there
    std::mutex mutex_;
};

cryo_status ModelOnDevice::open(Text &error) {
    if (layout_.bytes) memory_ = device_.allocate(layout_.bytes);
    if (!memory_)
        return error.fail(CRYO_OUT_OF_MEMORY, "no memory on '%s' for the %zu bytes of model '%s'", device_.name(),
                          layout_.bytes, program_.name);
    uintptr_t base[CRYO_REGION_OUTPUT + 1] = {};
    base[CRYO_REGION_PARAMETERS] = at(layout_.parameters);
    base[CRYO_REGION_PREPARED] = at(layout_.prepared);
    base[CRYO_REGION_ARENA] = at(layout_.arena);
    base[CRYO_REGION_CONTROL] = at(layout_.control);
    base[CRYO_REGION_INPUT] = at(layout_.input);
    base[CRYO_REGION_LABEL] = at(layout_.label);
    base[CRYO_REGION_OUTPUT] = at(layout_.output);
    for (int mode = 0; mode < MODES; mode++)
        if (const cryo_plan *plan = plan_of(program_, mode)) plans_[mode].prepare(*plan, base);
    control_and_labels_.resize(layout_.label - layout_.control + size_t(program_.max_batch) * row_.label);
    cryo_status status = device_.clear(memory_, layout_.bytes, error);
    return status == CRYO_OK ? device_.finish(error) : status;
}

cryo_status ModelOnDevice::fetch_parameters(Text &error) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (newer_ != Newer::device) return CRYO_OK;
    cryo_status status = device_.download(parameters_, at(layout_.parameters), parameter_bytes(), error);
    if (status == CRYO_OK) newer_ = Newer::neither;
    return status;
}

cryo_status ModelOnDevice::send_parameters(Text &error) {
    if (newer_ != Newer::host) return CRYO_OK;
    prepared_ = -1;
    cryo_status status = device_.upload(at(layout_.parameters), parameters_, parameter_bytes(), error);
    if (status == CRYO_OK) newer_ = Newer::neither;
    return status;
}

// The samples that a ragged last block lacks are zeros.
cryo_status ModelOnDevice::send_rows(const cryo_control &control, const Rows &rows, Text &error) {
    const size_t batch = size_t(rows.batch), lanes = size_t(program_.lanes);
    const size_t images = batch * row_.input, missing = (lanes - batch % lanes) % lanes * row_.input;
    const size_t label = layout_.label - layout_.control, labels = rows.labels ? batch * row_.label : 0;
    memcpy(control_and_labels_.data(), &control, sizeof control);
    if (labels) memcpy(control_and_labels_.data() + label, rows.labels, labels);
    cryo_status status = device_.upload(at(layout_.control), control_and_labels_.data(), label + labels, error);
    if (status == CRYO_OK) status = device_.upload(at(layout_.input), rows.images, images, error);
    if (status == CRYO_OK) status = device_.clear(at(layout_.input) + images, missing, error);
    return status;
}

cryo_status ModelOnDevice::fetch_number(int64_t offset, double &number, Text &error) {
    float value = 0;
    cryo_status status = CRYO_OK;
    if (offset >= 0) status = device_.download(&value, at(layout_.arena) + uintptr_t(offset), sizeof value, error);
    number = double(value);
    return status;
}

cryo_status ModelOnDevice::run(int mode, const cryo_control &control, const Rows &rows, cryo_result *result,
                               Text &error) {
    std::lock_guard<std::mutex> lock(mutex_);
    DevicePlan &plan = plans_[mode];
    const cryo_plan &facts = *plan_of(program_, mode);
    cryo_status status = send_parameters(error);
    if (status == CRYO_OK && facts.prepared_phases && prepared_ != mode) {
        status = plan.run_prepared(device_, error);
        prepared_ = status == CRYO_OK ? mode : -1;
    }
    if (status == CRYO_OK) status = send_rows(control, rows, error);
    if (status != CRYO_OK) return status;
    if (mode == TRAIN) {
        newer_ = Newer::device;
        prepared_ = -1;
    }
    try {
        status = plan.run(device_, rows.batch, error);
    } catch (const std::bad_alloc &) {
        status = error.fail(CRYO_OUT_OF_MEMORY, "no memory to record a step of model '%s'", program_.name);
    }
    if (status != CRYO_OK) return status;
    if (rows.outputs)
        return device_.download(rows.outputs, at(layout_.output), size_t(rows.batch) * row_.output, error);
    double loss = 0, correct = 0;
    status = fetch_number(facts.loss_offset, loss, error);
    if (status == CRYO_OK) status = fetch_number(facts.correct_offset, correct, error);
    if (status == CRYO_OK) status = device_.finish(error);
    if (result && status == CRYO_OK) *result = {loss, int64_t(std::lround(correct))};
    return status;
}

cryo_status ModelOnDevice::set_check_finite(bool on, Text &error) {
    std::lock_guard<std::mutex> lock(mutex_);
    prepared_ = -1; // what prepares them is looked at, too
    try {
        for (DevicePlan &plan : plans_) plan.set_check_finite(on);
    } catch (const std::bad_alloc &) {
        return error.fail(CRYO_OUT_OF_MEMORY, "no memory to look at the results of model '%s'", program_.name);
    }
    return CRYO_OK;
}

} // namespace

cryo_status open_on(Device &device, const cryo_program &program, uint8_t *parameters,
                    std::unique_ptr<DeviceModel> &model, Text &error) {
    try {
        auto made = std::make_unique<ModelOnDevice>(device, program, parameters);
        cryo_status status = made->open(error);
        if (status == CRYO_OK) model = std::move(made);
        return status;
    } catch (const std::bad_alloc &) {
        return error.fail(CRYO_OUT_OF_MEMORY, "no memory for the steps of model '%s'", program.name);
    }
}

} // namespace cryolite::runtime

// Kernels of Halide's ask for it; all data of a step is on the device already.
extern "C" int halide_copy_to_device(void *, void *, const void *) { return 0; }
