// Steps of whole networks: train at batch 256, infer at 256 and 1, with 1 and 2 threads.
//   step_bench --benchmark_filter=lenet/train
// Beside Google Benchmark's mean, ms_median and ms_min are of single steps, as the peers report them.
#include "bench_model.h"

#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <map>
#include <memory>

namespace {

using cryolite::bench::BenchModel;

// Compiled when first asked for, so that a filtered run compiles only what it needs.
BenchModel &model(const std::string &net, int threads) {
    static std::map<std::pair<std::string, int>, std::unique_ptr<BenchModel>> models;
    std::unique_ptr<BenchModel> &entry = models[{net, threads}];
    if (!entry) entry = std::make_unique<BenchModel>(net, threads);
    return *entry;
}

void run(benchmark::State &state, const std::string &net, bool train) {
    int64_t batch = state.range(0);
    BenchModel &subject = model(net, int(state.range(1)));
    auto step = [&] { train ? subject.train(batch) : subject.infer(batch); };
    for (int i = 0; i < 20; i++) step();
    std::vector<double> times;
    for (auto _ : state) {
        auto start = std::chrono::steady_clock::now();
        step();
        times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(times.begin(), times.end());
    state.counters["ms_median"] = times[times.size() / 2];
    state.counters["ms_min"] = times[0];
    state.counters["images_per_s"] = double(batch) / times[times.size() / 2] * 1e3;
}

void add(const std::string &net, bool train) {
    auto *entry = benchmark::RegisterBenchmark((net + (train ? "/train" : "/infer")).c_str(),
                                               [=](benchmark::State &state) { run(state, net, train); });
    entry->ArgNames({"batch", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
    for (int64_t threads : {1, 2}) {
        entry->Args({256, threads});
        if (!train) entry->Args({1, threads});
    }
}

} // namespace

int main(int argc, char **argv) {
    for (const char *net : {"lenet", "lenet_scratch", "mlp"})
        for (bool train : {true, false}) add(net, train);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    try {
        benchmark::RunSpecifiedBenchmarks();
    } catch (const std::exception &error) {
        fprintf(stderr, "step_bench: %s\n", error.what());
        return 1;
    }
    benchmark::Shutdown();
    return 0;
}
