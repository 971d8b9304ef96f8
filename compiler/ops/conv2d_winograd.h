// Where conv2d and its gradients become Winograd convolutions, in the lower pass.
#ifndef CRYOLITE_OPS_CONV2D_WINOGRAD_H
#define CRYOLITE_OPS_CONV2D_WINOGRAD_H

#include "../op.h"

#include "winograd.h"

namespace cryolite {

// Each adds the nodes and binds the result where Winograd's is faster and accurate enough for the network's Math;
// else it returns false and changes nothing.
bool lower_conv2d_to_winograd(Rewriter &rewriter, const Node &node, const KernelContext &context);
bool lower_conv2d_grad_input_to_winograd(Rewriter &rewriter, const Node &node, const KernelContext &context);
bool lower_conv2d_grad_weight_to_winograd(Rewriter &rewriter, const Node &node, const KernelContext &context);

// A convolution of x [n, c, h, w] to k channels with its tile chosen; m is 0 where direct convolution is better.
WinogradConv choose_winograd(const Node &node, const KernelContext &context, const Shape &x, int64_t k, int64_t r,
                             int64_t s, int64_t padding, WinogradUse use);

} // namespace cryolite
#endif
