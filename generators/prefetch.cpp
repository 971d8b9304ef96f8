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

// The locality that LLVM's prefetch is told. Halide's own prefetches have 0, "not used again": on an Intel processor
// such lines are kept in no cache but L1, and parameters come from memory again in the next step: inference of one
// image takes resnet18_cifar 3.1 times, resnet50 2.1 times as long (Emerald Rapids, two threads).
enum class Into { l2 = 2, l1 = 3 };

Stmt ask(const std::string &buffer, const Expr &index, Into cache) {
    Expr host = Halide::reinterpret(Halide::UInt(64), Variable::make(Halide::Handle(), buffer));
    Expr address = Halide::reinterpret(Halide::Handle(), host + Halide::cast(Halide::UInt(64), index) * 4);
    const int read = 0, data = 1;
    return Evaluate::make(
        Call::make(Halide::Int(32), "llvm.prefetch.p0", {address, read, int(cache), data}, Call::Extern));
}

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
            goes_on = goes_on || !by || *by != 0;
            if (!by || (goes_on && !extent)) return std::nullopt;
            steps.push_back(*by);
            extents.push_back(extent.value_or(0)); // not asked for, where the loop reads all of it again
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
            Stmt one = ask(buffer_, simplify(at + int(offset)), Into::l1);
            all = all.defined() ? Block::make(all, one) : one;
        }
        return all;
    }

    std::string buffer_;
    std::vector<Name> names_;
    std::vector<const For *> loops_;
    Expr read_; // index of the first read in the loop at hand
};

class PrefetchBesideProducts : public IRMutator {
public:
    explicit PrefetchBesideProducts(TileAhead ahead) : ahead_(std::move(ahead)) {}

    using IRMutator::mutate;
    Stmt mutate(const Stmt &s) override {
        const bool whole = depth_++ == 0;
        Stmt result = IRMutator::mutate(s);
        depth_--;
        if (whole && !found_) throw Halide::CompileError("no loop " + ahead_.loops.back() + " to prefetch in");
        return result;
    }

protected:
    using IRMutator::visit;

    Stmt visit(const For *op) override {
        const bool in_tile = around_ == ahead_.loops.size(), next = !in_tile && op->name == ahead_.loops[around_];
        around_ += next;
        found_ = found_ || around_ == ahead_.loops.size();
        if (in_tile) inside_.push_back(op);
        const int before = asked_;
        Stmt body = mutate(op->body);
        const bool innermost = asked_ == before;
        if (in_tile && innermost && starts_with(op->name, ahead_.products + ".s1.")) {
            for (const LinesAhead &lines : ahead_.lines) body = Block::make(share(lines), body);
            asked_++;
        }
        if (in_tile) inside_.pop_back();
        if (next && around_ == ahead_.loops.size() && ahead_.products.empty())
            for (const LinesAhead &lines : ahead_.lines) body = Block::make(all_of(lines), body);
        around_ -= next;
        return For::make(op->name, op->min, op->extent, op->for_type, op->partition_policy, op->device_api, body);
    }

private:
    static Stmt loop(const std::string &name, int extent, const Stmt &body) {
        return For::make(name, 0, extent, ForType::Serial, Halide::Partition::Never, Halide::DeviceAPI::None, body);
    }
    static Stmt all_of(const LinesAhead &lines) {
        const Expr line = loop_variable("line");
        return loop("place", lines.places,
                    loop("line", lines.count, ask(lines.buffer, lines.index + line * lines.step, Into::l2)));
    }

    // What one iteration of the loops inside the tile asks for: `each` lines, or one now and then.
    Stmt share(const LinesAhead &lines) const {
        Expr iteration = 0;
        int64_t iterations = 1;
        for (const For *loop : inside_) {
            const auto extent = as_const_int(simplify(loop->extent));
            if (!extent) throw Halide::CompileError("a loop inside a tile has no constant extent: " + loop->name);
            iteration = iteration * int(*extent) + (loop_variable(loop->name) - loop->min);
            iterations *= *extent;
        }
        const int64_t all = int64_t(lines.places) * lines.count;
        const int each = int((all + iterations - 1) / iterations);
        int every = 1; // iteration, a power of two
        while (2 * every * all <= iterations) every *= 2;
        const Expr number = loop_variable("number"), first = iteration / every * each;
        Stmt asks;
        for (int i = 0; i < each; i++) {
            Expr at = substitute("place", number % lines.places, lines.index) + number / lines.places * lines.step;
            Stmt one = LetStmt::make("number", min(first + i, int(all - 1)), ask(lines.buffer, at, Into::l2));
            asks = asks.defined() ? Block::make(asks, one) : one;
        }
        Expr condition = first < int(all);
        if (every > 1) condition = condition && iteration % every == 0;
        if (lines.when.defined()) condition = lines.when && condition;
        return IfThenElse::make(simplify(condition), asks);
    }

    TileAhead ahead_;
    std::vector<const For *> inside_; // loops around, inside the tile
    size_t around_ = 0;               // so many of the loops around the tile are around
    int asked_ = 0;                   // so many loops have asked
    int depth_ = 0;
    bool found_ = false;
};

} // namespace

Expr loop_variable(const std::string &name) { return Variable::make(Halide::Int(32), name); }

void prefetch_beside_products(Halide::Pipeline pipeline, const TileAhead &ahead) {
    if (!ahead.lines.empty()) pipeline.add_custom_lowering_pass(new PrefetchBesideProducts(ahead));
}

void prefetch_weights(Halide::Pipeline pipeline, const std::string &buffer) {
    pipeline.add_custom_lowering_pass(new PrefetchWeights(buffer));
}

} // namespace cryolite
