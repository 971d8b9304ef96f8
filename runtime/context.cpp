// Contexts: what one inferring thread needs. The parameters are the model's; on a device everything is, and threads
// take turns.
#include "model.h"

#include <cstring>
#include <new>

using namespace cryolite::runtime;

// False when out of memory.
static bool build(cryo_context &context, cryo_model &model) {
    const cryo_program &program = *model.program;
    context.model = &model;
    context.work.program = &program;
    if (model.device) return true;
    context.work.layout = context_layout(program);
    if (context.work.layout.bytes) context.owned = allocate_memory(context.work.layout.bytes);
    context.work.memory = context.owned.get();
    if (!context.owned || !context.executor.prepare(*program.infer, 1)) return false;
    if (program.infer_one && !context.executor_one.prepare(*program.infer_one, 1)) return false;
    memset(context.work.memory, 0, context.work.layout.bytes);
    return true;
}

cryo_status cryo_context_open(cryo_model *model, cryo_context **context) {
    if (context) *context = nullptr;
    if (!model) return CRYO_BAD_ARGUMENT;
    // Contexts may be opened from several threads at once: only a failure writes to the model.
    if (!context) return model->error.fail(CRYO_BAD_ARGUMENT, "context is null");
    const cryo_program &program = *model->program;
    if (!program.infer)
        return model->error.fail(CRYO_BAD_PROGRAM, "model '%s' was compiled without the infer plan", program.name);
    std::unique_ptr<cryo_context> made(new (std::nothrow) cryo_context);
    if (!made || !build(*made, *model))
        return model->error.fail(CRYO_OUT_OF_MEMORY, "no memory for a context of model '%s'", program.name);
    *context = made.release();
    return CRYO_OK;
}

void cryo_context_close(cryo_context *context) { delete context; }

cryo_status cryo_context_infer(cryo_context *context, const float *images, int64_t batch, float *outputs) {
    if (!context) return CRYO_BAD_ARGUMENT;
    Rows rows = {images, nullptr, outputs, batch};
    cryo_status status = check_rows(*context->work.program, INFER, rows, context->error);
    const bool check_finite = context->model->check_finite;
    if (status == CRYO_OK && check_finite) status = check_images(*context->work.program, rows, context->error);
    if (status != CRYO_OK) return status;
    if (DeviceModel *device = context->model->device.get()) {
        cryo_control control = {};
        control.batch = float(batch);
        control.step = float(context->model->steps);
        return device->run(INFER, control, rows, nullptr, context->error);
    }
    context->executor.set_check_finite(check_finite);
    cryo_control &control = context->work.control();
    control.batch = float(batch);
    control.step = float(context->model->steps);
    if (infer_mode(*context->work.program, batch) == INFER_ONE) {
        context->executor_one.set_check_finite(check_finite);
        return context->model->infer_few(context->work, context->executor_one, rows, Parallel(), context->error);
    }
    Regions regions = context->work.stage(rows, *context->model);
    status = context->model->prepare(INFER, context->executor, regions, Parallel(), context->error);
    if (status != CRYO_OK) return status;
    status = context->executor.run(regions, batch, Parallel(), context->error);
    if (status == CRYO_OK) context->work.unstage(rows);
    return status;
}

const char *cryo_context_error(const cryo_context *context) {
    return context ? context->error.get() : "context is null";
}
