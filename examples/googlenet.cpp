// torchvision.models.googlenet(num_classes=10, aux_logits=False) on images of 96x96.
#include "torchvision.h"
using namespace torchvision;

// BasicConv2d.
static Value conv(Network &net, Value x, int channels, int window, const std::string &name = {}, int stride = 1) {
    Scope layer(net, name);
    const int padding = window / 2;
    x = conv2d(
        x,
        {.channels = channels, .window = window, .stride = stride, .padding = padding, .bias = false, .name = "conv"});
    return relu(norm(x, "bn", 1e-3));
}

// Channels of the 1x1 branch, of the 3x3 branch and its reduction, of the "5x5" branch (3x3, as in torchvision) and its
// reduction, of the pooling branch.
struct Widths {
    int one, three_in, three, five_in, five, pool;
};

static Value inception(Network &net, Value x, const std::string &name, Widths w) {
    Scope layer(net, name);
    Value one = conv(net, x, w.one, 1, "branch1");
    auto pair = [&](const std::string &branch, int reduced, int channels) {
        Scope sequence(net, branch);
        return conv(net, conv(net, x, reduced, 1), channels, 3);
    };
    Value three = pair("branch2", w.three_in, w.three);
    Value five = pair("branch3", w.five_in, w.five);
    Scope sequence(net, "branch4");
    Value pooled = max_pool2d(x, {.window = 3, .stride = 1, .padding = 1, .ceil = true});
    return concat({one, three, five, conv(net, pooled, w.pool, 1)});
}

static void googlenet(Network &net) {
    train_as_usual(net);
    auto shrink = [](Value x, int window) { return max_pool2d(x, {.window = window, .stride = 2, .ceil = true}); };
    Value x = net.input("image", {3, 96, 96});
    x = shrink(conv(net, x, 64, 7, "conv1", 2), 3);
    x = conv(net, x, 64, 1, "conv2");
    x = shrink(conv(net, x, 192, 3, "conv3"), 3);
    x = inception(net, x, "inception3a", {64, 96, 128, 16, 32, 32});
    x = shrink(inception(net, x, "inception3b", {128, 128, 192, 32, 96, 64}), 3);
    x = inception(net, x, "inception4a", {192, 96, 208, 16, 48, 64});
    x = inception(net, x, "inception4b", {160, 112, 224, 24, 64, 64});
    x = inception(net, x, "inception4c", {128, 128, 256, 24, 64, 64});
    x = inception(net, x, "inception4d", {112, 144, 288, 32, 64, 64});
    x = shrink(inception(net, x, "inception4e", {256, 160, 320, 32, 128, 128}), 2);
    x = inception(net, x, "inception5a", {256, 160, 320, 32, 128, 128});
    x = inception(net, x, "inception5b", {384, 192, 384, 48, 128, 128});
    x = dropout(flatten(adaptive_avg_pool2d(x)), {.rate = 0.2});
    net.classify(linear(x, {.units = 10, .name = "fc"}));
}
CRYOLITE_NETWORK(googlenet)
