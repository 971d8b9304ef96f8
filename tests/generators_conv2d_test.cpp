// The convolution generators, forward and both gradients, against plain double loops over edge shapes. Kernels are
// compiled as shipped: no symbol outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include "Halide.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

struct Conv {
    int c, h, w, k, r, s, stride = 1, padding = 0, groups = 1;

    int ho() const { return (h + 2 * padding - r) / stride + 1; }
    int wo() const { return (w + 2 * padding - s) / stride + 1; }
    std::string name() const {
        std::string result;
        for (int v : {c, h, w, k, r, s, stride, padding, groups}) result += std::to_string(v) + " ";
        return result;
    }
    Parameters parameters(int lanes, int blocks) const {
        return {{"c", text(c)},
                {"h", text(h)},
                {"w", text(w)},
                {"k", text(k)},
                {"r", text(r)},
                {"s", text(s)},
                {"stride", text(stride)},
                {"padding", text(padding)},
                {"groups", text(groups)},
                {"lanes", text(lanes)},
                {"n", text(lanes * blocks)}};
    }
};

// Calls f(x index, weight index, y index) for every multiply-add.
template <class F> void each_tap(const Conv &q, int lanes, int blocks, F f) {
    const int ho = q.ho(), wo = q.wo(), cg = q.c / q.groups, kg = q.k / q.groups;
    for (int b = 0; b < blocks; b++)
        for (int k = 0; k < q.k; k++)
            for (int y = 0; y < ho; y++)
                for (int x = 0; x < wo; x++)
                    for (int c = 0; c < cg; c++)
                        for (int r = 0; r < q.r; r++)
                            for (int s = 0; s < q.s; s++) {
                                const int row = y * q.stride + r - q.padding, column = x * q.stride + s - q.padding;
                                if (row < 0 || row >= q.h || column < 0 || column >= q.w) continue;
                                const int channel = b * q.c + k / kg * cg + c;
                                const size_t in = size_t((channel * q.h + row) * q.w + column) * size_t(lanes);
                                const size_t out = size_t(((b * q.k + k) * ho + y) * wo + x) * size_t(lanes);
                                const size_t weight = size_t(((k * cg + c) * q.r + r) * q.s + s);
                                for (int l = 0; l < lanes; l++) f(in + size_t(l), weight, out + size_t(l));
                            }
}

struct ConvData {
    Array x, weight, bias, y, dx, dw, dy;

    ConvData(const Conv &q, int v, int blocks)
        : x(input(q, v, blocks)), weight({q.s, q.r, q.c / q.groups, q.k}), bias({q.k}), y(output(q, v, blocks)),
          dx(input(q, v, blocks)), dw({q.s, q.r, q.c / q.groups, q.k / q.groups, q.groups}), dy(output(q, v, blocks)) {
        std::mt19937 engine(7);
        for (Array *a : {&x, &weight, &bias, &dy}) a->randomize(engine);
        for (Array *a : {&y, &dx, &dw}) a->fill(NAN);
    }
    // The groups of a block lie one after another, as blocks of fewer channels.
    static std::vector<int> input(const Conv &q, int v, int blocks) {
        return {v, q.w, q.h, q.c / q.groups, q.groups * blocks};
    }
    static std::vector<int> output(const Conv &q, int v, int blocks) {
        return {v, q.wo(), q.ho(), q.k / q.groups, q.groups * blocks};
    }
};

void check_forward(const Conv &q, const Machine &m, int blocks, bool bias) {
    const int v = m.width();
    ConvData d(q, v, blocks);
    Parameters parameters = q.parameters(v, blocks);
    parameters["bias"] = bias ? "true" : "false";
    std::vector<double> expected(d.y.size());
    for (size_t i = 0; bias && i < expected.size(); i++)
        expected[i] = d.bias[i / size_t(v * q.wo() * q.ho()) % size_t(q.k)];
    each_tap(q, v, blocks, [&](size_t i, size_t w, size_t o) { expected[o] += double(d.x[i]) * d.weight[w]; });
    std::vector<void *> arguments{d.x.buffer(), d.weight.buffer()};
    if (bias) arguments.push_back(d.bias.buffer());
    arguments.push_back(d.y.buffer());
    LoadedKernel("conv2d", parameters, m.target).call(arguments.data());
    expect_close(d.y, expected);
}

void check_gradients(const Conv &q, const Machine &m, int blocks) {
    const int v = m.width();
    ConvData d(q, v, blocks);
    std::vector<double> dx(d.dx.size()), dw(d.dw.size());
    each_tap(q, v, blocks, [&](size_t i, size_t w, size_t o) {
        dx[i] += double(d.dy[o]) * d.weight[w];
        dw[w] += double(d.dy[o]) * d.x[i];
    });
    const Parameters parameters = q.parameters(v, blocks);
    void *input[] = {d.dy.buffer(), d.weight.buffer(), d.dx.buffer()};
    LoadedKernel("conv2d_grad_input", parameters, m.target).call(input);
    expect_close(d.dx, dx);
    void *weight[] = {d.x.buffer(), d.dy.buffer(), d.dw.buffer()};
    LoadedKernel("conv2d_grad_weight", parameters, m.target).call(weight);
    expect_close(d.dw, dw);
}

