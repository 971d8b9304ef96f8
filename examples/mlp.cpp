// A perceptron with two hidden layers, each with batch normalization over [n, c].
#include <cryolite.h>
using namespace cryolite;

static void mlp(Network &net) {
    net.optimize(Sgd{.learning_rate = 0.1});
    net.initialize_weights(xavier_uniform());

    Value x = flatten(net.input("image", {1, 28, 28}));
    for (int units : {256, 256}) x = relu(batch_norm(linear(x, {.units = units})));
    net.classify(linear(x, {.units = 10}));
}
CRYOLITE_NETWORK(mlp)
