// Reads logs of `train` and draws them.
#include "curves.h"

#include "compiler/data/idx.h"
#include "compiler/data/whole_file.h"
#include "svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

namespace cryolite {

namespace {

constexpr size_t max_log_bytes = size_t(64) << 20;
constexpr const char *colours[] = {"#0b5fa5", "#c8500a", "#74b3e0", "#f2a35e"};

std::vector<std::string_view> split(std::string_view line, char separator) {
    std::vector<std::string_view> parts;
    for (size_t end; (end = line.find(separator)) != line.npos; line.remove_prefix(end + 1))
        parts.push_back(line.substr(0, end));
    parts.push_back(line);
    return parts;
}

// ---------------------------------------------------------------------------------------------------------------------
// Logs

struct Columns {
    std::map<std::string, size_t> index;
    std::string path;
    size_t line = 0;

    [[noreturn]] void fail(const std::string &message) const {
        throw DataError(fmt::format("'{}' line {}: {}", path, line, message));
    }
    size_t at(const std::string &name) const {
        auto found = index.find(name);
        if (found == index.end()) fail("there is no column " + name);
        return found->second;
    }
    double number(std::string_view text) const {
        double value = 0;
        auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
            fail(fmt::format("'{}' is no number", text.substr(0, 40)));
        return value;
    }
};

// Turns means since the start of an epoch into means since the row before.
class Between {
public:
    double next(double epoch, double mean, bool epoch_ends) {
        if (start_ < 0)
            start_ = last_ = std::max(0.0, std::ceil(epoch - 1e-3) - 1); // a log may go on with a later epoch
        double sum = mean * (epoch - start_);
        double between = epoch > last_ ? (sum - sum_) / (epoch - last_) : mean;
        sum_ = epoch_ends ? 0 : sum;
        last_ = epoch;
        if (epoch_ends) start_ = epoch;
        return between;
    }

private:
    double start_ = -1, last_ = -1, sum_ = 0;
};

} // namespace

Curve read_curve(const std::string &label, const std::string &path) {
    const std::string text = read_whole_file(path, max_log_bytes);
    Columns columns{{}, path, 1};
    Curve curve{label, {}, {}, {}};
    Between loss, accuracy;
    size_t width = 0;
    for (std::string_view line : split(text, '\n')) {
        if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
        std::vector<std::string_view> cells = split(line, ',');
        if (columns.line == 1) {
            width = cells.size();
            for (size_t i = 0; i < width; i++) columns.index.emplace(std::string(cells[i]), i);
            for (const char *name : {"epoch", "train_loss", "train_accuracy", "test_accuracy"}) columns.at(name);
        } else if (!line.empty()) {
            if (cells.size() != width) columns.fail(fmt::format("{} cells, {} columns", cells.size(), width));
            double epoch = columns.number(cells[columns.at("epoch")]);
            std::string_view test = cells[columns.at("test_accuracy")];
            auto mean = [&](Between &between, const char *name) {
                return Point{epoch, between.next(epoch, columns.number(cells[columns.at(name)]), !test.empty())};
            };
            curve.train_loss.push_back(mean(loss, "train_loss"));
            curve.train_accuracy.push_back(mean(accuracy, "train_accuracy"));
            if (!test.empty()) curve.test_accuracy.push_back({epoch, columns.number(test)});
        }
        columns.line++;
    }
    if (curve.train_loss.empty()) throw DataError("'" + path + "' holds no rows");
    return curve;
}

// ---------------------------------------------------------------------------------------------------------------------
// Drawing

namespace {

// 1, 2 or 5 times a power of ten, so that an axis of this length has at most `most` steps.
double tick_step(double length, int most) {
    double step = std::pow(10.0, std::floor(std::log10(length / most)));
    for (double factor : {1.0, 2.0, 5.0, 10.0})
        if (step * factor * most >= length * (1 - 1e-9)) return step * factor;
    return step * 10;
}

struct Axis {
    double low, high, step;
};
// From 0 or below what is there to above it, both ends at a tick.
Axis make_axis(double low, double high, int ticks) {
    if (!(high > low)) high = low + 1;
    double step = tick_step(high - low, ticks);
    return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step};
}

// One coordinate system with its frame, ticks and labels.
struct Panel {
    double left, top, width, height; // pixels
    Axis x, y;

    Point at(Point p) const {
        double right = (p.x - x.low) / (x.high - x.low), up = (p.y - y.low) / (y.high - y.low);
        return {left + width * std::clamp(right, 0.0, 1.0), top + height * (1 - std::clamp(up, 0.0, 1.0))};
    }

