// The sgd generator against PyTorch's rule in plain double loops, in place and not. Kernels are compiled as shipped: no
// symbol outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

// One tile of a weight: rows that lie further apart than they are long, where there are several, of which nothing
// between them is written.
void check_sgd(int size, int rows, double momentum, double decay, bool nesterov, bool in_place, const Machine &m) {
    SCOPED_TRACE("sgd " + text(size) + " " + text(rows) + " " + text(momentum) + " " + text(decay));
    const int apart = rows > 1 ? size + size / 2 + 1 : size;
    std::mt19937 engine(2);
    Array rate({1}), grad({size, rows}), weight({apart, rows}), velocity({apart, rows}), new_weight({apart, rows}),
        new_velocity({apart, rows});
    rate[0] = 0.1f;
    for (Array *a : {&weight, &velocity, &grad}) a->randomize(engine);
    std::vector<double> expected_weight(weight.size()), expected_velocity(weight.size());
    for (size_t i = 0; i < weight.size(); i++) {
        new_weight[i] = weight[i], new_velocity[i] = velocity[i];
        expected_weight[i] = weight[i], expected_velocity[i] = velocity[i];
        const int row = int(i) / apart, column = int(i) % apart;
        if (column >= size) continue;
        double g = grad.at({column, row}) + decay * weight[i], v = momentum > 0 ? momentum * velocity[i] + g : g;
        expected_velocity[i] = v;
        expected_weight[i] = weight[i] - 0.1 * (nesterov ? g + momentum * v : v);
    }
    std::map<std::string, std::string> parameters = {{"size", text(size)},
                                                     {"momentum", text(momentum)},
                                                     {"weight_decay", text(decay)},
                                                     {"nesterov", nesterov ? "true" : "false"}};
    if (rows > 1) parameters["rows"] = text(rows), parameters["apart"] = text(apart);
    LoadedKernel kernel("sgd", parameters, m.target);
    for (Array *a : {&weight, &velocity, &new_weight, &new_velocity}) a->view(*a, 0, {size, rows}, {1, apart});
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
        for (auto [size, rows] : {std::pair{1, 1}, {3, 1}, {6, 1}, {16, 1}, {850, 1}, {2401, 1}, {5, 3}, {64, 7}})
            for (bool in_place : {false, true}) {
                check_sgd(size, rows, 0, 0, false, in_place, m);
                check_sgd(size, rows, 0.9, 1e-2, false, in_place, m);
                check_sgd(size, rows, 0.9, 0, true, in_place, m);
            }
}

} // namespace
} // namespace cryolite::testing
