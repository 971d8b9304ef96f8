// The IDX reader against files that are right, and against files that lie.
#include "compiler/data/idx.h"
#include "compiler/data/whole_file.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace cryolite;
namespace fs = std::filesystem;

namespace {

std::string big_endian(uint32_t number) {
    return {char(number >> 24), char(number >> 16), char(number >> 8), char(number)};
}

std::string idx(const std::vector<uint32_t> &dims, const std::string &bytes) {
    std::string text = {0, 0, 8, char(dims.size())};
    for (uint32_t extent : dims) text += big_endian(extent);
    return text + bytes;
}

std::string pixels(size_t count) {
    std::string bytes;
    for (size_t i = 0; i < count; i++) bytes += char(i * 37 % 256);
    return bytes;
}

std::string gzip(const std::string &text) {
    z_stream stream = {};
    EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string out(deflateBound(&stream, text.size()) + 64, 0);
    stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(text.data()));
    stream.avail_in = uInt(text.size());
    stream.next_out = reinterpret_cast<Bytef *>(out.data());
    stream.avail_out = uInt(out.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

class Idx : public testing::Test {
protected:
    void SetUp() override {
        folder = fs::temp_directory_path() / ("idx_test_" + std::to_string(getpid()));
        fs::create_directories(folder);
    }
    void TearDown() override { fs::remove_all(folder); }

    std::string write(const std::string &name, const std::string &bytes) const {
        std::ofstream(folder / name, std::ios::binary) << bytes;
        return (folder / name).string();
    }
    void write_set(const std::string &images, const std::string &labels, const std::string &suffix = "") const {
        write("train-images-idx3-ubyte" + suffix, images);
        write("train-labels-idx1-ubyte" + suffix, labels);
    }
    Dataset load() const { return load_dataset(folder.string(), "train", 10); }
    // The text of the DataError that reading these bytes as images throws; "" where none is thrown.
    std::string error_of(const std::string &bytes) const {
        std::string path = write("file", bytes);
        try {
            read_idx(path, 3, 4);
            return {};
        } catch (const DataError &error) {
            EXPECT_EQ(std::string(error.what()).rfind("'" + path + "'", 0), 0u) << error.what();
            return error.what();
        }
    }
    std::string set_error() const {
        try {
            load();
            return {};
        } catch (const DataError &error) { return error.what(); }
    }
    fs::path folder;
};

#define EXPECT_CONTAINS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << (text)

TEST_F(Idx, PlainAndGzippedAreTheSame) {
    std::string images = idx({3, 4, 5}, pixels(60)), labels = idx({3}, {7, 0, 9});
    write_set(images, labels);
    Dataset plain = load();
    fs::remove(folder / "train-images-idx3-ubyte");
    fs::remove(folder / "train-labels-idx1-ubyte");
    write_set(gzip(images), gzip(labels), ".gz");
    Dataset zipped = load();
    EXPECT_EQ(plain.count, 3);
    EXPECT_EQ(plain.channels, 1);
    EXPECT_EQ(plain.height, 4);
    EXPECT_EQ(plain.width, 5);
    EXPECT_EQ(plain.labels, (std::vector<int32_t>{7, 0, 9}));
    ASSERT_EQ(plain.images.size(), 60u);
    for (size_t i = 0; i < 60; i++) EXPECT_EQ(plain.images[i], float(i * 37 % 256) / 255.0f);
    EXPECT_EQ(plain.images, zipped.images);
    EXPECT_EQ(plain.labels, zipped.labels);
}

TEST_F(Idx, ColourImages) {
    write_set(idx({2, 3, 4, 5}, pixels(120)), idx({2}, {1, 2}));
    Dataset data = load();
    EXPECT_EQ(data.channels, 3);
    EXPECT_EQ(data.sample_elements(), 60);
    EXPECT_EQ(data.sample(1)[0], float(60 * 37 % 256) / 255.0f);
}

TEST_F(Idx, Truncate) {
    write_set(idx({3, 4, 5}, pixels(60)), idx({3}, {7, 0, 9}));
    Dataset data = load();
    data.truncate(5);
    EXPECT_EQ(data.count, 3);
    data.truncate(2);
    EXPECT_EQ(data.count, 2);
    EXPECT_EQ(data.images.size(), 40u);
    EXPECT_EQ(data.labels, (std::vector<int32_t>{7, 0}));
}

TEST_F(Idx, EveryTruncationIsFound) {
    std::string whole = idx({3, 4, 5}, pixels(60)), zipped = gzip(whole);
    EXPECT_EQ(error_of(whole), "");
    EXPECT_EQ(error_of(zipped), "");
    for (size_t size = 0; size < whole.size(); size++) EXPECT_NE(error_of(whole.substr(0, size)), "") << size;
    for (size_t size = 0; size < zipped.size(); size++) EXPECT_NE(error_of(zipped.substr(0, size)), "") << size;
    EXPECT_CONTAINS(error_of(whole.substr(0, 40)), "truncated: the header says 60 bytes, there are 24");
    EXPECT_CONTAINS(error_of(zipped.substr(0, zipped.size() - 4)), "gzip");
}

TEST_F(Idx, FlippedBitsOfAGzipStreamAreFound) {
    std::string whole = idx({3, 4, 5}, pixels(60)), zipped = gzip(whole);
    int harmless = 0;
    for (size_t i = 10; i < zipped.size(); i++) { // before it are flags and times that mean nothing
        std::string damaged = zipped;
        damaged[i] = char(damaged[i] ^ 4);
        if (!error_of(damaged).empty()) continue;
        // Bits that fill the last byte of the compressed data are nobody's.
        harmless++;
        EXPECT_EQ(i, zipped.size() - 9);
        IdxArray array = read_idx((folder / "file").string(), 3, 3);
        EXPECT_EQ(std::string(array.bytes.begin(), array.bytes.end()), pixels(60));
    }
    EXPECT_LE(harmless, 1);
}

TEST_F(Idx, WrongMagic) {
    EXPECT_CONTAINS(error_of("PNG\x0d" + pixels(60)), "wrong magic number 504e470d");
    EXPECT_CONTAINS(error_of(idx({60}, pixels(60))), "wrong magic number 00000801"); // labels
    std::string floats = idx({3, 4, 5}, pixels(240));
    floats[2] = 0x0d;
    EXPECT_CONTAINS(error_of(floats), "wrong magic number 00000d03");
}

TEST_F(Idx, CountsThatTheBytesLack) {
    EXPECT_CONTAINS(error_of(idx({4, 4, 5}, pixels(60))), "truncated");
    EXPECT_CONTAINS(error_of(idx({2, 4, 5}, pixels(60))), "more bytes than the 40");
    EXPECT_CONTAINS(error_of(idx({0, 4, 5}, "")), "extent of 0");
    EXPECT_CONTAINS(error_of(idx({0xffffffff, 0xffffffff, 0xffffffff}, pixels(60))), "more than 1 GiB");
    EXPECT_CONTAINS(error_of(idx({0x80000000, 0x80000000, 4, 1}, pixels(60))), "more than 1 GiB"); // wraps to 0
    // Promises nearly all that is allowed; memory grows only with what comes.
    EXPECT_CONTAINS(error_of(idx({1 << 20, 32, 31}, pixels(60))), "truncated");
}

TEST_F(Idx, GzipBomb) {
    std::string bomb = gzip(idx({3, 4, 5}, std::string(size_t(64) << 20, 'x')));
    EXPECT_LT(bomb.size(), 100000u);
    EXPECT_CONTAINS(error_of(bomb), "more bytes than the 60");
}

TEST_F(Idx, LabelsOutOfRange) {
    write_set(idx({3, 4, 5}, pixels(60)), idx({3}, {7, 10, 9}));
    EXPECT_CONTAINS(set_error(), "label 10 of sample 1 is out of range, 0 to 9");
    write_set(idx({3, 4, 5}, pixels(60)), idx({3}, {7, char(255), 9}));
    EXPECT_CONTAINS(set_error(), "label 255 of sample 1");
    write_set(idx({3, 4, 5}, pixels(60)), idx({2}, {7, 1}));
    EXPECT_CONTAINS(set_error(), "2 labels for 3 images");
}

TEST_F(Idx, MissingFiles) {
    EXPECT_CONTAINS(set_error(), "train-images-idx3-ubyte");
    EXPECT_THROW(load_dataset((folder / "none").string(), "train", 10), DataError);
    EXPECT_THROW(read_idx((folder / "none").string(), 3, 4), DataError);
    EXPECT_THROW(read_idx(folder.string(), 3, 4), DataError);
}

TEST_F(Idx, WholeFiles) {
    std::string path = (folder / "log.csv").string();
    check_writable(path);
    EXPECT_FALSE(fs::exists(path));
    write_whole_file(path, "old");
    check_writable(path);
    EXPECT_EQ(read_whole_file(path, 10), "old");
    write_whole_file(path, std::string(100000, 'n'));
    EXPECT_EQ(read_whole_file(path, 100000), std::string(100000, 'n'));
    EXPECT_THROW(read_whole_file(path, 99999), DataError);
    EXPECT_THROW(write_whole_file((folder / "none" / "log.csv").string(), "x"), DataError);
    EXPECT_THROW(check_writable(folder.string()), DataError);
    EXPECT_THROW(check_writable("/dev/null"), DataError); // a rename would replace the device
    EXPECT_THROW(read_whole_file(folder.string(), 10), DataError);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1); // nothing is left behind
}

} // namespace
