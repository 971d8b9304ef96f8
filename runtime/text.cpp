// Error texts, and the names of statuses.
#include "text.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace cryolite::runtime {

cryo_status Text::fail(cryo_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(bytes_, sizeof bytes_, format, args);
    va_end(args);
    return status;
}

Printable::Printable(const char *bytes, size_t size) {
    size_t most = sizeof bytes_ - 4, shown = size < most ? size : most;
    for (size_t i = 0; i < shown; i++) bytes_[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?';
    strcpy(bytes_ + shown, size > most ? "..." : "");
}

} // namespace cryolite::runtime

const char *cryo_status_text(cryo_status status) {
    switch (status) {
    case CRYO_OK:
        return "ok";
    case CRYO_BAD_ARGUMENT:
        return "bad argument";
    case CRYO_BAD_PROGRAM:
        return "bad program";
    case CRYO_BAD_FILE:
        return "bad file";
    case CRYO_IO_ERROR:
        return "input/output error";
    case CRYO_OUT_OF_MEMORY:
        return "out of memory";
    case CRYO_KERNEL_ERROR:
        return "kernel error";
    case CRYO_NOT_FINITE:
        return "not finite";
    case CRYO_NO_DEVICE:
        return "no device";
    case CRYO_DEVICE_ERROR:
        return "device error";
    }
    return "unknown status";
}
