// Adaptive average pooling and its gradient: windows of uneven extents, which may be smaller than one element is wide.
#include "algorithms_pointwise.h"

#include "algorithms_math.h"

#include <algorithm>

#include <utility>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::Var, Halide::cast, Halide::min, Halide::select;

namespace {

// One dimension: `out` windows over `in` elements.
struct Adaptive {
    int in, out;

    Expr first(Expr i) const { return i * in / out; }
    Expr count(Expr i) const { return ((i + 1) * in + out - 1) / out - first(i); }
    int largest() const {
        int result = 1;
        for (int i = 0; i < out; i++) result = std::max(result, ((i + 1) * in + out - 1) / out - i * in / out);
        return result;
    }
    bool even() const { return in % out == 0 || out % in == 0; }
    Adaptive exchanged() const { return {out, in}; }
};

Adaptive dimension(const ProgramShape &from, const ProgramShape &to, int d) { return {from.dims[d], to.dims[d]}; }

Expr average_of(const Adaptive &y, const Adaptive &x, Expr i, Expr j) {
    if (y.even() && x.even()) return 1.f / (y.largest() * x.largest());
    return 1.f / cast<float>(y.count(i) * x.count(j));
}

} // namespace

bool Evaluator::adaptive_unrolls(const ProgramStatement &s) const {
    const ProgramShape &from = program_.statements[s.operands[0].statement].shape;
    return dimension(from, s.shape, 2).largest() * dimension(from, s.shape, 3).largest() *
               points_read(s.operands[0].statement) <=
           largest_unrolled_window;
}

Expr Evaluator::adaptive_pool(const ProgramStatement &s, int index, const Point &point) {
    const ProgramShape &from = program_.statements[s.operands[0].statement].shape;
    const Adaptive y = dimension(from, s.shape, 2), x = dimension(from, s.shape, 3);
    const bool gradient = s.op == "adaptive_avg_pool2d_grad";
    // Element (r, c) of the window at `p`. The gradient gathers from the windows that cover `p`, each with its weight.
    auto element = [&](const Point &p, Expr r, Expr c) {
        Expr i = y.first(p.at[2]) + r, j = x.first(p.at[3]) + c;
        Expr e = operand(s, 0, p.at_pixel(min(i, y.in - 1), min(j, x.in - 1)));
        if (gradient) e = e * average_of(y.exchanged(), x.exchanged(), i, j);
        if (y.even() && x.even()) return e;
        return select(r < y.count(p.at[2]) && c < x.count(p.at[3]), e, 0.f);
    };
    Expr weight = gradient ? Expr(1.f) : average_of(y, x, point.at[2], point.at[3]);
    if (adaptive_unrolls(s)) {
        Expr total = element(point, 0, 0);
        for (int i = 1; i < y.largest() * x.largest(); i++)
            total = plus(total, element(point, i / x.largest(), i % x.largest()));
        return gradient ? total : total * weight;
    }
    const std::vector<Expr> arguments = Evaluator::arguments(s.shape, point);
    const auto key = std::pair(index, place(arguments));
    auto found = windows_.find(key);
    if (found == windows_.end()) {
        Var l, w, h, c, b; // names of their own: equal coordinates in two Funcs are not one place
        Func f(s.name + "_window");
        RDom r(0, x.largest(), 0, y.largest());
        f(l, w, h, c, b) = 0.f;
        const Staged reader = std::exchange(loop_, {f, f, r.x});
        f(l, w, h, c, b) += over_all(r, element(Point{l, {b, c, h, w}}, r.y, r.x));
        loop_ = reader;
        staged_.push_back({f});
        found = windows_.emplace(key, f).first;
    }
    staged_points_only_ = true;
    return gradient ? Expr(found->second(arguments)) : found->second(arguments) * weight;
}

} // namespace cryolite
