// Schedules of pointwise programs. Block values: vectorised over lanes; a tile of x and y is unrolled so that window
// indices fold to constants. Sums: lane-wide accumulators over tiles, one horizontal sum at the end.
// Measured on a Zen 5 core with AVX-512, ns per element of [16,6,24,24]: batch norm + sigmoid + 2x2 average pool 0.135;
// its two backward sums 0.184; its dx 0.197.
#include "pointwise_kernel.h"

#include "algorithms_math.h"

#include <algorithm>
#include <numeric>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::RVar, Halide::TailStrategy, Halide::Tuple, Halide::Var;

namespace {

bool is_sum(const ProgramStatement &s) { return s.op == "sum"; }

int largest_divisor(int extent, int limit) {
    for (int d = std::min(extent, limit); d > 1; d--)
        if (extent % d == 0) return d;
    return 1;
}

Expr lane_sum(const std::function<Expr(int)> &element, int count, int first = 0) {
    if (count == 1) return element(first);
    return lane_sum(element, count / 2, first) + lane_sum(element, count - count / 2, first + count / 2);
}

// How many points of each dimension of the space one iteration computes (1 for dimensions not tiled).
std::vector<int> tile_of(const Program &program, const ProgramShape &space) {
    std::vector<int> tile(space.rank(), 1);
    int stride = 1;
    bool windows = false;
    for (const ProgramStatement &s : program.statements) {
        if (!s.attributes.count("window")) continue;
        windows = true;
        const bool gradient = s.op == "avg_pool2d_grad" || s.op == "max_pool2d_grad";
        if (gradient && s.shape == space) stride = std::lcm(stride, s.attributes.at("stride"));
    }
    const int heavy = program.statements.size() > 40 ? 1 : windows ? 2 : 4;
    if (stride > 1 && stride <= 4 && space.rank() == 4) {
        for (int d : {2, 3})
            if (space.dims[d] % stride == 0) tile[d] = stride;
        return tile;
    }
    int points = 1;
    for (int d = space.rank() - 1; d >= 1 && points < heavy; d--) {
        tile[d] = largest_divisor(space.dims[d], heavy / points);
        points *= tile[d];
    }
    return tile;
}

class Builder {
public:
    Builder(const Program &program, const PointwiseArguments &arguments)
        : program_(program), arguments_(arguments),
          evaluator_(program, arguments.lanes, arguments.input, arguments.scalar) {}

    std::vector<Func> build() {
        if (outputs_share_func(program_)) return {build_group(program_.outputs)};
        // Plain outputs first: a sum reads what is stored anyway.
        std::vector<Func> result(program_.outputs.size());
        for (bool sums : {false, true})
            for (size_t i = 0; i < program_.outputs.size(); i++) {
                const int statement = program_.outputs[i];
                if (is_sum(program_.statements[statement]) != sums) continue;
                result[i] = build_group({statement});
                if (!sums) to_store_.emplace_back(statement, result[i]);
                if (!sums) store_when_safe();
            }
        return result;
    }

private:
    void store_when_safe() {
        for (auto &[statement, f] : to_store_) {
            f.compute_root();
            evaluator_.read_from(statement, f);
        }
        to_store_.clear();
    }

    Func build_group(const std::vector<int> &group) {
        evaluator_.next_consumer();
        const ProgramStatement &first = program_.statements[group[0]];
        const ProgramShape &space = output_space(program_, group[0]);
        if (space.is_block()) return is_sum(first) ? block_sums(group, space) : block_map(group, space);
        return is_sum(first) ? whole_sums(group, space) : whole_map(group, space);
    }

    Point pure_point(const ProgramShape &space, std::vector<Var> &at) const {
        static const char *names[] = {"b", "c", "h", "w"};
        Point point{lane_, {}};
        for (int d = 0; d < space.rank(); d++) {
            at.emplace_back(names[d]);
            point.at.push_back(at.back());
        }
        return point;
    }

    static std::vector<Var> vars(const std::vector<Expr> &arguments) {
        std::vector<Var> result;
        for (const Expr &e : arguments) {
            const auto *v = e.as<Halide::Internal::Variable>();
            result.emplace_back(v ? v->name : "zero");
        }
        return result;
    }

    static Tuple tuple_of(const std::vector<Expr> &values) { return Tuple(values); }

