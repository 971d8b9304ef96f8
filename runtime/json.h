// Reads the JSON of a safetensors header: strings, natural numbers, and what is between them, front to back.
//
// The caller asks for what must come next and the grammar of headers has no recursion, so that no nesting, however
// deep, is followed. Strict: no comments, no trailing commas, no control characters or broken escapes in strings.
#ifndef CRYOLITE_RUNTIME_JSON_H
#define CRYOLITE_RUNTIME_JSON_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace cryolite::runtime {

class Json {
public:
    Json(const char *text, size_t size) : text_(text), size_(size) {}

    bool take(char expected); // skips white space; true, and past it, when expected comes next
    bool string(std::string &value, size_t longest);
    bool natural(uint64_t &value); // no sign, fraction, exponent or leading zero; below 2^63
    bool at_end();                 // nothing but white space is left
    size_t position() const { return position_; }

private:
    void skip_space();
    bool escape(std::string &value);
    bool hex4(uint32_t &value);

    const char *text_;
    size_t size_, position_ = 0;
};

// value as a JSON string, quotes included.
void append_json_string(std::string &text, const char *value);

} // namespace cryolite::runtime
#endif
