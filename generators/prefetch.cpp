// A lowering pass that puts prefetches into the innermost loop that reads a buffer (prefetch.h).
#include "prefetch.h"

#include <optional>
#include <vector>

namespace cryolite {
using namespace Halide::Internal;
using Halide::Expr;

namespace {

constexpr int line = 16; // floats in a line of a cache
// Floats, where every value is read once. Of Winograd weights from memory 512 and 1024 take the least time (AVX2).
constexpr int ahead = 1024;

class PrefetchWeights : public IRMutator {
public:
    explicit PrefetchWeights(std::string buffer) : buffer_(std::move(buffer)) {}

protected:
    using IRMutator::visit;

    Stmt visit(const LetStmt *op) override {
        names_.push_back({op->name, op->value});
        Stmt stmt = IRMutator::visit(op);
        names_.pop_back();
        return stmt;
    }
    Stmt visit(const For *op) override {
        names_.push_back({op->name, Expr()});
        loops_.push_back(op);
        read_ = Expr();
        Stmt body = mutate(op->body);
        if (read_.defined()) {
            if (std::optional<Stmt> ahead = prefetches()) body = Block::make(*ahead, body);
            read_ = Expr(); // loops around this one are no innermost ones
        }
        loops_.pop_back();
        names_.pop_back();
        return For::make(op->name, op->min, op->extent, op->for_type, op->partition_policy, op->device_api, body);
    }
    Expr visit(const Load *op) override {
        const Ramp *ramp = op->index.as<Ramp>();
        if (op->name == buffer_ && !read_.defined()) read_ = in_loops(ramp ? ramp->base : op->index);
        return IRMutator::visit(op);
    }

private:
    struct Name {
        std::string name;
        Expr value; // undefined: of a loop
    };

    // In terms of loops alone.
    Expr in_loops(Expr e) const {
        for (size_t i = names_.size(); i-- > 0;)
            if (names_[i].value.defined()) e = substitute(names_[i].name, names_[i].value, e);
        return e;
    }

    std::optional<Stmt> prefetches() const {
        size_t first = loops_.size(); // the outermost loop that reads a chunk once more, in one from chunk to chunk
        bool goes_on = false;
        std::vector<int64_t> steps, extents;
        for (size_t i = 0; i < loops_.size(); i++) {
            Expr loop = Variable::make(Halide::Int(32), loops_[i]->name);
            Expr step = simplify(substitute(loops_[i]->name, loop + 1, read_) - read_);
            const auto extent = as_const_int(simplify(loops_[i]->extent)), by = as_const_int(step);
            if (!extent || !by) return std::nullopt;
            steps.push_back(*by);
            extents.push_back(*extent);
            goes_on = goes_on || *by != 0;
            if (goes_on && *by == 0 && first == loops_.size()) first = i;
        }
        const int64_t step = steps.back();
        if (step < 1) return std::nullopt;
        if (first == loops_.size()) return asks(read_ + ahead, step);
        Expr begin = read_, reading = 0; // of the chunk; which one of all its readings
        int64_t readings = 1, chunk = step;
        for (size_t i = first; i < loops_.size(); i++) {
            Expr loop = Variable::make(Halide::Int(32), loops_[i]->name);
            if (steps[i] == 0) {
                reading = reading * int(extents[i]) + (loop - loops_[i]->min);
                readings *= extents[i];
            } else {
                chunk += steps[i] * (extents[i] - 1);
                begin = substitute(loops_[i]->name, loops_[i]->min, begin);
            }
        }
        const int64_t share = (chunk / readings + line - 1) / line * line;
        Expr at = begin + int(chunk) + reading * int(share) + simplify(read_ - begin) / int(readings);
        return asks(at, (step + readings - 1) / readings);
    }

    // For the lines of so many floats.
    Stmt asks(const Expr &at, int64_t floats) const {
        Stmt all;
        for (int64_t offset = 0; offset < floats; offset += line) {
            const std::vector<Expr> arguments{Variable::make(Halide::Handle(), buffer_), simplify(at + int(offset)), 1,
                                              1};
            Stmt one = Evaluate::make(Call::make(Halide::Float(32), Call::prefetch, arguments, Call::Intrinsic));
            all = all.defined() ? Block::make(all, one) : one;
        }
        return all;
    }

    std::string buffer_;
    std::vector<Name> names_;
    std::vector<const For *> loops_;
    Expr read_; // index of the first read in the loop at hand
};

class PrefetchInLoop : public IRMutator {
public:
    PrefetchInLoop(std::vector<std::string> loops, std::vector<LinesAhead> lines)
        : loops_(std::move(loops)), lines_(std::move(lines)) {}

    using IRMutator::mutate;
    Stmt mutate(const Stmt &s) override {
        const bool whole = depth_++ == 0;
        Stmt result = IRMutator::mutate(s);
        depth_--;
        if (whole && !found_) throw Halide::CompileError("no loop " + loops_.back() + " to prefetch in");
        return result;
    }

protected:
    using IRMutator::visit;

    Stmt visit(const For *op) override {
        const bool next = around_ < loops_.size() && op->name == loops_[around_];
        around_ += next;
        Stmt body = mutate(op->body);
        if (next && around_ == loops_.size()) {
            found_ = true;
            for (const LinesAhead &lines : lines_) body = Block::make(asks(lines), body);
        }
        around_ -= next;
        return For::make(op->name, op->min, op->extent, op->for_type, op->partition_policy, op->device_api, body);
    }

private:
    static Stmt loop(const std::string &name, int extent, const Stmt &body) {
        return For::make(name, 0, extent, ForType::Serial, Halide::Partition::Never, Halide::DeviceAPI::None, body);
    }
    // Halide's own prefetches go to L1 alone.
    static Stmt asks(const LinesAhead &lines) {
        Expr at = Halide::cast(Halide::UInt(64), loop_variable("base") + loop_variable("line") * lines.step);
        Expr host = Halide::reinterpret(Halide::UInt(64), Variable::make(Halide::Handle(), lines.buffer));
        Expr address = Halide::reinterpret(Halide::Handle(), host + at * 4);
        const int read = 0, into_l2 = 2, data = 1;
        Stmt ask = Evaluate::make(
            Call::make(Halide::Int(32), "llvm.prefetch.p0", {address, read, into_l2, data}, Call::Extern));
        return loop("place", lines.places, LetStmt::make("base", lines.index, loop("line", lines.count, ask)));
    }

    std::vector<std::string> loops_;
    std::vector<LinesAhead> lines_;
    size_t around_ = 0; // so many of loops_ are around
    int depth_ = 0;
    bool found_ = false;
};

} // namespace

Expr loop_variable(const std::string &name) { return Variable::make(Halide::Int(32), name); }

void prefetch_in_loop(Halide::Pipeline pipeline, const std::vector<std::string> &loops,
                      const std::vector<LinesAhead> &lines) {
    pipeline.add_custom_lowering_pass(new PrefetchInLoop(loops, lines));
}

void prefetch_weights(Halide::Pipeline pipeline, const std::string &buffer) {
    pipeline.add_custom_lowering_pass(new PrefetchWeights(buffer));
}

} // namespace cryolite
