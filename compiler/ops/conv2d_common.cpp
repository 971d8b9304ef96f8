#include "conv2d_common.h"

#include "schedule.h"

namespace cryolite::convolution {

int64_t groups(const Node &n) { return n.attrs.has("groups") ? n.attrs.integer("groups") : 1; }
bool by_pixels(const Shape &w, const Node &n) {
    return w[2] * w[3] == 1 && n.attrs.integer("stride") == 1 && n.attrs.integer("padding") == 0;
}
std::map<std::string, std::string> parameters(const Shape &x, const Shape &w, const Node &node) {
    const bool row = by_pixels(w, node);
    std::map<std::string, std::string> result{{"c", text(x[1])},
                                              {"h", text(row ? 1 : x[2])},
                                              {"w", text(row ? x[2] * x[3] : x[3])},
                                              {"k", text(w[0])},
                                              {"r", text(w[2])},
                                              {"s", text(w[3])},
                                              {"stride", text(node.attrs.integer("stride"))},
                                              {"padding", text(node.attrs.integer("padding"))}};
    if (groups(node) > 1) result["groups"] = text(groups(node));
    return result;
}
KernelArg in_one_row(KernelArg image) {
    image.extents.at(1) *= image.extents.at(2);
    image.extents.at(2) = 1;
    return image;
}
KernelArg image_arg(KernelArg arg, const Shape &w, const Node &node) {
    if (by_pixels(w, node)) arg = in_one_row(std::move(arg));
    arg.extents.at(3) /= groups(node);
    arg.extents.at(4) *= groups(node);
    return arg;
}
double flops(const Shape &w, const Shape &y, const KernelContext &context) {
    return 2.0 * double(context.lanes) * double(w.elements()) * double(y[2] * y[3]);
}

void cut_block(Kernel &kernel, const char *counter, const std::vector<ChannelDimension> &cuts, const Node &n,
               const KernelContext &context) {
    auto divide = [&](const char *parameter, int64_t tiles) {
        std::string &value = kernel.parameters.at(parameter);
        value = text(std::stoll(value) / tiles);
    };
    if (groups(n) > 1) {
        kernel.channels = groups(n);
        if (context.strips == 1) return;
        tile_block(kernel, context.strips);
        for (const char *parameter : {"c", "k", "groups"}) divide(parameter, context.strips);
        for (KernelArg &arg : kernel.args) cut(arg, arg.extents.size() - 1, context.strips);
    } else if (const int64_t tiles = block_tiles(std::stoll(kernel.parameters.at(counter)), context.lanes, context)) {
        tile_block(kernel, tiles);
        divide(counter, tiles);
        for (const ChannelDimension &c : cuts) cut(kernel.args.at(c.arg), c.dimension, tiles);
    }
}
bool cut_pixels(Kernel &kernel, size_t images, int64_t results, const Shape &x, const Shape &w, const Node &n,
                const KernelContext &context) {
    const int64_t pixels = x[2] * x[3];
    if (!by_pixels(w, n) || groups(n) > 1 || pixels * context.lanes < results) return false;
    const int64_t tiles = block_tiles(pixels, most_packed_pixels, context);
    if (!tiles) return false;
    tile_block(kernel, tiles);
    kernel.parameters["w"] = text(pixels / tiles);
    kernel.parameters["plane"] = text(pixels);
    cut(kernel.args.front(), 1, tiles);
    for (size_t i = images; i < kernel.args.size(); i++) cut(kernel.args[i], 1, tiles);
    return true;
}
void pack_source(Kernel &kernel, int64_t channels, int64_t results, const Shape &w, const Node &n,
                 const KernelContext &context) {
    if (context.device || !by_pixels(w, n) || groups(n) > 1 || !worth_packing(results, context.lanes)) return;
    kernel.parameters["pack"] = "true";
    kernel.scratch = packed_elements(context.lanes, channels);
    kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::scratch, .extents = {}});
}

Split choose_split(const KernelContext &context, int64_t groups, const std::function<double(int64_t)> &cycles) {
    // Of tasks that one processor does, one after another, where each block has so many.
    const auto rounds = [&](int64_t tasks) {
        return double((tasks * context.max_blocks() - 1) / context.processors + 1);
    };
    Split best;
    const double whole = cycles(1);
    best.cycles = rounds(1) * whole;
    if (!context.has_few_blocks()) return best;
    for (int64_t tasks = 2; tasks <= context.tasks_of_block(); tasks++) {
        const double by_channels = rounds(tasks) * cycles(tasks);
        if (by_channels < best.cycles) best = {tasks, 1, by_channels};
        const int64_t largest = (groups - 1) / tasks + 1;
        const double by_image = rounds(tasks) * double(largest) / double(groups) * whole;
        if (tasks <= groups && by_image < best.cycles) best = {1, tasks, by_image};
    }
    return best;
}

Tensor swapped(const Tensor &weight) {
    const std::vector<int64_t> &from = weight.shape;
    Tensor result{.shape = {from[1], from[0], from[2], from[3]}, .data = {}};
    const int64_t window = from[2] * from[3];
    for (int64_t c = 0; c < from[1]; c++)
        for (int64_t k = 0; k < from[0]; k++) {
            auto taps = weight.data.begin() + (k * from[1] + c) * window;
            result.data.insert(result.data.end(), taps, taps + window);
        }
    return result;
}

