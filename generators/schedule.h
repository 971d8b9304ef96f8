// What schedules share: lanes, tiles that fit the registers, dense buffers.
#ifndef CRYOLITE_SCHEDULE_H
#define CRYOLITE_SCHEDULE_H

namespace cryolite {

// Output features per task of linear_grad_weight; divides k.
int linear_grad_weight_tile(int c, int k);

// The extent of a tile along n, at most `most`, that wastes least when the last tile is shifted back to fit, and of
// those the largest.
int tile_extent(int n, int most);

// Pixels times channels that one tile accumulates in registers.
struct Tile {
    int pixels, channels;
};
Tile register_tile(int pixels, int channels, int accumulators);

} // namespace cryolite
#endif
