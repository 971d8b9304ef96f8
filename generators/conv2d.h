// What the convolution generators share: the shape, its parameters, conditions at the border of the image.
#pragma once

#include "gpu.h"
#include "lanes.h"
#include "prefetch.h"
#include "scratch.h"
#include "tuning.h"

#include <algorithm>

namespace cryolite {

// Of one group; blocks: 0 on a GPU, see lanes.h; the groups of a block lie one after another, as blocks of fewer
// channels.
struct ConvShape {
    int lanes, blocks, groups, c, h, w, k, r, s, stride, padding;

    int ho() const { return (h + 2 * padding - r) / stride + 1; }
    int wo() const { return (w + 2 * padding - s) / stride + 1; }
};

// Of a schedule for GPUs: the blocks of the batch that it is made for, and what knobs ask for, 0: its own choice: a
// thread's tile of columns, rows and channels, and the most multiply-adds of its loop's code. Of dw: x is the warps of
// a group that differ in input channels, c and k are input and output channels.
struct GpuTile {
    int64_t blocks;
    int x = 0, y = 0, c = 0, k = 0, unroll = 0;
    bool uniform = false; // loops are as long in all threads: PoCL 3.1 makes wrong code of others
};

// The shape in the parameters of a kernel, of one group: what the tuning spaces are made from.
inline ConvShape conv_shape(const KernelShape &q) {
    const int g = std::max(1, q.integer("groups"));
    return {q.lanes,
            std::max(1, q.integer("n", 0) / q.lanes),
            g,
            q.integer("c") / g,
            q.integer("h"),
            q.integer("w"),
            q.integer("k") / g,
            q.integer("r"),
            q.integer("s"),
            std::max(1, q.integer("stride")),
            q.integer("padding", 0)};
}

inline Halide::Expr within(const Halide::Expr &i, int extent) { return i >= 0 && i < extent; }

// Tells loop partitioning that most tiles lie inside.
inline Halide::Expr inner_clamp(const Halide::Expr &i, int extent) { return clamp(likely(i), 0, extent - 1); }

template <class Derived> class ConvBase : public Halide::Generator<Derived> {
public:
    Halide::GeneratorParam<int> lanes{"lanes", 0}, n{"n", 0}, c{"c", 1}, h{"h", 1}, w{"w", 1}, k{"k", 1}, r{"r", 1},
        s{"s", 1}, stride{"stride", 1}, padding{"padding", 0}, groups{"groups", 1};
    Halide::GeneratorParam<int> weight_c{"weight_c", 0}; // input channels of the whole weight, where c are some of them
    Halide::GeneratorParam<int> plane{"plane", 0}; // of an image of one row: the whole row's columns, where w are some
    Halide::GeneratorParam<bool> pack{"pack", false};                     // of a window of one pixel: schedule.h
    Halide::GeneratorParam<int> tile_x{"tile_x", 0}, tile_c{"tile_c", 0}; // knobs (tuning.h)
    Halide::GeneratorParam<int> tile_y{"tile_y", 0};                      // a knob on a GPU

protected:
    ConvShape shape() const {
        const int v = resolve_lanes(this->get_target(), lanes);
        const int g = groups, of_x = c, of_y = k;
        if (g < 1 || of_x % g || of_y % g) throw Halide::CompileError("the groups do not divide the channels");
        ConvShape q{v, resolve_blocks(this->get_target(), n, v), g, of_x / g, h, w, of_y / g, r, s, stride, padding};
        if (pack && (q.r != 1 || q.s != 1 || q.stride != 1 || q.padding != 0))
            throw Halide::CompileError("only windows of one pixel are packed");
        if (q.stride < 1 || q.padding < 0 || q.h + 2 * q.padding < q.r || q.w + 2 * q.padding < q.s)
            throw Halide::CompileError("the window does not fit the padded input");
        return q;
    }
    int accumulators() const { return registers_of(this->get_target(), shape().lanes).accumulators(); }
    GpuTile gpu_tile() const {
        const Halide::Target target = this->get_target();
        GpuTile wanted{gpu::blocks_of(n, resolve_lanes(target, lanes)), tile_x, tile_y, tile_c};
        wanted.uniform = target.has_feature(Halide::Target::OpenCL);
        return wanted;
    }

    // Windows of one pixel, of one image of one row: a product of matrices.
    static bool is_product(const ConvShape &q) {
        return q.r == 1 && q.s == 1 && q.stride == 1 && q.padding == 0 && q.h == 1 && q.blocks * q.groups == 1;
    }
    // Pixels of a whole row.
    int row_pixels(const ConvShape &q) const { return plane ? int(plane) : q.w; }

    // The last input, for what `pack` copies.
    void add_scratch() {
        if (pack) this->template add_input<Halide::Buffer<float, 1>>("scratch");
    }
    // Puts the copied source of `channels` channels there.
    void place_copy(const Halide::Func &copy, int channels) {
        copy_ = copy;
        copied_channels_ = channels;
    }
    void prefetch(const TileAhead &ahead) { ahead_ = ahead; }
    Halide::Pipeline build_pipeline() override {
        Halide::Pipeline pipeline = Halide::Generator<Derived>::build_pipeline();
        if (copied_channels_)
            place_in_scratch(pipeline, "scratch", packed_elements(shape().lanes, copied_channels_), {copy_});
        prefetch_beside_products(pipeline, ahead_);
        return pipeline;
    }

    // A window's columns share vectors of the source: with 16 registers more than these leave none for the sums.
    int most_x() const {
        const ConvShape q = shape();
        const bool depthwise = q.c == 1 && q.k == 1;
        if (registers_of(this->get_target(), q.lanes).count >= 32) {
            if (pack) return most_packed_pixels;
            // 144 @ 24 takes 0.34 of the time of whole rows (Zen 4, one thread; two that share a memory: 0.8).
            return depthwise ? 12 : 1 << 30;
        }
        if (!depthwise) return 3;
        // Depthwise, a short row is one tile, whose borders are known: 5 to 8 pixels take 1.5 to 2.1 times less than in
        // tiles of 4.
        return q.stride == 1 && std::max(q.w, q.wo()) <= 8 ? 8 : 4;
    }

    template <class B> void set_input(B &x, const ConvShape &q) const { set_image(x, q, q.w, q.h, q.c); }
    template <class B> void set_output(B &y, const ConvShape &q) const { set_image(y, q, q.wo(), q.ho(), q.k); }
    // Groups lie one after another as blocks do; on a GPU they are channels.
    template <class B> void set_image(B &image, const ConvShape &q, int w, int h, int channels) const {
        const bool together = q.blocks == 0;
        set_blocks(image, {q.lanes, w, h, together ? channels * q.groups : channels}, q.blocks * q.groups);
        if (const int whole = plane) {
            image.dim(2).set_stride(q.lanes * whole);
            image.dim(3).set_stride(q.lanes * whole);
            image.dim(4).set_stride(q.lanes * whole * channels);
        }
    }
    template <class B> void set_weight(B &weight, const ConvShape &q) const {
        set_dense(weight, {q.s, q.r, q.c, q.k * q.groups});
        if (const int whole = weight_c) weight.dim(3).set_stride(q.s * q.r * whole);
    }

private:
    Halide::Func copy_;
    int copied_channels_ = 0; // 0: no copy
    TileAhead ahead_;
};

} // namespace cryolite
