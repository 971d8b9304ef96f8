// Initialisers: from names to numbers. Fans are PyTorch's, so that the same seed law gives the same distribution.
#include "frontend.h"

#include <cmath>

namespace cryolite {

Initializer zeros() { return constant(0); }
Initializer ones() { return constant(1); }
Initializer constant(double value) { return {Initializer::constant, value, Initializer::none}; }
Initializer uniform(double bound) { return {Initializer::uniform, bound, Initializer::none}; }
Initializer normal(double deviation) { return {Initializer::normal, deviation, Initializer::none}; }
Initializer xavier_uniform() { return {Initializer::uniform, 0, Initializer::xavier}; }
Initializer xavier_normal() { return {Initializer::normal, 0, Initializer::xavier}; }
Initializer he_uniform() { return {Initializer::uniform, 0, Initializer::he}; }
Initializer he_normal() { return {Initializer::normal, 0, Initializer::he}; }
Initializer pytorch_default() { return {Initializer::uniform, 0, Initializer::pytorch}; }

const char *kind_name(Initializer::Kind kind) {
    switch (kind) {
    case Initializer::constant:
        return "constant";
    case Initializer::uniform:
        return "uniform";
    case Initializer::normal:
        return "normal";
    }
    return "?";
}

Initializer resolve(const Initializer &init, const Shape &weight) {
    if (init.scale == Initializer::none) return init;
    double window = 1;
    for (int i = 2; i < weight.rank(); ++i) window *= double(weight[i]);
    const double fan_in = double(weight[1]) * window, fan_out = double(weight[0]) * window;

    double variance = 0;
    if (init.scale == Initializer::xavier) variance = 2 / (fan_in + fan_out);
    if (init.scale == Initializer::he) variance = 2 / fan_in;
    if (init.scale == Initializer::pytorch) variance = 1 / (3 * fan_in); // so that a = 1 / sqrt(fan_in)
    // U(-a, a) has variance a^2 / 3.
    return {init.kind, std::sqrt(init.kind == Initializer::uniform ? 3 * variance : variance), Initializer::none};
}

} // namespace cryolite
