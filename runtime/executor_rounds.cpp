// Rounds: what the threads of a run may do in any order, once the round before is done.
#include "executor.h"

#include "backoff.h"
#include "float_mode.h"
#include "halide_error.h"

#include <chrono>
#include <thread>

namespace cryolite::runtime {

// A phase's blocks and tiles, then its tail: each step that has tiles, and those between them together.
void Executor::add_rounds(int phase) {
    Phase &made = phases_[size_t(phase)];
    made.first_round = round_count_;
    auto add = [&](const Round &round) { rounds_[round_count_++] = round; };
    const bool whole_blocks = made.block < made.tile && !plan_->strip_tasks;
    for (size_t s = made.block, end = s; s < made.tile && !whole_blocks; s = end) {
        end = s + size_t(entries_[s].step->joined_steps);
        add({phase, Round::strips, false, s, end});
    }
    if (whole_blocks || made.tile < made.tail) add({phase, Round::tiles, whole_blocks, made.tile, made.tail});
    for (size_t s = made.tail, end = s; s < step_count_; s = end) {
        const auto whole = [&](size_t i) { return entries_[i].step->tiles == 1 && !entries_[i].step->of_block; };
        for (end = s + 1; whole(s) && end < step_count_ && whole(end);) end++;
        add({phase, whole(s) ? Round::chain : Round::tiles, false, s, end});
    }
}

// Until a result is not finite.
bool Executor::run_chain(Thread &thread, const Round &round) {
    for (size_t s = round.first; s < round.end && thread.offence.worst == Worst::finite; s++)
        if (!run_tile(thread, s, 0)) return false;
    return true;
}

// A share's blocks, then its tiles, step by step. In every other phase the blocks last done come first: they are still
// in cache.
bool Executor::run_claimed(Thread &thread, const Round &round, int threads, Shares::Claim claim) {
    if (round.kind == Round::chain) return run_chain(thread, round);
    if (round.kind == Round::strips) {
        const int64_t task = part_of(tasks_of(round), claim.owner, threads).first + claim.place;
        const int64_t strips = entries_[round.first].step->tiles, block = task / strips;
        enter_block(thread, block);
        return run_strip(thread, round.first, bases(block), block, task % strips);
    }
    if (round.blocks) {
        const Part blocks = part_of(blocks_, claim.owner, threads);
        const bool backwards = round.phase % 2 == 1;
        if (claim.place < blocks.size())
            return run_block(thread, phases_[size_t(round.phase)],
                             backwards ? blocks.end - 1 - claim.place : blocks.first + claim.place);
        claim.place -= blocks.size();
    }
    for (size_t s = round.first;; s += size_t(entries_[s].step->joined_steps)) {
        const Part tiles = part_of(tasks_of(*entries_[s].step), claim.owner, threads);
        if (claim.place < tiles.size()) return run_tile(thread, s, tiles.first + claim.place);
        claim.place -= tiles.size();
    }
}

int64_t Executor::tasks_of(const Round &round) const {
    if (round.kind == Round::chain) return 1;
    if (round.kind == Round::strips) return blocks_ * entries_[round.first].step->tiles;
    int64_t tasks = round.blocks ? blocks_ : 0;
    for (size_t s = round.first; s < round.end; s += size_t(entries_[s].step->joined_steps))
        tasks += tasks_of(*entries_[s].step);
    return tasks;
}

int64_t Executor::share_of(const Round &round, int thread, int threads) const {
    if (thread >= threads) return 0;
    if (round.kind == Round::chain) return thread == 0;
    if (round.kind == Round::strips) return part_of(tasks_of(round), thread, threads).size();
    int64_t tasks = round.blocks ? part_of(blocks_, thread, threads).size() : 0;
    for (size_t s = round.first; s < round.end; s += size_t(entries_[s].step->joined_steps))
        tasks += part_of(tasks_of(*entries_[s].step), thread, threads).size();
    return tasks;
}

int Executor::threads_of(const Round &round) const {
    const int64_t tasks = tasks_of(round);
    return tasks < threads_count_ ? int(tasks) : threads_count_;
}

// The thread's part of a round; then it helps the others, until all is done. False when something failed.
bool Executor::run_round(int index, const Round &round) {
    // Before it looks at what others have claimed, which takes that line from them: some 0.3 us.
    constexpr int grace = 32;
    Thread &thread = threads_[size_t(index)];
    const int threads = threads_of(round);
    shares_.next_round(index, [&](int owner) { return share_of(round, owner, threads); });
    Shares::Claim claim;
    int64_t done = 0;
    for (; shares_.claim_own(index, claim); done++)
        if (!run_claimed(thread, round, threads, claim) || failed_.load(std::memory_order_relaxed)) return false;
    if (done) shares_.add_done(index, done);

    Backoff backoff(crowded_);
    bool all_claimed = false;
    for (int waits = 0; !shares_.complete(index); waits++) {
        if (failed_.load(std::memory_order_relaxed)) return false;
        if (waits >= grace && !all_claimed) {
            if (shares_.claim_others(index, claim)) {
                if (!run_claimed(thread, round, threads, claim)) return false;
                shares_.add_done(index, 1);
                continue;
            }
            all_claimed = true;
        }
        if (!backoff.wait()) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
}

// All rounds of the run. Thread 0 keeps the phases' times.
void Executor::follow(int index) {
    FloatMode mode;
    HalideErrors errors;
    shares_.enter(index);
    const bool profiling = profiling_ && index == 0;
    double start = profiling ? seconds_now() : 0;
    for (size_t r = first_round_; r < end_round_; r++) {
        const Round &round = rounds_[r];
        if (!run_round(index, round)) return;
        if (offended_.load(std::memory_order_relaxed)) return;
        if (!profiling || (r + 1 < end_round_ && rounds_[r + 1].phase == round.phase)) continue;
        const double now = seconds_now();
        phases_[size_t(round.phase)].seconds += now - start;
        phases_[size_t(round.phase)].runs++;
        start = now;
    }
}

void Executor::task(void *self, int i) { static_cast<Executor *>(self)->follow(i); }

} // namespace cryolite::runtime
