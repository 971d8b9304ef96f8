// Winograd convolutions: what lower makes of conv2d and its gradients where that is faster, and accurate enough.
//
// The transformed weight is a whole value: made once a step, for all blocks, by every node that needs it once.
#include "conv2d_winograd.h"

#include "common.h"
#include "conv2d_common.h"

#include <cmath>

namespace cryolite {

using convolution::Split;

static std::map<std::string, std::string> parameters(const WinogradConv &q) {
    std::map<std::string, std::string> result{{"c", text(q.c)},
                                              {"h", text(q.h)},
                                              {"w", text(q.w)},
                                              {"k", text(q.k)},
                                              {"r", text(q.r)},
                                              {"m", text(q.m)},
                                              {"padding", text(q.padding)}};
    if (q.spread) result["spread"] = "true";
    return result;
}

// ---- the transformed weight: [channel blocks, points, what one block reads for one point]. Of a convolution that is
// made in tiles, ranges of its output channels (attribute `tiles`), q is one of them.
static std::vector<int64_t> weight_dims(const WinogradConv &q, int64_t tiles) {
    const WinogradConv::Schedule s = q.schedule();
    return {tiles * s.channel_blocks, q.points(), int64_t(s.channel_tiles) * s.u_c * s.tile_k};
}
static KernelArg weight_arg(KernelArg::Kind kind, int index, int64_t tile_k, int64_t c, int64_t channel_tiles,
                            const Shape &u) {
    return {.kind = kind, .index = index, .extents = {tile_k * c, channel_tiles, u[1], u[0]}};
}
static int64_t stored_channels(const Node &n, int64_t c) { return n.attrs.has("u_c") ? n.attrs.integer("u_c") : c; }
static std::vector<ValueType> infer_weight(const Graph &g, const Node &n) {
    const Shape &w = g.shape(n.inputs[0]);
    if (w.rank() != 4 || w[2] != w[3]) compile_error(n, "the window of weight " + w.text() + " is no square");
    const int64_t t = n.attrs.integer("m") + w[2] - 1, c = n.attrs.flag("flip") ? w[0] : w[1];
    return {{Shape{n.attrs.integer("channel_blocks"), t * t,
                   n.attrs.integer("channel_tiles") * stored_channels(n, c) * n.attrs.integer("tile_k")},
             Type::f32}};
}
static Kernel kernel_weight(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &w = g.shape(n.inputs[0]), &u = g.shape(n.outputs[0]);
    const bool flip = n.attrs.flag("flip");
    const int64_t c = w[flip ? 0 : 1], tile_k = n.attrs.integer("tile_k"), tiles = n.attrs.integer("channel_tiles");
    const int64_t k = w[flip ? 1 : 0], u_c = stored_channels(n, c);
    Kernel kernel{.generator = "winograd_weight",
                  .parameters = {{"c", text(c)},
                                 {"u_c", text(u_c)},
                                 {"k", text(k)},
                                 {"r", text(w[2])},
                                 {"m", text(n.attrs.integer("m"))},
                                 {"tile_k", text(tile_k)},
                                 {"channel_tiles", text(tiles)},
                                 {"channel_blocks", text(u[0])},
                                 {"flip", flip ? "true" : "false"}},
                  .args = {input_arg(g, n, 0, context), weight_arg(KernelArg::output, 0, tile_k, u_c, tiles, u)}};
    // All threads share a large one: a task a channel block, or a channel tile where there is one block.
    const int64_t few = 1 << 15;
    if (u.elements() > few && u[0] * tiles > 1) {
        const bool by_tile = u[0] == 1;
        kernel.tiles = by_tile ? tiles : u[0];
        kernel.at_barrier = true;
        kernel.parameters["in_parts"] = "true";
        if (by_tile) kernel.parameters["of_tiles"] = text(tiles);
        kernel.parameters[by_tile ? "channel_tiles" : "channel_blocks"] = "1";
        cut(kernel.args[1], by_tile ? 1 : 3, kernel.tiles);
        kernel.args.insert(kernel.args.begin() + 1, {.kind = KernelArg::tile, .extents = {}});
    }
    return kernel;
}
// rows x columns times columns x 1.
static std::vector<double> product(const Matrix &matrix, const std::vector<double> &vector) {
    std::vector<double> result(matrix.size(), 0);
    for (size_t i = 0; i < matrix.size(); i++)
        for (size_t j = 0; j < vector.size(); j++)
            if (matrix[i][j] != 0) result[i] += matrix[i][j] * vector[j];
    return result;
}
// matrix * tile * matrix^T, of a square tile in rows.
static std::vector<double> sandwich(const Matrix &matrix, const std::vector<double> &tile) {
    const size_t from = matrix[0].size(), to = matrix.size();
    std::vector<double> half(from * to), result(to * to);
    for (size_t i = 0; i < from; i++) {
        std::vector<double> row = product(matrix, {tile.begin() + long(i * from), tile.begin() + long((i + 1) * from)});
        for (size_t j = 0; j < to; j++) half[i * to + j] = row[j];
    }
    for (size_t j = 0; j < to; j++) {
        std::vector<double> column(from);
        for (size_t i = 0; i < from; i++) column[i] = half[i * to + j];
        column = product(matrix, column);
        for (size_t i = 0; i < to; i++) result[i * to + j] = column[i];
    }
    return result;
}
static void reference_weight(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    const std::vector<int64_t> &w = in[0]->shape, &u = out[0]->shape;
    const bool flip = node.attrs.flag("flip");
    const int64_t r = w[2], outputs = w[flip ? 1 : 0], inputs = w[flip ? 0 : 1];
    const int64_t tile_k = node.attrs.integer("tile_k"), tiles = node.attrs.integer("channel_tiles");
    const int64_t u_c = stored_channels(node, inputs);
    const Matrix g = winograd_matrices(int(node.attrs.integer("m")), int(r)).weight;
    for (int64_t padded = 0; padded < u[0] * tiles * tile_k; padded++)
        for (int64_t stored = 0; stored < u_c; stored++) {
            const int64_t k = std::min(padded, outputs - 1), kt = padded / tile_k, c = std::min(stored, inputs - 1);
            std::vector<double> window;
            for (int64_t i = 0; i < r * r; i++)
                window.push_back(
                    in[0]->data[size_t(flip ? (c * w[1] + k) * r * r + r * r - 1 - i : (k * w[1] + c) * r * r + i)]);
            const std::vector<double> points = sandwich(g, window);
            for (int64_t p = 0; p < u[1]; p++)
                out[0]->data[size_t((((kt / tiles * u[1] + p) * tiles + kt % tiles) * u_c + stored) * tile_k +
                                    padded % tile_k)] = points[size_t(p)];
        }
}

// ---- the convolution
static int64_t tiles_of(const Node &n) { return n.attrs.has("tiles") ? n.attrs.integer("tiles") : 1; }
// One tile of it.
static WinogradConv conv_of(const Graph &g, const Node &n) {
    const Shape &x = g.shape(n.inputs[0]);
    return {.lanes = int(n.attrs.integer("lanes")),
            .c = int(x[1]),
            .h = int(x[2]),
            .w = int(x[3]),
            .k = int(n.attrs.integer("k") / tiles_of(n)),
            .r = int(n.attrs.integer("r")),
            .padding = int(n.attrs.integer("padding")),
            .m = int(n.attrs.integer("m")),
            .spread = n.attrs.has("spread")};
}
static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const WinogradConv q = conv_of(g, n);
    const int64_t k = n.attrs.integer("k");
    const Shape &x = g.shape(n.inputs[0]), &u = g.shape(n.inputs[1]), expected(weight_dims(q, tiles_of(n)));
    if (x.rank() != 4 || !x.batched()) compile_error(n, "the input must be [n, c, h, w], not " + x.text());
    if (u != expected)
        compile_error(n, "transformed weight " + u.text() + " for input " + x.text() + " must be " + expected.text());
    if (n.inputs.size() > 2 && g.shape(n.inputs[2]) != Shape{k})
        compile_error(n, "bias " + g.shape(n.inputs[2]).text() + " does not fit " + text(k) + " channels");
    return {{Shape{Shape::batch, k, q.ho(), q.wo()}, Type::f32}};
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const WinogradConv q = conv_of(g, n);
    Kernel kernel{.generator = "conv2d_winograd",
                  .parameters = parameters(q),
                  .args = {},
                  .flops = 2.0 * q.lanes * q.c * double(n.attrs.integer("k")) * q.ho() * q.wo() * q.r * q.r, // direct's
                  .scratch = q.scratch_elements()};
    kernel.parameters["bias"] = n.inputs.size() > 2 ? "true" : "false";
    for (int i = 0; i < int(n.inputs.size()); i++) kernel.args.push_back(input_arg(g, n, i, context));
    const WinogradConv::Schedule s = q.schedule();
    kernel.args[1] = weight_arg(KernelArg::input, 1, s.tile_k, s.u_c, s.channel_tiles, g.shape(n.inputs[1]));
    kernel.args.push_back(output_arg(g, n, 0, context));
    if (const int64_t tiles = tiles_of(n); tiles > 1) {
        tile_block(kernel, tiles);
        for (size_t i = 1; i < kernel.args.size(); i++)
            cut(kernel.args[i], i == 2 && n.inputs.size() > 2 ? 0 : 3, tiles);
    }
    if (n.attrs.has("parts")) {
        tile_block(kernel, n.attrs.integer("parts"));
        kernel.parameters["parts"] = text(kernel.tiles);
        kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::tile, .extents = {}});
    }
    kernel.args.insert(kernel.args.end() - 1, {.kind = KernelArg::scratch, .extents = {}});
    return kernel;
}
static void reference(const Graph &g, const Node &n, const Inputs &in, const Outputs &out) {
    const WinogradConv q = conv_of(g, n);
    const Matrix read = q.read_matrix(), write = q.write_matrix();
    const WinogradConv::Schedule schedule = q.schedule();
    const int64_t tile_k = schedule.tile_k, tiles = schedule.channel_tiles;
    const int t = q.t(), reads = q.reads(), writes = q.writes();
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    for (int64_t s = 0; s < out[0]->shape[0]; s++)
        for (int tile = 0; tile < q.tiles(); tile++) {
            const int left = tile % q.tiles_x() * q.m, top = tile / q.tiles_x() * q.m;
            std::vector<std::vector<double>> transformed;
            for (int c = 0; c < q.c; c++) {
                std::vector<double> patch;
                for (int i = 0; i < reads * reads; i++) {
                    const int row = top + i / reads + q.read_from(), column = left + i % reads + q.read_from();
                    const bool inside = row >= 0 && row < q.h && column >= 0 && column < q.w;
                    patch.push_back(inside ? in[0]->data[size_t(((s * q.c + c) * q.h + row) * q.w + column)] : 0);
                }
                transformed.push_back(sandwich(read, patch));
            }
            for (int64_t k = 0; k < out[0]->shape[1]; k++) {
                std::vector<double> sums(size_t(t * t), 0);
                for (int c = 0; c < q.c; c++)
                    for (int p = 0; p < t * t; p++) {
                        const int64_t kt = k / tile_k;
                        const int64_t at = ((kt / tiles * q.points() + p) * tiles + kt % tiles) * schedule.u_c + c;
                        sums[size_t(p)] +=
                            transformed[size_t(c)][size_t(p)] * in[1]->data[size_t(at * tile_k + k % tile_k)];
                    }
                const std::vector<double> y = sandwich(write, sums);
                for (int i = 0; i < writes * writes; i++) {
                    const int row = top + i / writes + q.write_from(), column = left + i % writes + q.write_from();
                    if (row >= 0 && column >= 0 && row < q.ho() && column < q.wo())
                        out[0]->data[size_t(((s * out[0]->shape[1] + k) * q.ho() + row) * q.wo() + column)] +=
                            y[size_t(i)] + (in.size() > 2 ? in[2]->data[size_t(k)] : 0);
                }
            }
        }
}

