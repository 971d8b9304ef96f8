// prefetch_weights: which lines a kernel's loops ask for, enumerated.
#include "generators/prefetch.h"

#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <set>

namespace {

using namespace Halide;
using namespace Halide::Internal;

constexpr int steps = 40, channels = 24, pixels = 12, block = 8; // weights [channels / block][steps][block]

// The loops around prefetches and what these ask for.
struct Record : IRMutator {
    struct Ask {
        std::vector<std::pair<std::string, int>> loops; // outermost first, with their extents
        Expr index;
    };
    std::vector<Ask> asks;
    std::vector<std::pair<std::string, int>> loops;

    using IRMutator::visit;
    Stmt visit(const For *op) override {
        loops.push_back({op->name, int(*as_const_int(op->extent))});
        Stmt stmt = IRMutator::visit(op);
        loops.pop_back();
        return stmt;
    }
    Expr visit(const Call *op) override {
        if (op->is_intrinsic(Call::prefetch)) asks.push_back({loops, op->args[1]});
        return IRMutator::visit(op);
    }
};

// A product in register tiles of one block of channels by `tile` pixels.
std::vector<Record::Ask> asks_of(int tile) {
    ImageParam weights(Float(32), 3, "weights"), x(Float(32), 2, "x");
    Var channel("channel"), p("p"), co("co"), ci("ci"), po("po"), pi("pi");
    RDom d(0, steps);
    Func sum("sum"), out("out");
    sum(channel, p) = 0.f;
    sum(channel, p) += weights(channel % block, d, channel / block) * x(d, p);
    out(channel, p) = sum(channel, p);
    weights.dim(0).set_bounds(0, block);
    weights.dim(1).set_bounds(0, steps).set_stride(block);
    weights.dim(2).set_bounds(0, channels / block).set_stride(block * steps);
    out.bound(channel, 0, channels).bound(p, 0, pixels).never_partition_all();
    out.split(channel, co, ci, block).split(p, po, pi, tile).reorder(ci, pi, po, co).vectorize(ci).unroll(pi);
    sum.compute_at(out, po).vectorize(channel, block).unroll(p);
    sum.update().reorder(channel, p, d).vectorize(channel, block).unroll(p);
    Pipeline pipeline(out);
    cryolite::prefetch_weights(pipeline, "weights");
    auto *record = new Record; // the pipeline's own
    pipeline.add_custom_lowering_pass(record, [] {});
    pipeline.compile_to_module({weights, x}, "product", Target("x86-64-linux-avx2-fma"));
    std::vector<Record::Ask> asks = record->asks;
    delete record;
    return asks;
}

// Lines asked for in each iteration of the outermost loop.
std::map<int, std::multiset<int64_t>> lines_of(const Record::Ask &ask) {
    std::map<int, std::multiset<int64_t>> lines;
    std::function<void(size_t, Expr, int)> enumerate = [&](size_t loop, Expr index, int outermost) {
        if (loop == ask.loops.size()) {
            const auto at = as_const_int(simplify(index));
            ASSERT_TRUE(at);
            lines[outermost].insert(*at / 16);
            return;
        }
        for (int i = 0; i < ask.loops[loop].second; i++)
            enumerate(loop + 1, substitute(ask.loops[loop].first, i, index), loop == 0 ? i : outermost);
    };
    enumerate(0, ask.index, 0);
    return lines;
}

TEST(Prefetch, EachReadingAsksForItsShareOfTheNextChunk) {
    for (int tile : {1, 2, 3, 4, 6}) {
        SCOPED_TRACE(testing::Message() << pixels / tile << " readings");
        const std::vector<Record::Ask> asks = asks_of(tile);
        ASSERT_EQ(asks.size(), 1u);
        const int chunk = block * steps / 16; // lines
        for (const auto &[co, lines] : lines_of(asks[0])) {
            std::set<int64_t> all(lines.begin(), lines.end());
            for (int i = 0; i < chunk; i++)
                EXPECT_TRUE(all.count((co + 1) * chunk + i)) << "line " << i << " of " << co;
            // Shares are whole lines: the last one may lie behind the chunk.
            EXPECT_GE(*all.begin(), (co + 1) * chunk);
            EXPECT_LT(*all.rbegin(), (co + 1) * chunk + chunk + pixels / tile);
        }
    }
}

TEST(Prefetch, AsksForWhatLiesAheadWhereEveryWeightIsReadOnce) {
    const std::vector<Record::Ask> asks = asks_of(pixels);
    ASSERT_EQ(asks.size(), 1u);
    for (const auto &[co, lines] : lines_of(asks[0])) {
        std::multiset<int64_t> right;
        for (int step = 0; step < steps; step++) right.insert((block * (co * steps + step) + 1024) / 16);
        EXPECT_EQ(lines, right) << "chunk " << co;
    }
}

} // namespace
