// What the generators of the path for one sample share.
#pragma once

#include "channels_schedule.h"
#include "pointwise_kernel.h"

#include <algorithm>

namespace cryolite {

inline Program parse_channels_program(const std::string &text) {
    try {
        return parse_program(text);
    } catch (const ProgramError &error) { throw Halide::CompileError(error.what()); }
}

// [n,c,h,w], [n,c] and [n] as channels, columns, rows.
inline std::vector<int> image_extents(const ProgramShape &shape) {
    std::vector<int> extents{1, 1, 1};
    if (shape.rank() > 1) extents[0] = shape.dims[1];
    if (shape.rank() > 2) extents[1] = shape.dims[3], extents[2] = shape.dims[2];
    return extents;
}

template <class Buffer> void set_place(Buffer &&buffer, const std::vector<int> &extents, const ChannelsPlace &place) {
    const int strides[] = {place.c, place.x, place.y};
    for (int d = 0; d < 3; d++) buffer.dim(d).set_bounds(0, extents[size_t(d)]).set_stride(strides[d]);
}

inline Point point_at(const ProgramShape &shape, Halide::Expr channel, Halide::Expr x, Halide::Expr y) {
    Point point{0, {0}};
    if (shape.rank() > 1) point.at.push_back(channel);
    if (shape.rank() > 2) point.at.insert(point.at.end(), {y, x});
    return point;
}

// A block value's arguments from the evaluator (lane, reversed dimensions, block) as channel, column, row.
inline std::vector<Halide::Expr> image_arguments(const std::vector<Halide::Expr> &arguments) {
    if (arguments.size() == 5) return {arguments[3], arguments[1], arguments[2]};
    return {arguments.size() == 3 ? arguments[1] : Halide::Expr(0), 0, 0};
}

// What the evaluator could not write in line, for each tile of its reader.
inline void schedule_staged(const Evaluator &evaluator, Halide::Func reader, Halide::VarOrRVar at) {
    for (const Evaluator::Staged &staged : evaluator.staged()) {
        Halide::Func f = staged.f, loops = staged.loops;
        Halide::LoopLevel level = at.is_rvar ? Halide::LoopLevel(reader, at.rvar) : Halide::LoopLevel(reader, at.var);
        if (loops.defined()) level = Halide::LoopLevel(loops, staged.at);
        f.compute_at(level).store_in(Halide::MemoryType::Stack);
    }
}

} // namespace cryolite
