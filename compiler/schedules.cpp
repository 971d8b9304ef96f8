// Keys, text form and lookup of tuned schedules (schedules.h).
#include "schedules.h"

#include "generators_fingerprint.h" // made by the build
#include "schedule_database.h"
#include "shipped_schedules.h" // made by the build: generators/schedules/*.schedules

#include "lanes.h"

#include <Halide.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

namespace cryolite {

namespace {

// Extents that a schedule may be carried over: it need not divide them. All else must be equal.
const std::set<std::string> extents = {"n", "c", "h", "w", "k", "tile", "max_batch"};
// The largest ratio, over all extents together, that a schedule is carried over.
constexpr double farthest = 2.5;

using Words = std::map<std::string, std::string>;

Words words(const std::string &text) {
    Words result;
    std::istringstream in(text);
    for (std::string word; in >> word;) {
        size_t equal = word.find('=');
        result[word.substr(0, equal)] = equal == std::string::npos ? "" : word.substr(equal + 1);
    }
    return result;
}

// How far apart two shapes are, as the sum of the logarithms of their extents' ratios; infinite: not comparable.
double distance(const std::string &a, const std::string &b) {
    if (a == b) return 0;
    const Words wa = words(a), wb = words(b);
    if (wa.size() != wb.size()) return INFINITY;
    double sum = 0;
    for (auto &[name, value] : wa) {
        auto other = wb.find(name);
        if (other == wb.end()) return INFINITY;
        if (value == other->second) continue;
        const double x = std::atof(value.c_str()), y = std::atof(other->second.c_str());
        if (!extents.count(name) || !(x > 0) || !(y > 0)) return INFINITY;
        sum += std::abs(std::log(x / y));
    }
    return sum;
}

std::vector<std::string> split(const std::string &line, const std::string &between) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (size_t next; (next = line.find(between, at)) != std::string::npos; at = next + between.size())
        parts.push_back(line.substr(at, next - at));
    parts.push_back(line.substr(at));
    return parts;
}

double number(const std::string &text) {
    char *end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end || !std::isfinite(value) || value < 0)
        throw CompileError("'" + text + "' is no number of a schedule");
    return value;
}

std::string source_of(const std::string &generator) {
    const std::string file = tuning_file(generator);
    for (auto &source : generator_sources)
        if (file == source.file) return source.hash;
    return generators_fingerprint;
}

constexpr char between[] = " | ";

} // namespace

std::string ScheduleKey::text() const {
    return fmt::format("{} | {} | {} {} | {} {} | {} {}", generator, shape, type, path, target, cpu, halide, source);
}

std::string print(const Knobs &knobs) {
    std::string text;
    for (auto &[name, value] : knobs)
        if (value) text += (text.empty() ? "" : " ") + name + "=" + std::to_string(value);
    return text.empty() ? "own" : text;
}

Knobs parse_knobs(const std::string &text) {
    Knobs knobs;
    if (text == "own") return knobs;
    for (auto &[name, value] : words(text)) {
        const bool digits = !value.empty() && value.size() <= 9 && value.find_first_not_of("0123456789") == value.npos;
        if (name.empty() || !digits) throw CompileError("'" + text + "' are no knobs of a schedule");
        if (int v = std::atoi(value.c_str())) knobs[name] = v;
    }
    return knobs;
}

std::string print(const TunedSchedule &s) {
    return fmt::format("{} | {} | {:.4g} s, own {:.4g} s, spread {:.2g}, error {:.2g} | {} | {}", s.key.text(),
                       print(s.knobs), s.seconds, s.own_seconds, s.spread, s.error, s.made, s.machine);
}

TunedSchedule parse_schedule(const std::string &line) {
    const std::vector<std::string> part = split(line, between);
    auto wrong = [&]() { return CompileError("'" + line.substr(0, 80) + "' is no line of schedules"); };
    if (part.size() != 9) throw wrong();
    const std::vector<std::string> kind = split(part[2], " "), machine = split(part[3], " "),
                                   made_by = split(part[4], " "), figures = split(part[6], ", ");
    if (kind.size() != 2 || machine.size() != 2 || made_by.size() != 2 || figures.size() != 4) throw wrong();
    auto figure = [&](int i, const std::string &before, const std::string &after) {
        const std::string &text = figures[size_t(i)];
        if (text.size() < before.size() + after.size() || !text.starts_with(before) || !text.ends_with(after))
            throw wrong();
        return number(text.substr(before.size(), text.size() - before.size() - after.size()));
    };
    return {.key = {part[0], part[1], kind[0], kind[1], machine[0], machine[1], made_by[0], made_by[1]},
            .knobs = parse_knobs(part[5]),
            .seconds = figure(0, "", " s"),
            .own_seconds = figure(1, "own ", " s"),
            .spread = figure(2, "spread ", ""),
            .error = figure(3, "error ", ""),
            .made = part[7],
            .machine = part[8]};
}

