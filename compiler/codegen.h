// Kernels: from a readable key to object code, through Halide's generators, in this process.
#ifndef CRYOLITE_CODEGEN_H
#define CRYOLITE_CODEGEN_H

#include "compile.h"
#include "plan.h"

#include <string>
#include <vector>

namespace cryolite {

// A Halide target by name; "host" is this machine, "opencl" and "cuda" are its device of that kind. Throws CompileError
// that lists what is wrong with the name.
struct KernelTarget {
    std::string name; // canonical, "x86-64-linux-avx-avx2-..."
    int64_t lanes;    // float32 vector width, or what the options say
    bool checked;
    std::string cpu;         // LLVM's name of this machine's processor for "host", the options' device; else "any"
    bool by_halves = false;  // a whole vector takes as long as two of half its width: Zen 4's AVX-512
    bool gpu = false;        // kernels of the whole batch (generators/kernels.md)
    std::string device = {}; // the symbol of what runs their models (runtime/device/); "": nothing does
};
KernelTarget resolve_target(const CompileOptions &options);

// The C symbol of a kernel: equal keys, targets and generator sources give equal symbols, in any model.
std::string kernel_symbol(const KernelSpec &kernel, const KernelTarget &target);

// Objects for all keys (deduplicated by the caller), compiled options.jobs at a time, or taken from the cache. In the
// order of keys. cached counts those that were not compiled.
std::vector<CompiledObject> compile_kernels(const std::vector<KernelSpec> &kernels, const KernelTarget &target,
                                            const CompileOptions &options, int &cached);

// One object, in the calling thread and without the cache. queried: the kernel answers bounds queries, that is calls
// with null buffers, which say what shapes it wants.
CompiledObject compile_kernel(const KernelSpec &kernel, const KernelTarget &target, bool queried = false);

// Halide's statement ("stmt") or assembly ("asm") of one kernel.
std::string print_kernel(const KernelSpec &kernel, const KernelTarget &target, const std::string &form);

// Halide's runtime for checked kernels, which report violated bounds through it.
CompiledObject compile_checked_runtime(const KernelTarget &target);

} // namespace cryolite
#endif
