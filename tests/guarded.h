// Memory that tells when somebody leaves it: a page without access behind its last byte and another before its first
// page. Between that page and the first byte there may be up to a page of slack, filled with a pattern, or poisoned for
// the address sanitizer.
#ifndef CRYOLITE_TESTS_GUARDED_H
#define CRYOLITE_TESTS_GUARDED_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace cryolite::test {

class Guarded {
public:
    Guarded() = default;
    explicit Guarded(size_t words);
    ~Guarded();
    Guarded(Guarded &&other) noexcept;
    Guarded &operator=(Guarded &&other) noexcept;

    size_t size() const { return words_; }
    uint32_t *data() const { return data_; }
    uint32_t &at(size_t i) const; // throws std::out_of_range
    bool slack_is_whole() const;  // nobody wrote before the first byte

private:
    unsigned char *pages_ = nullptr;
    size_t bytes_ = 0; // of all pages
    uint32_t *data_ = nullptr;
    size_t words_ = 0;
};

// While it lives, an access to a guard page ends the program with "<what> reaches outside of its arguments" instead of
// a bare SIGSEGV.
class GuardWatch {
public:
    explicit GuardWatch(const std::string &what);
    ~GuardWatch();
    GuardWatch(const GuardWatch &) = delete;
    GuardWatch &operator=(const GuardWatch &) = delete;
};

} // namespace cryolite::test
#endif
