// Sums over lanes and other common ground of the heavy generators (lanes.h).
#include "lanes.h"
#include "gpu.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::Target, Halide::Var;

int resolve_lanes(const Target &target, int lanes) { return lanes ? lanes : target.natural_vector_size<float>(); }

int resolve_blocks(int n, int lanes) {
    if (n % lanes) throw Halide::CompileError("n is not a multiple of lanes");
    return n ? n / lanes : 1;
}

int resolve_blocks(const Target &target, int n, int lanes) { return is_gpu(target) ? 0 : resolve_blocks(n, lanes); }

Registers registers_of(const Target &target, int lanes) {
    bool wide = target.has_feature(Target::AVX512_Skylake) || target.has_feature(Target::AVX512_Cannonlake) ||
                target.has_feature(Target::AVX512) || target.arch == Target::ARM;
    return {.count = wide ? 32 : 16, .per_value = std::max(1, lanes / target.natural_vector_size<float>())};
}

LaneSums::LaneSums(Func value, int lanes, int count, const std::vector<Var> &outer) : lanes_(lanes), count_(count) {
    for (int width = lanes; width > 1; width /= 2) {
        Func sum("lane_sum"), from = stages_.empty() ? value : stages_.back();
        const bool first = stages_.empty();
        auto at = [&](Expr element) {
            std::vector<Expr> index{element};
            if (first) index = {element % lanes, element / lanes};
            for (const Var &v : outer) index.push_back(v);
            return Expr(from(index));
        };
        std::vector<Var> args{j_};
        args.insert(args.end(), outer.begin(), outer.end());
        sum(args) = at(2 * j_) + at(2 * j_ + 1);
        stages_.push_back(sum);
    }
}

void LaneSums::compute_at(Func consumer, Var loop) {
    int size = lanes_ * count_;
    for (Func f : stages_) {
        size /= 2;
        int width = std::min(lanes_, size & -size);
        f.compute_at(consumer, loop).bound(j_, 0, size).vectorize(j_, width).unroll(j_);
    }
}

} // namespace cryolite
