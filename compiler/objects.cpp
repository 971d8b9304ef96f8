// Reads symbol tables through LLVM.
#include "objects.h"

#include "graph.h"

#include <llvm/Object/ObjectFile.h>

namespace cryolite {

std::vector<std::string> undefined_symbols(const std::vector<char> &object, const std::string &name) {
    llvm::MemoryBufferRef buffer(llvm::StringRef(object.data(), object.size()), name);
    auto file = llvm::object::ObjectFile::createObjectFile(buffer);
    if (!file) throw InternalError("'" + name + "': " + llvm::toString(file.takeError()));
    std::vector<std::string> names;
    for (const llvm::object::SymbolRef &symbol : (*file)->symbols()) {
        auto flags = symbol.getFlags();
        auto text = symbol.getName();
        if (!flags || !text) {
            llvm::consumeError(flags.takeError());
            llvm::consumeError(text.takeError());
            throw InternalError("'" + name + "' has a damaged symbol table");
        }
        if ((*flags & llvm::object::SymbolRef::SF_Undefined) && !text->empty()) names.push_back(text->str());
    }
    return names;
}

} // namespace cryolite
