// Random networks, every way they can be computed (differential.h). A network that fails is shrunk, and printed as
// text. CRYOLITE_RANDOM_NETWORKS: how many, 300 (on a device 8) unless set; CRYOLITE_RANDOM_FIRST: the first seed, 0
// unless set.
#include "device_value.h"
#include "differential.h"
#include "op_graph.h"
#include "random_network.h"
#include "run_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <unistd.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

uint64_t number_from(const char *variable, uint64_t otherwise) {
    const char *text = std::getenv(variable);
    return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Numbers near a kink or a tie may fall to either side of it; with other numbers they do not.
Verdict judge(const Genome &genome, uint64_t seed, DifferentialOptions options = {}) {
    Verdict verdict;
    for (uint64_t data : {seed + 1, seed + 4, seed + 7}) {
        options.data = data;
        try {
            verdict = compare(*grow(genome), options);
        } catch (const CompileError &error) { return {Verdict::skipped, error.what()}; }
        if (verdict.kind != Verdict::differs) return verdict;
    }
    return verdict;
}

Genome smallest(const Genome &genome, uint64_t seed, const DifferentialOptions &options = {}) {
    return shrink(genome, [&](const Genome &other) { return judge(other, seed, options).kind == Verdict::differs; });
}

std::string report(const Genome &genome, uint64_t seed, const DifferentialOptions &options) {
    Verdict verdict = judge(genome, seed, options);
    return "seed " + std::to_string(seed) + ", " + verdict.blame + ": " + verdict.detail + "\n" +
           print(grow(genome)->graph());
}

// count: unless the environment says how many.
void compare_many(uint64_t count, const DifferentialOptions &options) {
    const uint64_t first = number_from("CRYOLITE_RANDOM_FIRST", 0);
    count = number_from("CRYOLITE_RANDOM_NETWORKS", count);
    uint64_t agreed = 0, skipped = 0, nodes = 0;
    std::map<std::string, int> reasons;
    for (uint64_t seed = first; seed < first + count; seed++) {
        if (isatty(2))
            std::fprintf(stderr, "\r%llu of %llu", (unsigned long long)(seed - first), (unsigned long long)count);
        Genome genome = random_genome(seed);
        Verdict verdict = judge(genome, seed, options);
        if (verdict.kind == Verdict::differs) {
            ADD_FAILURE() << report(smallest(genome, seed, options), seed, options);
        } else if (verdict.kind == Verdict::skipped) {
            skipped++;
            reasons[verdict.blame.substr(0, verdict.blame.find('\''))]++;
        } else {
            agreed++;
            nodes += grow(genome)->graph().nodes.size();
        }
    }
    if (isatty(2)) std::fprintf(stderr, "\r\033[K");
    std::printf("random networks: %llu agree (%.1f nodes each), %llu skipped\n", (unsigned long long)agreed,
                double(nodes) / double(std::max<uint64_t>(agreed, 1)), (unsigned long long)skipped);
    for (const auto &[why, times] : reasons) std::printf("    %4d skipped: %s\n", times, why.c_str());
    EXPECT_GT(agreed, count * 3 / 4) << "too many are skipped";
}

TEST(RandomNetworks, AgreeWithTheirReferences) { compare_many(300, {}); }

class RandomNetworksOn : public testing::TestWithParam<const char *> {};

TEST_P(RandomNetworksOn, AgreeWithTheirReferences) {
    std::string none;
    if (!open_device(GetParam(), none)) GTEST_SKIP() << none;
    compare_many(8, {.target = GetParam()});
}
INSTANTIATE_TEST_SUITE_P(Devices, RandomNetworksOn, testing::Values("opencl", "cuda"),
                         [](const auto &info) { return std::string(info.param); });

// A pass that makes a tanh of every sigmoid is found, blamed, and shown by a network of one gene.
TEST(RandomNetworks, AWrongPassIsBlamedAndTheNetworkShrinks) {
    DifferentialOptions options;
    options.compile = false;
    options.meddle = [](const std::string &pass, Graph graph) {
        if (pass != "simplify_lowered") return graph;
        for (Node &node : graph.nodes)
            if (node.op == find_op("sigmoid")) node.op = find_op("tanh");
        return graph;
    };
    int found = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        Genome genome = random_genome(seed);
        Verdict verdict = judge(genome, seed, options);
        if (verdict.kind != Verdict::differs) continue;
        found++;
        EXPECT_NE(verdict.blame.find("pass 'simplify_lowered'"), std::string::npos) << verdict.blame;
        EXPECT_EQ(smallest(genome, seed, options).genes.size(), 1u) << "seed " << seed;
    }
    EXPECT_GT(found, 10);
}

