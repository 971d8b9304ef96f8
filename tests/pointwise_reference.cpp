// See the header. The interpreter loops over elements one by one and shares nothing with the generators but the parser.
#include "pointwise_reference.h"

#include "Halide.h"
#include "HalideRuntime.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <unistd.h>

namespace cryolite::testing {
namespace {

std::vector<int> resolved(const ProgramShape &shape, int samples) {
    std::vector<int> dims = shape.dims;
    for (int &d : dims)
        if (d == ProgramShape::batch) d = samples;
    return dims;
}

size_t flat(const std::vector<int> &dims, const std::vector<int> &at) {
    size_t index = 0;
    for (size_t d = 0; d < dims.size(); d++) index = index * dims[d] + (dims[d] == 1 ? 0 : at[d]);
    return index;
}

void for_each(const std::vector<int> &dims, const std::function<void(const std::vector<int> &)> &visit) {
    size_t total = 1;
    for (int d : dims) total *= d;
    std::vector<int> at(dims.size(), 0);
    for (size_t i = 0; i < total; i++) {
        visit(at);
        for (int d = static_cast<int>(dims.size()) - 1; d >= 0 && ++at[d] == dims[d]; d--) at[d] = 0;
    }
}

double apply(const std::string &op, double a, double b) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    if (op == "add") return a + b;
    if (op == "sub") return a - b;
    if (op == "mul") return a * b;
    if (op == "div") return a / b;
    if (op == "max") return std::isnan(a) || std::isnan(b) ? nan : std::max(a, b);
    if (op == "min") return std::isnan(a) || std::isnan(b) ? nan : std::min(a, b);
    if (op == "relu_grad") return b <= 0 ? 0 : a;
    if (op == "greater_equal") return a >= b ? 1 : 0;
    if (op == "neg") return -a;
    if (op == "exp") return std::exp(a);
    if (op == "log") return std::log(a);
    if (op == "sqrt") return std::sqrt(a);
    if (op == "rsqrt") return 1 / std::sqrt(a);
    if (op == "square") return a * a;
    if (op == "abs") return std::fabs(a);
    if (op == "reciprocal") return 1 / a;
    if (op == "sigmoid") return 1 / (1 + std::exp(-a));
    if (op == "relu") return a < 0 ? 0 : a;
    if (op == "tanh") return std::tanh(a);
    if (op == "broadcast") return a;
    throw std::logic_error("no reference of " + op);
}

struct Window {
    int size, stride, padding, h, w, pooled_h, pooled_w;

    Window(const ProgramStatement &s, const Tensor &large)
        : size(s.attributes.at("window")), stride(s.attributes.at("stride")), padding(s.attributes.at("padding")),
          h(large.dims[2]), w(large.dims[3]), pooled_h(pooled_extent(h, size, stride, padding, s.is_ceil())),
          pooled_w(pooled_extent(w, size, stride, padding, s.is_ceil())) {}

