// What a nest of loops comes to next, and lines in equal parts of its iterations (nest.h).
#include "nest.h"

namespace cryolite {
using Halide::Expr, Halide::Internal::as_const_int, Halide::Internal::simplify;

namespace {
bool vanishes(const Nest::Loop &loop) { return Halide::Internal::is_const_one(loop.extent); }
} // namespace

Expr Nest::now(size_t i) const { return vanishes(loops_[i]) ? Expr(0) : loop_variable(loops_[i].name); }

bool Nest::repeats(size_t last) const {
    for (size_t i = 0; i <= last; i++)
        if (!vanishes(loops_[i])) return true;
    return false;
}

std::vector<Expr> Nest::next(size_t last) const {
    Expr number = 0, count = 1;
    for (size_t i = 0; i <= last; i++) {
        number = number * loops_[i].extent + now(i);
        count *= loops_[i].extent;
    }
    number = min(number + 1, count - 1);
    std::vector<Expr> next(last + 1);
    for (size_t i = last + 1; i-- > 0;) {
        next[i] = simplify(number % loops_[i].extent);
        number = simplify(number / loops_[i].extent);
    }
    return next;
}

LinesAhead Nest::lines(const std::string &buffer, int lines, size_t first,
                       const std::function<Expr(const Expr &)> &index) const {
    Expr iteration = 0;
    int iterations = 1;
    for (size_t i = first; i < loops_.size(); i++) {
        const int extent = int(*as_const_int(loops_[i].extent));
        iteration = iteration * extent + now(i);
        iterations *= extent;
    }
    const int share = (lines + iterations - 1) / iterations;
    const Expr line = min(iteration * share + loop_variable("place"), lines - 1);
    return {buffer, simplify(index(line)), share, 1, 0};
}

std::vector<std::string> Nest::names() const {
    std::vector<std::string> names;
    for (const Loop &loop : loops_)
        if (!vanishes(loop)) names.push_back(loop.name);
    return names;
}

} // namespace cryolite
