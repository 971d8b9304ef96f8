// Opening and closing models, and their facts.
#include "model.h"

#include "halide_error.h"

#include <cstring>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

using namespace cryolite::runtime;

namespace cryolite::runtime {

// Much memory in large pages, if the system has them to give: fewer TLB misses, and fewer faults at the first touch.
Memory allocate_memory(size_t bytes) {
    constexpr size_t page = size_t(2) << 20;
    const size_t alignment = bytes >= 4 * page ? page : size_t(CRYO_ALIGNMENT);
    if (bytes > SIZE_MAX - alignment) return nullptr;
    size_t rounded = (bytes + alignment) / alignment * alignment; // never 0
    void *memory = std::aligned_alloc(alignment, rounded);
#if defined(MADV_HUGEPAGE)
    if (memory && alignment == page) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return Memory(static_cast<uint8_t *>(memory));
}

} // namespace cryolite::runtime

namespace {

thread_local Text open_error;

cryo_status check_options(const cryo_program &program, const cryo_options &options, Text &error) {
    if (options.threads < 0 || options.threads > 1024)
        return error.fail(CRYO_BAD_ARGUMENT, "threads is %d: expected 0 to 1024", options.threads);
    if (!options.arena) return CRYO_OK;
    if (reinterpret_cast<uintptr_t>(options.arena) % CRYO_ALIGNMENT)
        return error.fail(CRYO_BAD_ARGUMENT, "the arena is not aligned to %d bytes", CRYO_ALIGNMENT);
    size_t needed = cryo_arena_bytes(&program, options.threads);
    if (options.arena_bytes < needed)
        return error.fail(CRYO_BAD_ARGUMENT, "the arena has %zu bytes, model '%s' with %d threads needs %zu",
                          options.arena_bytes, program.name, resolve_threads(options.threads), needed);
    return CRYO_OK;
}

// What runs the plans on the processor.
cryo_status build_executors(cryo_model &model, const cryo_options &options, Text &error) {
    const cryo_program &program = *model.program;
    for (int mode = 0; mode < MODES; mode++) {
        const cryo_plan *plan = plan_of(program, mode);
        if (plan && !model.executors[mode].prepare(*plan, model.threads))
            return error.fail(CRYO_OUT_OF_MEMORY, "no memory for the steps of model '%s'", program.name);
    }
    if (options.parallel) {
        model.parallel = {options.parallel, options.pool};
    } else {
        if (!model.pool.start(model.threads))
            return error.fail(CRYO_OUT_OF_MEMORY, "the system has no %d threads for model '%s'", model.threads,
                              program.name);
        model.parallel.run = [](void *pool, int tasks, Task task, void *user) {
            static_cast<Pool *>(pool)->run(tasks, task, user);
        };
        model.parallel.pool = &model.pool;
    }
    install_halide_error_handler();
    return CRYO_OK;
}

cryo_status build(cryo_model &model, const cryo_options &options, Text &error) {
    const cryo_program &program = *model.program;
    model.threads = resolve_threads(options.threads);
    model.work.program = &program;
    model.work.layout = model_layout(program, model.threads);
    size_t bytes = model.work.layout.bytes;
    model.work.memory = static_cast<uint8_t *>(options.arena);
    if (!options.arena) {
        if (bytes) model.owned = allocate_memory(bytes);
        if (!model.owned)
            return error.fail(CRYO_OUT_OF_MEMORY, "no memory for the %zu bytes of model '%s'", bytes, program.name);
        model.work.memory = model.owned.get();
    }
    // Prepared values are written before they are read: a process that only trains never touches their pages.
    const Layout &layout = model.work.layout;
    memset(model.work.memory, 0, program.device ? layout.control : layout.prepared);
    memset(model.work.memory + layout.control, 0, bytes - layout.control);
    model.learning_rate = program.learning_rate;
    return program.device ? program.device->open(program, model.parameters(), model.device, error)
                          : build_executors(model, options, error);
}

} // namespace

size_t cryo_arena_bytes(const cryo_program *program, int threads) {
    Text ignored;
    if (check_program(program, ignored) != CRYO_OK || threads < 0 || threads > 1024) return 0;
    return model_layout(*program, resolve_threads(threads)).bytes;
}

cryo_status cryo_open(const cryo_program *program, const cryo_options *options, cryo_model **model) {
    Text &error = open_error;
    if (!model) return error.fail(CRYO_BAD_ARGUMENT, "model is null");
    *model = nullptr;
    cryo_options defaults = {};
    if (!options) options = &defaults;
    cryo_status status = check_program(program, error);
    if (status == CRYO_OK) status = check_options(*program, *options, error);
    if (status != CRYO_OK) return status;
    std::unique_ptr<cryo_model> made(new (std::nothrow) cryo_model);
    if (!made) return error.fail(CRYO_OUT_OF_MEMORY, "no memory for model '%s'", program->name);
    made->program = program;
    status = build(*made, *options, error);
    if (status != CRYO_OK) return status;
    *model = made.release();
    return CRYO_OK;
}

const char *cryo_open_error(void) { return open_error.get(); }

void cryo_close(cryo_model *model) { delete model; }

const char *cryo_error(const cryo_model *model) { return model ? model->error.get() : "model is null"; }

const char *cryo_model_name(const cryo_model *model) { return model ? model->program->name : ""; }
int64_t cryo_max_batch(const cryo_model *model) { return model ? model->program->max_batch : 0; }
int64_t cryo_classes(const cryo_model *model) { return model ? model->program->classes : 0; }
size_t cryo_input_elements(const cryo_model *model) {
    return model ? row_bytes(*model->program).input / sizeof(float) : 0;
}
size_t cryo_memory_bytes(const cryo_model *model) {
    if (!model) return 0;
    return model->work.layout.bytes + (model->device ? model->device->memory_bytes() : 0);
}
