// torchvision.models.densenet121(num_classes=10) on images of 64x64.
#include "torchvision.h"
using namespace torchvision;

constexpr int growth = 32;

// Every layer's result is put behind all channels before it: each concat begins with the one before, whose storage it
// shares, so that nothing is copied.
static Value dense_block(Network &net, Value x, const std::string &name, int layers) {
    Scope block(net, name);
    for (int i = 1; i <= layers; i++) {
        Scope layer(net, "denselayer" + std::to_string(i));
        Value y = relu(norm(x, "norm1"));
        y = conv2d(y, {.channels = 4 * growth, .window = 1, .bias = false, .name = "conv1"});
        y = relu(norm(y, "norm2"));
        y = conv2d(y, {.channels = growth, .window = 3, .padding = 1, .bias = false, .name = "conv2"});
        x = concat({x, y});
    }
    return x;
}

static Value transition(Network &net, Value x, const std::string &name) {
    Scope layer(net, name);
    const int channels = int(x.shape()[1]) / 2;
    x = relu(norm(x, "norm"));
    x = conv2d(x, {.channels = channels, .window = 1, .bias = false, .name = "conv"});
    return avg_pool2d(x, {.window = 2});
}

static Value features(Network &net, Value x) {
    Scope layer(net, "features");
    x = conv2d(x, {.channels = 64, .window = 7, .stride = 2, .padding = 3, .bias = false, .name = "conv0"});
    x = max_pool2d(relu(norm(x, "norm0")), {.window = 3, .stride = 2, .padding = 1});
    const std::vector<int> blocks = {6, 12, 24, 16};
    for (size_t i = 0; i < blocks.size(); i++) {
        const std::string number = std::to_string(i + 1);
        x = dense_block(net, x, "denseblock" + number, blocks[i]);
        if (i + 1 < blocks.size()) x = transition(net, x, "transition" + number);
    }
    return norm(x, "norm5");
}

static void densenet121(Network &net) {
    train_as_usual(net);
    Value x = relu(features(net, net.input("image", {3, 64, 64})));
    net.classify(linear(flatten(adaptive_avg_pool2d(x)), {.units = 10, .name = "classifier"}));
}
CRYOLITE_NETWORK(densenet121)
