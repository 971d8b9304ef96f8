// LeNet without batch normalization: what lenet.cpp is compared with. The higher learning rates of lenet.cpp are out of
// its reach.
#include <cryolite.h>
using namespace cryolite;

static void lenet_plain(Network &net) {
    net.optimize(Sgd{.learning_rate = 0.9});
    net.initialize_weights(xavier_uniform());

    Value x = net.input("image", {1, 28, 28});
    for (int channels : {6, 16}) x = avg_pool2d(sigmoid(conv2d(x, {.channels = channels, .window = 5})), {.window = 2});
    x = flatten(x);
    for (int units : {120, 84}) x = sigmoid(linear(x, {.units = units}));
    net.classify(linear(x, {.units = 10}));
}
CRYOLITE_NETWORK(lenet_plain)
