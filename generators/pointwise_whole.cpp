// Pointwise programs of whole values (parameters, statistics): vectorised over the innermost dimensions.
#include "algorithms_math.h"
#include "pointwise_build.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

int largest_power_of_two(int extent, int limit) {
    int width = limit;
    while (width > extent) width /= 2;
    return std::max(width, 1);
}

// Over all dimensions as one when no operand is broadcast, else over the innermost one that is not 1.
void vectorize_whole(const PointwiseBuild &build, Func out, const ProgramShape &space) {
    out.never_partition_all();
    std::vector<Var> dims = out.args();
    int extent = space.rank() ? space.dims[space.rank() - 1] : 1, inner = 0;
    bool plain = true;
    for (const ProgramStatement &s : build.program.statements)
        plain = plain && (s.shape.rank() == 0 || s.shape == space);
    Var v = dims[0];
    if (plain) {
        for (size_t i = 1; i < dims.size(); i++) {
            Var fused("fused");
            out.fuse(v, dims[i], fused);
            v = fused;
            extent *= space.dims[space.rank() - 1 - static_cast<int>(i)];
        }
    } else {
        while (extent == 1 && inner + 1 < space.rank()) {
            inner++;
            extent = space.dims[space.rank() - 1 - inner];
            v = dims[inner];
        }
        std::vector<Halide::VarOrRVar> order{v};
        for (int i = 0; i < static_cast<int>(dims.size()); i++)
            if (i != inner) order.push_back(dims[i]);
        out.reorder(order);
    }
    int width = build.arguments.vector_size;
    while (width > extent) width /= 2;
    if (width > 1) out.vectorize(v, width, extent % width ? TailStrategy::GuardWithIf : TailStrategy::RoundUp);
}

Point point_of_result(const PointwiseBuild &build, const ProgramShape &space, const std::vector<int> &reduced,
                      const std::vector<Var> &at) {
    Point point{build.lane, {}};
    for (int d = 0; d < space.rank(); d++)
        point.at.push_back(std::count(reduced.begin(), reduced.end(), d) ? Expr(Var("zero" + std::to_string(d)))
                                                                         : Expr(at[d]));
    return point;
}

void schedule_whole_sums(const PointwiseBuild &build, Func out, Func sums, const std::vector<Var> &out_vars,
                         const std::vector<Var> &kept, RDom r, int width, const ProgramShape &space) {
    std::vector<Halide::VarOrRVar> order;
    if (width > 1) {
        sums.compute_at(out, out_vars[0]).store_in(Halide::MemoryType::Stack).vectorize(build.lane, width);
        order.push_back(build.lane);
        for (size_t i = 1; i < kept.size(); i++) order.push_back(kept[i]);
        for (int i = 0; i < r.dimensions(); i++) order.push_back(r[i]);
        sums.update().reorder(order).vectorize(build.lane, width);
        return;
    }
    const int inner = space.dims[space.rank() - 1];
    const int vector = largest_power_of_two(inner, build.arguments.vector_size);
    if (kept.size() < 2 || vector == 1 || inner % vector) {
        sums.compute_at(out, out_vars[0]).store_in(Halide::MemoryType::Stack);
        return;
    }
    Var outer("outer");
    out.split(out_vars[0], outer, out_vars[0], vector).vectorize(out_vars[0]);
    sums.compute_at(out, outer).store_in(Halide::MemoryType::Stack).vectorize(kept[1], vector);
    order.push_back(kept[1]);
    for (size_t i = 2; i < kept.size(); i++) order.push_back(kept[i]);
    for (int i = 0; i < r.dimensions(); i++) order.push_back(r[i]);
    order.push_back(build.lane);
    sums.update().reorder(order).vectorize(kept[1], vector);
}

} // namespace

// All values whole. The guard keeps kernels right whose output is one of their inputs.
Func whole_map(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space) {
    std::vector<Var> at;
    Func out = build.map(group, space, at);
    vectorize_whole(build, out, space);
    return out;
}

// Sums of whole values: vectorised over the innermost dimension, be it kept or summed.
Func whole_sums(PointwiseBuild &build, const std::vector<int> &group, const ProgramShape &space) {
    const ProgramStatement &first = build.program.statements[group[0]];
    std::vector<Var> at;
    Point point = build.point_of(space, at);
    const std::vector<int> reduced(first.axes.rbegin(), first.axes.rend());
    const int inner = space.rank() - 1;
    const bool inner_summed = reduced[0] == inner;
    // A summed innermost dimension is dealt out over `width` accumulators.
    int width = 1;
    if (inner_summed) width = largest_power_of_two(space.dims[inner], build.arguments.vector_size);
    Halide::Region domain;
    for (int d : reduced) domain.emplace_back(0, d == inner ? (space.dims[d] + width - 1) / width : space.dims[d]);
    RDom r(domain);
    const std::vector<Expr> kept = build.kept(at, reduced);
    for (size_t i = 0; i < reduced.size(); i++)
        point.at[reduced[i]] = inner_summed && i == 0 && width > 1 ? r[0] * width + build.lane : Expr(r[i]);
    Expr guard;
    if (inner_summed && space.dims[inner] % width) {
        guard = point.at[inner] < space.dims[inner];
        point.at[inner] = Halide::min(point.at[inner], space.dims[inner] - 1);
    }
    Func sums("sums");
    const std::vector<Var> kept_vars = vars(kept);
    define(sums, kept_vars, std::vector<Expr>(group.size(), 0.f));
    std::vector<Expr> totals = values_of(sums, kept, group.size());
    for (size_t k = 0; k < group.size(); k++) {
        Expr e = build.evaluator.value(build.program.statements[group[k]].operands[0].statement, point);
        totals[k] = totals[k] + over_all(r, guard.defined() ? Halide::select(guard, e, 0.f) : e);
    }
    define(sums, kept_vars, totals);
    std::vector<Expr> results;
    for (size_t k = 0; k < group.size(); k++)
        results.push_back(tree_sum(
            [&](int i) {
                std::vector<Expr> args = kept;
                args[0] = i;
                return values_of(sums, args, group.size())[k];
            },
            width));
    Func out("out");
    const std::vector<Var> out_vars =
        vars(Evaluator::arguments(first.shape, point_of_result(build, space, reduced, at)));
    define(out, out_vars, results);
    out.never_partition_all();
    schedule_whole_sums(build, out, sums, out_vars, kept_vars, r, width, space);
    return out;
}

} // namespace cryolite
