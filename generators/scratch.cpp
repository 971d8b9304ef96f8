// Loads and stores of some Funcs moved into an argument of the kernel (scratch.h).
#include "scratch.h"

#include <map>

namespace cryolite {
using namespace Halide::Internal;
using Halide::Expr, Halide::type_of;

namespace {

class MoveToScratch : public IRMutator {
public:
    MoveToScratch(std::string scratch, long elements, const std::vector<std::string> &names)
        : scratch_(std::move(scratch)), elements_(elements) {
        for (const std::string &name : names) offsets_[name] = -1;
    }

    using IRMutator::mutate;
    Stmt mutate(const Stmt &s) override {
        if (inside_) return IRMutator::mutate(s);
        inside_ = true;
        Expr buffer = Variable::make(type_of<halide_buffer_t *>(), scratch_ + ".buffer");
        Expr host = Call::make(type_of<void *>(), Call::buffer_get_host, {buffer}, Call::Extern);
        return LetStmt::make(scratch_, host, IRMutator::mutate(s));
    }

protected:
    using IRMutator::visit;

    Stmt visit(const Allocate *op) override {
        auto place = offsets_.find(op->name);
        if (place == offsets_.end()) return IRMutator::visit(op);
        const int32_t size = Allocate::constant_allocation_size(op->extents, op->name);
        if (size <= 0 || op->type.element_of() != Halide::Float(32))
            throw Halide::CompileError("scratch '" + op->name + "' has no constant size");
        if (place->second < 0) {
            place->second = used_;
            used_ += size;
        }
        if (used_ > elements_)
            throw Halide::CompileError("scratch of " + std::to_string(elements_) + " floats, " + std::to_string(used_) +
                                       " are needed");
        return mutate(op->body);
    }
    Stmt visit(const Free *op) override { return offsets_.count(op->name) ? Evaluate::make(0) : IRMutator::visit(op); }
    Expr visit(const Load *op) override {
        auto place = offsets_.find(op->name);
        if (place == offsets_.end()) return IRMutator::visit(op);
        return Load::make(op->type, scratch_, moved(op->index, place->second), op->image, op->param,
                          mutate(op->predicate), ModulusRemainder());
    }
    Stmt visit(const Store *op) override {
        auto place = offsets_.find(op->name);
        if (place == offsets_.end()) return IRMutator::visit(op);
        return Store::make(scratch_, mutate(op->value), moved(op->index, place->second), op->param,
                           mutate(op->predicate), ModulusRemainder());
    }

private:
    Expr moved(const Expr &index, long offset) {
        Expr by = int32_t(offset), i = mutate(index);
        if (const Ramp *ramp = i.as<Ramp>()) return Ramp::make(ramp->base + by, ramp->stride, ramp->lanes);
        return i + (i.type().is_vector() ? Broadcast::make(by, i.type().lanes()) : by);
    }

    std::string scratch_;
    long elements_, used_ = 0;
    bool inside_ = false;
    std::map<std::string, long> offsets_;
};

} // namespace

void place_in_scratch(Halide::Pipeline pipeline, const std::string &scratch, long elements,
                      const std::vector<Halide::Func> &funcs) {
    std::vector<std::string> names;
    for (const Halide::Func &f : funcs) names.push_back(f.name());
    pipeline.add_custom_lowering_pass(new MoveToScratch(scratch, elements, names));
}

} // namespace cryolite
