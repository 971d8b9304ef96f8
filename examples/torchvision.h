// What the networks of torchvision share. Their parameters have the names of its state_dicts: weights can be exchanged.
#ifndef CRYOLITE_EXAMPLES_TORCHVISION_H
#define CRYOLITE_EXAMPLES_TORCHVISION_H

#include <cryolite.h>

namespace torchvision {
using namespace cryolite;

// PyTorch's BatchNorm2d(momentum=0.1): the running variance is the unbiased one.
inline Value norm(Value x, const std::string &name = {}, double eps = 1e-5) {
    return batch_norm(x, {.eps = eps, .momentum = 0.9, .unbiased = true, .name = name});
}

// SGD as torchvision's training scripts take it.
inline void train_as_usual(Network &net) {
    net.initialize_weights(he_normal());
    net.optimize(Sgd{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
}

} // namespace torchvision
#endif
