// Winograd convolutions F(m x m, r x r): what compiler and generators must agree on, from shapes alone. No Halide here.
//
// An output tile of m x m pixels comes from an input tile of t x t, t = m + r - 1, by t * t products a channel instead
// of m * m * r * r:  y = A^T [ (G w G^T) . (B^T x B) ] A.  The matrices follow from t - 1 points (Toom-Cook) and
// infinity. Transposed, a tile of m x m pixels is spread over t x t results:  y = B [ (G w G^T) . (A x A^T) ] B^T.
#pragma once

#include <vector>

namespace cryolite {

using Matrix = std::vector<std::vector<double>>; // rows

struct WinogradMatrices {
    Matrix output; // A^T, m x t
    Matrix weight; // G, t x r
    Matrix input;  // B^T, t x t
};

// The points of F(m, r), without infinity; empty where there are none of stated error. They depend on t alone.
std::vector<double> winograd_points(int t);
WinogradMatrices winograd_matrices(int m, int r);

// One convolution of stride 1 by F(m x m, r x r) for one block: shapes, tiles, and the sizes of what the compiler
// stores for it.
struct WinogradConv {
    int lanes = 8, c = 1, h = 1, w = 1, k = 1, r = 3, padding = 0, m = 4;
    // Transposed: tiles are of x, and what they are spread over is summed. Fewer tiles where x is smaller than y.
    bool spread = false;

    int t() const { return m + r - 1; }
    int points() const { return t() * t(); }
    int ho() const { return h + 2 * padding - r + 1; }
    int wo() const { return w + 2 * padding - r + 1; }
    int tiles_x() const { return ((spread ? w : wo()) + m - 1) / m; }
    int tiles_y() const { return ((spread ? h : ho()) + m - 1) / m; }
    int tiles() const { return tiles_x() * tiles_y(); }
    // Along one side a tile's `reads` pixels of x, from `read_from` before the tile's own first pixel on, become t
    // points, and these `writes` pixels of y.
    int reads() const { return spread ? m : t(); }
    int writes() const { return spread ? t() : m; }
    int read_from() const { return spread ? 0 : -padding; }
    int write_from() const { return spread ? padding - (r - 1) : 0; }
    Matrix read_matrix() const;  // t x reads
    Matrix write_matrix() const; // writes x t
    // Whether column (row) i of what some tile reads lies outside of the image.
    bool leaves_x(int i) const { return i + read_from() < 0 || (tiles_x() - 1) * m + i + read_from() >= w; }
    bool leaves_y(int i) const { return i + read_from() < 0 || (tiles_y() - 1) * m + i + read_from() >= h; }
    // Whether the last tile's results would end outside of y.
    bool exceeds_x() const { return (tiles_x() - 1) * m + write_from() + writes() > wo(); }
    bool exceeds_y() const { return (tiles_y() - 1) * m + write_from() + writes() > ho(); }

    // Tiles are transformed and multiplied in groups, by register tiles of `tile_x` tiles by `tile_k` output channels;
    // `channel_tiles` of the latter make a channel block, whose products wait in the scratch for the output transform.
    struct Schedule {
        int tile_x = 1, tile_k = 1, group = 1, channel_tiles = 1, channel_blocks = 1;
        int stored_c = 1,
            stored_channel_tiles = 1; // with room between points, so that they share no sets of the caches
        int u_c = 1;                  // of the transformed weight, for the same reason; the last one repeats
        int padded_k() const { return tile_k * channel_tiles * channel_blocks; }
    };
    Schedule schedule() const;

    // Floats of the transformed weight: (tile_k * u_c, channel_tiles, points, channel_blocks), in reading order.
    long weight_elements() const { return long(points()) * schedule().u_c * schedule().padded_k(); }
    long scratch_elements() const; // floats, of one call
};

// The weight gradient over all blocks of a task, whose channels c and k are: the same input transform, and F(r, m)'s
// for dy. Chunks of input channels pass over all tiles, one chunk after another; the sum of a group's products runs
// over lanes and tiles. Register tiles are `vectors` of input channels by tile_k output channels.
struct WinogradGradWeight {
    int vector = 1, vectors = 1, tile_k = 1; // vector: input channels of one
    int group = 1, chunk = 1, padded_k = 1;  // chunk: input channels, whole register tiles
    int chunks(int c) const { return (c + chunk - 1) / chunk; }
    long scratch_elements = 0;
};
WinogradGradWeight winograd_grad_weight(const WinogradConv &task);
// One of the tasks that a layer is cut into, all alike: some of its output channels, or of its input channels.
WinogradConv winograd_grad_weight_task(const WinogradConv &conv);

// The input gradient is a forward convolution, or one that spreads.
enum class WinogradUse { forward, spread, grad_weight };

// Error of F(m, r) as a multiple of direct convolution's (root mean square, both against float64): the largest over
// the lanes and channel counts of schedules/winograd_error.inc. 0: not measured.
double winograd_error(int m, int r, WinogradUse use);

// The tiles m that F(m, r) is accurate enough with: of any stated error, or within winograd_error_limit.
std::vector<int> winograd_tiles(int r, WinogradUse use, bool any_error);

// The tile m that a convolution of these shapes (m is ignored) is fastest with when a batch has `blocks` blocks, 0
// where direct convolution is. Unless `any_error`, only tiles whose error is within winograd_error_limit.
int fastest_winograd(WinogradConv conv, WinogradUse use, int blocks, bool any_error);
// Modelled cycles of one block with the tile it has.
double winograd_cycles(const WinogradConv &conv, WinogradUse use, int blocks);
constexpr double winograd_error_limit = 4;

} // namespace cryolite
