// Trains on the device that a model was made for and, where there is none, the same network on the processor.
#include "mlp.h"
#include "mlp_opencl.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

namespace {

std::unique_ptr<cryolite::Model> open_anywhere() {
    try {
        return std::make_unique<mlp_opencl::Model>();
    } catch (const cryolite::Error &error) {
        if (error.status() != CRYO_NO_DEVICE) throw;
        std::printf("on the processor: %s\n", error.what());
        return std::make_unique<mlp::Model>();
    }
}

} // namespace

int main() {
    std::vector<float> images(size_t(20) * MLP_INPUT_ELEMENTS);
    std::vector<int32_t> labels(20);
    for (size_t i = 0; i < images.size(); i++) images[i] = float(i * 7 % 31) / 31;
    for (size_t i = 0; i < labels.size(); i++) labels[i] = int32_t(i % 10);
    try {
        std::unique_ptr<cryolite::Model> model = open_anywhere();
        model->initialize(1);
        double first = model->train_step(images.data(), labels.data(), 20).loss, last = first;
        for (int step = 0; step < 5; step++) last = model->train_step(images.data(), labels.data(), 20).loss;
        std::printf("%s: loss %.5f, then %.5f\n", model->name().c_str(), first, last);
        return std::isfinite(last) && last < first ? 0 : 1;
    } catch (const cryolite::Error &error) {
        std::puts(error.what());
        return 1;
    }
}