// ---- what the other ops' lower rules ask
//
// Tiles of a block leave no channel block half empty.
static WinogradConv tile_of(WinogradConv q, int64_t tiles) {
    q.k /= int(tiles);
    return q;
}
// Every tile of channels transforms the input again; parts of the image read every weight, and groups of tiles are
// dealt out whole. Inside resnet50's inference of 16 samples parts take 0.8 of the time of channels for 64 -> 64 @ 28,
// 0.93 for 128 -> 128 @ 14 (Zen 5).
static Split split_of(const WinogradConv &q, const KernelContext &context) {
    const int64_t groups = q.spread ? 1 : (q.tiles() - 1) / q.schedule().group + 1;
    return convolution::choose_split(context, groups, [&](int64_t tiles) {
        const int no_weights = 1 << 20; // blocks that share the making of one
        const bool whole = tiles == 1 || (q.k % tiles == 0 && tile_of(q, tiles).schedule().padded_k() * tiles == q.k);
        return whole ? winograd_cycles(tile_of(q, tiles), WinogradUse::forward, no_weights) : HUGE_VAL;
    });
}
static ValueId transformed_weight(Rewriter &r, const Node &n, ValueId weight, const WinogradConv &q, bool flip,
                                  int64_t tiles) {
    const WinogradConv::Schedule s = tile_of(q, tiles).schedule();
    return r.to.add1("winograd_weight", {weight},
                     {{"m", int64_t(q.m)},
                      {"flip", flip},
                      {"tile_k", int64_t(s.tile_k)},
                      {"u_c", int64_t(s.u_c)},
                      {"channel_tiles", int64_t(s.channel_tiles)},
                      {"channel_blocks", tiles * s.channel_blocks}},
                     n.layer, n.source);
}
static Attrs conv_attrs(const WinogradConv &q, const Split &split) {
    Attrs attrs{{"k", int64_t(q.k)},
                {"r", int64_t(q.r)},
                {"m", int64_t(q.m)},
                {"padding", int64_t(q.padding)},
                {"lanes", int64_t(q.lanes)}};
    if (split.tiles > 1) attrs.map["tiles"] = split.tiles;
    if (split.parts > 1) attrs.map["parts"] = split.parts;
    if (q.spread) attrs.map["spread"] = true;
    return attrs;
}
static void bind(Rewriter &r, const Node &n, const char *op, const WinogradConv &q, bool flip,
                 const KernelContext &context) {
    const Split split = split_of(q, context);
    std::vector<ValueId> inputs = r.inputs(n);
    inputs[1] = transformed_weight(r, n, inputs[1], q, flip, split.tiles);
    r.bind(n.outputs[0], r.to.add1(op, inputs, conv_attrs(q, split), n.layer, n.source));
}
// Direct convolution is F(1, r); 0 says so to those who ask.
static int choose_tile(const WinogradConv &q, const KernelContext &context, WinogradUse use) {
    const bool any_error = context.math == Math::fast;
    Decision decision{.kind = "winograd", .about = "", .options = {{{"direct", 1}}}, .usual = 0};
    std::vector<int> tiles{0};
    const int fastest = fastest_winograd(q, use, int(context.max_blocks()), any_error);
    for (int m : winograd_tiles(q.r, use, any_error)) {
        if (m == fastest) decision.usual = tiles.size();
        tiles.push_back(m);
        decision.options.push_back({{"m", m}});
    }
    if (tiles.size() == 1) return 0;
    std::map<std::string, std::string> about = parameters(q);
    about.erase("m");
    about["lanes"] = text(q.lanes);
    about["blocks"] = text(context.max_blocks());
    about["use"] = use == WinogradUse::grad_weight ? "weight_gradient" : "forward";
    for (auto &[name, value] : about) decision.about += (decision.about.empty() ? "" : " ") + name + "=" + value;
    decision.work = double(q.lanes) * q.c * q.k * q.ho() * q.wo() * q.r * q.r;
    return tiles[context.choose(decision)];
}
WinogradConv choose_winograd(const Node &n, const KernelContext &context, const Shape &x, int64_t k, int64_t r,
                             int64_t s, int64_t padding, WinogradUse use) {
    WinogradConv q{.lanes = int(context.lanes),
                   .c = int(x[1]),
                   .h = int(x[2]),
                   .w = int(x[3]),
                   .k = int(k),
                   .r = int(r),
                   .padding = int(padding),
                   .m = 0,
                   .spread = use == WinogradUse::spread};
    const bool grouped = n.attrs.has("groups") && n.attrs.integer("groups") != 1;
    if (context.math != Math::strict && r == s && n.attrs.integer("stride") == 1 && padding >= 0 && !grouped)
        q.m = choose_tile(q, context, use);
    return q;
}

