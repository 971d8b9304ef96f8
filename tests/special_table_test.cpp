// Every op that PyTorch has, times NaN, infinities, -0, a denormal and a huge number: forward and gradient are what
// PyTorch gives (fixtures/make_special_values.py), from the float64 reference and from the kernels of every target.
//
// NaN is where PyTorch's is, infinities and zeros have its signs, other numbers are within 1e-5. Kernels run with
// denormals flushed to zero (runtime/float_mode.h): a denormal may be 0, in what they read and in what they write.
// Nothing else may be different but what the tables below name, with a reason.
#include "graph_fixture.h"
#include "run_kernels.h"

#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>
#include <limits>
#include <set>

using namespace cryolite;
using namespace cryolite::test;
using Json = nlohmann::json;
using Results = std::vector<std::vector<double>>;

namespace {

constexpr double smallest_normal = std::numeric_limits<float>::min();
const char *const reference = "float64";

// A difference that is meant. Prefixes of names; empty: any. program: the reference, or "kernels" for all targets.
struct Exception {
    const char *subject, *value, *where, *program, *reason;
};
const char *const norm = "PyTorch's batch norm is x * scale + (bias - mean * scale), which has inf - inf and roundings "
                         "that (x - mean) * scale + bias has not";
const char *const variance = "the variance, or a sum for its gradient, is not a float32 number: NaN where PyTorch's "
                             "double keeps a number or an infinity";
const char *const contraction = "dy * (1 - y) is contracted to dy - dy * y, inf - inf";
const char *const zeros_of_padding = "where a tile of the weight gradient holds several rows of the window, the zeros "
                                     "above and below the image are multiplied with dy: NaN where PyTorch skips them";
const Exception exceptions[] = {
    {"conv2d stride", "nan", "the result's gradient", "kernels", zeros_of_padding},
    {"conv2d stride", "inf", "the result's gradient", "kernels", zeros_of_padding},
    {"conv2d stride", "-inf", "the result's gradient", "kernels", zeros_of_padding},
    {"batch_norm", "inf", "weight", "", norm},
    {"batch_norm", "-inf", "weight", "", norm},
    {"batch_norm", "huge", "weight", "", norm},
    {"batch_norm evaluate", "-0", "bias", "", norm},
    {"batch_norm evaluate", "denormal", "bias", "", norm},
    {"batch_norm evaluate", "huge", "running mean", "kernels", norm},
    {"batch_norm train", "inf", "x", "kernels", variance},
    {"batch_norm train", "-inf", "x", "kernels", variance},
    {"batch_norm train", "huge", "", "kernels", variance},
    {"softmax_cross_entropy", "inf", "the result's gradient", "", "PyTorch takes (p - 1) dy as p * dy - dy, inf - inf"},
    {"softmax_cross_entropy", "-inf", "the result's gradient", "",
     "PyTorch takes (p - 1) dy as p * dy - dy, inf - inf"},
    {"sigmoid", "inf", "the result's gradient", "kernels", contraction},
    {"sigmoid", "-inf", "the result's gradient", "kernels", contraction},
    {"tanh", "inf", "the result's gradient", "kernels", contraction},
    {"tanh", "-inf", "the result's gradient", "kernels", contraction},
    {"div of two", "inf", "both", "kernels", "dy / b is flushed to 0 before it meets an infinite a / b"},
    {"div of two", "-inf", "both", "kernels", "dy / b is flushed to 0 before it meets an infinite a / b"},
    {"square", "huge", "x", "kernels", "dy * (2 * x) is taken as (dy * 2) * x, which does not overflow"},
};
// Where the sign of a zero is open.
const Exception signs[] = {
    {"max of two", "", "", "", "IEEE 754 leaves the sign of max(-0, 0) open"},
    {"min of two", "", "", "", "IEEE 754 leaves the sign of max(-0, 0) open"},
    {"softmax_cross_entropy", "", "", "", "a difference of equal numbers"},
    {"sum", "", "", "kernels", "the sum of nothing but -0 is -0; PyTorch begins with +0"},
    {"mean", "", "", "kernels", "the sum of nothing but -0 is -0; PyTorch begins with +0"},
    {"adaptive_avg_pool2d", "", "", "kernels", "the sum of nothing but -0 is -0; PyTorch begins with +0"},
    {"avg_pool2d", "", "", "kernels", "the sum of nothing but -0 is -0; PyTorch begins with +0"},
    {"max_pool2d", "", "the result's gradient", "kernels", "the sum of nothing but -0 is -0; PyTorch begins with +0"},
    {"max", "", "the result's gradient", "", "dy is added to a share that is 0"},
    {"min", "", "the result's gradient", "", "dy is added to a share that is 0"},
    {"tanh", "", "", "kernels", "kernels do not keep the sign of 0 in sums: x + x^3 p(x^2), dy - dy y"},
    {"sigmoid", "", "", "kernels", "kernels do not keep the sign of 0 in sums: x + x^3 p(x^2), dy - dy y"},
    {"batch_norm train", "", "", "kernels", "a sum of terms that cancel"},
};

enum class Verdict { ok, flushed, sign, different, hidden }; // hidden: a NaN became a number, which nothing excuses

constexpr double relative = 1e-5, nothing = 1e-50; // far below any float32 number

Verdict compare(double ours, double expected, bool kernels) {
    if (std::isnan(expected))
        return std::isnan(ours) ? Verdict::ok : std::isinf(ours) ? Verdict::different : Verdict::hidden;
    if (std::isinf(expected)) return ours == expected ? Verdict::ok : Verdict::different;
    if (ours == 0 && expected == 0) return std::signbit(ours) == std::signbit(expected) ? Verdict::ok : Verdict::sign;
    if (std::fabs(ours - expected) <= relative * std::fabs(expected)) return Verdict::ok;
    if (std::max(std::fabs(ours), std::fabs(expected)) < nothing) return Verdict::ok;
    if (kernels && ours == 0 && std::fabs(expected) < smallest_normal) return Verdict::flushed;
    return Verdict::different;
}

struct Check {
    Verdict verdict = Verdict::ok;
    std::string text; // what is different
};

Check compare(const Results &ours, const Json &expected, bool kernels) {
    Check check;
    for (size_t r = 0; r < ours.size(); r++) {
        if (expected.at(r).is_null()) continue;
        std::vector<double> numbers = read_numbers(expected.at(r));
        if (numbers.size() != ours[r].size()) return {Verdict::different, "another size"};
        for (size_t i = 0; i < numbers.size(); i++) {
            Verdict verdict = compare(ours[r][i], numbers[i], kernels);
            check.verdict = std::max(check.verdict, verdict);
            if (verdict == Verdict::ok || verdict == Verdict::flushed) continue;
            char text[200];
            std::snprintf(text, sizeof text, " result %zu [%zu] %.7g not %.7g;", r, i, ours[r][i], numbers[i]);
            check.text += text;
        }
    }
    return check;
}

// What a case says for the reference, or for kernels.
Check check_case(const Results &ours, const Json &c, bool kernels) {
    Check check = compare(ours, c.at(!kernels && c.contains("double") ? "double" : "results"), kernels);
    if (check.verdict <= Verdict::flushed || !kernels || !c.contains("flushed")) return check;
    Check flushed = compare(ours, c.at("flushed"), kernels);
    if (flushed.verdict >= check.verdict) return check;
    return {std::max(flushed.verdict, Verdict::flushed), flushed.text};
}

template <size_t count>
const Exception *find(const Exception (&table)[count], const std::string &subject, const Json &c,
                      const std::string &program) {
    auto fits = [](const std::string &prefix, const std::string &text) { return text.starts_with(prefix); };
    for (const Exception &e : table)
        if (fits(e.subject, subject) && (e.value == std::string() || e.value == c.at("value")) &&
            fits(e.where, c.at("where")) && fits(e.program, program == reference ? program : "kernels"))
            return &e;
    return nullptr;
}

struct Cell {
    int cases = 0, flushed = 0, sign = 0, excepted = 0;
};

const std::vector<const char *> &values() {
    static const std::vector<const char *> names = {"nan", "inf", "-inf", "-0", "denormal", "huge"};
    return names;
}

class SpecialTable : public testing::TestWithParam<std::string> {
protected:
    std::map<std::string, std::map<std::string, Cell>> table; // by op, by value
    std::map<std::string, int> reasons;
    static inline std::set<const Exception *> used;
    static inline size_t programs_run = 0;

