// The objects that ship, linked into this process by LLVM's ORC: no linker, no shared library, no second code path.
#include "compile.h"

#include "graph.h"

#include "../runtime/plan_format.h"

#include <Halide.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>

#include <mutex>

namespace cryolite {

struct LoadedModel::Jit {
    std::unique_ptr<llvm::orc::LLJIT> lljit;
};

template <typename T> static T take(llvm::Expected<T> value, const std::string &model) {
    if (!value) throw InternalError("loading '" + model + "': " + llvm::toString(value.takeError()));
    return std::move(*value);
}

static void check(llvm::Error error, const std::string &model) {
    if (error) throw InternalError("loading '" + model + "': " + llvm::toString(std::move(error)));
}

static void check_runs_here(const CompiledModel &model) {
    Halide::Target wanted(model.target), here = Halide::get_host_target();
    bool runs = wanted.arch == here.arch && wanted.os == here.os && wanted.bits == here.bits;
    for (int f = 0; runs && f < Halide::Target::FeatureEnd; f++) {
        auto feature = Halide::Target::Feature(f);
        if (wanted.has_feature(feature) && !here.has_feature(feature)) runs = false;
    }
    if (!runs) throw CompileError("target '" + model.target + "' does not run on this machine, " + here.to_string());
}

LoadedModel::LoadedModel(const CompiledModel &model) : jit_(std::make_unique<Jit>()) {
    static std::once_flag initialized;
    std::call_once(initialized, [] {
        llvm::InitializeNativeTarget();
        llvm::InitializeNativeTargetAsmPrinter();
    });
    check_runs_here(model);
    jit_->lljit = take(llvm::orc::LLJITBuilder().create(), model.name);
    llvm::orc::LLJIT &lljit = *jit_->lljit;
    char prefix = lljit.getDataLayout().getGlobalPrefix();
    lljit.getMainJITDylib().addGenerator(
        take(llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(prefix), model.name));
    for (const CompiledObject &object : model.objects) {
        llvm::StringRef bytes(object.bytes.data(), object.bytes.size());
        check(lljit.addObjectFile(llvm::MemoryBuffer::getMemBufferCopy(bytes, object.name)), model.name);
    }
    program_ = take(lljit.lookup(model.name + "_program"), model.name).toPtr<const cryo_program *>();
}

LoadedModel::~LoadedModel() = default;

} // namespace cryolite
