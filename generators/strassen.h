// Strassen's product of matrices for convolutions of one pixel: what compiler and generators must agree on, from shapes
// alone. No Halide here.
//
// Halves of the output channels, of the input channels and of a tile's pixels make quadrants of the weight, of x and of
// y (11, 12, 21, 22). Seven products of sums of quadrants, each half as long in all three extents, make the four of y
// that take eight products as they are: V. Strassen, Gaussian Elimination is not Optimal (1969). The error is 1.4
// to 1.6 times direct convolution's, whatever the extent (root mean square, both against float64:
// tests/strassen_test.cpp).
#pragma once

#include <array>

namespace cryolite {

constexpr int strassen_products = 7;

struct StrassenMatrices {
    std::array<std::array<int, 4>, strassen_products> weight, input; // 0, 1, -1: what is summed up of the quadrants
    std::array<std::array<int, strassen_products>, 4> output;        // and of the products
};
extern const StrassenMatrices strassen_matrices;

// One convolution for one block, of `pixels` in a row.
struct StrassenConv {
    int lanes = 8, c = 2, k = 2, pixels = 2;

    // A register tile makes one product for tile_x pixels and tile_k output channels; both halves of the pixels are a
    // pixel tile. Those that do not divide overlap, but a single pixel behind them is made alone, by direct products
    // with quadrants of the weight that its sums give; channels that fill the last tile up repeat the last one.
    int tile_x() const { return 2; }
    int tile_k() const { return lanes >= 16 ? 8 : 6; }
    bool has_single_pixel() const { return pixels % (2 * tile_x()) == 1; }
    int pixel_tiles() const;   // without the single pixel
    int channel_tiles() const; // of one half of the output channels
    bool has_quadrants() const { return c % 2 == 0 && k % 2 == 0; }
    bool possible() const { return has_quadrants() && pixels >= 2 * tile_x(); }

    // Floats of the transformed weight, (tile_k, c / 2, products, channel tiles).
    long weight_elements() const { return long(tile_k()) * (c / 2) * strassen_products * channel_tiles(); }
    long scratch_elements() const {
        return long(lanes) * tile_x() * (c / 2) * strassen_products;
    } // floats, of one call
};

// Modelled cycles of one block, and of the direct convolution; of making the transformed weight.
double strassen_cycles(const StrassenConv &conv);
double direct_product_cycles(const StrassenConv &conv);
double strassen_weight_cycles(const StrassenConv &conv);

} // namespace cryolite