bool lower_conv2d_to_winograd(Rewriter &r, const Node &n, const KernelContext &context) {
    if (context.vector) return false;
    const Shape &x = r.from.shape(n.inputs[0]), &w = r.from.shape(n.inputs[1]);
    const WinogradConv q =
        choose_winograd(n, context, x, w[0], w[2], w[3], n.attrs.integer("padding"), WinogradUse::forward);
    if (!q.m) return false;
    bind(r, n, "conv2d_winograd", q, false, context);
    return true;
}

bool lower_conv2d_grad_input_to_winograd(Rewriter &r, const Node &n, const KernelContext &context) {
    const Shape &dy = r.from.shape(n.inputs[0]), &w = r.from.shape(n.inputs[1]);
    auto chosen = [&](WinogradUse use) {
        return choose_winograd(n, context, dy, w[1], w[2], w[3], w[2] - 1 - n.attrs.integer("padding"), use);
    };
    auto cycles = [&](const WinogradConv &q, WinogradUse use) {
        return q.m ? winograd_cycles(q, use, int(context.max_blocks())) : HUGE_VAL;
    };
    WinogradConv q = chosen(WinogradUse::forward);
    if (dy[2] < n.attrs.integer("h") && dy[3] < n.attrs.integer("w")) { // tiles of dy are fewer than those of dx
        const WinogradConv spread = chosen(WinogradUse::spread);
        if (cycles(spread, WinogradUse::spread) < cycles(q, WinogradUse::forward)) q = spread;
    }
    if (!q.m) return false;
    bind(r, n, "conv2d_winograd_grad_input", q, true, context);
    return true;
}

