// Sums of a profile, and its picture.
#include "tools/profile.h"

#include "svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace cryolite {

double PhaseTime::kernel_seconds() const {
    double sum = 0;
    for (const KernelTime &time : kernels) sum += time.seconds;
    return sum;
}

double Profile::kernel_seconds() const {
    double sum = 0;
    for (const PhaseTime &phase : phases) sum += phase.kernel_seconds();
    return sum;
}

namespace {

constexpr double margin = 32, width = 960, legend_top = 102, line_height = 20;
constexpr double row_height = 46, row_pitch = 66;
constexpr int rows = 8;
constexpr size_t listed = 12;
constexpr const char *colours[] = {"#0b5fa5", "#c8500a", "#2f8f4e", "#8a4fb0", "#b8860b", "#c2418a", "#2a9d9d"};
constexpr const char *other = "#6b6b6b", *waiting = "#dddddd";

constexpr char style[] = ".text { font-size: 12px; }\n"
                         ".note { font-size: 12px; fill: #555555; }\n"
                         ".phase { font-size: 10px; fill: #555555; }\n"
                         ".in { font-size: 10.5px; fill: #000000; }\n"
                         ".bound { stroke: #222222; stroke-width: 1; }\n";

std::string text(double x, double y, const char *css, const std::string &words, const char *anchor = "start") {
    return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\" text-anchor=\"{}\">{}</text>\n", x, y, css, anchor,
                       svg_escape(words));
}

std::string shortened(const std::string &words, size_t length) {
    return words.size() <= length ? words : words.substr(0, length - 3) + "...";
}

// Generators by their share of the time, the greatest first; each of the first ones has a colour of its own.
struct Palette {
    std::vector<std::pair<std::string, double>> seconds;

    explicit Palette(const Profile &profile) {
        std::map<std::string, double> sums;
        for (const PhaseTime &phase : profile.phases)
            for (const KernelTime &time : phase.kernels) sums[time.generator()] += time.seconds;
        seconds.assign(sums.begin(), sums.end());
        std::stable_sort(seconds.begin(), seconds.end(), [](auto &a, auto &b) { return a.second > b.second; });
    }
    const char *colour(const std::string &generator) const {
        for (size_t i = 0; i < std::min(seconds.size(), std::size(colours)); i++)
            if (seconds[i].first == generator) return colours[i];
        return other;
    }
    // One entry a colour: the named ones, the others together, waiting.
    std::string legend(const Profile &profile) const {
        std::vector<std::tuple<const char *, std::string, double>> entries;
        double rest = 0;
        for (size_t i = 0; i < seconds.size(); i++) {
            if (i < std::size(colours))
                entries.emplace_back(colours[i], seconds[i].first, seconds[i].second);
            else
                rest += seconds[i].second;
        }
        if (rest > 0) entries.emplace_back(other, "others", rest);
        entries.emplace_back(waiting, "waiting", profile.waiting_share() * profile.thread_seconds());
        std::string svg;
        for (size_t i = 0; i < entries.size(); i++) {
            const auto &[colour, name, sum] = entries[i];
            const double x = margin + double(i % 3) * (width - 2 * margin) / 3;
            const double y = legend_top + double(i / 3) * line_height;
            svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"12\" fill=\"{}\"/>\n", x, y - 10,
                               colour);
            svg += text(x + 20, y, "text",
                        fmt::format("{} {:.1f}%", name, 100 * sum / std::max(profile.thread_seconds(), 1e-12)));
        }
        return svg;
    }
    double height() const { return double((std::min(seconds.size(), std::size(colours) + 1) + 3) / 3) * line_height; }
};

// The step from left to right in rows of equal time.
class Ribbon {
public:
    Ribbon(double top, double seconds) : top_(top), scale_(seconds > 0 ? rows / seconds : 0) {}

    // A piece of the step from where the last one ended. roof: the dark part of its height, 0 to 1.
    void add(double seconds, const char *colour, double roof, const std::string &label, const std::string &hint) {
        double length = std::max(seconds, 0.0) * scale_; // in rows
        if (length * row_width < least) {
            at_ += length;
            return;
        }
        svg_ += "<g><title>" + svg_escape(hint) + "</title>\n";
        bool labelled = label.empty();
        while (length > 1e-9 && at_ < rows - 1e-9) {
            const int row = int(at_ + 1e-9);
            const double part = std::min(length, row + 1 - at_);
            const double x = margin + (at_ - row) * row_width, y = top_ + row * row_pitch, w = part * row_width;
            svg_ += rectangle(x, y, w, row_height, colour, roof < 1 ? 0.4 : 1);
            if (roof > 0 && roof < 1)
                svg_ += rectangle(x, y + row_height * (1 - roof), w, row_height * roof, colour, 1);
            if (!labelled && w > 6.4 * double(label.size()) + 4) {
                svg_ += text(x + 3, y + 13, "in", label);
                labelled = true;
            }
            at_ += part;
            length -= part;
        }
        svg_ += "</g>\n";
    }