    static void define(Func &f, const std::vector<Var> &args, const std::vector<Expr> &values) {
        if (values.size() == 1)
            f(args) = values[0];
        else
            f(args) = tuple_of(values);
    }

    static std::vector<Expr> values_of(const Func &f, const std::vector<Expr> &args, size_t count) {
        std::vector<Expr> result;
        for (size_t i = 0; i < count; i++) result.push_back(count == 1 ? Expr(f(args)) : Expr(f(args)[i]));
        return result;
    }

    // Staged Funcs made since `from`, in the innermost loop of their consumer.
    void schedule_staged(Func consumer, Halide::VarOrRVar at, size_t from) {
        for (size_t i = from; i < evaluator_.staged().size(); i++) {
            const Evaluator::Staged &staged = evaluator_.staged()[i];
            Func f = staged.f, loops = staged.loops;
            Halide::LoopLevel level =
                at.is_rvar ? Halide::LoopLevel(consumer, at.rvar) : Halide::LoopLevel(consumer, at.var);
            if (loops.defined()) { // a value in a loop over a window: inside the loop, outside the lanes
                level = Halide::LoopLevel(loops, staged.at);
                loops.update().reorder(loops.args()[0], staged.at);
            }
            f.bound_extent(f.args()[0], arguments_.lanes);
            f.compute_at(level).store_in(Halide::MemoryType::Stack).vectorize(f.args()[0], arguments_.lanes);
            if (f.has_update_definition()) f.update().vectorize(f.args()[0], arguments_.lanes);
        }
    }

    // Elementwise outputs.
    Func block_map(const std::vector<int> &group, const ProgramShape &space) {
        const size_t staged_before = evaluator_.staged().size();
        std::vector<Var> at;
        const Point point = pure_point(space, at);
        std::vector<Expr> values;
        for (int statement : group) values.push_back(evaluator_.value(statement, point));
        Func out("out");
        define(out, vars(Evaluator::arguments(space, point)), values);
        out.vectorize(lane_, arguments_.lanes);
        std::vector<int> tile = tile_of(program_, space);
        if (evaluator_.staged_points_only()) tile.assign(tile.size(), 1);
        std::vector<Halide::VarOrRVar> order{lane_}, outer;
        for (int d = space.rank() - 1; d >= 0; d--) {
            if (tile[d] == 1) {
                outer.push_back(at[d]);
                continue;
            }
            Var inner(at[d].name() + "i");
            out.split(at[d], at[d], inner, tile[d]).unroll(inner);
            order.push_back(inner);
            outer.push_back(at[d]);
        }
        order.insert(order.end(), outer.begin(), outer.end());
        out.reorder(order).never_partition_all();
        schedule_staged(out, at[space.rank() - 1], staged_before);
        return out;
    }

