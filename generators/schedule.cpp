// Tiles are chosen by counting: what is computed twice, then loads per multiply-add.
#include "schedule.h"

#include <algorithm>

namespace cryolite {

static int covered(int n, int tile) { return (n + tile - 1) / tile * tile; }

int tile_extent(int n, int most) {
    int best = 1;
    for (int tile = 1; tile <= std::min(n, most); tile++)
        if (long(covered(n, tile)) * best <= long(covered(n, best)) * best || covered(n, tile) <= covered(n, best))
            best = tile;
    return best;
}

Tile register_tile(int pixels, int channels, int accumulators) {
    Tile best{1, 1};
    double best_cost = 1e30;
    for (int x = 1; x <= std::min(pixels, accumulators); x++)
        for (int c = 1; c <= std::min(channels, accumulators / x); c++) {
            double computed = double(covered(pixels, x)) * covered(channels, c);
            // Multiply-adds take half a cycle each, loads too; fewer than 8 chains wait for each other.
            double cost = computed * (1 + double(x + c) / (x * c)) * (x * c < 8 ? 8.0 / (x * c) : 1);
            if (cost < best_cost - 1e-9 * best_cost) {
                best_cost = cost;
                best = {x, c};
            }
        }
    return best;
}

int linear_grad_weight_tile(int, int k) {
    for (int tile = std::min(k, 32); tile >= 8; tile--)
        if (k % tile == 0) return tile;
    return k;
}

} // namespace cryolite
