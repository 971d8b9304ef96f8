// The linear generators, forward and both gradients, against plain double loops over edge shapes. Kernels are compiled
// as shipped: no symbol outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include "generators/schedule.h"

#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

void check_linear(int c, int k, const Machine &m, int blocks, bool bias) {
    SCOPED_TRACE("linear " + std::to_string(c) + " " + std::to_string(k) + " " + m.target);
    const int v = m.width();
    std::mt19937 engine(3);
    Array x({v, c, blocks}), weight({c, k}), b({k}), y({v, k, blocks}), dx({v, c, blocks});
    for (Array *a : {&x, &weight, &b}) a->randomize(engine);
    std::vector<double> expected(y.size()), expected_dx(x.size());
    for (int block = 0; block < blocks; block++)
        for (int o = 0; o < k; o++)
            for (int l = 0; l < v; l++) {
                double sum = bias ? b[size_t(o)] : 0;
                for (int i = 0; i < c; i++) sum += double(x.at({l, i, block})) * weight.at({i, o});
                expected[size_t((block * k + o) * v + l)] = sum;
            }
    Parameters parameters{{"c", text(c)}, {"k", text(k)}, {"lanes", text(v)}, {"n", text(v * blocks)}};
    Parameters forward = parameters;
    forward["bias"] = bias ? "true" : "false";
    std::vector<void *> arguments{x.buffer(), weight.buffer()};
    if (bias) arguments.push_back(b.buffer());
    arguments.push_back(y.buffer());
    LoadedKernel("linear", forward, m.target).call(arguments.data());
    expect_close(y, expected);

    Array dy({v, k, blocks});
    dy.randomize(engine);
    for (int block = 0; block < blocks; block++)
        for (int i = 0; i < c; i++)
            for (int l = 0; l < v; l++) {
                double sum = 0;
                for (int o = 0; o < k; o++) sum += double(dy.at({l, o, block})) * weight.at({i, o});
                expected_dx[size_t((block * c + i) * v + l)] = sum;
            }
    void *gradient[] = {dy.buffer(), weight.buffer(), dx.buffer()};
    LoadedKernel("linear_grad_input", parameters, m.target).call(gradient);
    expect_close(dx, expected_dx);
}

void check_linear_grad_weight(int c, int k, const Machine &m, int batch) {
    SCOPED_TRACE("linear_grad_weight " + std::to_string(c) + " " + std::to_string(k) + " " + std::to_string(batch));
    const int v = m.width(), blocks = ceil_div(batch, v);
    const auto [inputs, outputs] = linear_grad_weight_tile(c, k, v);
    std::mt19937 engine(5);
    Array x({v, c, blocks + 1}), dy({v, k, blocks + 1}), dw({c, k});
    x.randomize(engine);
    dy.randomize(engine); // the block after the batch must not be read
    std::vector<double> expected(dw.size());
    for (int o = 0; o < k; o++)
        for (int i = 0; i < c; i++)
            for (int b = 0; b < blocks; b++)
                for (int l = 0; l < v; l++) expected[size_t(o * c + i)] += double(x.at({l, i, b})) * dy.at({l, o, b});
    Parameters parameters{
        {"c", text(inputs)}, {"k", text(k)}, {"tile", text(outputs)}, {"lanes", text(v)}, {"weight_c", text(c)}};
    LoadedKernel kernel("linear_grad_weight", parameters, m.target);
    for (int i = 0; i < c; i += int(inputs))
        for (int o = 0; o < k; o += int(outputs)) {
            Array x_tile({1}), dy_tile({1}), dw_tile({1});
            x_tile.view(x, size_t(i * v), {v, int(inputs), blocks + 1}, {1, v, v * c});
            dy_tile.view(dy, size_t(o * v), {v, int(outputs), blocks + 1}, {1, v, v * k});
            dw_tile.view(dw, size_t(o * c + i), {int(inputs), int(outputs)}, {1, c});
            void *arguments[] = {&batch, x_tile.buffer(), dy_tile.buffer(), dw_tile.buffer()};
            kernel.call(arguments);
        }
    expect_close(dw, expected);
}

TEST(Linear, EdgeShapes) {
    for (auto [c, k] : {std::pair{1, 1}, {1, 7}, {7, 1}, {2, 3}, {256, 120}, {84, 10}, {37, 31}, {1024, 26}, {113, 53}})
        check_linear(c, k, {}, 1, c % 2);
    check_linear(30, 29, {}, 3, true);
}

TEST(Linear, GradWeightEdgeShapes) {
    for (auto [c, k] :
         {std::pair{1, 1}, {1, 7}, {3, 5}, {7, 1}, {15, 3}, {17, 31}, {84, 10}, {120, 84}, {113, 53}, {256, 120}})
        for (int batch : {1, 35, 307}) check_linear_grad_weight(c, k, {}, batch);
}

TEST(Linear, WidthsAndTargets) {
    for (const Machine &m : machines()) {
        check_linear(13, 27, m, 2, true);
        check_linear_grad_weight(45, 14, m, 19);
    }
}

} // namespace
} // namespace cryolite::testing
