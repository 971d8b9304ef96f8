// `channels_conv2d`, a chunk of input channels after the other: each register tile adds the chunk's products to sums
// that stay in L1 (ChannelsConv::Schedule::chunk).
#include "channels_algorithm.h"
#include "lanes.h"
#include "schedule.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::RDom, Halide::TailStrategy, Halide::Var;

namespace {

class InChunks : public ChannelsAlgorithm {
public:
    explicit InChunks(ChannelsSource source) : source_(std::move(source)), padded_(channels_padded(source_)) {}

    Func product() override {
        const ChannelsConv &q = source_.conv;
        const ChannelsConv::Schedule &task = source_.task;
        const int block = task.block(q), across = q.wo * q.pool, count = q.pixels(task);
        Var channel("channel"), p("p"), piece("piece"), column("column"), row("row"), px("px"), py("py");
        d_ = RDom(0, task.chunk);
        parts_ = RDom(0, q.c / task.chunk, 0, q.s, 0, q.r);
        Expr from = piece * task.chunk + d_, pixel = count % task.tile_x ? Expr(min(p, count - 1)) : Expr(p);
        sum_(channel, p, piece, column, row) = nothing();
        sum_(channel, p, piece, column, row) +=
            source_.u(channel % block, from, column, row, channel / block) *
            padded_(from, pixel % across * q.stride + column, pixel / across * q.stride + row);
        total_(channel, p) = source_.begin(channel);
        total_(channel, p) += sum_(channel, p, parts_.x, parts_.y, parts_.z);
        Func product("product");
        product(channel, px, py) = total_(channel, px + across * py);
        return product;
    }

    void schedule(Func out, Var channel, Var px, Var py) override {
        const ChannelsConv &q = source_.conv;
        const ChannelsConv::Schedule &task = source_.task;
        const int block = task.block(q), v = q.vector;
        Var co("co"), ci("ci"), cv("cv"), cl("cl"), po("po"), pi("pi"), p = total_.args()[1];
        const TailStrategy whole = TailStrategy::RoundUp;
        out.split(channel, co, ci, block, whole).split(ci, cv, cl, v, whole).reorder(cl, cv, px, py, co);
        out.vectorize(cl).unroll(cv).never_partition_all();
        total_.compute_at(out, co).store_in(Halide::MemoryType::Stack).bound_extent(channel, block);
        total_.bound_extent(p, ceil_div(q.pixels(task), task.tile_x) * task.tile_x);
        total_.vectorize(channel, v).unroll(channel);
        auto total = total_.update();
        total.split(channel, cv, cl, v, whole).split(p, po, pi, task.tile_x, whole);
        total.reorder(cl, cv, pi, po, parts_.x, parts_.y, parts_.z).vectorize(cl).unroll(cv).unroll(pi);
        total.never_partition_all();
        sum_.compute_at(total_, po).bound_extent(channel, block).bound_extent(p, task.tile_x);
        sum_.vectorize(channel, v).unroll(channel).unroll(p);
        auto update = sum_.update();
        update.split(channel, cv, cl, v, whole);
        order_register_tile(update, cl, cv, {p}, task.vectors > task.tile_x, d_);
    }

    std::vector<Func> in_scratch() const override { return {padded_}; }

private:
    ChannelsSource source_;
    Func padded_, sum_{"sum"}, total_{"total"};
    RDom d_, parts_;
};

} // namespace

std::unique_ptr<ChannelsAlgorithm> channels_in_chunks(const ChannelsSource &source) {
    return std::make_unique<InChunks>(source);
}

} // namespace cryolite
