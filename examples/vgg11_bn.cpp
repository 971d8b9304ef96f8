// torchvision.models.vgg11_bn(num_classes=10) on images of 64x64.
#include "torchvision.h"
using namespace torchvision;

static void vgg11_bn(Network &net) {
    train_as_usual(net);
    Value x = net.input("image", {3, 64, 64});
    {
        Scope features(net, "features");
        for (int channels : {64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0}) {
            if (channels == 0)
                x = max_pool2d(x, {.window = 2});
            else
                x = relu(norm(conv2d(x, {.channels = channels, .window = 3, .padding = 1})));
        }
    }
    x = flatten(adaptive_avg_pool2d(x, {.height = 7}));
    Scope classifier(net, "classifier");
    for (int units : {4096, 4096}) x = dropout(relu(linear(x, {.units = units})));
    net.classify(linear(x, {.units = 10}));
}
CRYOLITE_NETWORK(vgg11_bn)
