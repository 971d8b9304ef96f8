// The grammar of a safetensors header.
#include "checkpoint.h"
#include "json.h"

#include <cstring>

namespace cryolite::runtime {

namespace {

struct Parser {
    Json json;
    size_t most_tensors;
    Header &header;
    std::string &error;

    bool fail(const std::string &what) {
        error = what + ", at byte " + std::to_string(json.position()) + " of the header";
        return false;
    }

    // {"key": value, ...} with member(key) for each value.
    template <typename Member> bool object(const char *what, Member member) {
        if (!json.take('{')) return fail(std::string("expected an object: ") + what);
        if (json.take('}')) return true;
        std::string key;
        do {
            if (!json.string(key, max_name)) return fail("expected a name");
            if (!json.take(':')) return fail("expected ':'");
            if (!member(key)) return false;
        } while (json.take(','));
        return json.take('}') || fail("expected ',' or '}'");
    }

    bool naturals(std::vector<uint64_t> &values, size_t most) {
        values.clear();
        if (!json.take('[')) return fail("expected a list of numbers");
        if (json.take(']')) return true;
        do {
            if (values.size() == most) return fail("expected at most " + std::to_string(most) + " numbers");
            values.push_back(0);
            if (!json.natural(values.back())) return fail("expected a natural number below 2^63");
        } while (json.take(','));
        return json.take(']') || fail("expected ',' or ']'");
    }

    bool tensor(const std::string &name) {
        Tensor tensor;
        tensor.name = name;
        std::vector<uint64_t> offsets;
        bool has_dtype = false, has_shape = false, has_offsets = false;
        auto once = [&](bool &has, const std::string &key) {
            if (has) return fail("'" + key + "' twice in one tensor");
            return has = true;
        };
        bool good = object("a tensor", [&](const std::string &key) {
            if (key == "dtype")
                return once(has_dtype, key) && (json.string(tensor.dtype, 16) || fail("expected a dtype"));
            if (key == "shape") return once(has_shape, key) && naturals(tensor.shape, max_tensor_rank);
            if (key == "data_offsets") return once(has_offsets, key) && naturals(offsets, 2);
            return fail("a tensor has dtype, shape and data_offsets, nothing else");
        });
        if (!good) return false;
        if (!has_dtype || !has_shape || offsets.size() != 2) return fail("a tensor lacks dtype, shape or data_offsets");
        if (header.tensors.size() == most_tensors)
            return fail("more than the " + std::to_string(most_tensors) + " tensors that the model could have");
        tensor.begin = offsets[0];
        tensor.end = offsets[1];
        header.tensors.push_back(std::move(tensor));
        return true;
    }

    bool metadata() {
        std::string value;
        auto once = [&](bool &has, std::string &place, const std::string &key) {
            if (has) return fail("'" + key + "' twice");
            place = value;
            return has = true;
        };
        return object("__metadata__", [&](const std::string &key) {
            if (!json.string(value, max_name)) return fail("expected a string");
            if (key.rfind("cryolite.", 0) == 0) header.ours = true;
            if (key == "cryolite.fingerprint") return once(header.has_fingerprint, header.fingerprint, key);
            if (key == "cryolite.steps") return once(header.has_steps, header.steps, key);
            if (key != "cryolite.checksum") return true;
            // Written without escapes, else the digits are not where they are taken to be.
            header.checksum_at = json.position() - 1 - value.size();
            return once(header.has_checksum, header.checksum, key);
        });
    }

    bool parse() {
        bool has_metadata = false;
        bool good = object("the header", [&](const std::string &key) {
            if (key != "__metadata__") return tensor(key);
            if (has_metadata) return fail("'__metadata__' twice");
            has_metadata = true;
            return metadata();
        });
        return good && (json.at_end() || fail("something behind the header's end"));
    }
};

} // namespace

bool parse_header(const char *text, size_t size, size_t most_tensors, Header &header, std::string &error) {
    return Parser{Json(text, size), most_tensors, header, error}.parse();
}

// Word by word: xor, times an odd number, and a rotation so that high bits reach low ones.
void Checksum::add(const void *bytes, size_t size) {
    const char *next = static_cast<const char *>(bytes);
    while (size > 0) {
        uint64_t word = 0;
        size_t taken = size < sizeof word ? size : sizeof word;
        memcpy(&word, next, taken);
        state_ = (state_ ^ word) * 0x9E3779B97F4A7C15u;
        state_ = (state_ << 23 | state_ >> 41) ^ taken;
        next += taken;
        size -= taken;
    }
}

void write_hex(uint64_t value, char *digits) {
    for (size_t i = checksum_digits; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
}

} // namespace cryolite::runtime
