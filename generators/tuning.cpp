// The table of tuning spaces, and rules that several of them share (tuning.h).
#include "tuning.h"

#include <algorithm>
#include <cstdlib>

namespace cryolite {

namespace {

struct Entry {
    DescribeSpace describe = nullptr, describe_on_gpu = nullptr;
    std::string file;

    DescribeSpace on(bool gpu) const { return gpu ? describe_on_gpu : describe; }
};

std::map<std::string, Entry> &table() {
    static std::map<std::string, Entry> spaces;
    return spaces;
}

} // namespace

int KernelShape::integer(const std::string &name, int otherwise) const {
    auto found = parameters_.find(name);
    return found == parameters_.end() ? otherwise : std::atoi(found->second.c_str());
}

std::string KernelShape::text(const std::string &name) const {
    auto found = parameters_.find(name);
    return found == parameters_.end() ? "" : found->second;
}

std::string TuningSpace::refusal(const Knobs &given) const {
    for (auto &[name, value] : given) {
        auto known = std::find_if(knobs.begin(), knobs.end(), [&](const Knob &k) { return k.name == name; });
        if (known == knobs.end()) return "there is no knob " + name;
        if (value && std::find(known->values.begin(), known->values.end(), value) == known->values.end())
            return name + "=" + std::to_string(value) + " is not among its values";
    }
    size_t set = 0;
    for (const std::string &name : together) set += knob(given, name) != 0;
    if (set > 0 && set < together.size()) return "of the knobs that go together some are given";
    return refuse ? refuse(given) : "";
}

double TuningSpace::points() const {
    double product = 1;
    for (const Knob &k : knobs) product *= double(k.values.size() + 1);
    return product;
}

TuningSpace tuning_space(const std::string &generator, const KernelShape &shape) {
    auto found = table().find(generator);
    if (found == table().end() || !found->second.on(shape.gpu)) return {};
    return found->second.on(shape.gpu)(shape);
}

std::vector<std::string> tunable_generators(bool gpu) {
    std::vector<std::string> names;
    for (auto &[name, entry] : table())
        if (entry.on(gpu)) names.push_back(name);
    return names;
}

std::string tuning_file(const std::string &generator) {
    auto found = table().find(generator);
    return found == table().end() ? "" : found->second.file;
}

TuningRegistration::TuningRegistration(const char *generator, const char *file, DescribeSpace describe) {
    const std::string path = file;
    table()[generator].describe = describe;
    table()[generator].file = path.substr(path.rfind('/') + 1);
}

TuningRegistration::TuningRegistration(const char *generator, DescribeSpace describe_on_gpu) {
    table()[generator].describe_on_gpu = describe_on_gpu;
}

std::vector<int> from_one_to(int limit) {
    std::vector<int> values;
    for (int i = 1; i <= limit; i++) values.push_back(i);
    return values;
}

std::vector<int> divisors(int n, int limit) {
    std::vector<int> values;
    for (int d = 1; d <= std::min(n, limit); d++)
        if (n % d == 0) values.push_back(d);
    return values;
}

int knob(const Knobs &knobs, const std::string &name) {
    auto found = knobs.find(name);
    return found == knobs.end() ? 0 : found->second;
}

std::string refuse_accumulators(int values, int most, const Registers &registers) {
    if (values * registers.per_value > registers.count - 1)
        return std::to_string(values) + " sums of " + std::to_string(registers.per_value) + " registers, of " +
               std::to_string(registers.count);
    const int enough = 4; // two multiply-adds a cycle, latency four: eight would be, but operands wait as well
    if (values < std::min(enough, most)) return std::to_string(values) + " sums do not hide the latency of one";
    return "";
}

} // namespace cryolite
