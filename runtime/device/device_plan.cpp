// A plan's launches.
#include "device_plan.h"

#include "../finite.h"

#include <algorithm>

namespace cryolite::runtime {

namespace {

// Room for one value: elements from its first to its last.
size_t span(const cryo_buffer &buffer) {
    size_t last = 0;
    for (int32_t d = 0; d < buffer.dimensions; d++)
        last += size_t(buffer.dim[d].extent - 1) * size_t(buffer.dim[d].stride);
    return last + 1;
}

bool is_result(const cryo_step &step, int64_t arg) {
    return arg >= step.arg_count - step.outputs && step.args[arg].kind == CRYO_ARG_BUFFER &&
           step.args[arg].type == CRYO_F32;
}

} // namespace

void DevicePlan::prepare(const cryo_plan &plan, const uintptr_t (&base)[CRYO_REGION_OUTPUT + 1]) {
    lanes_ = plan.lanes;
    phases_.assign(size_t(plan.phase_count), PhaseProfile{});
    for (int64_t p = 0; p < plan.phase_count; p++) {
        if (p == plan.prepared_phases) prepared_launches_ = launches_.size();
        const cryo_phase &phase = plan.phases[p];
        for (int64_t s = 0; s < phase.block_step_count; s++) add_step(phase.block_steps[s], int(p), base);
        for (int64_t s = 0; s < phase.tile_step_count; s++) add_step(phase.tile_steps[s], int(p), base);
        for (int64_t s = 0; s < phase.tail_step_count; s++) add_step(phase.tail_steps[s], int(p), base);
    }
    // Now that nothing moves any more.
    size_t dim = 0;
    for (size_t a = 0; a < buffers_.size(); a++) {
        if (argv_[a]) continue;
        buffers_[a].dim = &dims_[dim];
        dim += size_t(buffers_[a].dimensions);
        argv_[a] = &buffers_[a];
    }
}

void DevicePlan::add_step(const cryo_step &step, int phase, const uintptr_t *base) {
    for (int64_t tile = 0; tile < step.tiles; tile++) {
        launches_.push_back({steps_.size(), argv_.size(), int32_t(tile)});
        for (int64_t a = 0; a < step.arg_count; a++) add_arg(step.args[a], tile, base);
    }
    steps_.push_back({&step, phase, 0, 0});
}

// argv of a buffer is left to prepare. A batch has no block of its own: all its samples are valid ones of block 0.
void DevicePlan::add_arg(const cryo_arg &arg, int64_t tile, const uintptr_t *base) {
    cryo_buffer buffer = {};
    if (arg.kind != CRYO_ARG_BUFFER) {
        argv_.push_back(arg.kind == CRYO_ARG_TILE ? &tile_ : arg.kind == CRYO_ARG_BLOCK ? &block_ : &batch_);
        buffers_.push_back(buffer);
        return;
    }
    buffer.device = base[arg.region] + uintptr_t(arg.offset + tile * arg.tile_stride);
    buffer.type.code = arg.type == CRYO_I32 ? 0 : 2; // halide_type_int, halide_type_float
    buffer.type.bits = 32;
    buffer.type.lanes = 1;
    buffer.dimensions = int32_t(arg.rank);
    for (int64_t d = 0; d < arg.rank; d++)
        dims_.push_back({0, int32_t(arg.dims[d].extent), int32_t(arg.dims[d].stride), 0});
    if (arg.block_stride != 0) block_dims_.push_back(dims_.size() - 1);
    argv_.push_back(nullptr);
    buffers_.push_back(buffer);
}

cryo_status DevicePlan::run(Device &device, int64_t batch, Text &error) {
    const int64_t blocks = (batch + lanes_ - 1) / lanes_;
    if (blocks != blocks_)
        for (size_t dim : block_dims_) dims_[dim].extent = int32_t(blocks);
    blocks_ = blocks;
    batch_ = int32_t(batch);
    if (device.records() && !profiling_ && !check_finite_) return run_recorded(device, error);
    return run(device, prepared_launches_, launches_.size(), error);
}

cryo_status DevicePlan::run_prepared(Device &device, Text &error) {
    batch_ = 1;
    return run(device, 0, prepared_launches_, error);
}

// The first run builds the kernels.
cryo_status DevicePlan::run_recorded(Device &device, Text &error) {
    constexpr size_t most = 16; // batch sizes
    auto found = recordings_.find(batch_);
    if (found == recordings_.end()) {
        if (recordings_.size() < most) recordings_[batch_] = nullptr;
        return run(device, prepared_launches_, launches_.size(), error);
    }
    if (!found->second) {
        const cryo_status status = record(device, found->second, error);
        if (status != CRYO_OK) return status;
    }
    return device.replay(found->second, error);
}

cryo_status DevicePlan::record(Device &device, Device::Recording &recording, Text &error) {
    const std::vector<std::vector<size_t>> order = find_order();
    cryo_status status = device.begin_recording(error);
    for (size_t i = 0; i < order.size() && status == CRYO_OK; i++) {
        status = device.after(order[i], error);
        if (status == CRYO_OK) status = launch(device, launches_[prepared_launches_ + i], error);
        if (status == CRYO_OK) status = device.note(i, error);
    }
    Text ignored; // of a recording that has failed already
    const cryo_status ended = device.end_recording(recording, status == CRYO_OK ? error : ignored);
    return status == CRYO_OK ? ended : status;
}

// For each launch but the prepared ones the earlier ones that it must come after: those that write what it reads or
// writes, or read what it writes, but for those that come before another of these anyway.
std::vector<std::vector<size_t>> DevicePlan::find_order() const {
    struct Access {
        uint64_t begin, end;
        bool write;
    };
    const size_t count = launches_.size() - prepared_launches_;
    std::vector<std::vector<Access>> accesses(count);
    std::vector<std::vector<size_t>> order(count);
    std::vector<std::vector<bool>> before(count); // itself and all before it
    for (size_t i = 0; i < count; i++) {
        const Launch &launch = launches_[prepared_launches_ + i];
        const cryo_step &step = *steps_[launch.step].step;
        for (int64_t a = 0; a < step.arg_count; a++) {
            if (step.args[a].kind != CRYO_ARG_BUFFER) continue;
            const cryo_buffer &buffer = buffers_[launch.first_arg + size_t(a)];
            accesses[i].push_back(
                {buffer.device, buffer.device + 4 * span(buffer), a >= step.arg_count - step.outputs});
        }
        before[i].resize(i + 1);
        before[i][i] = true;
        for (size_t j = i; j-- > 0;) {
            auto touches = [&](const Access &x) {
                return std::any_of(accesses[j].begin(), accesses[j].end(), [&](const Access &y) {
                    return (x.write || y.write) && x.begin < y.end && y.begin < x.end;
                });
            };
            if (before[i][j] || std::none_of(accesses[i].begin(), accesses[i].end(), touches)) continue;
            order[i].push_back(j);
            for (size_t k = 0; k <= j; k++)
                if (before[j][k]) before[i][k] = true;
        }
    }
    return order;
}

void DevicePlan::forget_recordings(Device &device) {
    for (auto &[batch, recording] : recordings_) device.forget(recording);
    recordings_.clear();
}

cryo_status DevicePlan::run(Device &device, size_t first, size_t end, Text &error) {
    for (size_t i = first; i < end; i++) {
        cryo_status status = profiling_ ? device.mark(2 * i, error) : CRYO_OK;
        if (status == CRYO_OK) status = launch(device, launches_[i], error);
        if (status == CRYO_OK && profiling_) status = device.mark(2 * i + 1, error);
        if (status == CRYO_OK && check_finite_) status = look_at_results(device, launches_[i], error);
        if (status != CRYO_OK) return status;
    }
    return profiling_ ? read_marks(device, first, end, error) : CRYO_OK;
}

cryo_status DevicePlan::read_marks(Device &device, size_t first, size_t end, Text &error) {
    cryo_status status = device.finish(error);
    if (status != CRYO_OK) return status;
    for (size_t i = first; i < end; i++) {
        StepProfile &step = steps_[launches_[i].step];
        const double seconds = device.seconds(2 * i, 2 * i + 1);
        step.seconds += seconds;
        step.calls++;
        phases_[size_t(step.phase)].seconds += seconds;
        const bool last = i + 1 == end || steps_[launches_[i + 1].step].phase != step.phase;
        phases_[size_t(step.phase)].runs += last;
    }
    return CRYO_OK;
}

cryo_status DevicePlan::launch(Device &device, const Launch &launch, Text &error) {
    const cryo_step &step = *steps_[launch.step].step;
    tile_ = launch.tile;
    const int code = step.kernel(&argv_[launch.first_arg]);
    if (code == 0) return CRYO_OK;
    return error.fail(CRYO_DEVICE_ERROR, "layer '%s', kernel '%s': %s", step.name, step.key, device.kernel_error());
}

void DevicePlan::set_check_finite(bool on) {
    check_finite_ = on;
    size_t most = 0;
    for (const Launch &launch : launches_) {
        const cryo_step &step = *steps_[launch.step].step;
        for (int64_t a = 0; on && a < step.arg_count; a++) {
            if (!is_result(step, a)) continue;
            size_t elements = 1;
            for (int64_t d = 0; d < step.args[a].rank; d++)
                elements += size_t(step.args[a].dims[d].extent) * size_t(step.args[a].dims[d].stride);
            most = std::max(most, elements);
        }
    }
    results_.resize(most);
    if (!on) results_.shrink_to_fit();
}

cryo_status DevicePlan::look_at_results(Device &device, const Launch &launch, Text &error) {
    const cryo_step &step = *steps_[launch.step].step;
    for (int64_t a = step.arg_count - step.outputs; a < step.arg_count; a++) {
        if (!is_result(step, a)) continue;
        cryo_buffer buffer = buffers_[launch.first_arg + size_t(a)];
        const size_t bytes = span(buffer) * sizeof(float);
        cryo_status status = device.download(results_.data(), uintptr_t(buffer.device), bytes, error);
        if (status != CRYO_OK) return status;
        buffer.host = reinterpret_cast<uint8_t *>(results_.data());
        if (Worst worst = worst_of(buffer); worst != Worst::finite)
            return error.fail(CRYO_NOT_FINITE, "layer '%s', kernel '%s': %s in the result", step.name, step.key,
                              worst_text(worst));
    }
    return CRYO_OK;
}

void DevicePlan::set_profiling(bool on) {
    profiling_ = on;
    if (!on) return;
    for (StepProfile &step : steps_) step.calls = 0, step.seconds = 0;
    for (PhaseProfile &phase : phases_) phase = {};
}

} // namespace cryolite::runtime
