// Generator `transpose` (kernels.md): between rows of samples and lanes, in square tiles that stay in registers.
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
        Func loaded("loaded");
        loaded(column, row) = x(column, row);
        y(row, column) = loaded(column, row);
        const int v = natural_vector_size<float>(), tr = vector_width(rows, v), tc = vector_width(columns, v);
        y.split(row, ro, ri, tr, TailStrategy::ShiftInwards).split(column, co, ci, tc, TailStrategy::ShiftInwards);
        y.reorder(ri, ci, co, ro).vectorize(ri).vectorize(ci).never_partition_all();
        loaded.compute_at(y, co).vectorize(column).unroll(row);
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Transpose, transpose)
