// The very objects that ship: there is no second code path.
#include "jit.h"

#include "graph.h"

#include <Halide.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>

#include <mutex>

namespace cryolite {

struct LinkedObjects::Jit {
    std::unique_ptr<llvm::orc::LLJIT> lljit;
};

template <typename T> static T take(llvm::Expected<T> value, const std::string &name) {
    if (!value) throw InternalError("loading '" + name + "': " + llvm::toString(value.takeError()));
    return std::move(*value);
}

static void check(llvm::Error error, const std::string &name) {
    if (error) throw InternalError("loading '" + name + "': " + llvm::toString(std::move(error)));
}

// Of these kernels the part on the CPU runs on any.
static bool is_of_device(Halide::Target::Feature feature) {
    using T = Halide::Target;
    return feature == T::OpenCL || feature == T::CLDoubles || feature == T::CUDA || feature == T::CUDACapability80;
}

static void check_runs_here(const std::string &target) {
    Halide::Target wanted(target), here = Halide::get_host_target();
    bool runs = wanted.arch == here.arch && wanted.os == here.os && wanted.bits == here.bits;
    for (int f = 0; runs && f < Halide::Target::FeatureEnd; f++) {
        auto feature = Halide::Target::Feature(f);
        if (feature == Halide::Target::ASAN || is_of_device(feature)) continue; // no feature of the machine
        if (wanted.has_feature(feature) && !here.has_feature(feature)) runs = false;
    }
    if (!runs) throw CompileError("target '" + target + "' does not run on this machine, " + here.to_string());
}

LinkedObjects::LinkedObjects(const std::vector<CompiledObject> &objects, const std::string &target,
                             const std::string &name, const std::vector<HostFunction> &functions)
    : jit_(std::make_unique<Jit>()), name_(name) {
    static std::once_flag initialized;
    std::call_once(initialized, [] {
        llvm::InitializeNativeTarget();
        llvm::InitializeNativeTargetAsmPrinter();
    });
    check_runs_here(target);
    jit_->lljit = take(llvm::orc::LLJITBuilder().create(), name);
    llvm::orc::LLJIT &lljit = *jit_->lljit;
    char prefix = lljit.getDataLayout().getGlobalPrefix();
    lljit.getMainJITDylib().addGenerator(
        take(llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(prefix), name));
    llvm::orc::SymbolMap symbols;
    for (const HostFunction &function : functions)
        symbols[lljit.mangleAndIntern(function.name)] = {llvm::orc::ExecutorAddr::fromPtr(function.address),
                                                         llvm::JITSymbolFlags::Exported};
    check(lljit.getMainJITDylib().define(llvm::orc::absoluteSymbols(std::move(symbols))), name);
    for (const CompiledObject &object : objects) {
        llvm::StringRef bytes(object.bytes.data(), object.bytes.size());
        check(lljit.addObjectFile(llvm::MemoryBuffer::getMemBufferCopy(bytes, object.name)), name);
    }
}

LinkedObjects::~LinkedObjects() = default;

void *LinkedObjects::address(const std::string &symbol) const {
    return take(jit_->lljit->lookup(symbol), name_).toPtr<void *>();
}

LoadedModel::LoadedModel(const CompiledModel &model, const std::vector<HostFunction> &functions)
    : objects_(std::make_unique<LinkedObjects>(model.objects, model.target, model.name, functions)),
      program_(objects_->lookup<const cryo_program *>(model.name + "_program")) {}

LoadedModel::~LoadedModel() = default;

} // namespace cryolite
