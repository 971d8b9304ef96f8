// Points, matrices and tiles of Winograd convolutions (winograd.h).
#include "winograd.h"

#include "schedule.h"

#include <algorithm>

namespace cryolite {

std::vector<double> winograd_points(int t) {
    switch (t) {
    case 4:
        return {0, 1, -1};
    case 5:
        return {0, 0.75, -0.75, 2};
    case 6:
        return {0, 0.75, -0.75, 1.5, -1.5};
    case 8:
        return {0, 0.5, -0.5, 1, -1, 2, -2};
    default:
        return {};
    }
}

// Coefficients of the product of (x - root), lowest power first.
static std::vector<double> polynomial(const std::vector<double> &roots) {
    std::vector<double> p{1};
    for (double root : roots) {
        p.insert(p.begin(), 0);
        for (size_t i = 0; i + 1 < p.size(); i++) p[i] -= root * p[i + 1];
    }
    return p;
}

WinogradMatrices winograd_matrices(int m, int r) {
    const int t = m + r - 1;
    const std::vector<double> points = winograd_points(t);
    WinogradMatrices w{Matrix(size_t(m), std::vector<double>(size_t(t), 0)),
                       Matrix(size_t(t), std::vector<double>(size_t(r), 0)),
                       Matrix(size_t(t), std::vector<double>(size_t(t), 0))};
    for (size_t j = 0; j < points.size(); j++) {
        std::vector<double> others;
        double scale = 1, power = 1;
        for (size_t i = 0; i < points.size(); i++)
            if (i != j) {
                others.push_back(points[i]);
                scale *= points[j] - points[i];
            }
        for (size_t i = 0; i < size_t(t); i++, power *= points[j]) {
            if (i < size_t(m)) w.output[i][j] = power;
            if (i < size_t(r)) w.weight[j][i] = power / scale;
        }
        const std::vector<double> p = polynomial(others);
        std::copy(p.begin(), p.end(), w.input[j].begin());
    }
    w.output.back().back() = 1;
    w.weight.back().back() = 1;
    const std::vector<double> p = polynomial(points);
    std::copy(p.begin(), p.end(), w.input.back().begin());
    return w;
}

// The window is turned round in u, as that of an input gradient is: so a tile that spreads is read, and written, from
// its other end.
Matrix WinogradConv::read_matrix() const {
    const WinogradMatrices matrices = winograd_matrices(m, r);
    if (!spread) return matrices.input;
    const size_t points = matrices.input.size(), pixels = matrices.output.size();
    Matrix result(points, std::vector<double>(pixels));
    for (size_t i = 0; i < points; i++)
        for (size_t j = 0; j < pixels; j++) result[i][j] = matrices.output[pixels - 1 - j][i];
    return result;
}
Matrix WinogradConv::write_matrix() const {
    const WinogradMatrices matrices = winograd_matrices(m, r);
    if (!spread) return matrices.output;
    const size_t n = matrices.input.size();
    Matrix result(n, std::vector<double>(n));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) result[i][j] = matrices.input[j][n - 1 - i];
    return result;
}

// Rows of `row_bytes` to store for n: one more where points would follow each other at a multiple of 2 KiB.
static int apart(int n, int row_bytes) { return n + (long(n) * row_bytes % 2048 == 0); }

WinogradConv::Schedule WinogradConv::schedule() const {
    const int accumulators = lanes >= 16 ? 24 : 12;
    const int most_channels = 48; // in a channel block
    Schedule s;
    const TileQuery query{.x = tiles(), .c = k, .steps = c, .x_cycles = 0.1, .c_cycles = 0.05};
    Tile tile = best_tile(query, accumulators);
    // Tiles that leave nothing over can be dealt out to tasks.
    if (k % tile.c) {
        TileQuery whole = query;
        whole.most_c = largest_divisor(k, tile.c);
        const Tile other = best_tile(whole, accumulators);
        if (k % other.c == 0 && tile_cost(query, other) < 1.1 * tile_cost(query, tile)) tile = other;
    }
    s.tile_x = tile.x;
    s.tile_k = tile.c;
    s.group = tile.x;
    const int all = ceil_div(k, s.tile_k);
    s.channel_blocks = ceil_div(all, std::max(1, most_channels / s.tile_k));
    for (int blocks = s.channel_blocks; blocks <= std::min(all, 2 * s.channel_blocks); blocks++)
        if (all % blocks == 0) {
            s.channel_blocks = blocks;
            break;
        }
    s.channel_tiles = ceil_div(all, s.channel_blocks);
    const int row = 4 * lanes * s.group; // bytes of one channel at one point
    s.stored_c = apart(c, row);
    s.stored_channel_tiles = apart(s.channel_tiles, row * s.tile_k);
    s.u_c = apart(c, 4 * s.tile_k * s.channel_tiles);
    return s;
}

