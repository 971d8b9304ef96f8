// The text of a pointwise program (kernels.md, "Programs") as a list of statements with inferred shapes.
// Knows nothing of Halide: the evaluator in algorithms_pointwise.h gives the statements their meaning.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace cryolite {

// A malformed program; the text names the statement.
struct ProgramError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

struct ProgramShape {
    static constexpr int batch = -1; // stands for `n`; only as the first dimension

    std::vector<int> dims;

    bool is_block() const { return !dims.empty() && dims[0] == batch; }
    int rank() const { return static_cast<int>(dims.size()); }
    std::string text() const;
    bool operator==(const ProgramShape &) const = default;
};

// What a statement reads: an earlier statement, or a number.
struct ProgramOperand {
    int statement = -1; // -1: the number `literal`
    float literal = 0;
};

struct ProgramStatement {
    std::string name, op, text;
    std::vector<ProgramOperand> operands;
    std::map<std::string, int> attributes; // window, stride, padding, ceil, h, w, seed
    std::vector<int> axes;                 // of sum, ascending
    ProgramShape shape;

    bool is_input() const { return op == "input" || is_integer(); }
    bool is_ceil() const {
        auto found = attributes.find("ceil");
        return found != attributes.end() && found->second;
    }
    bool is_integer() const { return op == "valid" || op == "block" || op == "batch"; }
};

// Made by a polynomial (algorithms_math.h), some twenty operations.
inline bool is_polynomial(const ProgramStatement &s) {
    return s.op == "exp" || s.op == "log" || s.op == "sigmoid" || s.op == "tanh";
}

struct Program {
    std::vector<ProgramStatement> statements; // in order: operands come first
    std::vector<int> inputs, outputs;         // statements, in argument order

    bool is_block() const; // some input, or a uniform, is a block value
};

// Throws ProgramError.
Program parse_program(const std::string &text);

// Output extent of a pooling window along one dimension; 0 when the window does not fit. ceil: one more window for a
// rest, if it begins inside the image or before it.
int pooled_extent(int extent, int window, int stride, int padding, bool ceil = false);

} // namespace cryolite
