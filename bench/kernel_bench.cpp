// The heavy kernels alone, warm in cache, on one core, beside the FMA peak measured in the same run: GFLOP/s for
// convolutions and linear layers, GB/s for the rest. Minima over many short runs, as other programs disturb.
//   kernel_bench [word]      only kernels whose line has the word
#include "peak.h"

#include "Halide.h"
#include "generators/schedule.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using Halide::Target;

constexpr int lanes = 16, blocks = 16; // a batch of 256 where a kernel sees all blocks

struct Argument {
    std::vector<int> extents; // none: the int32 scalar `value`
    int value = 0;
    std::vector<int> strides = {}; // none: dense
};

struct Case {
    std::string generator, parameters; // "c=1 k=6 ..."
    std::vector<Argument> arguments;
    double flops = 0, bytes = 0;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A compiled kernel, linked alone and loaded.
class Kernel {
public:
    Kernel(const std::string &generator, const std::string &parameters) {
        Target target = Halide::get_host_target();
        for (auto feature : {Target::NoRuntime, Target::NoAsserts, Target::NoBoundsQuery}) target.set_feature(feature);
        auto instance = Halide::Internal::GeneratorRegistry::create(generator, Halide::GeneratorContext(target));
        instance->set_generatorparam_value("lanes", std::to_string(lanes));
        for (size_t at = 0; at < parameters.size();) {
            const size_t equals = parameters.find('=', at), end = std::min(parameters.find(' ', at), parameters.size());
            instance->set_generatorparam_value(parameters.substr(at, equals - at),
                                               parameters.substr(equals + 1, end - equals - 1));
            at = end + 1;
        }
        std::string folder = std::filesystem::temp_directory_path() / "cryolite_bench_XXXXXX";
        if (!mkdtemp(folder.data())) throw std::runtime_error("no temporary folder");
        double start = now();
        instance->build_module("kernel").compile({{Halide::OutputFileType::object, folder + "/k.o"}});
        compile_seconds = now() - start;
        if (std::system(("ld -shared -o " + folder + "/k.so " + folder + "/k.o").c_str()) == 0)
            library_ = dlopen((folder + "/k.so").c_str(), RTLD_NOW | RTLD_LOCAL);
        std::filesystem::remove_all(folder);
        if (!library_) throw std::runtime_error("the kernel does not load");
        call = reinterpret_cast<int (*)(void **)>(dlsym(library_, "kernel_argv"));
    }
    ~Kernel() {
        if (library_) dlclose(library_);
    }
    Kernel(const Kernel &) = delete;

