// Generator `conv2d_winograd_grad_weight` (kernels.md): F(r x r, m x m), whose window is the gradient of an output
// Effective GFLOP/s on one Zen 3 core, AVX2, FMA peak 104, other programs running (bench/winograd_bench), and direct
// convolution's: 3x3 by F(4, 3) 64 -> 64 @ 32: 123 (45), 128 @ 16: 140 (46), 256 @ 8: 139 (48), 128 @ 28: 144 (45).
// Sums over lanes, once a group of tiles, and transformed tiles beyond L2 keep it at 40% of the peak. tile.
#include "lanes.h"
#include "scratch.h"
#include "winograd_transform.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

// Tiles of all blocks are taken in groups: both sides are transformed, then for every point each pair of channels gets
// its products over the group and the lanes. The sums over groups are transformed back once.
class Conv2dWinogradGradWeight : public Halide::Generator<Conv2dWinogradGradWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 3}, padding{"padding", 0},
        m{"m", 4}, tile{"tile", 1};
    Input<int> batch{"batch"};
    Input<Buffer<float, 5>> x{"x"}, dy{"dy"};
    Output<Buffer<float, 1>> scratch{"scratch"};
    Output<Buffer<float, 4>> dw{"dw"};

    void generate() {
        const WinogradConv q = shape();
        const WinogradGradWeight s = winograd_grad_weight(q, tile);
        const int t = q.t(), columns = tile;
        set_dense(x, {q.lanes, q.w, q.h, q.c, 0});
        set_dense(dy, {q.lanes, q.wo(), q.ho(), columns, 0});
        leave_block_stride(x);
        leave_block_stride(dy);
        set_dense(dw, {q.r, q.r, q.c, columns});
        set_dense(scratch, {int(s.scratch_elements)});

        Var l("l"), ti("ti"), ci("ci"), ko("ko"), px("px"), py("py"), g("g"), e("e"), ct("ct"), kt("kt");
        transform_sides(q, s, l, ti, ci, ko, px, py, g);

        // Products of a register tile, in lanes; their sums over lanes.
        Func sum("sum");
        RDom rt(0, s.group);
        Expr row = ct * s.tile_c + e % s.tile_c, column = kt * s.tile_k + e / s.tile_c;
        sum(l, e, ct, kt, px, py, g) = nothing();
        sum(l, e, ct, kt, px, py, g) += input_(l, rt, row, px, py, g) * gradient_(l, rt, column, px, py, g);
        LaneSums lane_sums(sum, q.lanes, s.tile_c * s.tile_k, {ct, kt, px, py, g});
        RDom rg(0, (blocks() * q.tiles() + s.group - 1) / s.group);
        Expr place = ci % s.tile_c + s.tile_c * (ko % s.tile_k);
        total_(ci, ko, px, py) = 0.f;
        total_(ci, ko, px, py) += lane_sums.result()(place, ci / s.tile_c, ko / s.tile_k, px, py, rg);

        // Back to windows.
        const Matrix output = winograd_matrices(q.r, q.m).output;
        Func rows("rows");
        Var i("i"), sx("s"), ry("r"), co("co"), cv("cv");
        Exprs across, down;
        for (int at = 0; at < t; at++) across.push_back(total_(ci, ko, at, py));
        rows(ci, ko, sx, py) = mux(sx, transform(output, across));
        for (int at = 0; at < t; at++) down.push_back(rows(ci, ko, sx, at));
        dw(sx, ry, ci, ko) = mux(ry, transform(output, down));

        scratch(e) = Halide::undef<float>();

        // Schedule.
        const int width = vector_width(q.c, q.lanes);
        Func out = dw;
        out.split(ci, co, cv, width, TailStrategy::ShiftInwards).reorder(cv, sx, ry, co, ko).vectorize(cv);
        out.unroll(sx).unroll(ry).never_partition_all();
        rows.compute_at(out, co).bound_extent(ci, width).vectorize(ci, width).unroll(sx).unroll(py);
        total_.compute_root().bound(ci, 0, s.padded_c).bound(ko, 0, s.padded_k);
        total_.vectorize(ci, s.tile_c);
        Var io("io"), ii("ii"), oo("oo"), oi("oi");
        auto update = total_.update();
        update.split(ci, io, ii, s.tile_c).split(ko, oo, oi, s.tile_k).reorder(ii, oi, io, oo, px, py, rg.x);
        update.vectorize(ii).unroll(oi).never_partition_all();
        lane_sums.compute_at(total_, io);
        sum.compute_at(total_, io).bound(l, 0, q.lanes).bound(e, 0, s.tile_c * s.tile_k);
        sum.vectorize(l, q.lanes).unroll(e);
        sum.update().reorder(l, e, rt).vectorize(l, q.lanes).unroll(e).never_partition_all();
        schedule_side(input_, input_rows_, s.padded_c, q.lanes, l, px, py, ti, ci, rg.x);
        schedule_side(gradient_, gradient_rows_, s.padded_k, q.lanes, l, px, py, ti, ko, rg.x);
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Conv2dWinogradGradWeight>::build_pipeline();
        place_in_scratch(pipeline, scratch, winograd_grad_weight(shape(), tile).scratch_elements,
                         {input_, gradient_, total_});
        return pipeline;
    }

