// The same numbers as PyTorch: losses of 20 steps on real batches, then all parameters and running statistics; here and
// on OpenCL and CUDA devices. tests/fixtures/make_fixtures.py wrote PyTorch's side. Each case prints its largest
// differences.
#include "device_value.h"
#include "fixture.h"
#include "networks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>
#include <ostream>

using namespace cryolite;
using namespace cryolite::test;

namespace {

struct Recipe {
    const char *name;
    Sgd sgd;
};
const Recipe recipes[] = {{"sgd", {.learning_rate = 0.1}},
                          {"momentum", {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 5e-4}}};

struct Subject {
    const char *name, *fixture;
    Define define;
    bool biased;                   // running variances are compared with the textbook's
    int64_t batch = Batches::size; // rows of a batch that a step sees
};
const Subject subjects[] = {{"lenet", "lenet", lenet_pytorch, false},
                            {"lenet_scratch", "lenet", lenet_scratch, true},
                            {"mlp", "mlp", mlp, false},
                            {"residual", "residual", residual, false, 64}};

// make_fixtures.py's initialize(): seeds count the modules of nn.Sequential.
Tensors initial_mlp() {
    constexpr uint64_t seed = 5020; // MLP_SEED
    Tensors tensors;
    const std::pair<uint64_t, std::pair<size_t, size_t>> layers[] = {{1, {256, 784}}, {4, {256, 256}}, {7, {10, 256}}};
    for (const auto &[index, shape] : layers) {
        double bound = 1 / std::sqrt(double(shape.second));
        std::string name = std::to_string(index);
        tensors[name + ".weight"] = deterministic(seed + 2 * index, shape.first * shape.second, bound);
        tensors[name + ".bias"] = deterministic(seed + 2 * index + 1, shape.first, bound);
    }
    return tensors;
}

Tensors initial_residual() {
    constexpr uint64_t seed = 7000; // RESIDUAL_SEED
    Tensors tensors;
    const std::pair<const char *, std::pair<size_t, size_t>> layers[] = {
        {"conv1", {4, 9}},         {"layer1.conv1", {4, 36}}, {"layer1.conv2", {4, 36}},
        {"layer2.conv1", {8, 36}}, {"layer2.conv2", {8, 72}}, {"layer2.downsample.0", {8, 4}},
        {"layer3.conv1", {8, 72}}, {"layer3.conv2", {8, 72}}, {"fc", {10, 8}}};
    for (const auto &[name, shape] : layers)
        tensors[name + std::string(".weight")] =
            deterministic(seed + tensors.size(), shape.first * shape.second, 1 / std::sqrt(double(shape.second)));
    tensors["fc.bias"] = std::vector<float>(10);
    return tensors;
}

Tensors initial(const Subject &subject) {
    const std::string fixture = subject.fixture;
    return fixture == "mlp"        ? initial_mlp()
           : fixture == "residual" ? initial_residual()
                                   : load_tensors("lenet.initial.safetensors");
}

void PrintTo(const Recipe &recipe, std::ostream *out) { *out << recipe.name; }
void PrintTo(const Subject &subject, std::ostream *out) { *out << subject.name; }

class Agreement : public testing::TestWithParam<std::tuple<Subject, Recipe, const char *>> {};

TEST_P(Agreement, LossesParametersAndStatistics) {
    const auto &[subject, recipe, target] = GetParam();
    std::string none;
    if (std::string(target) != "host" && !open_device(target, none)) GTEST_SKIP() << none;
    Batches batches;
    TestModel model(*build(subject.define, recipe.sgd, subject.name), {.batch = subject.batch, .target = target});
    model.initialize(1); // running statistics start at 0 and 1
    model.set(initial(subject));

    std::vector<double> expected = load_losses(subject.fixture, recipe.name);
    ASSERT_EQ(expected.size(), size_t(Batches::count));
    double loss_difference = 0, tensor_difference = 0;
    for (int step = 0; step < Batches::count; step++) {
        double loss = model.train(batches, step * Batches::size, subject.batch).loss;
        double relative = std::fabs(loss / expected[size_t(step)] - 1);
        EXPECT_LE(relative, 1e-5) << "step " << step;
        loss_difference = std::max(loss_difference, relative);
    }

    Tensors ours = model.parameters(),
            theirs = load_tensors(std::string(subject.fixture) + "." + recipe.name + ".safetensors");
    const std::string unbiased = ".running_var", biased = ".running_var_biased";
    size_t compared = 0;
    for (const auto &[name, values] : theirs) {
        bool is_biased = name.ends_with(biased);
        if (is_biased || name.ends_with(unbiased))
            if (is_biased != subject.biased) continue;
        std::string own = is_biased ? name.substr(0, name.size() - biased.size()) + unbiased : name;
        ASSERT_TRUE(ours.count(own)) << own;
        double relative = difference(ours[own], values);
        EXPECT_LE(relative, 1e-4) << own;
        tensor_difference = std::max(tensor_difference, relative);
        compared++;
    }
    size_t saved = 0;
    for (const auto &[name, values] : ours) saved += name.rfind("optimizer.", 0) != 0;
    EXPECT_EQ(compared, saved) << "a parameter or statistic without a counterpart in PyTorch";
    std::printf("    %s, %s, %s, %d steps: losses within %.1e, %zu tensors within %.1e\n", subject.name, recipe.name,
                target, Batches::count, loss_difference, compared, tensor_difference);
}

std::string agreement_name(const testing::TestParamInfo<Agreement::ParamType> &info) {
    return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
}
INSTANTIATE_TEST_SUITE_P(PyTorch, Agreement,
                         testing::Combine(testing::ValuesIn(subjects), testing::ValuesIn(recipes),
                                          testing::Values("host")),
                         agreement_name);
INSTANTIATE_TEST_SUITE_P(OpenCl, Agreement,
                         testing::Combine(testing::Values(subjects[0], subjects[2], subjects[3]),
                                          testing::ValuesIn(recipes), testing::Values("opencl")),
                         agreement_name);
INSTANTIATE_TEST_SUITE_P(Cuda, Agreement,
                         testing::Combine(testing::Values(subjects[0], subjects[2], subjects[3]),
                                          testing::ValuesIn(recipes), testing::Values("cuda")),
                         agreement_name);

class ScratchAgreement : public testing::TestWithParam<Recipe> {};

TEST_P(ScratchAgreement, BuiltInAndFromScratchOnEveryStep) {
    const Recipe &recipe = GetParam();
    Batches batches;
    TestModel built_in(*build(lenet, recipe.sgd, "lenet"), {.batch = Batches::size});
    TestModel scratch(*build(lenet_scratch, recipe.sgd, "lenet_scratch"), {.batch = Batches::size});
    for (TestModel *model : {&built_in, &scratch}) {
        model->initialize(1);
        model->set(load_tensors("lenet.initial.safetensors"));
    }
    double loss_difference = 0;
    for (int step = 0; step < Batches::count; step++) {
        double a = built_in.train(batches, step * Batches::size, Batches::size).loss;
        double b = scratch.train(batches, step * Batches::size, Batches::size).loss;
        EXPECT_NEAR(a, b, 1e-5 * b) << "step " << step;
        loss_difference = std::max(loss_difference, std::fabs(a / b - 1));
    }
    std::printf("    built-in beside from scratch, %s: losses within %.1e\n", recipe.name, loss_difference);
    // With running statistics, too.
    cryo_result a = built_in.evaluate(batches, 0, Batches::size), b = scratch.evaluate(batches, 0, Batches::size);
    EXPECT_NEAR(a.loss, b.loss, 1e-5 * b.loss);
    EXPECT_LE(difference(built_in.infer(batches, 0, 100), scratch.infer(batches, 0, 100)), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Recipes, ScratchAgreement, testing::ValuesIn(recipes),
                         [](const auto &info) { return std::string(info.param.name); });

} // namespace
