// A kernel alone: made by Halide's own add_halide_library from cryolite_generators, linked and run here.
#include "my_conv.h"

#include <HalideBuffer.h>
#include <cmath>
#include <gtest/gtest.h>
#include <random>

namespace {

// As in tests/CMakeLists.txt: 16 samples, 8 side by side, stride 2, padding 1.
constexpr int lanes = 8, blocks = 2, c = 5, h = 9, w = 11, k = 6, window = 3, stride = 2, padding = 1;
constexpr int ho = (h + 2 * padding - window) / stride + 1, wo = (w + 2 * padding - window) / stride + 1;

using Buffer = Halide::Runtime::Buffer<float>;

void fill(Buffer &buffer, std::mt19937 &random) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    buffer.for_each_value([&](float &value) { value = uniform(random); });
}

double expected(const Buffer &x, const Buffer &weight, const Buffer &bias, int lane, int xo, int yo, int ko, int b) {
    double sum = bias(ko);
    for (int ci = 0; ci < c; ci++)
        for (int r = 0; r < window; r++)
            for (int s = 0; s < window; s++) {
                int yi = yo * stride + r - padding, xi = xo * stride + s - padding;
                if (yi < 0 || yi >= h || xi < 0 || xi >= w) continue;
                sum += double(x(lane, xi, yi, ci, b)) * double(weight(s, r, ci, ko));
            }
    return sum;
}

TEST(KernelLibrary, ConvolutionFromAddHalideLibrary) {
    std::mt19937 random(1);
    Buffer x(lanes, w, h, c, blocks), weight(window, window, c, k), bias(k), y(lanes, wo, ho, k, blocks);
    fill(x, random);
    fill(weight, random);
    fill(bias, random);
    y.fill(NAN);
    ASSERT_EQ(my_conv(x, weight, bias, y), 0);
    y.for_each_element([&](int lane, int xo, int yo, int ko, int b) {
        ASSERT_NEAR(y(lane, xo, yo, ko, b), expected(x, weight, bias, lane, xo, yo, ko, b), 1e-5)
            << lane << " " << xo << " " << yo << " " << ko << " " << b;
    });
}

} // namespace
