// The reference interpreter: evaluates a graph in float64 by OpDef::reference. What every pass before fuse, and every
// gradient, is compared with. A lowered graph works on whole blocks, with padding lanes, as its kernels will.
#ifndef CRYOLITE_INTERPRET_H
#define CRYOLITE_INTERPRET_H

#include "op.h"

namespace cryolite {

using TensorMap = std::map<std::string, std::vector<double>>;

struct InterpreterInputs {
    int64_t batch = 1;
    std::vector<double> images; // [batch, ...]
    std::vector<double> labels; // [batch]
    TensorMap stored;           // parameters and states by name; a constant's initial value where there is none
    double learning_rate = 0;
    double step = 0;
    int64_t lanes = 0; // of a lowered graph
    // Lowered: what padding lanes of results hold that may hold anything finite; empty: what the op makes of its
    // inputs.
    std::optional<double> padding = std::nullopt;
    // A seed: every result is rounded to float32, up or down at random, the nearer the likelier. How far the results
    // of a graph are apart for two seeds is what float32 can say about it.
    std::optional<uint64_t> rounding = std::nullopt;
};

struct Interpreted {
    TensorMap outputs;   // by output name: "loss"
    TensorMap gradients; // by parameter, before the optimizer replaces them
    TensorMap assigned;  // by state: its value after the step
};

// graph: after select_mode and before fuse. Throws InternalError that prints the node for an op without a reference,
// for a value that inputs lack, and for one of another size.
Interpreted interpret(const Graph &graph, const InterpreterInputs &inputs);

} // namespace cryolite
#endif
