// Objects linked into this process by LLVM's ORC: no linker, no shared library.
#ifndef CRYOLITE_JIT_H
#define CRYOLITE_JIT_H

#include "compile.h"

namespace cryolite {

class LinkedObjects {
public:
    // `functions`: what the objects need and the process does not export. name is what errors call them; target is the
    // full name of the Halide target that they were made for. Throws CompileError for a target that this machine cannot
    // run, InternalError for objects that do not link.
    LinkedObjects(const std::vector<CompiledObject> &objects, const std::string &target, const std::string &name,
                  const std::vector<HostFunction> &functions = {});
    ~LinkedObjects();
    LinkedObjects(const LinkedObjects &) = delete;
    LinkedObjects &operator=(const LinkedObjects &) = delete;

    // The address of a symbol. Throws InternalError when there is none.
    template <typename T> T lookup(const std::string &symbol) const { return reinterpret_cast<T>(address(symbol)); }

private:
    void *address(const std::string &symbol) const;
    struct Jit;
    std::unique_ptr<Jit> jit_;
    std::string name_;
};

} // namespace cryolite
#endif
