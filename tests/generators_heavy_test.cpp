// The convolution, linear, statistics, merge, transpose and optimizer generators against plain double loops, over edge
// shapes. Kernels are compiled as shipped: no symbol outside, no asserts; guard words show stores outside the output.
#include "pointwise_reference.h" // LoadedKernel

#include "Halide.h"
#include "generators/schedule.h"

#include <cmath>
#include <gtest/gtest.h>
#include <memory>
#include <random>

namespace cryolite::testing {
namespace {

using Parameters = std::map<std::string, std::string>;

std::string text(double value) {
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%.9g", value);
    return buffer;
}

// A dense float buffer, innermost extent first, between guard words.
class Array {
public:
    explicit Array(std::vector<int> extents) : extents_(std::move(extents)) {
        for (int e : extents_) size_ *= size_t(e);
        storage_.reset(static_cast<float *>(std::aligned_alloc(64, (size_ + 2 * guard + 15) / 16 * 64)));
        std::fill(storage_.get(), storage_.get() + size_ + 2 * guard, guard_value);
        int stride = 1;
        for (int e : extents_) dims_.push_back({0, e, stride}), stride *= e;
        describe();
    }

    float *data() { return storage_.get() + guard; }
    float &operator[](size_t i) { return data()[i]; }
    size_t size() const { return size_; }
    float &at(const std::vector<int> &index) {
        size_t i = 0;
        for (size_t d = 0; d < index.size(); d++) i += size_t(index[d]) * size_t(dims_[d].stride);
        return data()[i];
    }
    // A window of another buffer: `offset` elements in, with other extents and strides.
    void view(Array &other, size_t offset, const std::vector<int> &extents, const std::vector<int> &strides) {
        dims_.clear();
        for (size_t d = 0; d < extents.size(); d++) dims_.push_back({0, extents[d], strides[d]});
        describe();
        buffer_.host = reinterpret_cast<uint8_t *>(other.data() + offset);
    }
    void randomize(std::mt19937 &engine, double low = -1, double high = 1) {
        std::uniform_real_distribution<double> uniform(low, high);
        for (size_t i = 0; i < size_; i++) data()[i] = float(uniform(engine));
    }
    void fill(float value) { std::fill(data(), data() + size_, value); }
    void expect_guards() {
        for (size_t i = 0; i < guard; i++) {
            ASSERT_EQ(storage_[i], guard_value) << "store before the buffer";
            ASSERT_EQ(storage_[guard + size_ + i], guard_value) << "store after the buffer";
        }
    }
    halide_buffer_t *buffer() { return &buffer_; }

private:
    static constexpr size_t guard = 64;
    static constexpr float guard_value = 12345.f;

    void describe() {
        buffer_ = {};
        buffer_.host = reinterpret_cast<uint8_t *>(data());
        buffer_.type = halide_type_of<float>();
        buffer_.dimensions = int(dims_.size());
        buffer_.dim = dims_.data();
    }

    struct Free {
        void operator()(float *p) const { std::free(p); }
    };
    std::vector<int> extents_;
    std::vector<halide_dimension_t> dims_;
    std::unique_ptr<float[], Free> storage_;
    size_t size_ = 1;
    halide_buffer_t buffer_ = {};
};

void expect_close(Array &actual, const std::vector<double> &expected, double tolerance = 1e-5) {
    ASSERT_EQ(actual.size(), expected.size());
    double largest = 1e-30;
    for (double e : expected) largest = std::max(largest, std::fabs(e));
    for (size_t i = 0; i < expected.size(); i++)
        ASSERT_LE(std::fabs(actual[i] - expected[i]), tolerance * largest)
            << "element " << i << ": " << actual[i] << " instead of " << expected[i];
    actual.expect_guards();
}

struct Machine {
    std::string target = "host";
    int lanes = 0;

