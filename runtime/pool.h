// Persistent worker threads, cheap to call once a run.
//
// A call publishes a job and works on it itself; idle workers join while the job is open. The caller never waits for a
// worker that has not joined: with more threads than cores, or workers asleep, it does the work alone.
#ifndef CRYOLITE_RUNTIME_POOL_H
#define CRYOLITE_RUNTIME_POOL_H

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace cryolite::runtime {

using Task = void (*)(void *user, int i);

class Pool {
public:
    Pool() = default;
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    // Starts threads - 1 workers. False when the system has no more threads.
    bool start(int threads);

    // Runs task(user, 0) here and task(user, i) on workers that are free, each i below tasks at most once. For tasks
    // that share one queue of work: any of them alone finishes it.
    void run(int tasks, Task task, void *user);

private:
    void work(int index);
    uint64_t await(uint64_t seen, uint64_t &state);
    void sleep(uint64_t seen);

    // Generation of the job in the high half; the bit `open`; below it, the number of workers inside.
    static constexpr uint64_t one_generation = uint64_t(1) << 32, open = uint64_t(1) << 31, inside = open - 1;
    static uint64_t generation(uint64_t state) { return state >> 32; }

    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<bool> quit_{false};
    int tasks_ = 0; // of the job; stable while it is open or somebody is inside
    Task task_ = nullptr;
    void *user_ = nullptr;
    bool crowded_ = false; // more threads than cores: give way at once
    int workers_ = 0;
    std::thread *threads_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
};

} // namespace cryolite::runtime
#endif
