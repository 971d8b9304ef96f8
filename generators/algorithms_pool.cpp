// Pooling over windows and its gradients. Windows gather, so that every output element is one expression and nothing is
// scattered.
//
// What overlapping windows share is computed once, into rows that fit in L1, and the copy has a border, so that no
// window asks whether an element is inside.
#include "algorithms_math.h"
#include "algorithms_pointwise.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::Tuple, Halide::Var, Halide::cast, Halide::clamp, Halide::is_nan,
    Halide::likely, Halide::select;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Windows {
    int window, stride, padding, h, w, pooled_h, pooled_w;
    bool ceil;

    int area() const { return window * window; }
    // Windows that can cover one element along a dimension.
    int covering() const { return (window + stride - 1) / stride; }
    // No window reaches out of the image.
    bool inside() const {
        return padding == 0 && (pooled_h - 1) * stride + window <= h && (pooled_w - 1) * stride + window <= w;
    }
    // `covering` windows are around every element.
    bool covered() const {
        return padding / stride >= covering() - 1 && (h - 1 + padding) / stride < pooled_h &&
               (w - 1 + padding) / stride < pooled_w;
    }
};

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

Expr both(Expr a, Expr b) { return !a.defined() ? b : !b.defined() ? a : a && b; }

// The k-th last window that covers `x` along a dimension of the given extents. `inside` is undefined when every x of
// the dimension has such a window, so that no test is needed; it does not ask for the window to exist when those around
// the border may be read, too (not `borders`).
struct Cover {
    Expr window, offset, inside; // window number, position of x in it
};

Cover cover(Expr x, int k, const Windows &p, int extent, int pooled, bool borders) {
    // Simplified here, so that equal windows of neighbouring points are seen to be equal.
    Expr number = Halide::Internal::simplify((x + p.padding) / p.stride - k);
    Expr offset = Halide::Internal::simplify(x + p.padding - number * p.stride);
    bool in_range = true, in_window = true;
    for (int i = 0; i < extent; i++) {
        const int n = (i + p.padding) / p.stride - k;
        in_range = in_range && n >= 0 && n < pooled;
        in_window = in_window && i + p.padding - n * p.stride < p.window;
    }
    Expr inside = in_window ? Expr() : offset < p.window;
    if (in_range || !borders) return {number, offset, inside};
    return {clamp(number, 0, pooled - 1), offset, both(inside, number >= 0 && number < pooled)};
}

// Plain maxima lose NaN: those are looked for beside them and put in at the end.
struct Largest {
    Expr value, any_nan;

    explicit Largest(Expr x) : value(x), any_nan(is_nan(x)) {}
    Largest(const Largest &a, const Largest &b) : value(max(a.value, b.value)), any_nan(a.any_nan || b.any_nan) {}
    Expr with_nan() const { return select(any_nan, std::numeric_limits<float>::quiet_NaN(), value); }
};

// The best so far of a search in scan order: the first largest, or the last NaN.
struct Candidate {
    Expr value, position;

    void meet(Expr other, Expr other_position) {
        Expr take = strict_less(value, other) || is_nan(other);
        value = select(take, other, value);
        position = select(take, other_position, position);
    }
};

bool is_window_gradient(const ProgramStatement &s) { return s.op == "avg_pool2d_grad" || s.op == "max_pool2d_route"; }

} // namespace

// Statements whose elements some window reads, be it through others: at clamped coordinates, or in a loop.
void Evaluator::find_under_windows() {
    for (size_t i = program_.statements.size(); i-- > 0;) {
        const ProgramStatement &s = program_.statements[i];
        if (!under_window_[i] && !s.attributes.count("window") && !is_adaptive(s)) continue;
        for (const ProgramOperand &o : s.operands)
            if (o.statement >= 0) under_window_[static_cast<size_t>(o.statement)] = true;
    }
}

