// Pointwise programs to Funcs: outputs of one kind over one space are one Func.
#include "pointwise_build.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::Var;

Point PointwiseBuild::point_of(const ProgramShape &space, std::vector<Var> &at) const {
    static const char *names[] = {"b", "c", "h", "w"};
    Point point{lane, {}};
    for (int d = 0; d < space.rank(); d++) {
        at.emplace_back(names[d]);
        point.at.push_back(at.back());
    }
    return point;
}

Func PointwiseBuild::map(const std::vector<int> &group, const ProgramShape &space, std::vector<Var> &at) {
    const Point point = point_of(space, at);
    std::vector<Expr> values;
    for (int statement : group) values.push_back(evaluator.value(statement, point));
    Func out("out");
    define(out, vars(Evaluator::arguments(space, point)), values);
    return out;
}

std::vector<Expr> PointwiseBuild::kept(const std::vector<Var> &at, const std::vector<int> &reduced) const {
    std::vector<Expr> result{lane};
    for (int d = int(at.size()) - 1; d >= 0; d--)
        if (!std::count(reduced.begin(), reduced.end(), d)) result.push_back(at[d]);
    return result;
}

Expr tree_sum(const std::function<Expr(int)> &element, int count, int first) {
    if (count == 1) return element(first);
    return tree_sum(element, count / 2, first) + tree_sum(element, count - count / 2, first + count / 2);
}

std::vector<Var> vars(const std::vector<Expr> &arguments) {
    std::vector<Var> result;
    for (const Expr &e : arguments) {
        const auto *v = e.as<Halide::Internal::Variable>();
        result.emplace_back(v ? v->name : "zero");
    }
    return result;
}

void define(Func &f, const std::vector<Var> &arguments, const std::vector<Expr> &values) {
    if (values.size() == 1)
        f(arguments) = values[0];
    else
        f(arguments) = Halide::Tuple(values);
}

std::vector<Expr> values_of(const Func &f, const std::vector<Expr> &arguments, size_t count) {
    std::vector<Expr> result;
    for (size_t i = 0; i < count; i++) result.push_back(count == 1 ? Expr(f(arguments)) : Expr(f(arguments)[i]));
    return result;
}

namespace {

class Builder {
public:
    Builder(const Program &program, const PointwiseArguments &arguments) : build_(program, arguments) {}

    std::vector<Func> build() {
        const std::vector<int> &outputs = build_.program.outputs;
        if (outputs_share_func(build_.program)) return {build_group(outputs)};
        // Plain outputs first: a sum reads what is stored anyway.
        std::vector<Func> result(outputs.size());
        for (bool sums : {false, true})
            for (size_t i = 0; i < outputs.size(); i++) {
                if (is_sum(build_.program.statements[outputs[i]]) != sums) continue;
                result[i] = build_group({outputs[i]});
                if (sums) continue;
                result[i].compute_root();
                build_.evaluator.read_from(outputs[i], result[i]);
            }
        return result;
    }

private:
    Func build_group(const std::vector<int> &group) {
        build_.evaluator.next_consumer();
        const bool sums = is_sum(build_.program.statements[group[0]]);
        const ProgramShape &space = output_space(build_.program, group[0]);
        if (space.is_block()) return sums ? block_sums(build_, group, space) : block_map(build_, group, space);
        return sums ? whole_sums(build_, group, space) : whole_map(build_, group, space);
    }

    PointwiseBuild build_;
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

std::vector<int> output_extents(const Program &program, int statement, int lanes, int blocks) {
    const ProgramStatement &s = program.statements[statement];
    std::vector<int> extents = buffer_extents(s.shape, lanes, blocks);
    const bool sum_of_block = is_sum(s) && output_space(program, statement).is_block() && !s.shape.is_block();
    if (blocks > 0 || !sum_of_block) return extents;
    if (s.shape.rank() == 1) extents.push_back(1);
    extents.back() = 0;
    return extents;
}

std::vector<Func> build_pointwise(const Program &program, const PointwiseArguments &arguments) {
    return Builder(program, arguments).build();
}

} // namespace cryolite
