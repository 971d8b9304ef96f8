// Loops are backward jumps; an innermost one holds no other. Instructions are told by their names, as LLVM prints them.
#include "machine_code.h"

#include "../graph.h"

#include <fmt/format.h>
#include <llvm-c/Disassembler.h>
#include <llvm-c/Target.h>
#include <llvm/ADT/Hashing.h>
#include <llvm/Object/ObjectFile.h>

#include <algorithm>
#include <memory>
#include <mutex>

namespace cryolite {

namespace {

struct Instruction {
    uint64_t at = 0, size = 0;
    std::string name, operands;

    bool has(const char *text) const { return operands.find(text) != std::string::npos; }
    bool vector() const { return has("%ymm") || has("%zmm") || has("%xmm") || operands.starts_with("v") || has("q"); }
    bool packed() const { return name.ends_with("ps") || name.ends_with("aps") || name.ends_with("ups"); }
    bool on_stack() const { return has("(%rsp") || has("(%rbp") || has("[sp"); }
    bool multiply_add() const {
        if (name == "fmla" || name == "fmls") return true;
        const bool sum = name.find("fmadd") != name.npos || name.find("fnmadd") != name.npos;
        return sum ? packed() : name == "mulps" || name == "vmulps";
    }
    // x86 writes AT&T: the last operand is the destination.
    bool moves() const { return name.find("mov") != name.npos && packed(); }
    bool stack_store() const {
        if (name == "str" || name == "stp") return vector() && has("[sp");
        return moves() && on_stack() && operands.ends_with(")");
    }
    bool stack_load() const {
        if (name == "ldr" || name == "ldp") return vector() && has("[sp");
        return vector() && on_stack() && !stack_store();
    }
    // The target of a jump inside the code; its own address where it is none.
    uint64_t jump_target() const {
        const bool jump = name.starts_with("j") || name == "b" || name.starts_with("b.") || name.starts_with("cb") ||
                          name.starts_with("tb");
        if (!jump) return at;
        const size_t number = operands.find_last_of(" \t#");
        char *end = nullptr;
        const std::string text = operands.substr(number == operands.npos ? 0 : number + 1);
        const long long offset = std::strtoll(text.c_str(), &end, 0);
        if (end == text.c_str()) return at;
        return at + uint64_t(offset) + (name.starts_with("j") ? size : 0);
    }
};

std::vector<Instruction> disassemble(llvm::StringRef bytes, const std::string &triple) {
    std::unique_ptr<void, decltype(&LLVMDisasmDispose)> context(
        LLVMCreateDisasmCPUFeatures(triple.c_str(), "", "", nullptr, 0, nullptr, nullptr), LLVMDisasmDispose);
    if (!context) throw InternalError("LLVM has no disassembler for " + triple);
    std::vector<Instruction> code;
    char text[256];
    for (uint64_t at = 0; at < bytes.size();) {
        auto *from = reinterpret_cast<uint8_t *>(const_cast<char *>(bytes.data())) + at;
        const size_t size = LLVMDisasmInstruction(context.get(), from, bytes.size() - at, at, text, sizeof text);
        if (size == 0) { // constants between functions
            at++;
            continue;
        }
        std::string line = text;
        line.erase(0, line.find_first_not_of(" \t"));
        const size_t space = std::min(line.find_first_of(" \t"), line.size());
        code.push_back({at, size, line.substr(0, space), line.substr(std::min(line.size(), space + 1))});
        at += size;
    }
    return code;
}

HotLoop count(const std::vector<Instruction> &code, size_t first, size_t last) {
    HotLoop loop;
    for (size_t i = first; i <= last && i < code.size(); i++) {
        loop.instructions++;
        loop.multiply_adds += code[i].multiply_add();
        loop.stack_stores += code[i].stack_store();
        loop.stack_loads += code[i].stack_load();
    }
    return loop;
}

HotLoop hottest(const std::vector<Instruction> &code) {
    struct Loop {
        size_t first, last;
    };
    std::vector<Loop> loops;
    for (size_t i = 0; i < code.size(); i++) {
        const uint64_t target = code[i].jump_target();
        if (target >= code[i].at) continue;
        auto first = std::lower_bound(code.begin(), code.end(), target,
                                      [](const Instruction &a, uint64_t at) { return a.at < at; });
        loops.push_back({size_t(first - code.begin()), i});
    }
    HotLoop best;
    for (const Loop &loop : loops) {
        auto inside = [&](const Loop &other) { return other.first >= loop.first && other.last < loop.last; };
        if (std::any_of(loops.begin(), loops.end(), inside)) continue;
        const HotLoop counted = count(code, loop.first, loop.last);
        if (counted.multiply_adds > best.multiply_adds) best = counted;
    }
    return best.multiply_adds || code.empty() ? best : count(code, 0, code.size() - 1);
}

} // namespace

MachineCode machine_code(const std::vector<char> &object, const std::string &name) {
    static std::once_flag initialized;
    std::call_once(initialized, [] {
        LLVMInitializeNativeTarget();
        LLVMInitializeNativeDisassembler();
    });
    llvm::MemoryBufferRef buffer(llvm::StringRef(object.data(), object.size()), name);
    auto file = llvm::object::ObjectFile::createObjectFile(buffer);
    if (!file) throw InternalError("'" + name + "': " + llvm::toString(file.takeError()));
    const std::string triple = (*file)->makeTriple().str();
    MachineCode code;
    for (const llvm::object::SectionRef &section : (*file)->sections()) {
        if (!section.isText()) continue;
        auto bytes = section.getContents();
        if (!bytes) throw InternalError("'" + name + "': " + llvm::toString(bytes.takeError()));
        const HotLoop loop = hottest(disassemble(*bytes, triple));
        if (loop.multiply_adds >= code.hot.multiply_adds) code.hot = loop;
        code.hash = llvm::hash_combine(code.hash, *bytes);
    }
    return code;
}

MachineCode device_code(std::vector<char> object, const std::string &symbol) {
    for (auto at = object.begin(); (at = std::search(at, object.end(), symbol.begin(), symbol.end())) != object.end();)
        at = std::fill_n(at, symbol.size(), '_');
    MachineCode code;
    code.hash = llvm::hash_combine_range(object.begin(), object.end());
    return code;
}

std::string code_refusal(const HotLoop &code, const HotLoop &usual) {
    if (usual.multiply_adds > 0 && code.multiply_adds == 0) return "its code has no vector multiply-add";
    const double few = 1.0 / 16; // a spilled address or so a long loop is no harm
    if (code.spills_each() > std::max(few, 1.2 * usual.spills_each()))
        return fmt::format("it spills {} vectors for {} multiply-adds", code.stack_stores, code.multiply_adds);
    return "";
}

} // namespace cryolite
