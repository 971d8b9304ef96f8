// Kernels are compiled in parallel and cached by symbol, which has the hash of everything that they depend on.
#include "codegen.h"

#include "cache.h"
#include "generators_fingerprint.h" // made by the build: hash of generators/
#include "objects.h"

#include <Halide.h>
#include <llvm/ADT/StringMap.h>
#include <llvm/TargetParser/Host.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace cryolite {

namespace {

Halide::Target halide_target(const KernelTarget &target, bool queried) {
    using T = Halide::Target;
    Halide::Target result = Halide::Target(target.name).with_feature(T::NoRuntime);
    if (!queried) result = result.with_feature(T::NoBoundsQuery);
    return target.checked ? result : result.with_feature(T::NoAsserts);
}

Halide::Module build_module(const KernelSpec &kernel, const KernelTarget &target, bool queried = false) {
    Halide::Target halide = halide_target(target, queried);
    auto generator = Halide::Internal::GeneratorRegistry::create(kernel.generator, Halide::GeneratorContext(halide));
    for (auto &[name, value] : kernel.parameters) generator->set_generatorparam_value(name, value);
    return generator->build_module(kernel_symbol(kernel, target));
}

// Runs work and turns Halide's exceptions into ours, with the kernel's key.
template <typename Work> auto guarded(const std::string &key, Work work) {
    try {
        return work();
    } catch (const Halide::Error &error) { throw cryolite::InternalError("kernel '" + key + "': " + error.what()); }
}

// What runtime/device has.
bool is_of_device(const std::string &symbol) {
    for (const char *api : {"opencl", "cuda"})
        for (const char *function : {"device_interface", "initialize_kernels", "finalize_kernels", "run"})
            if (symbol == "halide_" + std::string(api) + "_" + function) return true;
    return symbol == "halide_copy_to_device";
}

std::vector<char> compile_object(const KernelSpec &kernel, const KernelTarget &target, bool queried = false) {
    return guarded(kernel.key(), [&] {
        TemporaryFile object(".o");
        build_module(kernel, target, queried).compile({{Halide::OutputFileType::object, object.path()}});
        std::vector<char> bytes = read_file(object.path());
        // Kernels allocate nothing and call no runtime of Halide's; only checked ones report through it.
        if (!target.checked)
            for (const std::string &symbol : undefined_symbols(bytes, kernel.key()))
                if (symbol.rfind("halide_", 0) == 0 && !(target.gpu && is_of_device(symbol)))
                    throw cryolite::InternalError("kernel '" + kernel.key() + "' needs " + symbol);
        return bytes;
    });
}

} // namespace

// The target of a name. OpenCL's kernels add up partial sums in double; PTX for compute capability 8.0 runs on all
// later ones, too.
static Halide::Target target_by_name(const std::string &name) {
    using T = Halide::Target;
    if (name == "host") return Halide::get_host_target();
    if (name == "opencl") return Halide::get_host_target().with_feature(T::OpenCL).with_feature(T::CLDoubles);
    if (name == "cuda") return Halide::get_host_target().with_feature(T::CUDA).with_feature(T::CUDACapability80);
    if (!T::validate_target_string(name))
        throw CompileError("target '" + name +
                           "' is no Halide target; expected host, opencl, cuda or a name like x86-64-linux-avx2-fma");
    return T(name);
}

