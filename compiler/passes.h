// Every pass, and the pipeline per mode. A pass is a free function on a graph; the driver verifies after each and
// blames the pass by name. `--emit <pass>` prints the graph after it.
#ifndef CRYOLITE_PASSES_H
#define CRYOLITE_PASSES_H

#include "op.h"

namespace cryolite {

struct PassContext {
    Mode mode;
    Sgd optimizer;
    KernelContext kernel;
};

// Keeps what the mode needs: by_mode picks its branch, batch_norm and dropout become what they mean in the mode,
// assigns and the loss go where they do not belong. After it the graph says nothing about modes.
Graph select_mode(const Graph &graph, const PassContext &context);

// Train: appends the gradient of the loss for every parameter, by each op's rule, in reverse order. Several uses of a
// value add up. Gradients are kept by gradient(parameter, dparameter) nodes, which the optimizer replaces.
Graph differentiate(const Graph &graph, const PassContext &context);

// Train: every gradient node becomes the optimizer's op and an assign; moments become states.
Graph apply_optimizer(const Graph &graph, const PassContext &context);

// Common subexpressions, arithmetic identities that hold for NaN too, sums that are zero by construction, dead nodes.
Graph simplify(const Graph &graph, const PassContext &context);

// Evaluate, infer: what is multiplied with or added to each channel of a convolution's or linear layer's result, by
// values that parameters and states alone determine, becomes part of its weight and bias: batch norm, for one.
Graph fold_channels(const Graph &graph, const PassContext &context);

// Nodes that no effect needs. Parameters and states stay.
Graph drop_dead(const Graph &graph);

// Composite ops become primitive ones: what is left is a pointwise statement or a kernel. Reductions over the batch are
// split into a partial sum per block, shape [b, ...], and a merge. Images are packed into lane layout.
Graph lower(const Graph &graph, const PassContext &context);

// Padding lanes of a ragged block hold anything. Where a sum over samples would see them, a mask is put before it.
Graph mask_padding(const Graph &graph, const PassContext &context);

// Parts of concats that cannot be made inside them (views.h), because they lie elsewhere, are copied.
Graph place_concats(const Graph &graph, const PassContext &context);

// Pointwise statements become pointwise nodes, one kernel each. What is stored, find_stored (stored.h) decides;
// everything else is recomputed where it is read. Sums over the same space share one kernel.
Graph fuse(const Graph &graph, const PassContext &context);

// Evaluate, infer: a pointwise kernel that alone reads a convolution's result, element by element, becomes part of the
// convolution's kernel. After fuse. Nothing for devices.
Graph append_programs(const Graph &graph, const PassContext &context);

// Activations that only weight gradients still read in backward are made again there, by a copy of their kernel that
// runs late, instead of being kept: where the copy reads what its phase reads anyway and costs less than two accesses.
// After fuse: about half of a convolutional network's memory.
Graph rematerialize(const Graph &graph, const PassContext &context);

// Infer of one sample: the kernels of the lane layout become those of channels innermost. Last of all passes, where
// context.kernel.vector says so. Throws NoChannels where an op has none.
Graph channels(const Graph &graph, const PassContext &context);
struct NoChannels : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Pass {
    const char *name;
    Graph (*run)(const Graph &, const PassContext &);
};
// The passes of a mode, in order.
const std::vector<Pass> &pipeline(Mode mode, bool one = false); // one: infer of one sample

// Runs the pipeline; observe (may be empty) sees the graph after every pass.
Graph run_pipeline(const Graph &network, const PassContext &context,
                   const std::function<void(const char *pass, const Graph &)> &observe = {});

} // namespace cryolite
#endif