    int (*call)(void **) = nullptr;
    double compile_seconds = 0;

private:
    void *library_ = nullptr;
};

// Least seconds of one call.
double measure(const Kernel &kernel, const Case &c) {
    struct Storage {
        std::unique_ptr<float, decltype(&std::free)> data{nullptr, std::free};
        std::vector<halide_dimension_t> dims;
        halide_buffer_t buffer = {};
        int value = 0;
    };
    std::vector<Storage> storage(c.arguments.size());
    std::vector<void *> arguments;
    for (size_t i = 0; i < storage.size(); i++) {
        const Argument &a = c.arguments[i];
        Storage &s = storage[i];
        s.value = a.value;
        size_t size = 1;
        for (size_t d = 0; d < a.extents.size(); d++) {
            const int stride = a.strides.empty() ? int(size) : a.strides[d];
            s.dims.push_back({0, a.extents[d], stride});
            size = std::max(size * size_t(a.extents[d]), size_t(stride) * size_t(a.extents[d]));
        }
        s.data.reset(static_cast<float *>(std::aligned_alloc(64, (size + 15) / 16 * 64)));
        for (size_t e = 0; e < size; e++) s.data.get()[e] = float(e * 2654435761u % 1000) / 500 - 1;
        s.buffer.host = reinterpret_cast<uint8_t *>(s.data.get());
        s.buffer.type = halide_type_of<float>();
        s.buffer.dimensions = int(s.dims.size());
        s.buffer.dim = s.dims.data();
        arguments.push_back(a.extents.empty() ? static_cast<void *>(&s.value) : &s.buffer);
    }
    for (int i = 0; i < 20; i++) kernel.call(arguments.data());
    double start = now();
    kernel.call(arguments.data());
    const int calls = int(std::clamp(100e-6 / (now() - start + 1e-9), 1.0, 1000.0));
    double best = 1e9;
    const double stop = now() + 0.15;
    for (int run = 0; run < 20 || now() < stop; run++) {
        start = now();
        for (int i = 0; i < calls; i++) kernel.call(arguments.data());
        best = std::min(best, (now() - start) / calls);
    }
    return best;
}

std::string text(std::initializer_list<std::pair<const char *, int>> parameters) {
    std::string result;
    for (auto [name, value] : parameters)
        result += (result.empty() ? "" : " ") + std::string(name) + "=" + std::to_string(value);
    return result;
}

void add_conv(std::vector<Case> &cases, int c, int k, int size, int window, int stride = 1, int padding = 0) {
    const int out = (size + 2 * padding - window) / stride + 1;
    const std::string parameters = text({{"c", c},
                                         {"h", size},
                                         {"w", size},
                                         {"k", k},
                                         {"r", window},
                                         {"s", window},
                                         {"stride", stride},
                                         {"padding", padding}});
    const Argument x{{lanes, size, size, c, 1}}, y{{lanes, out, out, k, 1}}, weight{{window, window, c, k}}, bias{{k}};
    const double flops = 2.0 * lanes * c * k * out * out * window * window;
    cases.push_back({"conv2d", parameters + " bias=true", {x, weight, bias, y}, flops});
    cases.push_back({"conv2d_grad_input", parameters, {y, weight, x}, flops});
    cases.push_back({"conv2d_grad_weight", parameters, {x, y, weight}, flops});
}

void add_linear(std::vector<Case> &cases, int c, int k) {
    const Argument x{{lanes, c, 1}}, y{{lanes, k, 1}}, weight{{c, k}}, bias{{k}};
    const double flops = 2.0 * lanes * c * k;
    const int tile = cryolite::linear_grad_weight_tile(c, k);
    cases.push_back({"linear", text({{"c", c}, {"k", k}}) + " bias=true", {x, weight, bias, y}, flops});
    cases.push_back({"linear_grad_input", text({{"c", c}, {"k", k}}), {y, weight, x}, flops});
    cases.push_back(
        {"linear_grad_weight",
         text({{"c", c}, {"k", k}, {"tile", tile}}),
         {{{}, lanes * blocks}, {{c, lanes, blocks}}, {{lanes, tile, blocks}, 0, {1, lanes, lanes * k}}, {{c, tile}}},
         2.0 * lanes * blocks * c * tile});
}

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    add_conv(cases, 1, 6, 28, 5);
    add_conv(cases, 6, 16, 12, 5);
    for (auto [c, k] : {std::pair{256, 120}, {120, 84}, {84, 10}, {784, 256}, {256, 256}, {256, 10}})
        add_linear(cases, c, k);
    for (auto [c, size] : {std::pair{6, 24}, {16, 8}, {120, 1}})
        cases.push_back({"batch_stats",
                         text({{"c", c}, {"h", size}, {"w", size}}),
                         {{{}, lanes}, {{lanes, size, size, c, 1}}, {{2, c, 1}}},
                         0,
                         4.0 * lanes * size * size * c});
    for (auto [rows, columns] : {std::pair{16, 784}, {256, 16}, {120, 16}, {84, 16}})
        cases.push_back({"transpose",
                         text({{"rows", rows}, {"columns", columns}}),
                         {{{columns, rows}}, {{rows, columns}}},
                         0,
                         8.0 * rows * columns});
    cases.push_back({"batch_stats_merge",
                     "c=16 count=64 max_batch=256",
                     {{{}, 256}, {{2, 16, 16}}, {{16}}, {{16}}},
                     0,
                     4.0 * 2 * 16 * 16});
    cases.push_back({"sum_merge", "size=2400 max_batch=256", {{{}, 256}, {{2400, 16}}, {{2400}}}, 0, 4.0 * 2400 * 17});
    cases.push_back({"sgd",
                     "size=30720 momentum=0.9",
                     {{{1}}, {{30720}}, {{30720}}, {{30720}}, {{30720}}, {{30720}}},
                     0,
                     20.0 * 30720});
    add_conv(cases, 64, 64, 32, 3, 1, 1);
    add_conv(cases, 64, 128, 16, 3, 2, 1);
    add_conv(cases, 64, 128, 16, 1, 2, 0);
    return cases;
}

} // namespace

int main(int argc, char **argv) {
    try {
        std::printf("| kernel | us | GFLOP/s | of peak | GB/s | compiled in s |\n|---|---:|---:|---:|---:|---:|\n");
        for (const Case &c : all_cases()) {
            const std::string name = c.generator + " " + c.parameters;
            if (argc > 1 && name.find(argv[1]) == std::string::npos) continue;
            const Kernel kernel(c.generator, c.parameters);
            const double peak = cryolite::bench::fma_peak(), seconds = measure(kernel, c);
            std::printf("| %s | %.3f | ", name.c_str(), seconds * 1e6);
            if (c.flops > 0)
                std::printf("%.1f | %.0f%% | ", c.flops / seconds * 1e-9, 100 * c.flops / seconds * 1e-9 / peak);
            else
                std::printf(" | | %.1f ", c.bytes / seconds * 1e-9);
            std::printf("| %.2f |\n", kernel.compile_seconds);
            std::fflush(stdout);
        }
        return 0;
    } catch (const Halide::Error &error) {
        std::fprintf(stderr, "kernel_bench: %s\n", error.what());
    } catch (const std::exception &error) { std::fprintf(stderr, "kernel_bench: %s\n", error.what()); }
    return 1;
}
