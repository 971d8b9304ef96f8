// No step allocates, fails it or not. malloc and operator new of this program count; under a sanitizer, which has its
// own malloc, operator new alone.
#include "runtime_model.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <new>

namespace {
std::atomic<int64_t> allocations{0};
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 1
extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}
void *realloc(void *bytes, size_t size) {
    allocations++;
    return __libc_realloc(bytes, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}
}
#else
#define COUNTS_MALLOC 0
#endif

// Not inline: the compiler would take the pairs of new and free for mistakes. The form that does not throw as well: the
// address sanitizer's own is no pair for this delete.
[[gnu::noinline]] void *operator new(size_t size, const std::nothrow_t &) noexcept {
    allocations++;
    return std::malloc(size ? size : 1);
}
[[gnu::noinline]] void *operator new(size_t size) {
    if (void *bytes = operator new(size, std::nothrow)) return bytes;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void *bytes) noexcept { std::free(bytes); }
[[gnu::noinline]] void operator delete(void *bytes, size_t) noexcept { std::free(bytes); }

using namespace tiny;

TEST(RuntimeAllocation, TheCountersCount) {
    int64_t before = allocations;
    ::operator delete(::operator new(sizeof(int)));
    EXPECT_GE(allocations - before, 1);
    before = allocations;
    void *volatile bytes = std::malloc(10);
    std::free(bytes);
    EXPECT_EQ(allocations - before, COUNTS_MALLOC);
}

TEST(RuntimeAllocation, NoStepAllocates) {
    for (int threads : {1, 3}) {
        Program program;
        Model model(program, threads);
        cryo_context *context = nullptr;
        ASSERT_EQ(cryo_context_open(model, &context), CRYO_OK);
        Batch batch(max_batch);
        std::vector<float> outputs(max_batch * classes);
        const float *images = batch.images.data();
        const int32_t *labels = batch.labels.data();
        cryo_result result;
        int failures = 0;
        int64_t before = allocations;
        for (int i = 0; i < 50; i++) { // from the very first step on
            int size = 2 + i % 8;
            if (i == 25) cryo_set_profiling(model, 1);
            if (i == 35) { // which allocates the copy that refused steps go back to
                const int64_t until = allocations;
                cryo_set_check_finite(model, 1);
                before += allocations - until;
            }
            failures += cryo_train_step(model, images, labels, size, &result) != CRYO_OK;
            failures += cryo_evaluate(model, images, labels, size, &result) != CRYO_OK;
            failures += cryo_infer(model, images, size, outputs.data()) != CRYO_OK;
            failures += cryo_context_infer(context, images, size, outputs.data()) != CRYO_OK;
        }
        EXPECT_EQ(allocations - before, 0);
        EXPECT_EQ(failures, 0);
        before = allocations;
        fail_block = 0;
        for (int i = 0; i < 5; i++) {
            failures += cryo_train_step(model, images, labels, max_batch, &result) != CRYO_OK;
            failures += cryo_infer(model, images, 0, outputs.data()) != CRYO_OK;
        }
        fail_block = -1;
        EXPECT_EQ(allocations - before, 0) << "a failure allocates";
        EXPECT_EQ(failures, 10);
        cryo_context_close(context);
    }
}
