// Rules of the pointwise ops. Elementwise ops come from two tables; those over windows have files of their own.
#include "algorithms_pointwise.h"

#include "algorithms_math.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::Var, Halide::cast, Halide::is_nan, Halide::select;

namespace {

using Unary = Expr (*)(Expr);
using Binary = Expr (*)(Expr, Expr);

const std::map<std::string, Unary> unary_rules{
    {"abs", [](Expr x) { return abs(x); }},
    {"exp", float_exp},
    {"log", float_log},
    {"neg", [](Expr x) { return -x; }},
    {"reciprocal", [](Expr x) { return strict_div(1.f, x); }},
    {"relu", [](Expr x) { return select(strict_less(x, 0.f), 0.f, x); }}, // max and a lone < lose NaN; -0 stays, too
    {"relu6", [](Expr x) { return select(strict_less(x, 0.f), 0.f, select(strict_less(6.f, x), 6.f, x)); }},
    {"rsqrt", [](Expr x) { return strict_div(1.f, sqrt(x)); }},
    {"sigmoid", float_sigmoid},
    {"sqrt", [](Expr x) { return sqrt(x); }},
    {"square", [](Expr x) { return x * x; }},
    {"tanh", float_tanh},
};

const std::map<std::string, Binary> binary_rules{
    {"add", [](Expr a, Expr b) { return a + b; }},
    {"div", [](Expr a, Expr b) { return strict_div(a, b); }},
    // Halide turns a >= b into !(a < b), which holds for NaN.
    {"greater_equal", [](Expr a, Expr b) { return select(strict_less(b, a) || strict_equal(a, b), 1.f, 0.f); }},
    {"max", max_with_nan},
    {"min", min_with_nan},
    {"mul", [](Expr a, Expr b) { return a * b; }},
    {"relu_grad", [](Expr dy, Expr x) { return select(strict_less(0.f, x) || is_nan(x), dy, 0.f); }},
    {"relu6_grad",
     [](Expr dy, Expr x) { return select((strict_less(0.f, x) && strict_less(x, 6.f)) || is_nan(x), dy, 0.f); }},
    {"sub", [](Expr a, Expr b) { return a - b; }},
};

// Products with 0 and differences of a value with itself are NaN for NaN and Inf; Halide would fold them.
bool folds_wrongly(const ProgramStatement &s) {
    const ProgramOperand &a = s.operands[0], &b = s.operands[1];
    auto is_zero = [](const ProgramOperand &o) { return o.statement < 0 && o.literal == 0; };
    return (s.op == "mul" && (is_zero(a) || is_zero(b))) || (s.op == "sub" && a.statement == b.statement);
}

// How often the rule of an op reads its operand, that of a function of algorithms_math about.
const std::map<std::string, double> reads_of_rules{{"exp", 84},   {"log", 100}, {"sigmoid", 76}, {"tanh", 320},
                                                   {"max", 3},    {"min", 3},   {"relu", 2},     {"relu6", 4},
                                                   {"square", 2}, {"rsqrt", 1}, {"relu_grad", 2}};
// Halide takes an expression for a tree in some of its passes: what is read twice is there twice, and a tanh of a tanh
// of a log, with a max on top, took more than 20 GB. A value is staged where the tree would have more leaves than this;
// far above what networks have (a sigmoid's gradient through batch norm and pooling: some thousand).
constexpr double most_leaves = 30000;

double reads_of(const ProgramStatement &s, bool unrolls) {
    auto rule = reads_of_rules.find(s.op);
    if (rule != reads_of_rules.end()) return rule->second;
    if (!s.attributes.count("window")) return 1;
    const double window = s.attributes.at("window"), stride = s.attributes.at("stride");
    if (s.op == "avg_pool2d") return unrolls ? window * window : 1;
    if (is_pool(s)) return unrolls ? std::pow(window * window, 2.3) : 1; // a tree of maxima
    const double covering = std::ceil(window / stride);
    return covering * covering; // of gradients
}

} // namespace

Evaluator::Evaluator(const Program &program, int lanes, Input input, Scalar scalar)
    : program_(program), lanes_(lanes), input_(std::move(input)), scalar_(std::move(scalar)),
      large_(program.statements.size(), false), under_window_(program.statements.size(), false) {
    find_large_values();
    find_under_windows();
}

void Evaluator::find_large_values() {
    std::vector<double> leaves(program_.statements.size(), 1);
    for (size_t i = 0; i < program_.statements.size(); i++) {
        const ProgramStatement &s = program_.statements[i];
        if (s.is_input()) continue;
        const double reads = reads_of(s, is_pool(s) && pool_unrolls(s));
        for (;;) {
            double total = 0, largest = 1;
            int at = -1;
            for (const ProgramOperand &o : s.operands) {
                if (o.statement < 0) continue;
                const size_t operand = static_cast<size_t>(o.statement);
                total += reads * leaves[operand];
                if (!program_.statements[operand].shape.is_block() || leaves[operand] <= largest) continue;
                largest = leaves[operand];
                at = o.statement;
            }
            leaves[i] = std::max(total, 1.0);
            if (total <= most_leaves || at < 0) break;
            large_[static_cast<size_t>(at)] = true;
            leaves[static_cast<size_t>(at)] = 1;
        }
    }
}

// Clamped coordinates may be the same in two loops.
std::string Evaluator::place(const std::vector<Expr> &coordinates) const {
    std::ostringstream text;
    text << (searches_ ? "search " : "") << (loop_.loops.defined() ? loop_.loops.name() : "") << ":";
    for (const Expr &e : coordinates) text << e << ";";
    return text.str();
}

