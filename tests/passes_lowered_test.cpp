// lower and the passes on lowered graphs, each by itself: golden text of small graphs.
#include "fixture.h"
#include "golden.h"

#include "compiler/times.h"

using namespace cryolite;
using namespace cryolite::test;

namespace {

TEST(Lower, ReductionsOverTheBatchAreSplit) {
    expect_after(lower, Mode::infer, R"(
        %0 : f32[n,2,3,5] = input() {name="image", shape=[-1, 2, 3, 5]}
        %1 : f32[1,2,1,1] = mean(%0) {axes=[0, 2, 3]}
        %2 : f32[1,2,3,5] = sum(%0) {axes=[0]}
        %3 : f32[n,1,3,5] = mean(%0) {axes=[1]}
        output(%1) {name="loss"}
        output(%2) {name="correct"}
        output(%3) {name="output"}
    )",
                 R"(
        %0 : f32[b,4,30] = input_rows() {elements=30, lanes=4}
        %1 : f32[n,2,3,5] = pack(%0) {shape=[-1, 2, 3, 5]}
        %2 : f32[b,2,1,1] = partial_sum(%1) {axes=[0, 2, 3]}
        %3 : f32[1,2,1,1] = sum_merge(%2) {mean_count=15, shape=[1, 2, 1, 1]}
        %4 : f32[b,2,3,5] = partial_sum(%1) {axes=[0]}
        %5 : f32[1,2,3,5] = sum_merge(%4) {mean_count=0, shape=[1, 2, 3, 5]}
        %6 : f32[n,1,3,5] = sum(%1) {axes=[1]}
        %7 : f32[] = constant() {value=0.5}
        %8 : f32[n,1,3,5] = mul(%6, %7)
        output(%3) {name="loss"}
        output(%5) {name="correct"}
        %9 : f32[b,4,15] = unpack(%8) {lanes=4}
        output(%9) {name="output"}
    )");
}

TEST(Lower, ImagesArePackedAndOutputsUnpacked) {
    expect_after(lower, Mode::infer, R"(
        %0 : f32[n,2,3,5] = input() {name="image", shape=[-1, 2, 3, 5]}
        %1 : f32[n,30] = reshape(%0) {shape=[-1, 30]}
        %2 : f32[n,30] = softmax(%1)
        output(%2) {name="output"}
    )",
                 R"(
        %0 : f32[b,4,30] = input_rows() {elements=30, lanes=4}
        %1 : f32[n,2,3,5] = pack(%0) {shape=[-1, 2, 3, 5]}
        %2 : f32[n,30] = reshape(%1) {shape=[-1, 30]}
        %3 : f32[n,30] = softmax(%2)
        %4 : f32[b,4,30] = unpack(%3) {lanes=4}
        output(%4) {name="output"}
    )");
}
TEST(Lower, WeightGradientsHavePartsOfBlocksOrTiles) {
    expect_after(lower, Mode::train, R"(
        %0 : f32[n,2,5,5] = input() {name="image", shape=[-1, 2, 5, 5]}
        %1 : f32[2,2,3,3] = conv2d_grad_weight(%0, %0) {padding=1, r=3, s=3, stride=1}
        output(%1) {name="loss"}
        %2 : f32[n,50] = reshape(%0) {shape=[-1, 50]}
        %3 : f32[50,50] = linear_grad_weight(%2, %2)
        output(%3) {name="correct"}
    )",
                 R"(
        %0 : f32[b,4,50] = input_rows() {elements=50, lanes=4}
        %1 : f32[n,2,5,5] = pack(%0) {shape=[-1, 2, 5, 5]}
        %2 : f32[b,2,2,3,3] = conv2d_grad_weight_partial(%1, %1) {padding=1, r=3, s=3, stride=1}
        %3 : f32[2,2,3,3] = sum_merge(%2) {mean_count=0, shape=[2, 2, 3, 3]}
        output(%3) {name="loss"}
        %4 : f32[n,50] = reshape(%1) {shape=[-1, 50]}
        %5 : f32[50,50] = linear_grad_weight_tiles(%4, %4)
        output(%5) {name="correct"}
    )");
}
TEST(Lower, BatchNormIsArithmeticAndTwoStatisticsKernels) {
    expect_after(lower, Mode::train, R"(
        %0 : f32[n,2,3,3] = input() {name="image", shape=[-1, 2, 3, 3]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3, %4 : f32[1,2,1,1], f32[1,2,1,1] = batch_stats(%0)
        %5 : f32[n,2,3,3] = batch_norm_train(%0, %1, %2, %3, %4) {eps=0.5}
        output(%5) {name="output"}
    )",
                 R"(
        %0 : f32[b,4,18] = input_rows() {elements=18, lanes=4}
        %1 : f32[n,2,3,3] = pack(%0) {shape=[-1, 2, 3, 3]}
        %2 : f32[2] = parameter() {name="w", shape=[2]}
        %3 : f32[2] = parameter() {name="b", shape=[2]}
        %4 : f32[b,2,3] = batch_stats_partial(%1)
        %5, %6 : f32[1,2,1,1], f32[1,2,1,1] = batch_stats_merge(%4) {count=9, shape=[1, 2, 1, 1]}
        %7 : f32[1,2,1,1] = reshape(%2) {shape=[1, 2, 1, 1]}
        %8 : f32[1,2,1,1] = reshape(%3) {shape=[1, 2, 1, 1]}
        %9 : f32[] = constant() {value=0.5}
        %10 : f32[1,2,1,1] = add(%6, %9)
        %11 : f32[1,2,1,1] = rsqrt(%10)
        %12 : f32[1,2,1,1] = mul(%7, %11)
        %13 : f32[n,2,3,3] = sub(%1, %5)
        %14 : f32[n,2,3,3] = mul(%13, %12)
        %15 : f32[n,2,3,3] = add(%14, %8)
        %16 : f32[b,4,18] = unpack(%15) {lanes=4}
        output(%16) {name="output"}
    )");
}

