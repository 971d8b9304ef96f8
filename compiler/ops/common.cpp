// Builders that several ops use.
#include "common.h"

#include "../program_text.h"

#include "../../generators/program.h"

namespace cryolite {

size_t program_inputs(const Node &node) {
    return node.attrs.has("program") ? parse_program(node.attrs.string("program")).inputs.size() - 1 : 0;
}
bool has_bias(const Node &node) { return node.inputs.size() - program_inputs(node) > 2; }
void check_program_inputs(const Graph &graph, const Node &node, const Shape &result) {
    const size_t count = program_inputs(node);
    if (node.inputs.size() < count + 2 || node.inputs.size() > count + 3)
        compile_error(node, "x, a weight, a bias and " + text(int64_t(count)) + " inputs of its program expected");
    for (size_t i = node.inputs.size() - count; i < node.inputs.size(); i++)
        if (const Shape &shape = graph.shape(node.inputs[i]); shape != result)
            compile_error(node, "its program reads " + shape.text() + " beside " + result.text());
}

ValueId literal(Graph &graph, double value) { return graph.add1("constant", {}, {{"value", value}}); }

ValueId sum_to(Graph &graph, ValueId x, const Shape &shape, const std::string &layer) {
    const Shape from = graph.shape(x);
    if (from == shape) return x;
    std::vector<int64_t> axes;
    for (int i = 0; i < from.rank(); i++)
        if (from[i] != 1 && (shape.rank() == 0 || (shape.rank() == from.rank() && shape[i] == 1))) axes.push_back(i);
    if (!axes.empty()) x = graph.add1("sum", {x}, {{"axes", axes}}, layer);
    if (graph.shape(x) == shape) return x;
    return graph.add1("reshape", {x}, {{"shape", shape.dims}}, layer);
}

ValueId per_channel(Graph &graph, ValueId vector, ValueId x, const std::string &layer) {
    std::vector<int64_t> shape(size_t(graph.shape(x).rank()), 1);
    shape[1] = graph.shape(vector).elements();
    if (graph.shape(vector).dims == shape) return vector;
    return graph.add1("reshape", {vector}, {{"shape", shape}}, layer);
}

ValueId reciprocal_count(Graph &graph, int64_t count, const std::string &layer) {
    ValueId samples = graph.add1("batch_size", {}, {}, layer);
    ValueId all = graph.add1("mul", {samples, literal(graph, double(count))}, {}, layer);
    return graph.add1("reciprocal", {all}, {}, layer);
}

std::vector<int64_t> batch_axes(const Shape &x) {
    std::vector<int64_t> axes;
    for (int64_t i = 0; i < x.rank(); i++)
        if (i != 1) axes.push_back(i);
    return axes;
}

int64_t pixels(const Shape &x) { return x.elements() / x[1]; }

std::vector<int64_t> kernel_extents(const Shape &shape, const KernelContext &context) {
    std::vector<int64_t> extents(shape.dims.rbegin(), shape.dims.rend());
    if (shape.per_block()) extents.pop_back();
    if (shape.batched()) {
        extents.insert(extents.begin(), context.lanes);
        extents.push_back(1);
    }
    if (extents.empty()) extents.push_back(1);
    return extents;
}

Case case_of(const std::string &shapes, Attrs attrs, double low, double high) {
    Case result{{}, std::move(attrs), low, high};
    for (const Shape &shape : parse_shapes(shapes)) result.inputs.push_back({shape, Type::f32});
    return result;
}
std::vector<Case> large(std::vector<Case> cases) {
    for (Case &c : cases) c.large = true;
    return cases;
}
std::vector<Case> operator+(std::vector<Case> a, const std::vector<Case> &b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}
std::vector<Case> cases_of(const std::vector<std::string> &shapes, const Attrs &attrs, double low, double high) {
    std::vector<Case> cases;
    for (const std::string &list : shapes) cases.push_back(case_of(list, attrs, low, high));
    return cases;
}

void note_batch(Kernel &kernel, const KernelContext &context) {
    if (context.device) kernel.parameters["n"] = std::to_string(context.max_batch);
}

int64_t whole_tile(int64_t size, const KernelContext &context) {
    if (size < 32768 || context.device) return size;
    for (int64_t tile = 32768; tile >= 4096; tile -= 16)
        if (tile < size && size % tile == 0) return tile;
    return size;
}

KernelArg input_arg(const Graph &graph, const Node &node, int index, const KernelContext &context) {
    return {.kind = KernelArg::input,
            .index = index,
            .extents = kernel_extents(graph.shape(node.inputs.at(size_t(index))), context)};
}

int64_t block_tiles(int64_t extent, int64_t least, const KernelContext &context) {
    for (int64_t tiles = context.tasks_of_block(); tiles > 1; tiles--)
        if (extent % tiles == 0 && extent / tiles >= least) return tiles;
    return 0;
}

void tile_block(Kernel &kernel, int64_t tiles) {
    kernel.tiles = tiles;
    kernel.of_block = true;
    kernel.flops /= double(tiles);
}

void cut(KernelArg &arg, size_t dimension, int64_t tiles) {
    std::vector<int64_t> strides;
    int64_t stride = 1;
    for (int64_t extent : arg.extents) {
        strides.push_back(stride);
        stride *= extent;
    }
    int64_t &extent = arg.extents.at(dimension);
    const bool outermost = strides[dimension] * extent == stride;
    extent /= tiles;
    arg.tile_stride = strides[dimension] * extent;
    if (!outermost) arg.strides = strides;
}

void store_alone(Kernel &kernel, size_t result, const KernelContext &context) {
    if (!context.joined) return;
    kernel.args.at(result).strides.clear();
    kernel.parameters.erase("weight_c");
}

void cut_strips(Kernel &kernel, const char *counter, const std::vector<ChannelDimension> &cuts,
                const KernelContext &context) {
    if (context.strips == 1 || kernel.channels == 0) return;
    tile_block(kernel, context.strips);
    kernel.parameters[counter] = text(kernel.channels / context.strips);
    for (const ChannelDimension &c : cuts) cut(kernel.args.at(c.arg), c.dimension, context.strips);
}

KernelArg output_arg(const Graph &graph, const Node &node, int index, const KernelContext &context) {
    return {.kind = KernelArg::output,
            .index = index,
            .extents = kernel_extents(graph.shape(node.outputs.at(size_t(index))), context)};
}

} // namespace cryolite
