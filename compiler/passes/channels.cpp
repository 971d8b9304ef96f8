// The path of one sample: activations with channels innermost, vectors of channels instead of lanes of samples, tasks
// that are parts of a layer instead of blocks.
//
// Convolutions and linear layers take what is computed of their result alone, element by element or in windows side by
// side, into their kernel. A flattened image is not moved: the layer behind it is a convolution whose window is the
// image. Everything else that is no view is a program of its own.
#include "../ops/channels.h"
#include "../ops/common.h"
#include "../passes.h"
#include "../program_text.h"
#include "../views.h"

#include "../../generators/program.h"

#include <algorithm>
#include <set>
#include <sstream>

namespace cryolite {

namespace {

[[noreturn]] void unsupported(const Node &node, const std::string &why) {
    throw NoChannels("layer '" + node.layer + "': " + why);
}

std::string compact(const Shape &shape) { // as programs have it
    std::string text = shape.text();
    text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
    return text;
}
std::string identity(const Shape &shape) { return "x0=input " + compact(shape) + ";output x0;"; }

struct Channels {
    // A convolution or linear layer that is not yet made, because its reader may become part of it.
    struct Product {
        const Node *node;
        ValueId x, weight, bias; // of the new graph
        Attrs attrs;
    };

    const Graph &graph;
    const PassContext &context;
    Rewriter rewriter;
    Graph &to;
    std::vector<int> uses;
    std::map<ValueId, Product> products;      // by old value
    std::map<ValueId, const Node *> reshapes; // by old value: made when they are read
    std::map<ValueId, ValueId> dense_copies, planar_copies;

    Channels(const Graph &graph, const PassContext &context)
        : graph(graph), context(context), rewriter(graph), to(rewriter.to), uses(graph.use_counts()) {}

    // The new value of an old one, in any layout.
    ValueId value(ValueId old) {
        if (auto found = products.find(old); found != products.end()) {
            const Product product = found->second;
            products.erase(found);
            const Shape &shape = graph.shape(old);
            rewriter.bind(old, make(product, identity(shape), {}, shape, 1));
        } else if (auto lazy = reshapes.find(old); lazy != reshapes.end()) {
            const Node &node = *lazy->second;
            reshapes.erase(lazy);
            ValueId x = value(node.inputs[0]);
            if (to.shape(x).rank() == 4 && pixels(to.shape(x)) > 1) x = planar(x, node);
            rewriter.bind(old, to.add1("reshape", {x}, node.attrs, node.layer, node.source));
        }
        return rewriter.map[size_t(old)];
    }

    ValueId copy(ValueId v, bool is_planar, const Node &reader) {
        const Shape &shape = to.shape(v);
        Attrs attrs{{"program", identity(shape)}, {"outputs", compact(shape)}, {"vector", context.kernel.vector}};
        if (is_planar) attrs.map["planar"] = true;
        return to.add1("channels_map", {v}, attrs, reader.layer, reader.source);
    }
    ValueId planar(ValueId v, const Node &reader) {
        if (is_planar(to, v)) return v;
        auto [place, is_new] = planar_copies.try_emplace(v, no_value);
        if (is_new) place->second = copy(v, true, reader);
        return place->second;
    }
    ValueId dense(ValueId v, const Node &reader) {
        if (!is_planar(to, v)) return v;
        auto [place, is_new] = dense_copies.try_emplace(v, no_value);
        if (is_new) place->second = copy(v, false, reader);
        return place->second;
    }

    ValueId in_blocks(ValueId weight, int64_t block, const Node &node) {
        return to.add1("channels_weight", {weight}, {{"block", block}}, node.layer, node.source);
    }
    ValueId transformed(ValueId weight, int64_t m, int64_t block, int64_t blocks, const Node &node) {
        const Attrs attrs{
            {"m", m}, {"flip", false}, {"tile_k", block}, {"channel_tiles", int64_t(1)}, {"channel_blocks", blocks}};
        return to.add1("winograd_weight", {weight}, attrs, node.layer, node.source);
    }
    ValueId reshaped(ValueId v, const Shape &shape, const Node &node) {
        return to.add1("reshape", {v}, {{"shape", shape.dims}}, node.layer, node.source);
    }

