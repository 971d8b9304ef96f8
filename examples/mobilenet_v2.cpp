// torchvision.models.mobilenet_v2(num_classes=10) on images of 96x96.
#include "torchvision.h"
using namespace torchvision;

// Conv2dNormActivation.
static Value conv(Network &net, Value x, int channels, int window, int stride = 1, int groups = 1) {
    Scope layer(net);
    x = conv2d(x, {.channels = channels,
                   .window = window,
                   .stride = stride,
                   .padding = window / 2,
                   .groups = groups,
                   .bias = false});
    return relu6(norm(x));
}

// InvertedResidual: wider by `expansion`, depthwise, narrow again without an activation.
static Value inverted_residual(Network &net, Value x, int channels, int stride, int expansion) {
    Scope block(net);
    Scope sequence(net, "conv");
    const int width = int(x.shape()[1]) * expansion;
    Value y = expansion == 1 ? x : conv(net, x, width, 1);
    y = conv(net, y, width, 3, stride, width);
    y = conv2d(y, {.channels = channels, .window = 1, .bias = false});
    y = norm(y);
    return stride == 1 && x.shape()[1] == channels ? x + y : y;
}

static Value features(Network &net, Value x) {
    struct Stage {
        int expansion, channels, blocks, stride;
    };
    Scope layer(net, "features");
    x = conv(net, x, 32, 3, 2);
    for (Stage stage : {Stage{1, 16, 1, 1},
                        {6, 24, 2, 2},
                        {6, 32, 3, 2},
                        {6, 64, 4, 2},
                        {6, 96, 3, 1},
                        {6, 160, 3, 2},
                        {6, 320, 1, 1}})
        for (int i = 0; i < stage.blocks; i++)
            x = inverted_residual(net, x, stage.channels, i == 0 ? stage.stride : 1, stage.expansion);
    return conv(net, x, 1280, 1);
}

static void mobilenet_v2(Network &net) {
    train_as_usual(net);
    Value x = features(net, net.input("image", {3, 96, 96}));
    x = flatten(adaptive_avg_pool2d(x));
    Scope classifier(net, "classifier");
    net.classify(linear(dropout(x, {.rate = 0.2}), {.units = 10}));
}
CRYOLITE_NETWORK(mobilenet_v2)
