// Generator `conv2d_winograd_grad_weight` (kernels.md): F(r x r, m x m), whose window is the gradient of an output
// tile. Effective GFLOP/s, one thread, other programs running, 64 samples in large pages, and before channels became
// the vectors' elements: AVX-512, 2 MB L2, FMA peak 240: 3x3 by F(4, 3) 64 -> 64 @ 32: 320 (258), 128 @ 16: 420 (333),
// 256 @ 8: 422 (186), 512 @ 4 by F(2, 3): 295 (105), by F(4, 3) 400. The same machine by AVX2, peak 119: 205 (198), 243
// (223), 255 (118). Transforms take half of the time where an image exceeds L2.
// Zen 4, AVX-512, peak 118 (and without asking for tiles ahead): 64 @ 16: 280 (217), @ 32: 240 (188), 128 @ 16: 285
// (245), 256 @ 8: 315 (272).
#include "gpu.h"
#include "lanes.h"
#include "prefetch.h"
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
        m{"m", 4};
    GeneratorParam<int> weight_c{"weight_c", 0}; // input channels of the whole weight, where c are some of them
    Input<int> batch{"batch"};
    Input<Buffer<float, 5>> x{"x"}, dy{"dy"};
    Output<Buffer<float, 1>> scratch{"scratch"};
    Output<Buffer<float, 4>> dw{"dw"};

    void generate() {
        refuse_gpu(get_target());
        const WinogradConv q = shape();
        const WinogradGradWeight s = winograd_grad_weight(q);
        const int t = q.t();
        set_dense(x, {q.lanes, q.w, q.h, q.c, 0});
        set_dense(dy, {q.lanes, q.wo(), q.ho(), q.k, 0});
        leave_block_stride(x);
        leave_block_stride(dy);
        set_dense(dw, {q.r, q.r, q.c, q.k});
        if (const int whole = weight_c) dw.dim(3).set_stride(q.r * q.r * whole);
        set_dense(scratch, {int(s.scratch_elements)});

        Var l("l"), ti("ti"), ci("ci"), ko("ko"), px("px"), py("py"), g("g"), e("e");
        transform_sides(q, s, l, ti, ci, ko, px, py, g);

        // Products of a register tile. Channels are the vectors' elements, so that no sum runs over a vector.
        Func sum("sum");
        RDom n(0, q.lanes, 0, s.group), rg(0, (blocks() * q.tiles() + s.group - 1) / s.group);
        sum(ci, ko, px, py, g) = nothing();
        sum(ci, ko, px, py, g) += turned_(ci, n.x, n.y, px, py, g) * gradient_(n.x, n.y, ko, px, py, g);
        total_(ci, ko, px, py) = 0.f;
        total_(ci, ko, px, py) += sum(ci, ko, px, py, rg);

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
        const int width = vector_width(q.c, q.lanes), chunk = std::min(s.chunk, q.c);
        Func out = dw;
        Var cc("cc"), cw("cw");
        out.split(ci, cc, cw, chunk, TailStrategy::ShiftInwards).split(cw, co, cv, width, TailStrategy::ShiftInwards);
        out.reorder(cv, sx, ry, co, ko, cc).vectorize(cv);
        out.unroll(sx).unroll(ry).never_partition_all();
        rows.compute_at(out, co).bound_extent(ci, width).vectorize(ci, width).unroll(sx).unroll(py);
        total_.compute_at(out, cc).bound_extent(ci, s.chunk).bound(ko, 0, s.padded_k).vectorize(ci, s.vector);
        schedule_products(sum, s, ci, ko, n, rg);
        group_loop_ = total_.name() + ".s1." + rg.x.name();
        schedule_turned(s, q.lanes, rg.x);
        gradient_.compute_at(total_, rg.x).bound(ko, 0, s.padded_k).align_storage(ko, s.padded_k + 1);
        gradient_.reorder(l, px, py, ti, ko).vectorize(l, q.lanes).unroll(px).unroll(py).never_partition_all();
        gradient_rows_.compute_at(gradient_, ti).vectorize(l, q.lanes).unroll(px).unroll(gradient_rows_.args()[2]);
        gradient_rows_.never_partition_all();
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Conv2dWinogradGradWeight>::build_pipeline();
        place_in_scratch(pipeline, Func(scratch).name(), winograd_grad_weight(shape()).scratch_elements,
                         {input_, turned_, gradient_, total_});
        prefetch_next_group(pipeline);
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
        input_(l, px, py, ci, ti, g) = mux(py, transform(input, down));
        part_(l, ci, px, py, ti, g) = input_(l, px, py, ci, ti, g);
        flipped_(ci, l, px, py, ti, g) = part_(l, ci, px, py, ti, g);
        turned_(ci, l, ti, px, py, g) = flipped_(ci, l, px, py, ti, g);

        Exprs taps, lines;
        for (int at = 0; at < q.m; at++) {
            Expr column = left + at, line = top + i;
            Expr value = dy(l, min(column, q.wo() - 1), min(line, q.ho() - 1), min(ko, q.k - 1), block);
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

    void schedule_products(Func sum, const WinogradGradWeight &s, Var ci, Var ko, Halide::RDom n, Halide::RDom rg) {
        sum_ = sum.name();
        Var io("io"), ii("ii"), iv("iv"), il("il"), oo("oo"), oi("oi");
        auto update = total_.update();
        update.split(ci, io, ii, s.vectors * s.vector, TailStrategy::RoundUp).split(ii, iv, il, s.vector);
        update.split(ko, oo, oi, s.tile_k, TailStrategy::RoundUp);
        const std::vector<Var> point = {total_.args()[2], total_.args()[3]};
        update.reorder(il, iv, oi, io, oo, point[0], point[1], rg.x).vectorize(il).unroll(iv).unroll(oi);
        update.never_partition_all();
        sum.compute_at(total_, io).bound_extent(ci, s.vectors * s.vector).bound_extent(ko, s.tile_k);
        sum.vectorize(ci, s.vector).unroll(ci).unroll(ko);
        sum.update().reorder(ci, ko, n.x, n.y).vectorize(ci, s.vector).unroll(ci).unroll(ko).never_partition_all();
    }

    // Transforms of a vector's channels and one tile, then the same with channels and lanes changed, by half vectors:
    // so the shuffles stay within two registers.
    void schedule_turned(const WinogradGradWeight &s, int lanes, const Halide::RVar &group) {
        const std::vector<Var> t = turned_.args(), i = input_.args(); // ci l ti px py g; l px py ci ti g
        Var co("co"), cv("cv"), lo("lo"), li("li");
        const int half = std::max(1, lanes / 2);
        turned_.compute_at(total_, group)
            .bound_extent(t[0], s.chunk)
            .split(t[0], co, cv, s.vector, TailStrategy::RoundUp);
        turned_.split(t[1], lo, li, half, TailStrategy::RoundUp).reorder(cv, li, lo, t[3], t[4], t[2], co);
        turned_.vectorize(cv).unroll(li).never_partition_all();
        flipped_.compute_at(turned_, lo).vectorize(flipped_.args()[0]).vectorize(flipped_.args()[1]);
        part_.compute_at(turned_, lo).vectorize(part_.args()[0]).unroll(part_.args()[1]);
        input_.compute_at(turned_, t[2]).bound_extent(i[3], s.vector).reorder(i[0], i[1], i[2], i[3]);
        input_.vectorize(i[0], lanes).unroll(i[1]).unroll(i[2]).never_partition_all();
        input_rows_.compute_at(input_, i[3]).vectorize(input_rows_.args()[0], lanes).unroll(input_rows_.args()[1]);
        input_rows_.unroll(input_rows_.args()[2]).never_partition_all();
    }

    // A pixel of all tiles of the next group with every point of this one.
    void prefetch_next_group(Halide::Pipeline pipeline) {
        const WinogradConv q = shape();
        const WinogradGradWeight s = winograd_grad_weight(q);
        const Expr number = (loop_variable(group_loop_) + 1) * s.group + loop_variable("place");
        const Expr tile = number % q.tiles(), block = min(number / q.tiles(), blocks() - 1);
        const Expr px = loop_variable(total_.name() + ".s1.px"), py = loop_variable(total_.name() + ".s1.py");
        const Expr left = tile % q.tiles_x() * q.m + px, top = tile / q.tiles_x() * q.m + py;
        Expr channel = 0;
        if (s.chunks(q.c) > 1) channel = min(loop_variable(Func(dw).name() + ".s0.ci.cc") * s.chunk, q.c - s.chunk);
        auto pixel = [&](const std::string &buffer, const Expr &x, const Expr &y, const Expr &c, int w, int h) {
            return ((c * h + clamp(y, 0, h - 1)) * w + clamp(x, 0, w - 1)) * q.lanes +
                   block * loop_variable(buffer + ".stride.4");
        };
        std::vector<LinesAhead> lines;
        lines.push_back({"x", pixel("x", left - q.padding, top - q.padding, channel, q.w, q.h), s.group,
                         std::min(s.chunk, q.c), q.w * q.h * q.lanes});
        lines.push_back({"dy",
                         pixel("dy", min(left, (tile % q.tiles_x() + 1) * q.m - 1),
                               min(top, (tile / q.tiles_x() + 1) * q.m - 1), 0, q.wo(), q.ho()),
                         s.group, q.k, q.wo() * q.ho() * q.lanes});
        // 16 registers hold the sums alone: with asking beside them 256 @ 7 takes 1.37 times as long (AVX2, Zen 5).
        const bool beside = registers_of(get_target(), q.lanes).count >= 32;
        prefetch_beside_products(pipeline, {{group_loop_, total_.name() + ".s1.px"}, beside ? sum_ : "", lines});
    }

    std::string group_loop_, sum_;
    Func input_{"input"}, input_rows_{"input_rows"}, part_{"part"}, flipped_{"flipped"}, turned_{"turned"},
        gradient_{"gradient"}, gradient_rows_{"gradient_rows"}, total_{"total"};
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Conv2dWinogradGradWeight, conv2d_winograd_grad_weight)
