// The passes on whole ops, each by itself: golden text of small graphs. What the values are is in interpreter_test.cpp.
#include "golden.h"

using namespace cryolite;
using namespace cryolite::test;

namespace {

const char *const norm_network = R"(
    %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
    %1 : f32[2] = parameter() {name="w", shape=[2]}
    %2 : f32[2] = parameter() {name="b", shape=[2]}
    %3 : f32[2] = state() {name="mean", shape=[2]}
    %4 : f32[2] = state() {name="var", shape=[2]}
    %5 : f32[n,2] = batch_norm(%0, %1, %2, %3, %4) {eps=0.5, frozen=false, momentum=0.75, unbiased=false}
    %6 : f32[n,2] = dropout(%5) {rate=0.5, seed=3}
    %7 : f32[n,2] = by_mode(%6, %5)
    %8 : f32[1,2] = sum(%7) {axes=[0]}
    %9 : f32[1,1] = sum(%8) {axes=[1]}
    output(%9) {name="loss"}
    output(%6) {name="output"}
)";

TEST(SelectMode, TrainHasBatchStatisticsAndAssigns) {
    expect_after(select_mode, Mode::train, norm_network, R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3 : f32[2] = state() {name="mean", shape=[2]}
        %4 : f32[2] = state() {name="var", shape=[2]}
        %5, %6 : f32[1,2], f32[1,2] = batch_stats(%0)
        %7 : f32[n,2] = batch_norm_train(%0, %1, %2, %5, %6) {eps=0.5}
        %8 : f32[] = constant() {value=0.75}
        %9 : f32[] = constant() {value=0.25}
        %10 : f32[2] = reshape(%5) {shape=[2]}
        %11 : f32[2] = mul(%3, %8)
        %12 : f32[2] = mul(%10, %9)
        %13 : f32[2] = add(%11, %12)
        assign(%3, %13)
        %14 : f32[2] = reshape(%6) {shape=[2]}
        %15 : f32[2] = mul(%4, %8)
        %16 : f32[2] = mul(%14, %9)
        %17 : f32[2] = add(%15, %16)
        assign(%4, %17)
        %18 : f32[] = step()
        %19 : f32[n,2] = uniform(%18) {seed=3, shape=[-1, 2]}
        %20 : f32[] = constant() {value=0.5}
        %21 : f32[n,2] = greater_equal(%19, %20)
        %22 : f32[] = constant() {value=2.0}
        %23 : f32[n,2] = mul(%7, %22)
        %24 : f32[n,2] = mul(%23, %21)
        %25 : f32[1,2] = sum(%24) {axes=[0]}
        %26 : f32[1,1] = sum(%25) {axes=[1]}
        output(%26) {name="loss"}
    )");
}
TEST(SelectMode, EvaluateReadsRunningStatisticsAndAssignsNothing) {
    expect_after(select_mode, Mode::evaluate, norm_network, R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3 : f32[2] = state() {name="mean", shape=[2]}
        %4 : f32[2] = state() {name="var", shape=[2]}
        %5 : f32[1,2] = reshape(%1) {shape=[1, 2]}
        %6 : f32[1,2] = reshape(%2) {shape=[1, 2]}
        %7 : f32[1,2] = reshape(%3) {shape=[1, 2]}
        %8 : f32[1,2] = reshape(%4) {shape=[1, 2]}
        %9 : f32[] = constant() {value=0.5}
        %10 : f32[1,2] = add(%8, %9)
        %11 : f32[1,2] = rsqrt(%10)
        %12 : f32[1,2] = mul(%5, %11)
        %13 : f32[n,2] = sub(%0, %7)
        %14 : f32[n,2] = mul(%13, %12)
        %15 : f32[n,2] = add(%14, %6)
        %16 : f32[1,2] = sum(%15) {axes=[0]}
        %17 : f32[1,1] = sum(%16) {axes=[1]}
        output(%17) {name="loss"}
    )");
}
TEST(SelectMode, InferGivesTheOutputAlone) {
    expect_after(select_mode, Mode::infer, norm_network, R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3 : f32[2] = state() {name="mean", shape=[2]}
        %4 : f32[2] = state() {name="var", shape=[2]}
        %5 : f32[1,2] = reshape(%1) {shape=[1, 2]}
        %6 : f32[1,2] = reshape(%2) {shape=[1, 2]}
        %7 : f32[1,2] = reshape(%3) {shape=[1, 2]}
        %8 : f32[1,2] = reshape(%4) {shape=[1, 2]}
        %9 : f32[] = constant() {value=0.5}
        %10 : f32[1,2] = add(%8, %9)
        %11 : f32[1,2] = rsqrt(%10)
        %12 : f32[1,2] = mul(%5, %11)
        %13 : f32[n,2] = sub(%0, %7)
        %14 : f32[n,2] = mul(%13, %12)
        %15 : f32[n,2] = add(%14, %6)
        output(%15) {name="output"}
    )");
}

