// `channels_conv2d`, directly: a register tile's sums are made whole, one tile after the other.
#include "channels_algorithm.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

class Direct : public ChannelsAlgorithm {
public:
    explicit Direct(ChannelsSource source) : source_(std::move(source)), padded_(channels_padded(source_)) {}

    Func product() override {
        const ChannelsConv &q = source_.conv;
        const int block = source_.task.block(q), blocks = source_.task.blocks(q);
        Var channel("channel"), px("px"), py("py");
        d_ = RDom(0, q.c / q.groups, 0, q.s, 0, q.r);
        // With a guarded last block Halide finds no bounds for what is read.
        Expr at = channel;
        if (source_.task.channels % block) at = unsafe_promise_clamped(channel, 0, block * blocks - 1);
        Expr from = d_.x;
        if (q.depthwise())
            from = at;
        else if (q.groups > 1)
            from = Halide::min(at, q.k - 1) / (q.k / q.groups) * (q.c / q.groups) + d_.x;
        sum_(channel, px, py) = source_.begin(at);
        sum_(channel, px, py) += source_.u(at % block, d_.x, d_.y, d_.z, at / block) *
                                 padded_(from, px * q.stride + d_.y, py * q.stride + d_.z);
        return sum_;
    }

    void schedule(Func out, Var channel, Var px, Var py) override {
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), xo("xo"), xi("xi"), yo("yo"), yi("yi"), sv("sv"), sl("sl");
        const ChannelsConv &q = source_.conv;
        const ChannelsConv::Schedule &task = source_.task;
        const int block = task.block(q);
        const bool is_whole = task.channels % block == 0;
        out.split(channel, co, ci, block, is_whole ? TailStrategy::RoundUp : TailStrategy::GuardWithIf);
        out.split(ci, cv, cl, q.vector, TailStrategy::RoundUp);
        out.split(px, xo, xi, task.tile_x, TailStrategy::ShiftInwards);
        out.split(py, yo, yi, task.tile_y, TailStrategy::ShiftInwards);
        out.reorder(cl, cv, xi, yi, xo, yo, co).vectorize(cl).unroll(cv).unroll(xi).unroll(yi);
        if (!q.tests_borders(task)) out.never_partition_all();
        sum_.compute_at(out, xo).store_in(Halide::MemoryType::Stack).bound_extent(channel, block);
        sum_.split(channel, sv, sl, q.vector, TailStrategy::RoundUp).reorder(sl, sv, px, py);
        sum_.vectorize(sl).unroll(sv).unroll(px).unroll(py);
        auto update = sum_.update();
        update.split(channel, sv, sl, q.vector, TailStrategy::RoundUp);
        const bool pixels_wait = task.vectors > task.tile_x * task.tile_y * q.pool * q.pool;
        order_register_tile(update, sl, sv, {px, py}, pixels_wait, d_);
        if (q.depthwise() && q.r * q.s <= 25)
            update.unroll(d_.x).unroll(d_.y).unroll(d_.z);
        else if (q.c == q.groups)
            update.unroll(d_.x).unroll(d_.y);
        else if (q.c / q.groups % 2 == 0 && task.vectors >= 2 && task.vectors <= 3) // LLVM spills with others
            update.unroll(d_.x, 2);
    }

    std::vector<Func> in_scratch() const override { return {padded_}; }

private:
    ChannelsSource source_;
    Func padded_, sum_{"sum"};
    RDom d_;
};

} // namespace

std::unique_ptr<ChannelsAlgorithm> channels_direct(const ChannelsSource &source) {
    return std::make_unique<Direct>(source);
}

} // namespace cryolite
