// LeNet with batch normalization after every layer but the last. Layers are numbered as in PyTorch's nn.Sequential, so
// parameters have the same names: "0.weight", "1.running_mean", ..., "15.bias".
#include <cryolite.h>
using namespace cryolite;

static void lenet(Network &net) {
    net.optimize(Sgd{.learning_rate = 1.0});
    net.initialize_weights(xavier_uniform());

    Value x = net.input("image", {1, 28, 28}); // [n, c, h, w], n is the batch
    for (int channels : {6, 16}) {
        x = conv2d(x, {.channels = channels, .window = 5});
        x = avg_pool2d(sigmoid(batch_norm(x)), {.window = 2});
    }
    x = flatten(x);
    for (int units : {120, 84}) x = sigmoid(batch_norm(linear(x, {.units = units})));
    net.classify(linear(x, {.units = 10})); // softmax cross-entropy in train, probabilities in infer
}
CRYOLITE_NETWORK(lenet)
