// The C interface to a compiled model. Links the C and C++ libraries and threads, nothing else.
//
//   cryo_model *model;
//   if (cryo_open(&lenet_program, NULL, &model) != CRYO_OK) puts(cryo_open_error());
//   cryo_initialize(model, 42);
//   cryo_train_step(model, images, labels, 256, &result);
//   cryo_save(model, "lenet.safetensors");
//   cryo_close(model);
//
// Every function returns a status; nothing prints, throws, or aborts, and no step allocates. cryo_error(model) has the
// text of the last failure. A failed call leaves parameters and files as they were; only a train step that a kernel of
// a checked build breaks off (CRYO_KERNEL_ERROR) may have updated some of them.
//
// Threads: one thread at a time may train, evaluate, load, save or set a parameter on a model. Any number may infer at
// once, each with a context of its own, while none of those runs.
#ifndef CRYOLITE_RUNTIME_H
#define CRYOLITE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cryo_program cryo_program; // plan_format.h; the generated header declares the model's own
typedef struct cryo_model cryo_model;
typedef struct cryo_context cryo_context;

typedef enum cryo_status {
    CRYO_OK = 0,
    CRYO_BAD_ARGUMENT, // null pointer, unknown parameter, batch of 0 or above the maximum, label out of range
    CRYO_BAD_PROGRAM,  // the program was made by another version of the compiler, or lacks the plan asked for
    CRYO_BAD_FILE,     // a checkpoint that is truncated, damaged, or of another model
    CRYO_IO_ERROR,     // open, read, write or rename failed
    CRYO_OUT_OF_MEMORY,
    CRYO_KERNEL_ERROR, // a kernel of a checked build found a violated bound; some parameters may have been updated
    CRYO_NOT_FINITE,   // a NaN or an infinity, see cryo_set_check_finite
    CRYO_NO_DEVICE,    // made for a device that this system lacks
    CRYO_DEVICE_ERROR, // the device or its driver failed
} cryo_status;

const char *cryo_status_text(cryo_status status);

typedef struct cryo_options {
    int threads; // 0: as many as the machine has cores; the caller's thread is one of them
    void *arena; // null: the model allocates; else at least cryo_arena_bytes, aligned to 64
    size_t arena_bytes;
    // Runs task(user, i) for every i in [0, tasks), in any order, possibly at once, and returns when all are done.
    // Null: the model's own pool. Called once a step; tasks is never more than threads. Each task goes through the
    // whole step, and waits where others have work left to finish: any of them alone would do all of it.
    void (*parallel)(void *pool, int tasks, void (*task)(void *user, int i), void *user);
    void *pool; // passed to parallel
} cryo_options;

typedef struct cryo_result {
    double loss;     // mean over the batch
    int64_t correct; // samples whose largest output is at the label
} cryo_result;

// Bytes that cryo_options::arena must have for the given number of threads (0: the machine's cores).
size_t cryo_arena_bytes(const cryo_program *program, int threads);

// Opens a model with all parameters at zero; initialize or load before use. options may be null.
cryo_status cryo_open(const cryo_program *program, const cryo_options *options, cryo_model **model);
const char *cryo_open_error(void); // text of this thread's last failed cryo_open
void cryo_close(cryo_model *model);
const char *cryo_error(const cryo_model *model);

// Draws all parameters from their initialisers, sets states to their start, the step counter to 0. Same seed, same
// bits.
cryo_status cryo_initialize(cryo_model *model, uint64_t seed);

// One step of forward, backward and optimizer on batch samples. images: [batch][c][h][w]; labels: [batch], 0 to
// classes-1. result may be null. Labels are checked before anything is computed.
cryo_status cryo_train_step(cryo_model *model, const float *images, const int32_t *labels, int64_t batch,
                            cryo_result *result);
// Loss and correct answers with running statistics; changes nothing.
cryo_status cryo_evaluate(cryo_model *model, const float *images, const int32_t *labels, int64_t batch,
                          cryo_result *result);
// outputs: [batch][classes]. A sample's outputs do not depend on the others; batches of few samples may be computed by
// a plan of their own, which rounds otherwise than that of many.
cryo_status cryo_infer(cryo_model *model, const float *images, int64_t batch, float *outputs);

