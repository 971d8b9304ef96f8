// The transpose generator: every element in its place, over edge shapes. Kernels are compiled as shipped: no symbol
// outside, no asserts.
#include "generators_check.h"
#include "pointwise_reference.h" // LoadedKernel

#include <gtest/gtest.h>
#include <random>

namespace cryolite::testing {
namespace {

TEST(Transpose, Shapes) {
    std::vector<std::pair<int, int>> shapes{{16, 784}, {10, 16}, {1, 1},    {1, 16}, {16, 1},
                                            {3, 5},    {17, 31}, {256, 16}, {120, 8}};
    for (const Machine &m : {Machine{}, machines().back()})
        for (auto [rows, columns] : shapes) {
            Array x({columns, rows}), y({rows, columns});
            std::mt19937 engine(1);
            x.randomize(engine);
            std::vector<double> expected(x.size());
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < columns; c++) expected[size_t(c * rows + r)] = x.at({c, r});
            LoadedKernel kernel("transpose", {{"rows", text(rows)}, {"columns", text(columns)}}, m.target);
            void *arguments[] = {x.buffer(), y.buffer()};
            kernel.call(arguments);
            SCOPED_TRACE(std::to_string(rows) + " " + std::to_string(columns));
            expect_close(y, expected, 0);
        }
}

} // namespace
} // namespace cryolite::testing
