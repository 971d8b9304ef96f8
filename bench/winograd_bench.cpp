// Winograd convolutions beside direct ones, on one core: what the choice between them rests on.
//   winograd_bench [ROW...]    speed: least thread CPU time of one block, taking turns, beside the FMA peak;
//                              a row is c,k,size,r,padding,m, as 64,64,32,3,1,4, then ,1 where tiles spread; without,
//                              some of each kind
//   winograd_bench --errors    generators/schedules/winograd_error.inc

#include "codegen.h"
#include "generators/winograd.h"
#include "jit.h"
#include "tools/machine.h"

#include <HalideRuntime.h>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>

using namespace cryolite;

namespace {

// A dense float32 buffer; a window of its dimension `d` may be taken.
struct Buffer {
    std::vector<halide_dimension_t> dims;
    std::vector<float> data;
    halide_buffer_t buffer = {};

    explicit Buffer(const std::vector<int> &extents, unsigned seed = 0) {
        size_t size = 1;
        for (int extent : extents) {
            dims.push_back({0, extent, int(size)});
            size *= size_t(extent);
        }
        data.assign(size + 16, 0);
        std::mt19937 random(seed);
        if (seed)
            for (float &x : data) x = float(random()) / 2147483648.f - 1;
        buffer.type = halide_type_of<float>();
        buffer.dimensions = int(dims.size());
        whole();
    }
    void whole() {
        buffer.host = reinterpret_cast<uint8_t *>((uintptr_t(data.data()) + 63) / 64 * 64);
        buffer.dim = dims.data();
    }
    float *begin() { return reinterpret_cast<float *>((uintptr_t(data.data()) + 63) / 64 * 64); }
    halide_buffer_t *window(int d, int first, int extent) {
        window_dims = dims;
        part = buffer;
        part.dim = window_dims.data();
        return narrow(d, first, extent);
    }
    halide_buffer_t *narrow(int d, int first, int extent) { // the last window
        window_dims[size_t(d)].extent = extent;
        part.host += 4L * first * dims[size_t(d)].stride;
        return &part;
    }
    halide_buffer_t part = {};
    std::vector<halide_dimension_t> window_dims;
};

struct Loaded {
    std::unique_ptr<LinkedObjects> objects;
    int (*call)(void **);
    Loaded(const std::string &generator, std::map<std::string, std::string> parameters, const KernelTarget &target) {
        const KernelSpec spec{generator, std::move(parameters)};
        int cached = 0;
        CompileOptions options;
        options.cache = "off";
        options.jobs = 1;
        objects =
            std::make_unique<LinkedObjects>(compile_kernels({spec}, target, options, cached), target.name, "bench");
        call = objects->lookup<int (*)(void **)>(kernel_symbol(spec, target) + "_argv");
    }
};

double cpu_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}
template <class F> double least(F f) {
    double best = 1e9;
    for (int i = 0; i < 6; i++) {
        const double start = cpu_seconds();
        f();
        best = std::min(best, cpu_seconds() - start);
    }
    return best;
}

// One convolution, its kernels and values.
struct Trial {
    WinogradConv q;
    int blocks;
    WinogradConv task;
    WinogradConv::Schedule s;
    Loaded direct, weight, winograd, direct_grad, winograd_grad;
    Buffer x, w, dy, y, u, scratch, y2, dw, dw2, grad_scratch;

    static std::map<std::string, std::string> parameters(const WinogradConv &q, bool direct) {
        auto text = [](int i) { return std::to_string(i); };
        std::map<std::string, std::string> p = {{"c", text(q.c)},        {"h", text(q.h)}, {"w", text(q.w)},
                                                {"k", text(q.k)},        {"r", text(q.r)}, {"padding", text(q.padding)},
                                                {"lanes", text(q.lanes)}};
        if (direct)
            p["s"] = text(q.r), p["stride"] = "1";
        else
            p["m"] = text(q.m), p["spread"] = q.spread ? "true" : "false";
        return p;
    }
    static std::map<std::string, std::string> grad_parameters(const WinogradConv &task) {
        auto p = parameters(task, false);
        p.erase("spread");
        return p;
    }
    static std::map<std::string, std::string> with(std::map<std::string, std::string> p,
                                                   const std::map<std::string, std::string> &more) {
        p.insert(more.begin(), more.end());
        return p;
    }
    Trial(const WinogradConv &q, int blocks, const KernelTarget &target)
        : q(q), blocks(blocks), task(winograd_grad_weight_task(q)), s(q.schedule()),
          direct("conv2d", parameters(q, true), target), weight("winograd_weight",
                                                                {{"c", std::to_string(q.c)},
                                                                 {"k", std::to_string(q.k)},
                                                                 {"r", std::to_string(q.r)},
                                                                 {"m", std::to_string(q.m)},
                                                                 {"lanes", std::to_string(q.lanes)},
                                                                 {"tile_k", std::to_string(s.tile_k)},
                                                                 {"u_c", std::to_string(s.u_c)},
                                                                 {"channel_tiles", std::to_string(s.channel_tiles)},
                                                                 {"channel_blocks", std::to_string(s.channel_blocks)}},
                                                                target),
          winograd("conv2d_winograd", parameters(q, false), target),
          direct_grad("conv2d_grad_weight", parameters(q, true), target),
          winograd_grad("conv2d_winograd_grad_weight", with(grad_parameters(task), {{"weight_c", std::to_string(q.c)}}),
                        target),
          x({q.lanes, q.w, q.h, q.c, blocks}, 1), w({q.r, q.r, q.c, q.k}, 2),
          dy({q.lanes, q.wo(), q.ho(), q.k, blocks}, 3), y({q.lanes, q.wo(), q.ho(), q.k, 1}),
          u({s.tile_k * s.u_c, s.channel_tiles, q.points(), s.channel_blocks}), scratch({int(q.scratch_elements())}),
          y2({q.lanes, q.wo(), q.ho(), q.k, 1}), dw({q.r, q.r, q.c, q.k}), dw2({q.r, q.r, q.c, q.k}),
          grad_scratch({int(winograd_grad_weight(task).scratch_elements)}) {}

