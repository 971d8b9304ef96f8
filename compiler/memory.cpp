// First fit over time intervals.
#include "memory.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

namespace cryolite {

static int64_t round_up(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

static int64_t bytes_taken(const std::vector<Lifetime> &placed, int64_t alignment) {
    int64_t total = 0;
    for (const Lifetime &life : placed) total = std::max(total, life.offset + round_up(life.bytes, alignment));
    return total;
}

// Places the lifetimes in this order, clear of those that are placed; returns the bytes needed.
static int64_t place(std::vector<Lifetime> &lifetimes, const std::vector<size_t> &order, int64_t alignment,
                     std::vector<Lifetime> placed) {
    int64_t total = bytes_taken(placed, alignment);
    for (size_t i : order) {
        Lifetime &life = lifetimes[i];
        std::map<int64_t, int64_t> taken; // offset -> end, of the placed lifetimes that overlap in time
        for (const Lifetime &other : placed) {
            if (other.begin > life.end || life.begin > other.end) continue;
            int64_t &end = taken[other.offset];
            end = std::max(end, other.offset + round_up(other.bytes, alignment));
        }
        int64_t offset = 0;
        for (auto [begin, end] : taken) {
            if (offset + life.bytes <= begin) break;
            offset = std::max(offset, end);
        }
        life.offset = offset;
        total = std::max(total, offset + round_up(life.bytes, alignment));
        placed.push_back(life);
    }
    return total;
}

// Moves to the front what reaches highest: placed first, it lies at the bottom. Returns whether that is a change.
static bool promote_highest(std::vector<size_t> &order, const std::vector<Lifetime> &lifetimes) {
    auto highest = std::max_element(order.begin(), order.end(), [&](size_t a, size_t b) {
        return lifetimes[a].offset + lifetimes[a].bytes < lifetimes[b].offset + lifetimes[b].bytes;
    });
    if (highest == order.begin()) return false;
    std::rotate(order.begin(), highest, highest + 1);
    return true;
}

int64_t pack_lifetimes(std::vector<Lifetime> &lifetimes, int64_t alignment, const std::vector<Lifetime> &placed) {
    if (lifetimes.empty()) return bytes_taken(placed, alignment);
    constexpr int promotions = 64;
    auto duration = [](const Lifetime &life) { return int64_t(life.end) - life.begin + 1; };
    const std::vector<std::function<int64_t(const Lifetime &)>> keys = {
        [](const Lifetime &life) { return life.bytes; },
        [&](const Lifetime &life) { return life.bytes * duration(life); },
        [&](const Lifetime &life) { return duration(life); },
    };
    std::vector<Lifetime> all = placed;
    all.insert(all.end(), lifetimes.begin(), lifetimes.end());
    const int64_t least = std::max(peak_bytes(all, alignment), bytes_taken(placed, alignment));
    std::vector<Lifetime> best;
    int64_t best_total = std::numeric_limits<int64_t>::max();
    for (const auto &key : keys) {
        std::vector<size_t> order(lifetimes.size());
        std::iota(order.begin(), order.end(), size_t(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](size_t a, size_t b) { return key(lifetimes[a]) > key(lifetimes[b]); });
        for (int round = 0; round < promotions && best_total > least; round++) {
            int64_t total = place(lifetimes, order, alignment, placed);
            if (total < best_total) {
                best_total = total;
                best = lifetimes;
            }
            if (!promote_highest(order, lifetimes)) break;
        }
    }
    lifetimes = best;
    return best_total;
}

int64_t peak_bytes(const std::vector<Lifetime> &lifetimes, int64_t alignment) {
    std::map<int, int64_t> change; // time -> bytes that begin there minus bytes that have ended
    for (const Lifetime &life : lifetimes) {
        change[life.begin] += round_up(life.bytes, alignment);
        change[life.end + 1] -= round_up(life.bytes, alignment);
    }
    int64_t alive = 0, peak = 0;
    for (auto [time, bytes] : change) {
        alive += bytes;
        peak = std::max(peak, alive);
    }
    return peak;
}

} // namespace cryolite
