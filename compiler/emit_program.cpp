// Every struct of plan_format.h is a row of 64-bit words; so is what is written here, field by field in the same order.
#include "emit_program.h"

#include "cache.h"

#include <llvm/IR/Constants.h>
#include <llvm/IR/GlobalVariable.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Object/ArchiveWriter.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>

#include <mutex>

namespace cryolite {

namespace {

using Words = std::vector<llvm::Constant *>;

// Halide's target name says what LLVM's triple must be.
std::string llvm_triple(const std::string &halide_target) {
    struct {
        const char *prefix, *triple;
    } table[] = {
        {"x86-64-linux", "x86_64-unknown-linux-gnu"},
        {"x86-64-osx", "x86_64-apple-macosx"},
        {"x86-64-windows", "x86_64-pc-windows-msvc"},
        {"arm-64-linux", "aarch64-unknown-linux-gnu"},
        {"arm-64-android", "aarch64-unknown-linux-android"},
        {"arm-64-osx", "arm64-apple-macosx"},
        {"arm-64-ios", "arm64-apple-ios"},
        {"riscv-64-linux", "riscv64-unknown-linux-gnu"},
    };
    for (auto &row : table)
        if (halide_target.rfind(row.prefix, 0) == 0) return row.triple;
    throw CompileError("target '" + halide_target + "': no object format is known for it");
}

struct Tables {
    const ProgramTables &program;
    llvm::LLVMContext context;
    llvm::Module module;
    llvm::PointerType *pointer = llvm::PointerType::getUnqual(context);
    llvm::IntegerType *word = llvm::Type::getInt64Ty(context);
    std::map<std::string, llvm::Constant *> texts;

    explicit Tables(const ProgramTables &program) : program(program), module(program.name, context) {}

    llvm::Constant *integer(int64_t value) { return llvm::ConstantInt::get(word, uint64_t(value)); }
    llvm::Constant *number(double value) { return llvm::ConstantFP::get(llvm::Type::getDoubleTy(context), value); }
    llvm::Constant *null() { return llvm::ConstantPointerNull::get(pointer); }

    llvm::Constant *global(llvm::Constant *value, const std::string &symbol = "") {
        auto linkage = symbol.empty() ? llvm::GlobalValue::PrivateLinkage : llvm::GlobalValue::ExternalLinkage;
        auto *variable = new llvm::GlobalVariable(module, value->getType(), true, linkage, value, symbol);
        variable->setAlignment(llvm::Align(8));
        return variable;
    }
    llvm::Constant *text(const std::string &text) {
        llvm::Constant *&known = texts[text];
        if (!known) known = global(llvm::ConstantDataArray::getString(context, text));
        return known;
    }
    llvm::Constant *row(const Words &words) { return llvm::ConstantStruct::getAnon(context, words, true); }
    // Rows one after another, and their address; null for none.
    llvm::Constant *table(const Words &rows) { return rows.empty() ? null() : global(row(rows)); }
    llvm::Constant *integers(const std::vector<int64_t> &values) {
        Words words;
        for (int64_t value : values) words.push_back(integer(value));
        return table(words);
    }
    llvm::Constant *kernel(const KernelSpec &spec) {
        // Halide's argv form of the function.
        std::string symbol = kernel_symbol(spec, program.target) + "_argv";
        auto *type = llvm::FunctionType::get(llvm::Type::getInt32Ty(context), {pointer}, false);
        return llvm::cast<llvm::Constant>(module.getOrInsertFunction(symbol, type).getCallee());
    }

    llvm::Constant *device() {
        const std::string &symbol = program.target.device;
        return symbol.empty() ? null() : module.getOrInsertGlobal(symbol, word);
    }