// The loss's gradient is zero in padding lanes by itself, and so is what is multiplied by it.
TEST(MaskPadding, NothingBeforeTheGradientOfTheLoss) {
    const char *kept = R"(
        %0 : f32[b,4,3] = input_rows() {elements=3, lanes=4}
        %1 : f32[n,3] = pack(%0) {shape=[-1, 3]}
        %2 : i32[n] = label()
        %3 : f32[n,3] = sigmoid(%1)
        %4, %5, %6 : f32[n], f32[n], f32[n,3] = softmax_cross_entropy(%3, %2)
        %7 : f32[b] = partial_sum(%4) {axes=[0]}
        %8 : f32[b,3] = partial_sum(%6) {axes=[0]}
        %9 : f32[n,3] = mul(%3, %6)
        %10 : f32[b,3] = partial_sum(%9) {axes=[0]}
        %11 : f32[3,3] = linear_grad_weight_tiles(%3, %9)
        output(%7) {name="a"}
        output(%8) {name="b"}
        output(%10) {name="c"}
        output(%11) {name="d"}
    )";
    expect_after(mask_padding, Mode::train, kept, kept);
}
TEST(MaskPadding, OnceBeforeSumsOfWhatIsNotZero) {
    expect_after(mask_padding, Mode::train, R"(
        %0 : f32[b,4,3] = input_rows() {elements=3, lanes=4}
        %1 : f32[n,3] = pack(%0) {shape=[-1, 3]}
        %2 : f32[1,3] = state() {name="mean", shape=[1, 3]}
        %3 : f32[n,3] = sub(%1, %2)
        %4 : f32[b,3] = partial_sum(%3) {axes=[0]}
        %5 : f32[n,3] = exp(%3)
        %6 : f32[b,3] = partial_sum(%5) {axes=[0]}
        %7 : f32[b,1] = partial_sum(%5) {axes=[0, 1]}
        %8 : f32[b,3] = partial_sum(%1) {axes=[0]}
        output(%4) {name="a"}
        output(%6) {name="b"}
        output(%7) {name="c"}
        output(%8) {name="d"}
    )",
                 R"(
        %0 : f32[b,4,3] = input_rows() {elements=3, lanes=4}
        %1 : f32[n,3] = pack(%0) {shape=[-1, 3]}
        %2 : f32[1,3] = state() {name="mean", shape=[1, 3]}
        %3 : f32[n,3] = sub(%1, %2)
        %4 : f32[n,3] = mask(%3)
        %5 : f32[b,3] = partial_sum(%4) {axes=[0]}
        %6 : f32[n,3] = exp(%4)
        %7 : f32[n,3] = mask(%6)
        %8 : f32[b,3] = partial_sum(%7) {axes=[0]}
        %9 : f32[b,1] = partial_sum(%7) {axes=[0, 1]}
        %10 : f32[b,3] = partial_sum(%1) {axes=[0]}
        output(%5) {name="a"}
        output(%8) {name="b"}
        output(%9) {name="c"}
        output(%10) {name="d"}
    )");
}

