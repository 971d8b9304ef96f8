// A model written by hand, its kernels plain C++ functions: what the tests of the runtime run.
//
// A linear layer on centred inputs, squared error, momentum; lanes 4, at most 9 samples, 3 inputs, 2 classes.
// Its train plan has every kind of step and region:
//   phase 0   block: pack, stats                    tail: center
//   phase 1   block: forward (scratch), loss
//   phase 2   block: mark     tile: weight_grad (2 tiles), loss_merge (1)     tail: sgd (2 tiles)
#ifndef CRYOLITE_TESTS_RUNTIME_MODEL_H
#define CRYOLITE_TESTS_RUNTIME_MODEL_H

#include "cryolite_runtime.h"
#include "plan_format.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace tiny {

constexpr int lanes = 4, max_batch = 9, max_blocks = 3, inputs = 3, classes = 2;
constexpr double momentum = 0.5;

// The kernels' switches.
inline std::atomic<int> fail_block{-1};    // forward returns -7 in this block
inline std::atomic<bool> fail_tail{false}; // center returns -8
inline std::atomic<int> calls{0};          // of all kernels
inline std::atomic<int> flushes{0};        // calls that saw denormals flushed
inline std::atomic<void (*)()> in_kernel{nullptr};

inline cryo_buffer &buffer(void **argv, int i) { return *static_cast<cryo_buffer *>(argv[i]); }
inline int32_t scalar(void **argv, int i) { return *static_cast<const int32_t *>(argv[i]); }
template <typename T = float> T &at(void **argv, int i, int a, int b = 0, int c = 0) {
    cryo_buffer &view = buffer(argv, i);
    int64_t offset = int64_t(a) * view.dim[0].stride;
    if (view.dimensions > 1) offset += int64_t(b) * view.dim[1].stride;
    if (view.dimensions > 2) offset += int64_t(c) * view.dim[2].stride;
    return reinterpret_cast<T *>(view.host)[offset];
}
inline void enter() {
    calls++;
    volatile float least = 1e-38f;
    volatile float quotient = least / 16.0f; // a denormal, if they are not flushed
    if (quotient == 0) flushes++;
    if (void (*hook)() = in_kernel.load()) hook();
}

inline int pack(void **argv) { // rows (inputs, V), x (V, inputs)
    enter();
    for (int c = 0; c < inputs; c++)
        for (int v = 0; v < lanes; v++) at(argv, 1, v, c) = at(argv, 0, c, v);
    return 0;
}
inline int stats(void **argv) { // valid, x (V, inputs), partial (inputs)
    enter();
    for (int c = 0; c < inputs; c++) {
        float sum = 0;
        for (int v = 0; v < scalar(argv, 0); v++) sum += at(argv, 1, v, c);
        at(argv, 2, c) = sum;
    }
    return 0;
}
inline int center(void **argv) { // batch, partial (inputs, NB), mean (inputs), total (inputs)
    enter();
    if (fail_tail) return -8;
    for (int c = 0; c < inputs; c++) {
        double sum = 0;
        for (int b = 0; b * lanes < scalar(argv, 0); b++) sum += at(argv, 1, c, b);
        at(argv, 2, c) = float(sum / scalar(argv, 0));
        at(argv, 3, c) += at(argv, 2, c);
    }
    return 0;
}
inline int forward(void **argv) { // block, x (V, inputs), mean (inputs), weight (inputs, classes), y (V, classes)
    enter();
    if (scalar(argv, 0) == fail_block) return -7;
    for (int k = 0; k < classes; k++)
        for (int v = 0; v < lanes; v++) {
            float sum = 0;
            for (int c = 0; c < inputs; c++) sum += at(argv, 3, c, k) * (at(argv, 1, v, c) - at(argv, 2, c));
            at(argv, 4, v, k) = sum;
        }
    return 0;
}
inline int loss(void **argv) { // valid, y (V, classes), label (V), delta (V, classes), result (V, 2)
    enter();
    for (int v = 0; v < lanes; v++) {
        bool real = v < scalar(argv, 0);
        float sum = 0;
        int label = at<int32_t>(argv, 2, v), best = at(argv, 1, v, 1) > at(argv, 1, v, 0) ? 1 : 0;
        for (int k = 0; k < classes; k++) {
            float delta = real ? at(argv, 1, v, k) - (k == label ? 1.0f : 0.0f) : 0.0f;
            at(argv, 3, v, k) = delta;
            sum += delta * delta / 2;
        }
        at(argv, 4, v, 0) = sum;
        at(argv, 4, v, 1) = real && best == label ? 1.0f : 0.0f;
    }
    return 0;
}
inline int mark(void **argv) { // block, batch size (1), marks (1)
    enter();
    at(argv, 2, 0) = float(100 * scalar(argv, 0)) + at(argv, 1, 0);
    return 0;
}
inline int weight_grad(void **argv) { // batch, x (V, inputs, NB), delta (V, 1, NB), grad (inputs, 1)
    enter();
    for (int c = 0; c < inputs; c++) {
        float sum = 0;
        for (int b = 0; b * lanes < scalar(argv, 0); b++)
            for (int v = 0; v < lanes; v++) sum += at(argv, 1, v, c, b) * at(argv, 2, v, 0, b);
        at(argv, 3, c) = sum / float(scalar(argv, 0));
    }
    return 0;
}
inline int loss_merge(void **argv) { // batch, result (V, 2, NB), loss (1), correct (1)
    enter();
    double sum = 0, right = 0;
    for (int b = 0; b * lanes < scalar(argv, 0); b++)
        for (int v = 0; v < lanes; v++) {
            sum += at(argv, 1, v, 0, b);
            right += at(argv, 1, v, 1, b);
        }
    at(argv, 2, 0) = float(sum / scalar(argv, 0));
    at(argv, 3, 0) = float(right);
    return 0;
}
inline int sgd(void **argv) { // learning rate (1), grad, velocity, weight (inputs), of one class
    enter();
    for (int c = 0; c < inputs; c++) {
        at(argv, 2, c) = float(momentum) * at(argv, 2, c) + at(argv, 1, c);
        at(argv, 3, c) -= at(argv, 0, 0) * at(argv, 2, c);
    }
    return 0;
}
inline int unpack(void **argv) { // y (V, classes), rows (classes, V)
    enter();
    for (int v = 0; v < lanes; v++)
        for (int k = 0; k < classes; k++) at(argv, 1, k, v) = at(argv, 0, v, k);
    return 0;
}

