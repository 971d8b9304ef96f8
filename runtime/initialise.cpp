// Initial parameters: a function of (seed, parameter's index, element's index) alone, with the same bits everywhere.
//
// Random bits are Philox4x32-10's. The normal distribution needs logarithm and cosine, whose last bits differ between C
// libraries: they are computed here from IEEE operations, none of which may be contracted to a fused one.
#include "model.h"

#include <cmath>
#include <cstring>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

using namespace cryolite::runtime;

namespace {

struct Bits {
    uint32_t word[4];
};

Bits philox(uint64_t key, uint64_t element, uint64_t parameter) {
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    Bits x = {{uint32_t(element), uint32_t(element >> 32), uint32_t(parameter), uint32_t(parameter >> 32)}};
    for (int round = 0; round < 10; round++) {
        uint64_t a = uint64_t(0xD2511F53u) * x.word[0], b = uint64_t(0xCD9E8D57u) * x.word[2];
        x = {{uint32_t(b >> 32) ^ x.word[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ x.word[3] ^ k1, uint32_t(a)}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return x;
}

// Natural logarithm of a positive normal number, within 1e-15.
double logarithm(double x) {
    int exponent = 0;
    double m = std::frexp(x, &exponent); // [0.5, 1)
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
    return exponent * 0.69314718055994531 + 2 * s * sum;
}

// cos(2 pi turns), turns in [0, 1), within 1e-15.
double cosine_of_turns(double turns) {
    // Fold to the nearest quarter: the rest is at most an eighth.
    int quarter = int(turns * 4 + 0.5);
    double x = (turns - quarter * 0.25) * 6.28318530717958648, square = x * x, cosine = 0, sine = 0;
    for (int k = 18; k >= 0; k -= 2) cosine = 1 - cosine * square / ((k + 1) * (k + 2));
    for (int k = 19; k >= 1; k -= 2) sine = 1 - sine * square / ((k + 1) * (k + 2));
    sine *= x;
    switch (quarter % 4) {
    case 0:
        return cosine;
    case 1:
        return -sine;
    case 2:
        return -cosine;
    default:
        return sine;
    }
}

// [-1, 1) in steps of 2^-23: times a float stays below it after rounding.
double uniform(const Bits &bits) { return double(bits.word[0] >> 8) / 8388608.0 - 1; }

// Box and Muller. u is in (0, 1], from 53 bits.
double normal(const Bits &bits) {
    uint64_t high = uint64_t(bits.word[0]) << 21 | bits.word[1] >> 11;
    double u = (double(high) + 1) / 9007199254740992.0, turns = bits.word[2] / 4294967296.0;
    return std::sqrt(-2 * logarithm(u)) * cosine_of_turns(turns);
}

void draw(const cryo_parameter &parameter, uint64_t index, uint64_t seed, float *values) {
    double a = double(float(parameter.init_value));
    for (int64_t i = 0; i < parameter.elements; i++) {
        if (parameter.init == CRYO_INIT_CONSTANT) {
            values[i] = float(a);
            continue;
        }
        Bits bits = philox(seed, uint64_t(i), index);
        values[i] = float(a * (parameter.init == CRYO_INIT_UNIFORM ? uniform(bits) : normal(bits)));
    }
}

} // namespace

cryo_status cryo_initialize(cryo_model *model, uint64_t seed) {
    if (!model) return CRYO_BAD_ARGUMENT;
    for (int64_t i = 0; i < model->program->parameter_count; i++) {
        const cryo_parameter &parameter = model->program->parameters[i];
        draw(parameter, uint64_t(i), seed, model->values(parameter));
    }
    model->steps = 0;
    model->parameters_changed();
    return CRYO_OK;
}
