// The meaning of pointwise programs: turns a statement at given coordinates into one Halide expression.
// Used by the pointwise generator, which supplies inputs and schedules the result.
#pragma once

#include "Halide.h"
#include "program.h"

#include <functional>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

namespace cryolite {

// One element of a value. `at` runs over the graph's dimensions; at[0] of a block value is the block within the call.
struct Point {
    Halide::Expr lane;
    std::vector<Halide::Expr> at;

    Point at_pixel(Halide::Expr y, Halide::Expr x) const {
        Point result = *this;
        result.at[2] = y;
        result.at[3] = x;
        return result;
    }
};

inline bool is_adaptive(const ProgramStatement &s) { return s.op.rfind("adaptive_avg_pool2d", 0) == 0; }

inline bool is_pool(const ProgramStatement &s) {
    return s.op == "avg_pool2d" || s.op == "max_pool2d" || s.op == "max_pool2d_winner";
}

// Elements that overlapping windows share, and what lies around them: a Func of (lane, w, h, c, b) that is computed
// once for a patch of outputs instead of once for each window. Any coordinates may be read.
struct StagedRows {
    Halide::Func f, inside_row;       // inside_row of h: whether the row is inside; undefined where nothing asks
    int numerator, denominator, more; // n outputs side by side read at most n * numerator / denominator + more

    int extent(int n) const { return (n * numerator + denominator - 1) / denominator + more; }
};

class Evaluator {
public:
    // `input` gives an input buffer's element, `scalar` an int32 scalar input, both by statement.
    using Input = std::function<Halide::Expr(int statement, const std::vector<Halide::Expr> &arguments)>;
    using Scalar = std::function<Halide::Expr(int statement)>;

    Evaluator(const Program &program, int lanes, Input input, Scalar scalar);

    Halide::Expr value(int statement, const Point &point);

    // What follows is read by another consumer: Funcs made so far are not.
    void next_consumer() {
        windows_.clear();
        rows_.clear();
    }

    // From now on `statement` is read from `f`, whose arguments are those of its buffer.
    void read_from(int statement, Halide::Func f) { stored_[statement] = f; }

    // Funcs made on the way: reductions over large windows, and values that would make one expression too
    // large; first argument the lane. To be computed in the innermost loop of the consumer, or of the
    // Func that loops over a window and reads them, each before those that follow it.
    struct Staged {
        Halide::Func f;
        Halide::Func loops = {}; // undefined: read by the consumer
        Halide::RVar at = {};    // the innermost loop of `loops`
    };
    const std::vector<Staged> &staged() const { return staged_; }

    // In a loop around the consumer's tiles.
    const std::vector<StagedRows> &staged_rows() const { return staged_rows_; }

    // Some staged Func is read at clamped coordinates: its region is constant for a single point only, not for a tile.
    bool staged_points_only() const { return staged_points_only_; }

    // Arguments of a value's buffer, innermost first.
    static std::vector<Halide::Expr> arguments(const ProgramShape &shape, const Point &point);

    // Windows with more elements than this become a loop.
    static constexpr int largest_unrolled_window = 25;

private:
    using Key = std::pair<int, std::vector<const void *>>;

    Halide::Expr compute(const ProgramStatement &s, int index, const Point &point);
    Halide::Expr operand(const ProgramStatement &s, int i, const Point &point);
    void find_large_values();
    Halide::Expr staged_value(int index, const Point &point);
    void find_under_windows();
    bool is_elementwise(int statement) const;
    bool reads_rows(int statement) const;
    Halide::Expr row_element(const ProgramStatement &s, int operand_index, const Point &at, float outside);
    Halide::Expr window_element(int statement, const Point &out, Halide::Expr r, Halide::Expr column, float outside);
    Halide::Expr pool(int statement, const Point &point);
    bool pool_unrolls(const ProgramStatement &s) const;
    int points_read(int statement) const;
    // In a search for the largest, sums are in the order that is written, wherever they are computed: equal windows
    // have equal means, of which every search must take the same one. Elsewhere LLVM may share what neighbours have in
    // common.
    Halide::Expr plus(Halide::Expr a, Halide::Expr b) const;
    Halide::Expr average(int statement, const Point &point);
    Halide::Expr largest(int statement, const Point &point);
    std::pair<Halide::Expr, Halide::Expr> best_of(int statement, const Point &point);
    Halide::Func looped(int statement);
    Halide::Func looped_winner(int statement);
    Halide::Expr pool_gradient(int statement, const Point &point);
    Halide::Expr adaptive_pool(const ProgramStatement &s, int index, const Point &point);
    bool adaptive_unrolls(const ProgramStatement &s) const;
    Halide::Expr uniform(const ProgramStatement &s, const Point &point);

    const Program &program_;
    int lanes_;
    Input input_;
    Scalar scalar_;
    Halide::Expr zero_ = 0;
    std::map<Key, std::pair<Halide::Expr, Point>> memo_; // keeps the coordinates of a key alive
    std::map<int, Halide::Func> stored_;
    std::map<std::pair<int, std::string>, Halide::Func>
        windows_; // by statement, the loop that reads it and coordinates
    std::string place(const std::vector<Halide::Expr> &coordinates) const;
    std::vector<Staged> staged_;
    bool staged_points_only_ = false;
    std::map<std::tuple<int, float, int, int>, Halide::Func> rows_; // by statement, value outside, reader's windows
    std::vector<StagedRows> staged_rows_;
    bool searches_ = false;          // for the largest element of a window
    std::vector<bool> large_;        // by statement: others read it from a Func
    std::vector<bool> under_window_; // by statement: some window reads it
    Staged loop_;                    // what is evaluated belongs to this loop over a window, if any
};

// The one output of a program of values [n], of which one element is given: by input, in their order.
Halide::Expr element_of(const Program &program, const std::vector<Halide::Expr> &inputs);

} // namespace cryolite
