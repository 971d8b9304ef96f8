// Worker threads. Between two runs a worker spins or yields, then it sleeps: the model of an idle program burns
// nothing.
#include "pool.h"

#include "backoff.h"

#include <new>
#include <system_error>

namespace cryolite::runtime {

bool Pool::start(int threads) {
    crowded_ = more_than_cores(threads);
    if (threads <= 1) return true;
    threads_ = new (std::nothrow) std::thread[size_t(threads - 1)];
    if (!threads_) return false;
    try {
        for (; workers_ < threads - 1; workers_++)
            threads_[workers_] = std::thread([this, index = workers_ + 1] { work(index); });
    } catch (const std::exception &) { return false; }
    return true;
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        quit_.store(true);
    }
    wake_.notify_all();
    for (int i = 0; i < workers_; i++) threads_[i].join();
    delete[] threads_;
}

void Pool::run(int tasks, Task task, void *user) {
    if (tasks <= 1 || workers_ == 0) {
        task(user, 0);
        return;
    }
    if (tasks_ != tasks || task_ != task || user_ != user) { // else the workers' cores need not read it again
        tasks_ = tasks;
        task_ = task;
        user_ = user;
    }
    // Nobody is inside and the last job is closed, so that only this thread changes the state.
    uint64_t opened = ((state_.load(std::memory_order_relaxed) & ~(open | inside)) + one_generation) | open;
    state_.store(opened); // sequentially consistent, as in sleep(): either we see the sleeper, or it sees the job
    if (sleepers_.load() > 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    task(user, 0);
    uint64_t state = state_.fetch_and(~open, std::memory_order_acq_rel);
    for (Backoff backoff(crowded_); state & inside; state = state_.load(std::memory_order_acquire)) backoff.wait();
}

void Pool::sleep(uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return quit_.load() || generation(state_.load()) != seen; });
    sleepers_.fetch_sub(1);
}

// Returns the generation of a job after `seen`, and the state it was seen in; or `seen` when the pool ends.
uint64_t Pool::await(uint64_t seen, uint64_t &state) {
    for (Backoff backoff(crowded_);;) {
        state = state_.load(std::memory_order_acquire);
        if (generation(state) != seen) return generation(state);
        if (quit_.load(std::memory_order_relaxed)) return seen;
        if (!backoff.wait()) sleep(seen);
    }
}

void Pool::work(int index) {
    uint64_t seen = 0, state = 0;
    for (;;) {
        uint64_t next = await(seen, state);
        if (next == seen) return;
        seen = next;
        // Joining is what makes tasks_, task_ and user_ stable: read them after. A job missed is no loss.
        bool joined = false;
        while (!joined && (state & open) && generation(state) == seen)
            joined = state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel);
        if (!joined) continue;
        if (index < tasks_) task_(user_, index);
        state_.fetch_sub(1, std::memory_order_release);
    }
}

} // namespace cryolite::runtime
