// Batch normalization as a state machine: random sequences of train, evaluate, infer, save, load, freeze and thaw,
// every result and every tensor beside the reference's.
#include "batch_norm_reference.h"

#include <algorithm>
#include <filesystem>
#include <gtest/gtest.h>
#include <random>
#include <unistd.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr double learning_rate = 0.01;
constexpr int64_t max_batch = 17, lanes = 8;
constexpr double tolerance = 1e-4; // of the largest value of a tensor, after all steps of a sequence

BatchNorm frozen_of(BatchNorm options) {
    options.frozen = true;
    return options;
}

// Freezing is to go on with another network, which reads the same checkpoints.
struct Machine {
    Shape image;
    BatchNorm options;
    TestModel thawed{*normalised(image, options, learning_rate), {.batch = max_batch, .lanes = lanes}};
    TestModel frozen{*normalised(image, frozen_of(options), learning_rate), {.batch = max_batch, .lanes = lanes}};
    Reference reference{image, options, {}};
    Reference saved = reference;
    std::string folder = make_folder();
    std::string log;
    bool has_saved = false;

    Machine(const Shape &image, const BatchNorm &options) : image(image), options(options) {}
    ~Machine() { std::filesystem::remove_all(folder); }
    static std::string make_folder() {
        std::string folder = (std::filesystem::temp_directory_path() / "cryolite_states_XXXXXX").string();
        EXPECT_NE(mkdtemp(folder.data()), nullptr);
        return folder;
    }

    TestModel &model() { return reference.options.frozen ? frozen : thawed; }
    void start(uint64_t seed) {
        reference = {image, options, {}};
        has_saved = false;
        log.clear();
        model().initialize(seed);
        reference.set(model().parameters());
    }
    void save(const std::string &name) {
        ASSERT_EQ(cryo_save(model().get(), (folder + name).c_str()), CRYO_OK) << cryo_error(model().get());
    }
    void load(const std::string &name) {
        ASSERT_EQ(cryo_load(model().get(), (folder + name).c_str()), CRYO_OK) << cryo_error(model().get());
    }

    void act(std::mt19937_64 &random) {
        const int64_t pixels = image.elements() / image[0];
        int64_t size = 1 + int64_t(random() % max_batch);
        Data data = make_data(image, size, double(random() % 7) - 3, 0.5 + double(random() % 4), random() % 1000);
        switch (random() % 8) {
        case 0:
        case 1:
        case 2: {
            log += " train" + std::to_string(size);
            cryo_result result = {};
            cryo_status status = cryo_train_step(model().get(), data.images.data(), data.labels.data(), size, &result);
            if (size * pixels == 1 && !reference.options.frozen) {
                EXPECT_EQ(status, CRYO_BAD_ARGUMENT);
            } else {
                ASSERT_EQ(status, CRYO_OK) << cryo_error(model().get());
                near(result.loss, reference.train(data, learning_rate));
            }
            break;
        }
        case 3: {
            log += " evaluate" + std::to_string(size);
            cryo_result result = {};
            ASSERT_EQ(cryo_evaluate(model().get(), data.images.data(), data.labels.data(), size, &result), CRYO_OK);
            near(result.loss, reference.evaluate(data));
            break;
        }
        case 4: {
            log += " infer" + std::to_string(size);
            std::vector<float> outputs(size_t(size * classes));
            ASSERT_EQ(cryo_infer(model().get(), data.images.data(), size, outputs.data()), CRYO_OK);
            double loss = 0;
            for (int64_t n = 0; n < size; n++)
                loss -= std::log(double(outputs[size_t(n * classes + data.labels[size_t(n)])])) / double(size);
            near(loss, reference.evaluate(data));
            break;
        }
        case 5:
            log += " save";
            save("/slot");
            saved = reference;
            has_saved = true;
            break;
        case 6:
            if (!has_saved) break;
            log += " load";
            load("/slot");
            reference.tensors = saved.tensors;
            break;
        default:
            log += reference.options.frozen ? " thaw" : " freeze";
            save("/passed_on");
            reference.options.frozen = !reference.options.frozen;
            load("/passed_on");
        }
    }
    static void near(double ours, double expected) { EXPECT_NEAR(ours, expected, tolerance * (1 + expected)); }
    void compare() {
        Tensors ours = model().parameters();
        ASSERT_EQ(ours.size(), reference.tensors.size());
        for (const auto &[name, expected] : reference.tensors)
            ASSERT_LE(difference(ours[name], std::vector<float>(expected.begin(), expected.end())), tolerance) << name;
    }
};

void run(const Shape &image, const BatchNorm &options) {
    constexpr uint64_t sequences = 25;
    constexpr int actions = 40;
    Machine machine(image, options);
    for (uint64_t sequence = 0; sequence < sequences; sequence++) {
        machine.start(sequence);
        std::mt19937_64 random(sequence);
        for (int i = 0; i < actions; i++) {
            machine.act(random);
            machine.compare();
            ASSERT_FALSE(::testing::Test::HasFailure()) << "sequence " << sequence << ":" << machine.log;
        }
    }
    std::printf("%d sequences of %d actions\n", int(sequences), actions);
}

TEST(BatchNormStates, Images) { run({3, 2, 2}, {}); }
TEST(BatchNormStates, Features) { run({5}, {.momentum = 0.5, .unbiased = true}); }
TEST(BatchNormStates, OnePixelWithPlainAverages) { run({2, 1, 1}, {.momentum = std::nullopt, .unbiased = true}); }
TEST(BatchNormStates, FeaturesWithPlainAverages) { run({3}, {.eps = 1e-3, .momentum = std::nullopt}); }

} // namespace