    ValueId make(const Product &product, const std::string &program, const std::vector<ValueId> &others,
                 const Shape &result, int64_t pool) {
        const Node &node = *product.node;
        Node made{.op = find_op("channels_conv2d"),
                  .inputs = {product.x},
                  .outputs = {},
                  .attrs = product.attrs,
                  .layer = {},
                  .source = {}};
        made.attrs.map["program"] = program;
        made.attrs.map["outputs"] = compact(result);
        made.attrs.map["pool"] = pool;
        made.attrs.map["bias"] = product.bias != no_value;
        made.attrs.map["m"] = int64_t(0);
        ChannelsConv q = channels_conv(to, made, context.kernel);
        if (context.kernel.math != Math::strict) q.m = q.best_m();
        made.attrs.map["m"] = int64_t(q.m);
        const int64_t block = q.schedule().block(q);
        made.inputs.push_back(q.m ? transformed(product.weight, q.m, block, q.k / block, node)
                                  : in_blocks(product.weight, block, node));
        if (product.bias != no_value)
            made.inputs.push_back(in_blocks(reshaped(product.bias, Shape{q.k, 1, 1, 1}, node), block, node));
        made.inputs.insert(made.inputs.end(), others.begin(), others.end());
        return to.add1("channels_conv2d", made.inputs, made.attrs, node.layer, node.source);
    }

    // Half of a vector costs no more than a whole one: results that fill no more are made in it. Where it takes half of
    // the time, so are those that would leave half of their last vector empty, if that is much of them. Zen 4: LeNet's
    // first layer, 6 channels, and what is behind it take 0.45 of the time, 144 -> 24 @ 24 0.8; Zen 5, in whole
    // vectors, mobilenet_v2 takes 0.97.
    int64_t vector_for(int64_t results) const {
        int64_t vector = context.kernel.vector;
        const int64_t halves = 2 * ((results + vector - 1) / vector), filled = (2 * results + vector - 1) / vector;
        if (context.kernel.by_halves && 6 * filled <= 5 * halves) vector /= 2;
        while (vector > 4 && 2 * results <= vector) vector /= 2;
        return vector;
    }

    void add_product(const Node &node) {
        const bool linear = named(node, "linear");
        const Shape &w = graph.shape(node.inputs[1]);
        for (size_t i = 1; i < node.inputs.size(); i++)
            if (graph.shape(node.inputs[i]).per_block()) unsupported(node, "a weight of each sample");
        Product product{&node, no_value, value(node.inputs[1]),
                        node.inputs.size() > 2 ? value(node.inputs[2]) : no_value, node.attrs};
        Shape window = linear ? Shape{w[0], w[1], 1, 1} : w;
        ValueId x = node.inputs[0];
        if (linear) {
            auto flat = reshapes.find(x);
            if (flat != reshapes.end() && graph.shape(flat->second->inputs[0]).rank() == 4) {
                x = flat->second->inputs[0];
                const Shape &image = graph.shape(x);
                window = Shape{w[0], image[1], image[2], image[3]};
            }
            product.weight = reshaped(product.weight, window, node);
            product.attrs = {{"stride", int64_t(1)}, {"padding", int64_t(0)}};
        }
        product.x = value(x);
        auto &map = product.attrs.map;
        map.try_emplace("groups", int64_t(1));
        map["k"] = window[0];
        map["r"] = window[2];
        map["s"] = window[3];
        map["vector"] = vector_for(window[0]);
        products.emplace(node.outputs[0], product);
    }

    // Pixels a side that a program reduces to one behind a product's result; 0: it cannot be part of the kernel.
    int64_t pool_behind(const Node &node, const Shape &product) const {
        const Shape &result = graph.shape(node.outputs[0]);
        if (node.outputs.size() != 1 || result.rank() != product.rank() || result[1] != product[1]) return 0;
        static const std::set<std::string> windows{"avg_pool2d", "max_pool2d"};
        int64_t pool = 1;
        const Program program = parse_program(node.attrs.string("program"));
        for (const ProgramStatement &s : program.statements) {
            if (s.op == "sum" || s.op.find("adaptive") == 0 || s.op.find("pool2d_grad") != std::string::npos) return 0;
            if (!windows.count(s.op)) continue;
            const int window = s.attributes.at("window");
            if (pool > 1 || window > 3 || window != s.attributes.at("stride") || s.attributes.at("padding") ||
                s.is_ceil())
                return 0;
            pool = window;
        }
        if (result.rank() == 4 && (product[2] / pool != result[2] || product[3] / pool != result[3])) return 0;
        return pool;
    }

