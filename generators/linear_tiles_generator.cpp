// Generators `linear_tiles` and `linear_grad_input_tiles` (kernels.md): a tile of the results of a layer whose weights
// no cache holds, for all blocks of the batch, so that memory is read once a batch instead of once a block.
#include "gpu.h"
#include "lanes.h"
#include "prefetch.h"
#include "tuning.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

// Outputs whose weights linear_grad_input_tiles copies together.
constexpr int packed_outputs = 128;

// out(l, o, b) = start(o) + sum over `terms` i of x(l, i, b) * weight(i, o), for the blocks b below `blocks`; the start
// alone for the others, up to most_blocks. Terms are taken in chunks, whose x of all blocks stays in L2.
struct Product {
    int lanes, most_blocks, terms, outputs, chunk;
    Registers registers;
    // Copies the weights of so many outputs by a chunk together first, at most 16 KiB; 0: they are read in place.
    int packed = 0;
    Tile wanted = {0, 0}; // blocks by outputs of a register tile; 0: the best one

    int together() const { return packed ? largest_divisor(outputs, packed) : outputs; }
    int columns() const { return largest_divisor(together(), wanted.c ? wanted.c : registers.count >= 32 ? 8 : 6); }

    template <class X, class Weight> void define(Func out, X &x, Weight weight, const Expr &start, const Expr &blocks) {
        const int together = this->together(), columns = this->columns();
        Tile tile{1, columns};
        auto cost = [&](int rows) {
            return tile_cost({.x = most_blocks, .c = outputs, .steps = chunk}, {rows, columns});
        };
        for (int rows = 1; rows <= std::min(most_blocks, registers.accumulators() / columns); rows++)
            if (cost(rows) < cost(tile.x)) tile.x = rows;
        if (wanted.x) tile.x = std::min(wanted.x, most_blocks);

        Var bi("bi"), bo("bo"), part_of("part_of");
        Func part("part"), near("near");
        RDom d(0, chunk), u(0, tile.x, 0, (blocks + tile.x - 1) / tile.x, 0, terms / chunk);
        Expr term = part_of * chunk + d.x;
        near(o, i, part_of) = weight(part_of * chunk + i, o);
        Expr value = packed ? near(o, d.x, part_of) : weight(term, o);
        part(l, o, bi, bo, part_of) = nothing();
        part(l, o, bi, bo, part_of) += x(l, term, clamp(bo * tile.x + bi, 0, blocks - 1)) * value;
        Expr block = u.y * tile.x + u.x;
        u.where(block < blocks);
        out(l, o, b) = start;
        out(l, o, clamp(block, 0, most_blocks - 1)) += part(l, o, u.x, u.y, u.z);

        Var oo("oo"), oi("oi"), group("group");
        out.vectorize(l, lanes).never_partition_all();
        out.update().split(o, group, o, together).split(o, oo, oi, tile.c);
        out.update().reorder(l, u.x, oi, u.y, oo, group, u.z).vectorize(l, lanes);
        if (packed) near.compute_at(out, group).vectorize(o, vector_width(together, lanes));
        out.update().unroll(u.x).unroll(oi).never_partition_all();
        part.compute_at(out, u.y).vectorize(l, lanes).unroll(o).unroll(bi);
        const Var &first = tile.x <= tile.c ? bi : o, &second = tile.x <= tile.c ? o : bi;
        part.update().reorder(l, first, second, d.x).vectorize(l, lanes).unroll(o).unroll(bi);
        if (chunk % 4 == 0) part.update().unroll(d.x, 4);
        part.update().never_partition_all();
        chunks_loop = out.name() + ".s1." + u.z.name();
    }

    // The next weights to be copied, of rows `apart` elements apart in `weight`: every register tile's columns ask for
    // some rows of them. Copying waits for memory else, and computing after it for nothing: 25088 -> 4096 of 32 images
    // 133 -> 166 GFLOP/s, of 128 outputs copied together instead of 64 192 (Zen 5).
    TileAhead ahead(const Func &out, const std::string &weight, int apart) const {
        const int groups = outputs / together(), tiles = together() / columns();
        if (!packed || terms == chunk || groups < 2 || tiles < 2 || chunk % tiles != 0) return {};
        const std::string group_loop = out.name() + ".s1.o.group", tile_loop = out.name() + ".s1.o.o.oo";
        const Expr group = loop_variable(group_loop), first = loop_variable(tile_loop) * (chunk / tiles),
                   place = loop_variable("place");
        const Expr last = group == groups - 1, part = loop_variable(chunks_loop) + select(last, 1, 0);
        const Expr row = part * chunk + first + place, column = select(last, 0, group + 1) * together();
        return {{chunks_loop, group_loop, tile_loop},
                "",
                {{weight, min(row, terms - 1) * apart + column, chunk / tiles, ceil_div(together(), 16), 16}}};
    }

    std::string chunks_loop = "";
    Var l{"l"}, o{"o"}, b{"b"}, i{"i"};
};

} // namespace

