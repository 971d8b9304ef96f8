// Reads the JSON of a safetensors header.
#include "json.h"

#include <cstdio>

namespace cryolite::runtime {

void Json::skip_space() {
    while (position_ < size_ && (text_[position_] == ' ' || text_[position_] == '\n' || text_[position_] == '\t' ||
                                 text_[position_] == '\r'))
        position_++;
}

bool Json::take(char expected) {
    skip_space();
    if (position_ >= size_ || text_[position_] != expected) return false;
    position_++;
    return true;
}

bool Json::at_end() {
    skip_space();
    return position_ == size_;
}

bool Json::natural(uint64_t &value) {
    skip_space();
    size_t first = position_;
    value = 0;
    for (; position_ < size_ && text_[position_] >= '0' && text_[position_] <= '9'; position_++) {
        uint64_t digit = uint64_t(text_[position_] - '0');
        if (value > (uint64_t(INT64_MAX) - digit) / 10) return false;
        value = value * 10 + digit;
    }
    size_t digits = position_ - first;
    return digits == 1 || (digits > 1 && text_[first] != '0');
}

bool Json::hex4(uint32_t &value) {
    if (size_ - position_ < 4) return false;
    value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text_[position_++];
        uint32_t digit = c >= '0' && c <= '9'   ? uint32_t(c - '0')
                         : c >= 'a' && c <= 'f' ? uint32_t(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? uint32_t(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return false;
        value = value * 16 + digit;
    }
    return true;
}

// Behind a backslash.
bool Json::escape(std::string &value) {
    if (position_ >= size_) return false;
    char c = text_[position_++];
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    for (int i = 0; i < 8; i++)
        if (c == from[i]) return value.push_back(to[i]), true;
    uint32_t code = 0, low = 0;
    if (c != 'u' || !hex4(code)) return false;
    if (code >= 0xdc00 && code < 0xe000) return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (size_ - position_ < 2 || text_[position_] != '\\' || text_[position_ + 1] != 'u') return false;
        position_ += 2;
        if (!hex4(low) || low < 0xdc00 || low >= 0xe000) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code < 0x80) {
        value.push_back(char(code));
    } else {
        int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static const int lead[] = {0, 0xc0, 0xe0, 0xf0};
        value.push_back(char(lead[more] | int(code >> (6 * more))));
        while (more-- > 0) value.push_back(char(0x80 | ((code >> (6 * more)) & 0x3f)));
    }
    return true;
}

bool Json::string(std::string &value, size_t longest) {
    value.clear();
    if (!take('"')) return false;
    while (position_ < size_ && value.size() <= longest) {
        char c = text_[position_++];
        if (c == '"') return true;
        if (static_cast<unsigned char>(c) < 0x20) return false;
        if (c != '\\')
            value.push_back(c);
        else if (!escape(value))
            return false;
    }
    return false;
}

void append_json_string(std::string &text, const char *value) {
    text += '"';
    for (; *value; value++) {
        char escaped[8];
        if (*value == '"' || *value == '\\') {
            text += '\\';
            text += *value;
        } else if (static_cast<unsigned char>(*value) < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", *value);
            text += escaped;
        } else {
            text += *value;
        }
    }
    text += '"';
}

} // namespace cryolite::runtime