long WinogradConv::scratch_elements() const {
    const Schedule s = schedule();
    return long(points()) * lanes * s.group * (s.stored_c + s.tile_k * s.stored_channel_tiles);
}

// A chunk's sums and both transformed sides of a group stay in L2, and its channels of a vector, of one tile, in L1.
// Longer chunks or groups were slower with either width of lanes.
WinogradGradWeight winograd_grad_weight(const WinogradConv &task) {
    const bool wide = task.lanes >= 16;
    WinogradGradWeight s;
    s.vector = task.lanes;
    s.group = std::max(1, 32 / task.lanes);
    const int all = ceil_div(task.c, s.vector), most = (wide ? 64 : 16) / s.vector,
              chunks = ceil_div(all, std::max(1, most));
    const int in_chunk = ceil_div(all, chunks);
    const Tile tile = best_tile({.x = in_chunk, .c = task.k, .steps = s.group * task.lanes}, wide ? 24 : 12);
    s.vectors = tile.x;
    s.tile_k = tile.c;
    s.chunk = ceil_div(in_chunk, tile.x) * tile.x * s.vector;
    s.padded_k = ceil_div(task.k, s.tile_k) * s.tile_k;
    const long side = long(task.points()) * task.lanes * s.group;
    s.scratch_elements =
        side * (s.chunk + s.padded_k + 1) + long(task.points()) * (s.chunk * s.padded_k + s.vector * task.lanes);
    return s;
}

// Channels whose tiles are transformed, for one tile of the image: each task does that for its own sides, and again for
// those of dy with every chunk.
static long sides(const WinogradConv &conv, const WinogradConv &task) {
    const long tasks = long(conv.c / task.c) * (conv.k / task.k);
    const WinogradGradWeight s = winograd_grad_weight(task);
    return tasks * s.chunks(task.c) * (s.chunk + task.k);
}

// Two tasks at least, where that leaves enough. Of few output channels a task does well to take all: densenet121's 128
// -> 32 @ 16 takes 0.74 of the time (AVX-512).
WinogradConv winograd_grad_weight_task(const WinogradConv &conv) {
    WinogradConv by_outputs = conv, by_inputs = conv;
    const int most = 64, least = 16;
    const int outputs = largest_divisor(conv.k, std::clamp(conv.k / 2, least, most));
    if (outputs >= 8) by_outputs.k = outputs;
    if (conv.k > most || conv.c % conv.lanes) return by_outputs;
    by_inputs.c =
        conv.lanes * largest_divisor(conv.c / conv.lanes, std::max(1, std::min(most, conv.c / 2) / conv.lanes));
    return sides(conv, by_inputs) < sides(conv, by_outputs) ? by_inputs : by_outputs;
}

// Multiply-adds of a vector that a core does in a cycle of the model, which is a unit of time in which it transforms a
// point of a tile at equal speed with either width of lanes.
static double multiply_adds(const WinogradConv &q) { return q.lanes >= 16 ? 1 : 2; }

