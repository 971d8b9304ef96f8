// Train, evaluate, infer: arguments checked, rows staged, a plan run, results read.
#include "model.h"

#include <cmath>
#include <cstring>

using namespace cryolite::runtime;

namespace cryolite::runtime {

double scheduled_rate(const cryo_program &program, double rate, int64_t step) {
    switch (program.rate) {
    case CRYO_RATE_STEP:
        return rate * std::pow(program.rate_gamma, std::floor(double(step) / program.rate_period));
    case CRYO_RATE_COSINE: {
        constexpr double pi = 3.14159265358979323846;
        return rate * (1 + std::cos(pi * std::fmin(double(step), program.rate_period) / program.rate_period)) / 2;
    }
    default:
        return rate;
    }
}

cryo_status check_rows(const cryo_program &program, int mode, const Rows &rows, Text &error) {
    static const char *const names[] = {"train", "evaluate", "infer"};
    const cryo_plan *plan = plan_of(program, mode);
    if (!plan)
        return error.fail(CRYO_BAD_PROGRAM, "model '%s' was compiled without the %s plan", program.name, names[mode]);
    if (!rows.images) return error.fail(CRYO_BAD_ARGUMENT, "images is null");
    if (mode != INFER && !rows.labels) return error.fail(CRYO_BAD_ARGUMENT, "labels is null");
    if (mode == INFER && !rows.outputs) return error.fail(CRYO_BAD_ARGUMENT, "outputs is null");
    long long batch = rows.batch;
    if (batch < 1 || batch > program.max_batch)
        return error.fail(CRYO_BAD_ARGUMENT, "batch of %lld: expected 1 to %lld", batch,
                          static_cast<long long>(program.max_batch));
    if (batch < plan->min_batch)
        return error.fail(
            CRYO_BAD_ARGUMENT, "batch of %lld: layer '%s' needs at least %lld values per channel in %s mode", batch,
            plan->min_batch_layer ? plan->min_batch_layer : "", static_cast<long long>(plan->min_batch), plan->mode);
    for (int64_t i = 0; mode != INFER && i < rows.batch; i++)
        if (rows.labels[i] < 0 || rows.labels[i] >= program.classes)
            return error.fail(CRYO_BAD_ARGUMENT, "label %lld is %d: expected 0 to %lld", static_cast<long long>(i),
                              int(rows.labels[i]), static_cast<long long>(program.classes - 1));
    return CRYO_OK;
}

cryo_status check_images(const cryo_program &program, const Rows &rows, Text &error) {
    int64_t elements = int64_t(row_bytes(program).input / sizeof(float));
    for (int64_t i = 0; i < rows.batch; i++)
        if (Worst worst = worst_of(rows.images + i * elements, elements); worst != Worst::finite)
            return error.fail(CRYO_NOT_FINITE, "images: sample %lld has %s", static_cast<long long>(i),
                              worst_text(worst));
    return CRYO_OK;
}

namespace {

// Copies rows from first_row on to staging, and pads with zeros to a whole block.
void copy_rows(uint8_t *staging, const void *rows, size_t row, size_t first_row, size_t count, size_t room) {
    memcpy(staging, static_cast<const uint8_t *>(rows) + first_row * row, count * row);
    memset(staging + count * row, 0, (room - count) * row);
}

// Which rows are staged: none when the last block is full.
struct Staged {
    size_t first = 0, count = 0, room = 0;
    Staged(const cryo_program &program, const Layout &layout, int64_t batch) {
        size_t lanes = size_t(program.lanes), blocks = (size_t(batch) + lanes - 1) / lanes;
        if (size_t(batch) == blocks * lanes) return;
        first = layout.whole_rows ? 0 : (blocks - 1) * lanes;
        count = size_t(batch) - first;
        room = blocks * lanes - first;
    }
};

} // namespace

static uintptr_t number(const void *address) { return reinterpret_cast<uintptr_t>(address); }

Regions Workspace::regions(const Rows &rows, const cryo_model &model) const {
    Regions regions;
    uintptr_t *base = regions.base;
    base[CRYO_REGION_PARAMETERS] = number(model.parameters());
    base[CRYO_REGION_PREPARED] = number(model.prepared());
    base[CRYO_REGION_ARENA] = number(memory + layout.arena);
    base[CRYO_REGION_SCRATCH] = number(memory + layout.scratch);
    base[CRYO_REGION_CONTROL] = number(memory + layout.control);
    base[CRYO_REGION_INPUT] = number(rows.images);
    base[CRYO_REGION_LABEL] = number(rows.labels);
    base[CRYO_REGION_OUTPUT] = number(rows.outputs);
    regions.scratch_stride = layout.scratch_stride;
    memcpy(regions.last, base, sizeof regions.last);
    return regions;
}

Regions Workspace::stage_one(const Rows &rows, int64_t sample, const cryo_model &model) const {
    const RowBytes row = row_bytes(*program);
    Regions one = regions(rows, model);
    one.base[CRYO_REGION_PREPARED] = number(model.prepared_for_one());
    one.base[CRYO_REGION_INPUT] += size_t(sample) * row.input;
    one.base[CRYO_REGION_OUTPUT] += size_t(sample) * row.output;
    memcpy(one.last, one.base, sizeof one.last);
    one.first_sample = sample;
    return one;
}

Regions Workspace::stage(const Rows &rows, const cryo_model &model) const {
    Regions regions = this->regions(rows, model);

    Staged staged(*program, layout, rows.batch);
    if (!staged.count) return regions;
    RowBytes row = row_bytes(*program);
    copy_rows(memory + layout.input, rows.images, row.input, staged.first, staged.count, staged.room);
    if (rows.labels) copy_rows(memory + layout.label, rows.labels, row.label, staged.first, staged.count, staged.room);
    // A step adds its block's stride to the base: take off what comes before the first staged row.
    regions.last[CRYO_REGION_INPUT] = number(memory + layout.input) - staged.first * row.input;
    regions.last[CRYO_REGION_LABEL] = number(memory + layout.label) - staged.first * row.label;
    regions.last[CRYO_REGION_OUTPUT] = number(memory + layout.output) - staged.first * row.output;
    if (layout.whole_rows) memcpy(regions.base, regions.last, sizeof regions.base);
    return regions;
}

void Workspace::unstage(const Rows &rows) const {
    Staged staged(*program, layout, rows.batch);
    size_t row = row_bytes(*program).output;
    if (!staged.count || !rows.outputs) return;
    memcpy(reinterpret_cast<uint8_t *>(rows.outputs) + staged.first * row, memory + layout.output, staged.count * row);
}

} // namespace cryolite::runtime