    template <class... A> static void run(const Loaded &kernel, A *...arguments) {
        void *argv[] = {arguments...};
        kernel.call(argv);
    }
    void transform_weight() { run(weight, &w.buffer, &u.buffer); }
    void forward(bool by_winograd) {
        if (by_winograd)
            run(winograd, x.window(4, 0, 1), &u.buffer, &scratch.buffer, &y2.buffer);
        else
            run(direct, x.window(4, 0, 1), &w.buffer, &y.buffer);
    }
    // Direct: the sum of one block only, `blocks` times; so are its figures.
    void grad(bool by_winograd) {
        int batch = blocks * q.lanes;
        if (!by_winograd)
            for (int b = 0; b < blocks; b++) run(direct_grad, x.window(4, b, 1), dy.window(4, b, 1), &dw.buffer);
        else
            for (int k = 0; k < q.k; k += task.k)
                for (int c = 0; c < q.c; c += task.c) {
                    dw2.window(3, k, task.k);
                    run(winograd_grad, &batch, x.window(3, c, task.c), dy.window(3, k, task.k), &grad_scratch.buffer,
                        dw2.narrow(2, c, task.c));
                }
    }
    double flops() const { return 2.0 * q.lanes * q.c * q.k * q.ho() * q.wo() * q.r * q.r; }
};

struct Row {
    int c, k, size, r, padding, m, spread = 0;
};
Row parse(const char *text) {
    Row row;
    char rest;
    const int read = std::sscanf(text, "%d,%d,%d,%d,%d,%d,%d%c", &row.c, &row.k, &row.size, &row.r, &row.padding,
                                 &row.m, &row.spread, &rest);
    if (read != 6 && read != 7)
        throw std::invalid_argument(std::string(text) + ": a row is c,k,size,r,padding,m or c,k,size,r,padding,m,1");
    return row;
}

void speed(const KernelTarget &target, std::vector<Row> rows) {
    if (rows.empty())
        rows = {{64, 64, 32, 3, 1, 4},  {128, 128, 16, 3, 1, 4}, {256, 256, 8, 3, 1, 4},  {512, 512, 4, 3, 1, 4},
                {512, 512, 4, 3, 1, 2}, {64, 64, 56, 3, 1, 4},   {128, 128, 28, 3, 1, 4}, {256, 256, 14, 3, 1, 4},
                {512, 512, 7, 3, 1, 4}, {64, 64, 32, 3, 1, 2},   {16, 16, 32, 3, 1, 4},   {8, 8, 8, 3, 1, 4},
                {6, 16, 12, 5, 0, 2},   {32, 64, 14, 5, 2, 2},   {32, 64, 14, 5, 2, 4}};
    std::printf(
        "| F(m, r) | conv | direct GFLOP/s | Winograd | | weight us | weight gradient: direct | Winograd | | peak "
        "| chosen |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n");
    for (const Row &r : rows) {
        const WinogradConv q{int(target.lanes), r.c, r.size, r.size, r.k, r.r, r.padding, r.m, r.spread != 0};
        const int blocks = 8;
        Trial t(q, blocks, target);
        double direct = 1e9, winograd = 1e9, weight = 1e9, direct_grad = 1e9, winograd_grad = 1e9, peak = 0;
        for (int pass = 0; pass < 3; pass++) {
            weight = std::min(weight, least([&] { t.transform_weight(); }));
            direct = std::min(direct, least([&] { t.forward(false); }));
            winograd = std::min(winograd, least([&] { t.forward(true); }));
            direct_grad = std::min(direct_grad, least([&] { t.grad(false); }));
            winograd_grad = std::min(winograd_grad, least([&] { t.grad(true); }));
            peak = std::max(peak, fma_peak());
        }
        const double f = t.flops() * 1e-9, g = f * blocks;
        std::printf("| F(%d, %d) | %d to %d at %d | %.0f | %.0f | %.2f | %.0f | %.0f | %.0f | %.2f | %.0f | %d, %d |\n",
                    r.m, r.r, r.c, r.k, r.size, f / direct, f / winograd, direct / winograd, weight * 1e6,
                    g / direct_grad, g / winograd_grad, direct_grad / winograd_grad, peak,
                    fastest_winograd(q, r.spread ? WinogradUse::spread : WinogradUse::forward, blocks, false),
                    fastest_winograd(q, WinogradUse::grad_weight, blocks, false));
        std::fflush(stdout);
    }
}

