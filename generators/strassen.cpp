#include "strassen.h"

#include "schedule.h"

namespace cryolite {

const StrassenMatrices strassen_matrices = {
    .weight = {{{1, 0, 0, 1}, {0, 0, 1, 1}, {1, 0, 0, 0}, {0, 0, 0, 1}, {1, 1, 0, 0}, {-1, 0, 1, 0}, {0, 1, 0, -1}}},
    .input = {{{1, 0, 0, 1}, {1, 0, 0, 0}, {0, 1, 0, -1}, {-1, 0, 1, 0}, {0, 0, 0, 1}, {1, 1, 0, 0}, {0, 0, 1, 1}}},
    .output = {{{1, 0, 0, 1, -1, 0, 1}, {0, 0, 1, 0, 1, 0, 0}, {0, 1, 0, 1, 0, 0, 0}, {1, -1, 1, 0, 0, 1, 0}}},
};

int StrassenConv::pixel_tiles() const { return ceil_div(pixels - has_single_pixel(), 2 * tile_x()); }
int StrassenConv::channel_tiles() const { return ceil_div(k / 2, tile_k()); }

// Calibrated on the Zen 5 (AVX-512, values in the caches): a product's loop costs 25 cycles beside its multiply-adds, a
// tile's result and a channel of x about a cycle for each vector that is stored on the way.
double strassen_cycles(const StrassenConv &q) {
    const double sums = q.tile_x() * q.tile_k(), half = q.c / 2.0;
    const double products = strassen_products * (half * sums / 2 + 25);
    const double results = sums * (strassen_products + 4) * 0.8, sides = half * q.tile_x() * strassen_products * 2;
    // Four products for a pixel and a pair of channels.
    const double single = q.has_single_pixel() ? half * q.tile_k() * 4 / 2 + 25 + 2 * q.tile_k() * 0.8 : 0;
    return q.pixel_tiles() * (q.channel_tiles() * (products + results) + sides) + q.channel_tiles() * single;
}
double direct_product_cycles(const StrassenConv &q) { return double(q.c) * q.k * q.pixels / 2 / 0.97; }
double strassen_weight_cycles(const StrassenConv &q) {
    const double bytes = 4.0 * (double(q.c) * q.k + double(q.weight_elements()));
    return bytes / 4; // of memory, a cycle; 256 -> 1024 in resnet50's step: 3.4, flipped 2.5
}

} // namespace cryolite
