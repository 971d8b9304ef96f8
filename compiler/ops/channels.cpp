// Ops of the path for one sample, channels innermost (passes/channels.cpp makes them of others). Where a value lies:
// [h][w][c]; a planar one [c][h][w], as the caller's rows do.
#include "channels.h"
#include "../program_text.h"
#include "../views.h"
#include "common.h"

namespace cryolite {

bool is_planar(const Graph &graph, ValueId v) {
    if (graph.shape(v).rank() != 4) return false;
    const Node &maker = graph.producer(v);
    if (maker.op == find_op("channels_rows")) return true;
    if (maker.op == find_op("reshape")) return pixels(graph.shape(v)) > 1;
    return maker.attrs.has("planar") && maker.attrs.flag("planar");
}

int64_t channels_apart(const Graph &graph, ValueId v) {
    const Shape &shape = graph.shape(v);
    return shape.rank() == 4 && !is_planar(graph, v) ? pixels(shape) : 1;
}

static ChannelsPlace place_of(const Graph &graph, ValueId v) {
    const Shape &shape = graph.shape(v);
    if (shape.rank() != 4) return {1, 1, 1};
    const int w = int(shape[3]), plane = int(shape[2]) * w;
    if (is_planar(graph, v)) return {plane, 1, w};
    const Shape &root = graph.shape(find_views(graph)[size_t(v)].root);
    const int c = int(root.rank() == 4 ? root[1] : shape[1]);
    return {1, c, c * w};
}

namespace {

struct Image {
    int64_t c = 1, w = 1, h = 1;
    ChannelsPlace place;

