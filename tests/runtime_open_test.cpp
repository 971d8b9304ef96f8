// Opening models, arguments of every call, parameters, initial values: each status and its text.
#include "cryolite_runtime.hpp"
#include "runtime_model.h"

#include <HalideRuntime.h>
#include <gtest/gtest.h>

using namespace tiny;

// The runtime has no Halide header: the two must lie alike.
static_assert(sizeof(cryo_buffer) == sizeof(halide_buffer_t));
static_assert(offsetof(cryo_buffer, device) == offsetof(halide_buffer_t, device));
static_assert(offsetof(cryo_buffer, device_interface) == offsetof(halide_buffer_t, device_interface));
static_assert(offsetof(cryo_buffer, host) == offsetof(halide_buffer_t, host));
static_assert(offsetof(cryo_buffer, flags) == offsetof(halide_buffer_t, flags));
static_assert(offsetof(cryo_buffer, type) == offsetof(halide_buffer_t, type));
static_assert(offsetof(cryo_buffer, dimensions) == offsetof(halide_buffer_t, dimensions));
static_assert(offsetof(cryo_buffer, dim) == offsetof(halide_buffer_t, dim));
static_assert(offsetof(cryo_buffer, padding) == offsetof(halide_buffer_t, padding));
static_assert(sizeof(cryo_buffer::type) == sizeof(halide_type_t));
static_assert(sizeof(cryo_halide_dim) == sizeof(halide_dimension_t));
static_assert(offsetof(cryo_halide_dim, min) == offsetof(halide_dimension_t, min));
static_assert(offsetof(cryo_halide_dim, extent) == offsetof(halide_dimension_t, extent));
static_assert(offsetof(cryo_halide_dim, stride) == offsetof(halide_dimension_t, stride));
static_assert(offsetof(cryo_halide_dim, flags) == offsetof(halide_dimension_t, flags));
static_assert(halide_type_int == 0 && halide_type_float == 2); // what the executor writes

namespace {

void expect_open(const cryo_program *program, const cryo_options *options, cryo_status status, const char *text) {
    cryo_model *model = reinterpret_cast<cryo_model *>(1);
    EXPECT_EQ(cryo_open(program, options, &model), status) << text;
    EXPECT_EQ(model, nullptr);
    EXPECT_STREQ(cryo_open_error(), text);
}

// A kernel that looks at its arguments the way Halide's own code does.
int check_buffers(void **argv) { // label (V), output (classes, V)
    auto *label = static_cast<halide_buffer_t *>(argv[0]), *output = static_cast<halide_buffer_t *>(argv[1]);
    bool good = label->type == halide_type_of<int32_t>() && output->type == halide_type_of<float>() &&
                label->dimensions == 1 && output->dimensions == 2 && label->dim[0].extent == lanes &&
                output->dim[1].stride == classes && output->dim[1].min == 0 && !output->device && !output->flags &&
                output->number_of_elements() == lanes * classes && label->size_in_bytes() == lanes * 4;
    return good ? 0 : -1;
}

} // namespace

TEST(RuntimeOpen, KernelsGetHalidesBuffers) {
    const cryo_dim dims[] = {{classes, 1}, {lanes, classes}};
    const cryo_arg args[] = {label_arg, arg(CRYO_REGION_ARENA, 0, 2, dims)};
    const cryo_step steps[] = {step(check_buffers, "check", "check_buffers", args)};
    Program program;
    program.train_phases[0] = {steps, 1, nullptr, 0, nullptr, 0};
    program.train.phase_count = 1;
    Model model(program);
    Batch batch(4);
    EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), 4, nullptr), CRYO_OK) << model.error();
}

TEST(RuntimeOpen, Statuses) {
    EXPECT_STREQ(cryo_status_text(CRYO_OK), "ok");
    for (int status = CRYO_OK; status <= CRYO_KERNEL_ERROR; status++)
        EXPECT_STRNE(cryo_status_text(cryo_status(status)), "unknown status");
    EXPECT_STREQ(cryo_status_text(cryo_status(99)), "unknown status");
}