    // Sums over some axes of a block-shaped space, all with the same axes. Each step of the loop adds one tile.
    Func block_sums(const std::vector<int> &group, const ProgramShape &space) {
        const size_t staged_before = evaluator_.staged().size();
        const ProgramStatement &first = program_.statements[group[0]];
        const bool lanes_summed = first.axes[0] == 0;
        const std::vector<int> tile = tile_of(program_, space);
        std::vector<Var> at;
        Point point = pure_point(space, at);
        // Reduced dimensions, innermost first.
        std::vector<int> reduced(first.axes.rbegin(), first.axes.rend());
        Halide::Region domain;
        for (int d : reduced) domain.emplace_back(0, d == 0 ? arguments_.blocks : space.dims[d] / tile[d]);
        RDom r(domain);
        std::vector<Expr> kept{lane_};
        for (int d = space.rank() - 1; d >= 0; d--)
            if (!std::count(reduced.begin(), reduced.end(), d)) kept.push_back(at[d]);

        Func sums("sums");
        const std::vector<Var> kept_vars = vars(kept);
        define(sums, kept_vars, std::vector<Expr>(group.size(), 0.f));
        std::vector<Expr> totals = values_of(sums, kept, group.size());
        std::vector<std::vector<Expr>> terms(group.size());
        for_each_tile_point(tile, reduced, [&](const std::vector<int> &offset) {
            Point p = point;
            for (size_t i = 0; i < reduced.size(); i++) {
                const int d = reduced[i];
                p.at[d] = d == 0 || tile[d] == 1 ? Expr(r[i]) : r[i] * tile[d] + offset[d];
            }
            for (size_t k = 0; k < group.size(); k++)
                terms[k].push_back(evaluator_.value(program_.statements[group[k]].operands[0].statement, p));
        });
        for (size_t k = 0; k < group.size(); k++)
            totals[k] = totals[k] + over_all(r, lane_sum([&](int i) { return terms[k][i]; }, int(terms[k].size())));
        define(sums, kept_vars, totals);

        // The result's coordinates: 0 in reduced dimensions.
        const ProgramShape &shape = first.shape;
        std::vector<Var> out_at;
        Func out("out");
        std::vector<Expr> results(group.size());
        for (size_t k = 0; k < group.size(); k++) {
            auto lane_value = [&](Expr lane) {
                std::vector<Expr> args = kept;
                args[0] = lane;
                return values_of(sums, args, group.size())[k];
            };
            results[k] =
                lanes_summed ? lane_sum([&](int i) { return lane_value(i); }, arguments_.lanes) : lane_value(lane_);
        }
        std::vector<Var> out_vars = vars(Evaluator::arguments(shape, point));
        define(out, out_vars, results);
        Var outermost = out_vars.back();
        Var consumer_at = lanes_summed ? out_vars.front() : out_vars[1];
        if (!lanes_summed) out.vectorize(lane_, arguments_.lanes);
        sums.compute_at(out, consumer_at).store_in(Halide::MemoryType::Stack).vectorize(lane_, arguments_.lanes);
        std::vector<Halide::VarOrRVar> order{lane_};
        for (size_t i = 1; i < kept_vars.size(); i++) order.push_back(kept_vars[i]);
        for (size_t i = 0; i < reduced.size(); i++) order.push_back(r[i]);
        sums.update().reorder(order).vectorize(lane_, arguments_.lanes);
        out.never_partition_all();
        schedule_staged(sums, r[0], staged_before);
        return out;
    }

    static void for_each_tile_point(const std::vector<int> &tile, const std::vector<int> &reduced,
                                    const std::function<void(const std::vector<int> &)> &visit) {
        std::vector<int> offset(tile.size(), 0);
        for (;;) {
            visit(offset);
            size_t i = 0;
            for (; i < reduced.size(); i++) {
                if (++offset[reduced[i]] < tile[reduced[i]]) break;
                offset[reduced[i]] = 0;
            }
            if (i == reduced.size()) return;
        }
    }

    // All values whole. The guard keeps kernels right whose output is one of their inputs.
    Func whole_map(const std::vector<int> &group, const ProgramShape &space) {
        std::vector<Var> at;
        const Point point = pure_point(space, at);
        std::vector<Expr> values;
        for (int statement : group) values.push_back(evaluator_.value(statement, point));
        Func out("out");
        define(out, vars(Evaluator::arguments(space, point)), values);
        vectorize_whole(out, space);
        return out;
    }

    // Over all dimensions as one when no operand is broadcast, else over the innermost one that is not 1.
    void vectorize_whole(Func out, const ProgramShape &space) {
        out.never_partition_all();
        std::vector<Var> dims = out.args();
        int extent = space.rank() ? space.dims[space.rank() - 1] : 1, inner = 0;
        bool plain = true;
        for (const ProgramStatement &s : program_.statements)
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
        int width = arguments_.vector_size;
        while (width > extent) width /= 2;
        if (width > 1) out.vectorize(v, width, extent % width ? TailStrategy::GuardWithIf : TailStrategy::RoundUp);
    }

