// Few samples, with a plan of one sample: threads take samples alone, from end to end, and share what is left.
#include "runtime_model.h"

#include <gtest/gtest.h>
#include <set>
#include <thread>

using namespace tiny;

namespace {

// Output k of a sample is weight k . x, plus the square of its sum of x: phase 0 makes both by tiles, phase 1 adds.
constexpr int64_t sums = 64, bytes_of_one = 128;
std::atomic<int> fail_at{-1}; // project returns -9 where the sample's first input is this

struct Place { // of a call: its sample by its first input, and the thread
    int sample;
    std::thread::id thread;
};
std::atomic<int> places_count{0};
std::array<Place, 256> places;

int project(void **argv) { // x (inputs), weight (inputs) of one class, product (1)
    enter();
    const int sample = int(at(argv, 0, 0));
    places[size_t(places_count++) % places.size()] = {sample, std::this_thread::get_id()};
    if (sample == fail_at) return -9;
    at(argv, 2, 0) = 0;
    for (int c = 0; c < inputs; c++) at(argv, 2, 0) += at(argv, 1, c) * at(argv, 0, c);
    return 0;
}
int square(void **argv) { // x (inputs), squared sum (1)
    enter();
    float sum = 0;
    for (int c = 0; c < inputs; c++) sum += at(argv, 0, c);
    at(argv, 1, 0) = sum * sum;
    return 0;
}
int add(void **argv) { // products (classes), squared sum (1), outputs (classes)
    enter();
    for (int k = 0; k < classes; k++) at(argv, 2, k) = at(argv, 0, k) + at(argv, 1, 0);
    return 0;
}

const cryo_dim classes_dims[] = {{classes, 1}};
const cryo_arg row_arg = arg(CRYO_REGION_INPUT, 0, 1, weight_dims, inputs * 4);
const cryo_arg project_args[] = {row_arg, arg(CRYO_REGION_PARAMETERS, weight, 1, weight_dims, 0, inputs * 4),
                                 arg(CRYO_REGION_ARENA, 0, 1, one, 0, 4)};
const cryo_arg square_args[] = {row_arg, arg(CRYO_REGION_ARENA, sums, 1, one)};
const cryo_arg add_args[] = {arg(CRYO_REGION_ARENA, 0, 1, classes_dims), arg(CRYO_REGION_ARENA, sums, 1, one),
                             arg(CRYO_REGION_OUTPUT, 0, 1, classes_dims, classes * 4)};
const cryo_step tiles_0[] = {step(project, "2", "project k=2", project_args, classes),
                             step(square, "1", "square", square_args)};
const cryo_step tail_1[] = {step(add, "output", "add k=2", add_args)};

struct WithOne : Program {
    std::array<cryo_phase, 2> phases = {{{nullptr, 0, tiles_0, 2, nullptr, 0}, {nullptr, 0, nullptr, 0, tail_1, 1}}};
    cryo_plan one = {"infer_one", 1, phases.data(), 2, bytes_of_one, 0, -1, -1, 1, nullptr, 0, 0};
    WithOne() {
        program.infer_one = &one;
        program.infer_one_batch = max_batch;
    }
};

// Sample i's first input is i.
std::vector<float> numbered_images() {
    std::vector<float> images(max_batch * inputs);
    for (int i = 0; i < max_batch; i++)
        for (int c = 0; c < inputs; c++) images[size_t(i * inputs + c)] = float(c == 0 ? i : (7 * i + 3 * c) % 5);
    return images;
}

std::vector<float> expected(const Model &model, const std::vector<float> &images, int batch) {
    std::vector<float> weights = model.get("2.weight"), outputs;
    for (int i = 0; i < batch; i++)
        for (int k = 0; k < classes; k++) {
            float product = 0, sum = 0;
            for (int c = 0; c < inputs; c++) {
                product += weights[size_t(k * inputs + c)] * images[size_t(i * inputs + c)];
                sum += images[size_t(i * inputs + c)];
            }
            outputs.push_back(product + sum * sum);
        }
    return outputs;
}

TEST(RuntimeSamples, EveryBatchAndNumberOfThreads) {
    const std::vector<float> images = numbered_images();
    for (int threads : {1, 2, 3, 8, 64}) {
        WithOne program;
        Model model(program, threads);
        ASSERT_EQ(model.opened, CRYO_OK);
        for (int batch = 1; batch <= max_batch; batch++) {
            std::vector<float> outputs(max_batch * classes, 5.0f);
            ASSERT_EQ(cryo_infer(model, images.data(), batch, outputs.data()), CRYO_OK) << model.error();
            std::vector<float> right = expected(model, images, batch);
            right.resize(outputs.size(), 5.0f);
            EXPECT_EQ(outputs, right) << threads << " threads, batch " << batch;
        }
    }
}

TEST(RuntimeSamples, WholeRoundsAreTakenAlone) {
    const std::vector<float> images = numbered_images();
    std::vector<float> outputs(max_batch * classes);
    WithOne program;
    Model model(program, 2);
    for (int repeat = 0; repeat < 100; repeat++) {
        places_count = 0;
        ASSERT_EQ(cryo_infer(model, images.data(), 8, outputs.data()), CRYO_OK);
        ASSERT_EQ(places_count, 8 * classes);
        std::array<std::set<std::thread::id>, 8> threads;
        for (int i = 0; i < places_count; i++)
            threads[size_t(places[size_t(i)].sample)].insert(places[size_t(i)].thread);
        for (const auto &of_sample : threads) EXPECT_EQ(of_sample.size(), 1u);
    }
}

TEST(RuntimeSamples, AFailureNamesItsLayerAndTheNextCallIsRight) {
    const std::vector<float> images = numbered_images();
    for (int threads : {1, 2, 8})
        for (int sample : {0, 3, 8}) {
            WithOne program;
            Model model(program, threads);
            std::vector<float> outputs(max_batch * classes);
            fail_at = sample;
            EXPECT_EQ(cryo_infer(model, images.data(), max_batch, outputs.data()), CRYO_KERNEL_ERROR);
            EXPECT_EQ(model.error(), "layer '2', kernel 'project k=2': the kernel failed (error -9)");
            fail_at = -1;
            EXPECT_EQ(cryo_infer(model, images.data(), max_batch, outputs.data()), CRYO_OK);
            EXPECT_EQ(outputs, expected(model, images, max_batch));
        }
}

TEST(RuntimeSamples, TheFirstSampleThatIsNotFiniteIsNamed) {
    std::vector<float> images = numbered_images();
    for (int threads : {1, 2, 8}) {
        WithOne program;
        Model model(program, threads);
        std::vector<float> outputs(max_batch * classes);
        cryo_set_check_finite(model, 1);
        EXPECT_EQ(cryo_infer(model, images.data(), max_batch, outputs.data()), CRYO_OK);
        std::vector<float> large = images;
        for (int i : {5, 7}) large[size_t(i * inputs + 1)] = 3e38f; // its square is infinite
        EXPECT_EQ(cryo_infer(model, large.data(), max_batch, outputs.data()), CRYO_NOT_FINITE);
        EXPECT_EQ(model.error(), "layer '1', kernel 'square': an infinity in the result of sample 5");
    }
}

TEST(RuntimeSamples, TheProfileCountsAllThreads) {
    const std::vector<float> images = numbered_images();
    std::vector<float> outputs(max_batch * classes);
    for (int threads : {1, 2, 3}) {
        WithOne program;
        Model model(program, threads);
        cryo_set_profiling(model, 1);
        EXPECT_EQ(cryo_infer(model, images.data(), max_batch, outputs.data()), CRYO_OK);
        for (size_t i = 0; i < cryo_profile_count(model); i++) {
            cryo_profile_row row = {};
            ASSERT_EQ(cryo_profile_at(model, i, &row), CRYO_OK);
            const bool projects = std::string(row.kernel) == "project k=2", one = std::string(row.mode) == "infer_one";
            EXPECT_EQ(row.calls, !one ? 0 : projects ? max_batch * classes : max_batch) << row.kernel;
        }
        for (size_t i = 0; i < cryo_profile_phase_count(model); i++) {
            cryo_profile_phase phase = {};
            ASSERT_EQ(cryo_profile_phase_at(model, i, &phase), CRYO_OK);
            if (std::string(phase.mode) != "infer_one") continue;
            EXPECT_EQ(phase.runs, max_batch);
            EXPECT_GT(phase.seconds, 0);
        }
    }
}

} // namespace