    llvm::Constant *arg(const PlanArg &a) {
        std::vector<int64_t> dims;
        for (const cryo_dim &dim : a.dims) dims.insert(dims.end(), {dim.extent, dim.stride});
        return row({integer(a.kind), integer(a.region), integer(a.type), integer(a.offset), integer(a.block_stride),
                    integer(a.tile_stride), integer(int64_t(a.dims.size())), integers(dims)});
    }
    llvm::Constant *step(const PlanStep &s) {
        Words args;
        for (const PlanArg &a : s.args) args.push_back(arg(a));
        return row({kernel(s.kernel), text(s.layer), text(s.kernel.key()), table(args), integer(int64_t(s.args.size())),
                    integer(s.tiles), integer(s.of_block), integer(s.joined_steps), number(s.flops), number(s.bytes),
                    integer(s.outputs)});
    }
    llvm::Constant *phase(const PlanPhase &p) {
        Words words;
        for (const std::vector<PlanStep> *steps : {&p.block, &p.tile, &p.tail}) {
            Words rows;
            for (const PlanStep &s : *steps) rows.push_back(step(s));
            words.push_back(table(rows));
            words.push_back(integer(int64_t(rows.size())));
        }
        return row(words);
    }
    llvm::Constant *plan(const std::string &name) {
        for (const Plan &p : program.plans) {
            if (p.name() != name) continue;
            Words phases;
            for (const PlanPhase &ph : p.phases) phases.push_back(phase(ph));
            return global(row({text(p.name()), integer(p.lanes), table(phases), integer(int64_t(phases.size())),
                               integer(p.arena_bytes), integer(p.scratch_bytes), integer(p.loss_offset),
                               integer(p.correct_offset), integer(p.min_batch),
                               p.min_batch_layer.empty() ? null() : text(p.min_batch_layer), integer(p.prepared_phases),
                               integer(p.prepared_bytes), integer(p.strip_tasks)}));
        }
        return null();
    }
    llvm::Constant *parameter(const ParameterEntry &p) {
        return row({text(p.name), integer(p.role), integer(p.offset), integer(p.shape.elements()),
                    integer(p.shape.rank()), integers(p.shape.dims), integer(p.init), number(p.init_value)});
    }
    void write() {
        Words parameters;
        for (const ParameterEntry &p : program.parameters.entries) parameters.push_back(parameter(p));
        std::vector<int64_t> sample(program.input.dims.begin() + 1, program.input.dims.end());
        const Schedule &schedule = program.optimizer.schedule;
        cryo_rate rate = schedule.kind == Schedule::step     ? CRYO_RATE_STEP
                         : schedule.kind == Schedule::cosine ? CRYO_RATE_COSINE
                                                             : CRYO_RATE_CONSTANT;
        global(row({integer(CRYO_PLAN_VERSION),
                    text(program.name),
                    text(program.target.name),
                    text(program.fingerprint),
                    integer(program.target.lanes),
                    integer(program.max_batch),
                    integer(int64_t(sample.size())),
                    integers(sample),
                    integer(program.classes),
                    table(parameters),
                    integer(int64_t(parameters.size())),
                    integer(program.parameters.bytes),
                    number(program.optimizer.learning_rate),
                    integer(rate),
                    number(schedule.period),
                    number(schedule.gamma),
                    plan("train"),
                    plan("evaluate"),
                    plan("infer"),
                    plan("infer_one"),
                    integer(program.infer_one_batch),
                    device()}),
               program.name + "_program");
    }
};

} // namespace

std::vector<char> emit_program(const ProgramTables &program) {
    static std::once_flag initialized;
    std::call_once(initialized, [] {
        llvm::InitializeAllTargetInfos();
        llvm::InitializeAllTargets();
        llvm::InitializeAllTargetMCs();
        llvm::InitializeAllAsmPrinters();
    });
    Tables tables(program);
    std::string triple = llvm_triple(program.target.name), error;
    const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
    if (!target) throw CompileError("target '" + program.target.name + "': " + error);
    std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(triple, "", "", {}, llvm::Reloc::PIC_));
    tables.module.setTargetTriple(triple);
    tables.module.setDataLayout(machine->createDataLayout());
    tables.write();

    llvm::SmallVector<char, 0> bytes;
    llvm::raw_svector_ostream stream(bytes);
    llvm::legacy::PassManager passes;
    if (machine->addPassesToEmitFile(passes, stream, nullptr, llvm::CodeGenFileType::ObjectFile))
        throw CompileError("target '" + program.target.name + "': LLVM cannot write objects for it");
    passes.run(tables.module);
    return std::vector<char>(bytes.begin(), bytes.end());
}

void write_archive(const std::vector<CompiledObject> &objects, const std::string &path) {
    std::vector<llvm::NewArchiveMember> members;
    for (const CompiledObject &object : objects) {
        auto buffer = llvm::MemoryBufferRef(llvm::StringRef(object.bytes.data(), object.bytes.size()), object.name);
        members.emplace_back(buffer);
    }
    auto archive = llvm::writeArchiveToBuffer(members, llvm::SymtabWritingMode::NormalSymtab,
                                              llvm::object::Archive::K_GNU, true, false);
    if (!archive) throw CompileError("'" + path + "': " + llvm::toString(archive.takeError()));
    write_file(path, (*archive)->getBufferStart(), (*archive)->getBufferSize());
}

} // namespace cryolite
