// Generator `linear_grad_weight` (kernels.md): outer products of a sample's x and its dy, summed over all samples of
// all blocks. x is turned round in L1, so that vectors hold input channels and no sum runs over a vector.
// AVX2, Zen 3, 256 samples, GFLOP/s of a peak of 97 (and read from rows that another kernel had transposed):
//   256 -> 256: 60-77 (50).   256 -> 120: 68 (61).   333 -> 77: 61 (29).   256 -> 10: 36
#include "gpu.h"
#include "lanes.h"
#include "tuning.h"
#include "turn.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::LoopLevel, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// What is on the stack: turned vectors of a chunk of blocks, and sums.
constexpr int turned_share = 16 << 10, sums_share = 16 << 10;

} // namespace

class LinearGradWeight : public Halide::Generator<LinearGradWeight> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, c{"c", 1}, k{"k", 1}, tile{"tile", 0}, weight_c{"weight_c", 0};
    GeneratorParam<bool> rows{"rows", false};                                        // x is (c, V, NB), on GPUs
    GeneratorParam<int> tile_x{"tile_x", 0}, tile_c{"tile_c", 0}, chunk{"chunk", 0}; // knobs (tuning.h)
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> x{"x"}, dy{"dy"};
    Output<Buffer<float, 2>> dw{"dw"};

    void generate() {
        const int v = resolve_lanes(get_target(), lanes), outputs = tile ? int(tile) : int(k);
        const Expr blocks = (batch + v - 1) / v;
        set_dense(dy, {v, outputs, 0});
        leave_block_stride(dy);
        if (is_gpu(get_target())) {
            set_dense(x, rows ? std::vector<int>{c, v, 0} : std::vector<int>{v, c, 0});
            dw = gpu::linear_grad_weight(
                [&](Expr i, Expr l, Expr b) { return rows ? Expr(x(i, l, b)) : Expr(x(l, i, b)); },
                [&](Expr l, Expr o, Expr b) { return Expr(dy(l, o, b)); }, v, c, outputs, blocks);
            set_dense(dw, {c, outputs});
            return;
        }
        if (rows) throw Halide::CompileError("rows of samples are for GPUs");
        set_dense(x, {v, c, 0});
        leave_block_stride(x);
        set_dense(dw, {c, outputs});
        if (weight_c) dw.dim(1).set_stride(weight_c);
        define(v, outputs, blocks);
    }

private:
    void define(int v, int outputs, const Expr &blocks) {
        const int width = vector_width(c, natural_vector_size<float>());
        const int most = std::max(1, std::min(c / width, turned_share / (4 * v * width)));
        // The last tile overlaps the one before where it does not divide: a part of a vector counts as one.
        TileQuery query = linear_weight_query(ceil_div(c, width), outputs);
        query.most_x = most;
        Tile t = chosen_tile(query, {tile_x, tile_c}, registers_of(get_target(), width).accumulators());
        t.x = std::min(t.x, most);
        const int channels = t.x * width, room = turned_share / (4 * v * channels);
        const int together = std::max(1, chunk ? std::min(int(chunk), room) : room); // blocks
        const int most_outputs = std::max(t.c, sums_share / (4 * channels) / t.c * t.c);
        const int passes = ceil_div(outputs, most_outputs), of_pass = ceil_div(ceil_div(outputs, passes), t.c) * t.c;

        Var i("i"), l("l"), o("o"), b("b"), z("z");
        Var io("io"), ii("ii"), iv("iv"), il("il"), op("op"), oo("oo"), oi("oi");
        Func sum("sum"), total("total");
        Turn turn("turned", i, l, {b}, x(l, i, b));
        RDom d(0, v, 0, together), chunks(0, (blocks + together - 1) / together);
        Expr block = z * together + d.y;
        d.where(block < blocks);
        sum(i, o, z) = nothing();
        sum(i, o, z) += turn.turned(i, d.x, block) * dy(d.x, min(o, outputs - 1), block);
        total(i, o) = nothing();
        total(i, o) += sum(i, o, chunks);
        dw(i, o) = total(i, o);

        dw.split(i, io, ii, channels, TailStrategy::ShiftInwards).split(o, op, o, of_pass, TailStrategy::GuardWithIf);
        dw.reorder(ii, o, io, op).vectorize(ii, width).never_partition_all();
        total.compute_at(dw, io).bound_extent(i, channels).bound_extent(o, of_pass).vectorize(i, width);
        total.store_in(Halide::MemoryType::Stack);
        total.update().split(i, iv, il, width).split(o, oo, oi, t.c).reorder(il, iv, oi, oo, chunks);
        total.update().vectorize(il).unroll(iv).unroll(oi).never_partition_all();
        sum.compute_at(total, oo)
            .bound_extent(i, channels)
            .bound_extent(o, t.c)
            .vectorize(i, width)
            .unroll(i)
            .unroll(o);
        sum.update().reorder(i, o, d.x, d.y).vectorize(i, width).unroll(i).unroll(o).unroll(d.x, std::min(v, 2));
        sum.update().never_partition_all();
        turn.turned.bound_storage(b, together);
        turn.schedule(LoopLevel(total, chunks), v, width, channels);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::LinearGradWeight, linear_grad_weight)

namespace {

using namespace cryolite;

TuningSpace space_of(const KernelShape &q) {
    const int outputs = q.integer("tile", 0) ? q.integer("tile") : q.integer("k"), c = q.integer("c");
    const int vectors = std::max(1, c / vector_width(c, q.vector)), sums = q.registers.count - 1;
    TuningSpace space;
    space.knobs = {{"tile_x", from_one_to(std::min(vectors, sums))},
                   {"tile_c", from_one_to(std::min(outputs, sums))},
                   {"chunk", {4, 8, 16, 32, 64}}};
    space.together = {"tile_x", "tile_c"};
    space.refuse = [=, registers = q.registers](const Knobs &knobs) -> std::string {
        const int tile = knob(knobs, "tile_x") * knob(knobs, "tile_c");
        return tile == 0 ? ""
                         : refuse_accumulators(tile, vectors * outputs, {.count = registers.count, .per_value = 1});
    };
    return space;
}

} // namespace

CRYOLITE_TUNING(linear_grad_weight, space_of)