bool skips_pixels(const Shape &w, const Node &n, const KernelContext &context) {
    return w[2] * w[3] == 1 && n.attrs.integer("stride") > 1 && n.attrs.integer("padding") == 0 && !context.device &&
           !context.vector;
}
Attrs of_stride_one(Attrs attrs) {
    attrs.map["stride"] = int64_t(1);
    return attrs;
}
Attrs skipping(const Node &n) {
    return {{"window", int64_t(1)}, {"stride", n.attrs.integer("stride")}, {"padding", int64_t(0)}};
}
ValueId seen_pixels(Rewriter &r, const Node &n, ValueId x) {
    return r.to.add1("avg_pool2d", {x}, skipping(n), n.layer, n.source);
}

static const ConvCase conv_cases[] = {
    {"[n,2,5,5]", "[3,2,5,5]", "[n,3,1,1]", 1, 0}, // window = input
    {"[n,1,7,5]", "[2,1,2,2]", "[n,2,2,2]", 3, 0}, // stride > window
    {"[n,3,4,4]", "[2,3,3,3]", "[n,2,4,4]", 1, 1},
    {"[n,2,5,7]", "[3,2,3,3]", "[n,3,4,5]", 2, 2},
    {"[n,3,1,1]", "[2,3,1,1]", "[n,2,1,1]", 1, 0},
    {"[n,1,1,1]", "[1,1,3,3]", "[n,1,1,1]", 1, 1}, // padding > image
    {"[n,1,1,1]", "[4,1,1,1]", "[n,4,3,3]", 1, 1},
    {"[n,2,2,2]", "[3,2,1,1]", "[n,3,3,3]", 3, 3},               // padding >= window
    {"[n,2,4,5]", "[2,2,1,3]", "[n,2,4,3]", 1, 0},               // window not square
    {"[n,3,17,19]", "[7,3,7,7]", "[n,7,9,10]", 2, 3, true},      // a first layer
    {"[n,67,3,5]", "[13,67,1,1]", "[n,13,3,5]", 1, 0, true},     // primes
    {"[n,16,3,3]", "[5,16,1,1]", "[n,5,3,3]", 1, 0},             // whole vectors of channels,
    {"[n,48,20,20]", "[67,48,1,1]", "[n,67,20,20]", 1, 0, true}, // of many pixels,
    {"[n,128,2,2]", "[300,128,1,1]", "[n,300,2,2]", 1, 0, true}, // and of many results
    {"[n,256,6,6]", "[512,256,1,1]", "[n,512,6,6]", 1, 0, true}, // of both
    {"[n,32,14,14]", "[32,32,3,3]", "[n,32,14,14]", 1, 1, true},
    {"[n,1,23,23]", "[4,1,11,11]", "[n,4,4,4]", 4, 0, true},
    {"[n,4,4,5]", "[6,2,3,3]", "[n,6,4,5]", 1, 1, false, 2},
    {"[n,6,5,3]", "[3,2,2,1]", "[n,3,3,3]", 2, 1, false, 3}, // one output channel a group
    {"[n,3,4,4]", "[3,1,3,3]", "[n,3,4,4]", 1, 1, false, 3}, // depthwise
    {"[n,2,5,5]", "[6,1,3,3]", "[n,6,3,3]", 2, 1, false, 2}, // and with three outputs a channel
    {"[n,2,1,1]", "[2,1,3,3]", "[n,2,1,1]", 1, 1, false, 2},
    {"[n,2,2,2]", "[4,1,1,1]", "[n,4,3,3]", 3, 3, false, 2},
    {"[n,3,4,7]", "[3,1,2,2]", "[n,3,2,3]", 2, 0, false, 3},
    {"[n,12,14,13]", "[12,1,3,3]", "[n,12,14,13]", 1, 1, true, 12},
    {"[n,12,13,14]", "[12,1,3,3]", "[n,12,7,7]", 2, 1, true, 12},
    {"[n,5,17,19]", "[10,1,5,5]", "[n,10,17,19]", 1, 2, true, 5},
    {"[n,36,9,9]", "[60,9,3,3]", "[n,60,9,9]", 1, 1, true, 4},
    {"[n,4,32,32]", "[100,4,3,3]", "[n,100,16,16]", 2, 1, true},   // weight gradients sum up rows of it at a time
    {"[n,3,112,112]", "[64,3,7,7]", "[n,64,56,56]", 2, 3, true},   // ResNet's first,
    {"[n,256,14,14]", "[256,256,3,3]", "[n,256,7,7]", 2, 1, true}, // and a late one
};
std::vector<Case> each_case(Case (*make)(const ConvCase &, Attrs)) {
    std::vector<Case> cases;
    for (const ConvCase &c : conv_cases) {
        Attrs attrs{{"stride", c.stride}, {"padding", c.padding}};
        if (c.groups > 1) attrs.map["groups"] = c.groups;
        cases.push_back(make(c, attrs));
        cases.back().large = c.large;
    }
    return cases;
}

} // namespace cryolite::convolution
