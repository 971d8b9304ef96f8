// Rules of the pointwise ops. Elementwise ops come from two tables; windows gather, so that every output element is one
// expression and nothing is scattered.
#include "algorithms_pointwise.h"

#include "algorithms_math.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::Tuple, Halide::Var, Halide::cast, Halide::clamp, Halide::is_nan,
    Halide::select;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

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

struct Windows {
    int window, stride, padding, h, w, pooled_h, pooled_w;
    bool ceil;

    // No window reaches out of the image.
    bool inside() const {
        return padding == 0 && (pooled_h - 1) * stride + window <= h && (pooled_w - 1) * stride + window <= w;
    }
    int area() const { return window * window; }
    // Windows that can cover one element along a dimension.
    int covering() const { return (window + stride - 1) / stride; }
};

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
    if (s.op == "max_pool2d") return unrolls ? std::pow(window * window, 2.3) : 1; // a tree of maxima
    const double covering = std::ceil(window / stride);
    return covering * covering; // of gradients
}

// A search is such a chain. Many overlapping or padded windows take Halide minutes, too.
constexpr int largest_unrolled_search = 9;
bool unrolls_search(const Windows &p) { return p.area() <= largest_unrolled_search && p.inside() && p.covering() <= 2; }

// `large` is the shape before pooling.
Windows windows_of(const ProgramStatement &s, const ProgramShape &large) {
    Windows p{s.attributes.at("window"),
              s.attributes.at("stride"),
              s.attributes.at("padding"),
              large.dims[2],
              large.dims[3],
              0,
              0,
              s.is_ceil()};
    p.pooled_h = pooled_extent(p.h, p.window, p.stride, p.padding, p.ceil);
    p.pooled_w = pooled_extent(p.w, p.window, p.stride, p.padding, p.ceil);
    return p;
}

// 1 / elements of the window, padding counted; what lies behind the padding does not count.
Expr reciprocal_area(const Windows &p, Expr y, Expr x) {
    if (!p.ceil) return 1.f / p.area();
    auto extent = [&](Expr number, int size) { return min(p.window, size + 2 * p.padding - number * p.stride); };
    return 1.f / cast<float>(extent(y, p.h) * extent(x, p.w));
}

// The k-th last window that covers `x` along a dimension of the given extents. `inside` is undefined when every x of
// the dimension has such a window, so that no test is needed.
struct Cover {
    Expr window, offset, inside; // window number (in range), position of x in it
};

Cover cover(Expr x, int k, const Windows &p, int extent, int pooled) {
    // Simplified here, so that equal windows of neighbouring points are seen to be equal.
    Expr number = Halide::Internal::simplify((x + p.padding) / p.stride - k);
    bool always = true;
    for (int i = 0; i < extent; i++) {
        const int n = (i + p.padding) / p.stride - k;
        always = always && n >= 0 && n < pooled && i + p.padding - n * p.stride < p.window;
    }
    Expr offset = Halide::Internal::simplify(x + p.padding - number * p.stride);
    if (always) return {number, offset, Expr()};
    return {clamp(number, 0, pooled - 1), offset, number >= 0 && number < pooled && offset < p.window};
}

// A tree: a maximum reads its operands several times, and a chain of n would be 3^n terms to Halide.
Expr largest_of(const std::vector<Expr> &elements, size_t begin, size_t end) {
    if (end - begin == 1) return elements[begin];
    size_t middle = (begin + end) / 2;
    return max_with_nan(largest_of(elements, begin, middle), largest_of(elements, middle, end));
}

Expr both(Expr a, Expr b) { return !a.defined() ? b : !b.defined() ? a : a && b; }

} // namespace

Evaluator::Evaluator(const Program &program, int lanes, Input input, Scalar scalar)
    : program_(program), lanes_(lanes), input_(std::move(input)), scalar_(std::move(scalar)),
      large_(program.statements.size(), false) {
    find_large_values();
}