    Image(const Graph &graph, ValueId v) : place(place_of(graph, v)) {
        const Shape &shape = graph.shape(v);
        if (shape.rank() > 1) c = shape[1];
        if (shape.rank() > 2) h = shape[2], w = shape[3];
    }
    KernelArg arg(KernelArg::Kind kind, int index, int64_t tile_stride = 0) const {
        return {.kind = kind,
                .index = index,
                .extents = {c, w, h},
                .tile_stride = tile_stride,
                .strides = {place.c, place.x, place.y}};
    }
};

} // namespace

static std::vector<ValueType> infer_program(const Graph &, const Node &n) {
    std::vector<ValueType> types;
    for (const Shape &shape : parse_shapes(n.attrs.string("outputs"))) types.push_back({shape, Type::f32});
    return types;
}

// ---- channels_conv2d(x, u[, bias], what else the program reads)

ChannelsConv channels_conv(const Graph &g, const Node &n, const KernelContext &context) {
    const Image x(g, n.inputs[0]);
    const Shape result = parse_shapes(n.attrs.string("outputs"))[0];
    auto of = [&](const char *name) { return int(n.attrs.integer(name)); };
    return {int(x.c),
            int(x.h),
            int(x.w),
            of("k"),
            of("r"),
            of("s"),
            of("stride"),
            of("padding"),
            of("groups"),
            of("pool"),
            result.rank() > 2 ? int(result[2]) : 1,
            result.rank() > 2 ? int(result[3]) : 1,
            of("vector"),
            of("m"),
            int(context.processors)};
}

static Kernel conv_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const ChannelsConv q = channels_conv(g, n, context);
    const ChannelsConv::Schedule s = q.schedule();
    const int tiles = q.tiles(s), taps = q.c / q.groups * q.r * q.s;
    const bool by_channels = s.channels < q.k, bias = n.attrs.flag("bias");
    const int64_t padded = s.block(q) * s.blocks(q);
    Kernel kernel{.generator = "channels_conv2d",
                  .parameters = {{"program", n.attrs.string("program")}, {"bias", bias ? "true" : "false"}},
                  .args = {{.kind = KernelArg::tile, .extents = {}}},
                  .tiles = tiles > 1 ? tiles : 0,
                  .flops = 2.0 * q.k * taps * q.ho * q.wo * q.pool * q.pool / tiles,
                  .scratch = q.scratch(s)};
    for (auto [name, value] : std::initializer_list<std::pair<const char *, int>>{{"c", q.c},
                                                                                  {"h", q.h},
                                                                                  {"w", q.w},
                                                                                  {"k", q.k},
                                                                                  {"r", q.r},
                                                                                  {"s", q.s},
                                                                                  {"stride", q.stride},
                                                                                  {"padding", q.padding},
                                                                                  {"groups", q.groups},
                                                                                  {"pool", q.pool},
                                                                                  {"vector", q.vector},
                                                                                  {"rows", s.rows},
                                                                                  {"channels", s.channels},
                                                                                  {"vectors", s.vectors},
                                                                                  {"tile_x", s.tile_x},
                                                                                  {"tile_y", s.tile_y},
                                                                                  {"chunk", s.chunk},
                                                                                  {"m", q.m}})
        kernel.parameters[name] = text(value);
    std::vector<ChannelsPlace> places;
    auto image = [&](KernelArg::Kind kind, int index, bool windowed) {
        Image image(g, kind == KernelArg::input ? n.inputs[size_t(index)] : n.outputs[0]);
        places.push_back(image.place);
        if (by_channels && windowed && image.c == q.k) image.c = s.channels;
        int64_t tile_stride = by_channels && windowed && image.c == s.channels ? s.channels * image.place.c : 0;
        if (!by_channels && kind == KernelArg::output && tiles > 1) {
            image.h = s.rows;
            tile_stride = int64_t(s.rows) * image.place.y;
        }
        kernel.args.push_back(image.arg(kind, index, tile_stride));
    };
    image(KernelArg::input, 0, q.depthwise());
    kernel.args.push_back({.kind = KernelArg::input,
                           .index = 1,
                           .extents = q.m ? std::vector<int64_t>{s.block(q), q.c, q.t() * q.t(), 1, s.blocks(q)}
                                          : std::vector<int64_t>{s.block(q), q.c / q.groups, q.s, q.r, s.blocks(q)},
                           .tile_stride = by_channels ? padded * (q.m ? q.c * q.t() * q.t() : taps) : 0});
    if (bias)
        kernel.args.push_back(
            {.kind = KernelArg::input, .index = 2, .extents = {padded}, .tile_stride = by_channels ? padded : 0});
    for (int i = bias ? 3 : 2; i < int(n.inputs.size()); i++) {
        const Shape &shape = g.shape(n.inputs[size_t(i)]);
        if (shape.batched()) {
            image(KernelArg::input, i, true);
            continue;
        }
        KernelArg arg = input_arg(g, n, i, {1, 1});
        const size_t channel = arg.extents.size() > 2 ? arg.extents.size() - 2 : 0;
        if (by_channels && arg.extents[channel] == q.k) {
            arg.extents[channel] = arg.tile_stride = s.channels;
            int64_t stride = 1;
            for (size_t d = 0; d < arg.extents.size(); d++) {
                arg.strides.push_back(stride);
                if (d < channel) arg.tile_stride *= arg.extents[d];
                stride *= d == channel ? q.k : arg.extents[d];
            }
        }
        kernel.args.push_back(arg);
    }
    if (kernel.scratch > 0) kernel.args.push_back({.kind = KernelArg::scratch, .extents = {}});
    image(KernelArg::output, 0, true);
    kernel.parameters["places"] = places_text(places);
    return kernel;
}

// ---- channels_weight(w){block}

static std::vector<ValueType> infer_weight(const Graph &g, const Node &n) {
    const Shape &w = g.shape(n.inputs[0]);
    const int64_t block = n.attrs.integer("block");
    if (w.rank() != 4) compile_error(n, "the weight must be [k, c, r, s], not " + w.text());
    return {{Shape{(w[0] + block - 1) / block, w[2], w[3], w[1], block}, Type::f32}};
}
static Kernel weight_kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const Shape &w = g.shape(n.inputs[0]);
    return {.generator = "channels_weight",
            .parameters = {{"k", text(w[0])},
                           {"c", text(w[1])},
                           {"r", text(w[2])},
                           {"s", text(w[3])},
                           {"block", text(n.attrs.integer("block"))}},
            .args = {input_arg(g, n, 0, context), output_arg(g, n, 0, context)}};
}