// Graphs that were wrong once.
TEST(FoundGraphs, StayRight) {
    const char *texts[] = {
        // -inf < a - b became b < a + inf, and LLVM dropped the kernel.
        R"(graph padded_max_of_a_difference {
          %0 : f32[n,1,1,1] = input() {shape=[-1,1,1,1]}
          %1 : f32[1,1,1,1] = parameter() {name="mean", shape=[1,1,1,1]}
          %2 : f32[n,1,1,1] = sub(%0, %1)
          %3 : f32[n,1,1,1] = max_pool2d(%2) {padding=1, stride=3, window=3}
          output(%3) {name="y"}
        })",
        // As a tree, which Halide takes it for, one expression of hundreds of millions of terms: more than 20 GB.
        R"(graph max_of_tanh_of_tanh_of_log {
          %0 : f32[n,1,2,2] = input() {shape=[-1,1,2,2]}
          %1 : f32[1,1,1,1] = parameter() {name="mean", shape=[1,1,1,1]}
          %2 : f32[n,1,2,2] = square(%0)
          %3 : f32[n,1,2,2] = add(%2, %1)
          %4 : f32[n,1,2,2] = log(%3)
          %5 : f32[n,1,2,2] = tanh(%4)
          %6 : f32[n,1,2,2] = sub(%1, %5)
          %7 : f32[n,1,2,2] = tanh(%6)
          %8 : f32[n,1,2,2] = add(%6, %7)
          %9 : f32[n,1,1,1] = max_pool2d(%8) {padding=0, stride=2, window=2}
          output(%9) {name="y"}
        })",
        // The same in a window that is a loop, and one that is padded.
        R"(graph large_max_of_tanh_of_tanh_of_log {
          %0 : f32[n,1,7,7] = input() {shape=[-1,1,7,7]}
          %1 : f32[1,1,1,1] = parameter() {name="mean", shape=[1,1,1,1]}
          %2 : f32[n,1,7,7] = square(%0)
          %3 : f32[n,1,7,7] = add(%2, %1)
          %4 : f32[n,1,7,7] = log(%3)
          %5 : f32[n,1,7,7] = tanh(%4)
          %6 : f32[n,1,7,7] = sub(%1, %5)
          %7 : f32[n,1,7,7] = tanh(%6)
          %8 : f32[n,1,3,3] = max_pool2d(%7) {padding=1, stride=3, window=3}
          %9 : f32[n,1,3,3] = tanh(%8)
          %10 : f32[n,1,3,3] = add(%8, %9)
          %11 : f32[n,1,1,1] = max_pool2d(%10) {padding=0, stride=3, window=3}
          output(%11) {name="y"}
        })",
        // One pixel: all places of the window are the same, in the maximum and in the search of its gradient.
        R"(graph padded_max_of_log_of_sigmoid {
          %0 : f32[n,1,1,1] = input() {shape=[-1,1,1,1]}
          %1 : f32[1,1,1,1] = parameter() {name="mean", shape=[1,1,1,1]}
          %2 : f32[n,1,1,1] = mul(%0, %1)
          %3 : f32[n,1,1,1] = sigmoid(%2)
          %4 : f32[n,1,1,1] = square(%3)
          %5 : f32[n,1,1,1] = log(%4)
          %6 : f32[n,1,1,1] = max_pool2d(%5) {padding=2, stride=3, window=4}
          %7 : f32[n,1,1,1] = exp(%6)
          %8 : f32[1,1,1,1] = sum(%7) {axes=[0]}
          %9 : f32[] = reshape(%8) {shape=[]}
          output(%9) {name="loss"}
          output(%6) {name="y"}
        })",
        // Windows of one element that many results share.
        R"(graph window_of_adaptive_windows {
          %0 : f32[n,1,1,1] = input() {shape=[-1,1,1,1]}
          %1 : f32[n,1,2,4] = adaptive_avg_pool2d(%0) {h=2, w=4}
          %2 : f32[n,1,1,3] = avg_pool2d(%1) {padding=0, stride=1, window=2}
          output(%2) {name="y"}
        })",
        // Equal windows, whose means were summed in different orders: the searches of the largest disagreed.
        R"(graph max_of_equal_windows {
          %0 : f32[n,1,3,8] = input() {shape=[-1,1,3,8]}
          %1 : f32[1,1,3,8] = parameter() {name="means", shape=[1,1,3,8]}
          %2 : f32[n,1,3,8] = min(%1, %0)
          %3 : f32[n,1,4,9] = avg_pool2d(%2) {padding=2, stride=1, window=4}
          %4 : f32[n,1,3,8] = max_pool2d(%3) {padding=0, stride=1, window=2}
          %5 : f32[n,1,3,8] = square(%4)
          %6 : f32[1,1,1,1] = sum(%5) {axes=[0,1,2,3]}
          %7 : f32[] = reshape(%6) {shape=[]}
          output(%7) {name="loss"}
          output(%4) {name="y"}
        })",
        // A sum over a dimension that no term names.
        R"(graph sum_of_a_broadcast {
          %0 : f32[n,1] = input() {shape=[-1,1]}
          %1 : f32[n,5] = broadcast(%0) {shape=[-1,5]}
          %2 : f32[n,1] = sum(%1) {axes=[1]}
          output(%2) {name="y"}
        })",
    };
    for (const char *text : texts) {
        Graph graph = parse(text);
        SCOPED_TRACE(graph.name);
        InterpreterInputs inputs{.batch = 21, .stored = {{"mean", {0.25}}, {"means", numbers(2, 24)}}};
        inputs.images = numbers(1, 21 * graph.shape(graph.nodes[0].outputs[0]).elements());
        if (std::string(text).find("\"loss\"") != std::string::npos)
            graph = differentiate(graph, {Mode::train, {}, {16, 256}});
        const Interpreted ours = run_kernels(graph, inputs), expected = interpret(graph, inputs);
        const std::vector<double> &y = ours.outputs.at("y"), &expected_y = expected.outputs.at("y");
        ASSERT_EQ(y.size(), expected_y.size());
        for (size_t i = 0; i < y.size(); i++) EXPECT_FLOAT_EQ(float(y[i]), float(expected_y[i])) << i;
        for (const auto &[name, gradient] : expected.gradients)
            for (size_t i = 0; i < gradient.size(); i++)
                EXPECT_NEAR(ours.gradients.at(name)[i], gradient[i], 1e-5 * (1 + std::fabs(gradient[i]))) << i;
    }
}

