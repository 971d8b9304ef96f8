// Buffers with guard words on both sides. Inputs are uniform numbers of a fixed seed.
#include "kernel_arguments.h"

#include "../graph.h"
#include "../jit.h"

#include "../../generators/schedule.h"

#include <HalideRuntime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>

namespace cryolite {

namespace {

constexpr size_t guard = 64; // words on each side
constexpr uint32_t guard_word = 0x4b1dfeed;

int do_nothing() { return 0; }

double thread_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

int64_t parameter(const KernelSpec &kernel, const std::string &name) {
    auto found = kernel.parameters.find(name);
    return found == kernel.parameters.end() ? 0 : std::atoll(found->second.c_str());
}

} // namespace

struct KernelArguments::Argument {
    std::string name;
    bool output = false;
    int32_t scalar = 0;
    std::vector<halide_dimension_t> dims;
    halide_buffer_t buffer = {};
    std::vector<uint32_t> words; // guards and room for alignment among them
    size_t first = 0, size = 0;
    uintptr_t memory = 0; // of the words on a device

    void allocate(std::mt19937 &random) {
        size = 1;
        for (const halide_dimension_t &dim : dims) size += size_t(dim.extent - 1) * size_t(dim.stride);
        words.assign(size + 2 * guard + 16, guard_word);
        const auto address = reinterpret_cast<uintptr_t>(words.data() + guard);
        first = guard + (64 - address % 64) % 64 / 4;
        buffer.host = reinterpret_cast<uint8_t *>(words.data() + first);
        std::uniform_real_distribution<float> uniform(-1, 1);
        for (size_t i = 0; i < size; i++) {
            const float value = buffer.type.code == halide_type_float ? uniform(random) : 0;
            std::memcpy(&words[first + i], &value, sizeof value);
        }
    }
    void fill_nan() {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        for (size_t i = 0; i < size; i++) std::memcpy(&words[first + i], &nan, sizeof nan);
    }
    bool guards_are_whole() const {
        auto untouched = [](uint32_t word) { return word == guard_word; };
        return std::all_of(words.begin(), words.begin() + long(first), untouched) &&
               std::all_of(words.begin() + long(first + size), words.end(), untouched);
    }
};

KernelArguments::KernelArguments(const KernelSpec &kernel, const KernelTarget &target, int64_t batch,
                                 const std::vector<HostFunction> &functions) {
    const std::string symbol = kernel_symbol(kernel, target);
    std::vector<HostFunction> idle = functions;
    for (HostFunction &function : idle) function.address = reinterpret_cast<void *>(do_nothing);
    const LinkedObjects objects({compile_kernel(kernel, target, true)}, target.name, kernel.key(), idle);
    const auto &metadata = *objects.lookup<const halide_filter_metadata_t *(*)()>(symbol + "_metadata")();
    const int64_t most = parameter(kernel, "max_batch"), blocks = std::max<int64_t>(1, batch / target.lanes);
    for (int i = 0; i < metadata.num_arguments; i++) {
        const halide_filter_argument_t &declared = metadata.arguments[i];
        auto argument = std::make_unique<Argument>();
        argument->name = declared.name;
        argument->output = declared.kind == halide_argument_kind_output_buffer;
        if (declared.kind == halide_argument_kind_input_scalar) {
            if (argument->name == "batch") argument->scalar = int32_t(most ? most : blocks * target.lanes);
            if (argument->name == "valid") argument->scalar = int32_t(target.lanes);
            argv_.push_back(&argument->scalar);
        } else {
            argument->dims.resize(size_t(declared.dimensions));
            // What a kernel for a device leaves to its caller is the blocks of its results.
            if (target.gpu && argument->output)
                for (halide_dimension_t &dim : argument->dims) dim.extent = int32_t(blocks);
            argument->buffer.type = declared.type;
            argument->buffer.dimensions = declared.dimensions;
            argument->buffer.dim = argument->dims.data();
            argv_.push_back(&argument->buffer);
        }
        arguments_.push_back(std::move(argument));
    }
    if (int code = objects.lookup<KernelFunction>(symbol + "_argv")(argv_.data()))
        throw InternalError("kernel '" + kernel.key() + "' does not tell its shapes: " + std::to_string(code));
    std::mt19937 random(1);
    const int64_t channels = std::max(parameter(kernel, "c"), parameter(kernel, "k"));
    for (auto &argument : arguments_)
        if (argument->buffer.dim) {
            // What lies in scratch is outside of Halide's bounds (generators/scratch.h).
            if (argument->name == "scratch")
                argument->dims[0] = {0, int32_t(packed_elements(target.lanes, channels)), 1, 0};
            if (argument->buffer.type.bits != 32)
                throw InternalError("kernel '" + kernel.key() + "' has values that are not of 32 bits");
            argument->allocate(random);
        }
}

KernelArguments::~KernelArguments() {
    for (auto &argument : arguments_)
        if (argument->memory) device_->release(argument->memory);
}

static void check(cryo_status status, const runtime::Text &error) {
    if (status != CRYO_OK) throw InternalError(error.get());
}

void KernelArguments::move_to(runtime::Device &device) {
    device_ = &device;
    runtime::Text error;
    for (auto &argument : arguments_) {
        if (!argument->buffer.dim) continue;
        const size_t bytes = 4 * argument->words.size();
        argument->memory = device.allocate(bytes);
        if (!argument->memory) throw InternalError("no memory on the device for '" + argument->name + "'");
        check(device.upload(argument->memory, argument->words.data(), bytes, error), error);
        // Aligned as the runtime's arenas are.
        argument->buffer.host = nullptr;
        argument->buffer.device = argument->memory + 4 * argument->first;
    }
}

int64_t KernelArguments::bytes() const {
    int64_t sum = 0;
    for (auto &argument : arguments_) sum += 4 * int64_t(argument->size);
    return sum;
}

void KernelArguments::call(KernelFunction function) const {
    if (int code = function(argv_.data()))
        throw InternalError(device_ ? device_->kernel_error() : "the kernel says " + std::to_string(code));
}

std::string KernelArguments::try_out(KernelFunction function) {
    runtime::Text error;
    for (auto &argument : arguments_)
        if (argument->output) {
            argument->fill_nan();
            if (device_)
                check(device_->upload(argument->memory, argument->words.data(), 4 * argument->words.size(), error),
                      error);
        }
    call(function);
    if (device_)
        for (auto &argument : arguments_)
            if (argument->memory)
                check(device_->download(argument->words.data(), argument->memory, 4 * argument->words.size(), error),
                      error);
    for (auto &argument : arguments_)
        if (argument->size && !argument->guards_are_whole()) return "it writes outside of '" + argument->name + "'";
    return "";
}

std::vector<float> KernelArguments::results() const {
    std::vector<float> results;
    for (auto &argument : arguments_) {
        if (!argument->output || argument->name == "scratch") continue;
        const auto *values = reinterpret_cast<const float *>(argument->words.data() + argument->first);
        results.insert(results.end(), values, values + argument->size);
    }
    return results;
}

double KernelArguments::device_seconds(KernelFunction function, int calls) const {
    runtime::Text error;
    check(device_->mark(0, error), error);
    for (int i = 0; i < calls; i++) call(function);
    check(device_->mark(1, error), error);
    check(device_->finish(error), error);
    return device_->seconds(0, 1) / calls;
}

double KernelArguments::seconds(KernelFunction function, double least) const {
    if (device_) {
        const double once = device_seconds(function, 1);
        return device_seconds(function, int(std::clamp(least / std::max(once, 1e-6), 1.0, 100.0)));
    }
    const double start = thread_seconds();
    int calls = 0;
    double passed = 0;
    do { call(function), calls++, passed = thread_seconds() - start; } while (passed < least);
    return passed / calls;
}

double difference(const std::vector<float> &results, const std::vector<float> &expected) {
    if (results.size() != expected.size()) return INFINITY;
    double largest = std::numeric_limits<float>::min(), error = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        if (std::isnan(results[i]) != std::isnan(expected[i])) return INFINITY;
        if (std::isfinite(expected[i])) largest = std::max(largest, double(std::abs(expected[i])));
        if (std::isnan(expected[i]) || results[i] == expected[i]) continue;
        error = std::max(error, double(std::abs(results[i] - expected[i])));
    }
    return error / largest;
}

} // namespace cryolite