// A context holds what one inferring thread needs; it works on the calling thread alone. Close it before its model.
// Opening may happen while other contexts infer.
cryo_status cryo_context_open(cryo_model *model, cryo_context **context);
void cryo_context_close(cryo_context *context);
cryo_status cryo_context_infer(cryo_context *context, const float *images, int64_t batch, float *outputs);
const char *cryo_context_error(const cryo_context *context);

// The learning rate before the schedule. Starts as the network says.
double cryo_learning_rate(const cryo_model *model);
cryo_status cryo_set_learning_rate(cryo_model *model, double rate);
int64_t cryo_steps(const cryo_model *model); // train steps done, as the schedule counts them

// Parameters and states, in the order of the network. Names are as in PyTorch's state_dict.
size_t cryo_parameter_count(const cryo_model *model);
typedef struct cryo_parameter_info {
    const char *name;
    int role; // cryo_role of plan_format.h: 0 parameter, 1 state, 2 optimizer
    int rank;
    const int64_t *shape;
    size_t elements;
} cryo_parameter_info;
cryo_status cryo_parameter_at(const cryo_model *model, size_t index, cryo_parameter_info *info);
cryo_status cryo_get_parameter(cryo_model *model, const char *name, float *values, size_t elements);
cryo_status cryo_set_parameter(cryo_model *model, const char *name, const float *values, size_t elements);

// Checkpoints: safetensors with every parameter and state, the step counter, the fingerprint and a checksum in its
// metadata. Saving writes a file beside the target and renames it: the old or the new one is there, whole, at any
// moment. Loading reads and checks everything before it changes anything. Also reads safetensors without our metadata
// whose names and shapes fit, up to extents of 1: the steps then count from 0, and optimizer states, which may be
// missing, start anew. PyTorch's counters num_batches_tracked are passed over where the model does not count.
cryo_status cryo_save(cryo_model *model, const char *path);
cryo_status cryo_load(cryo_model *model, const char *path);

// When on, every call looks for NaN and infinities in the images, then in what every kernel writes, and stops with
// CRYO_NOT_FINITE at the first in the plan's order, whatever the threads did; the text names the layer. A train step
// that stops leaves parameters, states and the step counter as they were: while this is on, the model keeps a copy of
// them (CRYO_OUT_OF_MEMORY: there is no room for it). On a device that holds where it stops before its update; where
// the update itself makes such a number (a step too long), parameters have been changed. Off at first. Contexts follow
// their model.
cryo_status cryo_set_check_finite(cryo_model *model, int on);

// Profile: time spent in every step of a plan since it was switched on (switching on clears it). Contexts are not
// counted.
typedef struct cryo_profile_row {
    const char *mode;   // "train", "evaluate", "infer"
    int phase;          // from 0
    const char *name;   // the layer
    const char *kernel; // the kernel's readable key
    int64_t calls;
    double seconds; // summed over threads
    double flops;   // summed over calls
    double bytes;
} cryo_profile_row;
cryo_status cryo_set_profiling(cryo_model *model, int on);
size_t cryo_profile_count(const cryo_model *model);
cryo_status cryo_profile_at(const cryo_model *model, size_t index, cryo_profile_row *row);
// And of every phase, from its first task to the end of its tail. Threads times these seconds, less those of its rows,
// is what threads waited.
typedef struct cryo_profile_phase {
    const char *mode;
    int phase;
    int64_t runs;
    double seconds;
} cryo_profile_phase;
size_t cryo_profile_phase_count(const cryo_model *model);
cryo_status cryo_profile_phase_at(const cryo_model *model, size_t index, cryo_profile_phase *phase);

// Facts of a model.
const char *cryo_model_name(const cryo_model *model);
int64_t cryo_max_batch(const cryo_model *model);
int64_t cryo_classes(const cryo_model *model);
size_t cryo_input_elements(const cryo_model *model); // of one sample
size_t cryo_memory_bytes(const cryo_model *model);   // parameters, arena and scratch

#ifdef __cplusplus
}
#endif
#endif
