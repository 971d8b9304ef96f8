// Tiles and tasks of convolutions of one sample.
#include "channels_schedule.h"

#include "schedule.h"

#include <algorithm>
#include <sstream>

namespace cryolite {

namespace {

// Splitting a layer over two threads costs about 0.3 us; a task of 100 kFLOP takes 1 us.
constexpr double worth_splitting = 50e3, worth_a_task = 100e3;
constexpr int most_tasks = 8;

// Tasks that n pieces are put into, a divisor of n: an even number if there is one, which two threads share evenly;
// from `wanted` to twice as many, else fewer, else (an odd n) any.
int tasks_of(int n, int wanted) {
    int fewer = 1, odd = n;
    for (int tasks = 2; tasks <= std::min(n, 2 * wanted); tasks++) {
        if (n % tasks) continue;
        if (tasks % 2) {
            if (tasks >= wanted) odd = std::min(odd, tasks);
        } else {
            if (tasks >= wanted) return tasks;
            fewer = tasks;
        }
    }
    return fewer > 1 ? fewer : odd;
}

// Bytes a cycle from the cache that holds a block's weights, on Zen 3: L1 63, L2 31, L3 17.
double weight_rate(double bytes) { return bytes <= 16e3 ? 63 : bytes <= 384e3 ? 31 : 17; }

// Input channels of a chunk of weights, 0 where chunks gain nothing or make sums that L1 does not hold.
int chunk_of(const ChannelsConv &q, const ChannelsConv::Schedule &s) {
    const int share = 16 * 1024, block = s.block(q); // of L1
    if (q.groups > 1 || s.channels % block || 4 * block * q.steps() <= share || 4 * block * q.pixels(s) > share)
        return 0;
    const int chunk = largest_divisor(q.c, share / (4 * block));
    return chunk >= 32 || chunk == q.c ? chunk : 0;
}

int registers_of(const ChannelsConv &q) { return q.vector >= 16 ? 32 : 16; }

// Vectors that a step of a depthwise tile loads: each pixel once, where a row of them and of weights stays in registers
// beside the sums of one vector of channels; else one for every multiply-add, which then waits for it now and then.
// mobilenet_v2's depthwise layers take 0.62 of the time of tiles of three vectors by 8 pixels (Zen 5).
double depthwise_loads(const ChannelsConv &q, const ChannelsConv::Schedule &s) {
    const int columns = (s.tile_x * q.pool - 1) * q.stride + q.s, rows = (s.tile_y * q.pool - 1) * q.stride + q.r;
    const int sums = s.tile_x * s.tile_y * q.pool * q.pool;
    const bool stay = s.vectors == 1 && sums + columns + q.s <= registers_of(q);
    return s.vectors * (1 + (stay ? double(columns * rows) / q.steps() : 1.25 * sums));
}

double cycles(const ChannelsConv &q, const ChannelsConv::Schedule &s) {
    if (s.chunk) {
        const double fmas = s.vectors * s.tile_x, tiles = ceil_div(q.pixels(s), s.tile_x);
        const double step = std::max({fmas / 2, 4.0, (s.vectors + s.tile_x) / 2.0});
        return s.blocks(q) * tiles * (step * q.steps() + (4 + 1.5 * fmas) * (q.steps() / s.chunk));
    }
    const double pixels = double(s.tile_x) * s.tile_y * q.pool * q.pool, fmas = pixels * s.vectors;
    const double loads = q.depthwise() ? depthwise_loads(q, s) : pixels + s.vectors;
    const double passes = double(ceil_div(q.wo, s.tile_x)) * ceil_div(s.rows, s.tile_y), tiles = passes * s.blocks(q);
    const double bytes = 4.0 * s.block(q); // of weights a step; all passes but the first find them in a cache
    const double wait = passes > 1 ? bytes / weight_rate(bytes * q.steps()) : 0;
    const double step =
        std::max({fmas / 2, 4.0, loads / 2, wait}) + 0.25 + (q.depthwise() ? 0 : 0.1 * pixels); // broadcasts
    return tiles * (step * q.steps() + 4 + 1.5 * fmas);
}

} // namespace

// Winograd: tiles of pixels take the place of pixels, and a task does well to have many, since it reads all weights.
static ChannelsConv::Schedule winograd_schedule(const ChannelsConv &q) {
    const int across = q.tiles_x(), down = q.tiles_y(q.ho), points = q.t() * q.t();
    const double flops = 2.0 * q.k * q.c * points * across * down;
    ChannelsConv::Schedule s{q.ho, q.k, 1, 1, 1};
    if (flops > worth_splitting) {
        const int tasks = std::clamp(int(flops / (2 * worth_a_task)), 2, 4);
        const int channels = q.k / tasks_of(q.k / q.vector, tasks);
        const int rows = q.ho % q.m ? q.ho : q.ho / tasks_of(down, tasks); // of whole tiles
        const long weights = long(q.k) * q.c * points, input = long(q.c) * across * down * points;
        if (channels < q.k && (rows == q.ho || weights > 2 * input))
            s.channels = channels;
        else
            s.rows = rows;
    }
    const int accumulators = Registers{registers_of(q)}.accumulators();
    const int tiles = across * q.tiles_y(s.rows), vectors = s.channels / q.vector;
    const double fmas = q.vector >= 16 ? 1 : 2; // a cycle
    double least = 0;
    const ChannelsConv::Schedule task = s;
    for (int v = 1; v <= std::min(vectors, 4); v++)
        for (int n = 1; n <= std::min(tiles, accumulators / v); n++) {
            if (vectors % v || tiles % n) continue;
            // All passes but the first find a block's weights in a cache, and its reads are in the way of those ahead:
            // 256 -> 256 @ 7 in tiles of 2 x 8 instead of 4 x 4 takes 0.84 of the time (Zen 4).
            const double bytes = 4.0 * v * q.vector, again = (1 - double(n) / tiles) * bytes / weight_rate(bytes * q.c);
            const double step = std::max({v * n / fmas, 4.0, (v + n) / 2.0}) + again / 4 + 0.25 + 0.1 * n;
            const double cost = step / (v * n);
            if (least == 0 || cost < least) least = cost, s = {task.rows, task.channels, v, n, 1};
        }
    return s;
}

// By multiply-adds at 90 GFLOP/s, or weights that no cache of a core holds at 20 GB/s: they come meanwhile.
int ChannelsConv::best_m() const {
    if (r != 3 || s != 3 || stride != 1 || groups != 1 || pool != 1 || c % vector || k % vector || c < 16) return 0;
    auto seconds = [&](double flops, double weights) {
        return std::max(flops / 90e9, weights * 4 > 256e3 ? weights * 4 / 20e9 : 0);
    };
    double least = seconds(18.0 * c * k * ho * wo, 9.0 * c * k) / 1.2; // transforms
    int best = 0;
    for (int size : {4, 2}) {
        const double points = (size + 2) * (size + 2), tiles = double(ceil_div(ho, size)) * ceil_div(wo, size);
        // Fewer tiles than accumulators wait for each other.
        const double busy = std::max(tiles, 2.0) / tiles;
        const double time = seconds(2 * c * k * points * tiles * busy, points * c * k);
        if (time < least) least = time, best = size;
    }
    return best;
}

// Whether threads should have the same rows as in the layers around, though channels would be less to read: a layer of
// 1x1 windows reads all channels of its pixels, which then come from the thread's own cache and not from others'. As
// few tasks as keep all threads busy, for each reads all weights. mobilenet_v2, two threads: 1.2x on cores that share
// no cache, 1.03x where they do (Zen 4).
static bool keeps_rows(const ChannelsConv &q) {
    const bool pointwise = q.groups == 1 && q.r == 1 && q.s == 1 && 4L * q.k * q.c <= 512 * 1024;
    return (q.depthwise() || pointwise) && q.ho % 2 == 0 && q.ho >= 4;
}

// Tasks are rows, or channels where each task then reads less: small images of many channels.
ChannelsConv::Schedule ChannelsConv::schedule() const {
    if (m) return winograd_schedule(*this);
    // A depthwise layer loads about as much as it multiplies.
    const double flops = (depthwise() ? 6.0 : 2.0) * k * steps() * ho * wo * pool * pool;
    Schedule best{ho, k, 1, 1, 1};
    if (flops > worth_splitting) {
        const int tasks = std::clamp(int(flops / worth_a_task), 2, most_tasks);
        const bool dense = groups == 1 || depthwise();
        // Two vectors at least: whole cache lines, and weights for which a pixel is loaded once.
        const int vectors = k / vector, most = vectors >= 4 ? std::min(tasks, vectors / 4) : tasks;
        const int rows = ho / tasks_of(ho, tasks);
        const int channels = dense && k % vector == 0 ? k / tasks_of(vectors, most) : k;
        const long weights = long(k) * steps(), image = long(c) * h * w;
        // Before a depthwise layer there is most often one of 1x1 windows that is split by this same rule, and its
        // threads have their channels, or their rows, in their caches.
        const bool less_read = depthwise() ? c > h * w : weights > image * (padding > 0 ? 4 : 1);
        if (less_read && keeps_rows(*this))
            best.rows = ho / tasks_of(ho, std::min(tasks, std::max(processors, 2)));
        else if (channels < k && (rows == ho || less_read))
            best.channels = channels;
        else
            best.rows = rows;
    }
    const int accumulators = Registers{registers_of(*this)}.accumulators(), vectors = ceil_div(best.channels, vector);
    const Schedule tasks = best;
    double least = 0;
    for (int v = 1; v <= std::min(vectors, accumulators); v++)
        for (int x = 1; x <= std::min(wo * tasks.rows, accumulators); x++)
            // Three rows of a depthwise layer of stride 2 at once: 96 @ 48 takes 1.5 times as long.
            for (int y = 1; y <= std::min(tasks.rows, depthwise() && stride > 1 ? 2 : 4); y++) {
                const int count = v * x * y * pool * pool;
                if (count > accumulators && !(v == 1 && x == 1 && y == 1)) continue;
                // Whole blocks need no guards.
                if (best.channels % vector == 0 && vectors % v && (vectors < 64 || best.channels < k)) continue;
                Schedule s{tasks.rows, tasks.channels, v, x, y};
                if (y == 1) s.chunk = chunk_of(*this, s);
                if (x > wo && !s.chunk) continue;
                const double cost = cycles(*this, s);
                if (least == 0 || cost < least) least = cost, best = s;
            }
    return best;
}

long ChannelsConv::scratch(const Schedule &s) const {
    if (m) return long(c + s.block(*this)) * stored_tiles(s) * t() * t();
    return copies(s) ? long(channels_copied(s)) * columns_read() * rows_read(s.rows) : 0;
}

std::string places_text(const std::vector<ChannelsPlace> &places) {
    std::ostringstream text;
    for (size_t i = 0; i < places.size(); i++)
        text << (i ? " " : "") << places[i].c << "," << places[i].x << "," << places[i].y;
    return text.str();
}

std::vector<ChannelsPlace> parse_places(const std::string &text) {
    std::vector<ChannelsPlace> places;
    std::istringstream in(text);
    ChannelsPlace place;
    char comma;
    while (in >> place.c >> comma >> place.x >> comma >> place.y) places.push_back(place);
    return places;
}

int channels_map_rows(int c, int h, int w) {
    const long worth = 8192; // elements; about 2 us
    const int tasks = int(std::min<long>(long(c) * h * w / worth, most_tasks));
    return tasks < 2 ? h : h / tasks_of(h, tasks);
}

} // namespace cryolite