const Conv conv_shapes[] = {
    {.c = 1, .h = 12, .w = 12, .k = 6, .r = 5, .s = 5},
    {.c = 6, .h = 8, .w = 8, .k = 16, .r = 5, .s = 5},
    {.c = 1, .h = 1, .w = 1, .k = 1, .r = 1, .s = 1},
    {.c = 3, .h = 1, .w = 1, .k = 2, .r = 3, .s = 3, .padding = 1},
    {.c = 2, .h = 4, .w = 5, .k = 3, .r = 4, .s = 5},                // window = input
    {.c = 2, .h = 9, .w = 10, .k = 3, .r = 2, .s = 2, .stride = 3},  // stride > window
    {.c = 2, .h = 7, .w = 7, .k = 2, .r = 3, .s = 3, .padding = 4},  // more padding than needed
    {.c = 5, .h = 6, .w = 31, .k = 7, .r = 3, .s = 3, .padding = 1}, // prime extents
    {.c = 3, .h = 3, .w = 29, .k = 29, .r = 1, .s = 1},              // primes above every tile
    {.c = 29, .h = 2, .w = 3, .k = 31, .r = 1, .s = 1},
    {.c = 4, .h = 8, .w = 8, .k = 6, .r = 3, .s = 3, .stride = 2, .padding = 1},
    {.c = 3, .h = 15, .w = 33, .k = 5, .r = 3, .s = 3, .stride = 2, .padding = 1}, // odd width, stride 2
    {.c = 1, .h = 13, .w = 34, .k = 4, .r = 7, .s = 7, .stride = 2, .padding = 3},
    {.c = 2, .h = 11, .w = 14, .k = 3, .r = 5, .s = 3, .stride = 3, .padding = 2},
    {.c = 3, .h = 6, .w = 70, .k = 2, .r = 1, .s = 3, .stride = 3, .padding = 1},
    {.c = 8, .h = 8, .w = 8, .k = 8, .r = 1, .s = 1, .stride = 2},
    {.c = 2, .h = 3, .w = 30, .k = 1, .r = 3, .s = 29}, // a window wider than a tile
    {.c = 6, .h = 5, .w = 7, .k = 4, .r = 3, .s = 3, .padding = 1, .groups = 2},
    {.c = 26, .h = 4, .w = 5, .k = 39, .r = 2, .s = 1, .stride = 2, .padding = 1, .groups = 13},
    {.c = 5, .h = 9, .w = 17, .k = 5, .r = 3, .s = 3, .padding = 1, .groups = 5},
    {.c = 3, .h = 8, .w = 19, .k = 6, .r = 3, .s = 3, .stride = 2, .padding = 1, .groups = 3},
};

TEST(Conv2d, EdgeShapes) {
    for (const Conv &q : conv_shapes) {
        SCOPED_TRACE(q.name());
        check_forward(q, {}, 1, true);
    }
}

TEST(Conv2d, GradientEdgeShapes) {
    for (const Conv &q : conv_shapes) {
        SCOPED_TRACE(q.name());
        check_gradients(q, {}, 1);
    }
}

TEST(Conv2d, WidthsAndTargets) {
    const Conv q{.c = 3, .h = 7, .w = 9, .k = 5, .r = 3, .s = 3, .stride = 2, .padding = 1};
    for (const Machine &m : machines()) {
        SCOPED_TRACE(m.target + " " + std::to_string(m.lanes));
        check_forward(q, m, 2, false);
        check_gradients(q, m, 2);
        const Conv grouped{.c = 6, .h = 7, .w = 9, .k = 10, .r = 3, .s = 3, .stride = 2, .padding = 1, .groups = 2};
        check_forward(grouped, m, 2, true);
        check_gradients(grouped, m, 2);
    }
}

TEST(Conv2d, WindowMustFit) {
    const Conv q{.c = 1, .h = 4, .w = 4, .k = 1, .r = 5, .s = 5};
    EXPECT_THROW(LoadedKernel("conv2d", q.parameters(8, 1)), Halide::CompileError);
    const Conv odd{.c = 4, .h = 4, .w = 4, .k = 3, .r = 1, .s = 1, .groups = 2};
    EXPECT_THROW(LoadedKernel("conv2d", odd.parameters(8, 1)), Halide::CompileError);
}

} // namespace
} // namespace cryolite::testing