cryo_status cryo_model::prepare(int mode, Executor &executor, const Regions &regions, const Parallel &with,
                                Text &text) {
    std::atomic<int> &done = mode == INFER_ONE ? prepared_one : prepared_mode;
    if (plan_of(*program, mode)->prepared_phases == 0 || done.load(std::memory_order_acquire) == mode) return CRYO_OK;
    std::lock_guard<std::mutex> lock(preparing);
    if (done.load(std::memory_order_relaxed) == mode) return CRYO_OK;
    cryo_status status = executor.run_prepared(regions, with, text);
    if (status == CRYO_OK) done.store(mode, std::memory_order_release);
    return status;
}

// How many of the samples a thread takes alone, from end to end, rather than all threads one after another: whole
// rounds of one each, and one more that keeps more than half of the threads busy.
static int64_t samples_alone(int64_t samples, int threads) {
    const int64_t rest = samples % threads;
    return threads == 1 ? 0 : 2 * rest > threads ? samples : samples - rest;
}

cryo_status cryo_model::infer_few(const Workspace &workspace, Executor &executor, const Rows &rows,
                                  const Parallel &with, Text &text) {
    const RowBytes row = row_bytes(*program);
    const Samples alone = {check_finite ? 0 : samples_alone(rows.batch, executor.threads()), row.input, row.output,
                           workspace.layout.arena_stride};
    const Regions first = workspace.stage_one(rows, 0, *this);
    cryo_status status = prepare(INFER_ONE, executor, first, with, text);
    if (status == CRYO_OK && alone.count) status = executor.run_each(first, alone, with, text);
    for (int64_t sample = alone.count; status == CRYO_OK && sample < rows.batch; sample++)
        status = executor.run(workspace.stage_one(rows, sample, *this), 1, with, text);
    return status;
}