    int width() const { return lanes ? lanes : Halide::Target(target).natural_vector_size<float>(); }
    bool runs_here() const {
        const Halide::Target wanted(target), here = Halide::get_host_target();
        for (int f = 0; f < Halide::Target::FeatureEnd; f++)
            if (wanted.has_feature(Halide::Target::Feature(f)) && !here.has_feature(Halide::Target::Feature(f)))
                return false;
        return wanted.arch == here.arch && wanted.os == here.os;
    }
};

// One machine of each width, and lanes that differ from the vector width.
std::vector<Machine> machines() {
    std::vector<Machine> result{{"host", 0}, {"host", 4}, {"host", 8}, {"host", 16}};
    for (Machine m : {Machine{"x86-64-linux-avx-avx2-f16c-fma-sse41", 8},
                      Machine{"x86-64-linux-avx-avx2-f16c-fma-sse41", 16}, Machine{"x86-64-linux-sse41", 4}})
        if (m.runs_here()) result.push_back(m);
    return result;
}

// ---- Convolution

struct Conv {
    int c, h, w, k, r, s, stride = 1, padding = 0, groups = 1;

    int ho() const { return (h + 2 * padding - r) / stride + 1; }
    int wo() const { return (w + 2 * padding - s) / stride + 1; }
    std::string name() const {
        std::string result;
        for (int v : {c, h, w, k, r, s, stride, padding, groups}) result += std::to_string(v) + " ";
        return result;
    }
    Parameters parameters(int lanes, int blocks) const {
        return {{"c", text(c)},
                {"h", text(h)},
                {"w", text(w)},
                {"k", text(k)},
                {"r", text(r)},
                {"s", text(s)},
                {"stride", text(stride)},
                {"padding", text(padding)},
                {"groups", text(groups)},
                {"lanes", text(lanes)},
                {"n", text(lanes * blocks)}};
    }
};

// Calls f(x index, weight index, y index) for every multiply-add.
template <class F> void each_tap(const Conv &q, int lanes, int blocks, F f) {
    const int ho = q.ho(), wo = q.wo(), cg = q.c / q.groups, kg = q.k / q.groups;
    for (int b = 0; b < blocks; b++)
        for (int k = 0; k < q.k; k++)
            for (int y = 0; y < ho; y++)
                for (int x = 0; x < wo; x++)
                    for (int c = 0; c < cg; c++)
                        for (int r = 0; r < q.r; r++)
                            for (int s = 0; s < q.s; s++) {
                                const int row = y * q.stride + r - q.padding, column = x * q.stride + s - q.padding;
                                if (row < 0 || row >= q.h || column < 0 || column >= q.w) continue;
                                const int channel = b * q.c + k / kg * cg + c;
                                const size_t in = size_t((channel * q.h + row) * q.w + column) * size_t(lanes);
                                const size_t out = size_t(((b * q.k + k) * ho + y) * wo + x) * size_t(lanes);
                                const size_t weight = size_t(((k * cg + c) * q.r + r) * q.s + s);
                                for (int l = 0; l < lanes; l++) f(in + size_t(l), weight, out + size_t(l));
                            }
}

struct ConvData {
    Array x, weight, bias, y, dx, dw, dy;

