// IDX: two zero bytes, the type (8: unsigned byte), the rank, the extents as big-endian 32-bit numbers, the elements.
#include "idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

namespace cryolite {

namespace {

constexpr int64_t max_bytes = int64_t(1) << 30;
constexpr size_t chunk = size_t(1) << 20;

// A file that is read from front to back; zlib passes through what is not gzipped.
class Reader {
public:
    explicit Reader(const std::string &path) : path_(path) {
        std::error_code error;
        if (std::filesystem::is_directory(path, error)) fail("is a folder");
        errno = 0;
        file_ = gzopen(path.c_str(), "rb");
        if (!file_) fail(errno ? std::strerror(errno) : "out of memory");
        gzbuffer(file_, 1 << 17);
    }
    ~Reader() { gzclose_r(file_); }
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;

    [[noreturn]] void fail(const std::string &message) const { throw DataError("'" + path_ + "': " + message); }

    // Up to size bytes; fewer only at the end of the file. A gzip stream that breaks off before its trailer is an
    // error.
    size_t read(uint8_t *bytes, size_t size) {
        int got = gzread(file_, bytes, unsigned(size));
        int code = Z_OK;
        const char *text = gzerror(file_, &code);
        if (got < 0 || code < 0) {
            if (code == Z_ERRNO) fail(std::strerror(errno));
            if (code == Z_BUF_ERROR) fail("the gzip stream is truncated");
            fail(std::string("the gzip stream is damaged (") + text + ")");
        }
        return size_t(got);
    }

private:
    std::string path_;
    gzFile file_ = nullptr;
};

int64_t big_endian(const uint8_t *bytes) {
    return int64_t(bytes[0]) << 24 | int64_t(bytes[1]) << 16 | int64_t(bytes[2]) << 8 | int64_t(bytes[3]);
}

std::vector<int64_t> read_header(Reader &reader, int min_rank, int max_rank) {
    uint8_t magic[4];
    if (reader.read(magic, sizeof magic) != sizeof magic) reader.fail("too short for an IDX header");
    int rank = magic[3];
    if (magic[0] || magic[1] || magic[2] != 8 || rank < min_rank || rank > max_rank) {
        char text[128];
        std::snprintf(text, sizeof text, "wrong magic number %02x%02x%02x%02x, expected 0000080%d", magic[0], magic[1],
                      magic[2], magic[3], min_rank);
        reader.fail(text);
    }
    std::vector<int64_t> dims;
    for (int i = 0; i < rank; i++) {
        uint8_t extent[4];
        if (reader.read(extent, sizeof extent) != sizeof extent) reader.fail("too short for an IDX header");
        dims.push_back(big_endian(extent));
        if (dims.back() == 0) reader.fail("the header has an extent of 0");
    }
    return dims;
}

int64_t checked_product(const Reader &reader, const std::vector<int64_t> &dims) {
    int64_t product = 1;
    for (int64_t extent : dims) { // both are below 2^32, so the product cannot wrap
        product *= extent;
        if (product > max_bytes) reader.fail("the header asks for more than 1 GiB");
    }
    return product;
}

std::string existing(const std::string &folder, const std::string &name) {
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) throw DataError("'" + folder + "' is no folder");
    std::string path = folder + "/" + name;
    for (const char *suffix : {"", ".gz"})
        if (std::filesystem::exists(path + suffix, error)) return path + suffix;
    throw DataError("'" + folder + "' holds neither " + name + " nor " + name + ".gz");
}

} // namespace

IdxArray read_idx(const std::string &path, int min_rank, int max_rank) {
    Reader reader(path);
    IdxArray array;
    array.dims = read_header(reader, min_rank, max_rank);
    size_t size = size_t(checked_product(reader, array.dims));
    while (array.bytes.size() < size) {
        size_t old = array.bytes.size(), wanted = std::min(chunk, size - old);
        array.bytes.resize(old + wanted);
        size_t got = reader.read(array.bytes.data() + old, wanted);
        if (got < wanted)
            reader.fail("truncated: the header says " + std::to_string(size) + " bytes, there are " +
                        std::to_string(old + got));
    }
    // Reads on to the end of the gzip stream, where its checksum is.
    uint8_t more;
    if (reader.read(&more, 1)) reader.fail("there are more bytes than the " + std::to_string(size) + " of the header");
    return array;
}

void Dataset::truncate(int64_t samples) {
    count = std::min(count, samples);
    images.resize(size_t(count * sample_elements()));
    labels.resize(size_t(count));
}

Dataset load_dataset(const std::string &folder, const std::string &split, int64_t classes) {
    const std::string images_path = existing(folder, split + "-images-idx3-ubyte");
    const std::string labels_path = existing(folder, split + "-labels-idx1-ubyte");
    IdxArray labels = read_idx(labels_path, 1, 1), images = read_idx(images_path, 3, 4);
    Dataset data;
    data.count = images.dims[0];
    if (labels.dims[0] != data.count)
        throw DataError("'" + labels_path + "': " + std::to_string(labels.dims[0]) + " labels for " +
                        std::to_string(data.count) + " images");
    size_t rank = images.dims.size();
    data.channels = rank == 4 ? images.dims[1] : 1;
    data.height = images.dims[rank - 2];
    data.width = images.dims[rank - 1];

    data.labels.reserve(labels.bytes.size());
    for (uint8_t label : labels.bytes) {
        if (label >= classes)
            throw DataError("'" + labels_path + "': label " + std::to_string(label) + " of sample " +
                            std::to_string(data.labels.size()) + " is out of range, 0 to " +
                            std::to_string(classes - 1));
        data.labels.push_back(label);
    }
    std::array<float, 256> scaled;
    for (int i = 0; i < 256; i++) scaled[size_t(i)] = float(i) / 255.0f;
    data.images.resize(images.bytes.size());
    std::transform(images.bytes.begin(), images.bytes.end(), data.images.begin(), [&](uint8_t b) { return scaled[b]; });
    return data;
}

} // namespace cryolite