// What rows can be made of: elementwise statements, which may be asked for at any element without more staging.
bool Evaluator::is_elementwise(int statement) const {
    if (statement < 0 || stored_.count(statement)) return true;
    const ProgramStatement &s = program_.statements[static_cast<size_t>(statement)];
    if (large_[static_cast<size_t>(statement)] || s.attributes.count("window") || is_adaptive(s) || s.op == "uniform")
        return false;
    return std::all_of(s.operands.begin(), s.operands.end(),
                       [&](const ProgramOperand &o) { return is_elementwise(o.statement); });
}

// Whether operands come from rows. A plain buffer without borders is read as it is.
bool Evaluator::reads_rows(int index) const {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    if (under_window_[static_cast<size_t>(index)]) return false;
    const bool gradient = is_window_gradient(s);
    const Windows p = windows_of(s, gradient ? s.shape : program_.statements[s.operands[0].statement].shape);
    if (!gradient && !pool_unrolls(s)) return false;
    bool plain = gradient ? p.covered() : p.inside();
    for (const ProgramOperand &o : s.operands) {
        if (!is_elementwise(o.statement)) return false;
        plain = plain && (program_.statements[o.statement].is_input() || stored_.count(o.statement));
    }
    return !plain && (p.window > p.stride || p.padding > 0 || p.ceil);
}

// The operand at a point of a window, which may lie outside the operand; there the value is `outside`, or for maxima
// that of the nearest element inside: it is in the same window.
Expr Evaluator::row_element(const ProgramStatement &s, int i, const Point &at, float outside) {
    const int statement = s.operands[static_cast<size_t>(i)].statement;
    const ProgramShape &shape = program_.statements[static_cast<size_t>(statement)].shape;
    const int window = s.attributes.at("window"), stride = s.attributes.at("stride");
    const bool gradient = is_window_gradient(s);
    const auto key = std::tuple(statement, outside, gradient ? 0 : window, gradient ? 0 : stride);
    auto found = rows_.find(key);
    if (found == rows_.end()) {
        Var l, w, h, c, b; // names of their own
        Func f(program_.statements[static_cast<size_t>(statement)].name + "_rows"), inside_row;
        Expr y = clamp(likely(h), 0, shape.dims[2] - 1), x = clamp(likely(w), 0, shape.dims[3] - 1);
        Expr e = operand(s, i, Point{l, {b, c, y, x}});
        if (outside != -infinity) {
            // Asked apart from columns, whose test the loop over columns sheds but at its ends.
            inside_row = Func(f.name() + "_inside");
            inside_row(h) = cast<int>(h >= 0 && h < shape.dims[2]);
            e = select(inside_row(h) != 0 && likely(w >= 0) && likely(w < shape.dims[3]), e, outside);
        }
        f(l, w, h, c, b) = e;
        const int covering = (window + stride - 1) / stride;
        staged_rows_.push_back(gradient ? StagedRows{f, inside_row, 1, stride, covering}
                                        : StagedRows{f, inside_row, stride, 1, window - stride});
        found = rows_.emplace(key, f).first;
    }
    return found->second(arguments(shape, at));
}

Expr Evaluator::window_element(int index, const Point &out, Expr r, Expr column, float outside) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    const Windows p = windows_of(s, program_.statements[s.operands[0].statement].shape);
    Expr y = out.at[2] * p.stride + r - p.padding, x = out.at[3] * p.stride + column - p.padding;
    if (reads_rows(index)) return row_element(s, 0, out.at_pixel(y, x), outside);
    if (p.inside()) return operand(s, 0, out.at_pixel(y, x));
    Expr inside = y >= 0 && y < p.h && x >= 0 && x < p.w;
    return select(inside, operand(s, 0, out.at_pixel(clamp(y, 0, p.h - 1), clamp(x, 0, p.w - 1))), outside);
}

Expr Evaluator::plus(Expr a, Expr b) const { return searches_ ? strict_add(a, b) : a + b; }