// Of a whole network, what batch norm's backward gives, and nothing else.
TEST(MaskPadding, TheGradientBehindBatchNormAlone) {
    auto network = build([](Network &net) {
        Value x = conv2d(net.input("image", {1, 6, 6}), {.channels = 2, .window = 3});
        x = avg_pool2d(sigmoid(batch_norm(x)), {.window = 2});
        net.classify(linear(flatten(x), {.units = 3}));
    });
    run_pipeline(network->graph(), context(Mode::train), [](const std::string &pass, const Graph &graph) {
        if (pass != "mask_padding") return;
        std::vector<ValueId> masked;
        for (const Node &node : graph.nodes)
            if (node.op == find_op("mask")) {
                masked.push_back(node.outputs[0]);
                EXPECT_EQ(node.layer, "1");
            }
        ASSERT_EQ(masked.size(), 1u);
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("conv2d_grad_weight_partial")) continue;
            EXPECT_EQ(node.inputs[1], masked[0]);
        }
    });
}

TEST(Fuse, NothingAcrossAConvolutionAndSumsShareAKernel) {
    expect_after(fuse, Mode::train, R"(
        %0 : f32[b,4,32] = input_rows() {elements=32, lanes=4}
        %1 : f32[n,2,4,4] = pack(%0) {shape=[-1, 2, 4, 4]}
        %2 : f32[2,2,1,1] = parameter() {init="constant", name="w", shape=[2, 2, 1, 1], value=1.0}
        %3 : f32[n,2,4,4] = conv2d(%1, %2) {padding=0, stride=1}
        %4 : f32[1,2,1,1] = state() {init="constant", name="mean", shape=[1, 2, 1, 1], value=0.0}
        %5 : f32[n,2,4,4] = sub(%3, %4)
        %6 : f32[n,2,4,4] = sigmoid(%5)
        %7 : f32[n,2,2,2] = avg_pool2d(%6) {padding=0, stride=2, window=2}
        %8 : f32[n,2,2,2] = conv2d(%7, %2) {padding=0, stride=1}
        %9 : f32[n,2,2,2] = relu(%8)
        %10 : f32[b,2,1,1] = partial_sum(%9) {axes=[0, 2, 3]}
        %11 : f32[n,2,2,2] = square(%9)
        %12 : f32[b,2,1,1] = partial_sum(%11) {axes=[0, 2, 3]}
        %13 : f32[1,2,1,1] = sum_merge(%10) {mean_count=0, shape=[1, 2, 1, 1]}
        %14 : f32[1,2,1,1] = sum_merge(%12) {mean_count=0, shape=[1, 2, 1, 1]}
        output(%13) {name="loss"}
        output(%14) {name="correct"}
    )",
                 R"(
        %0 : f32[b,4,32] = input_rows() {elements=32, lanes=4}
        %1 : f32[n,2,4,4] = pack(%0) {shape=[-1, 2, 4, 4]}
        %2 : f32[2,2,1,1] = parameter() {init="constant", name="w", shape=[2, 2, 1, 1], value=1.0}
        %3 : f32[n,2,4,4] = conv2d(%1, %2) {padding=0, stride=1}
        %4 : f32[1,2,1,1] = state() {init="constant", name="mean", shape=[1, 2, 1, 1], value=0.0}
        %5 : f32[n,2,2,2] = pointwise(%3, %4) {outputs="[n,2,2,2]", program="x0=input [n,2,4,4];x1=input [1,2,1,1];t0=sub(x0,x1);t1=sigmoid(t0);t2=avg_pool2d(t1){padding=0,stride=2,window=2};output t2;", scalars="", work=48.0}
        %6 : f32[n,2,2,2] = conv2d(%5, %2) {padding=0, stride=1}
        %7, %8 : f32[b,2,1,1], f32[b,2,1,1] = pointwise(%6) {outputs="[b,2,1,1] [b,2,1,1]", program="x0=input [n,2,2,2];t0=relu(x0);t1=sum(t0){axes=0,2,3};t2=square(t0);t3=sum(t2){axes=0,2,3};output t1;output t3;", scalars="", work=16.0}
        %9 : f32[1,2,1,1] = sum_merge(%7) {mean_count=0, shape=[1, 2, 1, 1]}
        %10 : f32[1,2,1,1] = sum_merge(%8) {mean_count=0, shape=[1, 2, 1, 1]}
        output(%9) {name="loss"}
        output(%10) {name="correct"}
    )");
}

