// Drawn with a carriage return and the terminal's erase-to-end-of-line; the line is cut at the terminal's width.
#include "progress.h"

#include <fmt/format.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cryolite {

static bool terminal() {
    const char *kind = std::getenv("TERM");
    return isatty(STDERR_FILENO) && kind && std::strcmp(kind, "dumb");
}

static size_t columns() {
    winsize size = {};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string duration_text(double seconds) {
    auto total = int64_t(std::clamp(seconds, 0.0, 359999.0) + 0.5);
    int64_t hours = total / 3600, minutes = total / 60 % 60;
    if (hours) return fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60);
    return fmt::format("{}:{:02}", minutes, total % 60);
}

std::string bar_text(int64_t done, int64_t total, int width) {
    auto filled = size_t(total > 0 ? std::clamp(done, int64_t(0), total) * width / total : 0);
    return "[" + std::string(filled, '#') + std::string(size_t(width) - filled, '-') + "]";
}

Progress::Progress(std::string title) : title_(std::move(title)), visible_(terminal()), start_(Clock::now()) {}

void Progress::update(int64_t done, int64_t total, const std::string &note, double remaining) {
    if (!visible_) return;
    Clock::time_point now = Clock::now();
    if (drawn_ && done < total && now - last_ < std::chrono::milliseconds(100)) return;
    double passed = std::chrono::duration<double>(now - start_).count();
    if (remaining < 0) remaining = done > 0 ? passed / double(done) * double(total - done) : 0;
    std::string rest =
        fmt::format(" {:>3}%  {} left  {}", total > 0 ? done * 100 / total : 100, duration_text(remaining), note);
    // The bar takes what the numbers leave.
    int width = std::clamp(int(columns()) - int(title_.size() + rest.size()) - 4, 6, 24);
    std::string line = title_ + " " + bar_text(done, total, width) + rest;
    line.resize(std::min(line.size(), columns() - 1));
    fmt::print(stderr, "\r{}\x1b[K", line);
    std::fflush(stderr);
    drawn_ = true;
    last_ = now;
}

void Progress::retitle(const std::string &title) { title_ = title; }

void Progress::clear() {
    if (!drawn_) return;
    fmt::print(stderr, "\r\x1b[K");
    std::fflush(stderr);
    drawn_ = false;
}

} // namespace cryolite