TEST(RuntimeOpen, NullPointersAndVersions) {
    Program program;
    EXPECT_EQ(cryo_open(&program.program, nullptr, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_STREQ(cryo_open_error(), "model is null");
    expect_open(nullptr, nullptr, CRYO_BAD_ARGUMENT, "program is null");
    program.program.version = CRYO_PLAN_VERSION + 1;
    program.program.name = reinterpret_cast<const char *>(8); // must not be read
    expect_open(&program.program, nullptr, CRYO_BAD_PROGRAM,
                "the program has version 9, this runtime reads version 8: compile again");
    EXPECT_EQ(cryo_arena_bytes(&program.program, 1), 0u);
    EXPECT_EQ(cryo_arena_bytes(nullptr, 1), 0u);
}

TEST(RuntimeOpen, OptionsAreChecked) {
    Program program;
    alignas(64) static uint8_t arena[1 << 16];
    size_t needed = cryo_arena_bytes(&program.program, 2);
    ASSERT_LT(needed, sizeof arena - 64);
    cryo_options options = {-1, nullptr, 0, nullptr, nullptr};
    expect_open(&program.program, &options, CRYO_BAD_ARGUMENT, "threads is -1: expected 0 to 1024");
    options.threads = 1025;
    expect_open(&program.program, &options, CRYO_BAD_ARGUMENT, "threads is 1025: expected 0 to 1024");
    options = {2, arena + 4, sizeof arena - 64, nullptr, nullptr};
    expect_open(&program.program, &options, CRYO_BAD_ARGUMENT, "the arena is not aligned to 64 bytes");
    options = {2, arena, needed - 1, nullptr, nullptr};
    expect_open(&program.program, &options, CRYO_BAD_ARGUMENT,
                ("the arena has " + std::to_string(needed - 1) + " bytes, model 'tiny' with 2 threads needs " +
                 std::to_string(needed))
                    .c_str());
    options.arena_bytes = needed;
    cryo_model *model = nullptr;
    ASSERT_EQ(cryo_open(&program.program, &options, &model), CRYO_OK);
    EXPECT_EQ(cryo_memory_bytes(model), needed);
    cryo_close(model);
    EXPECT_GT(cryo_arena_bytes(&program.program, 0), 0u);
    EXPECT_EQ(cryo_arena_bytes(&program.program, 3) - needed, size_t(scratch_bytes));
}

// Sanitizers end the program where malloc would return null, unless told otherwise.
extern "C" const char *__asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char *__tsan_default_options() { return "allocator_may_return_null=1"; }

TEST(RuntimeOpen, MemoryThatCannotBeHad) {
    Program program;
    program.train.arena_bytes = int64_t(1) << 40;
    program.train.scratch_bytes = int64_t(1) << 40;
    cryo_options options = {1024, nullptr, 0, nullptr, nullptr}; // 2^50 bytes and more
    cryo_model *model = nullptr;
    EXPECT_EQ(cryo_open(&program.program, &options, &model), CRYO_OUT_OF_MEMORY);
    EXPECT_EQ(std::string(cryo_open_error()).substr(0, 18), "no memory for the ");
}

TEST(RuntimeOpen, DamagedProgramsAreFoundAtOpen) {
    auto open = [](auto change) {
        Program program;
        change(program);
        cryo_model *model = nullptr;
        cryo_status status = cryo_open(&program.program, nullptr, &model);
        cryo_close(model);
        return status;
    };
    EXPECT_EQ(open([](Program &) {}), CRYO_OK);
    EXPECT_EQ(open([](Program &p) { p.program.lanes = 0; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.program.max_batch = 0; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.program.parameter_bytes = 100; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.program.rate = 9; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.program.rate = CRYO_RATE_STEP; }), CRYO_BAD_PROGRAM) << "period 0";
    EXPECT_EQ(open([](Program &p) { p.parameters[2].offset = 192; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.parameters[0].elements = 5; }), CRYO_BAD_PROGRAM) << "shape has 6";
    EXPECT_EQ(open([](Program &p) { p.parameters[0].elements = INT64_MAX; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.train.loss_offset = arena_bytes; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.infer.scratch_bytes = 0; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.train.phase_count = -1; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) { p.train.strip_tasks = 2; }), CRYO_BAD_PROGRAM);
    EXPECT_EQ(open([](Program &p) {
                  static cryo_step steps[1] = {infer_0[0]};
                  steps[0].kernel = nullptr;
                  p.infer_phase = {steps, 1, nullptr, 0, nullptr, 0};
              }),
              CRYO_BAD_PROGRAM);
    for (int64_t together : {int64_t(0), int64_t(4), INT64_MAX}) // of three steps
        EXPECT_EQ(open([&](Program &p) {
                      static cryo_step steps[] = {infer_0[0], infer_0[1], infer_0[2]};
                      steps[0].joined_steps = together;
                      p.infer_phase = {steps, 3, nullptr, 0, nullptr, 0};
                  }),
                  CRYO_BAD_PROGRAM)
            << together;
    EXPECT_EQ(open([](Program &p) {
                  static cryo_step steps[] = {infer_0[0], infer_0[1], infer_0[2]};
                  steps[0].joined_steps = steps[0].tiles = 2;
                  p.infer_phase = {steps, 3, nullptr, 0, nullptr, 0};
              }),
              CRYO_BAD_PROGRAM)
        << "two strips and one";
}

TEST(RuntimeOpen, CallsNameWhatIsWrong) {
    Program program;
    Model model(program);
    Batch batch(max_batch);
    std::vector<float> outputs(max_batch * classes);
    float *images = batch.images.data();
    int32_t *labels = batch.labels.data();
    auto train = [&](const float *x, const int32_t *y, int64_t n) { return cryo_train_step(model, x, y, n, nullptr); };
    EXPECT_EQ(cryo_train_step(nullptr, images, labels, 4, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_STREQ(cryo_error(nullptr), "model is null");
    EXPECT_EQ(train(nullptr, labels, 4), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "images is null");
    EXPECT_EQ(train(images, nullptr, 4), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "labels is null");
    EXPECT_EQ(cryo_infer(model, images, 4, nullptr), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "outputs is null");
    for (int64_t size : {int64_t(0), int64_t(-3), int64_t(10), INT64_MAX}) {
        EXPECT_EQ(train(images, labels, size), CRYO_BAD_ARGUMENT);
        EXPECT_EQ(model.error(), "batch of " + std::to_string(size) + ": expected 1 to 9");
        EXPECT_EQ(cryo_infer(model, images, size, outputs.data()), CRYO_BAD_ARGUMENT);
    }
    EXPECT_EQ(train(images, labels, 1), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "batch of 1: layer '1' needs at least 2 values per channel in train mode");
    EXPECT_EQ(cryo_evaluate(model, images, labels, 1, nullptr), CRYO_OK) << "other modes take one sample";
    uint64_t before = model.hash();
    for (int32_t label : {2, -1, INT32_MAX, INT32_MIN}) {
        batch.labels[8] = label;
        EXPECT_EQ(train(images, labels, 9), CRYO_BAD_ARGUMENT);
        EXPECT_EQ(model.error(), "label 8 is " + std::to_string(label) + ": expected 0 to 1");
        EXPECT_EQ(cryo_evaluate(model, images, labels, 9, nullptr), CRYO_BAD_ARGUMENT);
        EXPECT_EQ(train(images, labels, 8), CRYO_OK) << "only the batch's labels count";
        ASSERT_NE(model.hash(), before);
        before = model.hash();
    }
}

TEST(RuntimeOpen, MissingPlans) {
    Program program;
    program.program.train = program.program.evaluate = program.program.infer = nullptr;
    Model model(program);
    Batch batch(4);
    std::vector<float> outputs(8);
    cryo_context *context = nullptr;
    EXPECT_EQ(cryo_train_step(model, batch.images.data(), batch.labels.data(), 4, nullptr), CRYO_BAD_PROGRAM);
    EXPECT_EQ(model.error(), "model 'tiny' was compiled without the train plan");
    EXPECT_EQ(cryo_evaluate(model, batch.images.data(), batch.labels.data(), 4, nullptr), CRYO_BAD_PROGRAM);
    EXPECT_EQ(model.error(), "model 'tiny' was compiled without the evaluate plan");
    EXPECT_EQ(cryo_infer(model, batch.images.data(), 4, outputs.data()), CRYO_BAD_PROGRAM);
    EXPECT_EQ(model.error(), "model 'tiny' was compiled without the infer plan");
    EXPECT_EQ(cryo_context_open(model, &context), CRYO_BAD_PROGRAM);
    EXPECT_EQ(cryo_profile_count(model), 0u);
}

TEST(RuntimeOpen, ParametersByName) {
    Program program;
    Model model(program);
    std::vector<float> six = {1, 2, 3, 4, 5, 6};
    EXPECT_EQ(cryo_set_parameter(model, "2.weight", six.data(), 6), CRYO_OK);
    EXPECT_EQ(model.get("2.weight"), six);
    EXPECT_EQ(cryo_set_parameter(model, "2.weight", six.data(), 5), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "parameter '2.weight' has 6 elements, not 5");
    EXPECT_EQ(cryo_get_parameter(model, "2.wei\nght", six.data(), 6), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(model.error(), "model 'tiny' has no parameter '2.wei?ght'");
    EXPECT_EQ(cryo_get_parameter(model, nullptr, six.data(), 6), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_set_parameter(model, "2.weight", nullptr, 6), CRYO_BAD_ARGUMENT);
    cryo_parameter_info info;
    EXPECT_EQ(cryo_parameter_at(model, 3, &info), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(cryo_parameter_at(model, 0, nullptr), CRYO_BAD_ARGUMENT);
    ASSERT_EQ(cryo_parameter_at(model, 1, &info), CRYO_OK);
    EXPECT_STREQ(info.name, "1.total");
    EXPECT_EQ(info.role, CRYO_ROLE_STATE);
    EXPECT_EQ(info.elements, 3u);
    EXPECT_EQ(info.shape[0], 3);
}

TEST(RuntimeOpen, InitialValuesAreAFunctionOfTheSeed) {
    const int64_t shape[] = {100000};
    Program program;
    program.parameters[0] = {"2.weight", 0, 0, 6, 2, weight_shape, CRYO_INIT_UNIFORM, 0.5};
    program.parameters[1] = {"uniform", 0, 192, 100000, 1, shape, CRYO_INIT_UNIFORM, 0.25};
    program.parameters[2] = {"normal", 0, 400192, 100000, 1, shape, CRYO_INIT_NORMAL, 2};
    program.program.parameter_bytes = 800256;
    Model a(program), b(program);
    std::vector<float> uniform = a.get("uniform"), normal = a.get("normal");
    EXPECT_EQ(uniform, b.get("uniform"));
    EXPECT_EQ(normal, b.get("normal"));
    cryo_initialize(b, 8);
    EXPECT_NE(uniform, b.get("uniform"));
    auto moments = [](const std::vector<float> &values) {
        double sum = 0, squares = 0;
        for (float v : values) {
            sum += double(v);
            squares += double(v) * double(v);
        }
        return std::pair(sum / double(values.size()), squares / double(values.size()));
    };
    EXPECT_NEAR(moments(uniform).first, 0, 0.002);
    EXPECT_NEAR(moments(uniform).second, 0.0625 / 3, 0.0005);
    EXPECT_LT(*std::max_element(uniform.begin(), uniform.end()), 0.25f);
    EXPECT_GE(*std::min_element(uniform.begin(), uniform.end()), -0.25f);
    EXPECT_NEAR(moments(normal).first, 0, 0.03);
    EXPECT_NEAR(moments(normal).second, 4, 0.08);
    // The same bits on every machine: these are another program's, with another logarithm and cosine.
    EXPECT_EQ(a.get("2.weight")[0], 0x1.d181e80000000p-2f);
    EXPECT_EQ(normal[0], -0x1.18ea0c0000000p-1f);
    EXPECT_EQ(normal[99999], 0x1.cde81e0000000p-3f);
}

TEST(RuntimeOpen, TheWrapperThrowsAndMoves) {
    Program program;
    cryolite::Model model(program.program, {2, nullptr, 0, nullptr, nullptr});
    model.initialize(3);
    Batch batch(6);
    double loss = model.train_step(batch.images.data(), batch.labels.data(), 6).loss;
    EXPECT_GT(loss, 0);
    cryolite::Model moved = std::move(model);
    EXPECT_EQ(moved.steps(), 1);
    EXPECT_EQ(moved.parameters().size(), 3u);
    EXPECT_EQ(moved.parameter("2.weight").size(), 6u);
    moved.set_parameter("1.total", {1, 2, 3});
    EXPECT_EQ(moved.parameter("1.total")[2], 3.0f);
    std::vector<float> a(12), b(12);
    moved.infer(batch.images.data(), 6, a.data());
    cryolite::Context context = moved.context();
    context.infer(batch.images.data(), 6, b.data());
    EXPECT_EQ(a, b);
    auto status_of = [](auto call) {
        try {
            call();
        } catch (const cryolite::Error &error) {
            EXPECT_STRNE(error.what(), "");
            return error.status();
        }
        return CRYO_OK;
    };
    EXPECT_EQ(status_of([&] { model.initialize(1); }), CRYO_BAD_ARGUMENT) << "moved from";
    EXPECT_EQ(status_of([&] { moved.train_step(batch.images.data(), batch.labels.data(), 0); }), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(status_of([&] { moved.set_parameter("1.total", {}); }), CRYO_BAD_ARGUMENT);
    EXPECT_EQ(status_of([&] { moved.load("missing/file"); }), CRYO_IO_ERROR);
    EXPECT_EQ(status_of([&] { context.infer(nullptr, 6, b.data()); }), CRYO_BAD_ARGUMENT);
    program.program.version = 0;
    EXPECT_EQ(status_of([&] { cryolite::Model other(program.program); }), CRYO_BAD_PROGRAM);
}
