// What Halide says when a checked kernel finds a violated bound, instead of its default: print and abort.
#ifndef CRYOLITE_RUNTIME_HALIDE_ERROR_H
#define CRYOLITE_RUNTIME_HALIDE_ERROR_H

namespace cryolite::runtime {

// Takes over Halide's error handler where its runtime is linked. Errors outside of our steps still go to the handler
// that was there before.
void install_halide_error_handler();

// Marks this thread as inside a step, and forgets the last text.
class HalideErrors {
public:
    HalideErrors();
    ~HalideErrors();
    HalideErrors(const HalideErrors &) = delete;
    HalideErrors &operator=(const HalideErrors &) = delete;

private:
    bool before_;
};

// Of the last error on this thread, "" when none.
const char *halide_error_text();

} // namespace cryolite::runtime
#endif
