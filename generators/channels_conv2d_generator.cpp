// Generator `channels_conv2d`: convolutions and linear layers of one sample, a program behind them (kernels.md,
// "Channels"). Share of the FMA peak of one Zen 3 core (AVX2, 104 GFLOP/s), direct: 3x3 64 -> 64 @ 32: 93%, 128 @ 16:
// 88%; 1x1 24 -> 144 @ 24: 88%, 144 -> 24: 90%. Weights that no cache holds, inside resnet18_cifar's and resnet50's
// inference of one image, two threads (and without chunks and prefetches): 3x3 512 @ 4: 86% (55%), stride 2 256 -> 512
// @ 8: 84% (48%), 1x1 1024 -> 256 @ 7: 85% (63%), 2048 -> 512 @ 4: 75% (50%).
#include "channels_algorithm.h"
#include "channels_kernel.h"
#include "lanes.h"
#include "prefetch.h"
#include "scratch.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::Var;

class ChannelsConv2d : public Halide::Generator<ChannelsConv2d> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 1}, s{"s", 1},
        stride{"stride", 1}, padding{"padding", 0}, groups{"groups", 1}, pool{"pool", 1}, vector{"vector", 8};
    GeneratorParam<int> m{"m", 0}, rows{"rows", 1}, channels{"channels", 1}, vectors{"vectors", 1}, tile_x{"tile_x", 1},
        tile_y{"tile_y", 1}, chunk{"chunk", 0};
    GeneratorParam<bool> bias{"bias", false};
    GeneratorParam<std::string> program{"program", ""}, places{"places", ""};
    Input<int> tile{"tile"};
    Input<Buffer<float, 3>> x{"x"};
    Input<Buffer<float, 5>> u{"u"};

    void configure() {
        program_ = parse_channels_program(program);
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
        for (size_t i = 1; i < program_.inputs.size(); i++) {
            const ProgramStatement &statement = program_.statements[size_t(program_.inputs[i])];
            const int rank = statement.shape.is_block() ? 3 : std::max(1, statement.shape.rank());
            inputs_[program_.inputs[i]] = add_input<Buffer<float>>(statement.name, rank);
        }
        find_query();
        if (query_.scratch(task_) > 0) scratch_ = add_output<Buffer<float>>("scratch", 1);
        y_ = add_output<Buffer<float>>("y", 3);
    }

    void generate() {
        set_shapes();
        const ChannelsConv &q = query_;
        const int split_rows = q.ho / task_.rows;
        Expr first_row = split_rows > 1 ? tile * task_.rows : Expr(0);                        // of the result
        Expr first_read = split_rows > 1 ? tile * (task_.rows * q.pool * q.stride) : Expr(0); // row of the padded x
        // Local rows: 0 is the task's first.
        Var channel("channel"), px("px"), py("py");
        const ChannelsSource source{q, task_, x, u, bias_ ? Func(*bias_) : Func(), first_read, is_planar()};
        algorithm_ = q.m           ? channels_winograd(source)
                     : task_.chunk ? channels_in_chunks(source)
                                   : channels_direct(source);
        Evaluator evaluator(program_, 1, reader(algorithm_->product(), first_row), {});
        const ProgramShape &shape = program_.statements[size_t(program_.outputs[0])].shape;
        Func out("out"), elements = stage_elements(evaluator);
        out(channel, px, py) = evaluator.value(program_.outputs[0], point_at(shape, channel, px, py));
        *y_ = out;
        set_place(out.output_buffer(), {task_.channels, q.wo, task_.rows}, parse_places(places).back());
        if (scratch_) {
            Func scratch("scratch_values");
            Var e("e");
            scratch(e) = Halide::undef<float>();
            *scratch_ = scratch;
            scratch_name_ = scratch;
        }
        algorithm_->schedule(out, channel, px, py);
        schedule_staged(evaluator, out, Var("xo"));
        if (elements.defined()) schedule_elements(elements, out);
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<ChannelsConv2d>::build_pipeline();
        if (scratch_) place_in_scratch(pipeline, scratch_name_.name(), query_.scratch(task_), algorithm_->in_scratch());
        if (!query_.depthwise()) prefetch_weights(pipeline, "u");
        return pipeline;
    }