KernelTarget resolve_target(const CompileOptions &options) {
    KernelTarget target{options.target, options.lanes, options.checked, "any"};
    if (!options.device.empty()) target.cpu = options.device;
    if (options.target == "host") target.cpu = llvm::sys::getHostCPUName().str();
    try {
        Halide::Target halide = target_by_name(options.target);
        target.gpu = halide.has_feature(Halide::Target::OpenCL) || halide.has_feature(Halide::Target::CUDA);
        if (halide.has_gpu_feature() != target.gpu || halide.bits != 64)
            throw CompileError("target '" + options.target + "': only 64-bit CPUs, OpenCL and CUDA are supported");
        if (target.gpu && options.checked)
            throw CompileError("target '" + options.target + "': kernels for devices cannot be checked");
        if (target.gpu) target.device = halide.has_feature(Halide::Target::OpenCL) ? "cryo_opencl" : "cryo_cuda";
        target.name = halide.to_string();
        // On a device a warp is 32 samples, or 8 samples by 4 neighbours where a batch is small.
        if (target.lanes == 0)
            target.lanes = !target.gpu ? halide.natural_vector_size<float>() : options.batch < 128 ? 8 : 32;
        target.by_halves = target.lanes == 16 && halide.has_feature(Halide::Target::AVX512_Zen4) &&
                           !halide.has_feature(Halide::Target::AVX512_Zen5);
    } catch (const Halide::Error &error) { throw CompileError("target '" + options.target + "': " + error.what()); }
    const bool good =
        target.lanes == 4 || target.lanes == 8 || target.lanes == 16 || (target.gpu && target.lanes == 32);
    if (!good) throw CompileError("lanes must be 4, 8 or 16, not " + std::to_string(target.lanes));
    return target;
}

std::string kernel_symbol(const KernelSpec &kernel, const KernelTarget &target) {
    std::string identity = kernel.key() + "\n" + target.name + (target.checked ? " checked" : "") + "\n" +
                           std::to_string(HALIDE_VERSION_MAJOR) + "." + std::to_string(HALIDE_VERSION_MINOR) + "." +
                           std::to_string(HALIDE_VERSION_PATCH) + "\n" + generators_fingerprint;
    return "cryo_" + kernel.generator + "_" + hash_text(identity);
}

std::vector<CompiledObject> compile_kernels(const std::vector<KernelSpec> &kernels, const KernelTarget &target,
                                            const CompileOptions &options, int &cached) {
    KernelCache cache(options.cache);
    std::vector<CompiledObject> objects(kernels.size());
    std::vector<size_t> missing;
    for (size_t i = 0; i < kernels.size(); i++) {
        objects[i] = {kernel_symbol(kernels[i], target) + ".o", {}, {kernels[i].key()}};
        if (!cache.load(objects[i].name, objects[i].bytes)) missing.push_back(i);
    }
    cached = int(kernels.size() - missing.size());

    std::atomic<size_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    int done = cached;
    auto worker = [&] {
        for (size_t m; (m = next++) < missing.size();) {
            CompiledObject &object = objects[missing[m]];
            try {
                object.bytes = compile_object(kernels[missing[m]], target);
                cache.store(object.name, object.bytes);
            } catch (...) {
                std::lock_guard lock(mutex);
                if (!failure) failure = std::current_exception();
                next = missing.size();
                return;
            }
            std::lock_guard lock(mutex);
            if (options.progress) options.progress(++done, int(kernels.size()), kernels[missing[m]].key());
        }
    };
    size_t jobs = options.jobs > 0 ? size_t(options.jobs) : size_t(processors_here());
    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min(jobs, missing.size()); i++) threads.emplace_back(worker);
    worker();
    for (std::thread &thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
    return objects;
}

CompiledObject compile_kernel(const KernelSpec &kernel, const KernelTarget &target, bool queried) {
    return {kernel_symbol(kernel, target) + ".o", compile_object(kernel, target, queried), {kernel.key()}};
}

std::string print_kernel(const KernelSpec &kernel, const KernelTarget &target, const std::string &form) {
    return guarded(kernel.key(), [&] {
        TemporaryFile text(form == "asm" ? ".s" : ".stmt");
        auto type = form == "asm" ? Halide::OutputFileType::assembly : Halide::OutputFileType::stmt;
        build_module(kernel, target).compile({{type, text.path()}});
        std::vector<char> bytes = read_file(text.path());
        return std::string(bytes.begin(), bytes.end());
    });
}

CompiledObject compile_checked_runtime(const KernelTarget &target) {
    return guarded("Halide's runtime", [&]() -> CompiledObject {
        TemporaryFile object(".o");
        Halide::compile_standalone_runtime(object.path(), Halide::Target(target.name));
        return {"cryo_halide_runtime.o", read_file(object.path()), {}};
    });
}

} // namespace cryolite
