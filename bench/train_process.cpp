// A training process as a user would have it, with nothing of the compiler: takes a few steps on random data and prints
// the most memory it ever had, as the system counts it. MODEL and MODEL_HEADER choose the network.
#include MODEL_HEADER

#include <sys/resource.h>

#include <cstdio>
#include <exception>
#include <random>
#include <vector>

static void train() {
    MODEL::Model model;
    model.initialize(1);
    model.set_learning_rate(0);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> images(size_t(model.max_batch()) * model.input_elements());
    for (float &pixel : images) pixel = normal(random);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < model.max_batch(); i++) labels.push_back(int32_t(random() % unsigned(model.classes())));
    for (int step = 0; step < 3; step++) model.train_step(images.data(), labels.data(), model.max_batch());
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    std::printf("{\"peak_bytes\": %ld, \"model_bytes\": %zu}\n", usage.ru_maxrss * 1024L, model.memory_bytes());
}

int main() {
    try {
        train();
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "train_process: %s\n", error.what());
        return 1;
    }
}
