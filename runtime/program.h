// A program's checks and sizes: what can be wrong with the tables is found at open, never in a step.
#ifndef CRYOLITE_RUNTIME_PROGRAM_H
#define CRYOLITE_RUNTIME_PROGRAM_H

#include "plan_format.h"
#include "text.h"

#include <cstddef>

namespace cryolite::runtime {

// INFER_ONE is chosen by the runtime: one sample a run, for batches of few.
enum Mode { TRAIN, EVALUATE, INFER, INFER_ONE, MODES };

const cryo_plan *plan_of(const cryo_program &program, int mode); // null when not compiled

// INFER, or INFER_ONE for a batch of few samples.
Mode infer_mode(const cryo_program &program, int64_t batch);

cryo_status check_program(const cryo_program *program, Text &error);

// The rows of one call. labels and outputs are null where the plan has none.
struct Rows {
    const float *images = nullptr;
    const int32_t *labels = nullptr;
    float *outputs = nullptr;
    int64_t batch = 0;
};

// Bytes of one sample's row of images, labels, outputs.
struct RowBytes {
    size_t input, label, output;
};
RowBytes row_bytes(const cryo_program &program);

// Where the regions lie in one piece of memory. Staging takes the rows of a ragged last block, padded to a whole one;
// and all rows, when a step reads or writes those of every block at once.
struct Layout {
    size_t parameters = 0, prepared = 0, prepared_one = 0, control = 0, arena = 0, scratch = 0; // offsets
    size_t scratch_stride = 0;                                                                  // bytes of one thread's
    size_t arena_stride = 0;                 // the same of the arena, where threads take samples alone
    size_t input = 0, label = 0, output = 0; // offsets of staging
    bool whole_rows = false;
    size_t bytes = 0; // 0: too large to count
};

// Of a model with all its plans; what its memory on the processor holds, if it is made for a device.
Layout model_layout(const cryo_program &program, int threads);
// Of its memory on the device: all but scratch, rows of whole batches, labels behind the control region.
Layout device_layout(const cryo_program &program);
// Of an inference context: one thread; parameters and prepared values are the model's.
Layout context_layout(const cryo_program &program);

int resolve_threads(int threads); // 0: the machine's cores

} // namespace cryolite::runtime
#endif