// ---- cases
struct WinogradCase {
    int c, h, w, k, r, padding, m;
    Split split = {};
};
const WinogradCase winograd_cases[] = {
    {2, 4, 4, 3, 3, 1, 4},
    {1, 1, 1, 1, 3, 1, 4},
    {3, 7, 5, 2, 3, 0, 4},
    {2, 5, 7, 3, 3, 2, 4},
    {2, 6, 6, 5, 3, 1, 2},
    {3, 5, 4, 7, 3, 0, 2},
    {2, 8, 9, 3, 5, 2, 2},
    {3, 5, 5, 2, 5, 0, 2},
    {1, 14, 9, 2, 5, 4, 4},
    {11, 9, 3, 13, 3, 1, 4},
    {3, 6, 7, 16, 3, 1, 4, {.tiles = 2}},
    {2, 6, 6, 3, 3, 1, 3},
    {5, 4, 7, 2, 3, 0, 3},
    {3, 14, 13, 4, 3, 1, 4, {.parts = 3}},
    {2, 9, 9, 3, 5, 2, 2, {.parts = 2}},
};
static WinogradConv conv_of(const WinogradCase &c) {
    return {.lanes = int(case_lanes), .c = c.c, .h = c.h, .w = c.w, .k = c.k, .r = c.r, .padding = c.padding, .m = c.m};
}
static std::vector<Case> weight_cases() {
    std::vector<Case> cases;
    for (const WinogradCase &c : winograd_cases)
        for (bool flip : {false, true}) {
            const WinogradConv::Schedule s = tile_of(conv_of(c), c.split.tiles).schedule();
            const Shape weight{flip ? c.c : c.k, flip ? c.k : c.c, c.r, c.r};
            cases.push_back({{{weight, Type::f32}},
                             {{"m", int64_t(c.m)},
                              {"flip", flip},
                              {"tile_k", int64_t(s.tile_k)},
                              {"u_c", int64_t(s.u_c)},
                              {"channel_tiles", int64_t(s.channel_tiles)},
                              {"channel_blocks", int64_t(c.split.tiles * s.channel_blocks)}}});
        }
    return cases;
}
static std::vector<Case> cases_with(bool bias, bool spread = false) {
    std::vector<Case> cases;
    for (const WinogradCase &c : winograd_cases) {
        WinogradConv q = conv_of(c);
        q.spread = spread;
        Case result{{{Shape{Shape::batch, c.c, c.h, c.w}, Type::f32},
                     {Shape(weight_dims(tile_of(q, c.split.tiles), c.split.tiles)), Type::f32}},
                    conv_attrs(q, {.tiles = c.split.tiles, .parts = spread ? 1 : c.split.parts})};
        if (bias) result.inputs.push_back({Shape{c.k}, Type::f32});
        cases.push_back(result);
    }
    return cases;
}
static std::vector<Case> cases() { return cases_with(false) + cases_with(true); }
static std::vector<Case> input_cases() { return cases_with(false) + cases_with(false, true); }