    // Where every program has run: an exception that nothing needs.
    static void TearDownTestSuite() {
        if (programs_run < 4) return;
        auto check = [](const Exception &e) {
            EXPECT_TRUE(used.count(&e)) << "not needed: " << e.subject << " x " << e.value << " in " << e.where;
        };
        for (const Exception &e : exceptions) check(e);
        for (const Exception &e : signs) check(e);
    }

    void check(const Json &subject) {
        const std::string name = subject.at("name"), program = GetParam();
        const bool kernels = program != reference;
        GraphFixture fixture(subject);
        std::unique_ptr<KernelGraph> compiled;
        if (kernels) compiled = std::make_unique<KernelGraph>(fixture.graph, KernelOptions{.target = program});
        for (const Json &c : subject.at("cases")) {
            InterpreterInputs inputs = fixture.inputs;
            for (const Json &set : c.at("set"))
                inputs.stored.at(set.at(0)).at(set.at(1)) =
                    double(std::strtof(set.at(2).get<std::string>().c_str(), nullptr));
            Interpreted result = kernels ? compiled->run(inputs) : interpret(fixture.graph, inputs);
            Check check = check_case(fixture.results(result), c, kernels);
            Cell &cell = table[subject.at("nodes")[0][0]][c.at("value")];
            cell.cases++;
            cell.flushed += check.verdict == Verdict::flushed;
            if (check.verdict <= Verdict::flushed) continue;
            const Exception *meant = check.verdict < Verdict::hidden ? find(exceptions, name, c, program) : nullptr;
            if (!meant && check.verdict == Verdict::sign) meant = find(signs, name, c, program);
            if (!meant) ADD_FAILURE() << name << " x " << c.at("value") << " in " << c.at("where") << ":" << check.text;
            if (!meant) continue;
            (check.verdict == Verdict::sign ? cell.sign : cell.excepted)++;
            reasons[meant->reason]++;
            used.insert(meant);
        }
    }