// Offsets in the regions.
constexpr int64_t weight = 0, total = 64, velocity = 128, parameter_bytes = 192;
constexpr int64_t x = 0, x_block = 64, partial = 192, partial_block = 64, mean = 384, delta = 448, delta_block = 64,
                  result = 640, result_block = 64, grad = 832, loss_value = 896, correct_value = 960, marks = 1024,
                  marks_block = 64, arena_bytes = 1216;
constexpr int64_t scratch_y = 0, scratch_x = 64, scratch_bytes = 128;

inline const cryo_dim rows_dims[] = {{inputs, 1}, {lanes, inputs}};
inline const cryo_dim x_dims[] = {{lanes, 1}, {inputs, lanes}, {max_blocks, x_block / 4}};
inline const cryo_dim partial_dims[] = {{inputs, 1}, {max_blocks, partial_block / 4}};
inline const cryo_dim weight_dims[] = {{inputs, 1}, {classes, inputs}};
inline const cryo_dim y_dims[] = {{lanes, 1}, {classes, lanes}, {max_blocks, delta_block / 4}};
inline const cryo_dim column_dims[] = {{lanes, 1}, {1, lanes}, {max_blocks, delta_block / 4}};
inline const cryo_dim output_dims[] = {{classes, 1}, {lanes, classes}};
inline const cryo_dim label_dims[] = {{lanes, 1}};
inline const cryo_dim one[] = {{1, 1}};

inline cryo_arg arg(cryo_arg_kind kind) { return {kind, 0, 0, 0, 0, 0, 0, nullptr}; }
inline cryo_arg arg(cryo_region region, int64_t offset, int64_t rank, const cryo_dim *dims, int64_t block_stride = 0,
                    int64_t tile_stride = 0) {
    return {CRYO_ARG_BUFFER,
            region,
            region == CRYO_REGION_LABEL ? CRYO_I32 : CRYO_F32,
            offset,
            block_stride,
            tile_stride,
            rank,
            dims};
}

