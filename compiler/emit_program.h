// The constant tables of plan_format.h as an object file, through LLVM.
#ifndef CRYOLITE_EMIT_PROGRAM_H
#define CRYOLITE_EMIT_PROGRAM_H

#include "codegen.h"
#include "plan.h"

namespace cryolite {

struct ProgramTables {
    std::string name;
    KernelTarget target;
    std::string fingerprint;
    int64_t max_batch;
    Shape input; // with n
    int64_t classes;
    Sgd optimizer;
    ParameterTable parameters;
    std::vector<Plan> plans;
    int64_t infer_one_batch = 0;
};

// Object code with the one external symbol <name>_program, which refers to the kernels by symbol. Works for any target
// that LLVM was built for; no C++ compiler is needed.
std::vector<char> emit_program(const ProgramTables &tables);

// A static library of the objects, in the format of GNU ar, the same bytes for the same objects.
void write_archive(const std::vector<CompiledObject> &objects, const std::string &path);

} // namespace cryolite
#endif
