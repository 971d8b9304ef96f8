// How a thread waits for another: it spins for about a tenth of a millisecond, then yields for about two. Where there
// are more threads than cores it gives way at once.
#ifndef CRYOLITE_RUNTIME_BACKOFF_H
#define CRYOLITE_RUNTIME_BACKOFF_H

#include <chrono>
#include <thread>

namespace cryolite::runtime {

inline bool more_than_cores(int threads) { return threads > int(std::thread::hardware_concurrency()); }

class Backoff {
public:
    explicit Backoff(bool crowded) : spun_(crowded ? spins : 0) {}

    // Waits a little. False once the patience is over: the caller may sleep, or go on.
    bool wait() {
        if (spun_ < spins) {
            spun_++;
            pause();
            return true;
        }
        const auto now = std::chrono::steady_clock::now();
        if (start_ == std::chrono::steady_clock::time_point()) start_ = now;
        std::this_thread::yield();
        return now - start_ < patience;
    }

private:
    static constexpr int spins = 4000;
    static constexpr auto patience = std::chrono::milliseconds(2);

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("isb");
#endif
    }

    int spun_;
    std::chrono::steady_clock::time_point start_;
};

} // namespace cryolite::runtime
#endif
