// What a kernel's object code says about its speed before it runs: read with LLVM's disassembler.
#ifndef CRYOLITE_TUNE_MACHINE_CODE_H
#define CRYOLITE_TUNE_MACHINE_CODE_H

#include <cstdint>
#include <string>
#include <vector>

namespace cryolite {

// Of the innermost loop with the most vector multiply-adds; of the whole code where no loop has any.
struct HotLoop {
    int instructions = 0;
    int multiply_adds = 0; // vector instructions; a product and a sum apart count as one
    int stack_stores = 0;  // vectors written to the stack: what registers were too few for
    int stack_loads = 0;
    double spills_each() const { return multiply_adds ? double(stack_stores) / multiply_adds : 0; }
};

struct MachineCode {
    HotLoop hot;
    uint64_t hash = 0; // of all its instructions: knobs may differ and the code be the same
};

// Throws InternalError when the bytes are no object of this machine's kind.
MachineCode machine_code(const std::vector<char> &object, const std::string &name);

// Of kernels for a device, whose code is data in the object: its hash alone, without the name that the kernel has
// there.
MachineCode device_code(std::vector<char> object, const std::string &symbol);

// Why code with this loop cannot be faster than the one whose loop is `usual`, if it is so: empty otherwise.
std::string code_refusal(const HotLoop &code, const HotLoop &usual);

} // namespace cryolite
#endif
