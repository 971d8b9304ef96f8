// Stochastic gradient descent, in place. Contract: kernels.md; formula: PyTorch's SGD.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

class SgdStep : public Generator<SgdStep> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, size{"size", 1};
    GeneratorParam<float> momentum{"momentum", 0}, weight_decay{"weight_decay", 0};
    GeneratorParam<bool> nesterov{"nesterov", false};
    Input<Buffer<float, 1>> learning_rate{"learning_rate"}, weight{"weight"};

    void configure() {
        if (momentum > 0) velocity_ = add_input<Buffer<float, 1>>("velocity");
        gradient_ = add_input<Buffer<float, 1>>("gradient");
        // One Func for weight and velocity, so that every element is read before either is written.
        std::vector<Type> types(momentum > 0 ? 2 : 1, Float(32));
        updated_ = add_output<Func>("updated", types, 1);
    }
    void generate() {
        Var i("i");
        Func updated = *updated_;
        Expr w = weight(i), g = (*gradient_)(i) + (weight_decay != 0 ? weight_decay * w : Expr(0.f)),
             rate = learning_rate(0);
        if (momentum > 0) {
            Expr v = momentum * (*velocity_)(i) + g;
            updated(i) = Tuple(w - rate * (nesterov ? g + momentum * v : v), v);
        } else {
            updated(i) = w - rate * g;
        }
        // A tail that is shifted back would update its overlap twice.
        int vector = get_target().natural_vector_size<float>();
        if (size >= vector) updated.vectorize(i, vector, TailStrategy::GuardWithIf);
        set_dense(learning_rate, {1});
        set_dense(weight, {size});
        if (velocity_) set_dense(*velocity_, {size});
        set_dense(*gradient_, {size});
        for (OutputImageParam out : updated.output_buffers()) set_dense(out, {size});
    }

private:
    Input<Buffer<float, 1>> *velocity_ = nullptr, *gradient_ = nullptr;
    Output<Func> *updated_ = nullptr;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::SgdStep, sgd)
