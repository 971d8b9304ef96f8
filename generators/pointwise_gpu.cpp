// Pointwise programs on a GPU: one thread an element; sums in two levels, first each thread's over its share of the
// summed elements, then those of a group of threads through shared memory.
#include "gpu.h"
#include "pointwise_kernel.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::LoopLevel, Halide::MemoryType, Halide::RDom, Halide::Tuple, Halide::Var;

namespace {

bool is_sum(const ProgramStatement &s) { return s.op == "sum"; }

void define(Func f, const std::vector<Expr> &arguments, const std::vector<Expr> &values) {
    std::vector<Var> vars;
    for (const Expr &e : arguments) {
        const auto *v = e.as<Halide::Internal::Variable>();
        vars.push_back(v ? Var(v->name) : Var());
    }
    if (values.size() == 1)
        f(vars) = values[0];
    else
        f(vars) = Tuple(values);
}

Expr component(const Func &f, const std::vector<Expr> &arguments, size_t i, size_t count) {
    return count == 1 ? Expr(f(arguments)) : Expr(f(arguments)[int(i)]);
}

class GpuBuilder {
public:
    GpuBuilder(const Program &program, const PointwiseArguments &arguments)
        : program_(program), lanes_(arguments.lanes),
          evaluator_(program, arguments.lanes, arguments.input, arguments.scalar) {}

    std::vector<Func> build() {
        if (outputs_share_func(program_)) return {build_group(program_.outputs)};
        std::vector<Func> result;
        for (int output : program_.outputs) result.push_back(build_group({output}));
        return result;
    }

private:
    Func build_group(const std::vector<int> &group) {
        evaluator_.next_consumer();
        staged_before_ = evaluator_.staged().size();
        const ProgramShape &space = output_space(program_, group[0]);
        return is_sum(program_.statements[group[0]]) ? sums(group, space) : map(group, space);
    }

    Point pure_point(const ProgramShape &space) const {
        static const char *names[] = {"b", "c", "h", "w"};
        Point point{lane_, {}};
        for (int d = 0; d < space.rank(); d++) point.at.push_back(Var(names[d]));
        return point;
    }

    // Staged Funcs made for the group: by the thread that reads them.
    void schedule_staged(LoopLevel thread) {
        for (size_t i = staged_before_; i < evaluator_.staged().size(); i++) {
            const Evaluator::Staged &staged = evaluator_.staged()[i];
            Func f = staged.f, loops = staged.loops;
            LoopLevel level = thread;
            if (loops.defined()) {
                level = LoopLevel(loops, staged.at);
                loops.update().reorder(loops.args()[0], staged.at);
            }
            f.compute_at(level).store_in(MemoryType::Register);
        }
    }

    Func map(const std::vector<int> &group, const ProgramShape &space) {
        const Point point = pure_point(space);
        std::vector<Expr> values;
        for (int statement : group) values.push_back(evaluator_.value(statement, point));
        Func out("out");
        define(out, Evaluator::arguments(space, point), values);
        if (!space.is_block()) {
            gpu::whole_map(out);
            return out;
        }
        gpu::block_map(out, lanes_);
        schedule_staged(LoopLevel(out, lane_));
        return out;
    }

