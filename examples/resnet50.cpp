// torchvision.models.resnet50(num_classes=10) on images of 112x112.
#include "resnet.h"
using namespace torchvision;

static void resnet50(Network &net) {
    train_as_usual(net);
    Value x = net.input("image", {3, 112, 112});
    x = conv2d(x, {.channels = 64, .window = 7, .stride = 2, .padding = 3, .bias = false, .name = "conv1"});
    x = relu(norm(x, "bn1"));
    x = max_pool2d(x, {.window = 3, .stride = 2, .padding = 1});
    residual_stages(net, x, bottleneck, {3, 4, 6, 3});
}
CRYOLITE_NETWORK(resnet50)
