// Generator `transpose` (kernels.md): between rows of samples and lanes, in tiles that stay in registers.
#include "lanes.h"

#include <algorithm>

namespace cryolite {
using Halide::Func, Halide::TailStrategy, Halide::Var;

class Transpose : public Halide::Generator<Transpose> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, rows{"rows", 1}, columns{"columns", 1};
    Input<Buffer<float, 2>> x{"x"};
    Output<Buffer<float, 2>> y{"y"};

    void generate() {
        set_dense(x, {columns, rows});
        set_dense(y, {rows, columns});
        Var row("row"), column("column"), ro("ro"), ri("ri"), co("co"), ci("ci");
        // The tile is transposed where its vectors lie one after the other: in y, or else in x. Tiles of 16 x 8 keep
        // the shuffles within two registers: 160-175 GB/s in cache on Zen 5 for 16 x 784, 784 x 16 and 120 x 16; square
        // tiles give 36-94.
        const int v = natural_vector_size<float>();
        int tr = vector_width(rows, v), tc = vector_width(columns, v);
        const bool dense_y = tr == rows || tc != columns;
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
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Transpose, transpose)