TEST(Differentiate, GoesBackThroughEveryUse) {
    expect_after(differentiate, Mode::train, R"(
        %0 : f32[n,3] = input() {name="image", shape=[-1, 3]}
        %1 : f32[2,3] = parameter() {name="w", shape=[2, 3]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3 : f32[n,2] = linear(%0, %1, %2)
        %4 : f32[n,2] = exp(%3)
        %5 : f32[n,2] = mul(%3, %4)
        %6 : f32[1,1] = sum(%5) {axes=[0, 1]}
        output(%6) {name="loss"}
    )",
                 R"(
        %0 : f32[n,3] = input() {name="image", shape=[-1, 3]}
        %1 : f32[2,3] = parameter() {name="w", shape=[2, 3]}
        %2 : f32[2] = parameter() {name="b", shape=[2]}
        %3 : f32[n,2] = linear(%0, %1, %2)
        %4 : f32[n,2] = exp(%3)
        %5 : f32[n,2] = mul(%3, %4)
        %6 : f32[1,1] = sum(%5) {axes=[0, 1]}
        output(%6) {name="loss"}
        %7 : f32[] = constant() {value=1.0}
        %8 : f32[1,1] = broadcast(%7) {shape=[1, 1]}
        %9 : f32[n,2] = broadcast(%8) {shape=[-1, 2]}
        %10 : f32[n,2] = mul(%9, %3)
        %11 : f32[n,2] = mul(%9, %4)
        %12 : f32[n,2] = mul(%10, %4)
        %13 : f32[n,2] = add(%11, %12)
        %14 : f32[2,3] = linear_grad_weight(%0, %13)
        %15 : f32[1,2] = sum(%13) {axes=[0]}
        %16 : f32[2] = reshape(%15) {shape=[2]}
        gradient(%1, %14)
        gradient(%2, %16)
    )");
}

TEST(Differentiate, SaysWhatIsWrong) {
    auto message = [](const std::string &text) {
        try {
            differentiate(parse("graph g {\n" + text + "\n}\n"), context(Mode::train));
        } catch (const CompileError &error) { return std::string(error.what()); }
        return std::string("accepted");
    };
    const std::string input = "%0 : f32[n,3] = input() {name=\"image\", shape=[-1, 3]}\n"
                              "%1 : f32[1,3] = parameter() {name=\"w\", shape=[1, 3]}\n";
    EXPECT_NE(message(input).find("no loss"), std::string::npos);
    EXPECT_NE(message(input + "output(%0) {name=\"loss\"}").find("single number, not [n, 3]"), std::string::npos);
    EXPECT_NE(message(input + "%2 : f32[1,3] = sum(%0) {axes=[0]}\n%3 : f32[1,1] = sum(%2) {axes=[1]}\n"
                              "output(%3) {name=\"loss\"}")
                  .find("does not depend on parameter 'w'"),
              std::string::npos);
}