Expr Evaluator::average(int index, const Point &point) {
    const int window = program_.statements[static_cast<size_t>(index)].attributes.at("window");
    Expr total;
    for (int i = 0; i < window * window; i++) {
        Expr e = window_element(index, point, i / window, i % window, 0.f);
        total = total.defined() ? plus(total, e) : e;
    }
    return total;
}

// Rows first: windows one above the other share them.
Expr Evaluator::largest(int index, const Point &point) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    for (size_t i = 0; i < program_.statements.size(); i++) { // the maximum comes with the winner
        const ProgramStatement &other = program_.statements[i];
        if (other.op != "max_pool2d_winner" || other.operands[0].statement != s.operands[0].statement) continue;
        if (other.attributes != s.attributes || !pool_unrolls(other)) continue;
        return best_of(static_cast<int>(i), point).first;
    }
    const int window = s.attributes.at("window");
    std::vector<Largest> rows;
    for (int r = 0; r < window; r++) {
        Largest row(window_element(index, point, r, 0, -infinity));
        for (int c = 1; c < window; c++) row = Largest(row, Largest(window_element(index, point, r, c, -infinity)));
        rows.push_back(row);
    }
    for (size_t r = 1; r < rows.size(); r++) rows[0] = Largest(rows[0], rows[r]);
    return rows[0].with_nan();
}

// The first largest element of a window in scan order, or the last NaN, and its position r * window + s. The first
// element inside is the first candidate, be it -inf. The best of each row, then of the rows. Elements outside are
// copies of the nearest ones inside or -inf: they win over none but, if NaN, the last inside.
std::pair<Expr, Expr> Evaluator::best_of(int index, const Point &point) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    const Windows p = windows_of(s, program_.statements[s.operands[0].statement].shape);
    auto first_inside = [&](Expr at) { return p.padding ? cast<float>(max(p.padding - at * p.stride, 0)) : Expr(0.f); };
    auto at_most_last = [&](Expr position, Expr at, int extent, int pooled) {
        if ((pooled - 1) * p.stride - p.padding + p.window <= extent) return position;
        return min(position, cast<float>(extent - 1 + p.padding - at * p.stride));
    };
    const bool inside_search = std::exchange(searches_, true);
    std::vector<Candidate> rows;
    for (int r = 0; r < p.window; r++) {
        rows.push_back({window_element(index, point, r, 0, -infinity), first_inside(point.at[3])});
        Candidate &row = rows.back();
        for (int c = 1; c < p.window; c++) row.meet(window_element(index, point, r, c, -infinity), float(c));
        row.position = at_most_last(row.position, point.at[3], p.w, p.pooled_w);
    }
    searches_ = inside_search;
    Candidate &best = rows[0];
    best.position += first_inside(point.at[2]) * float(p.window);
    for (int r = 1; r < p.window; r++) {
        Expr row = at_most_last(float(r), point.at[2], p.h, p.pooled_h);
        best.meet(rows[static_cast<size_t>(r)].value, rows[static_cast<size_t>(r)].position + row * float(p.window));
    }
    return {best.value, best.position};
}

// Nested windows multiply; unrolled, they make Halide's bounds inference take minutes.
bool Evaluator::pool_unrolls(const ProgramStatement &s) const {
    const int window = s.attributes.at("window");
    return window * window * points_read(s.operands[0].statement) <= largest_unrolled_window;
}

Expr Evaluator::pool(int index, const Point &point) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    Expr e;
    if (pool_unrolls(s)) {
        if (s.op == "max_pool2d_winner") return best_of(index, point).second;
        if (s.op == "max_pool2d") return largest(index, point);
        e = average(index, point);
    } else {
        // One Func per place of use: its region is one point.
        const std::vector<Expr> arguments = Evaluator::arguments(s.shape, point);
        const auto key = std::pair(index, place(arguments));
        auto found = windows_.find(key);
        if (found == windows_.end())
            found = windows_.emplace(key, s.op == "max_pool2d_winner" ? looped_winner(index) : looped(index)).first;
        staged_points_only_ = true;
        e = found->second(arguments);
    }
    if (s.op != "avg_pool2d") return e;
    const Windows p = windows_of(s, program_.statements[s.operands[0].statement].shape);
    return e * reciprocal_area(p, point.at[2], point.at[3]);
}

