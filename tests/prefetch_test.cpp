// Which lines a kernel's loops ask for, enumerated: of prefetch_weights, and of the kernels that
// prefetch_beside_products serves.
#include "generators/conv2d_turned.h"
#include "generators/prefetch.h"
#include "generators/winograd.h"

#include <algorithm>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <optional>
#include <set>

namespace {

using namespace Halide;
using namespace Halide::Internal;

constexpr int steps = 40, channels = 24, pixels = 12, block = 8; // weights [channels / block][steps][block]

constexpr int into_l2 = 2, into_l1 = 3; // localities as LLVM counts them: other ones leave nothing in a cache behind

struct Asked {
    std::string buffer;
    Expr bytes; // from the buffer's begin
};

// What a call asks for, if it is a prefetch of this locality.
std::optional<Asked> prefetched(const Call *call, int locality) {
    if (call->name != "llvm.prefetch.p0" || *as_const_int(call->args[2]) != locality) return std::nullopt;
    const Add *address = call->args[0].as<Reinterpret>()->value.as<Add>();
    return Asked{address->a.as<Reinterpret>()->value.as<Variable>()->name, address->b};
}

// The loops around prefetches into L1 and what these ask for.
struct Record : IRMutator {
    struct Ask {
        std::vector<std::pair<std::string, int>> loops; // outermost first, with their extents
        Expr bytes;
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
        if (const auto asked = prefetched(op, into_l1)) asks.push_back({loops, asked->bytes});
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
    std::function<void(size_t, Expr, int)> enumerate = [&](size_t loop, Expr bytes, int outermost) {
        if (loop == ask.loops.size()) {
            const auto at = as_const_uint(simplify(bytes));
            ASSERT_TRUE(at);
            lines[outermost].insert(int64_t(*at) / 64);
            return;
        }
        for (int i = 0; i < ask.loops[loop].second; i++)
            enumerate(loop + 1, substitute(ask.loops[loop].first, i, bytes), loop == 0 ? i : outermost);
    };
    enumerate(0, ask.bytes, 0);
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

// Lines that a kernel asks for into L2, by buffer, counted from the buffer's first. values: of what is known at run
// time.
struct RecordIntoL2 : IRMutator {
    std::map<std::string, std::set<int64_t>> lines;
    size_t most_at_once = 0; // lines of a buffer, in one iteration of an innermost loop
    explicit RecordIntoL2(const std::map<std::string, Expr> &values) : values_(values) {}

    using IRMutator::visit;
    Stmt visit(const For *op) override {
        if (!asks(op->body)) return op;
        const auto min = as_const_int(simplify(now(op->min))), extent = as_const_int(simplify(now(op->extent)));
        EXPECT_TRUE(min && extent) << op->name;
        for (int64_t i = *min; i < *min + *extent; i++) {
            values_[op->name] = int(i);
            asked_.clear();
            mutate(op->body);
            for (const auto &[buffer, count] : asked_) most_at_once = std::max(most_at_once, count);
        }
        asked_.clear();
        values_.erase(op->name);
        return op;
    }
    Stmt visit(const IfThenElse *op) override {
        if (!asks(op->then_case)) return IRMutator::visit(op);
        const auto condition = as_const_uint(simplify(now(op->condition)));
        EXPECT_TRUE(condition) << now(op->condition);
        if (condition && *condition) mutate(op->then_case);
        return op;
    }
    Stmt visit(const LetStmt *op) override {
        const bool known = values_.count(op->name) > 0;
        if (!known) values_[op->name] = simplify(now(op->value));
        mutate(op->body);
        if (!known) values_.erase(op->name);
        return op;
    }
    Expr visit(const Call *op) override {
        const auto asked = prefetched(op, into_l2);
        if (!asked) return op;
        const auto bytes = as_const_uint(simplify(now(asked->bytes)));
        EXPECT_TRUE(bytes) << now(asked->bytes);
        if (!bytes) return op;
        lines[asked->buffer].insert(int64_t(*bytes) / 64);
        asked_[asked->buffer]++;
        return op;
    }

private:
    Expr now(const Expr &e) const { return substitute(values_, e); }
    static bool asks(const Stmt &stmt) {
        struct Find : IRVisitor {
            bool found = false;
            using IRVisitor::visit;
            void visit(const Call *call) override {
                found = found || prefetched(call, into_l2);
                IRVisitor::visit(call);
            }
        } find;
        stmt.accept(&find);
        return find.found;
    }

