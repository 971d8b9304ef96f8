// Two compiled models in one program: training, checkpoints, memory of the caller's own, inference from many threads.
#include "lenet.h"
#include "mlp.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

void require(bool holds, const char *what) {
    if (!holds) throw std::runtime_error(what);
}

// The status that a call ends with.
template <class Call> cryo_status status_of(Call call) {
    try {
        call();
    } catch (const cryolite::Error &error) {
        require(error.what()[0] != 0, "an error without a text");
        return error.status();
    }
    return CRYO_OK;
}

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

double train(cryolite::Model &model, const Data &data, int steps, int64_t batch) {
    double loss = 0;
    for (int i = 0; i < steps; i++) {
        size_t first = size_t(i) * 13 % (data.labels.size() - size_t(batch));
        loss = model.train_step(&data.images[first * 784], &data.labels[first], batch).loss;
        require(std::isfinite(loss), "the loss is not finite");
    }
    return loss;
}

std::vector<float> infer(cryolite::Model &model, const Data &data, int64_t batch) {
    std::vector<float> outputs(size_t(batch) * 10);
    model.infer(data.images.data(), batch, outputs.data());
    return outputs;
}

template <class Model> Model fresh(const cryolite::Options &options = {}) {
    Model model(options);
    model.initialize(5);
    return model;
}

void two_models_learn_side_by_side(const Data &data) {
    auto small = fresh<lenet::Model>(), alone = fresh<lenet::Model>();
    auto large = fresh<mlp::Model>();
    require(small.name() == "lenet" && large.name() == "mlp", "names");
    require(small.max_batch() == LENET_MAX_BATCH && large.max_batch() == MLP_MAX_BATCH, "largest batches");
    double first_small = train(small, data, 1, 64), first_large = train(large, data, 1, 48);
    double last_small = train(small, data, 60, 64), last_large = train(large, data, 60, 48);
    require(last_small < 0.5 * first_small, "lenet does not learn");
    require(last_large < 0.5 * first_large, "mlp does not learn");
    train(alone, data, 1, 64);
    train(alone, data, 60, 64);
    require(infer(alone, data, 64) == infer(small, data, 64), "the models disturb each other");
    require(small.evaluate(data.images.data(), data.labels.data(), 64).correct > 32, "lenet has learnt nothing");
}

void checkpoints_hold_everything(const Data &data) {
    auto saved = fresh<lenet::Model>(), loaded = fresh<lenet::Model>();
    auto other = fresh<mlp::Model>();
    train(saved, data, 10, 64);
    saved.save("lenet.safetensors");
    loaded.load("lenet.safetensors");
    require(infer(saved, data, 33) == infer(loaded, data, 33), "a loaded model infers something else");
    require(train(saved, data, 3, 64) == train(loaded, data, 3, 64), "a loaded model trains differently");
    require(status_of([&] { other.load("lenet.safetensors"); }) == CRYO_BAD_FILE, "mlp takes lenet's checkpoint");
    require(status_of([&] { other.load("missing.safetensors"); }) == CRYO_IO_ERROR, "a missing file is no error");
}

void memory_of_the_caller(const Data &data) {
    cryolite::Options options = {};
    options.threads = 2;
    options.arena_bytes = cryo_arena_bytes(&lenet_program, 2);
    std::unique_ptr<void, decltype(&std::free)> arena(std::aligned_alloc(64, (options.arena_bytes + 63) / 64 * 64),
                                                      std::free);
    require(arena != nullptr, "out of memory");
    options.arena = arena.get();
    {
        auto own = fresh<lenet::Model>(options), heap = fresh<lenet::Model>();
        train(own, data, 5, 64);
        train(heap, data, 5, 64);
        require(infer(own, data, 64) == infer(heap, data, 64), "the caller's arena changes results");
    }
    options.arena_bytes -= 64;
    require(status_of([&] { lenet::Model model(options); }) == CRYO_BAD_ARGUMENT, "an arena too small is taken");
}

void many_threads_infer(const Data &data) {
    auto model = fresh<lenet::Model>();
    train(model, data, 10, 64);
    std::vector<std::vector<float>> expected; // batches of few samples round otherwise than others
    for (int64_t batch = 0; batch <= 64; batch++) expected.push_back(infer(model, data, std::max<int64_t>(batch, 1)));
    std::vector<std::thread> threads;
    std::vector<int> right(8, 0);
    for (size_t t = 0; t < right.size(); t++)
        threads.emplace_back([&, t] {
            cryolite::Context context = model.context();
            bool same = true;
            for (int64_t batch = 1; batch <= 64; batch += int64_t(t) + 1) {
                std::vector<float> outputs(size_t(batch) * 10);
                context.infer(data.images.data(), batch, outputs.data());
                same = same && outputs == expected[size_t(batch)];
            }
            right[t] = same;
        });
    for (std::thread &thread : threads) thread.join();
    for (int good : right) require(good, "an inferring thread got something else");
}

} // namespace

int main() {
    Data data(256);
    try {
        two_models_learn_side_by_side(data);
        checkpoints_hold_everything(data);
        memory_of_the_caller(data);
        many_threads_infer(data);
    } catch (const std::exception &error) {
        std::printf("consumer: %s\n", error.what());
        return 1;
    }
    std::puts("consumer: ok");
    return 0;
}
