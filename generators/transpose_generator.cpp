// Generator `transpose` (kernels.md): between rows of samples and lanes, or of a weight's channels, in tiles that stay
// in registers.
#include "gpu.h"
#include "lanes.h"
#include "nest.h"
#include "prefetch.h"

#include <algorithm>

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::TailStrategy, Halide::Var;

class Transpose : public Halide::Generator<Transpose> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, rows{"rows", 1}, columns{"columns", 1};
    GeneratorParam<int> together{"together", 1}; // elements that stay side by side
    GeneratorParam<int> row{"row", 0};           // columns of a whole row, where `columns` are some of them
    Input<Buffer<float>> x{"x"};
    Output<Buffer<float>> y{"y"};

    void configure() {
        const int dimensions = is_gpu(get_target()) || together > 1 ? 3 : 2;
        x.set_dimensions(dimensions);
        y.set_dimensions(dimensions);
    }

    void generate() {
        if (is_gpu(get_target())) return generate_gpu();
        if (together > 1) return generate_together();
        set_dense(x, {columns, rows});
        if (const int whole = row) x.dim(1).set_stride(whole);
        set_dense(y, {rows, columns});
        if (columns % line == 0 && rows > line && (columns > line || row)) return generate_lines();
        Var row("row"), column("column"), ro("ro"), ri("ri"), co("co"), ci("ci");
        // The tile is transposed where its vectors lie one after the other: in y, or else in x. Tiles of 16 x 8 keep
        // the shuffles within two registers: 160-175 GB/s in cache on Zen 5 for 16 x 784, 784 x 16 and 120 x 16; square
        // tiles give 36-94. Elsewhere its elements are collected one by one: 256 x 64 with AVX2, in cache, 27 GB/s.
        const int v = natural_vector_size<float>();
        int tr = vector_width(rows, v), tc = vector_width(columns, v);
        const bool dense_y = tr == rows;
        int &other = dense_y ? tc : tr;
        other = std::min(other, 8);
        Func tile("tile");
        if (dense_y) {
            tile(column, row) = x(column, row);
            y(row, column) = tile(column, row);
        } else {
            tile(row, column) = x(column, row);
            y(row, column) = tile(row, column);
        }
        y.split(row, ro, ri, tr, TailStrategy::ShiftInwards).split(column, co, ci, tc, TailStrategy::ShiftInwards);
        y.reorder(ri, ci, co, ro).vectorize(ri).never_partition_all();
        tile.compute_at(y, co);
        if (dense_y) {
            y.vectorize(ci);
            tile.vectorize(column).unroll(row);
        } else {
            y.unroll(ci);
            tile.vectorize(row).vectorize(column);
        }
    }

    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Transpose>::build_pipeline();
        prefetch_beside_products(pipeline, ahead_);
        return pipeline;
    }

private:
    static constexpr int line = 16, part = 8; // floats of a cache line, and columns that are turned at once

    // Neither side's tiles are dense: whole cache lines of both are moved. 512 x 2048 inside resnet50's step, on a Zen
    // 5, 24 GB/s; where elements were collected one by one, 11.
    void generate_lines() {
        Var row("row"), column("column"), ro("ro"), ri("ri"), co("co"), ci("ci"), parts("parts"), e("e");
        Func lines("lines"), turned("turned");
        lines(e, row, parts) = x(parts * part + e, row);
        turned(row, e, parts) = lines(e, row, parts);
        y(row, column) = turned(row, column % part, column / part);
        y.split(row, ro, ri, line, TailStrategy::ShiftInwards).split(column, co, ci, line).split(ci, parts, ci, part);
        y.reorder(ri, ci, parts, co, ro).vectorize(ri).unroll(ci).unroll(parts).never_partition_all();
        lines.compute_at(y, co).vectorize(e).unroll(row).unroll(parts);
        turned.compute_at(y, parts).vectorize(row).vectorize(e);
        const std::string name = Func(y).name() + ".s0.";
        const Nest nest({{name + "row.ro", ceil_div(rows, line)}, {name + "column.co", ceil_div(columns, line)}});
        const std::vector<Expr> next = nest.next(1);
        const Expr place = loop_variable("place"), first_row = min(next[0] * line, rows - line),
                   first_column = min(next[1] * line, columns - line);
        const int of_row = this->row ? int(this->row) : int(columns);
        ahead_ = {nest.names(),
                  "",
                  {{"x", (first_row + place) * of_row + first_column, line, 1, line},
                   {Func(y).name(), (first_column + place) * int(rows) + first_row, line, 1, line}}};
    }

    // A few columns of each row at a time: whole cache lines of x, a few streams of y. Rows of x lie in pages of their
    // own: with those ahead asked for, 512 x 512 of 3 x 3 takes 0.52 of the time (Zen 5).
    void generate_together() {
        const int run = together, whole = row ? int(row) : int(columns);
        set_dense(x, {run, columns, rows});
        x.dim(2).set_stride(run * whole);
        set_dense(y, {run, rows, columns});
        Var e("e"), row("row"), column("column"), co("co"), ci("ci");
        y(e, row, column) = x(e, column, row);
        Func out = y;
        const int part = std::min<int>(columns, 8), rows_ahead = 8;
        out.split(column, co, ci, part, TailStrategy::ShiftInwards).reorder(e, ci, row, co);
        out.vectorize(e, vector_width(run, natural_vector_size<float>()), TailStrategy::ShiftInwards);
        out.unroll(ci).never_partition_all();
        if (rows <= rows_ahead) return;
        const std::string name = out.name() + ".s0.", of_columns = name + "column.co", of_rows = name + "row";
        const Expr first = columns > part ? min(loop_variable(of_columns) * part, columns - part) : Expr(0);
        const Expr later = min(loop_variable(of_rows) + rows_ahead, rows - 1) * (run * whole) + first * run;
        ahead_ = {{of_rows}, "", {{"x", later, 1, ceil_div(part * run, line), line}}};
        if (columns > part) ahead_.loops.insert(ahead_.loops.begin(), of_columns);
    }

    // Square tiles through shared memory, with a column more than a warp has: reads and writes then meet all banks.
    void generate_gpu() {
        if (together > 1 || row) throw Halide::CompileError("on a GPU whole rows of single elements are transposed");
        constexpr int side = gpu::warp, rows_at_once = 8;
        set_blocks(x, {columns, rows}, 0);
        set_blocks(y, {rows, columns}, 0);
        Var row("row"), column("column"), b("b"), ro("ro"), ri("ri"), co("co"), ci("ci"), outer("outer"),
            inner("inner");
        Func tile("tile"), shared("shared");
        // The tile at the border repeats the last row and column.
        tile(column, row, b) = x(min(column, columns - 1), min(row, rows - 1), b);
        y(row, column, b) = tile(column, row, b);
        Func out = y;
        out.split(row, ro, ri, side, TailStrategy::GuardWithIf).split(column, co, ci, side, TailStrategy::GuardWithIf);
        out.split(ci, outer, inner, rows_at_once).reorder(outer, ri, inner, ro, co, b);
        out.gpu_threads(ri, inner).gpu_blocks(ro, co, b).never_partition_all();
        tile.compute_at(out, ro).store_in(Halide::MemoryType::GPUShared).align_storage(column, side + 1);
        tile.bound_extent(column, side).bound_extent(row, side).split(row, outer, inner, rows_at_once);
        tile.reorder(outer, column, inner).gpu_threads(column, inner);
    }

    TileAhead ahead_;
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Transpose, transpose)
