// torchvision's networks beside PyTorch: loss, every gradient and running statistic of one train step, and the
// probabilities of inference. tests/fixtures/make_network_fixtures.py wrote PyTorch's side in float64, and how far
// PyTorch's own float32 is off. A relu, or a maximum, of two values that rounding exchanges moves the gradients of all
// layers before it by some 1e-3 to 1e-2 of their norm: PyTorch's float32 differs by up to 4.4e-2 (GoogLeNet). A wrong
// gradient is off by the order of 1. Of each tensor the fixture has the norm and some samples.
// With a momentum, and no velocity before, the velocity after one step is the gradient.
#include "fixture.h"
#include "frontend.h"

#include "cryolite_runtime.h"
#include "op.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

using Json = nlohmann::json;

Json read_fixture() {
    gzFile file = gzopen(CRYOLITE_FIXTURES "/networks.json.gz", "rb");
    std::string text;
    char buffer[1 << 16];
    for (int count; file && (count = gzread(file, buffer, sizeof buffer)) > 0;) text.append(buffer, size_t(count));
    if (file) gzclose(file);
    return Json::parse(text);
}

// make_network_fixtures.py's fnv1a, initial and positions.
uint32_t seed_of(const std::string &name) {
    uint32_t h = 0x811C9DC5u;
    for (char c : name) h = (h ^ uint8_t(c)) * 0x01000193u;
    return h;
}
std::vector<float> initial(const cryo_parameter_info &info) {
    const std::string name = info.name;
    if (info.rank > 1)
        return deterministic(seed_of(name), info.elements,
                             std::sqrt(6.0 / double(info.elements / size_t(info.shape[0]))));
    std::vector<float> near = deterministic(seed_of(name), info.elements, 0.25);
    if (name.ends_with("weight") || name.ends_with("running_var"))
        for (float &x : near) x += 1;
    return near;
}
size_t position(size_t i, size_t count) { return (i * 2654435761u + 12345) % count; }

std::unique_ptr<Network> network_of(const std::string &name) {
    for (const NetworkEntry &entry : registered_networks()) {
        if (entry.name != name) continue;
        auto network = entry.build();
        network->optimize({.learning_rate = 0.1, .momentum = 0.9});
        for (Node &node : network->graph().nodes) // the fixture's are off
            if (node.op == find_op("dropout")) node.attrs.map["rate"] = 0.0;
        return network;
    }
    throw std::runtime_error("no network '" + name + "'");
}

// How far ours is off, relative to the tensor's norm: of the samples, and of the norm.
double difference(const std::string &name, const std::vector<float> &ours, const Json &tensor) {
    const double norm = tensor[0], count = double(ours.size());
    double own = 0, samples = 0;
    for (float x : ours) own += double(x) * double(x);
    own = std::sqrt(own);
    if (norm < 1e-9) { // zero but for rounding: of a bias before a batch norm
        EXPECT_LT(own, 1e-5) << name;
        return 0;
    }
    for (size_t i = 0; i < tensor[2].size(); i++)
        samples += std::pow(double(ours[position(i, ours.size())]) - double(tensor[2][i]), 2);
    return std::max(std::sqrt(samples * count / double(tensor[2].size())), std::fabs(own - norm)) / norm;
}

class Networks : public testing::TestWithParam<const char *> {};

TEST_P(Networks, OneStepAsPyTorch) {
    static const Json fixture = read_fixture();
    const std::string name = GetParam();
    const Json &expected = fixture.at(name);
    const int64_t batch = expected.at("batch");
    size_t pixels = 1;
    for (int64_t extent : expected.at("image")) pixels *= size_t(extent);
    std::vector<float> images = deterministic(seed_of("image"), size_t(batch) * pixels, 1);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < batch; i++) labels.push_back(int32_t(i * 7 % 10));

    TestModel model(*network_of(name), {.batch = batch});
    model.initialize(1);
    for (size_t i = 0; i < cryo_parameter_count(model.get()); i++) {
        cryo_parameter_info info;
        ASSERT_EQ(cryo_parameter_at(model.get(), i, &info), CRYO_OK);
        if (std::string(info.name).starts_with("optimizer.")) continue;
        std::vector<float> values = initial(info);
        ASSERT_EQ(cryo_set_parameter(model.get(), info.name, values.data(), values.size()), CRYO_OK) << info.name;
    }
    Tensors ours;
    ours["output"].resize(size_t(batch) * 10);
    ASSERT_EQ(cryo_infer(model.get(), images.data(), batch, ours["output"].data()), CRYO_OK) << cryo_error(model.get());
    cryo_result result = {};
    ASSERT_EQ(cryo_train_step(model.get(), images.data(), labels.data(), batch, &result), CRYO_OK)
        << cryo_error(model.get());
    const double loss = expected.at("loss"), loss_error = expected.at("loss_error");
    const double loss_off = std::fabs(result.loss / loss - 1);
    EXPECT_LE(loss_off, std::max(10 * loss_error, 1e-5));

    const std::string velocity = "optimizer.velocity.";
    for (auto &[tensor, values] : model.parameters())
        if (tensor.starts_with(velocity))
            ours[tensor.substr(velocity.size())] = values;
        else if (tensor.ends_with("running_mean") || tensor.ends_with("running_var"))
            ours[tensor] = values;
    std::vector<double> off, theirs;
    for (const auto &[tensor, numbers] : expected.at("tensors").items()) {
        ASSERT_TRUE(ours.count(tensor)) << tensor;
        off.push_back(difference(tensor, ours[tensor], numbers));
        EXPECT_LE(off.back(), tensor == "output" ? 1e-3 : 0.15) << tensor;
        if (numbers[0] >= 1e-9) theirs.push_back(numbers[1]);
    }
    EXPECT_EQ(off.size(), ours.size());
    std::sort(off.begin(), off.end());
    std::sort(theirs.begin(), theirs.end());
    EXPECT_LE(off[off.size() / 2], 0.03);
    std::printf(
        "    %s: loss within %.1e; %zu tensors off by %.1e (median), %.1e (most), PyTorch's float32 by %.1e, %.1e\n",
        name.c_str(), loss_off, off.size(), off[off.size() / 2], off.back(), theirs[theirs.size() / 2], theirs.back());
}

INSTANTIATE_TEST_SUITE_P(Torchvision, Networks,
                         testing::Values("resnet18_cifar", "vgg11_bn", "mobilenet_v2", "googlenet", "densenet121",
                                         "resnet50"),
                         [](const auto &info) { return std::string(info.param); });

} // namespace
