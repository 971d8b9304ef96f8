// Points, matrices and tiles of Winograd convolutions (winograd.h).
#include "winograd.h"

#include "schedule.h"

#include <algorithm>

namespace cryolite {

std::vector<double> winograd_points(int t) {
    switch (t) {
    case 4:
        return {0, 1, -1};
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

WinogradConv::Schedule WinogradConv::schedule() const {
    const int accumulators = lanes >= 16 ? 24 : 12;
    const int most_channels = 48; // in a channel block
    Schedule s;
    const Tile tile = best_tile({.x = tiles(), .c = k, .steps = c, .x_cycles = 0.1, .c_cycles = 0.05}, accumulators);
    s.tile_x = tile.x;
    s.tile_k = tile.c;
    s.group = tile.x;
    const int all = ceil_div(k, s.tile_k);
    s.channel_blocks = ceil_div(all, std::max(1, most_channels / s.tile_k));
    s.channel_tiles = ceil_div(all, s.channel_blocks);
    return s;
}

long WinogradConv::scratch_elements() const {
    const Schedule s = schedule();
    // A row more, so that the points of a tile do not all fall into the same sets of the caches.
    const long row = long(lanes) * s.group;
    return long(points()) * row * (c + 1 + s.tile_k * s.channel_tiles + 1);
}

WinogradGradWeight winograd_grad_weight(const WinogradConv &conv, int columns) {
    WinogradGradWeight s;
    const bool wide = conv.lanes >= 16;
    s.tile_c = std::min(wide ? 8 : 4, conv.c);
    s.tile_k = std::min(3, columns);
    s.group = 16;
    s.padded_c = ceil_div(conv.c, s.tile_c) * s.tile_c;
    s.padded_k = ceil_div(columns, s.tile_k) * s.tile_k;
    const long side = long(conv.points()) * conv.lanes * s.group;
    s.scratch_elements = side * (s.padded_c + 1 + s.padded_k + 1) + long(conv.points()) * s.padded_c * s.padded_k;
    return s;
}

int winograd_grad_weight_tile(int k) { return largest_divisor(k, 32) >= 8 ? largest_divisor(k, 32) : k; }

int fastest_winograd(WinogradConv conv, WinogradUse, bool) {
    if (conv.r != 3 || conv.c < 16 || conv.k < 16 || conv.ho() < 4 || conv.wo() < 4) return 0;
    return 4;
}

} // namespace cryolite
