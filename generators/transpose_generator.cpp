// x (columns, rows) -> y (rows, columns): rows of samples into lanes and back. Contract: kernels.md.
#include "kernel_support.h"

namespace cryolite {

using namespace Halide;

class Transpose : public Generator<Transpose> {
public:
    GeneratorParam<int> lanes{"lanes", 0}, rows{"rows", 1}, columns{"columns", 1};
    Input<Buffer<float, 2>> input{"input"};
    Output<Buffer<float, 2>> output{"output"};

    // Square tiles in registers: rows of x are loaded whole, and shuffled.
    void generate() {
        int most = get_target().natural_vector_size<float>(), tr = 1, tc = 1;
        while (tr * 2 <= std::min(most, int(rows))) tr *= 2;
        while (tc * 2 <= std::min(most, int(columns))) tc *= 2;
        Var i("i"), j("j"), io, ii, jo, ji;
        Func tile("tile");
        tile(j, i) = input(j, i);
        output(i, j) = tile(j, i);
        output.split(i, io, ii, tr, TailStrategy::ShiftInwards)
            .split(j, jo, ji, tc, TailStrategy::ShiftInwards)
            .reorder(ii, ji, io, jo)
            .vectorize(ii)
            .vectorize(ji);
        tile.compute_at(output, io)
            .store_in(MemoryType::Stack)
            .bound_extent(j, tc)
            .bound_extent(i, tr)
            .vectorize(j)
            .unroll(i);
        set_dense(input, {columns, rows});
        set_dense(output, {rows, columns});
    }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Transpose, transpose)
