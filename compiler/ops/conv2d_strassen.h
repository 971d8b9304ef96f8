// Where convolutions of one pixel become Strassen's, in the lower pass.
#ifndef CRYOLITE_OPS_CONV2D_STRASSEN_H
#define CRYOLITE_OPS_CONV2D_STRASSEN_H

#include "../op.h"

namespace cryolite {

// The result of a convolution of these inputs, of the graph that is made, by its weight's window of one pixel and of
// stride 1: added where Strassen's product is faster and the network's Math allows it; else no_value, and nothing is
// changed. The gradient's inputs are dy and the weight.
ValueId strassen_conv2d(Rewriter &rewriter, const Node &node, std::vector<ValueId> inputs,
                        const KernelContext &context);
ValueId strassen_conv2d_grad_input(Rewriter &rewriter, const Node &node, std::vector<ValueId> inputs,
                                   const KernelContext &context);

} // namespace cryolite
#endif
