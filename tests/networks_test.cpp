// torchvision's networks beside PyTorch: loss, all gradients and running statistics of one train step, and inference.
// tests/fixtures/make_network_fixtures.py wrote PyTorch's side, in float64.
//
// The criterion is PyTorch's own float32 error, the worst of several runs, since deep networks amplify the roundings of
// their first layers: to up to 3e-2 of a gradient's norm, whoever computes it. Ours must be within `factor` of it,
// tensor by tensor. A tensor is given the median error of its network at least, because one that PyTorch happens to get
// right is no promise to another order of summation. One tensor in 50 is given the error of a relu that rounding
// decides otherwise, which is the 95th percentile of PyTorch's: that relu's layer alone shows it. Gradients that are
// zero but for rounding, of biases before batch norm, are compared with the largest gradient's norm. The loss knows no
// kinks, but roundings alone, of which Winograd's convolutions may have four times as many as direct ones: measured 3.3
// times PyTorch's.
#include "fixture.h"
#include "graph_fixture.h"
#include "op.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <gtest/gtest.h>
#include <sstream>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr double factor = 3, winograd = 4;
constexpr int kinks = 50; // one tensor in so many
const char *const names[] = {"resnet18_cifar", "vgg11_bn", "mobilenet_v2", "googlenet", "densenet121", "resnet50"};

uint64_t fnv1a(const std::string &name) {
    uint32_t hash = 0x811c9dc5;
    for (char c : name) hash = (hash ^ uint8_t(c)) * 0x01000193u;
    return hash;
}

// initial() of the script.
std::vector<float> initial(const cryo_parameter_info &info) {
    const std::string name = info.name;
    if (info.rank > 1) {
        double fan_in = double(info.elements) / double(info.shape[0]);
        return deterministic(fnv1a(name), info.elements, std::sqrt(6 / fan_in));
    }
    std::vector<float> near = deterministic(fnv1a(name), info.elements, 0.25);
    const bool residual = name.ends_with("bn2.running_var") || name.ends_with("bn3.running_var");
    const bool one = name.ends_with("weight") || name.ends_with("running_var");
    for (float &x : near) x += residual ? 16.0f : one ? 1.0f : 0.0f;
    return near;
}

// projections() of the script.
constexpr size_t projections = 8;
std::vector<double> project(const std::vector<float> &values) {
    std::vector<double> sums(projections, 0.0);
    for (size_t i = 0; i < values.size(); i++) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        const double x = values[i];
        for (size_t k = 0; k < projections; k++) sums[k] += z >> (56 + k) & 1 ? -x : x;
    }
    return sums;
}

// With momentum from rest, the velocity after one step is the gradient. Dropout is off.
std::unique_ptr<Network> network_of(const std::string &name) {
    for (const NetworkEntry &entry : registered_networks()) {
        if (entry.name != name) continue;
        std::unique_ptr<Network> network = entry.build();
        network->optimize({.learning_rate = 0.1, .momentum = 0.9});
        for (Node &node : network->graph().nodes)
            if (node.op == find_op("dropout")) node.attrs.map["rate"] = 0.0;
        return network;
    }
    throw std::runtime_error("no network " + name);
}

struct Expected {
    double norm, error;
    std::vector<double> projections;
};

class Networks : public testing::TestWithParam<const char *> {
protected:
    std::map<std::string, Expected> expected;
    double median = 0, kink = 0, largest_norm = 0;
    double worst = 0; // error over PyTorch's
    std::string worst_name, beyond;
    size_t compared = 0, count_beyond = 0;

    void load(const nlohmann::json &fixture) {
        std::vector<double> errors;
        for (const auto &[name, t] : fixture.at("tensors").items()) {
            expected[name] = {t[0], t[1], t[2].get<std::vector<double>>()};
            if (t[1] < 1) errors.push_back(t[1]); // others are of what is zero but for rounding
            if (name.ends_with(".weight")) largest_norm = std::max(largest_norm, double(t[0]));
        }
        std::sort(errors.begin(), errors.end());
        median = errors.at(errors.size() / 2);
        kink = errors.at(errors.size() * 95 / 100);
    }

