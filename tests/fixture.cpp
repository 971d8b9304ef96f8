// Fixtures and in-process models of the model tests.
#include "fixture.h"

#include "data/idx.h"
#include "device_value.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace cryolite::test {

namespace {

std::string fixture(const std::string &name) { return std::string(CRYOLITE_FIXTURES) + "/" + name; }

std::vector<char> read_whole(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

} // namespace

Batches::Batches() {
    std::vector<uint8_t> pixels = read_idx(fixture("images.idx.gz"), 3, 3).bytes;
    std::vector<uint8_t> classes = read_idx(fixture("labels.idx.gz"), 1, 1).bytes;
    if (pixels.size() != size_t(count) * size * 784 || classes.size() != size_t(count) * size)
        throw std::runtime_error("the fixtures do not hold 20 batches of 256");
    images.reserve(pixels.size());
    for (uint8_t pixel : pixels) images.push_back(float(pixel) / 255.0f);
    labels.assign(classes.begin(), classes.end());
}

Tensors load_tensors(const std::string &name) {
    std::vector<char> bytes = read_whole(fixture(name));
    uint64_t header_size = 0;
    std::memcpy(&header_size, bytes.data(), 8);
    const char *text = bytes.data() + 8, *data = text + header_size;
    Tensors tensors;
    const nlohmann::json header = nlohmann::json::parse(text, data);
    for (auto &[key, entry] : header.items()) {
        size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
        std::vector<float> values((end - begin) / 4);
        std::memcpy(values.data(), data + begin, end - begin);
        tensors[key] = std::move(values);
    }
    return tensors;
}

std::vector<double> load_losses(const std::string &net, const std::string &recipe) {
    std::vector<char> text = read_whole(fixture("losses.json"));
    return nlohmann::json::parse(text.begin(), text.end()).at(net).at(recipe).get<std::vector<double>>();
}

std::vector<float> deterministic(uint64_t seed, size_t count, double bound) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++) {
        uint64_t z = (i + 1 + (seed << 32)) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        values[i] = float(bound) * (float(z >> 40) / float(1 << 23) - 1.0f);
    }
    return values;
}

std::unique_ptr<Network> build(Define define, const Sgd &sgd, const char *name) {
    auto network = std::make_unique<Network>(name);
    network->optimize(sgd);
    define(*network);
    return network;
}

std::string test_cache() { return CRYOLITE_TEST_CACHE; }

double difference(const std::vector<float> &a, const std::vector<float> &b) {
    if (a.size() != b.size()) return INFINITY;
    double apart = 0, largest = 0;
    for (size_t i = 0; i < a.size(); i++) {
        if (!std::isfinite(a[i])) return INFINITY;
        apart = std::max(apart, std::fabs(double(a[i]) - double(b[i])));
        largest = std::max(largest, std::fabs(double(b[i])));
    }
    return apart == 0 ? 0 : apart / largest;
}

TestModel::TestModel(const Network &network, CompileOptions options, int threads)
    : compiled_(compile(network, (options.cache = CRYOLITE_TEST_CACHE, options))),
      loaded_(compiled_, device_functions()) {
    reopen(threads);
}

void TestModel::reopen(int threads) {
    cryo_close(model_);
    model_ = nullptr;
    cryo_options options = {};
    options.threads = threads;
    if (cryo_open(loaded_.program(), &options, &model_) != CRYO_OK) throw std::runtime_error(cryo_open_error());
}

void TestModel::check(cryo_status status, const char *call) const {
    ASSERT_EQ(status, CRYO_OK) << call << ": " << cryo_error(model_);
}

void TestModel::initialize(uint64_t seed) { check(cryo_initialize(model_, seed), "cryo_initialize"); }

void TestModel::set(const Tensors &tensors) {
    for (size_t i = 0; i < cryo_parameter_count(model_); i++) {
        cryo_parameter_info info;
        check(cryo_parameter_at(model_, i, &info), "cryo_parameter_at");
        auto found = tensors.find(info.name);
        if (found == tensors.end()) continue;
        check(cryo_set_parameter(model_, info.name, found->second.data(), found->second.size()), info.name);
    }
}

Tensors TestModel::parameters() const {
    Tensors tensors;
    for (size_t i = 0; i < cryo_parameter_count(model_); i++) {
        cryo_parameter_info info;
        check(cryo_parameter_at(model_, i, &info), "cryo_parameter_at");
        std::vector<float> values(info.elements);
        check(cryo_get_parameter(model_, info.name, values.data(), values.size()), info.name);
        tensors[info.name] = std::move(values);
    }
    return tensors;
}

uint64_t TestModel::hash() const {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (const auto &[name, values] : parameters()) {
        const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
        for (size_t i = 0; i < values.size() * sizeof(float); i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

cryo_result TestModel::train(const Batches &batches, int64_t first, int64_t size) {
    cryo_result result = {};
    check(cryo_train_step(model_, batches.image(first), batches.label(first), size, &result), "cryo_train_step");
    return result;
}

cryo_result TestModel::evaluate(const Batches &batches, int64_t first, int64_t size) {
    cryo_result result = {};
    check(cryo_evaluate(model_, batches.image(first), batches.label(first), size, &result), "cryo_evaluate");
    return result;
}

std::vector<float> TestModel::infer(const Batches &batches, int64_t first, int64_t size) {
    std::vector<float> outputs(size_t(size * cryo_classes(model_)));
    check(cryo_infer(model_, batches.image(first), size, outputs.data()), "cryo_infer");
    return outputs;
}

} // namespace cryolite::test
