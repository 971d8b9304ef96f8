// Contexts: what one inferring thread needs. The parameters are the model's.
#include "model.h"

#include <cstring>
#include <new>

using namespace cryolite::runtime;

cryo_status cryo_context_open(cryo_model *model, cryo_context **context) {
    if (context) *context = nullptr;
    if (!model) return CRYO_BAD_ARGUMENT;
    // Contexts may be opened from several threads at once: only a failure writes to the model.
    if (!context) return model->error.fail(CRYO_BAD_ARGUMENT, "context is null");
    const cryo_program &program = *model->program;
    if (!program.infer)
        return model->error.fail(CRYO_BAD_PROGRAM, "model '%s' was compiled without the infer plan", program.name);
    std::unique_ptr<cryo_context> made(new (std::nothrow) cryo_context);
    if (made) {
        made->model = model;
        made->work.program = &program;
        made->work.layout = context_layout(program);
        if (made->work.layout.bytes) made->owned = allocate_memory(made->work.layout.bytes);
        made->work.memory = made->owned.get();
    }
    if (!made || !made->owned || !made->executor.prepare(program, *program.infer, 1))
        return model->error.fail(CRYO_OUT_OF_MEMORY, "no memory for a context of model '%s'", program.name);
    memset(made->work.memory, 0, made->work.layout.bytes);
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
    context->executor.set_check_finite(check_finite);
    cryo_control &control = context->work.control();
    control.batch = float(batch);
    control.step = float(context->model->steps);
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