// One Func per place of use: its region is one point.
Expr Evaluator::staged_value(int index, const Point &point) {
    const ProgramStatement &s = program_.statements[index];
    const std::vector<Expr> at = arguments(s.shape, point);
    const auto key = std::pair(index, place(at));
    auto found = windows_.find(key);
    if (found == windows_.end()) {
        // Names of their own: equal coordinates in two Funcs are not one place.
        std::vector<Var> vars(static_cast<size_t>(s.shape.rank()) + 1);
        Point own{vars[0], {}};
        for (size_t d = vars.size(); d-- > 1;) own.at.push_back(vars[d]);
        Func f(s.name + "_staged");
        f(vars) = value(index, own);
        staged_.push_back({f, loop_.loops, loop_.at});
        found = windows_.emplace(key, f).first;
    }
    staged_points_only_ = true;
    return found->second(at);
}

std::vector<Expr> Evaluator::arguments(const ProgramShape &shape, const Point &point) {
    std::vector<Expr> result;
    if (shape.is_block()) result.push_back(point.lane);
    for (int d = shape.rank() - 1; d >= 0; d--) result.push_back(point.at[d]);
    if (result.empty()) result.push_back(0);
    return result;
}

Expr Evaluator::value(int statement, const Point &point) {
    Key key{statement, {point.lane.get()}};
    for (const Expr &e : point.at) key.second.push_back(e.get());
    auto found = memo_.find(key);
    if (found == memo_.end()) {
        const ProgramStatement &s = program_.statements[statement];
        auto stored = stored_.find(statement);
        Expr e =
            stored != stored_.end() ? Expr(stored->second(arguments(s.shape, point))) : compute(s, statement, point);
        found = memo_.emplace(key, std::pair(e, point)).first;
    }
    return found->second.first;
}

// The operand's element that broadcasts to `point` of the statement's shape.
Expr Evaluator::operand(const ProgramStatement &s, int i, const Point &point) {
    const ProgramOperand &o = s.operands[i];
    if (o.statement < 0) return o.literal;
    const ProgramShape &shape = program_.statements[o.statement].shape;
    Point source = point;
    source.at.resize(shape.rank());
    for (int d = 0; d < shape.rank(); d++)
        if (shape.dims[d] == 1) source.at[d] = zero_;
    if (large_[o.statement] && !stored_.count(o.statement)) return staged_value(o.statement, source);
    return value(o.statement, source);
}

Expr Evaluator::compute(const ProgramStatement &s, int index, const Point &point) {
    if (s.op == "input") return input_(index, arguments(s.shape, point));
    if (s.is_integer()) return cast<float>(scalar_(index));
    if (auto rule = unary_rules.find(s.op); rule != unary_rules.end()) return rule->second(operand(s, 0, point));
    if (auto rule = binary_rules.find(s.op); rule != binary_rules.end()) {
        Expr a = operand(s, 0, point), b = operand(s, 1, point);
        if (folds_wrongly(s)) return s.op == "mul" ? strict_mul(a, b) : strict_sub(a, b);
        return rule->second(a, b);
    }
    if (s.op == "mask")
        return select(point.at[0] * lanes_ + point.lane < scalar_(s.operands[1].statement), operand(s, 0, point), 0.f);
    if (s.op == "broadcast") return operand(s, 0, point);
    if (s.op == "uniform") return uniform(s, point);
    if (is_adaptive(s)) return adaptive_pool(s, index, point);
    return is_pool(s) ? pool(index, point) : pool_gradient(index, point);
}

// Points at which an element of `statement`, written in line, evaluates what is below its windows.
int Evaluator::points_read(int statement) const {
    if (statement < 0) return 1;
    const ProgramStatement &s = program_.statements[statement];
    int points = 1;
    for (const ProgramOperand &o : s.operands) points = std::max(points, points_read(o.statement));
    if (is_adaptive(s)) return adaptive_unrolls(s) ? largest_unrolled_window : points;
    if (!s.attributes.count("window")) return points;
    const int window = s.attributes.at("window"), stride = s.attributes.at("stride");
    if (is_pool(s)) return pool_unrolls(s) ? points * window * window : points;
    const int covering = (window + stride - 1) / stride;
    return points * covering * covering;
}

Expr Evaluator::uniform(const ProgramStatement &s, const Point &point) {
    Expr element = 0;
    for (int d = 1; d < s.shape.rank(); d++) element = element * s.shape.dims[d] + point.at[d];
    Expr step = Halide::reinterpret<uint32_t>(operand(s, 1, Point{point.lane, {}}));
    Expr sample = (scalar_(s.operands[0].statement) + point.at[0]) * lanes_ + point.lane;
    // Only the last mixing depends on both sample and element.
    const uint32_t seed = static_cast<uint32_t>(s.attributes.at("seed"));
    Expr stream = mixed_bits(mixed_bits(step + Expr(seed * 0x9e3779b9u)) + cast<uint32_t>(element) * Expr(0x85ebca6bu));
    Expr bits = mixed_bits(stream + mixed_bits(cast<uint32_t>(sample) ^ Expr(0x5bd1e995u)));
    return cast<float>(cast<int>(bits >> 8)) * (1.f / 16777216.f);
}

Expr element_of(const Program &program, const std::vector<Expr> &inputs) {
    auto input = [&](int statement, const std::vector<Expr> &) {
        const auto found = std::find(program.inputs.begin(), program.inputs.end(), statement);
        return inputs.at(size_t(found - program.inputs.begin()));
    };
    return Evaluator(program, 1, input, {}).value(program.outputs.at(0), Point{0, {0}});
}

} // namespace cryolite
