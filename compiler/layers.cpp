// The functions of the language: check what the author wrote, add the nodes. What an op accepts is checked by its own
// infer; here are the options, which are the author's and not the graph's.
#include "frontend.h"
#include "op.h"

#include <cmath>
#include <cstring>

namespace cryolite {

// ---------------------------------------------------------------------------------------------------------------------
// Layers

static void require_images(const Call &call, Value x) {
    call.require(x.rank() == 4 && x.shape().batched(), "the input must be [n, c, h, w], not " + x.shape().text());
}

static void require_features(const Call &call, Value x) {
    call.require(x.rank() == 2 && x.shape().batched(), "the input must be [n, c], not " + x.shape().text());
}

static void require_window(const Call &call, Value x, int64_t window, int64_t padding) {
    Shape padded = x.shape();
    for (size_t i : {2, 3}) padded.dims[i] += 2 * padding;
    call.require(window <= padded[2] && window <= padded[3],
                 "window " + std::to_string(window) + " does not fit the padded input " + padded.text());
}

// The weight, and the bias, which starts as PyTorch's whatever the weight starts as.
static std::vector<Value> weights(const Call &call, const Shape &shape, const std::optional<Initializer> &init,
                                  bool bias) {
    std::vector<Value> result = {
        call.add_stored("parameter", call.layer + ".weight", shape, init.value_or(call.net->weight_init()))};
    if (bias)
        result.push_back(
            call.add_stored("parameter", call.layer + ".bias", {shape[0]}, resolve(pytorch_default(), shape)));
    return result;
}

Value conv2d(Value x, Conv2d options, Source where) {
    Call call = layer_call("conv2d", x, options.name, where);
    require_images(call, x);
    call.positive("channels", options.channels, x);
    call.positive("window", options.window, x);
    call.positive("stride", options.stride, x);
    call.option(options.padding >= 0, "padding " + std::to_string(options.padding) + " must not be negative", x);
    call.positive("groups", options.groups, x);
    call.option(x.shape()[1] % options.groups == 0 && options.channels % options.groups == 0,
                "groups " + std::to_string(options.groups) + " must divide the input's channels and the layer's " +
                    std::to_string(options.channels),
                x);
    require_window(call, x, options.window, options.padding);
    std::vector<Value> inputs =
        weights(call, {options.channels, x.shape()[1] / options.groups, options.window, options.window},
                options.weight_init, options.bias);
    inputs.insert(inputs.begin(), x);
    Attrs attrs{{"stride", int64_t(options.stride)}, {"padding", int64_t(options.padding)}};
    if (options.groups > 1) attrs.map["groups"] = int64_t(options.groups);
    return call.add("conv2d", inputs, attrs);
}

Value linear(Value x, Linear options, Source where) {
    Call call = layer_call("linear", x, options.name, where);
    require_features(call, x);
    call.positive("units", options.units, x);
    std::vector<Value> inputs = weights(call, {options.units, x.shape()[1]}, options.weight_init, options.bias);
    inputs.insert(inputs.begin(), x);
    return call.add("linear", inputs);
}

Value batch_norm(Value x, BatchNorm options, Source where) {
    Call call = layer_call("batch_norm", x, options.name, where);
    // The rank alone says where the channels are, never their count.
    call.require((x.rank() == 2 || x.rank() == 4) && x.shape().batched(),
                 "the input must be [n, c] or [n, c, h, w], not " + x.shape().text());
    const int64_t channels = x.shape()[1];
    call.require(options.channels == 0 || options.channels == channels, "expects " + std::to_string(options.channels) +
                                                                            " channels, the input " + x.shape().text() +
                                                                            " has " + std::to_string(channels));
    call.option(options.eps > 0 && std::isfinite(options.eps),
                "eps " + number_text(options.eps) + " must be positive and finite", x);
    if (options.momentum)
        call.option(*options.momentum >= 0 && *options.momentum <= 1,
                    "momentum " + number_text(*options.momentum) +
                        " must be in [0, 1]: the weight of the old running value",
                    x);
    const Shape shape{channels};
    Value weight = call.add_stored("parameter", call.layer + ".weight", shape, ones());
    Value bias = call.add_stored("parameter", call.layer + ".bias", shape, zeros());
    Value mean = call.add_stored("state", call.layer + ".running_mean", shape, zeros());
    Value variance = call.add_stored("state", call.layer + ".running_var", shape, ones());
    std::vector<Value> inputs{x, weight, bias, mean, variance};
    Attrs attrs{{"eps", options.eps}, {"unbiased", options.unbiased}, {"frozen", options.frozen}};
    if (options.momentum)
        attrs.map["momentum"] = *options.momentum;
    else
        inputs.push_back(call.add_stored("state", call.layer + ".num_batches_tracked", {1}, zeros()));
    return call.add("batch_norm", inputs, attrs);
}

static Value pool2d(const char *op, Value x, const Pool2d &options, Source where) {
    Call call = layer_call(op, x, options.name, where);
    require_images(call, x);
    call.positive("window", options.window, x);
    const int stride = options.stride == 0 ? options.window : options.stride;
    call.positive("stride", stride, x);
    // More would let a window lie in the padding alone.
    call.option(options.padding >= 0 && options.padding <= options.window / 2,
                "padding " + std::to_string(options.padding) + " must be between 0 and half the window " +
                    std::to_string(options.window),
                x);
    require_window(call, x, options.window, options.padding);
    Attrs attrs{
        {"window", int64_t(options.window)}, {"stride", int64_t(stride)}, {"padding", int64_t(options.padding)}};
    if (options.ceil) attrs.map["ceil"] = int64_t(1);
    return call.add(op, {x}, attrs);
}

Value avg_pool2d(Value x, Pool2d options, Source where) { return pool2d("avg_pool2d", x, options, where); }
Value max_pool2d(Value x, Pool2d options, Source where) { return pool2d("max_pool2d", x, options, where); }

Value adaptive_avg_pool2d(Value x, AdaptivePool2d options, Source where) {
    Call call = layer_call("adaptive_avg_pool2d", x, options.name, where);
    require_images(call, x);
    call.positive("height", options.height, x);
    call.option(options.width >= 0, "width " + std::to_string(options.width) + " must not be negative", x);
    const int64_t h = options.height, w = options.width > 0 ? options.width : h, rows = x.shape()[2] / h;
    if (h == 1 && w == 1) return call.add("mean", {x}, {{"axes", std::vector<int64_t>{2, 3}}});
    // Equal square windows side by side.
    if (rows > 0 && rows * h == x.shape()[2] && rows * w == x.shape()[3])
        return call.add("avg_pool2d", {x}, {{"window", rows}, {"stride", rows}, {"padding", int64_t(0)}});
    return call.add("adaptive_avg_pool2d", {x}, {{"h", h}, {"w", w}});
}

Value dropout(Value x, Dropout options, Source where) {
    Call call = layer_call("dropout", x, options.name, where);
    call.require(x.shape().batched(), "the input must be [n, ...], not " + x.shape().text());
    call.option(options.rate >= 0 && options.rate < 1, "rate " + number_text(options.rate) + " must be in [0, 1)", x);
    // Every dropout draws its own numbers: the seed is how many came before.
    int64_t seed = 0;
    for (const Node &node : x.net->graph().nodes) seed += !std::strcmp(node.op->name, "dropout");
    return call.add("dropout", {x}, {{"rate", options.rate}, {"seed", seed}});
}

Value flatten(Value x, Layer options, Source where) {
    Call call = layer_call("flatten", x, options.name, where);
    call.require(x.rank() >= 2 && x.shape().batched(), "the input must be [n, ...], not " + x.shape().text());
    return call.add("reshape", {x}, {{"shape", std::vector<int64_t>{Shape::batch, x.shape().elements()}}});
}

static Value activation(const char *op, Value x, const Layer &options, Source where) {
    return layer_call(op, x, options.name, where).add(op, {x});
}

Value sigmoid(Value x, Layer options, Source where) { return activation("sigmoid", x, options, where); }
Value relu(Value x, Layer options, Source where) { return activation("relu", x, options, where); }
Value relu6(Value x, Layer options, Source where) { return activation("relu6", x, options, where); }
Value tanh(Value x, Layer options, Source where) { return activation("tanh", x, options, where); }

Value softmax(Value x, Layer options, Source where) {
    Call call = layer_call("softmax", x, options.name, where);
    require_features(call, x);
    return call.add("softmax", {x});
}

// ---------------------------------------------------------------------------------------------------------------------
// Arithmetic

static Value operand(const Call &call, const Operand &x) {
    if (x.value.net) return x.value;
    call.require(std::isfinite(x.number), "the number " + number_text(x.number) + " is not finite");
    return call.add("constant", {}, {{"value", x.number}});
}

static Value binary(const char *op, const Operand &a, const Operand &b) {
    Call call = plain_call(op, a.value.net ? a.value : b.value, a.where);
    if (a.value.net && b.value.net) call.same_network(b.value);
    Value left = operand(call, a);
    return call.add(op, {left, operand(call, b)});
}

static Value unary(const char *op, Value x, Source where) { return plain_call(op, x, where).add(op, {x}); }

Value operator+(const Operand &a, const Operand &b) { return binary("add", a, b); }
Value operator-(const Operand &a, const Operand &b) { return binary("sub", a, b); }
Value operator*(const Operand &a, const Operand &b) { return binary("mul", a, b); }
Value operator/(const Operand &a, const Operand &b) { return binary("div", a, b); }
Value operator-(const Operand &a) { return unary("neg", a.value, a.where); }
Value exp(Value x, Source where) { return unary("exp", x, where); }
Value log(Value x, Source where) { return unary("log", x, where); }
Value sqrt(Value x, Source where) { return unary("sqrt", x, where); }
Value square(Value x, Source where) { return unary("square", x, where); }
Value abs(Value x, Source where) { return unary("abs", x, where); }
Value maximum(const Operand &a, const Operand &b) { return binary("max", a, b); }
Value minimum(const Operand &a, const Operand &b) { return binary("min", a, b); }

// ---------------------------------------------------------------------------------------------------------------------
// Reductions, reshape, modes, loss

static Value reduce(const char *op, Value x, const Axes &axes, Source where) {
    Call call = plain_call(op, x, where);
    std::set<int64_t> sorted;
    for (int axis : axes) {
        call.require(axis >= 0 && axis < x.rank(),
                     "there is no axis " + std::to_string(axis) + " in " + x.shape().text());
        call.require(sorted.insert(axis).second,
                     "axis " + std::to_string(axis) + " of " + x.shape().text() + " is given twice");
    }
    call.require(!axes.empty(), "no axes of " + x.shape().text() + " are given");
    return call.add(op, {x}, {{"axes", std::vector<int64_t>(sorted.begin(), sorted.end())}});
}

Value reduce_sum(Value x, const Axes &axes, Source where) { return reduce("sum", x, axes, where); }
Value reduce_mean(Value x, const Axes &axes, Source where) { return reduce("mean", x, axes, where); }

Value reshape(Value x, const Shape &shape, Source where) {
    Call call = plain_call("reshape", x, where);
    const std::string what = x.shape().text() + " cannot become " + shape.text();
    call.require(shape.batched() == x.shape().batched(), what + ": the batch stays in front");
    for (int i = shape.batched(); i < shape.rank(); ++i)
        call.require(shape[i] > 0, what + ": extents must be positive");
    call.require(shape.elements() == x.shape().elements(), what + ": the number of elements differs");
    return call.add("reshape", {x}, {{"shape", shape.dims}});
}

Value concat(const std::vector<Value> &values, Source where) {
    Call call = plain_call("concat", values.empty() ? Value{} : values[0], where);
    return values.size() == 1 ? values[0] : call.add("concat", values);
}

Value by_mode(Value train, Value infer, Source where) {
    Call call = plain_call("by_mode", train, where);
    call.same_network(infer);
    call.require(train.shape() == infer.shape(),
                 "the value in train has shape " + train.shape().text() + ", in infer " + infer.shape().text());
    return call.add("by_mode", {train, infer});
}

void cross_entropy(const Call &call, Value logits, Value &loss, Value &correct) {
    call.require(logits.rank() == 2 && logits.shape().batched(),
                 "the logits must be [n, classes], not " + logits.shape().text());
    Value label;
    for (const Node &node : call.net->graph().nodes)
        if (!std::strcmp(node.op->name, "label")) label = {call.net, node.outputs[0]};
    if (!label.net) label = call.add("label", {});
    std::vector<Value> results = call.add_all("softmax_cross_entropy", {logits, label});
    loss = results[0];
    correct = results[1];
}

Value softmax_cross_entropy(Value logits, Source where) {
    Value loss, correct;
    cross_entropy(plain_call("softmax_cross_entropy", logits, where), logits, loss, correct);
    return loss;
}

} // namespace cryolite
