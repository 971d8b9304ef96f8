// Runs a plan.
#include "executor.h"

#include "backoff.h"
#include "float_mode.h"
#include "halide_error.h"

#include <chrono>
#include <cstring>
#include <new>
#include <thread>

namespace cryolite::runtime {

namespace {

template <typename T> bool allocate(std::unique_ptr<T[]> &array, size_t count) {
    array.reset(new (std::nothrow) T[count ? count : 1]());
    return array != nullptr;
}

} // namespace

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Executor::add_steps(const cryo_step *steps, int64_t count, int phase) {
    for (int64_t s = 0; s < count; s++) {
        entries_[step_count_++] = {&steps[s], arg_count_, phase};
        arg_count_ += size_t(steps[s].arg_count);
    }
}

bool Executor::prepare(const cryo_plan &plan, int threads) {
    plan_ = &plan;
    threads_count_ = threads;
    crowded_ = more_than_cores(threads);
    lanes_ = plan.lanes;
    size_t steps = 0, dims = 0, most_rounds = size_t(plan.phase_count);
    for (int64_t p = 0; p < plan.phase_count; p++) {
        steps +=
            size_t(plan.phases[p].block_step_count + plan.phases[p].tile_step_count + plan.phases[p].tail_step_count);
        most_rounds += size_t(plan.phases[p].block_step_count + plan.phases[p].tail_step_count);
    }
    if (!allocate(entries_, steps) || !allocate(phases_, size_t(plan.phase_count)) || !allocate(rounds_, most_rounds))
        return false;
    for (int64_t p = 0; p < plan.phase_count; p++) {
        const cryo_phase &phase = plan.phases[p];
        Phase &made = phases_[size_t(p)];
        made.phase = &phase;
        made.block = step_count_;
        add_steps(phase.block_steps, phase.block_step_count, int(p));
        made.tile = step_count_;
        add_steps(phase.tile_steps, phase.tile_step_count, int(p));
        made.tail = step_count_;
        add_steps(phase.tail_steps, phase.tail_step_count, int(p));
        add_rounds(int(p));
    }
    for (size_t s = 0; s < step_count_; s++)
        for (int64_t a = 0; a < entries_[s].step->arg_count; a++)
            if (entries_[s].step->args[a].kind == CRYO_ARG_BUFFER) dims += size_t(entries_[s].step->args[a].rank);
    if (!allocate(dims_, dims) || !allocate(threads_, size_t(threads)) || !shares_.prepare(threads)) return false;
    for (int t = 0; t < threads; t++)
        if (!make_thread(threads_[size_t(t)])) return false;
    return true;
}

// Every thread fills the shared dims anew, with the same numbers; they are only read later.
bool Executor::make_thread(Thread &thread) {
    if (!allocate(thread.buffers, arg_count_) || !allocate(thread.argv, arg_count_) ||
        !allocate(thread.counts, step_count_) || !allocate(thread.phases, size_t(plan_->phase_count)))
        return false;
    cryo_halide_dim *dim = dims_.get();
    for (size_t s = 0; s < step_count_; s++) {
        const cryo_step &step = *entries_[s].step;
        for (int64_t a = 0; a < step.arg_count; a++) {
            const cryo_arg &arg = step.args[a];
            cryo_buffer &buffer = thread.buffers[entries_[s].first_arg + size_t(a)];
            void *&slot = thread.argv[entries_[s].first_arg + size_t(a)];
            if (arg.kind != CRYO_ARG_BUFFER) {
                slot = arg.kind == CRYO_ARG_BATCH   ? &thread.batch
                       : arg.kind == CRYO_ARG_VALID ? &thread.valid
                       : arg.kind == CRYO_ARG_BLOCK ? &thread.block
                                                    : &thread.tile;
                continue;
            }
            slot = &buffer;
            buffer.type.code = arg.type == CRYO_I32 ? 0 : 2; // halide_type_int, halide_type_float
            buffer.type.bits = 32;
            buffer.type.lanes = 1;
            buffer.dimensions = int32_t(arg.rank);
            buffer.dim = dim;
            for (int64_t d = 0; d < arg.rank; d++)
                *dim++ = {0, int32_t(arg.dims[d].extent), int32_t(arg.dims[d].stride), 0};
        }
    }
    return true;
}

bool Executor::call(Thread &thread, size_t entry, const uintptr_t *base, int64_t block, int64_t tile) {
    const cryo_step &step = *entries_[entry].step;
    cryo_buffer *buffer = &thread.buffers[entries_[entry].first_arg];
    for (int64_t a = 0; a < step.arg_count; a++, buffer++) {
        const cryo_arg &arg = step.args[a];
        if (arg.kind != CRYO_ARG_BUFFER) continue;
        uintptr_t at = arg.region == CRYO_REGION_SCRATCH ? thread.scratch : base[arg.region];
        buffer->host = reinterpret_cast<uint8_t *>(at + uintptr_t(arg.offset + block * arg.block_stride) +
                                                   uintptr_t(tile * arg.tile_stride));
    }
    double start = profiling_ ? seconds_now() : 0;
    int code = step.kernel(&thread.argv[entries_[entry].first_arg]);
    if (profiling_) {
        thread.counts[entry].seconds += seconds_now() - start;
        thread.counts[entry].calls++;
    }
    if (__builtin_expect(code != 0, 0)) fail(step, code);
    if (__builtin_expect(check_finite_, 0)) look_at_results(thread, entry, block * step.tiles + tile);
    return code == 0;
}

void Executor::enter_block(Thread &thread, int64_t block) {
    thread.block = int32_t(block);
    thread.valid = block == blocks_ - 1 ? last_valid_ : int32_t(lanes_);
}

// The block steps from `first` on that go in strips together, for one strip.
bool Executor::run_strip(Thread &thread, size_t first, const uintptr_t *base, int64_t block, int64_t strip) {
    thread.tile = int32_t(strip);
    for (size_t s = first, end = first + size_t(entries_[first].step->joined_steps); s < end; s++)
        if (!call(thread, s, base, block, strip)) return false;
    return true;
}

// The last strip first: of what the phase before made of it, most is in cache still.
bool Executor::run_block_steps(Thread &thread, const Phase &phase, const uintptr_t *base, int64_t block) {
    for (size_t first = phase.block; first < phase.tile; first += size_t(entries_[first].step->joined_steps))
        for (int64_t strip = entries_[first].step->tiles; strip-- > 0;)
            if (!run_strip(thread, first, base, block, strip)) return false;
    return true;
}

bool Executor::run_block(Thread &thread, const Phase &phase, int64_t block) {
    enter_block(thread, block);
    return run_block_steps(thread, phase, bases(block), block);
}

bool Executor::run_tile(Thread &thread, size_t entry, int64_t task) {
    const cryo_step &step = *entries_[entry].step;
    const int64_t block = step.of_block ? task / step.tiles : 0, tile = step.of_block ? task % step.tiles : task;
    if (step.of_block) {
        enter_block(thread, block);
    } else {
        thread.block = 0;
        thread.valid = int32_t(lanes_);
    }
    thread.tile = int32_t(tile);
    const uintptr_t *base = step.of_block ? bases(block) : regions_.base;
    for (size_t s = entry, end = entry + size_t(step.joined_steps); s < end; s++)
        if (!call(thread, s, base, block, tile)) return false;
    return true;
}

void Executor::run_threads(int threads, void (*task)(void *self, int i), const Parallel &parallel) {
    if (threads > 1 && parallel.run)
        parallel.run(parallel.pool, threads, task, this);
    else
        task(this, 0);
}

// Every phase's steps with all their tiles, in the order of a run on one thread.
bool Executor::run_sample(Thread &thread, const uintptr_t *base) {
    enter_block(thread, 0);
    for (int64_t p = plan_->prepared_phases; p < plan_->phase_count; p++) {
        const Phase &phase = phases_[size_t(p)];
        const size_t end = phase.tail + size_t(phase.phase->tail_step_count);
        const double start = profiling_ ? seconds_now() : 0;
        if (!run_block_steps(thread, phase, base, 0)) return false;
        for (size_t s = phase.tile; s < end; s++) { // none joined: there are no updates
            for (int64_t tile = 0; tile < entries_[s].step->tiles; tile++) {
                thread.tile = int32_t(tile);
                if (!call(thread, s, base, 0, tile)) return false;
            }
        }
        if (profiling_) {
            thread.phases[size_t(p)].seconds += seconds_now() - start;
            thread.phases[size_t(p)].calls++;
        }
    }
    return true;
}

void Executor::claim_samples(int index) {
    FloatMode mode;
    HalideErrors errors;
    Thread &thread = threads_[size_t(index)];
    const int threads = samples_.count < threads_count_ ? int(samples_.count) : threads_count_;
    shares_.enter(index);
    auto part = [&](int owner) { return part_of(owner < threads ? samples_.count : 0, owner, threads); };
    shares_.next_round(index, [&](int owner) { return part(owner).size(); });
    Shares::Claim claim;
    while (!failed_.load(std::memory_order_relaxed) &&
           (shares_.claim_own(index, claim) || shares_.claim_others(index, claim))) {
        const size_t sample = size_t(part(claim.owner).first + claim.place);
        uintptr_t base[CRYO_REGION_OUTPUT + 1];
        memcpy(base, regions_.base, sizeof base);
        base[CRYO_REGION_ARENA] += size_t(index) * samples_.arena_stride;
        base[CRYO_REGION_INPUT] += sample * samples_.input_stride;
        base[CRYO_REGION_OUTPUT] += sample * samples_.output_stride;
        run_sample(thread, base);
    }
}

void Executor::sample_task(void *self, int i) { static_cast<Executor *>(self)->claim_samples(i); }

cryo_status Executor::run(const Regions &regions, int64_t batch, const Parallel &parallel, Text &error) {
    return run_phases(plan_->prepared_phases, plan_->phase_count, regions, batch, parallel, error);
}

cryo_status Executor::run_prepared(const Regions &regions, const Parallel &parallel, Text &error) {
    return run_phases(0, plan_->prepared_phases, regions, 1, parallel, error);
}

void Executor::begin_run(const Regions &regions, int64_t batch) {
    // What stays as it was is not written: other threads' cores need not read it again.
    if (memcmp(&regions_, &regions, sizeof regions) != 0) regions_ = regions;
    blocks_ = (batch + lanes_ - 1) / lanes_;
    last_valid_ = int32_t(batch - (blocks_ - 1) * lanes_);
    shares_.begin();
    if (failed_.load()) failed_.store(false), failed_text_[0] = 0;
    const bool offended = offended_.load();
    if (offended) offended_.store(false);
    for (int t = 0; t < threads_count_; t++) {
        Thread &thread = threads_[size_t(t)];
        const uintptr_t scratch = regions.base[CRYO_REGION_SCRATCH] + size_t(t) * regions.scratch_stride;
        if (thread.scratch != scratch || thread.batch != batch) thread.scratch = scratch, thread.batch = int32_t(batch);
        if (offended) thread.offence = {};
    }
}

cryo_status Executor::run_each(const Regions &regions, const Samples &samples, const Parallel &parallel, Text &error) {
    begin_run(regions, 1);
    samples_ = samples;
    const int useful = samples.count < threads_count_ ? int(samples.count) : threads_count_;
    run_threads(useful, sample_task, parallel);
    // What a phase takes of the run, in which threads are in different phases: the mean of the threads.
    for (size_t p = 0; profiling_ && p < phase_count(); p++)
        for (int t = 0; t < useful; t++) {
            Count &count = threads_[size_t(t)].phases[p];
            phases_[p].runs += count.calls;
            phases_[p].seconds += count.seconds / useful;
            count = {};
        }
    return failed_.load() ? report(error) : CRYO_OK;
}

cryo_status Executor::run_phases(int64_t first, int64_t end_phase, const Regions &regions, int64_t batch,
                                 const Parallel &parallel, Text &error) {
    begin_run(regions, batch);
    const auto round_of = [&](int64_t p) {
        return p < plan_->phase_count ? phases_[size_t(p)].first_round : round_count_;
    };
    first_round_ = round_of(first);
    end_round_ = round_of(end_phase);
    int threads = 1;
    for (size_t r = first_round_; r < end_round_; r++) {
        const int useful = threads_of(rounds_[r]);
        if (useful > threads) threads = useful;
    }
    run_threads(threads, task, parallel);
    if (failed_.load()) return report(error);
    return check_finite_ ? report_offence(error, batch) : CRYO_OK;
}

void Executor::set_profiling(bool on) {
    profiling_ = on;
    for (int t = 0; on && t < threads_count_; t++)
        for (size_t s = 0; s < step_count_; s++) threads_[size_t(t)].counts[s] = {};
    for (size_t p = 0; on && p < phase_count(); p++) phases_[p].runs = 0, phases_[p].seconds = 0;
}

StepProfile Executor::profile(size_t step) const {
    StepProfile sum = {entries_[step].step, entries_[step].phase, 0, 0};
    for (int t = 0; t < threads_count_; t++) {
        sum.calls += threads_[size_t(t)].counts[step].calls;
        sum.seconds += threads_[size_t(t)].counts[step].seconds;
    }
    return sum;
}

} // namespace cryolite::runtime
