// A model: one piece of memory, three executors over it, a pool.
#ifndef CRYOLITE_RUNTIME_MODEL_H
#define CRYOLITE_RUNTIME_MODEL_H

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

// The rows of one call. labels and outputs are null where the plan has none.
struct Rows {
    const float *images = nullptr;
    const int32_t *labels = nullptr;
    float *outputs = nullptr;
    int64_t batch = 0;
};

// What a model and a context have in common: regions to run plans in.
struct Workspace {
    const cryo_program *program = nullptr;
    uint8_t *memory = nullptr;
    Layout layout;

    // Base addresses for a run; copies the rows of a ragged last block to staging.
    Regions stage(const Rows &rows, const cryo_model &model) const;
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
    cryolite::runtime::Executor executors[cryolite::runtime::MODES];
    cryolite::runtime::Pool pool;
    cryolite::runtime::Parallel parallel;
    double learning_rate = 0;
    int64_t steps = 0;
    bool check_finite = false;
    mutable cryolite::runtime::Text error;

    // The plan whose prepared values are there: a Mode, or -1 when parameters or states have changed since.
    std::atomic<int> prepared_mode{-1};
    std::mutex preparing;

    uint8_t *parameters() const { return work.memory + work.layout.parameters; }
    uint8_t *prepared() const { return work.memory + work.layout.prepared; }
    void forget_prepared() { prepared_mode.store(-1, std::memory_order_relaxed); }
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
    cryolite::runtime::Executor executor;
    cryolite::runtime::Text error;
};

#endif
