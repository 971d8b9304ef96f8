// The reference interpreter: evaluates a graph in float64 by OpDef::reference. What every pass before lower, and every
// gradient, is compared with.
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
};

struct Interpreted {
    TensorMap outputs;   // by output name: "loss"
    TensorMap gradients; // by parameter, before the optimizer replaces them
    TensorMap assigned;  // by state: its value after the step
};

// graph: after select_mode and before lower. Throws InternalError that prints the node for an op without a reference,
// for a value that inputs lack, and for one of another size.
Interpreted interpret(const Graph &graph, const InterpreterInputs &inputs);

} // namespace cryolite
#endif
