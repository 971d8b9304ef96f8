// Runs a plan: phases one after another; in a phase blocks and tiles spread over threads, then the tail, whose large
// steps have tiles, too. All threads go through the whole run together, round by round (shares.h): the pool is asked
// once.
//
// Everything a kernel is called with is made once: one set of argv arrays and buffers for each thread and step
// argument. A call then writes one host pointer for each buffer and jumps.
#ifndef CRYOLITE_RUNTIME_EXECUTOR_H
#define CRYOLITE_RUNTIME_EXECUTOR_H

#include "finite.h"
#include "plan_format.h"
#include "pool.h"
#include "program.h"
#include "shares.h"
#include "text.h"

#include <atomic>
#include <cstdint>
#include <memory>

namespace cryolite::runtime {

// Who runs a phase's tasks: the model's pool, the caller's, or (null) the calling thread alone.
struct Parallel {
    void (*run)(void *pool, int tasks, void (*task)(void *user, int i), void *user) = nullptr;
    void *pool = nullptr;
};

// Base addresses of the regions, as numbers: rows of the last block may be elsewhere, see `ragged`.
struct Regions {
    uintptr_t base[CRYO_REGION_OUTPUT + 1] = {};
    uintptr_t last[CRYO_REGION_OUTPUT + 1] = {}; // bases for the last block; block strides are added to them, too
    size_t scratch_stride = 0;
    int64_t first_sample = 0; // of the caller's batch, for messages: runs of one sample
};

// Samples that threads take alone, each with a plan of one sample: bytes from one sample's rows to the next one's, and
// from one thread's arena to the next one's.
struct Samples {
    int64_t count = 0;
    size_t input_stride = 0, output_stride = 0, arena_stride = 0;
};

// Profile of one step, summed over threads.
struct StepProfile {
    const cryo_step *step;
    int phase;
    int64_t calls;
    double seconds;
};

// Profile of one phase, on the clock of the thread that runs the plan.
struct PhaseProfile {
    int64_t runs;
    double seconds;
};

double seconds_now(); // of a steady clock

// A plan that is run somewhere, as the profile sees it.
class PlanProfile {
public:
    virtual void set_profiling(bool on) = 0; // on: clears
    virtual size_t step_count() const = 0;
    virtual StepProfile profile(size_t step) const = 0;
    virtual size_t phase_count() const = 0;
    virtual PhaseProfile phase_profile(size_t phase) const = 0;

protected:
    ~PlanProfile() = default;
};

class Executor final : public PlanProfile {
public:
    // False when out of memory.
    bool prepare(const cryo_plan &plan, int threads);

    // One pass over the plan with `batch` samples. Allocates nothing. CRYO_KERNEL_ERROR: error names layer and kernel,
    // what had not begun by then was left out. CRYO_NOT_FINITE: the same; the phase, or the tail's step, was the last.
    cryo_status run(const Regions &regions, int64_t batch, const Parallel &parallel, Text &error);

    // The same for a plan of one sample, with each of many samples, from the first phase to the last, on one thread.
    // regions are the first sample's. Does not look for results that are not finite.
    cryo_status run_each(const Regions &regions, const Samples &samples, const Parallel &parallel, Text &error);

    // The plan's prepared phases, which run() leaves out; with the same promises.
    cryo_status run_prepared(const Regions &regions, const Parallel &parallel, Text &error);

