// Generators `softmax` and `softmax_cross_entropy` (kernels.md). Stable for any finite logits: the largest is
// subtracted first. A NaN logit makes the sample's loss and gradient NaN; +Inf does too, as in PyTorch.
#include "Halide.h"
#include "algorithms_math.h"
#include "gpu.h"
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

    Exponentials(const std::function<Expr(Expr, Expr, Expr)> &x, int classes) : r(0, classes) {
        best(l, b) = Tuple(Expr(-std::numeric_limits<float>::infinity()), Expr(0));
        Expr now = x(l, r, b), largest = best(l, b)[0];
        // The first NaN wins, so that it reaches every result.
        Expr better = strict_less(largest, now) || (is_nan(now) && !is_nan(largest));
        best(l, b) = Tuple(select(better, now, largest), select(better, r, best(l, b)[1]));
        e(l, c, b) = float_exp(strict_sub(x(l, c, b), best(l, b)[0]));
        total(l, b) = 0.f;
        total(l, b) += e(l, r, b);
    }

    // For the CPU; on a GPU the thread that has a sample computes best and total itself.
    void schedule(int classes, int lanes, int blocks) {
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

    RDom r;
};

} // namespace

class Softmax : public Halide::Generator<Softmax> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1};
    Input<Buffer<float, 3>> x{"x"};
    Output<Buffer<float, 3>> y{"y"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), blocks = resolve_blocks(get_target(), n, v);
        set_blocks(x, {v, c}, blocks);
        set_blocks(y, {v, c}, blocks);
        Exponentials parts([&](Expr l, Expr i, Expr b) { return Expr(x(l, i, b)); }, c);
        y(parts.l, parts.c, parts.b) = strict_div(parts.e(parts.l, parts.c, parts.b), parts.total(parts.l, parts.b));
        if (is_gpu(get_target())) return gpu::sample_map(y, v, {parts.best, parts.total});
        parts.schedule(c, v, blocks);
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
        const int v = resolve_lanes(get_target(), lanes), blocks = resolve_blocks(get_target(), n, v);
        set_blocks(logits, {v, c}, blocks);
        set_blocks(label, {v}, blocks);
        set_blocks(loss, {v}, blocks);
        set_blocks(correct, {v}, blocks);
        set_blocks(delta, {v, c}, blocks);
        Terms t(*this, v);
        if (is_gpu(get_target())) {
            // Each result by threads of its own.
            Terms u(*this, v), w(*this, v);
            loss(t.l, t.b) = t.loss;
            correct(u.l, u.b) = u.correct;
            delta(w.l, w.c, w.b) = w.delta;
            gpu::sample_map(loss, v, {t.parts.best, t.parts.total, t.chosen});
            gpu::sample_map(correct, v, {u.parts.best});
            gpu::sample_map(delta, v, {w.parts.best, w.parts.total});
            return;
        }
        loss(t.l, t.b) = t.loss;
        correct(t.l, t.b) = t.correct;
        delta(t.l, t.c, t.b) = t.delta;
        t.parts.schedule(c, v, blocks);
        t.chosen.compute_root().store_in(Halide::MemoryType::Stack).bound(t.l, 0, v).bound(t.b, 0, blocks);
        t.chosen.vectorize(t.l, v);
        t.chosen.update()
            .reorder(t.l, t.parts.r, t.b)
            .vectorize(t.l, v)
            .unroll(t.parts.r, c <= 16 ? static_cast<int>(c) : 1);
        loss.vectorize(t.l, v);
        correct.vectorize(t.l, v);
        delta.vectorize(t.l, v);
    }

private:
    struct Terms {
        Exponentials parts;
        Var l = parts.l, c = parts.c, b = parts.b;
        Func chosen{"chosen"}; // the label's logit
        Expr loss, correct, delta;

        Terms(SoftmaxCrossEntropy &of, int v)
            : parts([&of](Expr l, Expr i, Expr b) { return Expr(of.logits(l, i, b)); }, of.c) {
            chosen(l, b) = 0.f;
            chosen(l, b) = select(of.label(l, b) == parts.r, of.logits(l, parts.r, b), chosen(l, b));
            Expr real = b * v + l < of.valid, largest = parts.best(l, b)[0];
            loss = select(real, float_log(parts.total(l, b)) - strict_sub(chosen(l, b), largest), 0.f);
            correct = select(real && parts.best(l, b)[1] == of.label(l, b), 1.f, 0.f);
            Expr probability = strict_div(parts.e(l, c, b), parts.total(l, b));
            delta = select(real, probability - select(of.label(l, b) == c, 1.f, 0.f), 0.f);
        }
    };
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Softmax, softmax)
HALIDE_REGISTER_GENERATOR(cryolite::SoftmaxCrossEntropy, softmax_cross_entropy)
