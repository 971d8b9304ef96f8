// Tile sizes of the heavy kernels, from shapes alone. No Halide here: the compiler asks for the same numbers.
// A schedule's accumulators must all stay in vector registers; tiles are chosen by a small model of one core that does
// two vector multiply-adds and two loads a cycle, with a latency of four.
#pragma once

#include <cstdint>

namespace cryolite {

struct Registers {
    int count = 32;           // vector registers of the target
    int per_value = 1;        // registers that hold one value of `lanes` samples
    int accumulators() const; // values that may be accumulated at once without spills, at least 1
};

// A block of accumulators: x positions (pixels, blocks, vectors) that share c weights.
struct Tile {
    int x = 1, c = 1;
};

struct TileQuery {
    int x, c;                               // extents to cover. Tiles need not divide them
    int steps;                              // multiply-adds per accumulator, which pay for its initialization and store
    int most_x = 1 << 30, most_c = 1 << 30; // upper limits of Tile
    int multiple_of_x = 1;                  // Tile::x is a multiple of it, or the whole extent
    // Extra cycles a step for each x and c of the tile: registers that values wait in, loads from beyond L1.
    double x_cycles = 0.02, c_cycles = 0.04;
};

// The tile with the least modelled time. At least 1 x 1, at most the extents.
Tile best_tile(const TileQuery &query, int accumulators);

// The tile that the generator parameters tile_x and tile_c ask for, cut to what the query allows but not to the
// registers; 0 and 0: the best one.
Tile chosen_tile(const TileQuery &query, Tile wanted, int accumulators);

// Modelled cycles per useful multiply-add of one vector, for a given tile; 0.5 is the peak.
double tile_cost(const TileQuery &query, Tile tile);

// Streams `stride` bytes apart that an L1 cache of 8 ways and 4 KiB a way can hold at once.
int cached_streams(long stride);

// Register tiles of linear_grad_weight: vectors of input channels by rows of output channels, over many samples.
TileQuery linear_weight_query(int vectors, int rows);

// Channels that make one task of linear_grad_weight, c -> k: input channels in whole vectors if there are such, so that
// each is turned once, else output channels. Divisors of c and of k, large enough to keep the registers busy and to be
// worth a task, small enough to give several tasks.
struct LinearWeightTile {
    int64_t inputs, outputs;
};
LinearWeightTile linear_grad_weight_tile(int64_t c, int64_t k, int64_t lanes);

// Whether a linear layer c -> k, or its input gradient, should read its weights once a batch and not once a block: they
// are larger than what a core's caches hold, and both extents divide into chunks. Forward 128 KiB are enough: with
// several blocks to a weight 784 -> 256 is 1.6 times as fast (AVX2, Zen 3).
bool linear_in_tiles(int64_t c, int64_t k, bool forward);
// Results of one task then, a divisor of k, or of c for the gradient.
int64_t linear_tile(int64_t c, int64_t k, bool forward);

// Convolutions of one pixel: what `pack` copies for a tile of pixels, all channels of them, so that they lie side by
// side while all results pass. Their channels are planes apart in the source, each in another page.
constexpr int most_packed_pixels = 8;
inline int64_t packed_elements(int64_t lanes, int64_t channels) { return lanes * most_packed_pixels * channels; }
// Whether there are results enough to pay for the copy. AVX2, Zen 3: 192 -> 16 @ 12 took 1.4 times as long with it,
// 96 -> 24 @ 24 takes as long or less. With 16 lanes, Zen 4, what is prefetched is soon read: 144 -> 24 @ 24 takes 1.3
// times as long with the copy, 256 -> 64 @ 28 1.06 times, 512 -> 128 @ 14 as long, 64 -> 256 @ 28 0.8.
inline bool worth_packing(int64_t results, int64_t lanes) { return results >= (lanes >= 16 ? 96 : 24); }

// Weight gradients of convolutions of one group.
struct ConvWeightQuery {
    int64_t c, k, window, pixels; // window: r * s; pixels of one output channel
    int64_t lanes, blocks;
};
// Whether partial sums for each block would be too many: conv2d_grad_weight_tiles is better.
bool many_weight_sums(const ConvWeightQuery &query);
// Channels that make one task of it: output channels, a divisor of k; or input channels, a divisor of c in whole
// vectors, of which there must be one.
int64_t conv2d_grad_weight_tile(const ConvWeightQuery &query);
int64_t conv2d_grad_weight_inputs(const ConvWeightQuery &query);

// Width of the vectors along a dense dimension: at most `lanes`, a power of two, or all of an extent below 4.
int vector_width(int extent, int lanes);

int largest_divisor(int n, int at_most);
int ceil_div(int a, int b);

} // namespace cryolite
