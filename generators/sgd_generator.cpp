// Generator `sgd` (kernels.md): one step of stochastic gradient descent, in place if the caller passes the same
// buffers.
#include "gpu.h"
#include "lanes.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::TailStrategy, Halide::Tuple, Halide::Var;

class Sgd : public Halide::Generator<Sgd> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, size{"size", 1}, rows{"rows", 1}, apart{"apart", 0};
    GeneratorParam<double> momentum{"momentum", 0}, weight_decay{"weight_decay", 0};
    GeneratorParam<bool> nesterov{"nesterov", false};

    void configure() {
        learning_rate_ = add_input<Buffer<float, 1>>("learning_rate");
        weight_ = add_input<Buffer<float, 2>>("weight");
        if (momentum > 0) velocity_ = add_input<Buffer<float, 2>>("velocity");
        grad_ = add_input<Buffer<float, 2>>("grad");
        out_ = add_output<Func>("new", std::vector<Halide::Type>(velocity_ ? 2 : 1, Halide::Float(32)), 2);
    }

    void generate() {
        set_dense(*learning_rate_, {1});
        for (auto *buffer : {weight_, velocity_, grad_})
            if (buffer) set_dense(*buffer, {size, rows});
        const int stride = apart ? int(apart) : int(size);
        for (auto *buffer : {weight_, velocity_})
            if (buffer) buffer->dim(1).set_stride(stride);

        Var i("i"), j("j"), io("io"), ii("ii");
        auto constant = [](double value) { return Expr(float(value)); };
        Expr w = (*weight_)(i, j), g = (*grad_)(i, j), rate = (*learning_rate_)(0);
        if (weight_decay != 0) g += constant(weight_decay) * w;
        // All values of a vector, or of a thread, are made before the first is stored: outputs may be the inputs.
        Func next("next"), out("out");
        if (velocity_) {
            Func v("v");
            v(i, j) = constant(momentum) * (*velocity_)(i, j) + g;
            next(i, j) = Tuple(w - rate * (nesterov ? g + constant(momentum) * v(i, j) : v(i, j)), v(i, j));
            out(i, j) = Tuple(next(i, j)[0], next(i, j)[1]);
        } else {
            next(i, j) = w - rate * g;
            out(i, j) = next(i, j);
        }
        *out_ = out;
        bool first = true;
        for (Halide::OutputImageParam buffer : out.output_buffers()) {
            // Halide gives the second buffer of a Tuple the bounds of the first.
            if (first) buffer.dim(0).set_bounds(0, size), buffer.dim(1).set_bounds(0, rows);
            buffer.dim(0).set_stride(1);
            buffer.dim(1).set_stride(stride);
            first = false;
        }
        if (is_gpu(get_target())) {
            gpu::whole_map(out); // its threads are "inner"
            next.compute_at(out, Var("inner")).store_in(Halide::MemoryType::Register);
            return;
        }
        // No overlapping tiles: a weight must be updated once.
        const int width = vector_width(size, natural_vector_size<float>());
        const int unroll = size % (4 * width) ? 1 : 4;
        out.split(i, io, ii, width * unroll, TailStrategy::GuardWithIf).vectorize(ii, width).unroll(ii);
        next.compute_at(out, io).vectorize(i, width).unroll(i);
    }

private:
    Halide::GeneratorInput<Buffer<float, 1>> *learning_rate_ = nullptr;
    Halide::GeneratorInput<Buffer<float, 2>> *weight_ = nullptr, *velocity_ = nullptr, *grad_ = nullptr;
    Halide::GeneratorOutput<Func> *out_ = nullptr;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Sgd, sgd)