// The weight gradient of the second convolution runs over all blocks of a value that lies inside a concat.
TEST(FoundNetworks, AConvolutionReadsAPartOfAConcat) {
    Network network("part_of_a_concat");
    network.math(Math::strict);
    Value x = network.input("image", {16, 1, 1});
    Value a = relu(conv2d(x, {.channels = 256, .window = 3, .padding = 1}));
    Value b = conv2d(a, {.channels = 256, .window = 3, .padding = 1});
    network.classify(linear(flatten(concat({b, a})), {.units = 3}));
    Verdict verdict = compare(network, {});
    EXPECT_EQ(verdict.kind, Verdict::agrees) << verdict.blame << ": " << verdict.detail;
    Graph graph = run_pipeline(network.graph(), {Mode::train, network.optimizer(), {8, 32, Math::strict}});
    const bool tiles = std::any_of(graph.nodes.begin(), graph.nodes.end(),
                                   [](const Node &node) { return node.op == find_op("conv2d_grad_weight_tiles"); });
    EXPECT_TRUE(tiles) << "the network no longer shows what it is for";
}

// Parts of a concat that lie elsewhere have no layout of one sample: a block of samples is used.
TEST(FoundNetworks, AConcatOfTheInputsRows) {
    Network network("concat_of_rows");
    Value x = network.input("image", {1});
    Value y = reshape(concat({sigmoid(x), linear(x, {.units = 2}), x}), {-1, 1, 4, 1});
    network.classify(linear(flatten(relu6(8 * y)), {.units = 3}));
    Verdict verdict = compare(network, {});
    EXPECT_EQ(verdict.kind, Verdict::agrees) << verdict.blame << ": " << verdict.detail;
}

} // namespace
