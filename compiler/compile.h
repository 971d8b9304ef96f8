// From a network to a library: the front door of the compiler, used by the command line and by tests.
//
//   CompiledModel model = compile(network, {.batch = 256});
//   write_library(model, "out");                 // out/liblenet.a, out/lenet.h
//   LoadedModel loaded(model);                   // or run the very same objects in this process, through LLVM's ORC
//   cryo_open(loaded.program(), nullptr, &m);
#ifndef CRYOLITE_COMPILE_H
#define CRYOLITE_COMPILE_H

#include "cryolite.h"

#include <functional>
#include <iosfwd>
#include <memory>

struct cryo_program;

namespace cryolite {

struct CompileOptions {
    int64_t batch = 256;         // largest batch; every smaller one works too
    std::string target = "host"; // a Halide target name: "x86-64-linux-avx2-fma", "host"; "opencl", "cuda": a device
    std::string device;          // whose tuned schedules kernels for devices take (ScheduleKey::cpu); "": any device's
    int64_t lanes = 0;           // samples side by side; 0: the target's vector width
    int processors = 0;          // to be kept busy, also by few samples; 0: as many as this machine has
    int64_t strip_bytes = 512 << 10; // of a core's own cache, to be filled by what steps hand to each other (strips.h)
    bool train = true;               // false: evaluate and infer only
    int64_t few = -1;      // the largest batch inferred sample by sample, by a plan of its own where all ops have
                           // kernels for it; 0: none, -1: as is estimated to be fastest (plan_cost.h)
    bool checked = false;  // kernels check every bound
    int jobs = 0;          // kernels compiled at once; 0: one a core
    std::string cache;     // folder of compiled kernels; "": $XDG_CACHE_HOME/cryolite or ~/.cache/cryolite; "off": none
    std::string schedules; // database of tuned schedules (schedules.h); "": what ships with the compiler alone
    std::function<void(int done, int total, const std::string &kernel)> progress;
};

int processors_here(); // of this machine, at least 1

struct KernelTarget; // codegen.h
enum class Mode;     // graph.h
struct PassContext;  // passes.h
class Choices;       // choices.h
// What the passes and the plan of a mode are made for. choices: null where models decide.
PassContext pass_context(const Network &network, Mode mode, const CompileOptions &options, const KernelTarget &target,
                         std::shared_ptr<Choices> choices);

struct CompiledObject {
    std::string name;              // "cryo_conv2d_3f2a.o"
    std::vector<char> bytes;       // ELF (or the target's format)
    std::vector<std::string> keys; // readable key of the kernel; empty for the plan
};
struct CompiledModel {
    std::string name;
    std::string target;                  // Halide's full name
    std::vector<CompiledObject> objects; // kernels, then the plan; checked builds: Halide's runtime too
    std::string header;                  // text of <name>.h
    int64_t parameter_bytes = 0;
    int64_t arena_bytes = 0;     // largest plan
    int64_t scratch_bytes = 0;   // per thread, largest plan
    int64_t infer_one_batch = 0; // inference of so few samples runs the plan infer_one; 0: there is none
    int kernels = 0, cached = 0;
};

// Throws CompileError for the author's mistakes (an unknown target too), InternalError for ours.
CompiledModel compile(const Network &network, const CompileOptions &options);

// Writes lib<name>.a and <name>.h into folder (made when missing), each through a temporary file and a rename.
// Throws CompileError that names the path.
void write_library(const CompiledModel &model, const std::string &folder);

// Stages that emit can print, in order, with one line each of what they are.
struct EmitStage {
    std::string name; // "graph", "select_mode", ..., "plan", "stmt", "asm"
    std::string what;
};
std::vector<EmitStage> emit_stages();
// Prints one stage: the graph as written, after a pass, the plan; Halide statements or assembly of all kernels, or of
// those whose key contains `kernel`. mode: "train", "evaluate", "infer", "infer_one".
void emit(const Network &network, const CompileOptions &options, const std::string &stage, const std::string &mode,
          const std::string &kernel, std::ostream &out);

class LinkedObjects; // jit.h

// Something that objects need and the process does not export.
struct HostFunction {
    std::string name;
    void *address;
};

// The objects of a model, linked into this process by ORC. Halide targets that this machine cannot run are refused.
// functions: what models for devices need, runtime/device/device.h has them.
class LoadedModel {
public:
    explicit LoadedModel(const CompiledModel &model, const std::vector<HostFunction> &functions = {});
    ~LoadedModel();
    LoadedModel(const LoadedModel &) = delete;
    LoadedModel &operator=(const LoadedModel &) = delete;
    const cryo_program *program() const { return program_; }

private:
    std::unique_ptr<LinkedObjects> objects_;
    const cryo_program *program_ = nullptr;
};

// The registered networks (CRYOLITE_NETWORK), in order of registration; build() runs the author's function.
struct NetworkEntry {
    std::string name;
    std::function<std::unique_ptr<Network>()> build;
};
const std::vector<NetworkEntry> &registered_networks();

} // namespace cryolite
#endif