static void weight_reference(const Graph &, const Node &n, const Inputs &in, const Outputs &out) {
    const std::vector<int64_t> &w = in[0]->shape;
    const int64_t block = n.attrs.integer("block"), taps = w[2] * w[3];
    std::fill(out[0]->data.begin(), out[0]->data.end(), 0.0);
    for (int64_t k = 0; k < w[0]; k++)
        for (int64_t c = 0; c < w[1]; c++)
            for (int64_t t = 0; t < taps; t++)
                out[0]->data[size_t((((k / block * taps) + t) * w[1] + c) * block + k % block)] =
                    in[0]->data[size_t((k * w[1] + c) * taps + t)];
}
// Whole blocks, a part of one, one channel, a bias.
static std::vector<Case> weight_cases() {
    return cases_of({"[16,3,3,3]", "[6,1,5,5]", "[17,2,1,3]", "[1,5,1,1]", "[9,1,1,1]"}, {{"block", int64_t(8)}});
}

// ---- channels_map(what the program reads){program,outputs[,planar]}

static Kernel map_kernel(const Graph &g, const Node &n, const KernelContext &) {
    Kernel kernel{.generator = "channels_map",
                  .parameters = {{"program", n.attrs.string("program")}, {"vector", text(n.attrs.integer("vector"))}},
                  .args = {{.kind = KernelArg::tile, .extents = {}}}};
    const Image result(g, n.outputs[0]);
    int64_t rows = result.h;
    if (n.outputs.size() == 1 && n.attrs.string("program").find("=sum(") == std::string::npos)
        rows = channels_map_rows(int(result.c), int(result.h), int(result.w));
    if (rows < result.h) kernel.tiles = result.h / rows;
    kernel.parameters["rows"] = text(rows < result.h ? rows : 0);
    std::vector<ChannelsPlace> places;
    for (int i = 0; i < int(n.inputs.size()); i++) {
        if (!g.shape(n.inputs[size_t(i)]).batched()) {
            kernel.args.push_back(input_arg(g, n, i, {1, 1}));
            continue;
        }
        const Image image(g, n.inputs[size_t(i)]);
        kernel.args.push_back(image.arg(KernelArg::input, i));
        places.push_back(image.place);
    }
    for (int i = 0; i < int(n.outputs.size()); i++) {
        Image image(g, n.outputs[size_t(i)]);
        if (rows < image.h) image.h = rows;
        kernel.args.push_back(image.arg(KernelArg::output, i, rows < result.h ? rows * image.place.y : 0));
        places.push_back(image.place);
    }
    kernel.parameters["places"] = places_text(places);
    return kernel;
}

// ---- channels_rows(x){shape}

static std::vector<ValueType> infer_rows(const Graph &, const Node &n) {
    return {{Shape(n.attrs.list("shape")), Type::f32}};
}

extern const OpDef channels_conv2d_op, channels_weight_op, channels_map_op, channels_rows_op;
const OpDef channels_conv2d_op = {.name = "channels_conv2d",
                                  .summary = "convolution or linear layer of one sample, and a program behind it",
                                  .min_inputs = 2,
                                  .max_inputs = 1 << 16,
                                  .infer = infer_program,
                                  .kernel = conv_kernel};
const OpDef channels_weight_op = {.name = "channels_weight",
                                  .summary = "a weight in the order in which channels_conv2d reads it",
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .infer = infer_weight,
                                  .kernel = weight_kernel,
                                  .reference = weight_reference,
                                  .cases = weight_cases,
                                  .no_gpu = "one sample is too little for a device",
                                  .no_gradient = "made behind differentiate"};
const OpDef channels_map_op = {.name = "channels_map",
                               .summary = "a fused chain of statements, of one sample",
                               .min_inputs = 0,
                               .max_inputs = 1 << 16,
                               .infer = infer_program,
                               .kernel = map_kernel};
const OpDef channels_rows_op = {.name = "channels_rows",
                                .summary = "the caller's row of one sample as an image, and back",
                                .min_inputs = 1,
                                .max_inputs = 1,
                                .infer = infer_rows,
                                .place = Place::same};

} // namespace cryolite
