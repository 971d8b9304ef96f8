// Generators `softmax` and `softmax_cross_entropy` (kernels.md). Stable for any finite logits: the largest is
// subtracted first. A NaN logit makes the sample's loss and gradient NaN; +Inf does too, as in PyTorch.
#include "Halide.h"
#include "algorithms_math.h"
#include "lanes.h"

#include <limits>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::Tuple, Halide::Var, Halide::select;

namespace {

// Exponentials are stored up to this many bytes (kernels keep their scratch on the stack), else computed twice.
constexpr int most_stored_bytes = 8192;

// exp(x - max) and its sum over the c classes, per sample.
struct Exponentials {
    Var l{"l"}, c{"c"}, b{"b"};
    Func best{"best"}, e{"e"}, total{"total"}; // best: largest logit and its first index

    Exponentials(const std::function<Expr(Expr, Expr, Expr)> &x, int classes, int lanes, int blocks) {
        RDom r(0, classes);
        best(l, b) = Tuple(Expr(-std::numeric_limits<float>::infinity()), Expr(0));
        Expr now = x(l, r, b), largest = best(l, b)[0];
        // The first NaN wins, so that it reaches every result.
        Expr better = strict_less(largest, now) || (is_nan(now) && !is_nan(largest));
        best(l, b) = Tuple(select(better, now, largest), select(better, r, best(l, b)[1]));
        e(l, c, b) = float_exp(strict_sub(x(l, c, b), best(l, b)[0]));
        total(l, b) = 0.f;
        total(l, b) += e(l, r, b);
        const int unroll = classes <= 16 ? classes : 1;
        for (Func f : {best, total}) {
            f.compute_root().store_in(Halide::MemoryType::Stack).bound(l, 0, lanes).bound(b, 0, blocks);
            f.vectorize(l, lanes);
            f.update().reorder(l, r, b).vectorize(l, lanes).unroll(r, unroll);
        }
        if (classes * lanes * blocks * 4 <= most_stored_bytes) {
            e.compute_root().store_in(Halide::MemoryType::Stack).vectorize(l, lanes);
            e.bound(l, 0, lanes).bound(c, 0, classes).bound(b, 0, blocks);
        }
    }
};

} // namespace

class Softmax : public Halide::Generator<Softmax> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1};
    Input<Buffer<float, 3>> x{"x"};
    Output<Buffer<float, 3>> y{"y"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), blocks = resolve_blocks(n, v);
        set_dense(x, {v, c, blocks});
        set_dense(y, {v, c, blocks});
        Exponentials parts([&](Expr l, Expr i, Expr b) { return Expr(x(l, i, b)); }, c, v, blocks);
        y(parts.l, parts.c, parts.b) = strict_div(parts.e(parts.l, parts.c, parts.b), parts.total(parts.l, parts.b));
        y.vectorize(parts.l, v);
    }
};

class SoftmaxCrossEntropy : public Halide::Generator<SoftmaxCrossEntropy> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1};
    Input<int> valid{"valid"};
    Input<Buffer<float, 3>> logits{"logits"};
    Input<Buffer<int, 2>> label{"label"};
    Output<Buffer<float, 2>> loss{"loss"}, correct{"correct"};
    Output<Buffer<float, 3>> delta{"delta"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), blocks = resolve_blocks(n, v);
        set_dense(logits, {v, c, blocks});
        set_dense(label, {v, blocks});
        set_dense(loss, {v, blocks});
        set_dense(correct, {v, blocks});
        set_dense(delta, {v, c, blocks});
        Exponentials parts([&](Expr l, Expr i, Expr b) { return Expr(logits(l, i, b)); }, c, v, blocks);
        Var l = parts.l, i = parts.c, b = parts.b;

        Func chosen("chosen"); // the label's logit
        RDom r(0, c);
        chosen(l, b) = 0.f;
        chosen(l, b) = select(label(l, b) == r, logits(l, r, b), chosen(l, b));
        chosen.compute_root().store_in(Halide::MemoryType::Stack).bound(l, 0, v).bound(b, 0, blocks);
        chosen.vectorize(l, v);
        chosen.update().reorder(l, r, b).vectorize(l, v).unroll(r, c <= 16 ? static_cast<int>(c) : 1);

        Expr real = b * v + l < valid;
        Expr largest = parts.best(l, b)[0];
        loss(l, b) = select(real, float_log(parts.total(l, b)) - strict_sub(chosen(l, b), largest), 0.f);
        correct(l, b) = select(real && parts.best(l, b)[1] == label(l, b), 1.f, 0.f);
        Expr probability = strict_div(parts.e(l, i, b), parts.total(l, b));
        delta(l, i, b) = select(real, probability - select(label(l, b) == i, 1.f, 0.f), 0.f);
        loss.vectorize(l, v);
        correct.vectorize(l, v);
        delta.vectorize(l, v);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Softmax, softmax)
HALIDE_REGISTER_GENERATOR(cryolite::SoftmaxCrossEntropy, softmax_cross_entropy)
