// What ops share: shapes, small graph builders for gradients, kernel arguments, cases.
#ifndef CRYOLITE_OPS_COMMON_H
#define CRYOLITE_OPS_COMMON_H

#include "../op.h"

namespace cryolite {

using Inputs = std::vector<const Tensor *>;
using Outputs = std::vector<Tensor *>;

// The sum of x over the axes in which `shape` is 1 and x is not; shape [] sums everything. The result has `shape`.
ValueId sum_to(Graph &graph, ValueId x, const Shape &shape, const std::string &layer);

// [c] seen as [1, c] or [1, c, 1, 1], to broadcast against x.
ValueId per_channel(Graph &graph, ValueId vector, ValueId x, const std::string &layer);

// 1 / (samples in the batch * count), a run-time value of shape [].
ValueId reciprocal_count(Graph &graph, int64_t count, const std::string &layer);

// For OpDef::no_gradient.
inline constexpr const char *made_by_gradients = "made by a gradient rule; there are no second derivatives";
inline constexpr const char *made_by_lowering = "made by lower, behind differentiate";

ValueId literal(Graph &graph, double value);

// All axes of x but 1: what batch norm sums over.
std::vector<int64_t> batch_axes(const Shape &x);
int64_t pixels(const Shape &x); // h * w, or 1

// Halide's extents of one block of a value, or of a whole one: innermost first.
std::vector<int64_t> kernel_extents(const Shape &shape, const KernelContext &context);
KernelArg input_arg(const Graph &graph, const Node &node, int index, const KernelContext &context);
KernelArg output_arg(const Graph &graph, const Node &node, int index, const KernelContext &context);

// What a kernel computes of its result, element by element, before it stores it (passes/append_programs.cpp): attribute
// `program`, of values [n], whose first input is the result. The others are the node's last inputs, as many as this,
// and are shaped as the result is.
size_t program_inputs(const Node &node);
bool has_bias(const Node &node); // behind x and the weight
// How many inputs there are, and the shapes of the program's.
void check_program_inputs(const Graph &graph, const Node &node, const Shape &result);

inline constexpr char direct_on_devices[] = "devices have direct convolutions only";

// Tells a kernel for a device the largest batch, for which it then has threads enough: parameter `n`.
void note_batch(Kernel &kernel, const KernelContext &context);

// Elements of one tile of a whole value that all threads work on: a divisor of size, in whole vectors; size itself when
// it is small or has no such divisor. A tile's few arrays fit in L2, and take some ten microseconds.
// On a device always size.
int64_t whole_tile(int64_t size, const KernelContext &context);

// Tiles of a block: equal ranges of an extent, each of at least `least`, at most as many as keep the processors busy.
// 0: the blocks are tasks enough, or the extent is too small.
int64_t block_tiles(int64_t extent, int64_t least, const KernelContext &context);
// Says that a call makes one of so many tiles of a block, of whose flops it then does a part.
void tile_block(Kernel &kernel, int64_t tiles);
// Leaves the first of so many tiles of an argument, ranges of extent `dimension`.
void cut(KernelArg &arg, size_t dimension, int64_t tiles);
// Where an argument's channels lie.
struct ChannelDimension {
    size_t arg, dimension;
};
// Where the context joins an update to the tiles: a tile of the result, one of the arguments, is dense, with no
// `weight_c` between its rows.
void store_alone(Kernel &kernel, size_t result, const KernelContext &context);
// Leaves the kernel one strip of its channels, where there should be strips and it has channels: a range of those that
// the parameter `counter` counts, in these dimensions of the arguments.
void cut_strips(Kernel &kernel, const char *counter, const std::vector<ChannelDimension> &cuts,
                const KernelContext &context);

// A case with float32 inputs of these shapes: "[n,2,5,5] [3,2,3,3]".
Case case_of(const std::string &shapes, Attrs attrs = {}, double low = -1, double high = 1);
// One case for each, of the same attributes and values.
std::vector<Case> cases_of(const std::vector<std::string> &shapes, const Attrs &attrs = {}, double low = -1,
                           double high = 1);

// The same cases, marked large.
std::vector<Case> large(std::vector<Case> cases);
// All of them.
std::vector<Case> operator+(std::vector<Case> a, const std::vector<Case> &b);

inline std::string text(int64_t number) { return std::to_string(number); }

} // namespace cryolite
#endif