std::string print(const std::vector<TunedSchedule> &schedules) {
    std::set<std::string> lines;
    for (const TunedSchedule &schedule : schedules) lines.insert(print(schedule));
    return fmt::format("{}\n", fmt::join(lines, "\n"));
}

std::vector<TunedSchedule> parse_schedules(const std::string &text) {
    std::vector<TunedSchedule> schedules;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);)
        if (!line.empty() && line[0] != '#') schedules.push_back(parse_schedule(line));
    return schedules;
}

TuningSpace tuning_space(const KernelSpec &kernel, const KernelTarget &target) {
    const Halide::Target halide(target.name);
    const int lanes = int(target.lanes), vector = halide.natural_vector_size<float>();
    KernelShape shape(kernel.parameters, target.gpu ? Registers{} : registers_of(halide, lanes), lanes, vector);
    shape.gpu = target.gpu;
    return tuning_space(kernel.generator, shape);
}

static ScheduleKey make_key(const std::string &generator, const std::string &shape, const char *path,
                            const KernelTarget &target) {
    return {.generator = generator,
            .shape = shape,
            .type = "f32",
            .path = path,
            .target = target.device.empty() ? target.name : target.device,
            .cpu = target.cpu,
            .halide = fmt::format("{}.{}.{}", HALIDE_VERSION_MAJOR, HALIDE_VERSION_MINOR, HALIDE_VERSION_PATCH),
            .source = source_of(generator)};
}

ScheduleKey schedule_key(const KernelSpec &kernel, const KernelTarget &target) {
    KernelSpec shape = kernel;
    for (const Knob &knob : tuning_space(kernel, target).knobs) shape.parameters.erase(knob.name);
    shape.parameters.erase("program"); // what is behind a convolution does not change which schedule is best
    const std::string text = shape.key();
    const char *path = kernel.parameters.count("lanes") ? "lanes" : "channels";
    return make_key(kernel.generator, text.substr(std::min(text.size(), kernel.generator.size() + 1)), path, target);
}

ScheduleKey decision_key(const std::string &kind, const std::string &about, const KernelTarget &target) {
    return make_key(kind, about, "lanes", target);
}

KernelSpec with_knobs(KernelSpec kernel, const Knobs &knobs) {
    for (auto &[name, value] : knobs)
        if (value) kernel.parameters[name] = std::to_string(value);
    return kernel;
}

void Schedules::add(std::vector<TunedSchedule> schedules) {
    for (TunedSchedule &schedule : schedules) by_generator_.emplace(schedule.key.generator, std::move(schedule));
}

Knobs Schedules::find(const KernelSpec &kernel, const KernelTarget &target, bool nearest) const {
    auto [begin, end] = by_generator_.equal_range(kernel.generator);
    if (begin == end) return {};
    const ScheduleKey key = schedule_key(kernel, target);
    const TuningSpace space = tuning_space(kernel, target);
    const TunedSchedule *best = nullptr;
    double best_distance = nearest ? std::log(farthest) : 0;
    for (auto it = begin; it != end; ++it) {
        ScheduleKey other = it->second.key;
        const double apart = distance(key.shape, other.shape);
        other.shape = key.shape;
        if (target.gpu && key.cpu == "any") other.cpu = key.cpu; // what was found on one device is better than nothing
        const bool nearer = best ? apart < best_distance : apart <= best_distance;
        if (other != key || !nearer || !space.refusal(it->second.knobs).empty()) continue;
        best = &it->second;
        best_distance = apart;
    }
    return best ? best->knobs : Knobs{};
}

std::shared_ptr<Choices> Schedules::choices(const KernelTarget &target) const {
    auto choices = std::make_shared<Choices>();
    for (const char *kind : decision_kinds) {
        auto [begin, end] = by_generator_.equal_range(kind);
        for (auto it = end; it != begin;) { // earlier added ones are set last
            const ScheduleKey &key = (--it)->second.key;
            if (key == decision_key(kind, key.shape, target)) choices->set(kind, key.shape, it->second.knobs);
        }
    }
    return choices;
}

Schedules load_schedules(const std::string &file) {
    static const std::vector<TunedSchedule> shipped = parse_schedules(shipped_schedules);
    Schedules schedules;
    if (!file.empty()) schedules.add(ScheduleDatabase(file, ScheduleDatabase::read).all());
    schedules.add(shipped);
    return schedules;
}

} // namespace cryolite