    ConvData(const Conv &q, int v, int blocks)
        : x(input(q, v, blocks)), weight({q.s, q.r, q.c / q.groups, q.k}), bias({q.k}), y(output(q, v, blocks)),
          dx(input(q, v, blocks)), dw({q.s, q.r, q.c / q.groups, q.k / q.groups, q.groups}), dy(output(q, v, blocks)) {
        std::mt19937 engine(7);
        for (Array *a : {&x, &weight, &bias, &dy}) a->randomize(engine);
        for (Array *a : {&y, &dx, &dw}) a->fill(NAN);
    }
    // The groups of a block lie one after another, as blocks of fewer channels.
    static std::vector<int> input(const Conv &q, int v, int blocks) {
        return {v, q.w, q.h, q.c / q.groups, q.groups * blocks};
    }
    static std::vector<int> output(const Conv &q, int v, int blocks) {
        return {v, q.wo(), q.ho(), q.k / q.groups, q.groups * blocks};
    }
};

void check_forward(const Conv &q, const Machine &m, int blocks, bool bias) {
    const int v = m.width();
    ConvData d(q, v, blocks);
    Parameters parameters = q.parameters(v, blocks);
    parameters["bias"] = bias ? "true" : "false";
    std::vector<double> expected(d.y.size());
    for (size_t i = 0; bias && i < expected.size(); i++)
        expected[i] = d.bias[i / size_t(v * q.wo() * q.ho()) % size_t(q.k)];
    each_tap(q, v, blocks, [&](size_t i, size_t w, size_t o) { expected[o] += double(d.x[i]) * d.weight[w]; });
    std::vector<void *> arguments{d.x.buffer(), d.weight.buffer()};
    if (bias) arguments.push_back(d.bias.buffer());
    arguments.push_back(d.y.buffer());
    LoadedKernel("conv2d", parameters, m.target).call(arguments.data());
    expect_close(d.y, expected);
}

void check_gradients(const Conv &q, const Machine &m, int blocks) {
    const int v = m.width();
    ConvData d(q, v, blocks);
    std::vector<double> dx(d.dx.size()), dw(d.dw.size());
    each_tap(q, v, blocks, [&](size_t i, size_t w, size_t o) {
        dx[i] += double(d.dy[o]) * d.weight[w];
        dw[w] += double(d.dy[o]) * d.x[i];
    });
    const Parameters parameters = q.parameters(v, blocks);
    void *input[] = {d.dy.buffer(), d.weight.buffer(), d.dx.buffer()};
    LoadedKernel("conv2d_grad_input", parameters, m.target).call(input);
    expect_close(d.dx, dx);
    void *weight[] = {d.x.buffer(), d.dy.buffer(), d.dw.buffer()};
    LoadedKernel("conv2d_grad_weight", parameters, m.target).call(weight);
    expect_close(d.dw, dw);
}

const Conv conv_shapes[] = {
    {.c = 1, .h = 12, .w = 12, .k = 6, .r = 5, .s = 5},
    {.c = 6, .h = 8, .w = 8, .k = 16, .r = 5, .s = 5},
    {.c = 1, .h = 1, .w = 1, .k = 1, .r = 1, .s = 1},
    {.c = 3, .h = 1, .w = 1, .k = 2, .r = 3, .s = 3, .padding = 1},
    {.c = 2, .h = 4, .w = 5, .k = 3, .r = 4, .s = 5},                // window = input
    {.c = 2, .h = 9, .w = 10, .k = 3, .r = 2, .s = 2, .stride = 3},  // stride > window
    {.c = 2, .h = 7, .w = 7, .k = 2, .r = 3, .s = 3, .padding = 4},  // more padding than needed
    {.c = 5, .h = 6, .w = 31, .k = 7, .r = 3, .s = 3, .padding = 1}, // prime extents
    {.c = 3, .h = 3, .w = 29, .k = 29, .r = 1, .s = 1},              // primes above every tile
    {.c = 29, .h = 2, .w = 3, .k = 31, .r = 1, .s = 1},
    {.c = 4, .h = 8, .w = 8, .k = 6, .r = 3, .s = 3, .stride = 2, .padding = 1},
    {.c = 3, .h = 15, .w = 33, .k = 5, .r = 3, .s = 3, .stride = 2, .padding = 1}, // odd width, stride 2
    {.c = 1, .h = 13, .w = 34, .k = 4, .r = 7, .s = 7, .stride = 2, .padding = 3},
    {.c = 2, .h = 11, .w = 14, .k = 3, .r = 5, .s = 3, .stride = 3, .padding = 2},
    {.c = 3, .h = 6, .w = 70, .k = 2, .r = 1, .s = 3, .stride = 3, .padding = 1},
    {.c = 8, .h = 8, .w = 8, .k = 8, .r = 1, .s = 1, .stride = 2},
    {.c = 2, .h = 3, .w = 30, .k = 1, .r = 3, .s = 29}, // a window wider than a tile
    {.c = 6, .h = 5, .w = 7, .k = 4, .r = 3, .s = 3, .padding = 1, .groups = 2},
    {.c = 26, .h = 4, .w = 5, .k = 39, .r = 2, .s = 1, .stride = 2, .padding = 1, .groups = 13},
    {.c = 5, .h = 9, .w = 17, .k = 5, .r = 3, .s = 3, .padding = 1, .groups = 5},
    {.c = 3, .h = 8, .w = 19, .k = 6, .r = 3, .s = 3, .stride = 2, .padding = 1, .groups = 3},
};

TEST(Conv2d, EdgeShapes) {
    for (const Conv &q : conv_shapes) {
        SCOPED_TRACE(q.name());
        check_forward(q, {}, 1, true);
    }
}

TEST(Conv2d, GradientEdgeShapes) {
    for (const Conv &q : conv_shapes) {
        SCOPED_TRACE(q.name());
        check_gradients(q, {}, 1);
    }
}

TEST(Conv2d, WidthsAndTargets) {
    const Conv q{.c = 3, .h = 7, .w = 9, .k = 5, .r = 3, .s = 3, .stride = 2, .padding = 1};
    for (const Machine &m : machines()) {
        SCOPED_TRACE(m.target + " " + std::to_string(m.lanes));
        check_forward(q, m, 2, false);
        check_gradients(q, m, 2);
        const Conv grouped{.c = 6, .h = 7, .w = 9, .k = 10, .r = 3, .s = 3, .stride = 2, .padding = 1, .groups = 2};
        check_forward(grouped, m, 2, true);
        check_gradients(grouped, m, 2);
    }
}

TEST(Conv2d, WindowMustFit) {
    const Conv q{.c = 1, .h = 4, .w = 4, .k = 1, .r = 5, .s = 5};
    EXPECT_THROW(LoadedKernel("conv2d", q.parameters(8, 1)), Halide::CompileError);
    const Conv odd{.c = 4, .h = 4, .w = 4, .k = 3, .r = 1, .s = 1, .groups = 2};
    EXPECT_THROW(LoadedKernel("conv2d", odd.parameters(8, 1)), Halide::CompileError);
}

// ---- Linear

void check_linear(int c, int k, const Machine &m, int blocks, bool bias) {
    SCOPED_TRACE("linear " + std::to_string(c) + " " + std::to_string(k) + " " + m.target);
    const int v = m.width();
    std::mt19937 engine(3);
    Array x({v, c, blocks}), weight({c, k}), b({k}), y({v, k, blocks}), dx({v, c, blocks});
    for (Array *a : {&x, &weight, &b}) a->randomize(engine);
    std::vector<double> expected(y.size()), expected_dx(x.size());
    for (int block = 0; block < blocks; block++)
        for (int o = 0; o < k; o++)
            for (int l = 0; l < v; l++) {
                double sum = bias ? b[size_t(o)] : 0;
                for (int i = 0; i < c; i++) sum += double(x.at({l, i, block})) * weight.at({i, o});
                expected[size_t((block * k + o) * v + l)] = sum;
            }
    Parameters parameters{{"c", text(c)}, {"k", text(k)}, {"lanes", text(v)}, {"n", text(v * blocks)}};
    Parameters forward = parameters;
    forward["bias"] = bias ? "true" : "false";
    std::vector<void *> arguments{x.buffer(), weight.buffer()};
    if (bias) arguments.push_back(b.buffer());
    arguments.push_back(y.buffer());
    LoadedKernel("linear", forward, m.target).call(arguments.data());
    expect_close(y, expected);

    Array dy({v, k, blocks});
    dy.randomize(engine);
    for (int block = 0; block < blocks; block++)
        for (int i = 0; i < c; i++)
            for (int l = 0; l < v; l++) {
                double sum = 0;
                for (int o = 0; o < k; o++) sum += double(dy.at({l, o, block})) * weight.at({i, o});
                expected_dx[size_t((block * c + i) * v + l)] = sum;
            }
    void *gradient[] = {dy.buffer(), weight.buffer(), dx.buffer()};
    LoadedKernel("linear_grad_input", parameters, m.target).call(gradient);
    expect_close(dx, expected_dx);
}

void check_linear_grad_weight(int c, int k, const Machine &m, int batch) {
    SCOPED_TRACE("linear_grad_weight " + std::to_string(c) + " " + std::to_string(k) + " " + std::to_string(batch));
    const int v = m.width(), blocks = ceil_div(batch, v);
    const auto [inputs, outputs] = linear_grad_weight_tile(c, k, v);
    std::mt19937 engine(5);
    Array x({v, c, blocks + 1}), dy({v, k, blocks + 1}), dw({c, k});
    x.randomize(engine);
    dy.randomize(engine); // the block after the batch must not be read
    std::vector<double> expected(dw.size());
    for (int o = 0; o < k; o++)
        for (int i = 0; i < c; i++)
            for (int b = 0; b < blocks; b++)
                for (int l = 0; l < v; l++) expected[size_t(o * c + i)] += double(x.at({l, i, b})) * dy.at({l, o, b});
    Parameters parameters{
        {"c", text(inputs)}, {"k", text(k)}, {"tile", text(outputs)}, {"lanes", text(v)}, {"weight_c", text(c)}};
    LoadedKernel kernel("linear_grad_weight", parameters, m.target);
    for (int i = 0; i < c; i += int(inputs))
        for (int o = 0; o < k; o += int(outputs)) {
            Array x_tile({1}), dy_tile({1}), dw_tile({1});
            x_tile.view(x, size_t(i * v), {v, int(inputs), blocks + 1}, {1, v, v * c});
            dy_tile.view(dy, size_t(o * v), {v, int(outputs), blocks + 1}, {1, v, v * k});
            dw_tile.view(dw, size_t(o * c + i), {int(inputs), int(outputs)}, {1, c});
            void *arguments[] = {&batch, x_tile.buffer(), dy_tile.buffer(), dw_tile.buffer()};
            kernel.call(arguments);
        }
    expect_close(dw, expected);
}

TEST(Linear, EdgeShapes) {
    for (auto [c, k] : {std::pair{1, 1}, {1, 7}, {7, 1}, {2, 3}, {256, 120}, {84, 10}, {37, 31}, {1024, 26}, {113, 53}})
        check_linear(c, k, {}, 1, c % 2);
    check_linear(30, 29, {}, 3, true);
}

TEST(Linear, GradWeightEdgeShapes) {
    for (auto [c, k] :
         {std::pair{1, 1}, {1, 7}, {3, 5}, {7, 1}, {15, 3}, {17, 31}, {84, 10}, {120, 84}, {113, 53}, {256, 120}})
        for (int batch : {1, 35, 307}) check_linear_grad_weight(c, k, {}, batch);
}

TEST(Linear, WidthsAndTargets) {
    for (const Machine &m : machines()) {
        check_linear(13, 27, m, 2, true);
        check_linear_grad_weight(45, 14, m, 19);
    }
}

TEST(Schedule, WeightTilesDivide) {
    for (int c : {1, 5, 84, 120, 256, 784, 4096})
        for (int k = 1; k <= 300; k++)
            for (int lanes : {4, 8, 16}) {
                const auto [inputs, outputs] = linear_grad_weight_tile(c, k, lanes);
                ASSERT_EQ(c % inputs, 0) << c << " " << k;
                ASSERT_EQ(k % outputs, 0) << c << " " << k;
                ASSERT_TRUE(inputs == c || outputs == k) << c << " " << k;
            }
    EXPECT_LT(linear_grad_weight_tile(256, 120, 8).inputs, 256) << "no tasks to share";
    EXPECT_LT(linear_grad_weight_tile(333, 770, 8).outputs, 770) << "no tasks to share";
}

TEST(Schedule, TilesFitTheRegisters) {
    for (int budget : {1, 3, 12, 24})
        for (int x : {1, 2, 7, 12, 31, 224})
            for (int c : {1, 3, 16, 37, 512}) {
                const Tile tile = best_tile({.x = x, .c = c, .steps = 9}, budget);
                ASSERT_GE(tile.x * tile.c, 1);
                ASSERT_LE(tile.x * tile.c, budget);
                ASSERT_LE(tile.x, x);
                ASSERT_LE(tile.c, c);
            }
}

// ---- Batch statistics

struct Moments {
    double mean = 0, m2 = 0;
};

Moments moments_of(const std::vector<float> &values) {
    Moments m;
    for (float value : values) m.mean += value;
    m.mean /= double(values.size());
    for (float value : values) m.m2 += (value - m.mean) * (value - m.mean);
    return m;
}

// Statistics of a ragged batch through both kernels. `value(sample, channel, pixel)`; padding lanes hold NaN.
// tolerance: of the variance, relative to itself.
template <class F>
void check_stats(int c, int h, int w, int batch, const Machine &m, F value, double tolerance = 1e-5) {
    SCOPED_TRACE("stats " + std::to_string(c) + " " + std::to_string(h) + " " + std::to_string(w) + " batch " +
                 std::to_string(batch) + " " + m.target + " " + std::to_string(m.lanes));
    const int v = m.width(), blocks = ceil_div(batch, v), pixels = h * w;
    Parameters parameters{{"c", text(c)}, {"h", text(h)}, {"w", text(w)}, {"lanes", text(v)}};
    LoadedKernel stats("batch_stats", parameters, m.target);
    LoadedKernel merge("batch_stats_merge",
                       {{"c", text(c)}, {"count", text(pixels)}, {"max_batch", text(batch + 5)}, {"lanes", text(v)}},
                       m.target);
    std::vector<std::vector<float>> all(static_cast<size_t>(c));
    Array partial({3, c, blocks + 1}), mean({c}), variance({c});
    partial.fill(NAN);
    for (int b = 0; b < blocks; b++) {
        Array x({v, w, h, c, 1}), part({3, c, 1});
        x.fill(NAN);
        int valid = std::min(v, batch - b * v);
        std::vector<std::vector<float>> block(static_cast<size_t>(c));
        for (int l = 0; l < valid; l++)
            for (int i = 0; i < c; i++)
                for (int p = 0; p < pixels; p++) {
                    float f = float(value(b * v + l, i, p));
                    x[size_t((i * pixels + p) * v + l)] = f;
                    block[size_t(i)].push_back(f);
                    all[size_t(i)].push_back(f);
                }
        void *arguments[] = {&valid, x.buffer(), part.buffer()};
        stats.call(arguments);
        part.expect_guards();
        for (int i = 0; i < c; i++) {
            const Moments e = moments_of(block[size_t(i)]);
            const double count = double(block[size_t(i)].size()), ulp = std::fabs(e.mean) * 1.2e-7;
            ASSERT_NEAR(part.at({0, i, 0}), e.mean, ulp + 1e-6 * std::sqrt(e.m2 / count)) << "channel " << i;
            ASSERT_NEAR(part.at({1, i, 0}), e.m2, tolerance * e.m2) << "channel " << i;
            ASSERT_NEAR(double(part.at({0, i, 0})) + part.at({2, i, 0}), e.mean, 1e-6 * std::sqrt(e.m2 / count));
            for (int moment : {0, 1, 2}) partial.at({moment, i, b}) = part.at({moment, i, 0});
        }
    }
    void *arguments[] = {&batch, partial.buffer(), mean.buffer(), variance.buffer()};
    merge.call(arguments);
    for (int i = 0; i < c; i++) {
        const Moments e = moments_of(all[size_t(i)]);
        const double expected = e.m2 / double(all[size_t(i)].size()), ulp = std::fabs(e.mean) * 1.2e-7;
        ASSERT_NEAR(mean[size_t(i)], e.mean, ulp + 1e-6 * std::sqrt(expected)) << "channel " << i;
        ASSERT_NEAR(variance[size_t(i)], expected, tolerance * expected) << "channel " << i;
    }
    mean.expect_guards();
    variance.expect_guards();
}

double noise(int sample, int channel, int pixel) {
    uint32_t z = uint32_t(sample) * 2654435761u ^ uint32_t(channel) * 40503u ^ uint32_t(pixel) * 2246822519u;
    z = (z ^ (z >> 15)) * 2246822519u;
    z = (z ^ (z >> 13)) * 3266489917u;
    return double(z ^ (z >> 16)) / 4294967296.0 * 2 - 1;
}

TEST(BatchStats, ShapesAndRaggedBatches) {
    const int v = Machine{}.width();
    for (int batch : {1, 2, v - 1, v, v + 1, 2 * v + 1}) check_stats(3, 5, 4, batch, {}, noise);
    for (auto [c, h, w] : {std::array{1, 1, 1},
                           {120, 1, 1},
                           {13, 1, 1},
                           {84, 1, 1},
                           {11, 2, 2},
                           {6, 24, 24},
                           {2, 7, 1},
                           {2, 1, 7},
                           {3, 13, 31}})
        check_stats(c, h, w, v + 3, {}, noise);
    for (const Machine &m : machines()) check_stats(5, 3, 3, 21, m, noise);
}

TEST(BatchStats, LargeOffsets) {
    for (double offset : {1e4, -1e6, 1e8})
        for (auto [c, h] : {std::pair{2, 1}, {9, 1}, {9, 2}, {2, 24}})
            check_stats(c, h, h, 20, {}, [&](int n, int i, int p) { return offset + 100 * noise(n, i, p); });
}

TEST(BatchStats, ConstantsHaveNoVariance) {
    for (double constant : {100.0, 1e7, -3.3e8, 0.1})
        for (auto [c, h] : {std::pair{3, 1}, {9, 1}, {3, 24}}) {
            check_stats(
                c, h, h, 19, {}, [&](int, int, int) { return constant; }, 0);
        }
}

TEST(BatchStats, OutlierAtTheFirstValue) {
    check_stats(1, 24, 24, 16, {}, [](int n, int c, int p) { return n + p == 0 ? 1e8 : 1.3 + noise(n, c, p); });
    check_stats(1, 24, 24, 16, {}, [](int n, int c, int p) { return p / 24 % 4 == 0 ? 0 : 1e4 + noise(n, c, p); });
}

TEST(BatchStats, NanReachesTheResult) {
    const int v = Machine{}.width();
    LoadedKernel stats("batch_stats", {{"c", "1"}, {"h", "8"}, {"w", "8"}});
    for (int place : {0, 5 * 8 * v + 3}) {
        Array x({v, 8, 8, 1, 1}), partial({3, 1, 1});
        x.fill(1);
        x[size_t(place)] = NAN;
        int valid = v;
        void *arguments[] = {&valid, x.buffer(), partial.buffer()};
        stats.call(arguments);
        EXPECT_TRUE(std::isnan(partial[0])) << place;
        EXPECT_TRUE(std::isnan(partial[1])) << place;
    }
}

// ---- Merge, transpose, optimizer

TEST(SumMerge, Shapes) {
    for (const Machine &m : machines())
        for (int size : {1, 3, 17, 150, 2400})
            for (int mean_count : {0, 7}) {
                const int v = m.width();
                int batch = 2 * v + 1;
                Array partial({size, 4}), out({size});
                std::mt19937 engine(9);
                partial.randomize(engine);
                for (int i = 0; i < size; i++) partial.at({i, 3}) = NAN; // not part of the batch
                std::vector<double> expected(out.size());
                for (int i = 0; i < size; i++)
                    for (int b = 0; b < 3; b++)
                        expected[size_t(i)] += partial.at({i, b}) / (mean_count ? double(batch) * mean_count : 1);
                LoadedKernel kernel(
                    "sum_merge",
                    {{"size", text(size)}, {"max_batch", "100"}, {"mean_count", text(mean_count)}, {"lanes", text(v)}},
                    m.target);
                void *arguments[] = {&batch, partial.buffer(), out.buffer()};
                kernel.call(arguments);
                expect_close(out, expected, 1e-7);
            }
}

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

void check_sgd(int size, double momentum, double decay, bool nesterov, bool in_place, const Machine &m) {
    SCOPED_TRACE("sgd " + std::to_string(size) + " " + text(momentum) + " " + text(decay));
    std::mt19937 engine(2);
    Array rate({1}), weight({size}), velocity({size}), grad({size}), new_weight({size}), new_velocity({size});
    rate[0] = 0.1f;
    for (Array *a : {&weight, &velocity, &grad}) a->randomize(engine);
    std::vector<double> expected_weight(weight.size()), expected_velocity(weight.size());
    for (size_t i = 0; i < weight.size(); i++) {
        double g = grad[i] + decay * weight[i], v = momentum > 0 ? momentum * velocity[i] + g : g;
        expected_velocity[i] = v;
        expected_weight[i] = weight[i] - 0.1 * (nesterov ? g + momentum * v : v);
    }
    LoadedKernel kernel("sgd",
                        {{"size", text(size)},
                         {"momentum", text(momentum)},
                         {"weight_decay", text(decay)},
                         {"nesterov", nesterov ? "true" : "false"}},
                        m.target);
    Array &w = in_place ? weight : new_weight, &v = in_place ? velocity : new_velocity;
    std::vector<void *> arguments{rate.buffer(), weight.buffer()};
    if (momentum > 0) arguments.push_back(velocity.buffer());
    for (Array *a : {&grad, &w}) arguments.push_back(a->buffer());
    if (momentum > 0) arguments.push_back(v.buffer());
    kernel.call(arguments.data());
    expect_close(w, expected_weight, 1e-6);
    if (momentum > 0) expect_close(v, expected_velocity, 1e-6);
}

TEST(Sgd, AsPyTorch) {
    for (const Machine &m : {Machine{}, machines().back()})
        for (int size : {1, 3, 6, 16, 850, 2401})
            for (bool in_place : {false, true}) {
                check_sgd(size, 0, 0, false, in_place, m);
                check_sgd(size, 0.9, 1e-2, false, in_place, m);
                check_sgd(size, 0.9, 0, true, in_place, m);
            }
}

} // namespace
} // namespace cryolite::testing
