// The plan of one sample: channels innermost, tasks that are parts of a layer. Everything that inference may be made
// of, beside float64 and beside the lane layout.
#include "fixture.h"
#include "generators/channels_schedule.h"
#include "golden.h"
#include "interpret.h"
#include "networks.h"
#include "plan_format.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <gtest/gtest.h>
#include <sstream>
#include <thread>

using namespace cryolite;
using namespace cryolite::test;

namespace {

std::vector<double> numbers(const std::vector<float> &x) { return {x.begin(), x.end()}; }

// A network without training, and its output for every sample by itself.
struct Subject {
    std::unique_ptr<Network> net = std::make_unique<Network>("net");
    std::unique_ptr<TestModel> model;
    int64_t most, elements = 0, classes = 0;
    std::vector<float> images;

    explicit Subject(const std::function<void(Network &)> &define, int threads = 2, int64_t batch = 8,
                     bool train = false)
        : most(batch) {
        define(*net);
        if (train) net->optimize({.learning_rate = 0.01});
        model = std::make_unique<TestModel>(*net, CompileOptions{.batch = most, .train = train, .few = 5}, threads);
        EXPECT_GT(model->compiled().infer_one_batch, 0) << "there is no plan of one sample";
        model->initialize(3);
        elements = int64_t(cryo_input_elements(model->get()));
        classes = cryo_classes(model->get());
        images = deterministic(5, size_t(most * elements), 1);
    }
    std::vector<float> infer(int64_t first, int64_t batch) {
        std::vector<float> outputs(size_t(batch * classes), NAN);
        EXPECT_EQ(cryo_infer(model->get(), images.data() + first * elements, batch, outputs.data()), CRYO_OK)
            << cryo_error(model->get());
        return outputs;
    }
    // Batches of 1, 2, 3, 4, 5, 1, ...: taken alone by threads, or shared by them.
    std::vector<float> infer_few() {
        std::vector<float> all;
        for (int64_t first = 0, few = 1; first < most; first += few, few = few % 5 + 1) {
            few = std::min({few, most - first, model->compiled().infer_one_batch});
            std::vector<float> some = infer(first, few);
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    }
    std::vector<double> expected() const {
        InterpreterInputs inputs;
        inputs.batch = most;
        inputs.images = numbers(images);
        for (const auto &[name, values] : model->parameters()) inputs.stored[name] = numbers(values);
        return interpret(select_mode(net->graph(), context(Mode::infer)), inputs).outputs.at("output");
    }
    void expect_right(const std::vector<float> &ours, double bound = 1e-5) const {
        std::vector<double> right = expected();
        ASSERT_EQ(ours.size(), right.size());
        double largest = 0;
        for (double x : right) largest = std::max(largest, std::fabs(x));
        for (size_t i = 0; i < ours.size(); i++) ASSERT_NEAR(ours[i], right[i], bound * largest) << i;
    }
};

void expect_right(const std::function<void(Network &)> &define) {
    Subject subject(define);
    subject.expect_right(subject.infer_few());
}

TEST(Channels, AnyNumberOfChannels) {
    for (int from : {1, 3, 8, 17})
        for (int to : {1, 6, 7, 9, 16, 24}) {
            SCOPED_TRACE(testing::Message() << from << " to " << to);
            expect_right([=](Network &net) {
                Value x = net.input("image", {from, 9, 7});
                x = relu(conv2d(x, {.channels = to, .window = 3, .padding = 1}));
                x = conv2d(x, {.channels = from, .window = 1, .bias = false});
                net.classify(linear(flatten(x), {.units = to + 1}));
            });
        }
}

TEST(Channels, WindowsStridesAndGroups) {
    struct {
        int channels, window, stride, padding, groups;
    } cases[] = {{12, 5, 1, 2, 1}, {12, 5, 2, 0, 1}, {12, 3, 2, 1, 3}, {12, 3, 1, 1, 12}, {24, 3, 2, 1, 12},
                 {12, 1, 2, 0, 1}, {12, 7, 1, 3, 4}, {24, 3, 1, 2, 6}, {12, 7, 1, 3, 12}, {36, 3, 1, 1, 12}};
    for (const auto &c : cases) {
        SCOPED_TRACE(testing::Message() << c.channels << " channels, window " << c.window << ", stride " << c.stride
                                        << ", padding " << c.padding << ", groups " << c.groups);
        for (int h : {11, 7})
            expect_right([&](Network &net) {
                Value x = conv2d(net.input("image", {2, h, 11}), {.channels = 12, .window = 1});
                x = relu6(conv2d(x, {.channels = c.channels,
                                     .window = c.window,
                                     .stride = c.stride,
                                     .padding = c.padding,
                                     .groups = c.groups}));
                net.classify(linear(flatten(x), {.units = 3}));
            });
    }
}

// Wide depthwise layers test borders, and are split; narrow ones copy.
TEST(Channels, DepthwiseLayers) {
    for (int channels : {8, 16, 32, 20})
        for (int stride : {1, 2})
            for (int size : {3, 5, 24})
                expect_right([=](Network &net) {
                    Value x = relu(conv2d(net.input("image", {3, size, size}), {.channels = channels, .window = 1}));
                    x = relu6(conv2d(
                        x, {.channels = channels, .window = 3, .stride = stride, .padding = 1, .groups = channels}));
                    net.classify(linear(flatten(adaptive_avg_pool2d(x)), {.units = 3}));
                });
}

// Layers large enough for several tasks, by rows and by channels; residuals, which are windows of other values.
TEST(Channels, LayersInTasks) {
    for (int channels : {16, 32, 48})
        for (int size : {4, 6, 16})
            expect_right([=](Network &net) {
                Value x = relu(
                    conv2d(net.input("image", {3, size, size}), {.channels = channels, .window = 3, .padding = 1}));
                Value y = conv2d(x, {.channels = channels, .window = 3, .padding = 1});
                x = relu(x + 0.5f * y);
                y = conv2d(x, {.channels = 2 * channels, .window = 3, .stride = 2, .padding = 1});
                x = relu(conv2d(x, {.channels = 2 * channels, .window = 1, .stride = 2}) + y);
                net.classify(linear(flatten(x), {.units = 40}));
            });
}

// Weights of a block larger than L1's share: sums of all pixels, a chunk of input channels at a time.
TEST(Channels, ChunksOfInputChannels) {
    struct {
        int from, to, h, w, window, stride, padding, pool;
    } cases[] = {{128, 32, 7, 7, 3, 1, 1, 1}, // pixels that no tile divides, windows over several rows
                 {96, 40, 6, 5, 3, 2, 1, 1},   {600, 48, 7, 7, 1, 1, 0, 1}, // a chunk is no power of two
                 {512, 24, 9, 3, 1, 2, 0, 1},  {128, 16, 8, 8, 3, 1, 1, 2}, // a pool behind it
                 {160, 64, 12, 12, 5, 1, 0, 1}};
    for (const auto &c : cases) {
        SCOPED_TRACE(testing::Message() << c.from << " to " << c.to << " @ " << c.h << "x" << c.w << ", window "
                                        << c.window << ", stride " << c.stride);
        ChannelsConv q{.c = c.from,
                       .h = c.h,
                       .w = c.w,
                       .k = c.to,
                       .r = c.window,
                       .s = c.window,
                       .stride = c.stride,
                       .padding = c.padding,
                       .groups = 1,
                       .pool = c.pool,
                       .ho = ((c.h + 2 * c.padding - c.window) / c.stride + 1) / c.pool,
                       .wo = ((c.w + 2 * c.padding - c.window) / c.stride + 1) / c.pool,
                       .vector = 8};
        EXPECT_GT(q.schedule().chunk, 0);
        EXPECT_EQ(q.c % q.schedule().chunk, 0);
        expect_right([&](Network &net) {
            Value x = conv2d(net.input("image", {3, c.h, c.w}), {.channels = c.from, .window = 1});
            x = conv2d(relu(x), {.channels = c.to, .window = c.window, .stride = c.stride, .padding = c.padding});
            x = relu(x);
            if (c.pool > 1) x = max_pool2d(x, {.window = c.pool});
            net.classify(linear(flatten(x), {.units = 3}));
        });
    }
}

// The last tiles of rows and columns leave the image: such pixels are not stored, nor read of what is added.
TEST(Channels, WinogradOfImagesThatTilesDoNotDivide) {
    struct {
        int channels, h, w, padding;
    } cases[] = {{32, 7, 7, 1}, {32, 14, 14, 1}, {48, 9, 6, 1}, {32, 11, 9, 0}, {32, 5, 10, 2}, {64, 6, 13, 1}};
    for (const auto &c : cases) {
        SCOPED_TRACE(testing::Message() << c.channels << " @ " << c.h << "x" << c.w << ", padding " << c.padding);
        const int ho = c.h + 2 * c.padding - 2, wo = c.w + 2 * c.padding - 2;
        for (int vector : {8, 16}) {
            const ChannelsConv q{.c = c.channels,
                                 .h = c.h,
                                 .w = c.w,
                                 .k = c.channels,
                                 .r = 3,
                                 .s = 3,
                                 .stride = 1,
                                 .padding = c.padding,
                                 .groups = 1,
                                 .pool = 1,
                                 .ho = ho,
                                 .wo = wo,
                                 .vector = vector};
            ASSERT_GT(q.best_m(), 0);
            EXPECT_TRUE(ho % q.best_m() || wo % q.best_m());
        }
        expect_right([&](Network &net) {
            Value x = relu(conv2d(net.input("image", {3, c.h, c.w}), {.channels = c.channels, .window = 1}));
            Value y = conv2d(x, {.channels = c.channels, .window = 3, .padding = c.padding});
            if (c.padding == 1) y = relu(x + 0.5f * y);
            net.classify(linear(flatten(conv2d(y, {.channels = 5, .window = 1})), {.units = 3}));
        });
    }
}

TEST(Channels, Pooling) {
    for (int window : {2, 3})
        for (int padding : {0, 1})
            for (bool largest : {false, true})
                expect_right([=](Network &net) {
                    Value x = sigmoid(conv2d(net.input("image", {2, 12, 13}), {.channels = 10, .window = 3}));
                    auto pool = [&](Value v, int stride) {
                        return largest ? max_pool2d(v, {.window = window, .stride = stride, .padding = padding})
                                       : avg_pool2d(v, {.window = window, .stride = stride, .padding = padding});
                    };
                    x = pool(conv2d(pool(x, 1), {.channels = 9, .window = 1}), window);
                    net.classify(linear(flatten(x), {.units = 4}));
                });
    for (int size : {1, 2, 3})
        expect_right([=](Network &net) {
            Value x = conv2d(net.input("image", {2, 11, 7}), {.channels = 9, .window = 3});
            net.classify(linear(flatten(adaptive_avg_pool2d(x, {.height = size, .width = size})), {.units = 4}));
        });
}

// Where a whole vector takes as long as two halves, results that would leave half of their last one empty are made in
// halves; everywhere those are that fill no more.
TEST(Channels, HalfVectors) {
    Network net("net");
    Value x = net.input("image", {8, 12, 12});
    for (int channels : {24, 48, 6}) x = relu(conv2d(x, {.channels = channels, .window = 1}));
    net.classify(linear(flatten(avg_pool2d(x, {.window = 12})), {.units = 40}));
    const std::string before = "x86-64-linux-avx-avx2-avx512-avx512_skylake-avx512_cannonlake-",
                      behind = "f16c-fma-sse41";
    auto vectors = [&](const std::string &processor) {
        const CompileOptions options{.batch = 16, .target = before + processor + behind, .train = false, .few = 1};
        std::vector<std::string> found; // in the plan's order
        std::stringstream text;
        emit(net, options, "plan", "infer_one", "", text);
        for (std::string line; std::getline(text, line);)
            if (const size_t at = line.find(" vector="); line.find(": channels_conv2d ") != std::string::npos)
                found.push_back(line.substr(at + 8, line.find(' ', at + 8) - at - 8));
        return found;
    };
    EXPECT_EQ(vectors("avx512_zen4-"), (std::vector<std::string>{"8", "16", "8", "8"}));
    EXPECT_EQ(vectors("avx512_zen4-avx512_zen5-"), (std::vector<std::string>{"16", "16", "8", "16"}));
    EXPECT_EQ(vectors(""), (std::vector<std::string>{"16", "16", "8", "16"}));
}

// Concats and slices are views; flattened images that something else than a linear layer reads are not.
TEST(Channels, ViewsAndOrders) {
    expect_right([](Network &net) {
        Value image = net.input("image", {3, 6, 5});
        Value a = relu(conv2d(image, {.channels = 5, .window = 3, .padding = 1}));
        Value b = conv2d(concat({a, image}), {.channels = 4, .window = 1});
        Value c = concat({a, b, max_pool2d(a, {.window = 3, .stride = 1, .padding = 1})});
        Value d = conv2d(relu(c), {.channels = 3, .window = 3});
        net.classify(linear(concat({flatten(d), flatten(adaptive_avg_pool2d(c))}), {.units = 4}));
    });
    expect_right([](Network &net) {
        Value x = relu(conv2d(net.input("image", {2, 5, 4}), {.channels = 6, .window = 3}));
        Value flat = tanh(flatten(x)); // 6 x 3 x 2
        Value image = reshape(linear(flat, {.units = 24}), Shape{Shape::batch, 4, 3, 2});
        net.classify(flatten(conv2d(image + 1, {.channels = 3, .window = 2})));
    });
    expect_right([](Network &net) { // a flattened image inside a concat
        Value flat = flatten(avg_pool2d(net.input("image", {3, 1, 4}), {.window = 3, .stride = 3, .padding = 1}));
        net.classify(linear(concat({linear(flat, {.units = 3}), flat}), {.units = 3}));
    });
    expect_right([](Network &net) { // sums over channels and pixels; scales of each channel
        Value x = relu(conv2d(net.input("image", {2, 5, 4}), {.channels = 9, .window = 3}));
        Value gate = sigmoid(conv2d(reduce_mean(x, {2, 3}), {.channels = 9, .window = 1}));
        x = x * gate;
        x = x - reduce_mean(x, {1});
        net.classify(linear(flatten(x + reduce_sum(x, {1, 2, 3})), {.units = 3}));
    });
}

// What depends on other samples has no such plan, and says so.
TEST(Channels, WhatDependsOnTheBatchStaysInLanes) {
    auto define = [](Network &net) {
        Value x = net.input("image", {4});
        net.classify(linear(x - reduce_mean(x, {0}), {.units = 3}));
    };
    auto net = build(define);
    EXPECT_EQ(compile(*net, {.batch = 8, .train = false}).infer_one_batch, 0);
    std::ostringstream text;
    emit(*net, {.batch = 8}, "plan", "infer_one", "", text);
    EXPECT_NE(text.str().find("no plan of one sample"), std::string::npos) << text.str();
}

TEST(Channels, ThreadsAndBatchesChangeNoBit) {
    std::vector<float> first;
    for (int threads : {1, 2, 3, 5}) {
        Subject subject([](Network &net) { lenet(net); }, threads, 16);
        std::vector<float> few = subject.infer_few();
        if (first.empty()) first = few;
        EXPECT_EQ(few, first) << threads << " threads";
        std::vector<float> lanes = subject.infer(0, 16);
        EXPECT_LT(difference(few, lanes), 1e-5);
    }
}

// As tests of folding have it for lanes; both plans in turns.
TEST(Channels, PreparedWeightsAreNeverStale) {
    Subject subject([](Network &net) { lenet(net); }, 2, 16, true);
    std::vector<int32_t> labels;
    for (int i = 0; i < 16; i++) labels.push_back(i % 10);
    auto check = [&] {
        std::vector<float> few = subject.infer_few();
        subject.expect_right(few);
        EXPECT_LT(difference(few, subject.infer(0, 16)), 1e-5);
        return few;
    };
    check();
    for (int step = 0; step < 2; step++)
        EXPECT_EQ(cryo_train_step(subject.model->get(), subject.images.data(), labels.data(), 16, nullptr), CRYO_OK);
    std::vector<float> trained = check();
    std::string path = (std::filesystem::temp_directory_path() / "cryolite_channels.safetensors").string();
    ASSERT_EQ(cryo_save(subject.model->get(), path.c_str()), CRYO_OK);
    subject.model->initialize(9);
    EXPECT_NE(check(), trained);
    ASSERT_EQ(cryo_load(subject.model->get(), path.c_str()), CRYO_OK);
    EXPECT_EQ(subject.infer_few(), trained);
    std::filesystem::remove(path);
    Tensors tensors = subject.model->parameters();
    for (float &x : tensors.at("0.weight")) x = -x;
    subject.model->set(tensors);
    EXPECT_NE(check(), trained);
}

TEST(Channels, ContextsAtOnce) {
    Subject subject([](Network &net) { lenet(net); }, 2, 16);
    std::vector<float> right = subject.infer_few();
    subject.model->initialize(3); // to be prepared again, by one of the contexts
    std::vector<std::thread> threads;
    std::vector<std::vector<float>> outputs(4, std::vector<float>(size_t(16 * subject.classes)));
    for (size_t t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            cryo_context *context = nullptr;
            EXPECT_EQ(cryo_context_open(subject.model->get(), &context), CRYO_OK);
            for (int repeat = 0; repeat < 3; repeat++)
                for (int64_t i = 0; i < 16; i++)
                    EXPECT_EQ(cryo_context_infer(context, subject.images.data() + i * subject.elements, 1,
                                                 outputs[t].data() + i * subject.classes),
                              CRYO_OK);
            cryo_context_close(context);
        });
    for (std::thread &thread : threads) thread.join();
    for (const std::vector<float> &other : outputs) EXPECT_EQ(other, right);
}

TEST(Channels, NaNAndInfinityComeOut) {
    Subject subject([](Network &net) {
        Value x = relu(conv2d(net.input("image", {2, 6, 6}), {.channels = 8, .window = 3, .padding = 1}));
        net.classify(linear(flatten(max_pool2d(x, {.window = 2})), {.units = 3}));
    });
    subject.images[size_t(2 * subject.elements + 7)] = NAN;
    std::vector<float> outputs = subject.infer(0, 4);
    for (int64_t i = 0; i < 4; i++) EXPECT_EQ(std::isnan(outputs[size_t(i * 3)]), i == 2) << i;
    ASSERT_EQ(cryo_set_check_finite(subject.model->get(), 1), CRYO_OK);
    EXPECT_EQ(cryo_infer(subject.model->get(), subject.images.data(), 4, outputs.data()), CRYO_NOT_FINITE);
    subject.images[size_t(2 * subject.elements + 7)] = 3e38f;
    subject.images[size_t(2 * subject.elements + 8)] = 3e38f;
    subject.images[size_t(2 * subject.elements + 9)] = 3e38f;
    Tensors tensors = subject.model->parameters();
    for (float &x : tensors.at("0.weight")) x = 100;
    subject.model->set(tensors);
    EXPECT_EQ(cryo_infer(subject.model->get(), subject.images.data(), 4, outputs.data()), CRYO_NOT_FINITE);
    EXPECT_NE(std::string(cryo_error(subject.model->get())).find("sample 2"), std::string::npos)
        << cryo_error(subject.model->get());
}

} // namespace
