// Stochastic gradient descent, as PyTorch's: g += weight_decay w; v = momentum v + g; w -= learning_rate v.
#include "common.h"

#include <algorithm>

namespace cryolite {

// inputs: weight, [velocity,] gradient, learning_rate
static bool has_velocity(const Node &n) { return n.inputs.size() == 4; }

static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const Shape &weight = g.shape(n.inputs[0]);
    for (size_t i = 1; i + 1 < n.inputs.size(); i++)
        if (g.shape(n.inputs[i]) != weight)
            compile_error(n, "a weight of shape " + weight.text() + " cannot take " + g.shape(n.inputs[i]).text());
    if (g.shape(n.inputs.back()) != Shape{})
        compile_error(n, "the learning rate must be a number, not " + g.shape(n.inputs.back()).text());
    std::vector<ValueType> types{g.type(n.inputs[0])};
    if (has_velocity(n)) types.push_back(types[0]);
    return types;
}

// A tile of the weight: rows of so many elements, so far apart.
struct Rows {
    int64_t size = 0, rows = 1, apart = 0, stride = 0, count = 0;
};
// As the weight's elements lie, of which the gradient is made in tiles; a count of 0: it is not, or not in rows.
static Rows rows_of_gradient(const Graph &g, const Node &n, KernelContext context) {
    const int producer = g.producers.at(size_t(n.inputs.at(n.inputs.size() - 2)));
    if (producer < 0 || !g.nodes[size_t(producer)].op->kernel) return {};
    const Node &maker = g.nodes[size_t(producer)];
    context.joined = false;
    const Kernel made = maker.op->kernel(g, maker, context);
    const KernelArg &arg = *std::ranges::find(made.args, KernelArg::output, &KernelArg::kind);
    Rows tile{.size = 1, .stride = arg.tile_stride, .count = made.tiles};
    int64_t dense = 1;
    for (size_t d = 0; d < arg.extents.size(); d++) {
        const int64_t stride = arg.strides.empty() ? dense : arg.strides[d];
        dense *= arg.extents[d];
        if (arg.extents[d] == 1) continue;
        if (tile.rows == 1 && stride == tile.size) {
            tile.size *= arg.extents[d];
        } else if (tile.rows == 1 || stride == tile.apart * tile.rows) {
            if (tile.rows == 1) tile.apart = stride;
            tile.rows *= arg.extents[d];
        } else {
            return {};
        }
    }
    return tile;
}
static Rows rows_of(const Graph &g, const Node &n, const KernelContext &context) {
    if (context.joined)
        if (const Rows tile = rows_of_gradient(g, n, context); tile.count) return tile;
    const int64_t size = g.shape(n.inputs[0]).elements(), tile = whole_tile(size, context);
    if (tile == size) return {.size = size};
    return {.size = tile, .stride = tile, .count = size / tile};
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Rows tile = rows_of(g, n, context);
    char momentum[40], decay[40];
    snprintf(momentum, sizeof momentum, "%.9g", n.attrs.number("momentum"));
    snprintf(decay, sizeof decay, "%.9g", n.attrs.number("weight_decay"));
    Kernel kernel{.generator = "sgd",
                  .parameters = {{"size", text(tile.size)},
                                 {"momentum", momentum},
                                 {"weight_decay", decay},
                                 {"nesterov", n.attrs.flag("nesterov") ? "true" : "false"}},
                  .args = {},
                  .tiles = tile.count};
    if (tile.rows > 1) {
        kernel.parameters["rows"] = text(tile.rows);
        kernel.parameters["apart"] = text(tile.apart);
    }
    const int rate = int(n.inputs.size()) - 1, gradient = rate - 1;
    const auto add = [&](KernelArg::Kind kind, int index) {
        kernel.args.push_back(
            {.kind = kind, .index = index, .extents = {tile.size, tile.rows}, .tile_stride = tile.stride});
        const bool is_gradient = kind == KernelArg::input && index == gradient;
        if (tile.rows > 1 && !is_gradient) kernel.args.back().strides = {1, tile.apart};
    };
    kernel.args.push_back({.kind = KernelArg::input, .index = rate, .extents = {1}});
    for (int i = 0; i < rate; i++) add(KernelArg::input, i);
    for (int i = 0; i < int(n.outputs.size()); i++) add(KernelArg::output, i);
    return kernel;
}

static void reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    double momentum = n.attrs.number("momentum"), decay = n.attrs.number("weight_decay"), rate = in.back()->data[0];
    const Tensor &gradient = *in[in.size() - 2];
    for (size_t i = 0; i < in[0]->data.size(); i++) {
        double w = in[0]->data[i], d = gradient.data[i] + decay * w, v = d;
        if (has_velocity(n)) {
            v = momentum * in[1]->data[i] + d;
            out[1]->data[i] = v;
            if (n.attrs.flag("nesterov")) v = d + momentum * v;
        }
        out[0]->data[i] = w - rate * v;
    }
}

static std::vector<Case> cases() {
    auto of = [](const char *shapes, double momentum, double decay, bool nesterov) {
        return case_of(shapes, {{"momentum", momentum}, {"weight_decay", decay}, {"nesterov", nesterov}});
    };
    return {of("[3,2,5,5] [3,2,5,5] []", 0, 0, false), of("[7] [7] []", 0, 1e-2, false),
            of("[7] [7] [7] []", 0.9, 0, false), of("[2,3] [2,3] [2,3] []", 0.9, 1e-2, true),
            of("[256,400] [256,400] [256,400] []", 0.9, 0, false)}; // in tiles
}
extern const OpDef sgd_op;
const OpDef sgd_op = {.name = "sgd",
                      .summary = "one step of stochastic gradient descent",
                      .min_inputs = 3,
                      .max_inputs = 4,
                      .infer = infer,
                      .kernel = kernel,
                      .reference = reference,
                      .cases = cases,
                      .no_gradient = "an update, behind the gradients"};

} // namespace cryolite