    int threads() const { return threads_count_; }
    void set_check_finite(bool on) { check_finite_ = on; }
    void set_profiling(bool on) override;
    size_t step_count() const override { return step_count_; }
    StepProfile profile(size_t step) const override;
    size_t phase_count() const override { return plan_ ? size_t(plan_->phase_count) : 0; }
    PhaseProfile phase_profile(size_t phase) const override { return {phases_[phase].runs, phases_[phase].seconds}; }

private:
    struct Entry { // a step, and where its arguments lie in each thread's arrays
        const cryo_step *step;
        size_t first_arg;
        int phase;
    };
    struct Phase { // indices of entries
        const cryo_phase *phase;
        size_t block, tile, tail;
        size_t first_round;
        int64_t runs; // while profiling
        double seconds;
    };
    // What may be done in any order, once the round before it is done.
    struct Round {
        enum Kind {
            tiles,  // of the entries; and the phase's blocks, if `blocks`, all block steps of one at a time
            strips, // of all blocks: the entries are block steps that go in strips together
            chain,  // the entries are steps without tiles: one task, which runs them in order
        };
        int phase;
        Kind kind;
        bool blocks;
        size_t first, end; // entries
    };
    struct Count {
        int64_t calls;
        double seconds;
    };
    // The first result that is not finite, in the order of steps, then of blocks and tiles.
    struct Offence {
        size_t entry = SIZE_MAX;
        int64_t task = 0; // its block or tile
        Worst worst = Worst::finite;
        bool before(const Offence &other) const {
            return entry != other.entry ? entry < other.entry : task < other.task;
        }
    };
    struct alignas(64) Thread {
        std::unique_ptr<cryo_buffer[]> buffers; // one an argument; unused for scalars
        std::unique_ptr<void *[]> argv;
        std::unique_ptr<Count[]> counts; // one a step
        std::unique_ptr<Count[]> phases; // one a phase, of samples that the thread took alone
        uintptr_t scratch = 0;
        int32_t batch = 0, valid = 0, block = 0, tile = 0;
        Offence offence; // of the run
    };

    bool make_thread(Thread &thread);
    void add_steps(const cryo_step *steps, int64_t count, int phase);
    void add_rounds(int phase);
    cryo_status run_phases(int64_t first, int64_t end_phase, const Regions &regions, int64_t batch,
                           const Parallel &parallel, Text &error);
    void begin_run(const Regions &regions, int64_t batch);
    static void task(void *self, int i);
    void follow(int thread);
    static void sample_task(void *self, int i);
    void claim_samples(int thread);
    bool run_sample(Thread &thread, const uintptr_t *base);
    void enter_block(Thread &thread, int64_t block);
    bool run_block(Thread &thread, const Phase &phase, int64_t block);
    bool run_block_steps(Thread &thread, const Phase &phase, const uintptr_t *base, int64_t block);
    bool run_strip(Thread &thread, size_t first, const uintptr_t *base, int64_t block, int64_t strip);
    bool run_tile(Thread &thread, size_t entry, int64_t task);
    bool run_chain(Thread &thread, const Round &round);
    bool run_claimed(Thread &thread, const Round &round, int threads, Shares::Claim claim);
    bool run_round(int thread, const Round &round);
    int64_t tasks_of(const cryo_step &step) const { return step.of_block ? blocks_ * step.tiles : step.tiles; }
    int64_t tasks_of(const Round &round) const;
    int64_t share_of(const Round &round, int thread, int threads) const;
    int threads_of(const Round &round) const; // that have a share
    const uintptr_t *bases(int64_t block) const { return block == blocks_ - 1 ? regions_.last : regions_.base; }
    void run_threads(int threads, void (*task)(void *self, int i), const Parallel &parallel);
    bool call(Thread &thread, size_t entry, const uintptr_t *base, int64_t block, int64_t tile);
    void look_at_results(Thread &thread, size_t entry, int64_t task);
    void fail(const cryo_step &step, int code);
    cryo_status report(Text &error) const;
    cryo_status report_offence(Text &error, int64_t batch) const; // CRYO_OK when there is none

    const cryo_plan *plan_ = nullptr;
    int threads_count_ = 0;
    int64_t lanes_ = 1;
    size_t step_count_ = 0, arg_count_ = 0;
    std::unique_ptr<Entry[]> entries_;
    std::unique_ptr<Phase[]> phases_;
    std::unique_ptr<Round[]> rounds_;
    size_t round_count_ = 0;
    std::unique_ptr<cryo_halide_dim[]> dims_; // of all arguments, shared by the threads
    std::unique_ptr<Thread[]> threads_;
    bool profiling_ = false, check_finite_ = false;
    bool crowded_ = false; // more threads than cores

    // The run in progress.
    Regions regions_;
    size_t first_round_ = 0, end_round_ = 0;
    int64_t blocks_ = 0;
    Samples samples_;
    int32_t last_valid_ = 0;

    std::atomic<bool> offended_{false}; // some thread's result was not finite
    // The first failure of a run.
    std::atomic<bool> failed_{false};
    const cryo_step *failed_step_ = nullptr;
    int failed_code_ = 0;
    char failed_text_[512] = {};

    Shares shares_;
};

} // namespace cryolite::runtime
#endif
