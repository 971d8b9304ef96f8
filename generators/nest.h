// Loops around a register tile that asks for lines ahead (prefetch.h): what they will come to next.
#pragma once

#include "prefetch.h"

#include <functional>

namespace cryolite {

// Outermost first.
class Nest {
public:
    struct Loop {
        std::string name; // in the lowered code
        Halide::Expr extent;
    };
    explicit Nest(std::vector<Loop> loops) : loops_(std::move(loops)) {}

    // Whether loops 0 to last have several iterations together.
    bool repeats(size_t last) const;
    // Of loops 0 to last, in the iteration of all of these that follows; in the very last one what they are.
    std::vector<Halide::Expr> next(size_t last) const;

    // Lines of a buffer, asked for in equal parts by each iteration of the loops from the first-th on: all their
    // extents are constants. index: of the line with such a number.
    LinesAhead lines(const std::string &buffer, int lines, size_t first,
                     const std::function<Halide::Expr(const Halide::Expr &)> &index) const;

    // Loops of one iteration vanish from the code, and are not among these.
    std::vector<std::string> names() const;

private:
    Halide::Expr now(size_t i) const;

    std::vector<Loop> loops_;
};

} // namespace cryolite