// Root mean square of the difference to float64, over that of the results.
void errors(const KernelTarget &target) {
    for (auto [m, r] : {std::pair{2, 3}, {3, 3}, {4, 3}, {2, 5}, {4, 5}})
        for (int channels : {4, 16, 64, 256})
            for (bool spread : {false, true}) {
                const int padding = spread ? r - 1 : 0;
                const WinogradConv q{int(target.lanes), channels, 12, 12, 8, r, padding, m, spread};
                Trial t(q, 1, target);
                t.transform_weight();
                for (bool by_winograd : {false, true}) {
                    t.forward(by_winograd);
                    if (!spread) t.grad(by_winograd);
                }
                const int v = q.lanes, ho = q.ho();
                const float *x = t.x.begin(), *w = t.w.begin(), *dy = t.dy.begin();
                std::map<std::string, std::array<double, 3>> sums; // of squares: results, direct's errors, Winograd's
                auto count = [&](const char *use, double exact, float direct, float winograd) {
                    sums[use][0] += exact * exact;
                    sums[use][1] += (direct - exact) * (direct - exact);
                    sums[use][2] += (winograd - exact) * (winograd - exact);
                };
                auto at = [&](int c, int row, int column, int l) {
                    const bool inside = row >= 0 && row < 12 && column >= 0 && column < 12;
                    return inside ? double(x[((c * 12 + row) * 12 + column) * v + l]) : 0;
                };
                for (int i = 0; i < ho * ho * q.k * v; i++) {
                    const int l = i % v, column = i / v % ho - padding, row = i / v / ho % ho - padding;
                    const int k = i / v / ho / ho;
                    double sum = 0;
                    for (int c = 0; c < channels; c++)
                        for (int e = 0; e < r * r; e++)
                            sum += at(c, row + e / r, column + e % r, l) * w[(k * channels + c) * r * r + e];
                    count(spread ? "spread" : "forward", sum, t.y.begin()[i], t.y2.begin()[i]);
                }
                for (int i = 0; i < q.k * channels * r * r && !spread; i++) {
                    const int e = i % (r * r), c = i / (r * r) % channels, k = i / (r * r) / channels;
                    double sum = 0;
                    for (int p = 0; p < ho * ho * v; p++)
                        sum += at(c, p / v / ho + e / r, p / v % ho + e % r, p % v) * dy[k * ho * ho * v + p];
                    count("grad_weight", sum, t.dw.begin()[i], t.dw2.begin()[i]);
                }
                for (const auto &[use, sum] : sums)
                    std::printf("{%d, %d, %d, WinogradUse::%s, %d, %.2e, %.2e},\n", v, m, r, use.c_str(), channels,
                                std::sqrt(sum[1] / sum[0]), std::sqrt(sum[2] / sum[0]));
            }
}

} // namespace

int main(int argc, char **argv) {
    try {
        const KernelTarget target = resolve_target({});
        if (argc > 1 && !std::strcmp(argv[1], "--errors")) {
            std::printf(
                "// winograd_bench --errors: lanes, m, r, use, channels, root mean square errors of direct convolution "
                "and of\n// F(m, r) with the points of winograd_points, both against float64, over the root mean "
                "square "
                "result; one block\n// of 12 x 12, padded by a window for what spreads.\n");
            if (target.lanes > 8) errors(resolve_target({.target = "x86-64-linux-avx-avx2-f16c-fma-sse41"}));
            errors(target);
            return 0;
        }
        std::vector<Row> rows;
        for (int i = 1; i < argc; i++) rows.push_back(parse(argv[i]));
        speed(target, rows);
        return 0;
    } catch (const std::exception &error) { std::fprintf(stderr, "winograd_bench: %s\n", error.what()); }
    return 1;
}
