// Which values of a lowered graph get storage. Every other one is recomputed by each kernel that reads it.
#ifndef CRYOLITE_STORED_H
#define CRYOLITE_STORED_H

#include "times.h"

#include <set>

namespace cryolite {

// Time to read or write one element of a block, in units of OpDef::work: of one addition.
constexpr double access_work = 5;

// By ValueId. Stored are: what a kernel that is no statement reads, what an effect or an alias does, whole values that
// a block-level statement reads, sums, and what its op says is; then block-level statements, as long as storing another
// one saves time by the model in stored.cpp, or as the context's choices say.
std::vector<bool> find_stored(const Graph &graph, const Times &times, const KernelContext &context);

// How a kernel that stores the results of some statements gets at what they need.
struct KernelReads {
    std::set<ValueId> remade; // stored values that it remakes from what it reads anyway
    double work;              // of its statements, per element of the first result
};
KernelReads find_reads(const Graph &graph, const std::vector<int> &nodes, const std::vector<bool> &stored);

// Sums over the batch with equal keys share a kernel: equal axes of equal shape in the same phase. Empty: no such sum.
std::string sum_key(const Graph &graph, const Times &times, int index);

bool is_literal(const Node &node); // a number, written into programs
bool is_sum(const Node &node);     // a statement that reduces

} // namespace cryolite
#endif
