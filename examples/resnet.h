// Residual networks: torchvision's BasicBlock and Bottleneck, and the four stages made of them.
#ifndef CRYOLITE_EXAMPLES_RESNET_H
#define CRYOLITE_EXAMPLES_RESNET_H

#include "torchvision.h"

namespace torchvision {

// The way around a block: a 1x1 convolution where the shape changes.
inline Value shortcut(Network &net, Value x, int channels, int stride) {
    if (x.shape()[1] == channels && stride == 1) return x;
    Scope layer(net, "downsample");
    return norm(conv2d(x, {.channels = channels, .window = 1, .stride = stride, .bias = false}));
}

inline Value basic_block(Network &net, Value x, int channels, int stride) {
    Scope layer(net);
    Value y =
        conv2d(x, {.channels = channels, .window = 3, .stride = stride, .padding = 1, .bias = false, .name = "conv1"});
    y = relu(norm(y, "bn1"));
    y = conv2d(y, {.channels = channels, .window = 3, .padding = 1, .bias = false, .name = "conv2"});
    y = norm(y, "bn2");
    return relu(y + shortcut(net, x, channels, stride));
}

inline Value bottleneck(Network &net, Value x, int channels, int stride) {
    Scope layer(net);
    Value y = relu(norm(conv2d(x, {.channels = channels, .window = 1, .bias = false, .name = "conv1"}), "bn1"));
    y = conv2d(y, {.channels = channels, .window = 3, .stride = stride, .padding = 1, .bias = false, .name = "conv2"});
    y = relu(norm(y, "bn2"));
    y = norm(conv2d(y, {.channels = 4 * channels, .window = 1, .bias = false, .name = "conv3"}), "bn3");
    return relu(y + shortcut(net, x, 4 * channels, stride));
}

// "layer1" to "layer4", so many blocks each, then the classifier "fc".
inline void residual_stages(Network &net, Value x, Value (*block)(Network &, Value, int, int),
                            const std::vector<int> &blocks) {
    int channels = 64;
    for (size_t stage = 0; stage < blocks.size(); stage++, channels *= 2) {
        Scope layer(net, "layer" + std::to_string(stage + 1));
        for (int i = 0; i < blocks[stage]; i++) x = block(net, x, channels, stage > 0 && i == 0 ? 2 : 1);
    }
    x = flatten(adaptive_avg_pool2d(x));
    net.classify(linear(x, {.units = 10, .name = "fc"}));
}

} // namespace torchvision
#endif
