// A model: one piece of memory, executors over it and a pool; or, on a device, the parameters and what runs there.
#ifndef CRYOLITE_RUNTIME_MODEL_H
#define CRYOLITE_RUNTIME_MODEL_H

#include "device_model.h"
#include "executor.h"
#include "plan_format.h"
#include "pool.h"
#include "program.h"
#include "text.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

namespace cryolite::runtime {

struct Free {
    void operator()(uint8_t *bytes) const { std::free(bytes); }
};
using Memory = std::unique_ptr<uint8_t[], Free>;

// Aligned to CRYO_ALIGNMENT; null when there is no memory.
Memory allocate_memory(size_t bytes);

// What a model and a context have in common: regions to run plans in.
struct Workspace {
    const cryo_program *program = nullptr;
    uint8_t *memory = nullptr;
    Layout layout;

    // Base addresses for a run; copies the rows of a ragged last block to staging.
    Regions stage(const Rows &rows, const cryo_model &model) const;
    // Without staging.
    Regions regions(const Rows &rows, const cryo_model &model) const;
    // Those of a run of one sample, which needs no staging.
    Regions stage_one(const Rows &rows, int64_t sample, const cryo_model &model) const;
    // Copies staged outputs back.
    void unstage(const Rows &rows) const;
    cryo_control &control() const { return *reinterpret_cast<cryo_control *>(memory + layout.control); }
};

// Everything that can be wrong with a call's arguments.
cryo_status check_rows(const cryo_program &program, int mode, const Rows &rows, Text &error);

// CRYO_NOT_FINITE, with the sample, where an image is not.
cryo_status check_images(const cryo_program &program, const Rows &rows, Text &error);

// The schedule's rate at a step.
double scheduled_rate(const cryo_program &program, double rate, int64_t step);

} // namespace cryolite::runtime

struct cryo_model {
    const cryo_program *program = nullptr;
    int threads = 1;
    cryolite::runtime::Memory owned; // null when the memory is the caller's
    cryolite::runtime::Workspace work;
    std::unique_ptr<cryolite::runtime::DeviceModel> device; // null: plans run here, on executors and pool
    cryolite::runtime::Executor executors[cryolite::runtime::MODES];
    cryolite::runtime::Pool pool;
    cryolite::runtime::Parallel parallel;
    double learning_rate = 0;
    int64_t steps = 0;
    bool check_finite = false;
    // Parameters and states before a train step, while check_finite is on; not on devices.
    cryolite::runtime::Memory kept;
    mutable cryolite::runtime::Text error;

    // The plans whose prepared values are there: a Mode, or -1 when parameters or states have changed since.
    // INFER_ONE has room of its own, so that batches of many and of few samples may follow each other.
    std::atomic<int> prepared_mode{-1}, prepared_one{-1};
    std::mutex preparing;

    uint8_t *parameters() const { return work.memory + work.layout.parameters; }
    uint8_t *prepared() const { return work.memory + work.layout.prepared; }
    uint8_t *prepared_for_one() const { return work.memory + work.layout.prepared_one; }
    void forget_prepared() {
        prepared_mode.store(-1, std::memory_order_relaxed);
        prepared_one.store(-1, std::memory_order_relaxed);
    }
    // Before parameters are read from the block, and after they were written to it.
    cryo_status fetch_parameters() { return device ? device->fetch_parameters(error) : CRYO_OK; }
    void parameters_changed() {
        forget_prepared();
        if (device) device->parameters_changed();
    }
    cryolite::runtime::PlanProfile &profile_of(int mode) { return device ? device->plan(mode) : executors[mode]; }
    const cryolite::runtime::PlanProfile &profile_of(int mode) const {
        return const_cast<cryo_model *>(this)->profile_of(mode);
    }
    // INFER with few samples: each by the plan of one.
    cryo_status infer_few(const cryolite::runtime::Workspace &workspace, cryolite::runtime::Executor &executor,
                          const cryolite::runtime::Rows &rows, const cryolite::runtime::Parallel &with,
                          cryolite::runtime::Text &text);
    // Prepares what the mode's plan needs, unless it is there; of several threads one does, the others wait. executor
    // and regions are the caller's own.
    cryo_status prepare(int mode, cryolite::runtime::Executor &executor, const cryolite::runtime::Regions &regions,
                        const cryolite::runtime::Parallel &with, cryolite::runtime::Text &text);
    float *values(const cryo_parameter &parameter) const {
        return reinterpret_cast<float *>(parameters() + parameter.offset);
    }
};

struct cryo_context {
    cryo_model *model = nullptr;
    cryolite::runtime::Memory owned;
    cryolite::runtime::Workspace work;
    cryolite::runtime::Executor executor, executor_one; // of the plans infer and infer_one
    cryolite::runtime::Text error;
};

#endif
