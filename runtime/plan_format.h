// The compiled form of a model: constant tables that the compiler emits into an object file and the runtime walks.
//
// The one header shared by compiler and runtime. Every field is eight bytes wide, so that the emitter writes each
// struct as a row of 64-bit constants and addresses for any 64-bit target, without knowing a C++ ABI.
//
//   cryo_program          one model: parameters and plans over one parameter block
//     cryo_parameter[]    name, shape, where in the parameter block, how it starts
//     cryo_plan[]         train, evaluate, infer, infer_one
//       cryo_phase[]      between two phases every thread waits for the others (a batch-wide barrier)
//         cryo_step[]     one kernel call: for each block, for each tile, or once
//           cryo_arg[]    where each argument of the call lies
//
// Activations lie in lane layout: [n/V][c][h][w][V], V samples side by side in the innermost dimension. A group of V
// samples is a block. Whole values (parameters, statistics, gradients of parameters) lie as PyTorch has them. In the
// plan infer_one a block is one sample, and activations lie [h][w][c].
#ifndef CRYOLITE_PLAN_FORMAT_H
#define CRYOLITE_PLAN_FORMAT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CRYO_PLAN_VERSION 8
#define CRYO_ALIGNMENT 64 // bytes; every offset in every region is a multiple of it

// A kernel: Halide's argv calling convention. argv[i] is a cryo_buffer * for a buffer, a const int32_t * or
// const float * for a scalar. Returns 0, or Halide's error code in a checked build.
typedef int (*cryo_kernel)(void **argv);

// Where an argument lies. The address of a buffer argument is
//   base(region) + offset + block * block_stride + tile * tile_stride       (all in bytes)
enum cryo_region {
    CRYO_REGION_PARAMETERS, // the parameter block: parameters, states and the optimizer's states
    CRYO_REGION_ARENA,      // values that live across phases, and whole values of the step
    CRYO_REGION_SCRATCH,    // one per thread: values that live inside a phase
    CRYO_REGION_CONTROL,    // cryo_control, written by the runtime before a step
    CRYO_REGION_PREPARED,   // what a plan's prepared phases make of the parameters, shared by a model's contexts
    CRYO_REGION_INPUT,      // the caller's image batch, rows of samples: [n][c][h][w], float32
    CRYO_REGION_LABEL,      // the caller's labels: [n], int32
    CRYO_REGION_OUTPUT,     // the caller's output, rows of samples: [n][k], float32
};

enum cryo_arg_kind {
    CRYO_ARG_BUFFER, // a cryo_buffer
    CRYO_ARG_BATCH,  // const int32_t *: samples in this batch, 1 to max_batch
    CRYO_ARG_VALID,  // const int32_t *: real samples in this block, 1 to lanes (the last block may be ragged)
    CRYO_ARG_BLOCK,  // const int32_t *: index of this block
    CRYO_ARG_TILE,   // const int32_t *: index of this tile, 0 for steps without
};

enum cryo_type { CRYO_F32, CRYO_I32 };

typedef struct cryo_dim {
    int64_t extent;
    int64_t stride; // in elements
} cryo_dim;

typedef struct cryo_arg {
    int64_t kind;   // cryo_arg_kind; what follows is for buffers
    int64_t region; // cryo_region
    int64_t type;   // cryo_type
    int64_t offset;
    int64_t block_stride; // INPUT, LABEL, OUTPUT: bytes of lanes samples. On a device (generators/kernels.md) not 0
                          // where the last of the dims is over blocks: those of max_batch; a call is told the batch's
    int64_t tile_stride;
    int64_t rank;
    const cryo_dim *dims; // innermost first, as Halide counts; lower bounds are 0
} cryo_arg;

typedef struct cryo_step {
    cryo_kernel kernel;
    const char *name; // the layer, for messages and profiles: "4.weight_grad"
    const char *key;  // the kernel's readable key: "conv2d_grad_weight c=6 h=12 ..."
    const cryo_arg *args;
    int64_t arg_count;
    int64_t tiles;        // number of tiles; of a block step: of strips of the block
    int64_t of_block;     // 1: a tile step that runs its tiles for each block
    int64_t joined_steps; // block and tile steps: so many, from this one on, all run for one strip of a block, or for
                          // one tile, before any runs for the next
    double flops;         // per call, 0 when unknown
    double bytes;         // per call, read and written once
    int64_t outputs;      // so many of the arguments, the last ones, are written
} cryo_step;