    void compare(const std::string &name, const std::vector<float> &ours) {
        ASSERT_TRUE(expected.count(name)) << name << " has no counterpart in PyTorch";
        const Expected &e = expected.at(name);
        const std::vector<double> ours_projected = project(ours);
        double square = 0, norm = 0;
        for (size_t k = 0; k < projections; k++) square += std::pow(ours_projected[k] - e.projections.at(k), 2);
        for (float x : ours) norm += double(x) * double(x);
        // An estimate of the difference's norm, and a lower bound of it.
        double off = std::max(std::sqrt(square / projections), std::fabs(std::sqrt(norm) - e.norm));
        auto allowed = [&](double least) { return std::max(e.error, least) * e.norm + 1e-7 * largest_norm; };
        const double ratio = off / allowed(median);
        if (ratio > worst) {
            worst = ratio;
            worst_name = name;
        }
        std::ostringstream text;
        text << name << ": norm " << std::sqrt(norm) << ", PyTorch's " << e.norm << "; off by " << off
             << ", PyTorch's float32 by " << e.error * e.norm << '\n';
        EXPECT_LE(off, factor * allowed(kink)) << text.str();
        compared++;
        if (!(ratio <= factor)) {
            count_beyond++;
            beyond += text.str();
        }
        expected.erase(name);
    }
};

std::vector<float> read(cryo_model *model, const cryo_parameter_info &info) {
    std::vector<float> values(info.elements);
    EXPECT_EQ(cryo_get_parameter(model, info.name, values.data(), values.size()), CRYO_OK) << cryo_error(model);
    return values;
}

TEST_P(Networks, OneStepIsPyTorchs) {
    const std::string name = GetParam();
    const nlohmann::json fixture = load_json("networks.json.gz").at(name);
    load(fixture);
    const int64_t batch = fixture.at("batch");
    int64_t pixels = 1;
    for (int64_t extent : fixture.at("image")) pixels *= extent;
    auto start = std::chrono::steady_clock::now();
    TestModel model(*network_of(name), {.batch = batch});
    std::chrono::duration<double> compiled = std::chrono::steady_clock::now() - start;
    std::printf("    %s: compiled in %.1f s, %d of %d kernels from the cache\n", name.c_str(), compiled.count(),
                model.compiled().cached, model.compiled().kernels);

    cryo_parameter_info info;
    model.initialize(1);
    for (size_t i = 0; i < cryo_parameter_count(model.get()); i++) {
        ASSERT_EQ(cryo_parameter_at(model.get(), i, &info), CRYO_OK);
        if (std::string(info.name).starts_with("optimizer.")) continue;
        std::vector<float> values = initial(info);
        ASSERT_EQ(cryo_set_parameter(model.get(), info.name, values.data(), values.size()), CRYO_OK);
    }
    const std::vector<float> images = deterministic(fnv1a("image"), size_t(batch * pixels), 1);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < batch; i++) labels.push_back(int32_t(i * 7 % 10));
    std::vector<float> output(size_t(batch * 10));
    ASSERT_EQ(cryo_infer(model.get(), images.data(), batch, output.data()), CRYO_OK) << cryo_error(model.get());
    compare("output", output);
    cryo_result result = {};
    ASSERT_EQ(cryo_train_step(model.get(), images.data(), labels.data(), batch, &result), CRYO_OK)
        << cryo_error(model.get());
    const double loss = fixture.at("loss"), loss_error = fixture.at("loss_error");
    EXPECT_NEAR(result.loss, loss, winograd * factor * std::max(loss_error, 1e-6) * loss);

    const std::string velocity = "optimizer.velocity.";
    for (size_t i = 0; i < cryo_parameter_count(model.get()); i++) {
        ASSERT_EQ(cryo_parameter_at(model.get(), i, &info), CRYO_OK);
        const std::string of = info.name;
        if (of.starts_with(velocity))
            compare(of.substr(velocity.size()), read(model.get(), info));
        else if (of.find(".running_") != std::string::npos)
            compare(of, read(model.get(), info));
    }
    EXPECT_LE(count_beyond * kinks, compared) << beyond;
    for (const auto &[missing, e] : expected) ADD_FAILURE() << "PyTorch's " << missing << " is missing";
    std::printf("    loss off by %.1e (PyTorch's float32 by %.1e); worst tensor %s, %.2f of PyTorch's error; "
                "%zu of %zu tensors beyond %g times it\n",
                std::fabs(result.loss / loss - 1), loss_error, worst_name.c_str(), worst, count_beyond, compared,
                factor);
}

INSTANTIATE_TEST_SUITE_P(PyTorch, Networks, testing::ValuesIn(names),
                         [](const auto &info) { return std::string(info.param); });

} // namespace