template <class Derived> class LinearTilesBase : public Halide::Generator<Derived> {
public:
    Halide::GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, k{"k", 1}, tile{"tile", 0},
        max_batch{"max_batch", 0};
    Halide::GeneratorParam<int> tile_x{"tile_x", 0}, tile_c{"tile_c", 0}, chunk{"chunk", 0}; // knobs (tuning.h)

protected:
    Product product(int terms, int outputs, int usual_chunk) const {
        refuse_gpu(this->get_target());
        const int most = chunk ? int(chunk) : usual_chunk;
        const int v = resolve_lanes(this->get_target(), lanes);
        const int of_task = tile ? int(tile) : outputs;
        return {.lanes = v,
                .most_blocks = std::max(1, ceil_div(max_batch, v)),
                .terms = terms,
                .outputs = of_task,
                .chunk = largest_divisor(terms, most),
                .registers = registers_of(this->get_target(), v),
                .wanted = {tile_x, tile_c}};
    }
};

class LinearTiles : public LinearTilesBase<LinearTiles> {
public:
    GeneratorParam<bool> bias{"bias", false};
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> x{"x"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> y{"y"};

    void configure() {
        if (bias) bias_ = add_input<Buffer<float, 1>>("bias_values");
    }

    void generate() {
        Product p = product(c, k, 1024);
        set_dense(x, {p.lanes, c, p.most_blocks});
        set_dense(weight, {c, p.outputs});
        set_dense(y, {p.lanes, p.outputs, p.most_blocks});
        leave_block_stride(x);
        leave_block_stride(y);
        if (bias_) set_dense(*bias_, {p.outputs});
        p.define(
            y, x, [&](const Expr &term, const Expr &o) { return weight(term, o); },
            bias_ ? Expr((*bias_)(p.o)) : nothing(), (batch + p.lanes - 1) / p.lanes);
    }

private:
    Halide::GeneratorInput<Buffer<float, 1>> *bias_ = nullptr;
};

class LinearGradInputTiles : public LinearTilesBase<LinearGradInputTiles> {
public:
    Input<int> batch{"batch"};
    Input<Buffer<float, 3>> dy{"dy"};
    Input<Buffer<float, 2>> weight{"weight"};
    Output<Buffer<float, 3>> dx{"dx"};

    void generate() {
        // Each term is a row of weights, often a power of two from the next: in place they would share few sets of L1.
        Product p = product(k, c, 32);
        p.packed = packed_outputs;
        set_dense(dy, {p.lanes, k, p.most_blocks});
        set_dense(weight, {p.outputs, k});
        weight.dim(1).set_stride(c);
        set_dense(dx, {p.lanes, p.outputs, p.most_blocks});
        leave_block_stride(dy);
        leave_block_stride(dx);
        p.define(
            dx, dy, [&](const Expr &term, const Expr &i) { return weight(i, term); }, nothing(),
            (batch + p.lanes - 1) / p.lanes);
        ahead_ = p.ahead(Func(dx), "weight", c);
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = LinearTilesBase::build_pipeline();
        prefetch_beside_products(pipeline, ahead_);
        return pipeline;
    }

private:
    TileAhead ahead_;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::LinearTiles, linear_tiles)
HALIDE_REGISTER_GENERATOR(cryolite::LinearGradInputTiles, linear_grad_input_tiles)

namespace {

using namespace cryolite;

TuningSpace tiles_space(const KernelShape &q, int terms, int outputs, int together) {
    const int blocks = std::max(1, ceil_div(q.integer("max_batch", 0), q.lanes));
    const int of_task = q.integer("tile", 0) ? q.integer("tile") : outputs;
    TuningSpace space;
    space.knobs = {{"tile_x", from_one_to(std::min(blocks, q.registers.count - 1))},
                   {"tile_c", divisors(together ? largest_divisor(of_task, together) : of_task, q.registers.count - 1)},
                   {"chunk", {}}};
    for (int chunk : divisors(terms, 2048))
        if (chunk >= std::min(terms, 16)) space.knobs[2].values.push_back(chunk);
    space.together = {"tile_x", "tile_c"};
    space.refuse = [=, registers = q.registers](const Knobs &knobs) -> std::string {
        // The packed weights of a chunk are on the stack, where Halide keeps up to 16 KiB.
        if (together && 4 * knob(knobs, "chunk") * largest_divisor(of_task, together) > 16 << 10)
            return "a chunk of packed weights above 16 KiB";
        const int sums = knob(knobs, "tile_x") * knob(knobs, "tile_c");
        return sums == 0 ? "" : refuse_accumulators(sums, blocks * of_task, registers);
    };
    return space;
}

} // namespace

CRYOLITE_TUNING(linear_tiles, [](const KernelShape &q) { return tiles_space(q, q.integer("c"), q.integer("k"), 0); })
CRYOLITE_TUNING(linear_grad_input_tiles,
                [](const KernelShape &q) { return tiles_space(q, q.integer("k"), q.integer("c"), packed_outputs); })
