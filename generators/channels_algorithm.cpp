// What the algorithms of `channels_conv2d` share: the source with its padding, and the order of a register tile.
#include "channels_algorithm.h"
#include "lanes.h"
#include "schedule.h"

namespace cryolite {
using Halide::Expr, Halide::Func, Halide::TailStrategy, Halide::Var;

Expr ChannelsSource::begin(const Expr &channel) const { return bias.defined() ? bias(channel) : nothing(); }

Func channels_padded(const ChannelsSource &source) {
    const ChannelsConv &q = source.conv;
    const ChannelsConv::Schedule &task = source.task;
    const Func &x = source.x;
    Var ch("ch"), xx("xx"), yy("yy");
    Func padded("padded");
    Expr row = yy + source.first_row - q.padding, column = xx - q.padding;
    if (q.tests_borders(task)) {
        const Expr any;
        Func bordered = Halide::BoundaryConditions::constant_exterior(x, 0.f, {{any, any}, {0, q.w}, {0, q.h}});
        padded(ch, xx, yy) = bordered(ch, column, row);
        return padded;
    }
    if (!q.copies(task)) {
        padded(ch, xx, yy) = x(ch, xx, yy + source.first_row);
        return padded;
    }
    const int channels_read = q.depthwise() ? task.channels : q.c;
    Expr from = q.channels_copied(task) > channels_read ? Expr(min(ch, channels_read - 1)) : Expr(ch);
    Expr inside = row >= 0 && row < q.h && column >= 0 && column < q.w;
    padded(ch, xx, yy) = Halide::select(inside, x(from, clamp(column, 0, q.w - 1), clamp(row, 0, q.h - 1)), 0.f);
    const int extent = source.planar ? q.columns_read() : q.channels_copied(task);
    const int width = vector_width(extent, q.vector);
    padded.compute_root();
    if (source.planar) padded.reorder_storage(xx, yy, ch);
    Var inner = source.planar ? xx : ch;
    if (source.planar) padded.reorder(xx, yy, ch);
    // What a guarded block reads may be less than a vector; the copy is not.
    if (width > 1) padded.vectorize(inner, width, extent % width ? TailStrategy::ShiftInwards : TailStrategy::RoundUp);
    return padded;
}

void order_register_tile(Halide::Stage update, const Var &lane, const Var &vector, const std::vector<Var> &pixels,
                         bool pixels_wait, const Halide::RDom &sum) {
    std::vector<Halide::VarOrRVar> order{lane};
    if (!pixels_wait) order.push_back(vector);
    order.insert(order.end(), pixels.begin(), pixels.end());
    if (pixels_wait) order.push_back(vector);
    for (int i = 0; i < sum.dimensions(); i++) order.push_back(sum[i]);
    update.reorder(order).vectorize(lane).unroll(vector).never_partition_all();
    for (const Var &p : pixels) update.unroll(p);
}

} // namespace cryolite