namespace {

float arena_value(const cryo_model &model, int64_t offset) {
    float value = 0;
    if (offset >= 0) memcpy(&value, model.work.memory + model.work.layout.arena + offset, sizeof value);
    return value;
}

cryo_status run_on_executors(cryo_model &model, int mode, const Rows &rows, cryo_result *result) {
    if (mode == INFER && infer_mode(*model.program, rows.batch) == INFER_ONE)
        return model.infer_few(model.work, model.executors[INFER_ONE], rows, model.parallel, model.error);
    Regions regions = model.work.stage(rows, model);
    if (mode == TRAIN) model.forget_prepared();
    cryo_status status = model.prepare(mode, model.executors[mode], regions, model.parallel, model.error);
    if (status != CRYO_OK) return status;
    status = model.executors[mode].run(regions, rows.batch, model.parallel, model.error);
    if (status != CRYO_OK) return status;
    model.work.unstage(rows);
    if (result) {
        const cryo_plan &plan = *plan_of(*model.program, mode);
        result->loss = double(arena_value(model, plan.loss_offset));
        result->correct = int64_t(std::lround(arena_value(model, plan.correct_offset)));
    }
    return CRYO_OK;
}

cryo_status run(cryo_model *model, int mode, const Rows &rows, cryo_result *result) {
    if (!model) return CRYO_BAD_ARGUMENT;
    cryo_status status = check_rows(*model->program, mode, rows, model->error);
    if (status == CRYO_OK && model->check_finite) status = check_images(*model->program, rows, model->error);
    if (status != CRYO_OK) return status;
    cryo_control &control = model->work.control();
    control.learning_rate = float(scheduled_rate(*model->program, model->learning_rate, model->steps));
    control.batch = float(rows.batch);
    control.step = float(model->steps);
    // Weights are updated while others' gradients are still to be made.
    const bool keeps = mode == TRAIN && model->kept;
    const size_t bytes = keeps ? size_t(model->program->parameter_bytes) : 0;
    if (keeps) memcpy(model->kept.get(), model->parameters(), bytes);
    status = model->device ? model->device->run(mode, control, rows, result, model->error)
                           : run_on_executors(*model, mode, rows, result);
    if (keeps && status != CRYO_OK) memcpy(model->parameters(), model->kept.get(), bytes);
    if (status == CRYO_OK && mode == TRAIN) model->steps++;
    return status;
}

} // namespace

cryo_status cryo_train_step(cryo_model *model, const float *images, const int32_t *labels, int64_t batch,
                            cryo_result *result) {
    return run(model, TRAIN, {images, labels, nullptr, batch}, result);
}

cryo_status cryo_evaluate(cryo_model *model, const float *images, const int32_t *labels, int64_t batch,
                          cryo_result *result) {
    return run(model, EVALUATE, {images, labels, nullptr, batch}, result);
}

cryo_status cryo_infer(cryo_model *model, const float *images, int64_t batch, float *outputs) {
    return run(model, INFER, {images, nullptr, outputs, batch}, nullptr);
}

double cryo_learning_rate(const cryo_model *model) { return model ? model->learning_rate : 0; }

cryo_status cryo_set_learning_rate(cryo_model *model, double rate) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!std::isfinite(rate) || rate < 0)
        return model->error.fail(CRYO_BAD_ARGUMENT, "learning rate %g: expected a finite number from 0 on", rate);
    model->learning_rate = rate;
    return CRYO_OK;
}

cryo_status cryo_set_check_finite(cryo_model *model, int on) {
    if (!model) return CRYO_BAD_ARGUMENT;
    const cryo_program &program = *model->program;
    if (model->device) {
        if (cryo_status status = model->device->set_check_finite(on != 0, model->error); status != CRYO_OK)
            return status;
    } else if (on && program.train && program.parameter_bytes && !model->kept) {
        model->kept = allocate_memory(size_t(program.parameter_bytes));
        if (!model->kept)
            return model->error.fail(CRYO_OUT_OF_MEMORY, "no memory to keep the parameters of model '%s'",
                                     program.name);
    }
    if (!on) model->kept.reset();
    model->check_finite = on != 0;
    model->forget_prepared(); // what prepares them is looked at, too
    for (Executor &executor : model->executors) executor.set_check_finite(model->check_finite);
    return CRYO_OK;
}

int64_t cryo_steps(const cryo_model *model) { return model ? model->steps : 0; }
