// Programs behind convolutions: which kernels they become part of, and that the numbers stay what they are, in every
// layout that a convolution's kernel has.
#include "differential.h"
#include "fixture.h"
#include "golden.h"
#include "networks.h"

#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

TEST(AppendPrograms, OfOneReaderElementByElement) {
    const std::string head = R"(
        %0 : f32[b,4,18] = input_rows() {elements=18, lanes=4}
        %1 : f32[n,2,3,3] = pack(%0) {shape=[-1, 2, 3, 3]}
        %2 : f32[2,2,1,1] = parameter() {name="w", shape=[2, 2, 1, 1]}
        %3 : f32[n,2,3,3] = conv2d(%1, %2) {padding=0, stride=1}
    )";
    // Its own input comes first, whatever place it has among the program's.
    expect_after(append_programs, Mode::infer, head + R"(
        %4 : f32[n,2,3,3] = pointwise(%1, %3) {outputs="[n,2,3,3]", program="x0=input [n,2,3,3];x1=input [n,2,3,3];t0=sub(x0,x1);t1=relu(t0);output t1;", scalars="", work=2.0}
        %5 : f32[b,4,18] = unpack(%4) {lanes=4}
        output(%5) {name="output"}
    )",
                 R"(
        %0 : f32[b,4,18] = input_rows() {elements=18, lanes=4}
        %1 : f32[n,2,3,3] = pack(%0) {shape=[-1, 2, 3, 3]}
        %2 : f32[2,2,1,1] = parameter() {name="w", shape=[2, 2, 1, 1]}
        %3 : f32[n,2,3,3] = conv2d(%1, %2, %1) {padding=0, program="x1=input [n];x0=input [n];t0=sub(x0,x1);t1=relu(t0);output t1;", stride=1}
        %4 : f32[b,4,18] = unpack(%3) {lanes=4}
        output(%4) {name="output"}
    )");
    const std::string pooled = head + R"(
        %4 : f32[n,2,1,1] = pointwise(%3) {outputs="[n,2,1,1]", program="x0=input [n,2,3,3];t0=max_pool2d(x0){window=3,stride=3,padding=0};output t0;", scalars="", work=2.0}
        %5 : f32[b,4,2] = unpack(%4) {lanes=4}
        output(%5) {name="output"}
    )";
    expect_after(append_programs, Mode::infer, pooled, pooled);
    const std::string large = head + R"(
        %4 : f32[n,2,3,3] = pointwise(%3) {outputs="[n,2,3,3]", program="x0=input [n,2,3,3];t0=tanh(x0);t1=sigmoid(t0);output t1;", scalars="", work=2.0}
        %5 : f32[b,4,18] = unpack(%4) {lanes=4}
        output(%5) {name="output"}
    )";
    expect_after(append_programs, Mode::infer, large, large);
    const std::string read_twice = head + R"(
        %4 : f32[n,2,3,3] = pointwise(%3) {outputs="[n,2,3,3]", program="x0=input [n,2,3,3];t0=relu(x0);output t0;", scalars="", work=2.0}
        %5 : f32[b,4,18] = unpack(%4) {lanes=4}
        %6 : f32[b,4,18] = unpack(%3) {lanes=4}
        output(%5) {name="output"}
        output(%6) {name="loss"}
    )";
    expect_after(append_programs, Mode::infer, read_twice, read_twice);
}

void expect_agreement(const std::function<void(Network &)> &define) {
    Network net("net");
    net.optimize({.learning_rate = 0.01});
    define(net);
    for (uint64_t data : {1, 2}) { // one processor, which makes whole blocks, and many, which make tiles of them
        const Verdict verdict = compare(net, {.data = data});
        EXPECT_EQ(verdict.kind, Verdict::agrees) << "data " << data << ", " << verdict.blame << ": " << verdict.detail;
    }
}

TEST(AppendPrograms, AfterEveryKindOfConvolution) {
    struct {
        int from, to, h, w, window, stride, padding, groups;
    } cases[] = {
        {3, 8, 9, 7, 3, 1, 1, 1},    // a first layer
        {3, 1, 5, 1, 1, 1, 0, 1},    // one pixel wide, and seen as a row
        {16, 24, 5, 5, 1, 1, 0, 1},  // by pixels
        {64, 40, 8, 8, 1, 1, 0, 1},  // whose source is copied
        {12, 12, 6, 6, 3, 2, 1, 12}, // depthwise
        {8, 12, 7, 7, 3, 1, 1, 4},   {6, 10, 6, 6, 5, 2, 2, 1}, {8, 8, 8, 8, 1, 2, 0, 1},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(testing::Message() << c.from << " to " << c.to << " @ " << c.h << "x" << c.w << ", window "
                                        << c.window << ", stride " << c.stride << ", groups " << c.groups);
        expect_agreement([&](Network &net) {
            Value x = net.input("image", {2, c.h, c.w});
            x = relu6(conv2d(x, {.channels = c.from, .window = 1}));
            x = conv2d(
                x,
                {.channels = c.to, .window = c.window, .stride = c.stride, .padding = c.padding, .groups = c.groups});
            net.classify(linear(flatten(relu(x)), {.units = 3}));
        });
    }
}

TEST(AppendPrograms, ActivationsAndResiduals) {
    using Program = std::function<Value(Value, Value)>; // of a convolution's result, and of an older value
    const Program programs[] = {
        [](Value x, Value) { return sigmoid(x); },        [](Value x, Value y) { return tanh(x) + y; },
        [](Value x, Value) { return x * sigmoid(x); },    [](Value x, Value y) { return relu(y - x); },
        [](Value x, Value y) { return y * (2 * x + y); }, [](Value x, Value y) { return relu6(x * y + 1.5f) / 6; },
    };
    for (const Program &program : programs)
        expect_agreement([&](Network &net) {
            Value y = conv2d(net.input("image", {3, 6, 6}), {.channels = 8, .window = 3, .padding = 1});
            Value x = program(conv2d(relu(y), {.channels = 8, .window = 1}), y);
            Value z = program(conv2d(x, {.channels = 8, .window = 3, .padding = 1, .groups = 8}), x);
            net.classify(
                linear(flatten(concat({z, program(conv2d(z, {.channels = 8, .window = 1}), x)})), {.units = 3}));
        });
}

} // namespace
