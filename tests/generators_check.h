// What the tests of generators on float buffers share: buffers between guard words, which show stores outside the
// output, their comparison with plain double loops, and the machines to compile for.
#ifndef CRYOLITE_TESTS_GENERATORS_CHECK_H
#define CRYOLITE_TESTS_GENERATORS_CHECK_H

#include "Halide.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace cryolite::testing {

using Parameters = std::map<std::string, std::string>;

inline std::string text(double value) {
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%.9g", value);
    return buffer;
}

// A dense float buffer, innermost extent first, between guard words.
class Array {
public:
    explicit Array(std::vector<int> extents) : extents_(std::move(extents)) {
        for (int e : extents_) size_ *= size_t(e);
        storage_.reset(static_cast<float *>(std::aligned_alloc(64, (size_ + 2 * guard + 15) / 16 * 64)));
        std::fill(storage_.get(), storage_.get() + size_ + 2 * guard, guard_value);
        int stride = 1;
        for (int e : extents_) dims_.push_back({0, e, stride}), stride *= e;
        describe();
    }

    float *data() { return storage_.get() + guard; }
    float &operator[](size_t i) { return data()[i]; }
    size_t size() const { return size_; }
    float &at(const std::vector<int> &index) {
        size_t i = 0;
        for (size_t d = 0; d < index.size(); d++) i += size_t(index[d]) * size_t(dims_[d].stride);
        return data()[i];
    }
    // A window of another buffer: `offset` elements in, with other extents and strides.
    void view(Array &other, size_t offset, const std::vector<int> &extents, const std::vector<int> &strides) {
        dims_.clear();
        for (size_t d = 0; d < extents.size(); d++) dims_.push_back({0, extents[d], strides[d]});
        describe();
        buffer_.host = reinterpret_cast<uint8_t *>(other.data() + offset);
    }
    void randomize(std::mt19937 &engine, double low = -1, double high = 1) {
        std::uniform_real_distribution<double> uniform(low, high);
        for (size_t i = 0; i < size_; i++) data()[i] = float(uniform(engine));
    }
    void fill(float value) { std::fill(data(), data() + size_, value); }
    void expect_guards() {
        for (size_t i = 0; i < guard; i++) {
            ASSERT_EQ(storage_[i], guard_value) << "store before the buffer";
            ASSERT_EQ(storage_[guard + size_ + i], guard_value) << "store after the buffer";
        }
    }
    halide_buffer_t *buffer() { return &buffer_; }

private:
    static constexpr size_t guard = 64;
    static constexpr float guard_value = 12345.f;

    void describe() {
        buffer_ = {};
        buffer_.host = reinterpret_cast<uint8_t *>(data());
        buffer_.type = halide_type_of<float>();
        buffer_.dimensions = int(dims_.size());
        buffer_.dim = dims_.data();
    }

    struct Free {
        void operator()(float *p) const { std::free(p); }
    };
    std::vector<int> extents_;
    std::vector<halide_dimension_t> dims_;
    std::unique_ptr<float[], Free> storage_;
    size_t size_ = 1;
    halide_buffer_t buffer_ = {};
};

inline void expect_close(Array &actual, const std::vector<double> &expected, double tolerance = 1e-5) {
    ASSERT_EQ(actual.size(), expected.size());
    double largest = 1e-30;
    for (double e : expected) largest = std::max(largest, std::fabs(e));
    for (size_t i = 0; i < expected.size(); i++)
        ASSERT_LE(std::fabs(actual[i] - expected[i]), tolerance * largest)
            << "element " << i << ": " << actual[i] << " instead of " << expected[i];
    actual.expect_guards();
}

struct Machine {
    std::string target = "host";
    int lanes = 0;

    int width() const { return lanes ? lanes : Halide::Target(target).natural_vector_size<float>(); }
    bool runs_here() const {
        const Halide::Target wanted(target), here = Halide::get_host_target();
        for (int f = 0; f < Halide::Target::FeatureEnd; f++)
            if (wanted.has_feature(Halide::Target::Feature(f)) && !here.has_feature(Halide::Target::Feature(f)))
                return false;
        return wanted.arch == here.arch && wanted.os == here.os;
    }
};

// One machine of each width, and lanes that differ from the vector width.
inline std::vector<Machine> machines() {
    std::vector<Machine> result{{"host", 0}, {"host", 4}, {"host", 8}, {"host", 16}};
    for (Machine m : {Machine{"x86-64-linux-avx-avx2-f16c-fma-sse41", 8},
                      Machine{"x86-64-linux-avx-avx2-f16c-fma-sse41", 16}, Machine{"x86-64-linux-sse41", 4}})
        if (m.runs_here()) result.push_back(m);
    return result;
}

} // namespace cryolite::testing
#endif
