// A convolution's weight [k,c,r,s] as [c,k,r,s]: what a gradient for the input reads front to back.
#include "conv2d_common.h"

namespace cryolite {

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    Shape w = g.shape(n.inputs[0]);
    if (w.rank() != 4 || w.batched()) compile_error(n, "the weight must be [k, c, r, s], not " + w.text());
    std::swap(w.dims[0], w.dims[1]);
    return {{w, Type::f32}};
}
// Input channels of one task, a divisor of them all: whole cache lines of the weight, in L2 with the result.
static int64_t tile_of(const Shape &w) {
    for (int64_t tile = 16; tile < w[1]; tile += 16)
        if (w[1] % tile == 0 && tile * w[0] * w[2] * w[3] >= 1 << 16) return tile;
    return w[1];
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &) {
    const Shape &w = g.shape(n.inputs[0]);
    const int64_t window = w[2] * w[3], tiles = w[1] / tile_of(w);
    Kernel kernel{.generator = "transpose",
                  .parameters = {{"rows", text(w[0])}, {"columns", text(w[1])}},
                  .args = {{.kind = KernelArg::input, .index = 0, .extents = {w[1], w[0]}},
                           {.kind = KernelArg::output, .index = 0, .extents = {w[0], w[1]}}}};
    if (window > 1) {
        kernel.parameters["together"] = text(window);
        for (KernelArg &arg : kernel.args) arg.extents.insert(arg.extents.begin(), window);
    }
    if (tiles > 1) { // for all threads, at the barrier
        kernel.tiles = tiles;
        kernel.at_barrier = true;
        kernel.parameters["columns"] = text(w[1] / tiles);
        kernel.parameters["row"] = text(w[1]);
        cut(kernel.args[0], window > 1 ? 1 : 0, tiles);
        cut(kernel.args[1], window > 1 ? 2 : 1, tiles);
    }
    return kernel;
}
static void reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    *out[0] = convolution::swapped(*in[0]);
}

static std::vector<Case> cases() {
    return cases_of({"[3,2,3,3]", "[1,1,1,1]", "[5,7,1,1]", "[2,9,1,2]", "[19,11,2,2]", "[64,48,3,3]", "[67,256,1,1]"});
}

extern const OpDef swap_channels_op;
const OpDef swap_channels_op = {.name = "swap_channels",
                                .summary = "a convolution's weight with its channels swapped",
                                .min_inputs = 1,
                                .max_inputs = 1,
                                .infer = infer,
                                .kernel = kernel,
                                .reference = reference,
                                .cases = cases,
                                .no_gpu = "devices read weights as they are",
                                .no_gradient = made_by_lowering};

} // namespace cryolite