inline const cryo_arg valid_arg = arg(CRYO_ARG_VALID), batch_arg = arg(CRYO_ARG_BATCH), block_arg = arg(CRYO_ARG_BLOCK);
inline const cryo_arg rows_arg = arg(CRYO_REGION_INPUT, 0, 2, rows_dims, lanes *inputs * 4);
inline const cryo_arg label_arg = arg(CRYO_REGION_LABEL, 0, 1, label_dims, lanes * 4);
inline const cryo_arg output_arg = arg(CRYO_REGION_OUTPUT, 0, 2, output_dims, lanes *classes * 4);
inline const cryo_arg x_arg = arg(CRYO_REGION_ARENA, x, 2, x_dims, x_block);
inline const cryo_arg all_x = arg(CRYO_REGION_ARENA, x, 3, x_dims);
inline const cryo_arg local_x = arg(CRYO_REGION_SCRATCH, scratch_x, 2, x_dims);
inline const cryo_arg y_arg = arg(CRYO_REGION_SCRATCH, scratch_y, 2, y_dims);
inline const cryo_arg mean_arg = arg(CRYO_REGION_ARENA, mean, 1, partial_dims);
inline const cryo_arg total_arg = arg(CRYO_REGION_PARAMETERS, total, 1, partial_dims);
inline const cryo_arg weight_arg = arg(CRYO_REGION_PARAMETERS, weight, 2, weight_dims);
inline const cryo_arg result_arg = arg(CRYO_REGION_ARENA, result, 2, y_dims, result_block);
inline const cryo_arg all_results = arg(CRYO_REGION_ARENA, result, 3, y_dims);
inline const cryo_arg delta_arg = arg(CRYO_REGION_ARENA, delta, 2, y_dims, delta_block);
inline const cryo_arg loss_arg = arg(CRYO_REGION_ARENA, loss_value, 1, one);
inline const cryo_arg correct_arg = arg(CRYO_REGION_ARENA, correct_value, 1, one);

inline const cryo_arg pack_args[] = {rows_arg, x_arg}, pack_local_args[] = {rows_arg, local_x};
inline const cryo_arg stats_args[] = {valid_arg, x_arg,
                                      arg(CRYO_REGION_ARENA, partial, 1, partial_dims, partial_block)};
inline const cryo_arg center_args[] = {batch_arg, arg(CRYO_REGION_ARENA, partial, 2, partial_dims), mean_arg,
                                       total_arg};
inline const cryo_arg forward_args[] = {block_arg, x_arg, mean_arg, weight_arg, y_arg};
inline const cryo_arg forward_local_args[] = {block_arg, local_x, total_arg, weight_arg, y_arg};
inline const cryo_arg loss_args[] = {valid_arg, y_arg, label_arg, delta_arg, result_arg};
inline const cryo_arg mark_args[] = {block_arg, arg(CRYO_REGION_CONTROL, offsetof(cryo_control, batch), 1, one),
                                     arg(CRYO_REGION_ARENA, marks, 1, one, marks_block)};
inline const cryo_arg grad_args[] = {batch_arg, all_x, arg(CRYO_REGION_ARENA, delta, 3, column_dims, 0, lanes * 4),
                                     arg(CRYO_REGION_ARENA, grad, 1, weight_dims, 0, inputs * 4)};
inline const cryo_arg merge_args[] = {batch_arg, all_results, loss_arg, correct_arg};
inline const cryo_arg sgd_args[] = {arg(CRYO_REGION_CONTROL, 0, 1, one),
                                    arg(CRYO_REGION_ARENA, grad, 1, weight_dims, 0, inputs * 4),
                                    arg(CRYO_REGION_PARAMETERS, velocity, 1, weight_dims, 0, inputs * 4),
                                    arg(CRYO_REGION_PARAMETERS, weight, 1, weight_dims, 0, inputs * 4)};
inline const cryo_arg unpack_args[] = {y_arg, output_arg};

template <size_t n>
cryo_step step(cryo_kernel kernel, const char *name, const char *key, const cryo_arg (&args)[n], int64_t tiles = 1) {
    return {kernel, name, key, args, int64_t(n), tiles, 0, 1, 10, 100, 1};
}

inline const cryo_step train_0[] = {step(pack, "0", "pack c=3", pack_args), step(stats, "1", "stats c=3", stats_args)};
inline const cryo_step train_0_tail[] = {step(center, "1", "center c=3", center_args)};
inline const cryo_step train_1[] = {step(forward, "2", "forward c=3 k=2", forward_args),
                                    step(loss, "loss", "loss k=2", loss_args)};
inline const cryo_step train_2[] = {step(mark, "mark", "mark", mark_args)};
inline const cryo_step train_2_tiles[] = {step(weight_grad, "2.weight_grad", "weight_grad c=3", grad_args, classes),
                                          step(loss_merge, "loss", "loss_merge", merge_args)};
inline const cryo_step train_2_tail[] = {step(sgd, "2.weight", "sgd size=3", sgd_args, classes)};
inline const cryo_step evaluate_0[] = {step(pack, "0", "pack c=3", pack_local_args),
                                       step(forward, "2", "forward c=3 k=2", forward_local_args),
                                       step(loss, "loss", "loss k=2", loss_args)};
