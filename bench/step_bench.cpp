// Steps of whole networks: train at batch 256, infer at 256 and 1, with 1 and 2 threads.
//   step_bench --benchmark_filter=lenet/train
// Beside Google Benchmark's mean, ms_median and ms_min are of single steps, as the peers report them. check_finite is
// what cryo_set_check_finite adds to a train step: steps with and without it take turns.
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

template <class F> double milliseconds(F f) {
    auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> &times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

void run(benchmark::State &state, const std::string &net, bool train) {
    int64_t batch = state.range(0);
    BenchModel &subject = model(net, int(state.range(1)));
    auto step = [&] { train ? subject.train(batch) : subject.infer(batch); };
    for (int i = 0; i < 20; i++) step();
    std::vector<double> times;
    for (auto _ : state) times.push_back(milliseconds(step));
    state.counters["ms_median"] = median(times);
    state.counters["ms_min"] = times[0];
    state.counters["images_per_s"] = double(batch) / median(times) * 1e3;
}

void run_check_finite(benchmark::State &state, const std::string &net) {
    int64_t batch = state.range(0);
    BenchModel &subject = model(net, int(state.range(1)));
    std::vector<double> times[2];
    auto both = [&] {
        for (int on : {0, 1}) {
            cryo_set_check_finite(subject.get(), on);
            times[on].push_back(milliseconds([&] { subject.train(batch); }));
        }
    };
    for (int i = 0; i < 20; i++) both();
    for (auto _ : state) both();
    cryo_set_check_finite(subject.get(), 0);
    state.counters["ms_off"] = median(times[0]);
    state.counters["ms_on"] = median(times[1]);
    state.counters["on/off"] = median(times[1]) / median(times[0]);
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

void add_check_finite(const std::string &net) {
    benchmark::RegisterBenchmark((net + "/check_finite").c_str(),
                                 [=](benchmark::State &state) { run_check_finite(state, net); })
        ->ArgNames({"batch", "threads"})
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond)
        ->Args({256, 1})
        ->Args({256, 2});
}

} // namespace

int main(int argc, char **argv) {
    for (const char *net : {"lenet", "lenet_scratch", "mlp"})
        for (bool train : {true, false}) add(net, train);
    for (const char *net : {"lenet", "mlp"}) add_check_finite(net);
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