    bool join_product(const Node &node) {
        for (size_t i = 0; i < node.inputs.size(); i++) {
            auto found = products.find(node.inputs[i]);
            if (found == products.end() || uses[size_t(node.inputs[i])] != 1) continue;
            const int64_t pool = pool_behind(node, graph.shape(node.inputs[i]));
            if (!pool) continue;
            const Product product = found->second;
            products.erase(found);
            std::vector<ValueId> others;
            for (size_t j = 0; j < node.inputs.size(); j++)
                if (j != i) others.push_back(value(node.inputs[j]));
            rewriter.bind(node.outputs[0], make(product, with_input_first(node.attrs.string("program"), int(i)), others,
                                                graph.shape(node.outputs[0]), pool));
            return true;
        }
        return false;
    }

    void add_map(const Node &node) {
        if (!node.attrs.string("scalars").empty()) unsupported(node, "it depends on the batch");
        for (ValueId v : node.outputs) {
            const Shape &shape = graph.shape(v);
            if (!shape.batched() || shape.rank() == 3) unsupported(node, "a result of shape " + shape.text());
        }
        if (join_product(node)) return;
        std::vector<ValueId> inputs;
        for (ValueId v : node.inputs) inputs.push_back(value(v));
        Attrs attrs{{"program", node.attrs.string("program")},
                    {"outputs", node.attrs.string("outputs")},
                    {"vector", context.kernel.vector}};
        std::vector<ValueId> made = to.add("channels_map", inputs, attrs, node.layer, node.source);
        for (size_t i = 0; i < made.size(); i++) rewriter.bind(node.outputs[i], made[i]);
    }

    // What a plan gives its caller has storage of its own.
    void add_unpack(const Node &node) {
        ValueId x = value(node.inputs[0]);
        if (to.shape(x).rank() == 4 && pixels(to.shape(x)) > 1) x = planar(x, node);
        const Node &maker = to.producer(x);
        const bool own = named(maker, "channels_conv2d") || named(maker, "channels_map") || named(maker, "softmax");
        if (!own || uses[size_t(node.inputs[0])] != 1) x = copy(x, false, node);
        rewriter.bind(node.outputs[0], to.add1("channels_rows", {x}, {{"shape", graph.shape(node.outputs[0]).dims}},
                                               node.layer, node.source));
    }

    void add(const Node &node) {
        auto per_block = [&](ValueId v) { return graph.shape(v).per_block(); };
        const bool whole = std::none_of(node.inputs.begin(), node.inputs.end(), per_block) &&
                           std::none_of(node.outputs.begin(), node.outputs.end(), per_block);
        for (ValueId v : node.outputs)
            if (graph.shape(v).batched() && graph.shape(v).rank() == 3)
                unsupported(node, "a value of three dimensions");
        if (whole || named(node, "input_rows")) {
            if (named(node, "batch_size")) unsupported(node, "it depends on the batch");
            rewriter.copy(node);
        } else if (named(node, "pack")) {
            rewriter.bind(node.outputs[0],
                          to.add1("channels_rows", {value(node.inputs[0])}, node.attrs, node.layer, node.source));
        } else if (named(node, "unpack")) {
            add_unpack(node);
        } else if (named(node, "conv2d") || named(node, "linear")) {
            add_product(node);
        } else if (named(node, "pointwise")) {
            add_map(node);
        } else if (named(node, "reshape")) {
            reshapes[node.outputs[0]] = &node;
        } else if (named(node, "softmax") || named(node, "slice") || named(node, "concat") || named(node, "output")) {
            std::vector<ValueId> inputs;
            for (ValueId v : node.inputs) inputs.push_back(dense(value(v), node));
            std::vector<ValueId> made = to.add(node.op->name, inputs, node.attrs, node.layer, node.source);
            for (size_t i = 0; i < made.size(); i++) rewriter.bind(node.outputs[i], made[i]);
        } else {
            unsupported(node, std::string(node.op->name) + " has no kernel of one sample");
        }
    }
};

} // namespace

Graph channels(const Graph &graph, const PassContext &context) {
    Channels channels(graph, context);
    try {
        for (const Node &node : graph.nodes) channels.add(node);
        find_views(channels.to);
    } catch (const MisplacedPart &error) { throw NoChannels(error.what()); }
    return std::move(channels.to);
}

} // namespace cryolite
