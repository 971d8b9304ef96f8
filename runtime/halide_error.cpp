// Halide's runtime is there only when kernels were built with checks: its entry point is a weak symbol.
#include "halide_error.h"

#include <atomic>
#include <cstring>

using Handler = void (*)(void *user, const char *text);
extern "C" __attribute__((weak)) Handler halide_set_error_handler(Handler handler);

namespace cryolite::runtime {

namespace {

thread_local char last_text[512];
thread_local bool in_step = false;
std::atomic<Handler> other{nullptr};

void handle(void *user, const char *text) {
    if (!in_step) {
        Handler handler = other.load();
        if (handler) handler(user, text);
        return;
    }
    if (last_text[0]) return; // the first one is the cause
    strncpy(last_text, text ? text : "", sizeof last_text - 1);
    size_t size = strlen(last_text);
    while (size && last_text[size - 1] == '\n') last_text[--size] = 0;
}

} // namespace

void install_halide_error_handler() {
    if (!halide_set_error_handler) return;
    Handler before = halide_set_error_handler(handle);
    if (before != handle) other.store(before);
}

HalideErrors::HalideErrors() : before_(in_step) {
    in_step = true;
    last_text[0] = 0;
}

HalideErrors::~HalideErrors() { in_step = before_; }

const char *halide_error_text() { return last_text; }

} // namespace cryolite::runtime