void Evaluator::find_large_values() {
    std::vector<double> leaves(program_.statements.size(), 1);
    for (size_t i = 0; i < program_.statements.size(); i++) {
        const ProgramStatement &s = program_.statements[i];
        if (s.is_input()) continue;
        const bool pool = s.op == "avg_pool2d" || s.op == "max_pool2d";
        const double reads = reads_of(s, pool && pool_unrolls(s));
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
    text << (loop_.loops.defined() ? loop_.loops.name() : "") << ":";
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
    if (s.op == "avg_pool2d_grad") return avg_pool_grad(s, point);
    if (is_adaptive(s)) return adaptive_pool(s, index, point);
    if (s.op == "max_pool2d_grad") return max_pool_grad(s, index, point);
    return pool(s, index, point);
}

Expr Evaluator::window_element(const ProgramStatement &s, int i, const Point &out, Expr r, Expr column, float outside) {
    const Windows p = windows_of(s, program_.statements[s.operands[i].statement].shape);
    Expr y = out.at[2] * p.stride + r - p.padding, x = out.at[3] * p.stride + column - p.padding;
    if (p.inside()) return operand(s, i, out.at_pixel(y, x));
    Expr inside = y >= 0 && y < p.h && x >= 0 && x < p.w;
    return select(inside, operand(s, i, out.at_pixel(clamp(y, 0, p.h - 1), clamp(x, 0, p.w - 1))), outside);
}

Expr Evaluator::pool_in_line(const ProgramStatement &s, const Point &point) {
    const int window = s.attributes.at("window");
    const bool average = s.op == "avg_pool2d";
    std::vector<Expr> elements;
    for (int r = 0; r < window; r++)
        for (int c = 0; c < window; c++)
            elements.push_back(window_element(s, 0, point, r, c, average ? 0.f : -infinity));
    if (!average) return largest_of(elements, 0, elements.size());
    Expr total = elements[0];
    for (size_t i = 1; i < elements.size(); i++) total = total + elements[i];
    return total * average_weight(s, point);
}

Expr Evaluator::average_weight(const ProgramStatement &s, const Point &point) const {
    return reciprocal_area(windows_of(s, program_.statements[s.operands[0].statement].shape), point.at[2], point.at[3]);
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
    if (s.op == "avg_pool2d" || s.op == "max_pool2d") return pool_unrolls(s) ? points * window * window : points;
    const int covering = (window + stride - 1) / stride;
    return points * covering * covering;
}

// Nested windows multiply; unrolled, they make Halide's bounds inference take minutes.
bool Evaluator::pool_unrolls(const ProgramStatement &s) const {
    const int window = s.attributes.at("window");
    return window * window * points_read(s.operands[0].statement) <= largest_unrolled_window;
}

Expr Evaluator::pool(const ProgramStatement &s, int index, const Point &point) {
    const int window = s.attributes.at("window");
    if (pool_unrolls(s)) return pool_in_line(s, point);
    // One Func per place of use: its region is one point.
    const std::vector<Expr> arguments = Evaluator::arguments(s.shape, point);
    const auto key = std::pair(index, place(arguments));
    auto found = windows_.find(key);
    if (found == windows_.end()) {
        const bool average = s.op == "avg_pool2d";
        Var l, w, h, c, b; // names of their own: equal coordinates in two Funcs are not one place
        Func f(s.name + "_window");
        RDom r(0, window, 0, window);
        const float neutral = average ? 0.f : -infinity;
        f(l, w, h, c, b) = neutral;
        const Staged reader = std::exchange(loop_, {f, f, r.x});
        Expr e = over_all(r, window_element(s, 0, Point{l, {b, c, h, w}}, r.y, r.x, neutral), neutral);
        loop_ = reader;
        f(l, w, h, c, b) = average ? f(l, w, h, c, b) + e : max_with_nan(f(l, w, h, c, b), e);
        staged_.push_back({f});
        found = windows_.emplace(key, f).first;
    }
    staged_points_only_ = true;
    Expr e = found->second(arguments);
    return s.op == "avg_pool2d" ? e * average_weight(s, point) : e;
}

Expr Evaluator::avg_pool_grad(const ProgramStatement &s, const Point &point) {
    const Windows p = windows_of(s, s.shape);
    Expr total = 0.f;
    for (int i = 0; i < p.covering(); i++) {
        for (int j = 0; j < p.covering(); j++) {
            Cover y = cover(point.at[2], i, p, p.h, p.pooled_h), x = cover(point.at[3], j, p, p.w, p.pooled_w);
            Expr e = operand(s, 0, point.at_pixel(y.window, x.window)), inside = both(y.inside, x.inside);
            if (p.ceil) e = e * reciprocal_area(p, y.window, x.window);
            total = total + (inside.defined() ? select(inside, e, 0.f) : e);
        }
    }
    return p.ceil ? total : total * (1.f / p.area());
}

Expr Evaluator::first_maximum(const ProgramStatement &s, int index, const Point &pooled) {
    const std::vector<Expr> arguments = Evaluator::arguments(s.shape, pooled);
    const auto key = std::pair(index, place(arguments));
    auto found = windows_.find(key);
    if (found == windows_.end()) found = windows_.emplace(key, staged_first_maximum(s)).first;
    return found->second(arguments);
}

// Position r * window + s of the first largest element of a window, in scan order; of the last NaN if there is one.
Func Evaluator::staged_first_maximum(const ProgramStatement &s) {
    const Windows p = windows_of(s, s.shape);
    Var l, w, h, c, b;
    const Point point{l, {b, c, h, w}};
    Func f(s.name + "_first");
    const Staged reader = std::exchange(loop_, {});
    auto better = [](Expr e, Expr best) { return strict_less(best, e) || is_nan(e); };
    if (unrolls_search(p)) {
        Expr best = window_element(s, 1, point, 0, 0, -infinity), position = 0;
        for (int i = 1; i < p.area(); i++) {
            Expr e = window_element(s, 1, point, i / p.window, i % p.window, -infinity);
            Expr take = better(e, best);
            position = select(take, i, position);
            best = select(take, e, best);
        }
        f(l, w, h, c, b) = position;
    } else {
        Func search(s.name + "_search");
        RDom r(0, p.window, 0, p.window);
        search(l, w, h, c, b) = Tuple(Expr(-infinity), Expr(-1));
        Expr y = h * p.stride + r.y - p.padding, x = w * p.stride + r.x - p.padding;
        r.where(y >= 0 && y < p.h && x >= 0 && x < p.w);
        loop_ = {search, search, r.x};
        Expr e = window_element(s, 1, point, r.y, r.x, -infinity);
        Expr best = search(l, w, h, c, b)[0], position = search(l, w, h, c, b)[1];
        Expr take = position < 0 || better(e, best);
        search(l, w, h, c, b) = Tuple(select(take, e, best), select(take, r.y * p.window + r.x, position));
        staged_.push_back({search});
        f(l, w, h, c, b) = search(l, w, h, c, b)[1];
    }
    staged_.push_back({f});
    loop_ = reader;
    return f;
}

Expr Evaluator::max_pool_grad(const ProgramStatement &s, int index, const Point &point) {
    const Windows p = windows_of(s, s.shape);
    Expr total = 0.f;
    for (int i = 0; i < p.covering(); i++) {
        for (int j = 0; j < p.covering(); j++) {
            Cover y = cover(point.at[2], i, p, p.h, p.pooled_h), x = cover(point.at[3], j, p, p.w, p.pooled_w);
            const Point pooled = point.at_pixel(y.window, x.window);
            Expr here = first_maximum(s, index, pooled) == y.offset * p.window + x.offset;
            Expr inside = both(y.inside, x.inside);
            staged_points_only_ = staged_points_only_ || inside.defined() || !unrolls_search(p);
            total = total + select(both(inside, here), operand(s, 0, pooled), 0.f);
        }
    }
    return total;
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

} // namespace cryolite