    // Elements of the window at (y, x) that are not padding, in scan order.
    void elements(int y, int x, const std::function<void(int, int)> &visit) const {
        for (int i = y * stride - padding; i < y * stride - padding + size; i++)
            for (int j = x * stride - padding; j < x * stride - padding + size; j++)
                if (i >= 0 && i < h && j >= 0 && j < w) visit(i, j);
    }
};

Tensor pooled(const ProgramStatement &s, const Tensor &x) {
    const Window window(s, x);
    Tensor y{{x.dims[0], x.dims[1], window.pooled_h, window.pooled_w}, {}};
    for_each(y.dims, [&](const std::vector<int> &at) {
        double sum = 0, largest = -std::numeric_limits<double>::infinity();
        window.elements(at[2], at[3], [&](int i, int j) {
            const double e = x.data[flat(x.dims, {at[0], at[1], i, j})];
            sum += e;
            if (!(e <= largest) && !std::isnan(largest)) largest = e;
        });
        y.data.push_back(s.op == "avg_pool2d" ? sum / (window.size * window.size) : largest);
    });
    return y;
}

// To the winners, as positions in their windows.
Tensor routed(const ProgramStatement &s, const Tensor &dy, const Tensor &winner, const Tensor &dx_shape) {
    const Window window(s, dx_shape);
    Tensor dx{dx_shape.dims, std::vector<double>(dx_shape.size(), 0.0)};
    const int stride = s.attributes.at("stride"), padding = s.attributes.at("padding");
    for_each(dy.dims, [&](const std::vector<int> &at) {
        const double chosen = winner.data[flat(winner.dims, at)];
        window.elements(at[2], at[3], [&](int i, int j) {
            const int r = i + padding - at[2] * stride, c = j + padding - at[3] * stride;
            if (r * window.size + c == chosen)
                dx.data[flat(dx.dims, {at[0], at[1], i, j})] += dy.data[flat(dy.dims, at)];
        });
    });
    return dx;
}

Tensor winners(const ProgramStatement &s, const Tensor &x) {
    const Window window(s, x);
    const int stride = s.attributes.at("stride"), padding = s.attributes.at("padding");
    Tensor y{{x.dims[0], x.dims[1], window.pooled_h, window.pooled_w}, {}};
    for_each(y.dims, [&](const std::vector<int> &at) {
        double largest = 0, chosen = -1;
        window.elements(at[2], at[3], [&](int i, int j) {
            const double e = x.data[flat(x.dims, {at[0], at[1], i, j})];
            if (chosen >= 0 && !(e > largest) && !std::isnan(e)) return;
            largest = e;
            chosen = (i + padding - at[2] * stride) * window.size + j + padding - at[3] * stride;
        });
        y.data.push_back(chosen);
    });
    return y;
}

Tensor average_grad(const ProgramStatement &s, const Tensor &dy, const Tensor &x) {
    const Window window(s, x);
    Tensor dx{x.dims, std::vector<double>(x.size(), 0.0)};
    for_each(dy.dims, [&](const std::vector<int> &at) {
        const double gradient = dy.data[flat(dy.dims, at)];
        window.elements(at[2], at[3], [&](int i, int j) {
            dx.data[flat(x.dims, {at[0], at[1], i, j})] += gradient / (window.size * window.size);
        });
    });
    return dx;
}

Tensor summed(const ProgramStatement &s, const Tensor &x) {
    Tensor y{x.dims, {}};
    for (int axis : s.axes) y.dims[axis] = 1;
    y.data.assign(y.size(), 0.0);
    for_each(x.dims, [&](const std::vector<int> &at) { y.data[flat(y.dims, at)] += x.data[flat(x.dims, at)]; });
    return y;
}

// Where element `at` of a value lies in its buffer: samples are split into blocks and lanes.
size_t buffer_index(const ProgramShape &shape, const std::vector<int> &dims, const std::vector<int> &at, int lanes) {
    if (!shape.is_block()) return flat(dims, at);
    size_t index = at[0] / lanes;
    for (size_t d = 1; d < dims.size(); d++) index = index * dims[d] + at[d];
    return index * lanes + at[0] % lanes;
}

struct KernelBuffer {
    std::unique_ptr<float, decltype(&std::free)> data{nullptr, &std::free};
    halide_buffer_t buffer{};
    halide_dimension_t dims[5];

    KernelBuffer(const ProgramShape &shape, const std::vector<int> &extents, int lanes) {
        std::vector<int> order;
        if (shape.is_block()) order.push_back(lanes);
        for (size_t d = extents.size(); d-- > 0;)
            order.push_back(d == 0 && shape.is_block() ? extents[d] / lanes : extents[d]);
        if (order.empty()) order.push_back(1);
        int stride = 1;
        for (size_t d = 0; d < order.size(); d++) {
            dims[d] = halide_dimension_t(0, order[d], stride);
            stride *= order[d];
        }
        data.reset(static_cast<float *>(std::aligned_alloc(64, (stride * sizeof(float) + 63) / 64 * 64)));
        std::fill_n(data.get(), stride, -12345.0f);
        buffer.type = halide_type_of<float>();
        buffer.dimensions = static_cast<int>(order.size());
        buffer.dim = dims;
        buffer.host = reinterpret_cast<uint8_t *>(data.get());
    }
};

} // namespace

size_t Tensor::size() const {
    size_t total = 1;
    for (int d : dims) total *= d;
    return total;
}

std::vector<Tensor> interpret(const Program &program, const ProgramCall &call) {
    std::vector<Tensor> values;
    for (const ProgramStatement &s : program.statements) {
        auto operand = [&](int i) -> Tensor {
            return s.operands[i].statement < 0 ? Tensor{{}, {s.operands[i].literal}} : values[s.operands[i].statement];
        };
        Tensor y{resolved(s.shape, call.samples), {}};
        if (s.op == "input")
            y = call.inputs.at(s.name);
        else if (s.op == "valid")
            y.data = {double(call.valid)};
        else if (s.op == "block")
            y.data = {double(call.block)};
        else if (s.op == "batch")
            y.data = {double(call.batch)};
        else if (s.op == "sum")
            y = summed(s, operand(0));
        else if (s.op == "avg_pool2d" || s.op == "max_pool2d")
            y = pooled(s, operand(0));
        else if (s.op == "max_pool2d_winner")
            y = winners(s, operand(0));
        else if (s.op == "max_pool2d_route")
            y = routed(s, operand(0), operand(1), y);
        else if (s.op == "avg_pool2d_grad")
            y = average_grad(s, operand(0), y);
        else {
            const Tensor a = operand(0), b = s.operands.size() > 1 ? operand(1) : Tensor{{}, {0}};
            auto element = [](const Tensor &t, const std::vector<int> &at) {
                return t.dims.empty() ? t.data[0] : t.data[flat(t.dims, at)];
            };
            for_each(y.dims, [&](const std::vector<int> &at) {
                y.data.push_back(s.op == "mask" ? (at[0] < call.valid ? element(a, at) : 0.0)
                                                : apply(s.op, element(a, at), element(b, at)));
            });
        }
        values.push_back(std::move(y));
    }
    std::vector<Tensor> outputs;
    for (int output : program.outputs) outputs.push_back(values[output]);
    return outputs;
}

