// Work that may crash or hang, in a process of its own.
#ifndef CRYOLITE_TUNE_CHILD_H
#define CRYOLITE_TUNE_CHILD_H

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace cryolite {

// A fork that runs `work` and hands its text back. The calling process must have one thread. Killed when it takes
// longer than `seconds`, when the object dies, and with the calling process.
class Child {
public:
    // cores: where it may run; empty: anywhere.
    Child(const std::function<std::string()> &work, double seconds, const std::vector<int> &cores = {});
    ~Child();
    Child(const Child &) = delete;
    Child &operator=(const Child &) = delete;

    // Reads what has come, without waiting; true once it is over.
    bool finished();
    bool succeeded() const { return failure_.empty(); }
    const std::string &text() const { return text_; }       // what work returned
    const std::string &failure() const { return failure_; } // "crashed: Segmentation fault", what work threw, ...

    // A wish, from now on.
    void run_on(const std::vector<int> &cores) const;

    // Until one of them has news or its time is over, at most `seconds`.
    static void wait(const std::vector<Child *> &children, double seconds);

private:
    using Clock = std::chrono::steady_clock;
    void end(int status);
    pid_t pid_ = -1;
    int pipe_ = -1;
    double seconds_;
    Clock::time_point deadline_;
    std::string text_, failure_;
};

// Cores that this process may run on.
std::vector<int> usable_cores();

} // namespace cryolite
#endif
