// Writes statements of a graph as a program of the pointwise generator (generators/kernels.md).
#ifndef CRYOLITE_PROGRAM_TEXT_H
#define CRYOLITE_PROGRAM_TEXT_H

#include "op.h"

namespace cryolite {

struct ProgramText {
    std::string program;
    std::string scalars;         // "valid,block": int32 arguments, before the inputs
    std::string output_types;    // "[n,6,24,24] [b,1,6,1,1]": as parse_shape reads them
    std::vector<ValueId> inputs; // in the order of the kernel's arguments
};

// roots: node indices whose results the program stores; everything not `stored` is inlined. Equal structure gives equal
// text, whatever the graph around it, so that kernels can be shared.
ProgramText write_program(const Graph &graph, const std::vector<int> &roots, const std::vector<bool> &stored);

// The program with the statement of one input before all others.
std::string with_input_first(const std::string &program, int input);

std::string bracketed(const Shape &shape); // "[n,6,24,24]"
Shape parse_shape(const std::string &text);
std::vector<Shape> parse_shapes(const std::string &text);

} // namespace cryolite
#endif