    // Over the summed elements of a block (or of a whole value), and its lanes if axis 0 is summed.
    Func sums(const std::vector<int> &group, const ProgramShape &space) {
        const ProgramStatement &first = program_.statements[group[0]];
        const bool block = space.is_block(), of_lanes = block && first.axes[0] == 0;
        const int lanes = block ? lanes_ : 1;
        std::vector<int> reduced; // innermost first
        int count = 1;
        for (size_t i = first.axes.size(); i-- > 0;) {
            if (block && first.axes[i] == 0) continue;
            reduced.push_back(first.axes[i]);
            count *= space.dims[first.axes[i]];
        }
        const int parts = std::min(count, std::max(1, gpu::group / lanes));
        Var part("part");
        RDom r(0, gpu::rounds(parts, count));
        const gpu::Dealt element = gpu::dealt(r, part, parts, count);
        Point point = pure_point(space);
        Expr rest = element.index;
        for (int d : reduced) {
            point.at[d] = d == reduced.back() ? rest : rest % space.dims[d];
            rest = rest / space.dims[d];
        }
        std::vector<Expr> kept{lane_, part}; // of the sums; then kept dimensions
        for (int d = space.rank() - 1; d >= 0; d--)
            if ((block && d == 0) || !std::count(first.axes.begin(), first.axes.end(), d)) kept.push_back(point.at[d]);

        Func sum("sum");
        define(sum, kept, std::vector<Expr>(group.size(), 0.f));
        std::vector<Expr> terms;
        for (size_t k = 0; k < group.size(); k++) {
            Expr term = evaluator_.value(program_.statements[group[k]].operands[0].statement, point);
            // Halide loops over those variables only that an update names.
            Expr inside = element.inside.defined() ? element.inside : r >= 0;
            terms.push_back(component(sum, kept, k, group.size()) + select(inside, term, 0.f));
        }
        define(sum, kept, terms);

        // Where the results lie: at 0 in summed dimensions, at their block.
        Point result = pure_point(space);
        for (int d : first.axes)
            if (!block || d > 0) result.at[d] = Var("zero" + std::to_string(d));
        std::vector<Expr> at = Evaluator::arguments(first.shape, result);
        if (of_lanes && at.size() == 1) at.insert(at.begin(), Var("zero0"));
        return add_up(group.size(), sum,
                      {.kept = kept, .at = at, .lanes = lanes, .parts = parts, .of_lanes = of_lanes, .block = block},
                      part, r);
    }

    struct Sums {
        std::vector<Expr> kept, at; // arguments of the threads' sums (lane, part, others), and of the results
        int lanes, parts;
        bool of_lanes, block;
    };

    // The second level.
    Func add_up(size_t results, Func sum, const Sums &s, Var part, const RDom &r) {
        Func shared("shared"), of_parts("of_parts"), out("out");
        auto with = [&](std::vector<Expr> kept, const Expr &lane, const Expr &part) {
            kept[0] = lane;
            kept[1] = part;
            return kept;
        };
        std::vector<Expr> lane_and_kept = s.kept;
        lane_and_kept.erase(lane_and_kept.begin() + 1);
        auto of_lane = [&](const Expr &lane) {
            lane_and_kept[0] = lane;
            return lane_and_kept;
        };
        const Expr lane = s.block ? Expr(lane_) : Expr(0);
        std::vector<Expr> stored, totals, values;
        for (size_t k = 0; k < results; k++) stored.push_back(component(sum, s.kept, k, results));
        define(shared, s.kept, stored);
        for (size_t k = 0; k < results; k++)
            totals.push_back(
                gpu::tree(s.parts, [&](int p) { return component(shared, with(s.kept, lane_, p), k, results); }));
        define(of_parts, of_lane(lane_), totals);
        for (size_t k = 0; k < results; k++)
            values.push_back(gpu::tree(s.of_lanes ? s.lanes : 1, [&](int i) {
                return component(of_parts, of_lane(s.of_lanes ? Expr(i) : lane), k, results);
            }));
        define(out, s.at, values);

        gpu::group_map(out, s.block ? (s.of_lanes ? 0 : s.lanes) : -1);
        const Var at_group("group");
        shared.compute_at(out, at_group).store_in(MemoryType::GPUShared).gpu_threads(lane_, part);
        shared.bound(lane_, 0, s.lanes).bound(part, 0, s.parts);
        if (s.of_lanes) {
            of_parts.compute_at(out, at_group).store_in(MemoryType::GPUShared).gpu_threads(lane_);
            of_parts.bound(lane_, 0, s.lanes);
        }
        sum.compute_at(shared, lane_).store_in(MemoryType::Register).update().never_partition_all();
        schedule_staged(LoopLevel(sum, r.x));
        return out;
    }

    const Program &program_;
    int lanes_;
    Evaluator evaluator_;
    size_t staged_before_ = 0;
    Var lane_{"l"};
};

} // namespace

std::vector<Func> build_pointwise_for_gpu(const Program &program, const PointwiseArguments &arguments) {
    return GpuBuilder(program, arguments).build();
}

} // namespace cryolite
