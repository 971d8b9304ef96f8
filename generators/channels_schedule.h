// Convolutions of one sample whose channels lie innermost: what the compiler and the generator both must know. No
// Halide here.
#pragma once

#include <string>
#include <vector>

namespace cryolite {

// A linear layer is a convolution whose window is the whole image. `pool`: windows of pool x pixels, side by side, that
// the program behind the convolution reduces; 1 for none.
struct ChannelsConv {
    int c, h, w, k, r, s, stride, padding, groups;
    int pool, ho, wo;   // of the program's result
    int vector;         // float32 lanes of the target
    int m = 0;          // > 0: by Winograd's F(m x m, r x r)
    int processors = 1; // to be kept busy

    bool depthwise() const { return groups > 1 && groups == c && groups == k; }
    int t() const { return m + r - 1; } // side of Winograd's tiles
    int steps() const { return c / groups * r * s; }
    // Columns of x, rows of x and of its padding that `rows` rows of the result read.
    int columns_read() const { return (wo * pool - 1) * stride + s; }
    int rows_read(int rows) const { return (rows * pool - 1) * stride + r; }

    struct Schedule {
        int rows, channels;          // of one task: one of them is all
        int vectors, tile_x, tile_y; // accumulators: vectors of channels by pixels of the result
        // > 0: a block's sums of all pixels are made so many input channels at a time, whose weights stay in L1 from
        // one tile of pixels to the next; tile_x then counts pixels that follow each other, across rows.
        int chunk = 0;
        int block(const ChannelsConv &q) const { return vectors * q.vector; } // channels that share a piece of weights
        int blocks(const ChannelsConv &q) const { return (channels + block(q) - 1) / block(q); }
    };
    Schedule schedule() const;
    int pixels(const Schedule &s) const { return wo * pool * s.rows * pool; } // of a task, of the convolution's result
    int tiles(const Schedule &s) const { return (ho / s.rows) * (k / s.channels); }
    // Whether a task copies what it reads of x: with its padding, or with channels that fill its last block up.
    bool copies(const Schedule &s) const {
        return (padding > 0 && !tests_borders(s)) || (depthwise() && s.channels % s.block(*this));
    }
    // A depthwise layer reads each pixel a few times: border tiles have code of their own instead.
    bool tests_borders(const Schedule &s) const {
        return depthwise() && padding > 0 && s.channels % s.block(*this) == 0 && r * this->s <= 25;
    }
    int channels_copied(const Schedule &s) const { return depthwise() ? s.blocks(*this) * s.block(*this) : c; }
    // Winograd's tiles in a row of the result, and in so many rows of it: the last ones may reach beyond the image.
    int tiles_x() const { return (wo + m - 1) / m; }
    int tiles_y(int of_rows) const { return (of_rows + m - 1) / m; }
    int stored_tiles(const Schedule &s) const { return (tiles_x() * tiles_y(s.rows)) | 1; } // odd: other cache sets
    long scratch(const Schedule &s) const; // floats of the copy, or of Winograd's input and products

    // The m that takes least time, 0 for a direct convolution.
    int best_m() const;
};

// Strides of channels, columns and rows, in elements.
struct ChannelsPlace {
    int c = 1, x = 1, y = 1;
};
std::string places_text(const std::vector<ChannelsPlace> &places); // "1,64,2048 1,32,1024"
std::vector<ChannelsPlace> parse_places(const std::string &text);

// Rows of a task of a pointwise kernel, a divisor of h.
int channels_map_rows(int c, int h, int w);

} // namespace cryolite
