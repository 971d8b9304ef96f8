// Generator `channels_conv2d`: convolutions and linear layers of one sample, a program behind them (kernels.md,
// "Channels"). Share of the FMA peak of one Zen 3 core (AVX2, 104 GFLOP/s), direct: 3x3 64 -> 64 @ 32: 93%, 128 @ 16:
// 88%; 1x1 24 -> 144 @ 24: 88%, 144 -> 24: 90%. Weights that no cache holds, inside resnet18_cifar's and resnet50's
// inference of one image, two threads (and without chunks and prefetches): 3x3 512 @ 4: 86% (55%), stride 2 256 -> 512
// @ 8: 84% (48%), 1x1 1024 -> 256 @ 7: 85% (63%), 2048 -> 512 @ 4: 75% (50%).
#include "channels_kernel.h"
#include "lanes.h"
#include "prefetch.h"
#include "schedule.h"
#include "scratch.h"
#include "winograd_transform.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

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
        Func product = q.m ? winograd(first_read) : task_.chunk ? in_chunks(first_read) : direct(first_read);
        Evaluator evaluator(program_, 1, reader(product, first_row), {});
        const ProgramShape &shape = program_.statements[size_t(program_.outputs[0])].shape;
        Func out("out");
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
        if (q.m)
            schedule_winograd(out, channel, px, py);
        else if (task_.chunk)
            schedule_chunks(out, channel, px, py);
        else
            schedule(out, product, channel, px, py);
        schedule_staged(evaluator, out, Var("xo"));
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<ChannelsConv2d>::build_pipeline();
        if (scratch_) {
            const std::vector<Func> large =
                query_.m ? std::vector<Func>{input_, products_} : std::vector<Func>{padded_};
            place_in_scratch(pipeline, scratch_name_.name(), query_.scratch(task_), large);
        }
        if (!query_.depthwise()) prefetch_weights(pipeline, "u");
        return pipeline;
    }