private:
    // Of a sum in half of a vector, what a window behind it reads, if that is costly: made for two pixels at once,
    // which for LeNet, one image, is 1.06 times as fast (Zen 5). Undefined: no such thing.
    Func stage_elements(Evaluator &evaluator) {
        const ChannelsConv &q = query_;
        if (q.pool != 2 || q.m || task_.chunk || task_.vectors > 1 || 2 * q.vector != natural_vector_size<float>())
            return {};
        const bool pays = std::any_of(program_.statements.begin(), program_.statements.end(), is_polynomial);
        auto window = std::find_if(program_.statements.begin(), program_.statements.end(), is_pool);
        if (!pays || window == program_.statements.end()) return {};
        const int read = window->operands[0].statement;
        if (read < 0 || program_.statements[size_t(read)].is_input()) return {};
        Func elements("elements");
        elements(lane_, column_, row_, channel_, block_) =
            evaluator.value(read, {lane_, {block_, channel_, row_, column_}});
        evaluator.read_from(read, elements);
        return elements;
    }
    void schedule_elements(Func elements, Func out) {
        Var both("both");
        elements.compute_at(out, Var("xo")).store_in(Halide::MemoryType::Stack);
        elements.bound_extent(channel_, query_.vector).bound_extent(column_, 2 * task_.tile_x);
        elements.bound_extent(row_, 2 * task_.tile_y).bound_extent(lane_, 1).bound_extent(block_, 1);
        elements.reorder_storage(channel_, column_, row_, lane_, block_);
        elements.reorder(channel_, column_, row_, lane_, block_).fuse(channel_, column_, both);
        elements.vectorize(both, 2 * query_.vector).unroll(both).unroll(row_);
    }

    void find_query() {
        const std::vector<int> result = image_extents(program_.statements[size_t(program_.outputs[0])].shape);
        query_ = {c, h, w, k, r, s, stride, padding, groups, pool, result[2], result[1], vector, m};
        task_ = {rows, channels, vectors, tile_x, tile_y, chunk};
    }
    bool is_planar() { return parse_places(places).at(0).c != 1; }
    void set_shapes() {
        const std::vector<ChannelsPlace> list = parse_places(places);
        const ChannelsConv &q = query_;
        const int block = task_.block(q), blocks = task_.blocks(q);
        set_place(x, {q.depthwise() ? task_.channels : q.c, q.w, q.h}, list.at(0));
        if (q.m)
            set_dense(u, {block, q.c, q.t() * q.t(), 1, blocks});
        else
            set_dense(u, {block, q.c / q.groups, q.s, q.r, blocks});
        if (bias_) set_dense(*bias_, {block * blocks});
        size_t at = 1;
        for (size_t i = 1; i < program_.inputs.size(); i++) {
            const int index = program_.inputs[i];
            const ProgramShape &shape = program_.statements[size_t(index)].shape;
            std::vector<int> extents = shape.is_block() ? image_extents(shape) : buffer_extents(shape, 1, 1);
            const size_t channel = shape.is_block() ? 0 : extents.size() > 2 ? extents.size() - 2 : 0;
            if (extents[channel] == q.k) extents[channel] = task_.channels;
            if (shape.is_block())
                set_place(*inputs_.at(index), extents, list.at(at++));
            else
                set_dense(*inputs_.at(index), extents);
        }
    }

    Evaluator::Input reader(Func sum, Expr first_row) {
        return [=, this](int statement, const std::vector<Expr> &arguments) -> Expr {
            const ProgramShape &shape = program_.statements[size_t(statement)].shape;
            if (!shape.is_block()) return (*inputs_.at(statement))(arguments);
            std::vector<Expr> at = image_arguments(arguments);
            if (statement == program_.inputs[0]) return sum(at);
            if (shape.rank() > 2 && shape.dims[2] > 1)
                at[2] = at[2] + first_row * (shape.dims[2] > query_.ho ? query_.pool : 1);
            return (*inputs_.at(statement))(at);
        };
    }

    Program program_;
    Var lane_{"lane"}, column_{"column"}, row_{"row"}, channel_{"element_channel"}, block_{"block"};
    ChannelsConv query_;
    ChannelsConv::Schedule task_;
    std::unique_ptr<ChannelsAlgorithm> algorithm_;
    Func scratch_name_;
    std::map<int, Halide::GeneratorInput<Buffer<float>> *> inputs_;
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
    Halide::GeneratorOutput<Buffer<float>> *scratch_ = nullptr, *y_ = nullptr;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::ChannelsConv2d, channels_conv2d)
