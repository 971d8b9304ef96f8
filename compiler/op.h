// The contract of an operator: a const struct of functions, one file in ops/ each, one line in ops/ops.inc.
//
// Adding one: its file, at most one generator, its line. Text form, verifier, differentiation, fusion, tests and
// benches read this table; no pass knows an op by name unless the op is part of the graph's grammar (input, parameter,
// state, assign, output).
#ifndef CRYOLITE_OP_H
#define CRYOLITE_OP_H

#include "choices.h"
#include "graph.h"

#include <memory>

namespace cryolite {

// A float64 tensor of the reference interpreter; shape has the batch resolved.
struct Tensor {
    std::vector<int64_t> shape;
    std::vector<double> data;
    int64_t batch = 0, lanes = 0; // samples of the batch; of a block, once lowered: batched tensors then have whole
                                  // blocks of samples, those from batch on are padding
    int64_t elements() const { return int64_t(data.size()); }
};

// What padding lanes (the samples that a ragged last block lacks) of an op's results hold, given its batched inputs.
enum class Padding {
    garbage, // anything finite
    zero,    // zeros, always
    if_any,  // zeros if any batched input has zeros there: mul
    if_all,  // zeros if all batched inputs have, and there are no whole ones added: add, pooling, convolution's
             // gradients
};

// Where an op's result lies. All but the first have no code (views.h).
enum class Place {
    own,
    same,   // the input's storage with another shape: reshape
    inside, // a range of the input's channels, the first of them attribute `from`: slice
    around, // the inputs are made inside it, channels side by side: concat
};

// How a node becomes a call of a generator. Arguments name inputs and outputs of the node, scalars, or the scratch.
struct KernelArg {
    enum Kind { input, output, batch, valid, block, tile, scratch } kind;
    int index = 0;                // of the input or output
    std::vector<int64_t> extents; // Halide order, innermost first, without the dimension over all blocks
    int64_t tile_stride = 0;      // elements from one tile to the next
    bool all_blocks = false;      // tile and merge kernels: the kernel walks all blocks, as one more outer dimension
    std::vector<int64_t> strides = {}; // empty: dense
    bool single = false;               // of a block value, although the extents have no dimension for blocks
};
struct Kernel {
    std::string generator;
    std::map<std::string, std::string> parameters; // without lanes and target
    std::vector<KernelArg> args;                   // in the generator's order
    int64_t tiles = 0;       // > 0: one task a tile, in a phase after the one that makes the inputs
    bool of_block = false;   // the tiles are of each block: ranges of its channels, or of its pixels
    int64_t channels = 0;    // of a block's results, which can be made in strips (strips.h): so many; 0: they cannot
    bool at_barrier = false; // tiles of a tail step: at the barrier itself, so that inputs need not outlive their phase
    double flops = 0;        // per call
    int64_t scratch = 0;     // floats that a call may use and leaves as it likes, for a scratch argument
};
struct KernelContext {
    int64_t lanes;
    int64_t max_batch;
    Math math = Math::measured;
    int64_t vector =
        0; // > 0: the path of one sample, channels innermost in vectors of this width (passes/channels.cpp)
    bool by_halves = false; // a whole vector takes as long as two of half its width
    bool device = false; // a call has all blocks, and enough threads without tiles (generators/kernels.md, "On a GPU")
    bool weights_change = true;      // in every step; else what depends on them alone is made once
    int64_t processors = 1;          // to be kept busy: by tiles and strips, where the largest batch has fewer blocks
    int64_t strip_bytes = 512 << 10; // of a core's own cache, that what steps touch for one strip may fill (strips.h)
    int64_t strips = 1;              // of a block's channels: the kernel makes one of so many, as a tile
    bool joined = false;             // the kernel makes a gradient in tiles, or an update goes with them: a tile of the
                                     // gradient is stored for itself, dense (joined_updates.h)
    std::shared_ptr<Choices> choices = {}; // what was found to be better than a model's answer; null: models decide
    size_t choose(const Decision &decision) const { return choices ? choices->choose(decision) : decision.usual; }
    int64_t max_blocks() const { return (max_batch + lanes - 1) / lanes; }
    // Whether blocks are too few to keep the processors busy: then tasks are tiles and strips of blocks, so many of
    // each.
    bool has_few_blocks() const { return !device && !vector && max_blocks() < processors; }
    int64_t tasks_of_block() const { return has_few_blocks() ? 2 * processors / max_blocks() : 1; }
};

// Of one block of a per-block value, or of a whole one.
constexpr int64_t element_bytes = 4; // of either type
int64_t bytes_of(const Graph &graph, ValueId v, const KernelContext &context);

// One test and bench case of an op: inputs by shape, attributes, and where the inputs' values lie. Shapes and
// attributes that name lanes mean case_lanes.
constexpr int64_t case_lanes = 4;
struct Case {
    std::vector<ValueType> inputs;
    Attrs attrs;
    double low = -1, high = 1;
    bool large = false; // too large for finite differences
};

struct OpDef {
    const char *name;
    const char *summary;
    int min_inputs, max_inputs;

