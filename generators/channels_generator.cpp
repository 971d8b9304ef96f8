// Generators `channels_map`, a program of one sample, and `channels_weight`, weights in the order in which
// channels_conv2d reads them (kernels.md, "Channels").
#include "channels_kernel.h"
#include "lanes.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

// Weights [k,c,r,s] in the order in which channels_conv2d reads them; what fills the last block up is 0.
class ChannelsWeight : public Halide::Generator<ChannelsWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, k{"k", 1}, r{"r", 1}, s{"s", 1}, block{"block", 8};
    Input<Buffer<float, 4>> weight{"weight"};
    Output<Buffer<float, 5>> u{"u"};

    void generate() {
        const int outputs = k, width = block;
        set_dense(weight, {s, r, c, outputs});
        set_dense(u, {width, c, s, r, ceil_div(outputs, width)});
        Var e("e"), i("i"), kx("kx"), ky("ky"), b("b");
        Expr channel = b * width + e;
        Expr value = weight(kx, ky, i, outputs % width ? min(channel, outputs - 1) : channel);
        u(e, i, kx, ky, b) = outputs % width ? Halide::select(channel < outputs, value, 0.f) : value;
        Func(u).never_partition_all();
        if (s > 1 || r > 1) Func(u).reorder(kx, ky, e, i, b);
    }
};

// A program of one sample. Sums run over channels and pixels.
class ChannelsMap : public Halide::Generator<ChannelsMap> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, vector{"vector", 8}, rows{"rows", 0};
    GeneratorParam<std::string> program{"program", ""}, places{"places", ""};
    Input<int> tile{"tile"};

    void configure() {
        program_ = parse_channels_program(program);
        for (int index : program_.inputs) {
            const ProgramShape &shape = program_.statements[size_t(index)].shape;
            inputs_[index] = add_input<Buffer<float>>(program_.statements[size_t(index)].name,
                                                      shape.is_block() ? 3 : std::max(1, shape.rank()));
        }
        for (int index : program_.outputs)
            outputs_.push_back(add_output<Buffer<float>>("output_" + program_.statements[size_t(index)].name, 3));
    }

    void generate() {
        const std::vector<ChannelsPlace> list = parse_places(places);
        size_t at = 0;
        for (int index : program_.inputs) {
            const ProgramShape &shape = program_.statements[size_t(index)].shape;
            if (shape.is_block())
                set_place(*inputs_.at(index), image_extents(shape), list.at(at++));
            else
                set_dense(*inputs_.at(index), buffer_extents(shape, 1, 1));
        }
        Evaluator::Input input = [this](int statement, const std::vector<Expr> &arguments) -> Expr {
            const bool block = program_.statements[size_t(statement)].shape.is_block();
            return (*inputs_.at(statement))(block ? image_arguments(arguments) : arguments);
        };
        for (size_t i = 0; i < outputs_.size(); i++) {
            Evaluator evaluator(program_, 1, input, {});
            *outputs_[i] = build(evaluator, program_.outputs[i], list.at(at++));
        }
    }

private:
    Func build(Evaluator &evaluator, int index, const ChannelsPlace &place) {
        const ProgramStatement &statement = program_.statements[size_t(index)];
        const bool sum = statement.op == "sum";
        std::vector<int> extents = image_extents(statement.shape);
        const bool split = rows > 0 && rows < extents[2];
        Var ch("ch"), px("px"), py("py"), outer("outer");
        Func out("out");
        Expr row = split ? py + tile * int(rows) : Expr(py);
        if (split) extents[2] = rows;
        if (sum)
            out(ch, px, py) = summed(evaluator, statement, out, ch, px, py)(ch, px, py);
        else
            out(ch, px, py) = evaluator.value(index, point_at(statement.shape, ch, px, row));
        set_place(out.output_buffer(), extents, place);
        // Along what is contiguous, where there is enough of it.
        const int inner = place.c == 1 && (extents[0] >= 4 || extents[1] == 1) ? 0 : 1;
        Var dims[] = {ch, px, py};
        const int width = sum && summed_channels_ ? 1 : vector_width(extents[size_t(inner)], vector);
        out.split(dims[inner], outer, dims[inner], width, TailStrategy::ShiftInwards);
        if (inner == 0)
            out.reorder(ch, outer, px, py);
        else
            out.reorder(px, outer, py, ch);
        out.vectorize(dims[inner]).never_partition_all();
        if (sums_.defined()) {
            sums_.compute_at(out, outer).store_in(Halide::MemoryType::Stack);
            if (width > 1) {
                sums_.vectorize(sums_.args()[size_t(inner)], width);
                std::vector<Halide::VarOrRVar> order{sums_.args()[size_t(inner)]};
                for (int i = 0; i < sum_domain_.dimensions(); i++) order.push_back(sum_domain_[i]);
                sums_.update().reorder(order).vectorize(sums_.args()[size_t(inner)], width);
            }
            schedule_staged(evaluator, sums_, sum_domain_[0]);
        } else {
            schedule_staged(evaluator, out, outer);
        }
        sums_ = Func();
        return out;
    }

    Func summed(Evaluator &evaluator, const ProgramStatement &statement, Func, Var ch, Var px, Var py) {
        const int operand = statement.operands[0].statement;
        const ProgramShape &space = program_.statements[size_t(operand)].shape;
        Halide::Region domain;
        for (int axis : statement.axes) domain.emplace_back(0, space.dims[size_t(axis)]);
        RDom r(domain);
        Expr coordinates[] = {0, ch, py, px};
        summed_channels_ = false;
        for (size_t i = 0; i < statement.axes.size(); i++) {
            coordinates[statement.axes[i]] = r[int(i)];
            summed_channels_ = summed_channels_ || statement.axes[i] == 1;
        }
        Func f("sums");
        f(ch, px, py) = 0.f;
        Expr term = evaluator.value(operand, point_at(space, coordinates[1], coordinates[3], coordinates[2]));
        for (int i = 0; i < r.dimensions(); i++) // Halide loops over what an update names
            if (!Halide::Internal::expr_uses_var(term, r[i].name())) term = Halide::select(r[i] >= 0, term, 0.f);
        f(ch, px, py) += term;
        sums_ = f;
        sum_domain_ = r;
        return f;
    }

    Program program_;
    Func sums_;
    RDom sum_domain_;
    bool summed_channels_ = false;
    std::map<int, Halide::GeneratorInput<Buffer<float>> *> inputs_;
    std::vector<Halide::GeneratorOutput<Buffer<float>> *> outputs_;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::ChannelsMap, channels_map)
HALIDE_REGISTER_GENERATOR(cryolite::ChannelsWeight, channels_weight)
