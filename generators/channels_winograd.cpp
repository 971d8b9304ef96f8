// `channels_conv2d` by Winograd: transformed input, products that are one matrix multiplication a point, output
// transform; winograd_generator.cpp with channels instead of lanes.
#include "channels_algorithm.h"
#include "lanes.h"
#include "winograd_transform.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

class Winograd : public ChannelsAlgorithm {
public:
    explicit Winograd(ChannelsSource source) : source_(std::move(source)) {}

    Func product() override {
        const ChannelsConv &q = source_.conv;
        const int block = source_.task.block(q), size = q.m, t = q.t(), across = q.tiles_x();
        const WinogradMatrices matrices = winograd_matrices(size, q.r);
        Var ch("ch"), n("n"), kx("kx"), ky("ky"), i("i"), ix("ix"), channel("channel"), px("px"), py("py");
        Exprs in, down, along, up;
        // Columns, and later rows, of some tile that lie outside of the image.
        auto leaves = [&](int at, int tiles, int extent) {
            return at < q.padding || (tiles - 1) * size + at - q.padding >= extent;
        };
        auto row_of = [&](const Expr &at) { return n / across * size + at + source_.first_row - q.padding; };
        for (int at = 0; at < t; at++) {
            Expr column = n % across * size + at - q.padding;
            Expr value = source_.x(ch, clamp(column, 0, q.w - 1), clamp(row_of(i), 0, q.h - 1));
            if (leaves(at, across, q.w)) value = Halide::select(column >= 0 && column < q.w, value, 0.f);
            in.push_back(value);
        }
        lines_(ch, kx, i, n) = mux(kx, transform(matrices.input, in));
        for (int at = 0; at < t; at++) {
            Expr value = lines_(ch, kx, at, n), row = row_of(at);
            if (leaves(at, q.tiles_y(q.ho), q.h)) value = Halide::select(row >= 0 && row < q.h, value, 0.f);
            down.push_back(value);
        }
        input_(ch, n, kx, ky) = mux(ky, transform(matrices.input, down));
        d_ = RDom(0, q.c);
        sum_(channel, n, kx, ky) = nothing();
        sum_(channel, n, kx, ky) +=
            source_.u(channel % block, d_, kx + t * ky, 0, channel / block) * input_(d_, n, kx, ky);
        products_(channel, n, kx, ky) = sum_(channel, n, kx, ky);
        for (int at = 0; at < t; at++) along.push_back(products_(channel, n, at, ky));
        columns_(channel, ix, ky, n) = mux(ix, transform(matrices.output, along));
        for (int at = 0; at < t; at++) up.push_back(columns_(channel, px % size, at, px / size + across * (py / size)));
        Expr value = mux(py % size, transform(matrices.output, up));
        Func product("product");
        product(channel, px, py) = source_.bias.defined() ? value + source_.bias(channel) : value;
        return product;
    }

    void schedule(Func out, Var channel, Var px, Var py) override {
        const ChannelsConv &q = source_.conv;
        const ChannelsConv::Schedule &task = source_.task;
        const int block = task.block(q), v = q.vector;
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), xo("xo"), xi("xi"), yo("yo"), yi("yi"), no("no"), ni("ni");
        const TailStrategy whole = TailStrategy::RoundUp;
        out.split(channel, co, ci, block, whole).split(ci, cv, cl, v, whole);
        // Pixels of the last tiles may lie outside.
        const TailStrategy column = q.wo % q.m ? TailStrategy::GuardWithIf : whole;
        const TailStrategy row = q.ho % q.m ? TailStrategy::GuardWithIf : whole;
        out.split(px, xo, xi, q.m, column).split(py, yo, yi, q.m, row);
        out.reorder(cl, xi, yi, cv, xo, yo, co).vectorize(cl).unroll(xi).unroll(yi).never_partition_all();
        columns_.compute_at(out, cv).vectorize(columns_.args()[0], v).unroll(columns_.args()[1]);
        columns_.unroll(columns_.args()[2]);
        const std::vector<Var> p = products_.args(); // channel, tile, point
        products_.compute_at(out, co).bound_extent(p[0], block).align_storage(p[1], q.stored_tiles(task));
        products_.split(p[1], no, ni, task.tile_x, whole).split(p[0], cv, cl, v, whole);
        products_.reorder(cl, cv, ni, no, p[2], p[3]).vectorize(cl).unroll(cv).unroll(ni).never_partition_all();
        sum_.compute_at(products_, no).split(p[0], cv, cl, v, whole).reorder(cl, cv, p[1]);
        sum_.vectorize(cl).unroll(cv).unroll(p[1]);
        auto update = sum_.update();
        update.split(p[0], cv, cl, v, whole);
        order_register_tile(update, cl, cv, {p[1]}, task.vectors > task.tile_x, d_);
        if (task.vectors >= 2 && task.vectors <= 3) update.unroll(d_, 2);
        const std::vector<Var> a = input_.args(); // channel, tile, point
        input_.compute_root().align_storage(a[1], q.stored_tiles(task)).split(a[0], cv, cl, v, whole);
        input_.reorder(cl, a[2], a[3], cv, a[1]).vectorize(cl).unroll(a[2]).unroll(a[3]).never_partition_all();
        lines_.compute_at(input_, cv).vectorize(lines_.args()[0], v).unroll(lines_.args()[1]).unroll(lines_.args()[2]);
    }

    std::vector<Func> in_scratch() const override { return {input_, products_}; }

private:
    ChannelsSource source_;
    Func lines_{"lines"}, input_{"input"}, sum_{"sum"}, products_{"products"}, columns_{"columns"};
    RDom d_;
};

} // namespace

std::unique_ptr<ChannelsAlgorithm> channels_winograd(const ChannelsSource &source) {
    return std::make_unique<Winograd>(source);
}

} // namespace cryolite