// Tasks of a phase are its blocks (each runs all block steps in order; but see cryo_plan.strip_tasks) and, of each tile
// step, its tiles, or those of every block; threads may do them in any order (shares.h). When all are done, the tail
// steps run in order, each by one thread or, if it has tiles, by all. Then the next phase starts. On a device every
// step is one launch (for each tile), and launches run in this order.
typedef struct cryo_phase {
    const cryo_step *block_steps;
    int64_t block_step_count;
    const cryo_step *tile_steps;
    int64_t tile_step_count;
    const cryo_step *tail_steps;
    int64_t tail_step_count;
} cryo_phase;

typedef struct cryo_plan {
    const char *mode; // "train", "evaluate", "infer", "infer_one"
    int64_t lanes;    // samples of a block
    const cryo_phase *phases;
    int64_t phase_count;
    int64_t arena_bytes;         // at max_batch
    int64_t scratch_bytes;       // per thread
    int64_t loss_offset;         // byte offset in the arena of one float, the mean loss; -1: none
    int64_t correct_offset;      // byte offset in the arena of one float, the number of right answers; -1: none
    int64_t min_batch;           // 2 where batch statistics would see a single value per channel, else 1
    const char *min_batch_layer; // the layer that asks for it, or null
    // The first phases depend on parameters and states alone: the runtime runs them before the plan's first run and
    // after a change of those, the others in every run. They have no block steps.
    int64_t prepared_phases;
    int64_t prepared_bytes;
    int64_t strip_tasks; // 1: a phase's block steps run one after another, or those that go in strips together, each
                         // with the strips of all blocks as tasks
} cryo_plan;

// How a parameter starts. Uniform is over [-a, a); normal has mean 0 and standard deviation a; constant is a.
enum cryo_init { CRYO_INIT_CONSTANT, CRYO_INIT_UNIFORM, CRYO_INIT_NORMAL };

// PARAMETER: trained. STATE: saved, not trained (running statistics). OPTIMIZER: moments; saved, named
// "optimizer.<moment>.<parameter>".
enum cryo_role { CRYO_ROLE_PARAMETER, CRYO_ROLE_STATE, CRYO_ROLE_OPTIMIZER };

typedef struct cryo_parameter {
    const char *name; // as in PyTorch's state_dict: "1.running_mean"
    int64_t role;     // cryo_role
    int64_t offset;   // bytes, in the parameter block
    int64_t elements;
    int64_t rank;
    const int64_t *shape; // outermost first, as PyTorch prints it
    int64_t init;         // cryo_init
    double init_value;    // a
} cryo_parameter;

// Learning-rate schedules: rate(step) = learning_rate * factor(step), step counted from 0 over the model's life.
//   CONSTANT  1
//   STEP      gamma ^ floor(step / period)
//   COSINE    (1 + cos(pi * min(step, period) / period)) / 2
enum cryo_rate { CRYO_RATE_CONSTANT, CRYO_RATE_STEP, CRYO_RATE_COSINE };

typedef struct cryo_device cryo_device; // device_model.h

// The control region: scalars that kernels read as one-element float buffers.
typedef struct cryo_control {
    float learning_rate; // of this step, the schedule applied; offset 0
    float pad0[15];
    float batch; // samples in this batch; offset 64
    float pad1[15];
    float step; // train steps done so far, counter of dropout; offset 128
    float pad2[15];
} cryo_control;

typedef struct cryo_program {
    int64_t version; // CRYO_PLAN_VERSION
    const char *name;
    const char *target;      // Halide's name of the target the kernels were made for
    const char *fingerprint; // of parameters and layers; checkpoints carry it
    int64_t lanes;           // V
    int64_t max_batch;
    int64_t input_rank;         // without the batch: 3 for images
    const int64_t *input_shape; // [c, h, w]
    int64_t classes;            // columns of the output
    const cryo_parameter *parameters;
    int64_t parameter_count;
    int64_t parameter_bytes;
    double learning_rate; // at step 0
    int64_t rate;         // cryo_rate
    double rate_period;   // steps
    double rate_gamma;
    const cryo_plan *train; // null when not compiled
    const cryo_plan *evaluate;
    const cryo_plan *infer;
    const cryo_plan *infer_one; // one sample a run, for batches of few samples; null when not compiled
    int64_t infer_one_batch;    // the largest such batch, 0: none
    const cryo_device *device;  // what the kernels were made for: a symbol of the device library; null: the processor
} cryo_program;

// Layout of Halide's halide_buffer_t (64-bit), so that the runtime needs no Halide header; tests compare the two.
typedef struct cryo_halide_dim {
    int32_t min, extent, stride;
    uint32_t flags;
} cryo_halide_dim;

typedef struct cryo_buffer {
    uint64_t device;
    const void *device_interface;
    uint8_t *host;
    uint64_t flags;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } type;
    int32_t dimensions;
    cryo_halide_dim *dim;
    void *padding;
} cryo_buffer;

#ifdef __cplusplus
}
#endif
#endif
