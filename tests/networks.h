// The networks of the model tests: those of the fixtures, in PyTorch's numbering.
#ifndef CRYOLITE_TESTS_NETWORKS_H
#define CRYOLITE_TESTS_NETWORKS_H

#include "cryolite.h"

namespace cryolite::test {

// LeNet with batch normalization; norm makes the layer.
template <class Norm> void lenet_with(Network &net, Norm norm) {
    Value x = net.input("image", {1, 28, 28});
    for (int channels : {6, 16}) {
        x = conv2d(x, {.channels = channels, .window = 5});
        x = avg_pool2d(sigmoid(norm(x)), {.window = 2});
    }
    x = flatten(x);
    for (int units : {120, 84}) x = sigmoid(norm(linear(x, {.units = units})));
    net.classify(linear(x, {.units = 10}));
}

// PyTorch's running variance is unbiased, the textbook's is not.
inline void lenet_pytorch(Network &net) {
    lenet_with(net, [](Value x) { return batch_norm(x, {.unbiased = true}); });
}
inline void lenet(Network &net) {
    lenet_with(net, [](Value x) { return batch_norm(x); });
}

// Batch normalization as the textbook writes it.
inline Value batch_norm_from_scratch(Network &net, Value x, float eps = 1e-5f, float momentum = 0.9f) {
    Scope layer(net);
    Axes axes = x.rank() == 2 ? Axes{0} : Axes{0, 2, 3};
    Shape shape = x.shape().reduced(axes);
    Value gamma = net.parameter("weight", shape, ones()), beta = net.parameter("bias", shape, zeros());
    Value moving_mean = net.state("running_mean", shape, zeros()), moving_var = net.state("running_var", shape, ones());
    Value mean = reduce_mean(x, axes), var = reduce_mean(square(x - mean), axes);
    net.assign(moving_mean, momentum * moving_mean + (1 - momentum) * mean);
    net.assign(moving_var, momentum * moving_var + (1 - momentum) * var);
    Value x_hat = (x - by_mode(mean, moving_mean)) / sqrt(by_mode(var, moving_var) + eps);
    return gamma * x_hat + beta;
}
inline void lenet_scratch(Network &net) {
    lenet_with(net, [&net](Value x) { return batch_norm_from_scratch(net, x); });
}

inline void mlp(Network &net) {
    Value x = flatten(net.input("image", {1, 28, 28}));
    for (int units : {256, 256}) x = relu(batch_norm(linear(x, {.units = units}), {.unbiased = true}));
    net.classify(linear(x, {.units = 10}));
}

// Eight convolutions, two of them with stride 2, sums and a global pool. tanh is smooth: no rounding decides a relu.
inline Value residual_block(Network &net, Value x, const char *name, int channels, int stride) {
    Scope block(net, name);
    Value y =
        conv2d(x, {.channels = channels, .window = 3, .stride = stride, .padding = 1, .bias = false, .name = "conv1"});
    y = tanh(batch_norm(y, {.unbiased = true, .name = "bn1"}));
    y = conv2d(y, {.channels = channels, .window = 3, .padding = 1, .bias = false, .name = "conv2"});
    y = batch_norm(y, {.unbiased = true, .name = "bn2"});
    if (stride == 1) return tanh(y + x);
    Scope downsample(net, "downsample");
    x = conv2d(x, {.channels = channels, .window = 1, .stride = stride, .bias = false});
    return tanh(y + batch_norm(x, {.unbiased = true}));
}
inline void residual(Network &net) {
    Value x = net.input("image", {1, 28, 28});
    x = conv2d(x, {.channels = 4, .window = 3, .stride = 2, .padding = 1, .bias = false, .name = "conv1"});
    x = tanh(batch_norm(x, {.unbiased = true, .name = "bn1"}));
    x = residual_block(net, x, "layer1", 4, 1);
    x = residual_block(net, x, "layer2", 8, 2);
    x = residual_block(net, x, "layer3", 8, 1);
    net.classify(linear(flatten(adaptive_avg_pool2d(x)), {.units = 10, .name = "fc"}));
}

// Convolutions and pooling at odd sizes, no batch normalization: every sample stands for itself.
inline void plain(Network &net) {
    Value x = net.input("image", {1, 28, 28});
    x = relu(conv2d(x, {.channels = 3, .window = 3, .stride = 2, .padding = 1}));
    x = max_pool2d(x, {.window = 2});
    net.classify(linear(flatten(tanh(x)), {.units = 10}));
}

} // namespace cryolite::test
#endif
