// What the CPU's schedules of pointwise programs share: the program on its way to Funcs, and Funcs of one or several
// values.
#pragma once

#include "pointwise_kernel.h"

namespace cryolite {

inline bool is_sum(const ProgramStatement &s) { return s.op == "sum"; }

struct PointwiseBuild {
    const Program &program;
    const PointwiseArguments &arguments;
    Evaluator evaluator;
    Halide::Var lane{"l"};

    PointwiseBuild(const Program &p, const PointwiseArguments &a)
        : program(p), arguments(a), evaluator(p, a.lanes, a.input, a.scalar) {}

    // The point of a space whose coordinates are variables; `at` gets them, outermost first.
    Point point_of(const ProgramShape &space, std::vector<Halide::Var> &at) const;

    // The values of the outputs over one space, and its coordinates; unscheduled.
    Halide::Func map(const std::vector<int> &group, const ProgramShape &space, std::vector<Halide::Var> &at);

    // Coordinates of a space that a sum keeps, behind the lane, innermost first.
    std::vector<Halide::Expr> kept(const std::vector<Halide::Var> &at, const std::vector<int> &reduced) const;
};

// Sum of element(first), ..., element(first + count - 1) as a tree, in one expression.
Halide::Expr tree_sum(const std::function<Halide::Expr(int)> &element, int count, int first = 0);

// Arguments as variables; constants become variables of extent 1.
std::vector<Halide::Var> vars(const std::vector<Halide::Expr> &arguments);

// f(arguments) = values: a number, or a Tuple of several.
void define(Halide::Func &f, const std::vector<Halide::Var> &arguments, const std::vector<Halide::Expr> &values);
std::vector<Halide::Expr> values_of(const Halide::Func &f, const std::vector<Halide::Expr> &arguments, size_t count);

// Outputs over one space, all maps or all sums over the same axes (pointwise_block.cpp, pointwise_whole.cpp).
Halide::Func block_map(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space);
Halide::Func block_sums(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space);
Halide::Func whole_map(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space);
Halide::Func whole_sums(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space);

} // namespace cryolite
