#include "turn.h"

#include <algorithm>

namespace cryolite {
using Halide::LoopLevel, Halide::TailStrategy, Halide::Var, Halide::VarOrRVar, Halide::Expr;

Turn::Turn(const std::string &name, const Var &c, const Var &l, const std::vector<Var> &pixels, const Expr &value)
    : turned(name), c_(c), l_(l) {
    std::vector<Var> by_lane{l, c}, by_channel{c, l};
    for (std::vector<Var> *args : {&by_lane, &by_channel}) args->insert(args->end(), pixels.begin(), pixels.end());
    part_(by_lane) = value;
    flipped_(by_channel) = part_(std::vector<Expr>(by_lane.begin(), by_lane.end()));
    turned(by_channel) = flipped_(std::vector<Expr>(by_channel.begin(), by_channel.end()));
}

void Turn::schedule(const LoopLevel &level, int lanes, int width, int channels) {
    Var co("co"), cv("cv"), lo("lo"), li("li");
    const std::vector<Var> args = turned.args();
    std::vector<VarOrRVar> loops{cv, li, lo};
    loops.insert(loops.end(), args.begin() + 2, args.end());
    loops.push_back(co);
    turned.compute_at(level).bound_extent(c_, channels).split(c_, co, cv, width, TailStrategy::RoundUp);
    turned.split(l_, lo, li, std::max(1, lanes / 2), TailStrategy::RoundUp).reorder(loops);
    turned.vectorize(cv).unroll(li).never_partition_all().store_in(Halide::MemoryType::Stack);
    flipped_.compute_at(turned, lo).vectorize(c_).vectorize(l_);
    part_.compute_at(turned, lo).vectorize(l_).unroll(c_);
}

} // namespace cryolite
