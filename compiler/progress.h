// A bar on the terminal: how far, what the numbers are, how long it will take. Nothing where there is no terminal.
#ifndef CRYOLITE_PROGRESS_H
#define CRYOLITE_PROGRESS_H

#include <chrono>
#include <cstdint>
#include <string>

namespace cryolite {

// One line on stderr that is drawn over and over. It is wiped away at the end, and before other lines by clear().
class Progress {
public:
    explicit Progress(std::string title);
    ~Progress() { clear(); }
    Progress(const Progress &) = delete;
    Progress &operator=(const Progress &) = delete;

    bool visible() const { return visible_; }
    // Draws at most ten times a second, but always what is done. remaining: seconds until everything is done, or below
    // 0 to take it from the pace of this bar.
    void update(int64_t done, int64_t total, const std::string &note, double remaining = -1);
    void retitle(const std::string &title); // from the next update on
    void clear();

private:
    using Clock = std::chrono::steady_clock;
    std::string title_;
    bool visible_, drawn_ = false;
    Clock::time_point start_, last_;
};

std::string duration_text(double seconds); // "0:07", "12:34", "1:02:03"
// What a bar of `width` columns looks like: "[#####-----]".
std::string bar_text(int64_t done, int64_t total, int width);

} // namespace cryolite
#endif