    // Sums of whole values: vectorised over the innermost dimension, be it kept or summed.
    Func whole_sums(const std::vector<int> &group, const ProgramShape &space) {
        const ProgramStatement &first = program_.statements[group[0]];
        std::vector<Var> at;
        Point point = pure_point(space, at);
        std::vector<int> reduced(first.axes.rbegin(), first.axes.rend());
        const int inner = space.rank() - 1;
        const bool inner_summed = reduced[0] == inner;
        // A summed innermost dimension is dealt out over `width` accumulators.
        int width = 1;
        if (inner_summed) width = largest_power_of_two(space.dims[inner], arguments_.vector_size);
        Halide::Region domain;
        for (int d : reduced) domain.emplace_back(0, d == inner ? (space.dims[d] + width - 1) / width : space.dims[d]);
        RDom r(domain);
        std::vector<Expr> kept{lane_};
        for (int d = inner; d >= 0; d--)
            if (!std::count(reduced.begin(), reduced.end(), d)) kept.push_back(at[d]);
        for (size_t i = 0; i < reduced.size(); i++)
            point.at[reduced[i]] = inner_summed && i == 0 && width > 1 ? r[0] * width + lane_ : Expr(r[i]);
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
            Expr e = evaluator_.value(program_.statements[group[k]].operands[0].statement, point);
            totals[k] = totals[k] + over_all(r, guard.defined() ? Halide::select(guard, e, 0.f) : e);
        }
        define(sums, kept_vars, totals);
        std::vector<Expr> results;
        for (size_t k = 0; k < group.size(); k++)
            results.push_back(lane_sum(
                [&](int i) {
                    std::vector<Expr> args = kept;
                    args[0] = i;
                    return values_of(sums, args, group.size())[k];
                },
                width));
        Func out("out");
        const std::vector<Var> out_vars = vars(Evaluator::arguments(first.shape, point_of_result(space, reduced, at)));
        define(out, out_vars, results);
        out.never_partition_all();
        schedule_whole_sums(out, sums, out_vars, kept_vars, r, width, space);
        return out;
    }

    static int largest_power_of_two(int extent, int limit) {
        int width = limit;
        while (width > extent) width /= 2;
        return std::max(width, 1);
    }

    Point point_of_result(const ProgramShape &space, const std::vector<int> &reduced, const std::vector<Var> &at) {
        Point point{lane_, {}};
        for (int d = 0; d < space.rank(); d++)
            point.at.push_back(std::count(reduced.begin(), reduced.end(), d) ? Expr(Var("zero" + std::to_string(d)))
                                                                             : Expr(at[d]));
        return point;
    }

    void schedule_whole_sums(Func out, Func sums, const std::vector<Var> &out_vars, const std::vector<Var> &kept,
                             RDom r, int width, const ProgramShape &space) {
        std::vector<Halide::VarOrRVar> order;
        if (width > 1) {
            sums.compute_at(out, out_vars[0]).store_in(Halide::MemoryType::Stack).vectorize(lane_, width);
            order.push_back(lane_);
            for (size_t i = 1; i < kept.size(); i++) order.push_back(kept[i]);
            for (int i = 0; i < r.dimensions(); i++) order.push_back(r[i]);
            sums.update().reorder(order).vectorize(lane_, width);
            return;
        }
        const int inner = space.dims[space.rank() - 1];
        const int vector = largest_power_of_two(inner, arguments_.vector_size);
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
        order.push_back(lane_);
        sums.update().reorder(order).vectorize(kept[1], vector);
    }

    const Program &program_;
    const PointwiseArguments &arguments_;
    Evaluator evaluator_;
    Var lane_{"l"};
    std::vector<std::pair<int, Func>> to_store_;
};

} // namespace

const ProgramShape &output_space(const Program &program, int statement) {
    const ProgramStatement &s = program.statements[statement];
    return is_sum(s) ? program.statements[s.operands[0].statement].shape : s.shape;
}

bool outputs_share_func(const Program &program) {
    const int first = program.outputs[0];
    const ProgramStatement &a = program.statements[first];
    return std::all_of(program.outputs.begin(), program.outputs.end(), [&](int output) {
        const ProgramStatement &b = program.statements[output];
        return is_sum(a) == is_sum(b) && a.axes == b.axes && a.shape == b.shape &&
               output_space(program, first) == output_space(program, output);
    });
}

std::vector<int> buffer_extents(const ProgramShape &shape, int lanes, int blocks) {
    std::vector<int> extents;
    if (shape.is_block()) extents.push_back(lanes);
    for (int d = shape.rank() - 1; d >= 0; d--)
        extents.push_back(shape.dims[d] == ProgramShape::batch ? blocks : shape.dims[d]);
    if (extents.empty()) extents.push_back(1);
    return extents;
}

std::vector<Func> build_pointwise(const Program &program, const PointwiseArguments &arguments) {
    return Builder(program, arguments).build();
}

} // namespace cryolite
