// Builds and schedules the Funcs of a pointwise program. Shared by the `pointwise` generator and the standalone ones,
// which differ only in where the program comes from.
#pragma once

#include "algorithms_pointwise.h"

namespace cryolite {

struct PointwiseArguments {
    Evaluator::Input input;
    Evaluator::Scalar scalar;
    int lanes = 0;       // V
    int blocks = 1;      // blocks in one call; 0: on a GPU, all of the batch
    int vector_size = 0; // float32 lanes of the target, for programs of whole values
};

// True when all outputs have one shape and one iteration space: they are one Tuple-valued Func, and what they share is
// computed once. Else every output is a Func of its own.
bool outputs_share_func(const Program &program);

// Shape of the space an output is computed over: its own, or the summed one's.
const ProgramShape &output_space(const Program &program, int statement);

// The outputs, scheduled: one Func, or one per output.
std::vector<Halide::Func> build_pointwise(const Program &program, const PointwiseArguments &arguments);

// Extents of a value's buffer, innermost first.
std::vector<int> buffer_extents(const ProgramShape &shape, int lanes, int blocks);

// The same of an output; on a GPU (blocks = 0) sums over samples have the blocks in the place of axis 0; of
// [n] behind one element.
std::vector<int> output_extents(const Program &program, int statement, int lanes, int blocks);

// The outputs for a GPU, scheduled (pointwise_gpu.cpp).
std::vector<Halide::Func> build_pointwise_for_gpu(const Program &program, const PointwiseArguments &arguments);

} // namespace cryolite