    void print() const {
        std::printf("%s: cases, among them (f)lushed, with another (s)ign of a zero, (e)xcepted\n%-22s",
                    GetParam().c_str(), "op");
        for (const char *value : values()) std::printf(" %11s", value);
        for (const auto &[op, row] : table) {
            std::printf("\n%-22s", op.c_str());
            for (const char *value : values()) {
                auto cell = row.find(value);
                std::string text;
                if (cell != row.end()) {
                    text = std::to_string(cell->second.cases);
                    if (cell->second.flushed) text += " " + std::to_string(cell->second.flushed) + "f";
                    if (cell->second.sign) text += " " + std::to_string(cell->second.sign) + "s";
                    if (cell->second.excepted) text += " " + std::to_string(cell->second.excepted) + "e";
                }
                std::printf(" %11s", text.c_str());
            }
        }
        std::printf("\n");
        for (const auto &[reason, count] : reasons) std::printf("%3d cases: %s\n", count, reason.c_str());
    }
};

TEST_P(SpecialTable, IsPyTorchs) {
    const Json subjects = load_json("special_values.json");
    for (const Json &subject : subjects) check(subject);
    print();
    programs_run++;
    EXPECT_GT(table.size(), 25u);
}

std::vector<std::string> programs() {
    std::vector<std::string> names = kernel_targets();
    names.insert(names.begin(), reference);
    return names;
}
INSTANTIATE_TEST_SUITE_P(Programs, SpecialTable, testing::ValuesIn(programs()), [](const auto &info) {
    return info.param == reference ? "reference" : short_target(info.param);
});

} // namespace