inline const cryo_step evaluate_0_tail[] = {step(loss_merge, "loss", "loss_merge", merge_args)};
inline const cryo_step infer_0[] = {step(pack, "0", "pack c=3", pack_local_args),
                                    step(forward, "2", "forward c=3 k=2", forward_local_args),
                                    step(unpack, "output", "unpack k=2", unpack_args)};

inline const int64_t weight_shape[] = {classes, inputs}, total_shape[] = {inputs}, input_shape[] = {inputs};

// The tables as values, so that a test can change one.
struct Program {
    std::array<cryo_phase, 3> train_phases = {{{train_0, 2, nullptr, 0, train_0_tail, 1},
                                               {train_1, 2, nullptr, 0, nullptr, 0},
                                               {train_2, 1, train_2_tiles, 2, train_2_tail, 1}}};
    cryo_phase evaluate_phase = {evaluate_0, 3, nullptr, 0, evaluate_0_tail, 1};
    cryo_phase infer_phase = {infer_0, 3, nullptr, 0, nullptr, 0};
    cryo_plan train = {
        "train", lanes, train_phases.data(), 3, arena_bytes, scratch_bytes, loss_value, correct_value, 2, "1", 0, 0, 0};
    cryo_plan evaluate = {
        "evaluate", lanes, &evaluate_phase, 1, arena_bytes, scratch_bytes, loss_value, correct_value, 1, nullptr, 0,
        0,          0};
    cryo_plan infer = {"infer", lanes, &infer_phase, 1, 0, scratch_bytes, -1, -1, 1, nullptr, 0, 0, 0};
    std::array<cryo_parameter, 3> parameters = {
        {{"2.weight", CRYO_ROLE_PARAMETER, weight, 6, 2, weight_shape, CRYO_INIT_UNIFORM, 0.5},
         {"1.total", CRYO_ROLE_STATE, total, 3, 1, total_shape, CRYO_INIT_CONSTANT, 0.25},
         {"optimizer.velocity.2.weight", CRYO_ROLE_OPTIMIZER, velocity, 6, 2, weight_shape, CRYO_INIT_CONSTANT, 0}}};
    cryo_program program = {CRYO_PLAN_VERSION,
                            "tiny",
                            "host",
                            "tiny-fingerprint",
                            lanes,
                            max_batch,
                            1,
                            input_shape,
                            classes,
                            parameters.data(),
                            3,
                            parameter_bytes,
                            0.125,
                            CRYO_RATE_CONSTANT,
                            0,
                            0,
                            &train,
                            &evaluate,
                            &infer,
                            nullptr,
                            0};
    Program() = default;
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;
};

// Open for the life of a test; all zero labels and images are a valid batch.
struct Model {
    cryo_model *handle = nullptr;
    cryo_status opened;
    explicit Model(const Program &program, int threads = 1,
                   void (*parallel)(void *, int, void (*)(void *, int), void *) = nullptr) {
        cryo_options options = {threads, nullptr, 0, parallel, nullptr};
        opened = cryo_open(&program.program, &options, &handle);
        if (opened == CRYO_OK) cryo_initialize(handle, 7);
    }
    ~Model() { cryo_close(handle); }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;
    operator cryo_model *() const { return handle; }
    std::string error() const { return cryo_error(handle); }
    std::vector<float> get(const char *name) const {
        for (size_t i = 0; i < cryo_parameter_count(handle); i++) {
            cryo_parameter_info info;
            cryo_parameter_at(handle, i, &info);
            std::vector<float> values(info.elements);
            if (std::strcmp(info.name, name) == 0 &&
                cryo_get_parameter(handle, name, values.data(), values.size()) == CRYO_OK)
                return values;
        }
        return {};
    }
    uint64_t hash() const { // of the bits of all parameters
        uint64_t hash = 0xcbf29ce484222325u;
        for (const char *name : {"2.weight", "1.total", "optimizer.velocity.2.weight"})
            for (float value : get(name)) {
                uint32_t bits;
                std::memcpy(&bits, &value, 4);
                hash = (hash ^ bits) * 0x100000001b3u;
            }
        return hash;
    }
};

struct Batch {
    std::vector<float> images;
    std::vector<int32_t> labels;
    explicit Batch(int size, int seed = 1) {
        for (int i = 0; i < size * inputs; i++) images.push_back(float((i * 37 + seed * 11) % 17) / 8 - 1);
        for (int i = 0; i < size; i++) labels.push_back((i * 5 + seed) % 3 % 2);
    }
    int64_t size() const { return int64_t(labels.size()); }
};

} // namespace tiny
#endif
