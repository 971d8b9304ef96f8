// The sgd generator against PyTorch's rule in plain double loops, in place and not. Kernels are compiled as shipped: no
// symbol outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

void check_sgd(int size, double momentum, double decay, bool nesterov, bool in_place, const Machine &m) {
    SCOPED_TRACE("sgd " + std::to_string(size) + " " + text(momentum) + " " + text(decay));
    std::mt19937 engine(2);
    Array rate({1}), weight({size}), velocity({size}), grad({size}), new_weight({size}), new_velocity({size});
    rate[0] = 0.1f;
    for (Array *a : {&weight, &velocity, &grad}) a->randomize(engine);
    std::vector<double> expected_weight(weight.size()), expected_velocity(weight.size());
    for (size_t i = 0; i < weight.size(); i++) {
        double g = grad[i] + decay * weight[i], v = momentum > 0 ? momentum * velocity[i] + g : g;
        expected_velocity[i] = v;
        expected_weight[i] = weight[i] - 0.1 * (nesterov ? g + momentum * v : v);
    }
    LoadedKernel kernel("sgd",
                        {{"size", text(size)},
                         {"momentum", text(momentum)},
                         {"weight_decay", text(decay)},
                         {"nesterov", nesterov ? "true" : "false"}},
                        m.target);
    Array &w = in_place ? weight : new_weight, &v = in_place ? velocity : new_velocity;
    std::vector<void *> arguments{rate.buffer(), weight.buffer()};
    if (momentum > 0) arguments.push_back(velocity.buffer());
    for (Array *a : {&grad, &w}) arguments.push_back(a->buffer());
    if (momentum > 0) arguments.push_back(v.buffer());
    kernel.call(arguments.data());
    expect_close(w, expected_weight, 1e-6);
    if (momentum > 0) expect_close(v, expected_velocity, 1e-6);
}

TEST(Sgd, AsPyTorch) {
    for (const Machine &m : {Machine{}, machines().back()})
        for (int size : {1, 3, 6, 16, 850, 2401})
            for (bool in_place : {false, true}) {
                check_sgd(size, 0, 0, false, in_place, m);
                check_sgd(size, 0.9, 1e-2, false, in_place, m);
                check_sgd(size, 0.9, 0, true, in_place, m);
            }
}

} // namespace
} // namespace cryolite::testing
