// The child writes one byte, whether it went well, and its text into a pipe, and leaves without destructors.
#include "child.h"

#include "../graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cryolite {

namespace {

constexpr char good = '+', bad = '-';

void write_all(int file, const std::string &text) {
    for (size_t at = 0; at < text.size();) {
        const ssize_t wrote = write(file, text.data() + at, text.size() - at);
        if (wrote < 0 && errno != EINTR) return;
        if (wrote > 0) at += size_t(wrote);
    }
}

void pin(pid_t process, const std::vector<int> &cores) {
    if (cores.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int core : cores) CPU_SET(core, &set);
    sched_setaffinity(process, sizeof set, &set);
}

[[noreturn]] void live(const std::function<std::string()> &work, int file, const std::vector<int> &cores) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::signal(SIGINT, SIG_IGN); // the parent's business
    for (int crash : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) std::signal(crash, SIG_DFL);
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (int null = open("/dev/null", O_WRONLY); null >= 0) dup2(null, STDERR_FILENO);
    pin(0, cores);
    try {
        write_all(file, good + work());
    } catch (const std::exception &error) { write_all(file, std::string(1, bad) + error.what()); } catch (...) {
        write_all(file, std::string(1, bad) + "unknown exception");
    }
    _exit(0);
}

} // namespace

Child::Child(const std::function<std::string()> &work, double seconds, const std::vector<int> &cores)
    : seconds_(seconds),
      deadline_(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw InternalError("no pipe for a child process");
    pid_ = fork();
    if (pid_ == 0) {
        close(ends[0]);
        live(work, ends[1], cores);
    }
    close(ends[1]);
    pipe_ = ends[0];
    fcntl(pipe_, F_SETFL, O_NONBLOCK);
    if (pid_ < 0) {
        close(pipe_);
        throw InternalError(std::string("no child process: ") + std::strerror(errno));
    }
}

Child::~Child() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    if (pipe_ >= 0) close(pipe_);
}

bool Child::finished() {
    if (pid_ < 0) return true;
    char bytes[1 << 16];
    ssize_t count;
    while ((count = read(pipe_, bytes, sizeof bytes)) > 0) text_.append(bytes, size_t(count));
    const bool closed = count == 0, late = Clock::now() >= deadline_;
    if (!closed && !late) return false;
    if (!closed) kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    if (!closed)
        failure_ = fmt::format("it took longer than {:g} s", seconds_);
    else
        end(status);
    return true;
}

void Child::end(int status) {
    if (WIFSIGNALED(status))
        failure_ = std::string("it crashed: ") + strsignal(WTERMSIG(status));
    else if (text_.empty())
        failure_ = "it ended without a word";
    else if (text_[0] == bad)
        failure_ = text_.substr(1);
    text_.erase(0, 1);
}

void Child::run_on(const std::vector<int> &cores) const {
    if (pid_ > 0) pin(pid_, cores);
}

void Child::wait(const std::vector<Child *> &children, double seconds) {
    std::vector<pollfd> files;
    Clock::time_point until = Clock::now() + std::chrono::milliseconds(int64_t(seconds * 1e3));
    for (Child *child : children) {
        if (child->pid_ < 0) return;
        files.push_back({child->pipe_, POLLIN, 0});
        until = std::min(until, child->deadline_);
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    poll(files.data(), files.size(), int(std::max<int64_t>(left + 1, 0)));
}

std::vector<int> usable_cores() {
    cpu_set_t set;
    std::vector<int> cores;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set)) cores.push_back(core);
    return cores;
}

} // namespace cryolite