    // The mark where a phase begins; its number where there is room since the last one.
    void begin_phase(int phase) {
        const int row = std::min(int(at_ + 1e-9), rows - 1);
        const double x = margin + (at_ - row) * row_width, y = top_ + row * row_pitch;
        svg_ += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" class=\"bound\"/>\n", x,
                            y - 4, y + row_height);
        if (row == last_row_ && x < last_x_ + 26) return;
        svg_ += text(x + 3, y - 3, "phase", std::to_string(phase));
        last_row_ = row;
        last_x_ = x;
    }
    std::string svg() const { return svg_; }

private:
    static std::string rectangle(double x, double y, double w, double h, const char *colour, double opacity) {
        return fmt::format("<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\" "
                           "fill-opacity=\"{}\"/>\n",
                           x, y, w, h, colour, opacity);
    }

    static constexpr double row_width = width - 2 * margin, least = 0.3; // pixels; less is not seen
    double top_, scale_, at_ = 0, last_x_ = 0;                           // at_ in rows
    int last_row_ = -1;
    std::string svg_;
};

std::string ribbon(const Profile &profile, const Palette &palette, double top) {
    Ribbon ribbon(top, profile.seconds);
    double rest = profile.seconds;
    for (const PhaseTime &phase : profile.phases) {
        ribbon.begin_phase(phase.phase);
        for (const KernelTime &time : phase.kernels)
            ribbon.add(time.seconds / profile.threads, palette.colour(time.generator()),
                       std::clamp(time.of_roof(), 0.0, 1.0), time.layer,
                       fmt::format("phase {}, layer {}: {:.4f} ms, {:.0f}% of the roof; {}", phase.phase, time.layer,
                                   time.seconds * 1e3, 100 * time.of_roof(), time.kernel));
        const double idle = phase.seconds - phase.kernel_seconds() / profile.threads;
        ribbon.add(idle, waiting, 1, "", fmt::format("phase {}: waiting {:.4f} ms", phase.phase, idle * 1e3));
        rest -= phase.seconds;
    }
    ribbon.add(rest, waiting, 1, "", "outside the phases");
    return ribbon.svg();
}

std::string losses(const Profile &profile, const Palette &palette, double top) {
    std::vector<const KernelTime *> times;
    for (const PhaseTime &phase : profile.phases)
        for (const KernelTime &time : phase.kernels) times.push_back(&time);
    auto lost = [](const KernelTime *time) { return time->seconds - time->least_seconds; };
    std::stable_sort(times.begin(), times.end(), [&](auto *a, auto *b) { return lost(a) > lost(b); });
    times.resize(std::min(times.size(), listed));
    std::string svg = text(margin, top, "head", "Furthest from the roof");
    const double columns[] = {width - margin - 190, width - margin - 120, width - margin - 60, width - margin};
    const char *heads[] = {"ms", "share", "of roof", "lost ms"};
    for (size_t i = 0; i < std::size(columns); i++) svg += text(columns[i], top, "note", heads[i], "end");
    for (size_t i = 0; i < times.size(); i++) {
        const KernelTime &time = *times[i];
        const double y = top + double(i + 1) * line_height;
        svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"12\" fill=\"{}\"/>\n", margin, y - 10,
                           palette.colour(time.generator()));
        svg += text(margin + 20, y, "text", shortened(time.layer, 22));
        svg += text(margin + 170, y, "note", shortened(time.kernel, 66));
        const std::string cells[] = {fmt::format("{:.3f}", time.seconds * 1e3),
                                     fmt::format("{:.1f}%", 100 * time.seconds / profile.thread_seconds()),
                                     fmt::format("{:.0f}%", 100 * time.of_roof()),
                                     fmt::format("{:.3f}", lost(&time) * 1e3)};
        for (size_t c = 0; c < std::size(cells); c++) svg += text(columns[c], y, "text", cells[c], "end");
    }
    return svg;
}

std::string facts(const Profile &profile) {
    std::string words = fmt::format("{:.3f} ms a step; one core: {:.0f} GFLOP/s of multiply-adds",
                                    profile.seconds * 1e3, profile.machine.fma_gflops);
    for (const MemoryLevel &level : profile.machine.levels)
        words += fmt::format(", {} {:.0f} GB/s", level.name, level.read);
    return words;
}

} // namespace

std::string draw_profile(const Profile &profile) {
    const Palette palette(profile);
    const double ribbon_top = legend_top + palette.height() + 20, losses_top = ribbon_top + rows * row_pitch + 14;
    const double height = losses_top + double(listed + 1) * line_height;
    std::string svg = svg_begin(profile.title, width, height, margin, style);
    svg += text(margin, 54, "note", facts(profile));
    svg += text(margin, 72, "note",
                "Width is time, phases are numbered; the dark part of a kernel is its share of the "
                "roof, the light part can be won.");
    svg += palette.legend(profile);
    svg += ribbon(profile, palette, ribbon_top);
    return svg + losses(profile, palette, losses_top) + "</svg>\n";
}

} // namespace cryolite
