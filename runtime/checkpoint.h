// The safetensors form of a model's parameters.
//
//   8 bytes, little endian: size of the header
//   header, JSON:  {"__metadata__": {"cryolite.checksum": "0123456789abcdef", "cryolite.fingerprint": ...,
//                   "cryolite.steps": "42"}, "0.weight": {"dtype": "F32", "shape": [6, 1, 5, 5], "data_offsets": [0,
//                   600]}, ...}
//   data
// The checksum is over the whole file with the checksum's digits as zeros: no byte can change unseen.
#ifndef CRYOLITE_RUNTIME_CHECKPOINT_H
#define CRYOLITE_RUNTIME_CHECKPOINT_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cryolite::runtime {

constexpr size_t max_header = 100'000'000, max_name = 4096, max_tensor_rank = 16, checksum_digits = 16;

// Each step maps the state one to one, so that a single changed word always changes the sum.
class Checksum {
public:
    void add(const void *bytes, size_t size);
    uint64_t get() const { return state_; }

private:
    uint64_t state_ = 0xcbf29ce484222325u;
};

void write_hex(uint64_t value, char *digits); // checksum_digits of them, no end mark

// What a header says, unchecked but for its grammar.
struct Tensor {
    std::string name, dtype;
    std::vector<uint64_t> shape;
    uint64_t begin = 0, end = 0; // in the data
};
struct Header {
    std::vector<Tensor> tensors;
    bool ours = false; // has metadata of ours
    bool has_checksum = false, has_fingerprint = false, has_steps = false;
    std::string checksum, fingerprint, steps;
    size_t checksum_at = 0; // offset of the first digit in the header
};

// False: error says what is wrong. Never more than most_tensors are taken.
bool parse_header(const char *text, size_t size, size_t most_tensors, Header &header, std::string &error);

} // namespace cryolite::runtime
#endif
