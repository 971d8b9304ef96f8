// A plain C++ program with a compiled model: loads a checkpoint and prints accuracy and loss on the test set. It links
// lib<name>.a, the runtime and the IDX reader; nothing of the compiler. MODEL and MODEL_HEADER choose the network.
#include "data/idx.h"

#include MODEL_HEADER

#include <algorithm>
#include <cstdio>
#include <exception>

// In batches of the maximum, in order, as the trainer's test: the sums round alike.
static void evaluate(const char *checkpoint, const char *folder) {
    MODEL::Model model;
    model.load(checkpoint);
    cryolite::Dataset data = cryolite::load_dataset(folder, "t10k", model.classes());
    if (size_t(data.sample_elements()) != model.input_elements())
        throw cryolite::DataError("the images are not of the size that the model takes");
    double loss = 0;
    int64_t correct = 0;
    for (int64_t first = 0; first < data.count; first += model.max_batch()) {
        int64_t batch = std::min(model.max_batch(), data.count - first);
        cryolite::Result result = model.evaluate(data.sample(first), &data.labels[size_t(first)], batch);
        loss += result.loss * double(batch);
        correct += result.correct;
    }
    std::printf("test accuracy %.6f, loss %.6f, %lld samples\n", double(correct) / double(data.count),
                loss / double(data.count), static_cast<long long>(data.count));
}

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s CHECKPOINT FOLDER_OF_DATA\n", argv[0]);
        return 2;
    }
    try {
        evaluate(argv[1], argv[2]);
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s: error: %s\n", argv[0], error.what());
        return 1;
    }
}
