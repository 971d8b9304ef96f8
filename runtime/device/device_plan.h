// A plan on a device: its launches in order, with all arguments made once. Where every value lies is known when the
// model is opened, so a run writes the scalars, and the extents if it has another number of blocks than the last.
#ifndef CRYOLITE_RUNTIME_DEVICE_PLAN_H
#define CRYOLITE_RUNTIME_DEVICE_PLAN_H

#include "../device_model.h"
#include "device.h"

#include <map>
#include <vector>

namespace cryolite::runtime {

class DevicePlan final : public PlanProfile {
public:
    // base: addresses of the regions on the device. Throws std::bad_alloc.
    void prepare(const cryo_plan &plan, const uintptr_t (&base)[CRYO_REGION_OUTPUT + 1]);

    // All launches but the prepared phases', and those alone. They have been handed over when these return, not made.
    // Where the device records, the second run of a batch size is recorded, later ones are replayed. Throws
    // std::bad_alloc.
    cryo_status run(Device &device, int64_t batch, Text &error);
    cryo_status run_prepared(Device &device, Text &error);

    // On: every launch is waited for, and its results come to the host to be looked at. Throws std::bad_alloc.
    void set_check_finite(bool on);

    void set_profiling(bool on) override; // on: launch by launch, each between two marks
    void forget_recordings(Device &device);
    size_t step_count() const override { return steps_.size(); }
    StepProfile profile(size_t step) const override { return steps_[step]; }
    size_t phase_count() const override { return phases_.size(); }
    PhaseProfile phase_profile(size_t phase) const override { return phases_[phase]; }

private:
    struct Launch {
        size_t step; // of steps_
        size_t first_arg;
        int32_t tile;
    };
    void add_step(const cryo_step &step, int phase, const uintptr_t *base);
    void add_arg(const cryo_arg &arg, int64_t tile, const uintptr_t *base);
    cryo_status run(Device &device, size_t first, size_t end, Text &error);
    cryo_status run_recorded(Device &device, Text &error);
    cryo_status record(Device &device, Device::Recording &recording, Text &error);
    std::vector<std::vector<size_t>> find_order() const;
    cryo_status read_marks(Device &device, size_t first, size_t end, Text &error);
    cryo_status launch(Device &device, const Launch &launch, Text &error);
    cryo_status look_at_results(Device &device, const Launch &launch, Text &error);

    std::vector<Launch> launches_;
    size_t prepared_launches_ = 0;
    std::vector<cryo_buffer> buffers_; // one an argument; unused for scalars
    std::vector<void *> argv_;
    std::vector<cryo_halide_dim> dims_;
    std::vector<size_t> block_dims_; // of dims_: extents that are the batch's blocks
    int64_t lanes_ = 1, blocks_ = 0;
    int32_t batch_ = 0, block_ = 0, tile_ = 0;

    std::map<int32_t, Device::Recording> recordings_; // by batch; null: it was run once
    bool profiling_ = false, check_finite_ = false;
    std::vector<StepProfile> steps_;
    std::vector<PhaseProfile> phases_;
    std::vector<float> results_; // room for the largest, while they are looked at
};

} // namespace cryolite::runtime
#endif