Func Evaluator::looped(int index) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    const int window = s.attributes.at("window");
    const bool average = s.op == "avg_pool2d";
    const float outside = average ? 0.f : -infinity;
    Var l, w, h, c, b; // names of their own: equal coordinates in two Funcs are not one place
    Func f(s.name + "_window");
    RDom r(0, window, 0, window);
    f(l, w, h, c, b) = outside;
    const Staged reader = std::exchange(loop_, {f, f, r.x});
    Expr e = over_all(r, window_element(index, Point{l, {b, c, h, w}}, r.y, r.x, outside), outside);
    loop_ = reader;
    f(l, w, h, c, b) = average ? f(l, w, h, c, b) + e : max_with_nan(f(l, w, h, c, b), e);
    staged_.push_back({f});
    return f;
}

Func Evaluator::looped_winner(int index) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    const Windows p = windows_of(s, program_.statements[s.operands[0].statement].shape);
    Var l, w, h, c, b;
    Func search(s.name + "_search"), position(s.name + "_position");
    RDom r(0, p.window, 0, p.window);
    search(l, w, h, c, b) = Tuple(Expr(-infinity), Expr(-1.f));
    Expr y = h * p.stride + r.y - p.padding, x = w * p.stride + r.x - p.padding;
    r.where(y >= 0 && y < p.h && x >= 0 && x < p.w);
    const Staged reader = std::exchange(loop_, {search, search, r.x});
    const bool inside_search = std::exchange(searches_, true);
    Expr e = window_element(index, Point{l, {b, c, h, w}}, r.y, r.x, -infinity);
    searches_ = inside_search;
    loop_ = reader;
    Expr best = search(l, w, h, c, b)[0], found = search(l, w, h, c, b)[1];
    Expr take = found < 0.f || strict_less(best, e) || is_nan(e);
    search(l, w, h, c, b) = Tuple(select(take, e, best), select(take, cast<float>(r.y * p.window + r.x), found));
    position(l, w, h, c, b) = search(l, w, h, c, b)[1];
    staged_.push_back({search});
    staged_.push_back({position});
    return position;
}

// Every window that covers the point adds its part: of an average its share, of a maximum all, if its winner is here.
Expr Evaluator::pool_gradient(int index, const Point &point) {
    const ProgramStatement &s = program_.statements[static_cast<size_t>(index)];
    const Windows p = windows_of(s, s.shape);
    const bool rows = reads_rows(index), average = s.op == "avg_pool2d_grad";
    auto element = [&](int i, const Point &window, float outside) {
        return rows ? row_element(s, i, window, outside) : operand(s, i, window);
    };
    Expr total = 0.f;
    for (int i = 0; i < p.covering(); i++)
        for (int j = 0; j < p.covering(); j++) {
            const Cover y = cover(point.at[2], i, p, p.h, p.pooled_h, !rows),
                        x = cover(point.at[3], j, p, p.w, p.pooled_w, !rows);
            const Point window = point.at_pixel(y.window, x.window);
            Expr e = element(0, window, 0.f), inside = both(y.inside, x.inside);
            if (average && p.ceil) e = e * reciprocal_area(p, y.window, x.window);
            if (!average)
                inside =
                    both(inside, strict_equal(element(1, window, -1.f), cast<float>(y.offset * p.window + x.offset)));
            total = total + (inside.defined() ? select(inside, e, 0.f) : e);
        }
    return average && !p.ceil ? total * (1.f / p.area()) : total;
}

} // namespace cryolite
