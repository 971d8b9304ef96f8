// The least that trains and infers: its stripped size is what a model costs a product.
#include "lenet.h"

#include <cstdio>
#include <vector>

int main() {
    std::vector<float> images(size_t(8) * LENET_INPUT_ELEMENTS), outputs(8 * LENET_CLASSES);
    std::vector<int32_t> labels(8);
    for (size_t i = 0; i < images.size(); i++) images[i] = float(i * 7 % 31) / 31;
    for (size_t i = 0; i < labels.size(); i++) labels[i] = int32_t(i);

    cryo_model *model = nullptr;
    cryo_result result = {};
    if (cryo_open(&lenet_program, nullptr, &model) != CRYO_OK) {
        std::puts(cryo_open_error());
        return 1;
    }
    cryo_status status = cryo_initialize(model, 1);
    if (status == CRYO_OK) status = cryo_train_step(model, images.data(), labels.data(), 8, &result);
    if (status == CRYO_OK) status = cryo_infer(model, images.data(), 8, outputs.data());
    if (status != CRYO_OK) std::puts(cryo_error(model));
    std::printf("loss %.4f, first probability %.4f\n", result.loss, double(outputs[0]));
    cryo_close(model);
    return status == CRYO_OK ? 0 : 1;
}
