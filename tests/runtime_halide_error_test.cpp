// Checked kernels report through Halide's error handler; here its runtime is a stand-in with the same entry point.
#include "runtime_model.h"

#include <gtest/gtest.h>

using Handler = void (*)(void *, const char *);

namespace {

int default_calls = 0;
void default_handler(void *, const char *) { default_calls++; } // Halide's own prints and aborts
Handler handler = default_handler;

} // namespace

extern "C" Handler halide_set_error_handler(Handler next) {
    Handler before = handler;
    handler = next;
    return before;
}

using namespace tiny;

namespace {

// Violates a bound in its third block, the way a checked kernel does.
int checked(void **argv) { // block
    if (scalar(argv, 0) != 2) return 0;
    handler(nullptr, "Output buffer y is accessed at 4, which is beyond the max (3) in dimension 0\n");
    handler(nullptr, "a consequence");
    return -4; // halide_error_code_access_out_of_bounds
}
const cryo_arg checked_args[] = {block_arg};
const cryo_step checked_steps[] = {step(checked, "3.conv", "conv2d c=1", checked_args)};

int silent(void **) { return -1; }
const cryo_step silent_steps[] = {step(silent, "4", "pool", checked_args)};

} // namespace

TEST(RuntimeHalideError, TheTextIsHalides) {
    for (int threads : {1, 4}) {
        Program program;
        program.train_phases[0] = {checked_steps, 1, nullptr, 0, nullptr, 0};
        Model model(program, threads);
        ASSERT_EQ(model.opened, CRYO_OK);
        Batch batch(max_batch);
        const float *images = batch.images.data();
        const int32_t *labels = batch.labels.data();
        for (int i = 0; i < 3; i++) {
            EXPECT_EQ(cryo_train_step(model, images, labels, max_batch, nullptr), CRYO_KERNEL_ERROR);
            EXPECT_EQ(model.error(), "layer '3.conv', kernel 'conv2d c=1': Output buffer y is accessed at 4, which is "
                                     "beyond the max (3) in dimension 0 (error -4)");
        }
        EXPECT_EQ(cryo_train_step(model, images, labels, 8, nullptr), CRYO_OK);
        program.train_phases[0] = {silent_steps, 1, nullptr, 0, nullptr, 0};
        Model other(program, threads);
        EXPECT_EQ(cryo_train_step(other, images, labels, max_batch, nullptr), CRYO_KERNEL_ERROR);
        EXPECT_EQ(other.error(), "layer '4', kernel 'pool': the kernel failed (error -1)") << "an old text";
    }
    EXPECT_EQ(default_calls, 0);
    handler(nullptr, "from elsewhere in the program");
    EXPECT_EQ(default_calls, 1) << "errors that are not of a step go where they went before";
}
