// Data sets in the IDX format of MNIST and its relatives, plain or gzipped, from files that nobody vouches for.
// With whole_file.h the library cryolite_data: depends on zlib only, so that programs without the compiler read them
// too.
#ifndef CRYOLITE_IDX_H
#define CRYOLITE_IDX_H

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace cryolite {

// A file is missing, damaged, or not what was asked for. what() is one line that names the path.
struct DataError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Unsigned bytes with their extents, outermost first.
struct IdxArray {
    std::vector<int64_t> dims;
    std::vector<uint8_t> bytes;
};

// Reads one file of unsigned bytes, gzipped or not. Throws DataError where the magic number is another, the rank is not
// between the two given, the bytes are fewer or more than the header says, or the header asks for more than 1 GiB.
// Memory grows with the bytes that are really there, never above what the header says.
IdxArray read_idx(const std::string &path, int min_rank, int max_rank);

// Images [n][c][h][w] from 0 to 1, and labels [n].
struct Dataset {
    int64_t count = 0;
    int64_t channels = 0, height = 0, width = 0;
    std::vector<float> images;
    std::vector<int32_t> labels;

    int64_t sample_elements() const { return channels * height * width; }
    const float *sample(int64_t i) const { return images.data() + i * sample_elements(); }
    void truncate(int64_t samples); // keeps the first ones; more than there are: all
};

// folder/<split>-images-idx3-ubyte and folder/<split>-labels-idx1-ubyte, as they are or with .gz; split is "train" or
// "t10k". Images are [n, h, w] or [n, c, h, w]. Labels must be from 0 to classes - 1. Throws DataError.
Dataset load_dataset(const std::string &folder, const std::string &split, int64_t classes);

} // namespace cryolite
#endif
