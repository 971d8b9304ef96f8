// The benchmarks' model.
#include "bench_model.h"

#include "tests/networks.h"

#include <random>
#include <stdexcept>

namespace cryolite::bench {

namespace {

CompiledModel compile_net(const std::string &name, int64_t batch) {
    Network net(name);
    net.optimize({.learning_rate = 0.01});
    if (name == "lenet")
        test::lenet(net);
    else if (name == "lenet_scratch")
        test::lenet_scratch(net);
    else if (name == "mlp")
        test::mlp(net);
    else
        throw std::invalid_argument("no network '" + name + "'");
    return compile(net, {.batch = batch});
}

} // namespace

BenchModel::BenchModel(const std::string &net, int threads, int64_t batch)
    : compiled_(compile_net(net, batch)), loaded_(compiled_) {
    cryo_options options = {};
    options.threads = threads;
    if (cryo_open(loaded_.program(), &options, &model_) != CRYO_OK) throw std::runtime_error(cryo_open_error());
    check(cryo_initialize(model_, 1));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    images_.resize(size_t(batch) * cryo_input_elements(model_));
    for (float &pixel : images_) pixel = normal(random);
    for (int64_t i = 0; i < batch; i++) labels_.push_back(int32_t(random() % uint32_t(cryo_classes(model_))));
    outputs_.resize(size_t(batch * cryo_classes(model_)));
}

void BenchModel::check(cryo_status status) const {
    if (status != CRYO_OK) throw std::runtime_error(model_ ? cryo_error(model_) : cryo_status_text(status));
}

void BenchModel::train(int64_t batch) {
    check(cryo_train_step(model_, images_.data(), labels_.data(), batch, nullptr));
}

void BenchModel::infer(int64_t batch) { check(cryo_infer(model_, images_.data(), batch, outputs_.data())); }

} // namespace cryolite::bench
