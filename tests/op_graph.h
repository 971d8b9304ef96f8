// One op of the table in a graph of its own, with a loss that depends on every element of its first result.
#ifndef CRYOLITE_TESTS_OP_GRAPH_H
#define CRYOLITE_TESTS_OP_GRAPH_H

#include "interpret.h"

#include <string>
#include <vector>

namespace cryolite::test {

std::string case_text(const OpDef &op, const Case &c);

// Of x itself: that is what the op's rule differentiates.
bool takes_statistics(const OpDef &op);
// And it is not zero everywhere, as a comparison's.
bool has_gradient(const OpDef &op);

// Numbers that are float32 numbers, too.
std::vector<double> numbers(uint64_t seed, int64_t count, double low = -1, double high = 1);

// The largest difference over the largest expected value, in units of float32 epsilon (2^-23). Infinite where something
// is missing, or not a number.
double error_of(const std::vector<double> &ours, const std::vector<double> &expected);
double error_of(const TensorMap &ours, const TensorMap &expected);

// Every number moved by float32's last bits: how far results move with them is what float32 can say about these.
InterpreterInputs nudged(InterpreterInputs inputs);

// Operands are parameters x0, x1, ... (integers: the labels), also where their shape has the batch; statistics and
// maxima are made of them. Outputs y0, y1, ...
// are the op's results, "loss" is the sum of the first one's elements, each times a weight of its own.
struct OpGraph {
    Graph graph;
    InterpreterInputs inputs;
    OpGraph(const OpDef &op, const Case &c, int64_t batch);

private:
    ValueId stored(const char *op, const std::string &name, const Shape &of, double low, double high);
    std::vector<ValueId> operands(const OpDef &op, const Case &c);
    ValueId label(int64_t classes);
};

} // namespace cryolite::test
#endif