    // Result types, or a CompileError about the node's inputs and attributes.
    std::vector<ValueType> (*infer)(const Graph &graph, const Node &node);

    // Appends the gradient to graph: given dy for each result (no_value: that result has no gradient), the gradient for
    // each input (no_value: none). Null: not differentiable, gradients stop here. node is a copy.
    std::vector<ValueId> (*gradient)(Graph &graph, const Node &node, const std::vector<ValueId> &dy) = nullptr;

    // select_mode pass: what the op means in one mode; adds nodes to rewriter.to and binds the results. Null: itself.
    void (*select)(Rewriter &rewriter, const Node &node, Mode mode) = nullptr;

    // lower pass: composite ops become primitive ones; reductions over the batch become a partial sum per block and a
    // merge. Null: primitive.
    void (*lower)(Rewriter &rewriter, const Node &node, const KernelContext &context) = nullptr;

    // How the op reads in a pointwise program (generators/kernels.md): a name alone stands for name(all inputs);
    // otherwise $0, $1 are inputs and valid, block, batch the kernel's scalars: "mask($0, valid)". Attributes follow in
    // braces. Null: not a statement.
    const char *statement = nullptr;
    double work = 1; // of a statement: time per element (of a window: per point), in units of an addition

    // Primitive ops that are no statements: their generator. Null: a statement, or no code (alias, grammar).
    Kernel (*kernel)(const Graph &graph, const Node &node, const KernelContext &context) = nullptr;

    bool stored = false; // of a statement: its result is never computed again where it is read
    Place place = Place::own;
    bool zero_batch_sum = false; // sums of the result over the batch (and pixels) are zero by construction
    Padding padding = Padding::garbage;
    int masked_input = -1; // this input must be zero in padding lanes, since the op sums over samples: partial_sum's x,
                           // dy of weight gradients

    // Float64 reference: fills outputs (already shaped). Null only for grammar ops.
    void (*reference)(const Graph &graph, const Node &node, const std::vector<const Tensor *> &inputs,
                      const std::vector<Tensor *> &outputs) = nullptr;
    std::vector<Case> (*cases)() = nullptr;
    const char *no_gpu = nullptr;      // why there is no kernel of it for devices: another op is made there instead
    const char *no_gradient = nullptr; // why nothing is differentiated through the op; said by each op with a reference
                                       // that has no gradient, or one that is zero
};

const OpDef *find_op(const std::string &name); // null when there is none
bool named(const Node &node, const char *op);
const std::vector<const OpDef *> &all_ops();

// Throws CompileError: "<op> '<layer>': <message> (<source>)".
[[noreturn]] void compile_error(const Node &node, const std::string &message);

} // namespace cryolite
#endif