// A chain of residual blocks: the pointwise kernels must not grow with its depth.
template <int blocks> void residual_network(Network &net) {
    Value x = conv2d(net.input("image", {3, 8, 8}), {.channels = 4, .window = 3, .padding = 1});
    for (int i = 0; i < blocks; i++)
        x = relu(batch_norm(conv2d(x, {.channels = 4, .window = 3, .padding = 1, .bias = false})) + x);
    net.classify(linear(flatten(avg_pool2d(x, {.window = 8})), {.units = 3}));
}
static size_t longest_program(const Graph &graph) {
    size_t longest = 0;
    for (const Node &node : graph.nodes)
        if (node.op == find_op("pointwise")) longest = std::max(longest, node.attrs.string("program").size());
    return longest;
}
TEST(Fuse, KernelsOfResidualNetworksDoNotGrowWithDepth) {
    Graph shallow = run_pipeline(build(residual_network<3>)->graph(), context(Mode::train));
    Graph deep = run_pipeline(build(residual_network<12>)->graph(), context(Mode::train));
    EXPECT_EQ(longest_program(deep), longest_program(shallow));
}

// relu's gradient reads the stored result where the kernel has all else at hand; of batch norm's input it is remade.
TEST(Fuse, StoredActivationsAreRemadeFromWhatIsReadAnyway) {
    expect_after(fuse, Mode::train, R"(
        %0 : f32[b,4,32] = input_rows() {elements=32, lanes=4}
        %1 : f32[n,2,4,4] = pack(%0) {shape=[-1, 2, 4, 4]}
        %2 : f32[2,2,1,1] = parameter() {init="constant", name="w", shape=[2, 2, 1, 1], value=1.0}
        %3 : f32[1,2,1,1] = state() {init="constant", name="mean", shape=[1, 2, 1, 1], value=0.0}
        %4 : f32[n,2,4,4] = sub(%1, %3)
        %5 : f32[n,2,4,4] = relu(%4)
        %6 : f32[n,2,4,4] = conv2d(%5, %2) {padding=0, stride=1}
        %7 : f32[n,2,4,4] = relu_grad(%6, %5)
        %8 : f32[n,2,4,4] = mul(%7, %4)
        %9 : f32[b,2,1,1] = partial_sum(%8) {axes=[0, 2, 3]}
        %10 : f32[1,2,1,1] = sum_merge(%9) {mean_count=0, shape=[1, 2, 1, 1]}
        output(%10) {name="loss"}
    )",
                 R"(
        %0 : f32[b,4,32] = input_rows() {elements=32, lanes=4}
        %1 : f32[n,2,4,4] = pack(%0) {shape=[-1, 2, 4, 4]}
        %2 : f32[2,2,1,1] = parameter() {init="constant", name="w", shape=[2, 2, 1, 1], value=1.0}
        %3 : f32[1,2,1,1] = state() {init="constant", name="mean", shape=[1, 2, 1, 1], value=0.0}
        %4 : f32[n,2,4,4] = pointwise(%1, %3) {outputs="[n,2,4,4]", program="x0=input [n,2,4,4];x1=input [1,2,1,1];t0=sub(x0,x1);t1=relu(t0);output t1;", scalars="", work=2.0}
        %5 : f32[n,2,4,4] = conv2d(%4, %2) {padding=0, stride=1}
        %6 : f32[b,2,1,1] = pointwise(%5, %1, %3) {outputs="[b,2,1,1]", program="x0=input [n,2,4,4];x1=input [n,2,4,4];x2=input [1,2,1,1];t0=sub(x1,x2);t1=relu(t0);t2=relu_grad(x0,t1);t3=mul(t2,t0);t4=sum(t3){axes=0,2,3};output t4;", scalars="", work=96.0}
        %7 : f32[1,2,1,1] = sum_merge(%6) {mean_count=0, shape=[1, 2, 1, 1]}
        output(%7) {name="loss"}
    )");
}

// The activations between the convolutions are made again in the backward pass, in the phase of the weight gradient.
TEST(Rematerialize, ActivationsForWeightGradients) {
    auto network = build([](Network &net) {
        Value x = net.input("image", {3, 8, 8});
        for (int i = 0; i < 3; i++)
            x = relu(batch_norm(conv2d(x, {.channels = 4, .window = 3, .padding = 1, .bias = false})));
        net.classify(linear(flatten(avg_pool2d(x, {.window = 8})), {.units = 3}));
    });
    Graph graph = run_pipeline(network->graph(), context(Mode::train));
    Times times = schedule_times(graph, context(Mode::train).kernel);
    int again = 0;
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        if (!graph.nodes[i].attrs.has("late")) continue;
        again++;
        for (size_t j = 0; j < graph.nodes.size(); j++)
            for (ValueId v : graph.nodes[j].inputs)
                if (v == graph.nodes[i].outputs[0]) { EXPECT_EQ(times.when[j], times.when[i]); }
    }
    EXPECT_EQ(again, 2);
}

} // namespace