// Modelled cycles of one block, calibrated on one core (bench/winograd_bench; AVX2: Zen 3, AVX-512: Zen 4): products
// run at 95% of the peak, a tile's transform of one channel takes 4.7 cycles a point (3.7 to 5.4 with AVX-512, more
// where a group's channels leave L1), weights come from the last cache or from memory.
static double forward_cycles(const WinogradConv &q, int blocks) {
    const WinogradConv::Schedule s = q.schedule();
    const int groups = ceil_div(q.tiles(), s.group);
    const double products = double(q.points()) * groups * s.group * q.c * s.padded_k() / multiply_adds(q) / 0.95;
    const double transforms = 4.7 * q.points() * q.tiles() * (q.c + q.k);
    const double bytes = 4.0 * double(q.weight_elements());
    const double compute = products + transforms, load = bytes * groups / (bytes < 16e6 ? 8 : 3.6);
    const double once = 1.2 * double(q.weight_elements()); // the weight's transform
    return std::max(compute, load) + 0.25 * std::min(compute, load) + once / blocks;
}

// Products of the weight gradient run at 80%. With 16 lanes tiles come from beyond L2, asked for ahead, and pass it
// transformed: a point takes 12 (t = 4) to 18 cycles (t = 6) with its transposition (Zen 4).
static double grad_weight_cycles(const WinogradConv &q, int blocks) {
    const WinogradConv task = winograd_grad_weight_task(q);
    const WinogradGradWeight s = winograd_grad_weight(task);
    const double tiles = double(ceil_div(blocks * q.tiles(), s.group)) * s.group / blocks; // of one block, with waste
    const double tasks = double(q.c / task.c) * (q.k / task.k), point = q.lanes >= 16 ? 3 * q.t() : 4.7;
    const double products = double(q.points()) * tiles * s.chunks(task.c) * s.chunk * s.padded_k * tasks;
    const double transforms = point * q.points() * tiles * double(sides(q, task));
    return products / multiply_adds(q) / 0.8 + transforms + 60.0 * q.c * q.k / blocks;
}

// Pairs of a result and a tap of its window that lies inside of the image, along one side.
static double taps(int extent, int results, int window, int padding) {
    double sum = 0;
    for (int i = 0; i < results; i++)
        sum += std::max(0, std::min(i - padding + window, extent) - std::max(i - padding, 0));
    return sum;
}

// The same of a direct convolution. Forward borders are peeled, and short rows fill tiles badly: 97% of the peak at 32
// pixels, 90% at 8, 79% at 4 with AVX-512, 63% at 4 with AVX2.
static double direct_cycles(const WinogradConv &q, WinogradUse use) {
    const double pairs = double(q.c) * q.k / multiply_adds(q);
    if (use == WinogradUse::grad_weight) return pairs * q.ho() * q.wo() * q.r * q.r / 0.7;
    const double share = 0.99 * q.wo() / (q.wo() + (q.lanes >= 16 ? 1 : 2));
    return pairs * taps(q.h, q.ho(), q.r, q.padding) * taps(q.w, q.wo(), q.r, q.padding) / share;
}

double winograd_error(int m, int r, WinogradUse use) {
    struct Row {
        int lanes, m, r;
        WinogradUse use;
        int channels;
        double direct, winograd;
    };
    static const Row rows[] = {
#include "schedules/winograd_error.inc"
    };
    double worst = 0;
    for (const Row &row : rows)
        if (row.m == m && row.r == r && row.use == use) worst = std::max(worst, row.winograd / row.direct);
    return worst;
}

std::vector<int> winograd_tiles(int r, WinogradUse use, bool any_error) {
    std::vector<int> tiles;
    for (int m : {2, 3, 4})
        if (double error = winograd_error(m, r, use); error > 0 && (error <= winograd_error_limit || any_error))
            tiles.push_back(m);
    return tiles;
}

double winograd_cycles(const WinogradConv &conv, WinogradUse use, int blocks) {
    return use == WinogradUse::grad_weight ? grad_weight_cycles(conv, blocks) : forward_cycles(conv, blocks);
}

int fastest_winograd(WinogradConv conv, WinogradUse use, int blocks, bool any_error) {
    const double worth = 0.87; // of direct convolution's time: the model is not exact
    double best = worth * direct_cycles(conv, use);
    int fastest = 0;
    for (int m : winograd_tiles(conv.r, use, any_error)) {
        conv.m = m;
        const double cycles = winograd_cycles(conv, use, blocks);
        if (cycles < best) best = cycles, fastest = m;
    }
    return fastest;
}

} // namespace cryolite