    std::map<std::string, Expr> values_;
    std::map<std::string, size_t> asked_; // since the loops around began an iteration
};

const char *const avx2 = "x86-64-linux-avx-avx2-f16c-fma-sse41-no_asserts-no_bounds_query";
const char *const avx512 = "x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41-no_asserts-no_bounds_query";

RecordIntoL2 record_kernel(const std::string &generator, const std::map<std::string, std::string> &parameters,
                           const std::map<std::string, Expr> &values = {}, const char *features = avx512) {
    const Target target(features);
    auto kernel = GeneratorRegistry::create(generator, GeneratorContext(target));
    for (const auto &[name, value] : parameters) kernel->set_generatorparam_value(name, value);
    Pipeline pipeline = kernel->build_pipeline();
    auto *record = new RecordIntoL2(values);
    pipeline.add_custom_lowering_pass(record, [] {});
    std::vector<Argument> arguments;
    for (const auto &info : kernel->arginfos())
        if (info.dir == ArgInfoDirection::Input)
            for (const Parameter &parameter : kernel->input_parameter(info.name))
                arguments.emplace_back(parameter.name(),
                                       parameter.is_buffer() ? Argument::InputBuffer : Argument::InputScalar,
                                       parameter.type(), parameter.dimensions(), ArgumentEstimates{});
    pipeline.compile_to_module(arguments, "kernel", target);
    RecordIntoL2 result = *record;
    delete record;
    return result;
}
std::map<std::string, std::set<int64_t>> lines_of_kernel(const std::string &generator,
                                                         const std::map<std::string, std::string> &parameters,
                                                         const std::map<std::string, Expr> &values = {},
                                                         const char *features = avx512) {
    return record_kernel(generator, parameters, values, features).lines;
}

// Pixels are lines: 16 lanes. Of an image of `channels` planes of so many, those that `wanted` takes.
std::set<int64_t> pixels_of(int channels, int pixels, const std::function<bool(int)> &wanted) {
    std::set<int64_t> lines;
    for (int channel = 0; channel < channels; channel++)
        for (int pixel = 0; pixel < pixels; pixel++)
            if (wanted(pixel)) lines.insert(channel * pixels + pixel);
    return lines;
}

// Rows of c weights that begin `first` or more results behind the first one; parts of a row are lines' lengths apart.
std::set<int64_t> rows_of(int c, int k, int first) {
    std::set<int64_t> lines;
    for (int result = first; result < k; result++)
        for (int at = 0; at < c; at += 16) lines.insert((result * c + at) / 16);
    return lines;
}

// Without those of so many pixels of channels from `first` on, which are stored before anything is asked for.
std::set<int64_t> without(std::set<int64_t> lines, int pixels, int first, int channels, int tile) {
    for (int channel = first; channel < first + channels; channel++)
        for (int pixel = 0; pixel < tile; pixel++) EXPECT_EQ(lines.erase(channel * pixels + pixel), 1u);
    return lines;
}

TEST(Prefetch, ProductsAskForTheNextTilesPixelsAndWeightsAndForWhatTheyWillStore) {
    const int pixels = 104, tile = 8;
    for (const char *pack : {"false", "true"}) {
        const auto lines = lines_of_kernel(
            "conv2d",
            {{"c", "40"}, {"h", "1"}, {"w", "104"}, {"k", "50"}, {"tile_x", "8"}, {"tile_c", "3"}, {"pack", pack}});
        ASSERT_EQ(lines.size(), 3u);
        for (const auto &[buffer, asked] : lines)
            if (buffer == "x")
                EXPECT_EQ(asked, pixels_of(40, pixels, [&](int pixel) { return pixel >= tile; }));
            else if (buffer == "weight")
                EXPECT_EQ(asked, rows_of(40, 50, 3));
            else
                EXPECT_EQ(asked, without(pixels_of(50, pixels, [&](int) { return true; }), pixels, 0, 3, tile));
    }
}

TEST(Prefetch, StrassensProductsAskForBothHalves) {
    const int pixels = 204, tile = 4, half_c = 20, half_k = 24, tile_k = 8;
    const auto lines = lines_of_kernel("conv2d_strassen", {{"c", "40"}, {"w", "204"}, {"k", "48"}});
    ASSERT_EQ(lines.size(), 3u);
    for (const auto &[buffer, asked] : lines)
        if (buffer == "x") {
            EXPECT_EQ(asked, pixels_of(2 * half_c, pixels, [&](int pixel) { return pixel >= tile; }));
        } else if (buffer == "u") {
            std::set<int64_t> weights; // of all channel tiles but the first
            const int64_t of_tile = tile_k * half_c * 7 / 16;
            for (int64_t line = of_tile; line < of_tile * half_k / tile_k; line++) weights.insert(line);
            EXPECT_EQ(asked, weights);
        } else {
            const auto all = pixels_of(2 * half_k, pixels, [&](int) { return true; });
            EXPECT_EQ(asked, without(without(all, pixels, 0, tile_k, tile), pixels, half_k, tile_k, tile));
        }
}

TEST(Prefetch, TransposesAskForEachRowAheadOfTime) {
    for (int columns : {8, 16}) {
        const int rows = 24, run = 9, floats = columns * run;
        const auto lines = lines_of_kernel(
            "transpose", {{"rows", "24"}, {"columns", std::to_string(columns)}, {"together", std::to_string(run)}});
        ASSERT_EQ(lines.size(), 1u);
        std::set<int64_t> right; // all but those of the first rows, eight at a time
        for (int64_t line = 8 * floats / 16; line < (rows * floats + 15) / 16; line++) right.insert(line);
        EXPECT_EQ(lines.at("x"), right);
    }
}

TEST(Prefetch, TransposesOfLinesAskForTheNextTileOfBothSides) {
    const int rows = 64, columns = 48, tile = 16;
    const auto lines = lines_of_kernel("transpose", {{"rows", "64"}, {"columns", "48"}});
    const auto all_but_the_first_tile = [&](int rows, int columns) {
        std::set<int64_t> right;
        for (int row = 0; row < rows; row++)
            for (int part = 0; part < columns / tile; part++)
                if (row >= tile || part > 0) right.insert(row * (columns / tile) + part);
        return right;
    };
    ASSERT_EQ(lines.size(), 2u);
    for (const auto &[buffer, asked] : lines)
        EXPECT_EQ(asked, buffer == "x" ? all_but_the_first_tile(rows, columns) : all_but_the_first_tile(columns, rows));
}

TEST(Prefetch, WinogradsWeightsAskForTheNextLineOfEveryPointAndForFlippedWeights) {
    const int c = 32, k = 32, tile = 8, points = 36, pairs = c * tile, line = 16;
    std::map<std::string, std::string> weights{{"c", "32"}, {"k", "32"}, {"tile_k", "8"}, {"channel_tiles", "4"}};
    EXPECT_EQ(lines_of_kernel("winograd_weight", weights).size(), 1u); // in order without
    weights["flip"] = "true";
    const auto lines = lines_of_kernel("winograd_weight", weights);
    ASSERT_EQ(lines.size(), 2u);
    std::set<int64_t> stored, read;
    for (int point = 0; point < points; point++)
        for (int at = 1; at < pairs * (k / tile) / line; at++) stored.insert(point * (pairs * (k / tile) / line) + at);
    for (int channel = 0; channel < k; channel++)
        for (int from = 0; from < c; from++)
            if (channel >= tile || from >= line / tile)
                for (int tap = 0; tap < 9; tap++) read.insert(((from * k + channel) * 9 + tap) / line);
    for (const auto &[buffer, asked] : lines)
        if (buffer == "weight")
            EXPECT_TRUE(std::includes(asked.begin(), asked.end(), read.begin(), read.end()));
        else
            EXPECT_EQ(asked, stored);
}

// At once they would fill the queue of what the core waits for.
TEST(Prefetch, LinesAreAskedForInEqualParts) {
    const auto most = [](const std::string &generator, const std::map<std::string, std::string> &parameters) {
        const RecordIntoL2 record = record_kernel(generator, parameters);
        EXPECT_FALSE(record.lines.empty());
        return record.most_at_once;
    };
    // 24 lines of results beside 50 products, 150 of the next pixels beside them and 17 tiles.
    std::map<std::string, std::string> product{{"c", "50"}, {"h", "1"},      {"w", "104"},
                                               {"k", "50"}, {"tile_x", "8"}, {"tile_c", "3"}};
    EXPECT_EQ(most("conv2d", product), 1u);
    product["pack"] = "true"; // two products in an iteration
    EXPECT_EQ(most("conv2d", product), 1u);
    product["c"] = "10"; // 24 lines beside 5 iterations
    product["w"] = "1004";
    EXPECT_EQ(most("conv2d", product), 5u);
}

TEST(Prefetch, WithinCachesOrWithoutALoopProductsAskForNothing) {
    for (const char *pixels : {"8", "9", "16"})
        EXPECT_TRUE(
            lines_of_kernel("conv2d",
                            {{"c", "600"}, {"h", "1"}, {"w", pixels}, {"k", "600"}, {"tile_x", "8"}, {"tile_c", "3"}})
                .empty());
    EXPECT_TRUE(lines_of_kernel("conv2d", {{"c", "40"}, {"h", "1"}, {"w", "32"}, {"k", "50"}}).empty());
    EXPECT_TRUE(lines_of_kernel("conv2d_winograd", {{"c", "16"}, {"h", "12"}, {"w", "12"}, {"k", "16"}}).empty());
}

// Whether a pixel of an image of `side` x `side` is in the window of some tile of 4 x 4 from the first-th on.
std::function<bool(int)> in_tiles_from(int first, int side, int padding, int t) {
    std::set<int> pixels;
    const int across = side / 4;
    for (int tile = first; tile < across * across; tile++)
        for (int i = 0; i < t * t; i++) {
            const int x = tile % across * 4 + i % t - padding, y = tile / across * 4 + i / t - padding;
            if (x >= 0 && x < side && y >= 0 && y < side) pixels.insert(y * side + x);
        }
    return [=](int pixel) { return pixels.count(pixel) > 0; };
}

TEST(Prefetch, WinogradAsksForTheNextGroupsTilesAndForWhatItStores) {
    for (int k : {16, 96}) { // one channel block and several
        const cryolite::WinogradConv q{.lanes = 16, .c = 20, .h = 16, .w = 16, .k = k, .r = 3, .padding = 1, .m = 4};
        ASSERT_EQ(q.schedule().channel_blocks > 1, k > 48);
        const auto lines = lines_of_kernel(
            "conv2d_winograd", {{"c", "20"}, {"h", "16"}, {"w", "16"}, {"k", std::to_string(k)}, {"padding", "1"}});
        ASSERT_EQ(lines.size(), 2u);
        for (const auto &[buffer, asked] : lines)
            if (buffer == "x")
                EXPECT_EQ(asked, pixels_of(q.c, 256, in_tiles_from(q.schedule().group, 16, 1, 6)));
            else
                EXPECT_EQ(asked, pixels_of(k, 256, [](int) { return true; }));
    }
}

TEST(Prefetch, WinogradsWeightGradientAsksForTheNextGroupsTilesOfAllBlocks) {
    const int c = 80, k = 8; // two chunks of channels
    const cryolite::WinogradConv q{.lanes = 16, .c = c, .h = 8, .w = 8, .k = k, .r = 3, .padding = 1, .m = 4};
    const cryolite::WinogradGradWeight s = winograd_grad_weight(q);
    ASSERT_EQ(s.chunks(c), 2);
    for (const char *features : {avx512, avx2}) { // beside the products, and at once
        SCOPED_TRACE(features);
        const RecordIntoL2 record =
            record_kernel("conv2d_winograd_grad_weight",
                          {{"lanes", "16"}, {"c", "80"}, {"h", "8"}, {"w", "8"}, {"k", "8"}, {"padding", "1"}},
                          {{"batch", 32}, {"x.stride.4", 16 * 64 * c}, {"dy.stride.4", 16 * 64 * k}}, features);
        const auto &lines = record.lines;
        ASSERT_EQ(lines.size(), 2u);
        for (const auto &[buffer, channels] : {std::pair{"x", c}, {"dy", k}}) {
            const int padding = channels == c ? 1 : 0, t = channels == c ? 6 : 4;
            std::set<int64_t> right = pixels_of(channels, 64, in_tiles_from(s.group, 8, padding, t));
            for (int64_t line : pixels_of(channels, 64, [](int) { return true; })) right.insert(64 * channels + line);
            EXPECT_EQ(lines.at(buffer), right) << buffer;
        }
    }
}

// Of two blocks of images, all lines but those of the first `columns` pixels of the first block's first channels.
std::set<int64_t> all_but(int channels, int pixels, int first, int columns) {
    std::set<int64_t> lines = pixels_of(2 * channels, pixels, [](int) { return true; });
    for (int channel = 0; channel < std::min(first, channels); channel++)
        for (int pixel = 0; pixel < columns; pixel++) lines.erase(channel * pixels + pixel);
    return lines;
}

TEST(Prefetch, TurnedWeightGradientsAskForTheNextChunks) {
    int turned_dy = 0, passes = 0;
    for (const auto &[c, w, k] : {std::tuple{32, 49, 64},
                                  {64, 16, 1100},
                                  {256, 36, 128},
                                  {96, 144, 200},
                                  {48, 9, 31},
                                  {192, 144, 16},
                                  {256, 36, 64},
                                  {100, 25, 32}}) {
        SCOPED_TRACE(testing::Message() << c << " -> " << k << " of " << w << " pixels");
        const cryolite::ConvShape q{.lanes = 16,
                                    .blocks = 4,
                                    .groups = 1,
                                    .c = c,
                                    .h = 1,
                                    .w = w,
                                    .k = k,
                                    .r = 1,
                                    .s = 1,
                                    .stride = 1,
                                    .padding = 0};
        const cryolite::Registers registers{.count = 32};
        ASSERT_TRUE(is_turned(q, registers));
        const cryolite::Turned t = choose_turned(q, {.other = 0, .s = 0, .columns = 0}, registers);
        const auto lines =
            lines_of_kernel("conv2d_grad_weight_tiles",
                            {{"c", std::to_string(c)}, {"h", "1"}, {"w", std::to_string(w)}, {"k", std::to_string(k)}},
                            {{"batch", 32}, {"x.stride.4", 16 * w * c}, {"dy.stride.4", 16 * w * k}});
        ASSERT_EQ(lines.size(), 2u);
        const int of_x = cryolite::turns_x(q) ? 16 * t.vectors : t.others,
                  of_dy = cryolite::turns_x(q) ? t.others : 16 * t.vectors;
        // What is read again in another pass is asked for then.
        const bool x_again = of_dy < k, dy_again = !cryolite::turns_x(q) && of_x < c;
        EXPECT_EQ(lines.at("x"), all_but(c, w, x_again ? 0 : of_x, t.columns));
        EXPECT_EQ(lines.at("dy"), all_but(k, w, dy_again ? 0 : of_dy, t.columns));
        turned_dy += !cryolite::turns_x(q);
        passes += x_again;
    }
    EXPECT_GT(turned_dy, 0);
    EXPECT_GT(passes, 0);
}

TEST(Prefetch, TurnedWeightGradientsWithoutALoopOrOfLargerWindowsAskForNothing) {
    EXPECT_TRUE(lines_of_kernel("conv2d_grad_weight", {{"c", "16"}, {"h", "1"}, {"w", "4"}, {"k", "32"}}).empty());
    EXPECT_TRUE(lines_of_kernel("conv2d_grad_weight",
                                {{"c", "32"}, {"h", "8"}, {"w", "8"}, {"k", "32"}, {"r", "3"}, {"s", "3"}})
                    .empty());
}

} // namespace
