// First fit by decreasing size over time intervals.
#include "memory.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace cryolite {

static int64_t round_up(int64_t bytes, int64_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

int64_t pack_lifetimes(std::vector<Lifetime> &lifetimes, int64_t alignment) {
    std::vector<size_t> order(lifetimes.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
    int64_t total = 0;
    std::vector<size_t> placed;
    for (size_t i : order) {
        Lifetime &life = lifetimes[i];
        std::map<int64_t, int64_t> taken; // offset -> end, of the placed lifetimes that overlap in time
        for (size_t j : placed) {
            const Lifetime &other = lifetimes[j];
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
        placed.push_back(i);
    }
    return total;
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
