// Where the time of a step goes: every kernel's GFLOP/s, and its share of the FMA peak measured in the same run.
//   kernel_table [--json] [net ...]      nets: lenet, lenet_scratch, mlp
// One thread: sums over threads would hide waiting.
#include "bench_model.h"
#include "peak.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

using cryolite::bench::BenchModel;

namespace {

constexpr int steps = 200;

struct Table {
    std::vector<cryo_profile_row> rows;
    double wall = 0; // of a step, in seconds
};

Table measure(BenchModel &model, bool train) {
    auto step = [&] { train ? model.train(256) : model.infer(256); };
    for (int i = 0; i < 50; i++) step();
    cryo_set_profiling(model.get(), 1);
    auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; i++) step();
    Table table;
    table.wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / steps;
    for (size_t i = 0; i < cryo_profile_count(model.get()); i++) {
        cryo_profile_row row;
        if (cryo_profile_at(model.get(), i, &row) == CRYO_OK && row.calls > 0) table.rows.push_back(row);
    }
    cryo_set_profiling(model.get(), 0);
    return table;
}

double gflops(const cryo_profile_row &row) { return row.seconds > 0 ? row.flops / row.seconds * 1e-9 : 0; }

void print(const std::string &title, const Table &table, double peak) {
    double sum = 0;
    for (const cryo_profile_row &row : table.rows) sum += row.seconds / steps;
    fmt::print("### {}: {:.3f} ms a step, kernels {:.3f} ms, one thread\n\n", title, table.wall * 1e3, sum * 1e3);
    fmt::print("| phase | layer | kernel | us a step | share | GFLOP/s | of peak | GB/s |\n"
               "|---:|---|---|---:|---:|---:|---:|---:|\n");
    for (const cryo_profile_row &row : table.rows) {
        std::string kernel = row.kernel;
        if (kernel.size() > 70) kernel = kernel.substr(0, 67) + "...";
        std::string rate, share;
        if (row.flops > 0) rate = fmt::format("{:.1f}", gflops(row));
        if (row.flops > 0 && peak > 0) share = fmt::format("{:.0f}%", 100 * gflops(row) / peak);
        fmt::print("| {} | {} | `{}` | {:.1f} | {:.0f}% | {} | {} | {:.1f} |\n", row.phase, row.name, kernel,
                   row.seconds / steps * 1e6, 100 * row.seconds / steps / sum, rate, share,
                   row.bytes / row.seconds * 1e-9);
    }
    fmt::print("\n");
}

nlohmann::json to_json(const std::string &net, const char *mode, const Table &table, double peak) {
    nlohmann::json rows = nlohmann::json::array();
    for (const cryo_profile_row &row : table.rows)
        rows.push_back({{"phase", row.phase},
                        {"layer", row.name},
                        {"kernel", row.kernel},
                        {"us_per_step", row.seconds / steps * 1e6},
                        {"gflops", gflops(row)},
                        {"of_peak", peak > 0 ? gflops(row) / peak : 0},
                        {"gbytes_per_s", row.bytes / row.seconds * 1e-9}});
    return {{"net", net}, {"mode", mode}, {"ms_wall", table.wall * 1e3}, {"fma_peak_gflops", peak}, {"kernels", rows}};
}

int run(int argc, char **argv) {
    bool json = false;
    std::vector<std::string> nets;
    for (int i = 1; i < argc; i++) {
        if (!std::strcmp(argv[i], "--json"))
            json = true;
        else
            nets.push_back(argv[i]);
    }
    if (nets.empty()) nets = {"lenet", "mlp"};
    nlohmann::json all = nlohmann::json::array();
    for (const std::string &net : nets) {
        BenchModel model(net, 1);
        for (bool train : {true, false}) {
            double peak = cryolite::bench::fma_peak();
            Table table = measure(model, train);
            peak = std::max(peak, cryolite::bench::fma_peak());
            const char *mode = train ? "train" : "infer";
            if (json)
                all.push_back(to_json(net, mode, table, peak));
            else
                print(fmt::format("{} {}, batch 256 (FMA peak {:.1f} GFLOP/s)", net, mode, peak), table, peak);
        }
    }
    if (json) std::printf("%s\n", all.dump(1).c_str());
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kernel_table: %s\n", error.what());
        return 1;
    }
}
