// What 2-D convolution and its gradients share. x [n,c,h,w], weight [k,c/groups,r,s], y [n,k,...]. The attribute
// `groups`, 1 where it is missing, cuts the channels into so many convolutions side by side: each sees c/groups and
// makes k/groups.
#ifndef CRYOLITE_OPS_CONV2D_COMMON_H
#define CRYOLITE_OPS_CONV2D_COMMON_H

#include "common.h"

#include <algorithm>
#include <functional>

namespace cryolite::convolution {

int64_t groups(const Node &node);

// Where the window is one pixel, an image is as good as one row: rows that no tile divides then waste nothing.
bool by_pixels(const Shape &weight, const Node &node);

// The generators' parameters, and what a call for one block multiplies and adds.
std::map<std::string, std::string> parameters(const Shape &x, const Shape &weight, const Node &node);
double flops(const Shape &weight, const Shape &y, const KernelContext &context);

// Images as kernels see them: the groups of a block are blocks of fewer channels, one after another (kernels.md).
KernelArg image_arg(KernelArg arg, const Shape &weight, const Node &node);
KernelArg in_one_row(KernelArg image);

// Leaves the kernel one tile of a block, where there should be tiles: a range of the channels that the parameter
// `counter` counts, in these dimensions of the arguments. Of groups, which are the outermost dimension of all, a strip.
void cut_block(Kernel &kernel, const char *counter, const std::vector<ChannelDimension> &cuts, const Node &node,
               const KernelContext &context);
// The same with ranges of pixels instead of channels, where weights are smaller than images: a task then reads its part
// of the images and all weights. Arguments from `images` on are shaped as the result, of `results` channels.
bool cut_pixels(Kernel &kernel, size_t images, int64_t results, const Shape &x, const Shape &weight, const Node &node,
                const KernelContext &context);
// Scratch for the copy of a source of `channels` channels, before the result, where copying it pays. Only for kernels
// whose images are all pixels in a row (by_pixels) and of one group.
void pack_source(Kernel &kernel, int64_t channels, int64_t results, const Shape &weight, const Node &node,
                 const KernelContext &context);

// A block's convolution in one task, or in several: of `tiles` ranges of its output channels, or of `parts` of its
// image.
struct Split {
    int64_t tiles = 1, parts = 1;
    double cycles = 0; // modelled, until the last processor is done
};
// The fastest, by `cycles`: of one of so many ranges of the channels; infinite where there are no such. Parts are
// ranges of `groups` of the image, which are dealt out whole.
Split choose_split(const KernelContext &context, int64_t groups, const std::function<double(int64_t tiles)> &cycles);

// [k,c,r,s] as [c,k,r,s], and back.
Tensor swapped(const Tensor &weight);

// A window of one pixel that moves in strides sees an image of fewer pixels. On a processor that is made first: kernels
// then find their pixels side by side.
bool skips_pixels(const Shape &weight, const Node &node, const KernelContext &context);
Attrs skipping(const Node &node); // of the avg_pool2d that makes it
ValueId seen_pixels(Rewriter &rewriter, const Node &node, ValueId x);
Attrs of_stride_one(Attrs attrs); // of the convolution of it

// Calls f(index of x, of weight, of y) for every multiply-add inside the image, outside(of weight, of y) for those with
// the padding: zeros, but NaN in a product with NaN or infinity. Innermost along rows of y.
template <typename F, typename Outside>
void each_tap(const Node &node, const std::vector<int64_t> &x, const std::vector<int64_t> &w,
              const std::vector<int64_t> &y, F f, Outside outside) {
    int64_t stride = node.attrs.integer("stride"), padding = node.attrs.integer("padding");
    int64_t outputs = y[1] / groups(node); // of a group
    auto row = [&](int64_t n, int64_t k, int64_t c, int64_t r, int64_t s, int64_t i) {
        const size_t weight = size_t(((k * w[1] + c) * w[2] + r) * w[3] + s);
        const size_t result = size_t(((n * y[1] + k) * y[2] + i) * y[3]);
        const int64_t yy = i * stride + r - padding, left = s - padding;
        const bool inside = yy >= 0 && yy < x[2];
        // 0 <= j * stride + left < x[3]
        const int64_t end = inside ? std::clamp<int64_t>((x[3] - left + stride - 1) / stride, 0, y[3]) : 0;
        const int64_t begin = std::min(std::max<int64_t>(-left + stride - 1, 0) / stride, end);
        const int64_t source = ((n * x[1] + k / outputs * w[1] + c) * x[2] + yy) * x[3] + left;
        for (int64_t j = 0; j < begin; j++) outside(weight, result + size_t(j));
        for (int64_t j = begin; j < end; j++) f(size_t(source + j * stride), weight, result + size_t(j));
        for (int64_t j = end; j < y[3]; j++) outside(weight, result + size_t(j));
    };
    for (int64_t n = 0; n < y[0]; n++)
        for (int64_t k = 0; k < y[1]; k++)
            for (int64_t c = 0; c < w[1]; c++)
                for (int64_t r = 0; r < w[2]; r++)
                    for (int64_t s = 0; s < w[3]; s++)
                        for (int64_t i = 0; i < y[2]; i++) row(n, k, c, r, s, i);
}

// Shapes of x, weight and y.
struct ConvCase {
    const char *x, *weight, *y;
    int64_t stride, padding;
    bool large = false;
    int64_t groups = 1;
};
// One of every row of the table, large ones marked.
std::vector<Case> each_case(Case (*make)(const ConvCase &, Attrs));

} // namespace cryolite::convolution
#endif