TEST(ApplyOptimizer, GradientsBecomeUpdatesAndVelocitiesStates) {
    expect_after(apply_optimizer, Mode::train, R"(
        %0 : f32[2] = parameter() {name="w", shape=[2]}
        %1 : f32[2] = square(%0)
        gradient(%0, %1)
    )",
                 R"(
        %0 : f32[2] = parameter() {name="w", shape=[2]}
        %1 : f32[2] = square(%0)
        %2 : f32[] = learning_rate()
        %3 : f32[2] = state() {init="constant", name="optimizer.velocity.w", role="optimizer", shape=[2], value=0.0}
        %4, %5 : f32[2], f32[2] = sgd(%0, %3, %1, %2) {momentum=0.5, nesterov=false, weight_decay=0.0}
        assign(%0, %4)
        assign(%3, %5)
    )");
}

TEST(Simplify, CommonSubexpressionsAndIdentities) {
    expect_after(simplify, Mode::infer, R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[] = constant() {value=1.0}
        %2 : f32[n,2] = mul(%0, %1)
        %3 : f32[n,2] = mul(%1, %2)
        %4 : f32[n,2] = div(%3, %1)
        %5 : f32[] = constant() {value=0.0}
        %6 : f32[n,2] = sub(%4, %5)
        %7 : f32[n,2] = reshape(%6) {shape=[-1, 2]}
        %8 : f32[n,2] = exp(%7)
        %9 : f32[n,2] = exp(%0)
        %10 : f32[n,2] = sub(%8, %9)
        output(%10) {name="output"}
    )",
                 R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[n,2] = exp(%0)
        %2 : f32[n,2] = sub(%1, %1)
        output(%2) {name="output"}
    )");
}
// x + 0 turns -0 into 0, x * 0 and x - x hide NaN, x / x is NaN at 0.
TEST(Simplify, KeepsWhatSpecialNumbersSee) {
    const char *kept = R"(
        %0 : f32[n,2] = input() {name="image", shape=[-1, 2]}
        %1 : f32[] = constant() {value=0.0}
        %2 : f32[n,2] = add(%0, %1)
        %3 : f32[n,2] = mul(%0, %1)
        %4 : f32[n,2] = sub(%0, %0)
        %5 : f32[n,2] = div(%0, %0)
        %6 : f32[n,2] = sub(%1, %0)
        output(%2) {name="a"}
        output(%3) {name="b"}
        output(%4) {name="c"}
        output(%5) {name="d"}
        output(%6) {name="e"}
    )";
    expect_after(simplify, Mode::infer, kept, kept);
}
TEST(Simplify, TheGradientOfABiasBeforeBatchNormIsZero) {
    expect_after(simplify, Mode::train, R"(
        %0 : f32[n,2,3,3] = input() {name="image", shape=[-1, 2, 3, 3]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2, %3 : f32[1,2,1,1], f32[1,2,1,1] = batch_stats(%0)
        %4 : f32[n,2,3,3] = batch_norm_grad(%0, %0, %2, %3, %1, %2, %3) {eps=0.5}
        %5 : f32[1,2,1,1] = sum(%4) {axes=[0, 2, 3]}
        %6 : f32[2] = reshape(%5) {shape=[2]}
        output(%6) {name="loss"}
        %7 : f32[1,2,3,1] = sum(%4) {axes=[0, 3]}
        output(%7) {name="correct"}
    )",
                 R"(
        %0 : f32[n,2,3,3] = input() {name="image", shape=[-1, 2, 3, 3]}
        %1 : f32[2] = parameter() {name="w", shape=[2]}
        %2, %3 : f32[1,2,1,1], f32[1,2,1,1] = batch_stats(%0)
        %4 : f32[n,2,3,3] = batch_norm_grad(%0, %0, %2, %3, %1, %2, %3) {eps=0.5}
        %5 : f32[] = constant() {value=0.0}
        %6 : f32[1,2,1,1] = broadcast(%5) {shape=[1, 2, 1, 1]}
        %7 : f32[2] = reshape(%6) {shape=[2]}
        output(%7) {name="loss"}
        %8 : f32[1,2,3,1] = sum(%4) {axes=[0, 3]}
        output(%8) {name="correct"}
    )");
}

} // namespace