LoadedKernel::LoadedKernel(const std::string &generator, const std::map<std::string, std::string> &parameters,
                           const std::string &target) {
    using namespace Halide;
    Target t(target);
    for (auto feature : {Target::NoRuntime, Target::NoAsserts, Target::NoBoundsQuery}) t.set_feature(feature);
    auto instance = Internal::GeneratorRegistry::create(generator, GeneratorContext(t));
    for (const auto &[key, value] : parameters) instance->set_generatorparam_value(key, value);
    const Module module = instance->build_module("kernel");
    std::string folder = std::filesystem::temp_directory_path() / "cryolite_kernel_XXXXXX";
    if (!mkdtemp(folder.data())) throw std::runtime_error("no temporary folder");
    module.compile({{OutputFileType::object, folder + "/k.o"}});
    // -z defs: an undefined symbol is an error.
    const std::string link = "ld -shared -z defs -o " + folder + "/k.so " + folder + "/k.o";
    if (std::system(link.c_str()) == 0) library_ = dlopen((folder + "/k.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    std::filesystem::remove_all(folder);
    if (!library_) throw std::runtime_error("the kernel does not link alone");
    function_ = reinterpret_cast<Function>(dlsym(library_, "kernel_argv"));
    if (!function_) throw std::runtime_error("no entry point");
}

LoadedKernel::~LoadedKernel() {
    if (library_) dlclose(library_);
}

std::vector<Tensor> run_kernel(const LoadedKernel &kernel, const Program &program, const ProgramCall &call, int lanes) {
    std::vector<std::unique_ptr<KernelBuffer>> buffers;
    std::vector<void *> arguments;
    int valid = call.valid, block = call.block, batch = call.batch;
    auto add_buffer = [&](const ProgramShape &shape) {
        buffers.push_back(std::make_unique<KernelBuffer>(shape, resolved(shape, call.samples), lanes));
        arguments.push_back(&buffers.back()->buffer);
        return buffers.back()->data.get();
    };
    for (int input : program.inputs) {
        const ProgramStatement &s = program.statements[input];
        if (s.op == "valid")
            arguments.push_back(&valid);
        else if (s.op == "block")
            arguments.push_back(&block);
        else if (s.op == "batch")
            arguments.push_back(&batch);
        else {
            float *data = add_buffer(s.shape);
            const Tensor &t = call.inputs.at(s.name);
            for_each(t.dims, [&](const std::vector<int> &at) {
                data[buffer_index(s.shape, t.dims, at, lanes)] = static_cast<float>(t.data[flat(t.dims, at)]);
            });
        }
    }
    std::vector<float *> results;
    for (int output : program.outputs) results.push_back(add_buffer(program.statements[output].shape));
    kernel.call(arguments.data());
    std::vector<Tensor> outputs;
    for (size_t i = 0; i < program.outputs.size(); i++) {
        const ProgramShape &shape = program.statements[program.outputs[i]].shape;
        Tensor t{resolved(shape, call.samples), {}};
        for_each(t.dims, [&](const std::vector<int> &at) {
            t.data.push_back(results[i][buffer_index(shape, t.dims, at, lanes)]);
        });
        outputs.push_back(std::move(t));
    }
    return outputs;
}

Tensor random_tensor(const std::vector<int> &dims, uint32_t seed, double low, double high) {
    Tensor t{dims, {}};
    std::mt19937 engine(seed);
    std::uniform_real_distribution<float> number(static_cast<float>(low), static_cast<float>(high));
    for (size_t i = 0; i < t.size(); i++) t.data.push_back(number(engine));
    return t;
}

ProgramCall random_call(const Program &program, int samples, double low, double high) {
    ProgramCall call;
    call.samples = samples;
    call.valid = call.batch = samples;
    uint32_t seed = 1;
    for (int input : program.inputs) {
        const ProgramStatement &s = program.statements[input];
        if (s.op == "input") call.inputs[s.name] = random_tensor(resolved(s.shape, samples), seed++, low, high);
    }
    return call;
}

} // namespace cryolite::testing
