#include "finite.h"

#include <algorithm>
#include <cstring>

namespace cryolite::runtime {

namespace {

// Without the sign, floats are ordered as their bits are: infinity above all numbers, NaN above infinity.
constexpr uint32_t magnitude = 0x7fffffff, infinity = 0x7f800000;

uint32_t largest_bits(const float *values, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, &values[i], sizeof bits);
        largest = std::max(largest, bits & magnitude);
    }
    return largest;
}

// Dimensions up to `dimension`, the ones that lie one after another as a single run.
uint32_t largest_bits(const cryo_buffer &buffer, int32_t dimension, const float *values) {
    int64_t run = 1;
    int32_t dense = 0;
    for (; dense < dimension && buffer.dim[dense].stride == run; dense++) run *= buffer.dim[dense].extent;
    if (dense == dimension) return largest_bits(values, run);
    const cryo_halide_dim &dim = buffer.dim[dimension - 1];
    uint32_t largest = 0;
    for (int32_t i = 0; i < dim.extent; i++)
        largest = std::max(largest, largest_bits(buffer, dimension - 1, values + int64_t(i) * dim.stride));
    return largest;
}

Worst worst(uint32_t bits) { return bits > infinity ? Worst::nan : bits == infinity ? Worst::infinity : Worst::finite; }

} // namespace

const char *worst_text(Worst worst) {
    return worst == Worst::nan ? "a NaN" : worst == Worst::infinity ? "an infinity" : "a finite number";
}

Worst worst_of(const float *values, int64_t count) { return worst(largest_bits(values, count)); }

Worst worst_of(const cryo_buffer &buffer) {
    return worst(largest_bits(buffer, buffer.dimensions, reinterpret_cast<const float *>(buffer.host)));
}

} // namespace cryolite::runtime
