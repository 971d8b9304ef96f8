// The network of lenet.cpp with batch normalization written from scratch, as a textbook does: means, variances, moving
// averages, scale and shift. The compiler differentiates and fuses it; parameters have the names of lenet.cpp's, with
// shapes that broadcast.
#include <cryolite.h>
using namespace cryolite;

static Value batch_norm_from_scratch(Network &net, Value x, double eps = 1e-5, double momentum = 0.9) {
    Scope layer(net);                                    // takes a number, as a layer does: "1.weight", ...
    Axes axes = x.rank() == 2 ? Axes{0} : Axes{0, 2, 3}; // per feature, per channel
    Shape shape = x.shape().reduced(axes);               // [1, c] or [1, c, 1, 1]
    Value gamma = net.parameter("weight", shape, ones());
    Value beta = net.parameter("bias", shape, zeros());
    Value moving_mean = net.state("running_mean", shape, zeros());
    Value moving_var = net.state("running_var", shape, ones());

    Value mean = reduce_mean(x, axes);
    Value var = reduce_mean(square(x - mean), axes);
    net.assign(moving_mean, momentum * moving_mean + (1 - momentum) * mean); // in train plans only
    net.assign(moving_var, momentum * moving_var + (1 - momentum) * var);

    Value x_hat = (x - by_mode(mean, moving_mean)) / sqrt(by_mode(var, moving_var) + eps);
    return gamma * x_hat + beta;
}

static void lenet_scratch(Network &net) {
    net.optimize(Sgd{.learning_rate = 1.0});
    net.initialize_weights(xavier_uniform());

    Value x = net.input("image", {1, 28, 28});
    for (int channels : {6, 16}) {
        x = conv2d(x, {.channels = channels, .window = 5});
        x = avg_pool2d(sigmoid(batch_norm_from_scratch(net, x)), {.window = 2});
    }
    x = flatten(x);
    for (int units : {120, 84}) x = sigmoid(batch_norm_from_scratch(net, linear(x, {.units = units})));
    net.classify(linear(x, {.units = 10}));
}
CRYOLITE_NETWORK(lenet_scratch)
