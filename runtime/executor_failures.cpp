// What a run that failed says of it: a kernel's error, or the first result that is not finite.
#include "executor.h"

#include "halide_error.h"

#include <cstring>

namespace cryolite::runtime {

// Padding lanes count, too: the compiler keeps them finite.
void Executor::look_at_results(Thread &thread, size_t entry, int64_t task) {
    const cryo_step &step = *entries_[entry].step;
    const cryo_buffer *buffers = &thread.buffers[entries_[entry].first_arg];
    for (int64_t a = step.arg_count - step.outputs; a < step.arg_count; a++) {
        if (step.args[a].kind != CRYO_ARG_BUFFER || step.args[a].type != CRYO_F32) continue;
        Offence offence = {entry, task, worst_of(buffers[a])};
        if (offence.worst == Worst::finite) continue;
        if (offence.before(thread.offence)) thread.offence = offence;
        offended_.store(true, std::memory_order_relaxed); // before the round is complete
    }
}

void Executor::fail(const cryo_step &step, int code) {
    // Only the first one writes; the others see the flag already set.
    if (failed_.exchange(true)) return;
    failed_step_ = &step;
    failed_code_ = code;
    strncpy(failed_text_, halide_error_text(), sizeof failed_text_ - 1);
}

cryo_status Executor::report(Text &error) const {
    return error.fail(CRYO_KERNEL_ERROR, "layer '%s', kernel '%s': %s (error %d)", failed_step_->name,
                      failed_step_->key, failed_text_[0] ? failed_text_ : "the kernel failed", failed_code_);
}

cryo_status Executor::report_offence(Text &error, int64_t batch) const {
    const Offence *first = &threads_[0].offence;
    for (int t = 1; t < threads_count_; t++)
        if (threads_[size_t(t)].offence.before(*first)) first = &threads_[size_t(t)].offence;
    if (first->worst == Worst::finite) return CRYO_OK;
    const cryo_step &step = *entries_[first->entry].step;
    const int number = entries_[first->entry].phase;
    const Phase &phase = phases_[size_t(number)];
    if (lanes_ == 1 && number >= plan_->prepared_phases)
        return error.fail(CRYO_NOT_FINITE, "layer '%s', kernel '%s': %s in the result of sample %lld", step.name,
                          step.key, worst_text(first->worst), static_cast<long long>(regions_.first_sample));
    if (step.of_block || (first->entry >= phase.block && first->entry < phase.tile)) {
        int64_t from = first->task / step.tiles * lanes_, to = from + lanes_ < batch ? from + lanes_ : batch;
        return error.fail(CRYO_NOT_FINITE, "layer '%s', kernel '%s': %s in the result of samples %lld to %lld",
                          step.name, step.key, worst_text(first->worst), static_cast<long long>(from),
                          static_cast<long long>(to - 1));
    }
    return error.fail(CRYO_NOT_FINITE, "layer '%s', kernel '%s': %s in the result", step.name, step.key,
                      worst_text(first->worst));
}

} // namespace cryolite::runtime
