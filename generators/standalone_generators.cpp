// Single ops as generators of their own, for use through GenGen: each writes the pointwise program of its op.
#include "pointwise_generator.h"

#include <sstream>

namespace cryolite {
namespace {

std::string joined(std::initializer_list<int> dims) {
    std::string text = "[n";
    for (int d : dims) text += "," + std::to_string(d);
    return text + "]";
}

} // namespace

// Inference form: y = (x - mean) / sqrt(variance + eps) * weight + bias, per channel.
class BatchNorm : public PointwiseGenerator<BatchNorm> {
public:
    Halide::GeneratorParam<int> c{"c", 1}, h{"h", 1}, w{"w", 1};
    Halide::GeneratorParam<float> eps{"eps", 1e-5f};

    std::string program_text() const {
        const std::string channels = "[1," + std::to_string(c) + ",1,1]";
        std::string text = "x = input " + joined({c, h, w}) + ";";
        for (const char *name : {"weight", "bias", "mean", "variance"})
            text += std::string(name) + " = input " + channels + ";";
        std::ostringstream epsilon;
        epsilon.precision(9);
        epsilon << static_cast<float>(eps);
        return text + "e = add(variance, " + epsilon.str() + ");" +
               "i = rsqrt(e); s = mul(weight, i); d = sub(x, mean); p = mul(d, s); y = add(p, bias); output y;";
    }
};

template <class Derived> class Activation : public PointwiseGenerator<Derived> {
public:
    Halide::GeneratorParam<int> c{"c", 1}, h{"h", 1}, w{"w", 1};

    std::string program_text() const {
        return "x = input " + joined({c, h, w}) + "; y = " + Derived::op + "(x); output y;";
    }
};

class Relu : public Activation<Relu> {
public:
    static constexpr const char *op = "relu";
};

class Sigmoid : public Activation<Sigmoid> {
public:
    static constexpr const char *op = "sigmoid";
};

class Tanh : public Activation<Tanh> {
public:
    static constexpr const char *op = "tanh";
};

template <class Derived> class Pool2d : public PointwiseGenerator<Derived> {
public:
    Halide::GeneratorParam<int> c{"c", 1}, h{"h", 1}, w{"w", 1}, window{"window", 2}, stride{"stride", 2},
        padding{"padding", 0};

    std::string program_text() const {
        return "x = input " + joined({c, h, w}) + "; y = " + Derived::op + "(x){window=" + std::to_string(window) +
               ",stride=" + std::to_string(stride) + ",padding=" + std::to_string(padding) + "}; output y;";
    }
};

class AvgPool2d : public Pool2d<AvgPool2d> {
public:
    static constexpr const char *op = "avg_pool2d";
};

class MaxPool2d : public Pool2d<MaxPool2d> {
public:
    static constexpr const char *op = "max_pool2d";
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::AvgPool2d, avg_pool2d)
HALIDE_REGISTER_GENERATOR(cryolite::BatchNorm, batch_norm)
HALIDE_REGISTER_GENERATOR(cryolite::MaxPool2d, max_pool2d)
HALIDE_REGISTER_GENERATOR(cryolite::Relu, relu)
HALIDE_REGISTER_GENERATOR(cryolite::Sigmoid, sigmoid)
HALIDE_REGISTER_GENERATOR(cryolite::Tanh, tanh)