    std::string frame(const char *title) const {
        std::string svg =
            fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"head\">{}</text>\n", left, top - 12, title);
        auto steps = [](const Axis &axis) { return int(std::lround((axis.high - axis.low) / axis.step)); };
        for (int i = 0; i <= steps(y); i++) {
            double value = y.low + i * y.step, h = at({x.low, value}).y;
            svg += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/>\n", left,
                               h, left + width, h);
            svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"end\">{:.6g}</text>\n",
                               left - 8, h + 4, std::abs(value) < 1e-9 ? 0 : value);
        }
        for (int i = 0; i <= steps(x); i++) {
            double value = x.low + i * x.step, v = at({value, y.low}).x;
            svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"middle\">{:.6g}</text>\n",
                               v, top + height + 18, std::abs(value) < 1e-9 ? 0 : value);
        }
        svg += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" class=\"axis\"/>\n", left, top, top + height,
                           left + width);
        return svg + fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"tick\" text-anchor=\"middle\">epoch</text>\n",
                                 left + width / 2, top + height + 36);
    }

    std::string line(const std::vector<Point> &points, const char *colour, bool dashed) const {
        if (points.empty()) return {};
        std::string list;
        for (Point p : points) list += fmt::format("{}{:.1f},{:.1f}", list.empty() ? "" : " ", at(p).x, at(p).y);
        return fmt::format("<polyline points=\"{}\" stroke=\"{}\" class=\"{}\"/>\n", list, colour,
                           dashed ? "train" : "curve");
    }

    std::string dots(const std::vector<Point> &points, const char *colour) const {
        std::string svg;
        for (Point p : points)
            svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", at(p).x, at(p).y, colour);
        return svg;
    }
};

constexpr double panel_width = 400, panel_height = 270, margin = 56, gap = 72, panels_top = 84;
constexpr double picture_width = margin + panel_width + gap + panel_width + 28;

constexpr char style[] = ".tick, .key { font-size: 12px; }\n"
                         ".tick { fill: #555555; }\n"
                         ".grid { stroke: #e4e4e4; stroke-width: 1; }\n"
                         ".axis { stroke: #777777; stroke-width: 1; fill: none; }\n"
                         "polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }\n"
                         ".curve { stroke-width: 2.2; }\n"
                         ".train { stroke-width: 1.6; stroke-dasharray: 2 4; }\n";

// Two columns of curves, the meaning of dashes below.
std::string legend(const std::vector<Curve> &curves, double top) {
    std::string svg;
    for (size_t i = 0; i < curves.size(); i++) {
        double x = i % 2 ? margin + panel_width + gap : margin, y = top + double(i / 2) * 22;
        svg +=
            fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
                        "stroke-width=\"3\"/>\n<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"key\">{}</text>\n",
                        x, y, x + 28, y, colours[i % std::size(colours)], x + 38, y + 4, svg_escape(curves[i].label));
    }
    return svg;
}

} // namespace

std::string draw_curves(const std::string &title, const std::vector<Curve> &curves) {
    double epochs = 0, loss = 0, accuracy_low = 1;
    for (const Curve &curve : curves) {
        for (Point p : curve.train_loss) epochs = std::max(epochs, p.x), loss = std::max(loss, p.y);
        for (const auto *points : {&curve.train_accuracy, &curve.test_accuracy})
            for (Point p : *points) accuracy_low = std::min(accuracy_low, p.y);
    }
    Axis x = make_axis(0, epochs, 10);
    Panel left{margin, panels_top, panel_width, panel_height, x, make_axis(0, loss, 6)};
    Panel right{margin + panel_width + gap, panels_top, panel_width, panel_height, x, make_axis(accuracy_low, 1, 6)};
    double legend_top = panels_top + panel_height + 66;
    double picture_height = legend_top + std::ceil(double(curves.size()) / 2) * 22 + 4;

    std::string svg = svg_begin(title, picture_width, picture_height, margin, style);
    svg += left.frame("training loss");
    svg += right.frame("accuracy: test (solid), training (dotted)");
    for (size_t i = curves.size(); i-- > 0;) { // the first lie on top
        const Curve &curve = curves[i];
        const char *colour = colours[i % std::size(colours)];
        svg += left.line(curve.train_loss, colour, false);
        svg += right.line(curve.train_accuracy, colour, true);
        svg += right.line(curve.test_accuracy, colour, false);
        svg += right.dots(curve.test_accuracy, colour);
    }
    return svg + legend(curves, legend_top) + "</svg>\n";
}

} // namespace cryolite
