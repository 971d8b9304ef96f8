// Finds NaN and infinities.
#ifndef CRYOLITE_RUNTIME_FINITE_H
#define CRYOLITE_RUNTIME_FINITE_H

#include "plan_format.h"

namespace cryolite::runtime {

enum class Worst { finite, infinity, nan };

const char *worst_text(Worst worst); // "a finite number", "an infinity", "a NaN"

Worst worst_of(const float *values, int64_t count);
Worst worst_of(const cryo_buffer &buffer); // float32

} // namespace cryolite::runtime
#endif
