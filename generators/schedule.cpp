// The model behind the tiles of the heavy kernels (schedule.h).
#include "schedule.h"

#include <algorithm>
#include <numeric>

namespace cryolite {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

int largest_divisor(int n, int at_most) {
    for (int d = std::min(n, at_most); d > 1; d--)
        if (n % d == 0) return d;
    return 1;
}

int vector_width(int extent, int lanes) {
    if (extent < 4) return extent;
    int width = 4;
    while (width * 2 <= std::min(extent, lanes)) width *= 2;
    return width;
}

int Registers::accumulators() const { return std::max(1, (count >= 32 ? 24 : 12) / per_value); }

double tile_cost(const TileQuery &q, Tile tile) {
    double fmas = tile.x * tile.c;
    // Two multiply-adds a cycle, but four cycles until an accumulator can be added to again; hardly two loads a cycle:
    // where every multiply-add loads a value of its own, loads are what is waited for. Zen 5, AVX-512: the weight
    // gradient 160 -> 960 of 9 pixels takes 1.3 times as long in tiles of 1x24 as of 2x12, the input gradient of 3x3 of
    // stride 2 256 @ 14 1.3 times in 14x1 as in 2x8. AVX2: 3x3 512 -> 512 @ 7 1.28 times in 1x12 as in 2x6.
    const double loads_a_cycle = 1.7;
    double step =
        std::max({fmas / 2, 4.0, (tile.x + tile.c) / loads_a_cycle}) + 0.25 + q.x_cycles * tile.x + q.c_cycles * tile.c;
    double once = 4 + 1.5 * fmas; // loop control, initialization, store
    double tiles = double(ceil_div(q.x, tile.x)) * ceil_div(q.c, tile.c);
    return tiles * (step * q.steps + once) / (double(q.x) * q.c * q.steps);
}

Tile best_tile(const TileQuery &q, int accumulators) {
    Tile best;
    double best_cost = 0;
    for (int x = 1; x <= std::min({q.x, accumulators, q.most_x}); x++) {
        if (x % q.multiple_of_x != 0 && x != q.x) continue;
        for (int c = 1; c <= std::min({q.c, accumulators / x, q.most_c}); c++) {
            double cost = tile_cost(q, {x, c});
            if (best_cost == 0 || cost < best_cost) best = {x, c}, best_cost = cost;
        }
    }
    return best;
}

Tile chosen_tile(const TileQuery &q, Tile wanted, int accumulators) {
    if (wanted.x == 0 && wanted.c == 0) return best_tile(q, accumulators);
    int x = std::max(wanted.x, 1), c = std::max(wanted.c, 1);
    x = std::min(q.x, ceil_div(x, q.multiple_of_x) * q.multiple_of_x);
    return {x, std::min({q.c, c, q.most_c})};
}

int cached_streams(long stride) {
    const long way = 4096, line = 64;
    long sets = way / std::gcd(way, std::max(stride, line));
    return int(std::min(8 * sets, 1L << 20));
}

TileQuery linear_weight_query(int vectors, int rows) {
    return {.x = vectors, .c = rows, .steps = 256, .x_cycles = 0.5, .c_cycles = 0.2};
}

LinearWeightTile linear_grad_weight_tile(int64_t c, int64_t k, int64_t lanes) {
    const int64_t worth_a_task = 4096; // weights; with 256 samples about 20 us
    if (c % lanes != 0) {              // every task turns all of x
        const int64_t enough = 16;
        for (int64_t outputs = enough; outputs < k; outputs++)
            if (k % outputs == 0 && c * outputs >= worth_a_task) return {c, outputs};
        return {c, k};
    }
    // Of weights that no cache holds rows lie in pages of their own: a task writes four lines of each, which for
    // 4096 -> 4096 takes 0.75 of the time of one line (AVX2).
    const int64_t least = 4 * c * k > 1 << 20 ? 64 : lanes;
    const int vectors = int(c / lanes), accumulators = lanes < 16 ? 12 : 24;
    auto cost = [&](int of_task) {
        const TileQuery q = linear_weight_query(of_task, int(k));
        return tile_cost(q, best_tile(q, accumulators));
    };
    for (int of_task = 1; of_task < vectors; of_task++)
        if (vectors % of_task == 0 && of_task * lanes >= least && of_task * lanes * k >= worth_a_task &&
            cost(of_task) <= 1.1 * cost(vectors))
            return {of_task * lanes, k};
    return {c, k};
}

// Output channels of which a task reads its planes of dy, of all blocks, for every tile of input channels: they should
// stay in L2.
static int64_t outputs_in_l2(const ConvWeightQuery &q) {
    const int64_t l2_share = 256 << 10, tasks = 8;
    return std::min(l2_share / (4 * q.lanes * q.pixels * q.blocks), q.k / tasks);
}

bool many_weight_sums(const ConvWeightQuery &q) {
    // A partial sum is summed up over lanes, written, read and merged, which many terms pay for. 800 -> 128 @ 2 in
    // tiles is 2.5 times as fast as in partial sums, 96 -> 208 @ 6 of 3x3 1.7 times; partial sums of 128 -> 256 @ 16,
    // 3x3 of stride 2, are 1.8 times as fast as tiles (AVX2).
    int64_t few_sums = q.pixels >= 64 ? 16 << 20 : q.pixels * q.pixels << 10;
    // The only block's partial sum is the gradient, but for tiles of it the update is there in cache: resnet50's step
    // of 16 images 1.009x with a quarter of these; with more blocks 1.00x (Zen 5).
    if (q.blocks == 1) few_sums /= 4;
    return 4 * q.c * q.k * q.window * q.blocks >= few_sums && outputs_in_l2(q) >= 2;
}

int64_t conv2d_grad_weight_tile(const ConvWeightQuery &q) {
    const int64_t fit = outputs_in_l2(q);
    if (q.k % q.lanes == 0) // whole vectors, which may be turned (conv2d_turned.h)
        return q.lanes * largest_divisor(int(q.k / q.lanes), int(std::max<int64_t>(1, fit / q.lanes)));
    return largest_divisor(int(q.k), fit < 2 ? 8 : int(fit));
}

int64_t conv2d_grad_weight_inputs(const ConvWeightQuery &q) {
    const int64_t tasks = 8, most = 64, vectors = q.c / q.lanes;
    const int limit = int(std::clamp(vectors / tasks, int64_t(1), most / q.lanes));
    // Pairs of vectors make better register tiles than one.
    if (vectors % 2 == 0) return 2 * q.lanes * largest_divisor(int(vectors / 2), std::max(1, limit / 2));
    return q.lanes * largest_divisor(int(vectors), limit);
}

bool linear_in_tiles(int64_t c, int64_t k, bool forward) {
    const bool in_chunks = largest_divisor(int(c), 1024) >= 64 && largest_divisor(int(k), 32) >= 8;
    return 4 * c * k > (forward ? 128 << 10 : 4 << 20) && in_chunks;
}

int64_t linear_tile(int64_t c, int64_t k, bool forward) {
    // Forward a result is a row of c weights; backward it is a column, of which a row should hold whole cache lines.
    return forward ? largest_divisor(int(k), 64) : largest_divisor(int(c), 256);
}

} // namespace cryolite
