// Batch normalization in float64, which knows nothing of lanes, blocks or plans: the image, normalised, and a linear
// layer "head" behind it.
#ifndef CRYOLITE_TESTS_BATCH_NORM_REFERENCE_H
#define CRYOLITE_TESTS_BATCH_NORM_REFERENCE_H

#include "fixture.h"

#include <cmath>

namespace cryolite::test {

constexpr int classes = 3;

inline std::unique_ptr<Network> normalised(const Shape &image, const BatchNorm &options, double learning_rate) {
    auto net = std::make_unique<Network>("norm");
    net->optimize({.learning_rate = learning_rate});
    Value x = batch_norm(net->input("image", image), options);
    if (x.rank() == 4) x = flatten(x);
    net->classify(linear(x, {.units = classes, .name = "head"}));
    return net;
}

struct Data {
    std::vector<float> images;
    std::vector<int32_t> labels;
    int64_t size() const { return int64_t(labels.size()); }
};
// offset + deviation * [-1, 1), another offset for every channel.
inline Data make_data(const Shape &image, int64_t size, double offset = 0, double deviation = 1, uint64_t seed = 5) {
    Data data;
    data.images = deterministic(seed, size_t(size * image.elements()), 1);
    const int64_t pixels = image.elements() / image[0];
    for (size_t i = 0; i < data.images.size(); i++) {
        double channel = double(int64_t(i) / pixels % image[0]);
        data.images[i] = float(offset * (1 + channel / 8) + deviation * double(data.images[i]));
    }
    for (int64_t i = 0; i < size; i++) data.labels.push_back(int32_t(i * 2 % classes));
    return data;
}

struct Statistics {
    std::vector<double> mean, var; // biased
    double count = 0;              // values a channel
};
inline Statistics statistics(const Data &data, const Shape &image) {
    const int64_t c = image[0], pixels = image.elements() / c;
    Statistics s{std::vector<double>(size_t(c), 0.0), std::vector<double>(size_t(c), 0.0),
                 double(data.size() * pixels)};
    auto channel = [&](size_t i) { return size_t(int64_t(i) / pixels % c); };
    for (size_t i = 0; i < data.images.size(); i++) s.mean[channel(i)] += double(data.images[i]) / s.count;
    for (size_t i = 0; i < data.images.size(); i++)
        s.var[channel(i)] += std::pow(double(data.images[i]) - s.mean[channel(i)], 2) / s.count;
    return s;
}

// The network with tensors named as the model's.
struct Reference {
    Shape image;
    BatchNorm options;
    std::map<std::string, std::vector<double>> tensors;

    std::string layer() const { return options.name.empty() ? "0" : options.name; }
    std::vector<double> &norm(const std::string &name) { return tensors.at(layer() + "." + name); }
    Statistics running() { return {norm("running_mean"), norm("running_var")}; }
    void set(const Tensors &values) {
        for (const auto &[name, floats] : values) tensors[name].assign(floats.begin(), floats.end());
    }

    // Mean cross-entropy when it normalises with s; then, with a learning rate, a step down its gradient.
    double loss(const Data &data, const Statistics &s, double learning_rate = 0) {
        const size_t features = size_t(image.elements()), pixels = features / size_t(image[0]);
        auto before = tensors;
        auto &gamma = before.at(layer() + ".weight"), &beta = before.at(layer() + ".bias");
        auto &weight = before.at("head.weight"), &bias = before.at("head.bias");
        double loss = 0;
        for (size_t n = 0; n < data.labels.size(); n++) {
            auto x_hat = [&](size_t i) {
                size_t c = i / pixels;
                return (double(data.images[n * features + i]) - s.mean[c]) / std::sqrt(s.var[c] + options.eps);
            };
            double logits[classes], sum = 0;
            for (size_t k = 0; k < classes; k++) {
                logits[k] = bias[k];
                for (size_t i = 0; i < features; i++)
                    logits[k] += (x_hat(i) * gamma[i / pixels] + beta[i / pixels]) * weight[k * features + i];
            }
            const double correct = logits[data.labels[n]];
            for (double logit : logits) sum += std::exp(logit - correct);
            loss += std::log(sum) / double(data.size());
            for (size_t k = 0; learning_rate != 0 && k < classes; k++) {
                const double chosen = int(k) == data.labels[n];
                const double step =
                    learning_rate * (std::exp(logits[k] - correct) / sum - chosen) / double(data.size());
                tensors.at("head.bias")[k] -= step;
                for (size_t i = 0; i < features; i++) {
                    size_t c = i / pixels, at = k * features + i;
                    tensors.at("head.weight")[at] -= step * (x_hat(i) * gamma[c] + beta[c]);
                    norm("weight")[c] -= step * weight[at] * x_hat(i);
                    norm("bias")[c] -= step * weight[at];
                }
            }
        }
        return loss;
    }

    double evaluate(const Data &data) { return loss(data, running()); }
    double train(const Data &data, double learning_rate) {
        if (options.frozen) return loss(data, running(), learning_rate);
        Statistics batch = statistics(data, image);
        double result = loss(data, batch, learning_rate), old = 0;
        if (options.momentum) {
            old = *options.momentum;
        } else {
            double &steps = norm("num_batches_tracked")[0];
            old = steps / (steps + 1);
            steps++;
        }
        const double correction = options.unbiased ? batch.count / (batch.count - 1) : 1;
        for (size_t c = 0; c < batch.mean.size(); c++) {
            norm("running_mean")[c] = old * norm("running_mean")[c] + (1 - old) * batch.mean[c];
            norm("running_var")[c] = old * norm("running_var")[c] + (1 - old) * batch.var[c] * correction;
        }
        return result;
    }
};

} // namespace cryolite::test
#endif