private:
    WinogradConv shape() const {
        WinogradConv q{resolve_lanes(get_target(), lanes), c, h, w, k, r, padding, m};
        if (winograd_points(q.t()).empty() || q.padding < 0 || q.ho() < 1 || q.wo() < 1)
            throw Halide::CompileError("no Winograd convolution for this window, tile and padding");
        return q;
    }
    Expr blocks() { return (batch + shape().lanes - 1) / shape().lanes; }

    // B^T x B and G dy G^T of the tiles of group g. What the last group has too much is zero on the gradient's side.
    void transform_sides(const WinogradConv &q, const WinogradGradWeight &s, Var l, Var ti, Var ci, Var ko, Var px,
                         Var py, Var g) {
        const int t = q.t();
        Expr number = g * s.group + ti;
        Expr block = min(number / q.tiles(), blocks() - 1), at_tile = number % q.tiles();
        Expr left = at_tile % q.tiles_x() * q.m, top = at_tile / q.tiles_x() * q.m;
        Var i("i");
        auto inside = [](const Expr &at, int extent) { return at >= 0 && at < extent; };

        Exprs in, down;
        for (int at = 0; at < t; at++) {
            Expr column = left + at - q.padding, line = top + i - q.padding;
            Expr value = x(l, clamp(column, 0, q.w - 1), clamp(line, 0, q.h - 1), min(ci, q.c - 1), block);
            if (q.leaves_x(at)) value = select(inside(column, q.w), value, 0.f);
            in.push_back(value);
        }
        const Matrix input = winograd_matrices(q.m, q.r).input;
        input_rows_(l, px, i, ti, ci, g) = mux(px, transform(input, in));
        for (int at = 0; at < t; at++) {
            Expr value = input_rows_(l, px, at, ti, ci, g);
            if (q.leaves_y(at)) value = select(inside(top + at - q.padding, q.h), value, 0.f);
            down.push_back(value);
        }
        input_(l, ti, ci, px, py, g) = mux(py, transform(input, down));

        Exprs taps, lines;
        for (int at = 0; at < q.m; at++) {
            Expr column = left + at, line = top + i;
            Expr value = dy(l, min(column, q.wo() - 1), min(line, q.ho() - 1), min(ko, tile - 1), block);
            if ((q.tiles_x() - 1) * q.m + at >= q.wo()) value = select(column < q.wo(), value, 0.f);
            taps.push_back(value);
        }
        const Matrix window = winograd_matrices(q.r, q.m).weight;
        gradient_rows_(l, px, i, ti, ko, g) = mux(px, transform(window, taps));
        for (int at = 0; at < q.m; at++) {
            Expr real = number < blocks() * q.tiles(), value = gradient_rows_(l, px, at, ti, ko, g);
            if ((q.tiles_y() - 1) * q.m + at >= q.ho()) real = real && top + at < q.ho();
            lines.push_back(select(real, value, 0.f));
        }
        gradient_(l, ti, ko, px, py, g) = mux(py, transform(window, lines));
    }

    void schedule_side(Func side, Func rows, int channels, int lanes, Var l, Var px, Var py, Var ti, Var channel,
                       const Halide::RVar &group) {
        side.compute_at(total_, group).bound(channel, 0, channels).align_storage(channel, channels + 1);
        side.reorder(l, px, py, ti, channel).vectorize(l, lanes).unroll(px).unroll(py).never_partition_all();
        rows.compute_at(side, ti).vectorize(l, lanes).unroll(px).unroll(rows.args()[2]).never_partition_all();
    }

    Func input_{"input"}, input_rows_{"input_rows"}, gradient_{"gradient"}, gradient_rows_{"gradient_rows"},
        total_{"total"};
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dWinogradGradWeight, conv2d_winograd_grad_weight)