private:
    void find_query() {
        const std::vector<int> result = image_extents(program_.statements[size_t(program_.outputs[0])].shape);
        query_ = {c, h, w, k, r, s, stride, padding, groups, pool, result[2], result[1], vector, m};
        task_ = {rows, channels, vectors, tile_x, tile_y, chunk};
    }
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

    Func direct(Expr first_read) {
        const ChannelsConv &q = query_;
        const int block = task_.block(q);
        Func source = padded(first_read);
        Var channel("channel"), px("px"), py("py");
        d_ = RDom(0, q.c / q.groups, 0, q.s, 0, q.r);
        // With a guarded last block Halide finds no bounds for what is read.
        Expr at = channel;
        if (task_.channels % block) at = unsafe_promise_clamped(channel, 0, block * task_.blocks(q) - 1);
        Expr from = d_.x;
        if (query_.depthwise())
            from = at;
        else if (q.groups > 1)
            from = Halide::min(at, q.k - 1) / (q.k / q.groups) * (q.c / q.groups) + d_.x;
        Func sum("sum");
        sum(channel, px, py) = bias_ ? Expr((*bias_)(at)) : nothing();
        sum(channel, px, py) +=
            u(at % block, d_.x, d_.y, d_.z, at / block) * source(from, px * q.stride + d_.y, py * q.stride + d_.z);
        return sum;
    }

    // One register tile after the other adds a chunk's products to sums that stay in L1 (Schedule::chunk).
    Func in_chunks(Expr first_read) {
        const ChannelsConv &q = query_;
        const int block = task_.block(q), across = q.wo * q.pool, count = q.pixels(task_);
        Func source = padded(first_read);
        Var channel("channel"), p("p"), piece("piece"), column("column"), row("row"), px("px"), py("py");
        d_ = RDom(0, task_.chunk);
        parts_ = RDom(0, q.c / task_.chunk, 0, q.s, 0, q.r);
        Expr from = piece * task_.chunk + d_, pixel = count % task_.tile_x ? Expr(min(p, count - 1)) : Expr(p);
        sum_(channel, p, piece, column, row) = nothing();
        sum_(channel, p, piece, column, row) +=
            u(channel % block, from, column, row, channel / block) *
            source(from, pixel % across * q.stride + column, pixel / across * q.stride + row);
        total_(channel, p) = bias_ ? Expr((*bias_)(channel)) : nothing();
        total_(channel, p) += sum_(channel, p, parts_.x, parts_.y, parts_.z);
        Func product("product");
        product(channel, px, py) = total_(channel, px + across * py);
        return product;
    }

    void schedule_chunks(Func out, Var channel, Var px, Var py) {
        const ChannelsConv &q = query_;
        const int block = task_.block(q), v = q.vector;
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), po("po"), pi("pi"), p = total_.args()[1];
        const TailStrategy whole = TailStrategy::RoundUp;
        out.split(channel, co, ci, block, whole).split(ci, cv, cl, v, whole).reorder(cl, cv, px, py, co);
        out.vectorize(cl).unroll(cv).never_partition_all();
        total_.compute_at(out, co).store_in(Halide::MemoryType::Stack).bound_extent(channel, block);
        total_.bound_extent(p, ceil_div(q.pixels(task_), task_.tile_x) * task_.tile_x)
            .vectorize(channel, v)
            .unroll(channel);
        auto total = total_.update();
        total.split(channel, cv, cl, v, whole).split(p, po, pi, task_.tile_x, whole);
        total.reorder(cl, cv, pi, po, parts_.x, parts_.y, parts_.z).vectorize(cl).unroll(cv).unroll(pi);
        total.never_partition_all();
        sum_.compute_at(total_, po).bound_extent(channel, block).bound_extent(p, task_.tile_x);
        sum_.vectorize(channel, v).unroll(channel).unroll(p);
        auto update = sum_.update();
        update.split(channel, cv, cl, v, whole);
        if (task_.vectors > task_.tile_x)
            update.reorder(cl, p, cv, d_);
        else
            update.reorder(cl, cv, p, d_);
        update.vectorize(cl).unroll(cv).unroll(p).never_partition_all();
    }

    // Transformed input, products one matrix multiplication a point, output transform: winograd_generator.cpp with
    // channels instead of lanes.
    Func winograd(Expr first_read) {
        const ChannelsConv &q = query_;
        const int block = task_.block(q), size = q.m, t = q.t(), across = q.wo / size;
        const WinogradMatrices matrices = winograd_matrices(size, q.r);
        Var ch("ch"), n("n"), kx("kx"), ky("ky"), i("i"), ix("ix"), channel("channel"), px("px"), py("py");
        Exprs in, down, along, up;
        // Columns, and later rows, of some tile that lie outside of the image.
        auto leaves = [&](int at, int tiles, int extent) {
            return at < q.padding || (tiles - 1) * size + at - q.padding >= extent;
        };
        auto row_of = [&](const Expr &at) { return n / across * size + at + first_read - q.padding; };
        for (int at = 0; at < t; at++) {
            Expr column = n % across * size + at - q.padding;
            Expr value = x(ch, clamp(column, 0, q.w - 1), clamp(row_of(i), 0, q.h - 1));
            if (leaves(at, across, q.w)) value = Halide::select(column >= 0 && column < q.w, value, 0.f);
            in.push_back(value);
        }
        lines_(ch, kx, i, n) = mux(kx, transform(matrices.input, in));
        for (int at = 0; at < t; at++) {
            Expr value = lines_(ch, kx, at, n), row = row_of(at);
            if (leaves(at, q.ho / size, q.h)) value = Halide::select(row >= 0 && row < q.h, value, 0.f);
            down.push_back(value);
        }
        input_(ch, n, kx, ky) = mux(ky, transform(matrices.input, down));
        d_ = RDom(0, q.c);
        sum_(channel, n, kx, ky) = nothing();
        sum_(channel, n, kx, ky) += u(channel % block, d_, kx + t * ky, 0, channel / block) * input_(d_, n, kx, ky);
        products_(channel, n, kx, ky) = sum_(channel, n, kx, ky);
        for (int at = 0; at < t; at++) along.push_back(products_(channel, n, at, ky));
        columns_(channel, ix, ky, n) = mux(ix, transform(matrices.output, along));
        for (int at = 0; at < t; at++) up.push_back(columns_(channel, px % size, at, px / size + across * (py / size)));
        Expr value = mux(py % size, transform(matrices.output, up));
        Func product("product");
        product(channel, px, py) = bias_ ? value + (*bias_)(channel) : value;
        return product;
    }

    void schedule_winograd(Func out, Var channel, Var px, Var py) {
        const ChannelsConv &q = query_;
        const int block = task_.block(q), v = q.vector;
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), xo("xo"), xi("xi"), yo("yo"), yi("yi"), no("no"), ni("ni");
        const TailStrategy whole = TailStrategy::RoundUp;
        out.split(channel, co, ci, block, whole).split(ci, cv, cl, v, whole);
        out.split(px, xo, xi, q.m, whole).split(py, yo, yi, q.m, whole);
        out.reorder(cl, xi, yi, cv, xo, yo, co).vectorize(cl).unroll(xi).unroll(yi).never_partition_all();
        columns_.compute_at(out, cv).vectorize(columns_.args()[0], v).unroll(columns_.args()[1]);
        columns_.unroll(columns_.args()[2]);
        const std::vector<Var> p = products_.args(); // channel, tile, point
        products_.compute_at(out, co).bound_extent(p[0], block).align_storage(p[1], q.stored_tiles(task_));
        products_.split(p[1], no, ni, task_.tile_x, whole).split(p[0], cv, cl, v, whole);
        products_.reorder(cl, cv, ni, no, p[2], p[3]).vectorize(cl).unroll(cv).unroll(ni).never_partition_all();
        sum_.compute_at(products_, no).split(p[0], cv, cl, v, whole).reorder(cl, cv, p[1]);
        sum_.vectorize(cl).unroll(cv).unroll(p[1]);
        auto update = sum_.update();
        update.split(p[0], cv, cl, v, whole);
        if (task_.vectors > task_.tile_x)
            update.reorder(cl, p[1], cv, d_);
        else
            update.reorder(cl, cv, p[1], d_);
        update.vectorize(cl).unroll(cv).unroll(p[1]).never_partition_all();
        if (task_.vectors >= 2 && task_.vectors <= 3) update.unroll(d_, 2);
        const std::vector<Var> a = input_.args(); // channel, tile, point
        input_.compute_root().align_storage(a[1], q.stored_tiles(task_)).split(a[0], cv, cl, v, whole);
        input_.reorder(cl, a[2], a[3], cv, a[1]).vectorize(cl).unroll(a[2]).unroll(a[3]).never_partition_all();
        lines_.compute_at(input_, cv).vectorize(lines_.args()[0], v).unroll(lines_.args()[1]).unroll(lines_.args()[2]);
    }

    // Rows of x from the task's first one, with its padding.
    Func padded(Expr first) {
        Var ch("ch"), xx("xx"), yy("yy");
        padded_ = Func("padded");
        const ChannelsConv &q = query_;
        Expr row = yy + first - q.padding, column = xx - q.padding;
        if (q.tests_borders(task_)) {
            const Expr any;
            Func bordered = Halide::BoundaryConditions::constant_exterior(x, 0.f, {{any, any}, {0, q.w}, {0, q.h}});
            padded_(ch, xx, yy) = bordered(ch, column, row);
            return padded_;
        }
        if (!q.copies(task_)) {
            padded_(ch, xx, yy) = x(ch, xx, yy + first);
            return padded_;
        }
        const int channels_read = q.depthwise() ? task_.channels : q.c;
        Expr source = q.channels_copied(task_) > channels_read ? Expr(min(ch, channels_read - 1)) : Expr(ch);
        Expr inside = row >= 0 && row < q.h && column >= 0 && column < q.w;
        padded_(ch, xx, yy) = Halide::select(inside, x(source, clamp(column, 0, q.w - 1), clamp(row, 0, q.h - 1)), 0.f);
        const bool planar = parse_places(places).at(0).c != 1;
        const int extent = planar ? q.columns_read() : q.channels_copied(task_);
        const int width = vector_width(extent, q.vector);
        padded_.compute_root();
        if (planar) padded_.reorder_storage(xx, yy, ch);
        Var inner = planar ? xx : ch;
        if (planar) padded_.reorder(xx, yy, ch);
        // What a guarded block reads may be less than a vector; the copy is not.
        if (width > 1)
            padded_.vectorize(inner, width, extent % width ? TailStrategy::ShiftInwards : TailStrategy::RoundUp);
        return padded_;
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

    void schedule(Func out, Func sum, Var channel, Var px, Var py) {
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), xo("xo"), xi("xi"), yo("yo"), yi("yi");
        const ChannelsConv &q = query_;
        const int block = task_.block(q);
        out.split(channel, co, ci, block, task_.channels % block ? TailStrategy::GuardWithIf : TailStrategy::RoundUp);
        out.split(ci, cv, cl, q.vector, TailStrategy::RoundUp);
        out.split(px, xo, xi, task_.tile_x, TailStrategy::ShiftInwards)
            .split(py, yo, yi, task_.tile_y, TailStrategy::ShiftInwards);
        out.reorder(cl, cv, xi, yi, xo, yo, co).vectorize(cl).unroll(cv).unroll(xi).unroll(yi);
        if (!q.tests_borders(task_)) out.never_partition_all();
        Var sv("sv"), sl("sl");
        sum.compute_at(out, xo).store_in(Halide::MemoryType::Stack).bound_extent(channel, block);
        sum.split(channel, sv, sl, q.vector, TailStrategy::RoundUp).reorder(sl, sv, px, py);
        sum.vectorize(sl).unroll(sv).unroll(px).unroll(py);
        auto update = sum.update();
        update.split(channel, sv, sl, q.vector, TailStrategy::RoundUp);
        // What waits in registers is the fewer of vectors of weights and pixels.
        if (task_.vectors > task_.tile_x * task_.tile_y * q.pool * q.pool)
            update.reorder(sl, px, py, sv, d_.x, d_.y, d_.z);
        else
            update.reorder(sl, sv, px, py, d_.x, d_.y, d_.z);
        update.vectorize(sl).unroll(sv).unroll(px).unroll(py).never_partition_all();
        if (q.depthwise() && q.r * q.s <= 25)
            update.unroll(d_.x).unroll(d_.y).unroll(d_.z);
        else if (q.c == q.groups)
            update.unroll(d_.x).unroll(d_.y);
        else if (q.c / q.groups % 2 == 0 && task_.vectors >= 2 && task_.vectors <= 3) // LLVM spills with others
            update.unroll(d_.x, 2);
    }

    Program program_;
    ChannelsConv query_;
    ChannelsConv::Schedule task_;
    RDom d_, parts_;
    Func padded_, scratch_name_;
    Func lines_{"lines"}, input_{"input"}, sum_{"sum"}, products_{"products"}, columns_{"columns"}; // Winograd's
    Func total_{"total"};
    std::map<int, Halide::GeneratorInput<Buffer<float>> *> inputs_;
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
    Halide::GeneratorOutput<Buffer<float>> *scratch_ = nullptr, *y_ = nullptr;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::ChannelsConv2d, channels_conv2d)
