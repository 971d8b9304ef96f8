// Error texts of a fixed size: a failing step must not allocate either.
#ifndef CRYOLITE_RUNTIME_TEXT_H
#define CRYOLITE_RUNTIME_TEXT_H

#include "cryolite_runtime.h"

namespace cryolite::runtime {

class Text {
public:
    const char *get() const { return bytes_; }
    void clear() { bytes_[0] = 0; }
    // printf; longer texts are cut. Returns status, so that a failure is one statement.
    __attribute__((format(printf, 3, 4))) cryo_status fail(cryo_status status, const char *format, ...);

private:
    char bytes_[1024] = {};
};

// A name that comes from a file, made printable and short. Holds its own bytes: printf("%s", Printable(name).get()).
class Printable {
public:
    Printable(const char *bytes, size_t size);
    const char *get() const { return bytes_; }

private:
    char bytes_[128];
};

} // namespace cryolite::runtime
#endif
