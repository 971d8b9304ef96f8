// Bit-identical training for any number of threads, by construction: who computes what never enters the arithmetic.
#include "fixture.h"
#include "networks.h"

#include <cstdio>
#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

constexpr int steps = 200;

uint64_t train(TestModel &model, const Batches &batches, int threads) {
    model.reopen(threads);
    model.initialize(7);
    for (int step = 0; step < steps; step++)
        model.train(batches, step % Batches::count * int64_t(Batches::size), step % 10 == 9 ? 203 : Batches::size);
    return model.hash();
}

TEST(Determinism, OneHashForAnyNumberOfThreads) {
    Batches batches;
    TestModel model(*build(lenet, {.learning_rate = 0.1, .momentum = 0.9}), {.batch = Batches::size});
    uint64_t one = train(model, batches, 1);
    uint64_t start = (model.initialize(7), model.hash());
    EXPECT_NE(one, start) << "nothing was trained";
    std::printf("    %d steps, 1 thread: %016llx\n", steps, (unsigned long long)one);
    for (int threads : {2, 3, 8, 16}) EXPECT_EQ(train(model, batches, threads), one) << threads << " threads";
}

TEST(Determinism, TwoCompilationsAreTheSameBytes) {
    auto network = build(lenet);
    CompiledModel a = compile(*network, {.batch = 64, .cache = "off"}),
                  b = compile(*build(lenet), {.batch = 64, .jobs = 1, .cache = "off"});
    ASSERT_EQ(a.objects.size(), b.objects.size());
    for (size_t i = 0; i < a.objects.size(); i++) {
        EXPECT_EQ(a.objects[i].name, b.objects[i].name);
        EXPECT_EQ(a.objects[i].bytes, b.objects[i].bytes) << a.objects[i].name;
    }
    EXPECT_EQ(a.header, b.header);
}

} // namespace
