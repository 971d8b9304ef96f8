// Offsets for values with known lifetimes: knows sizes and intervals, nothing of tensors.
#ifndef CRYOLITE_MEMORY_H
#define CRYOLITE_MEMORY_H

#include <cstdint>
#include <vector>

namespace cryolite {

// A value that is alive from time `begin` to `end`, both included.
struct Lifetime {
    int64_t bytes;
    int begin, end;
    int64_t offset = 0; // result
};

// Gives every lifetime an offset, a multiple of `alignment`, such that two that overlap in time do not overlap in
// space. Returns the bytes needed. Lifetimes are placed one by one, each at the lowest offset that is free during its
// whole life; of several orders the best one counts. `placed` have their offsets and keep them; they count in what is
// needed.
int64_t pack_lifetimes(std::vector<Lifetime> &lifetimes, int64_t alignment, const std::vector<Lifetime> &placed = {});

// The least that any packing needs: the largest sum of sizes alive at one time.
int64_t peak_bytes(const std::vector<Lifetime> &lifetimes, int64_t alignment);

} // namespace cryolite
#endif