extern const OpDef winograd_weight_op, conv2d_winograd_op, conv2d_winograd_grad_input_op;
const OpDef winograd_weight_op = {.name = "winograd_weight",
                                  .summary = "a convolution's weight, transformed for Winograd's products",
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .infer = infer_weight,
                                  .kernel = kernel_weight,
                                  .reference = reference_weight,
                                  .cases = weight_cases,
                                  .no_gpu = direct_on_devices,
                                  .no_gradient = made_by_lowering};
const OpDef conv2d_winograd_op = {.name = "conv2d_winograd",
                                  .summary = "conv2d of stride 1 with a transformed weight",
                                  .min_inputs = 2,
                                  .max_inputs = 3,
                                  .infer = infer,
                                  .kernel = kernel,
                                  .reference = reference,
                                  .cases = cases,
                                  .no_gpu = direct_on_devices,
                                  .no_gradient = made_by_lowering};
const OpDef conv2d_winograd_grad_input_op = {.name = "conv2d_winograd_grad_input",
                                             .summary = "the same as the gradient for the input",
                                             .min_inputs = 2,
                                             .max_inputs = 2,
                                             .infer = infer,
                                             .kernel = kernel,
                                             .padding = Padding::if_all,
                                             .reference = reference,
                                             .cases = input_cases,
                                             .no_gpu = direct_on_devices,
                                             .no_gradient = made_by_lowering};

} // namespace cryolite
