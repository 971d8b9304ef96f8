// Two compiled models in one program: training, checkpoints, memory of the caller's own, inference from many threads.
#include "lenet.h"
#include "mlp.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

void require(bool holds, const char *what, const char *detail = "") {
    if (holds) return;
    std::printf("consumer: %s %s\n", what, detail);
    std::exit(1);
}

// Opened, and closed at the end.
struct Model {
    cryo_model *handle = nullptr;
    explicit Model(const cryo_program &program, const cryo_options *options = nullptr) {
        require(cryo_open(&program, options, &handle) == CRYO_OK, "cryo_open:", cryo_open_error());
        check(cryo_initialize(handle, 5));
    }
    ~Model() { cryo_close(handle); }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;
    void check(cryo_status status) const { require(status == CRYO_OK, cryo_status_text(status), cryo_error(handle)); }
};

// Noisy images, each with a bright bar at its class's place.
struct Data {
    std::vector<float> images;
    std::vector<int32_t> labels;
    explicit Data(int count) {
        std::mt19937 random(3);
        std::uniform_real_distribution<float> noise(0, 0.3f);
        for (int i = 0; i < count; i++) {
            int label = int(random() % 10);
            labels.push_back(label);
            for (int pixel = 0; pixel < 784; pixel++)
                images.push_back(noise(random) + (pixel / 28 / 2 == label + 2 ? 0.7f : 0.0f));
        }
    }
};

double train(Model &model, const Data &data, int steps, int64_t batch) {
    cryo_result result = {};
    for (int i = 0; i < steps; i++) {
        size_t first = size_t(i) * 13 % (data.labels.size() - size_t(batch));
        model.check(cryo_train_step(model.handle, &data.images[first * 784], &data.labels[first], batch, &result));
        require(std::isfinite(result.loss), "the loss is not finite");
    }
    return result.loss;
}

std::vector<float> infer(Model &model, const Data &data, int64_t batch) {
    std::vector<float> outputs(size_t(batch) * 10);
    model.check(cryo_infer(model.handle, data.images.data(), batch, outputs.data()));
    return outputs;
}

void two_models_learn_side_by_side(const Data &data) {
    Model lenet(lenet_program), mlp(mlp_program), alone(lenet_program);
    require(std::string(cryo_model_name(lenet.handle)) == "lenet", "name of lenet");
    require(cryo_max_batch(lenet.handle) == LENET_MAX_BATCH && cryo_max_batch(mlp.handle) == 48, "largest batch");
    double first_lenet = train(lenet, data, 1, 64), first_mlp = train(mlp, data, 1, 48);
    double last_lenet = train(lenet, data, 60, 64), last_mlp = train(mlp, data, 60, 48);
    require(last_lenet < 0.5 * first_lenet, "lenet does not learn");
    require(last_mlp < 0.5 * first_mlp, "mlp does not learn");
    train(alone, data, 1, 64);
    train(alone, data, 60, 64);
    require(infer(alone, data, 64) == infer(lenet, data, 64), "the models disturb each other");

    // The trained model also knows images that were not in the last batch.
    cryo_result result = {};
    lenet.check(cryo_evaluate(lenet.handle, data.images.data(), data.labels.data(), 64, &result));
    require(result.correct > 32, "lenet has learnt nothing");
}

void checkpoints_hold_everything(const Data &data) {
    Model saved(lenet_program), loaded(lenet_program), other(mlp_program);
    train(saved, data, 10, 64);
    saved.check(cryo_save(saved.handle, "lenet.safetensors"));
    loaded.check(cryo_load(loaded.handle, "lenet.safetensors"));
    require(infer(saved, data, 33) == infer(loaded, data, 33), "a loaded model infers something else");
    require(train(saved, data, 3, 64) == train(loaded, data, 3, 64), "a loaded model trains differently");
    require(cryo_load(other.handle, "lenet.safetensors") == CRYO_BAD_FILE, "mlp takes lenet's checkpoint");
    require(cryo_load(loaded.handle, "missing.safetensors") == CRYO_IO_ERROR, "a missing file is no error");
}

void memory_of_the_caller(const Data &data) {
    cryo_options options = {};
    options.threads = 2;
    options.arena_bytes = cryo_arena_bytes(&lenet_program, 2);
    std::unique_ptr<void, decltype(&std::free)> arena(std::aligned_alloc(64, (options.arena_bytes + 63) / 64 * 64),
                                                      std::free);
    require(arena != nullptr, "out of memory");
    options.arena = arena.get();
    Model own(lenet_program, &options), heap(lenet_program);
    train(own, data, 5, 64);
    train(heap, data, 5, 64);
    require(infer(own, data, 64) == infer(heap, data, 64), "the caller's arena changes results");

    options.arena_bytes -= 64;
    cryo_model *model = nullptr;
    require(cryo_open(&lenet_program, &options, &model) == CRYO_BAD_ARGUMENT, "an arena too small is taken");
}

void many_threads_infer(const Data &data) {
    Model model(lenet_program);
    train(model, data, 10, 64);
    std::vector<float> expected = infer(model, data, 64);
    std::vector<std::thread> threads;
    std::vector<int> wrong(8, 0);
    for (size_t t = 0; t < wrong.size(); t++)
        threads.emplace_back([&, t] {
            cryo_context *context = nullptr;
            if (cryo_context_open(model.handle, &context) != CRYO_OK) {
                wrong[t] = 1;
                return;
            }
            for (int64_t batch = 1; batch <= 64; batch += int64_t(t) + 1) {
                std::vector<float> outputs(size_t(batch) * 10);
                if (cryo_context_infer(context, data.images.data(), batch, outputs.data()) != CRYO_OK) wrong[t]++;
                if (!std::equal(outputs.begin(), outputs.end(), expected.begin())) wrong[t]++;
            }
            cryo_context_close(context);
        });
    for (std::thread &thread : threads) thread.join();
    for (int count : wrong) require(count == 0, "an inferring thread got something else");
}

} // namespace

int main() {
    Data data(256);
    two_models_learn_side_by_side(data);
    checkpoints_hold_everything(data);
    memory_of_the_caller(data);
    many_threads_infer(data);
    std::puts("consumer: ok");
    return 0;
}
