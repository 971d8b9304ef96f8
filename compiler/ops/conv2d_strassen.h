// Where convolutions of one pixel become Strassen's, in the lower pass.
#ifndef CRYOLITE_OPS_CONV2D_STRASSEN_H
#define CRYOLITE_OPS_CONV2D_STRASSEN_H

#include "../op.h"

namespace cryolite {

// Each adds the nodes and binds the result where Strassen's product is faster and the network's Math allows it; else it
// returns false and changes nothing.
bool lower_conv2d_to_strassen(Rewriter &rewriter, const Node &node, const KernelContext &context);
bool lower_conv2d_grad_input_to_strassen(Rewriter &rewriter, const Node &node, const KernelContext &context);

} // namespace cryolite
#endif
