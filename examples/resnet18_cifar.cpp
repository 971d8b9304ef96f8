// ResNet-18 for small images: torchvision.models.resnet18(num_classes=10) with conv1 = Conv2d(3, 64, 3, padding=1,
// bias=False) and without maxpool.
#include "resnet.h"
using namespace torchvision;

static void resnet18_cifar(Network &net) {
    train_as_usual(net);
    Value x = net.input("image", {3, 32, 32});
    x = conv2d(x, {.channels = 64, .window = 3, .padding = 1, .bias = false, .name = "conv1"});
    x = relu(norm(x, "bn1"));
    residual_stages(net, x, basic_block, {2, 2, 2, 2});
}
CRYOLITE_NETWORK(resnet18_cifar)
