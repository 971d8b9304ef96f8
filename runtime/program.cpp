// A program's checks and sizes.
#include "program.h"

#include <cmath>
#include <initializer_list>
#include <thread>

namespace cryolite::runtime {

namespace {

constexpr int64_t max_rank = 16, most = int64_t(1) << 40;

bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

size_t aligned(size_t bytes) { return (bytes + CRYO_ALIGNMENT - 1) / CRYO_ALIGNMENT * CRYO_ALIGNMENT; }

// Adds regions one after another; bytes turns 0 for good when the sum does not fit.
struct Stacker {
    size_t bytes = 0;
    bool fits = true;
    size_t add(size_t size, size_t count = 1) {
        size_t offset = bytes, total = 0;
        if (__builtin_add_overflow(size, size_t(CRYO_ALIGNMENT - 1), &size)) fits = false;
        size = size / CRYO_ALIGNMENT * CRYO_ALIGNMENT;
        if (__builtin_mul_overflow(size, count, &total) || __builtin_add_overflow(bytes, total, &bytes)) fits = false;
        return offset;
    }
};

cryo_status check_arg(const cryo_program &program, const cryo_plan &plan, const cryo_step &step, const cryo_arg &arg,
                      Text &error) {
    if (arg.kind != CRYO_ARG_BUFFER) {
        if (within(arg.kind, CRYO_ARG_BATCH, CRYO_ARG_TILE)) return CRYO_OK;
        return error.fail(CRYO_BAD_PROGRAM, "program '%s', layer '%s': argument of unknown kind %lld", program.name,
                          step.name, static_cast<long long>(arg.kind));
    }
    int64_t room[] = {program.parameter_bytes,
                      plan.arena_bytes,
                      plan.scratch_bytes,
                      sizeof(cryo_control),
                      plan.prepared_bytes,
                      most,
                      most,
                      most};
    bool good = within(arg.region, 0, CRYO_REGION_OUTPUT) && within(arg.type, CRYO_F32, CRYO_I32) &&
                within(arg.rank, 0, max_rank) && (arg.rank == 0 || arg.dims) && arg.offset >= 0 &&
                arg.offset < room[arg.region] && within(arg.block_stride, 0, most) && within(arg.tile_stride, 0, most);
    for (int64_t d = 0; good && d < arg.rank; d++)
        good = within(arg.dims[d].extent, 0, INT32_MAX) && within(arg.dims[d].stride, INT32_MIN, INT32_MAX);
    if (good) return CRYO_OK;
    return error.fail(CRYO_BAD_PROGRAM, "program '%s', layer '%s': an argument lies outside its region", program.name,
                      step.name);
}

cryo_status check_steps(const cryo_program &program, const cryo_plan &plan, const cryo_step *steps, int64_t count,
                        Text &error) {
    if (count < 0 || (count > 0 && !steps))
        return error.fail(CRYO_BAD_PROGRAM, "program '%s': bad list of steps", program.name);
    for (int64_t s = 0; s < count; s++) {
        const cryo_step &step = steps[s];
        if (!step.kernel || !step.name || !step.key || step.tiles < 1 || !within(step.of_block, 0, 1) ||
            !within(step.joined_steps, 1, count - s) || step.arg_count < 0 || (step.arg_count > 0 && !step.args))
            return error.fail(CRYO_BAD_PROGRAM, "program '%s': bad step %lld of a phase", program.name,
                              static_cast<long long>(s));
        for (int64_t other = 1; other < step.joined_steps; other++)
            if (steps[s + other].tiles != step.tiles)
                return error.fail(CRYO_BAD_PROGRAM, "program '%s', layer '%s': steps in different strips", program.name,
                                  step.name);
        for (int64_t a = 0; a < step.arg_count; a++) {
            cryo_status status = check_arg(program, plan, step, step.args[a], error);
            if (status != CRYO_OK) return status;
        }
    }
    return CRYO_OK;
}

cryo_status check_plan(const cryo_program &program, const cryo_plan &plan, Text &error) {
    bool good = plan.mode && within(plan.lanes, 1, 1 << 16) && within(plan.phase_count, 0, 1 << 20) &&
                (plan.phase_count == 0 || plan.phases) && within(plan.arena_bytes, 0, most) &&
                within(plan.scratch_bytes, 0, most) && plan.min_batch >= 1 &&
                within(plan.prepared_phases, 0, plan.phase_count) && within(plan.prepared_bytes, 0, most) &&
                within(plan.strip_tasks, 0, 1);
    for (int64_t p = 0; good && p < plan.prepared_phases; p++) good = plan.phases[p].block_step_count == 0;
    for (int64_t offset : {plan.loss_offset, plan.correct_offset})
        if (good && offset >= 0) good = offset % 4 == 0 && offset + 4 <= plan.arena_bytes;
    if (!good) return error.fail(CRYO_BAD_PROGRAM, "program '%s': bad plan", program.name);
    for (int64_t p = 0; p < plan.phase_count; p++) {
        const cryo_phase &phase = plan.phases[p];
        cryo_status status = check_steps(program, plan, phase.block_steps, phase.block_step_count, error);
        if (status == CRYO_OK) status = check_steps(program, plan, phase.tile_steps, phase.tile_step_count, error);
        if (status == CRYO_OK) status = check_steps(program, plan, phase.tail_steps, phase.tail_step_count, error);
        if (status != CRYO_OK) return status;
    }
    return CRYO_OK;
}

bool good_parameter(const cryo_program &program, const cryo_parameter &p) {
    bool good = p.name && within(p.role, CRYO_ROLE_PARAMETER, CRYO_ROLE_OPTIMIZER) && within(p.rank, 0, max_rank) &&
                (p.rank == 0 || p.shape) && within(p.init, CRYO_INIT_CONSTANT, CRYO_INIT_NORMAL) &&
                std::isfinite(p.init_value) && p.offset >= 0 && p.offset % CRYO_ALIGNMENT == 0 &&
                within(p.elements, 1, most / 4) && within(p.offset, 0, program.parameter_bytes - 4 * p.elements);
    int64_t elements = 1;
    for (int64_t d = 0; good && d < p.rank; d++)
        good = p.shape[d] >= 1 && !__builtin_mul_overflow(elements, p.shape[d], &elements);
    return good && elements == p.elements;
}

// Whether a step sees the rows of other blocks than its own.
bool touches_all_rows(const cryo_step *steps, int64_t count) {
    for (int64_t s = 0; s < count; s++)
        for (int64_t a = 0; a < steps[s].arg_count; a++) {
            const cryo_arg &arg = steps[s].args[a];
            if (arg.kind == CRYO_ARG_BUFFER && arg.region >= CRYO_REGION_INPUT && arg.block_stride == 0) return true;
        }
    return false;
}

// Staging for one block, or for all.
void add_rows(const cryo_program &program, std::initializer_list<const cryo_plan *> plans, Layout &layout,
              Stacker &stack) {
    for (const cryo_plan *plan : plans)
        for (int64_t p = 0; plan && p < plan->phase_count; p++) {
            const cryo_phase &phase = plan->phases[p];
            if (touches_all_rows(phase.block_steps, phase.block_step_count) ||
                touches_all_rows(phase.tile_steps, phase.tile_step_count) ||
                touches_all_rows(phase.tail_steps, phase.tail_step_count))
                layout.whole_rows = true;
        }
    size_t lanes = size_t(program.lanes), blocks = (size_t(program.max_batch) + lanes - 1) / lanes;
    size_t rows = lanes * (layout.whole_rows ? blocks : 1);
    RowBytes row = row_bytes(program);
    layout.input = stack.add(rows * row.input);
    layout.label = stack.add(rows * row.label);
    layout.output = stack.add(rows * row.output);
    layout.bytes = stack.fits ? stack.bytes : 0;
}

} // namespace

const cryo_plan *plan_of(const cryo_program &program, int mode) {
    const cryo_plan *const plans[MODES] = {program.train, program.evaluate, program.infer, program.infer_one};
    return plans[mode];
}

Mode infer_mode(const cryo_program &program, int64_t batch) {
    return program.infer_one && batch <= program.infer_one_batch ? INFER_ONE : INFER;
}

RowBytes row_bytes(const cryo_program &program) {
    size_t elements = 1;
    for (int64_t d = 0; d < program.input_rank; d++) elements *= size_t(program.input_shape[d]);
    return {elements * sizeof(float), sizeof(int32_t), size_t(program.classes) * sizeof(float)};
}

cryo_status check_program(const cryo_program *program, Text &error) {
    if (!program) return error.fail(CRYO_BAD_ARGUMENT, "program is null");
    // Of another version only the version's place is known.
    if (program->version != CRYO_PLAN_VERSION)
        return error.fail(CRYO_BAD_PROGRAM,
                          "the program has version %lld, this runtime reads version %d: compile again",
                          static_cast<long long>(program->version), CRYO_PLAN_VERSION);
    bool good = program->name && program->target && program->fingerprint && within(program->lanes, 1, 1 << 16) &&
                within(program->max_batch, 1, INT32_MAX) && within(program->input_rank, 0, max_rank) &&
                (program->input_rank == 0 || program->input_shape) && within(program->classes, 1, INT32_MAX) &&
                within(program->infer_one_batch, 0, program->max_batch) && program->parameter_count >= 0 &&
                (program->parameter_count == 0 || program->parameters) && within(program->parameter_bytes, 0, most) &&
                program->parameter_bytes % CRYO_ALIGNMENT == 0;
    int64_t elements = 1;
    for (int64_t d = 0; good && d < program->input_rank; d++)
        good = program->input_shape[d] >= 1 && !__builtin_mul_overflow(elements, program->input_shape[d], &elements) &&
               elements <= most;
    good = good && std::isfinite(program->learning_rate) && within(program->rate, CRYO_RATE_CONSTANT, CRYO_RATE_COSINE);
    if (good && program->rate != CRYO_RATE_CONSTANT)
        good = program->rate_period > 0 && std::isfinite(program->rate_gamma);
    if (!good) return error.fail(CRYO_BAD_PROGRAM, "the program's header is damaged");
    for (int64_t i = 0; i < program->parameter_count; i++)
        if (!good_parameter(*program, program->parameters[i]))
            return error.fail(CRYO_BAD_PROGRAM, "program '%s': bad parameter %lld", program->name,
                              static_cast<long long>(i));
    for (int mode = 0; mode < MODES; mode++) {
        const cryo_plan *plan = plan_of(*program, mode);
        cryo_status status = plan ? check_plan(*program, *plan, error) : CRYO_OK;
        if (status != CRYO_OK) return status;
    }
    return CRYO_OK;
}

namespace {

// Plans run one at a time: they share arena and scratch, and all but infer_one room for prepared values.
struct Largest {
    size_t arena = 0, scratch = 0, prepared = 0;
    explicit Largest(const cryo_program &program);
};
Largest::Largest(const cryo_program &program) {
    for (const cryo_plan *plan : {program.train, program.evaluate, program.infer, program.infer_one}) {
        if (!plan) continue;
        if (size_t(plan->arena_bytes) > arena) arena = size_t(plan->arena_bytes);
        if (size_t(plan->scratch_bytes) > scratch) scratch = size_t(plan->scratch_bytes);
        if (plan != program.infer_one && size_t(plan->prepared_bytes) > prepared)
            prepared = size_t(plan->prepared_bytes);
    }
}

} // namespace

Layout model_layout(const cryo_program &program, int threads) {
    const Largest largest(program);
    Stacker stack;
    Layout layout;
    layout.parameters = stack.add(size_t(program.parameter_bytes));
    if (program.device) {
        layout.control = stack.add(sizeof(cryo_control));
        layout.bytes = stack.fits ? stack.bytes : 0;
        return layout;
    }
    layout.prepared = stack.add(largest.prepared);
    layout.prepared_one = stack.add(program.infer_one ? size_t(program.infer_one->prepared_bytes) : 0);
    layout.control = stack.add(sizeof(cryo_control));
    size_t arena = largest.arena;
    if (const cryo_plan *one = program.infer_one) {
        const int64_t arenas = program.infer_one_batch < threads ? program.infer_one_batch : threads;
        layout.arena_stride = aligned(size_t(one->arena_bytes));
        if (size_t bytes = layout.arena_stride * size_t(arenas); bytes > arena) arena = bytes;
    }
    layout.arena = stack.add(arena);
    layout.scratch_stride = aligned(largest.scratch);
    layout.scratch = stack.add(largest.scratch, size_t(threads));
    add_rows(program, {program.train, program.evaluate, program.infer}, layout, stack);
    return layout;
}

Layout device_layout(const cryo_program &program) {
    const Largest largest(program);
    const RowBytes row = row_bytes(program);
    const size_t lanes = size_t(program.lanes), rows = (size_t(program.max_batch) + lanes - 1) / lanes * lanes;
    Stacker stack;
    Layout layout;
    layout.whole_rows = true;
    layout.parameters = stack.add(size_t(program.parameter_bytes));
    layout.prepared = stack.add(largest.prepared);
    layout.control = stack.add(sizeof(cryo_control));
    layout.label = stack.add(row.label, rows);
    layout.input = stack.add(row.input, rows);
    layout.output = stack.add(row.output, rows);
    layout.arena = stack.add(largest.arena);
    layout.bytes = stack.fits ? stack.bytes : 0;
    return layout;
}

Layout context_layout(const cryo_program &program) {
    Stacker stack;
    Layout layout;
    layout.control = stack.add(sizeof(cryo_control));
    size_t arena = size_t(program.infer->arena_bytes), scratch = size_t(program.infer->scratch_bytes);
    if (const cryo_plan *one = program.infer_one) {
        if (size_t(one->arena_bytes) > arena) arena = size_t(one->arena_bytes);
        if (size_t(one->scratch_bytes) > scratch) scratch = size_t(one->scratch_bytes);
    }
    layout.arena = stack.add(arena);
    layout.scratch = stack.add(scratch);
    add_rows(program, {program.infer}, layout, stack);
    return layout;
}

int resolve_threads(int threads) {
    if (threads != 0) return threads;
    int cores = int(std::thread::hardware_concurrency());
    return cores < 1 ? 1 : cores > 1024 ? 1024 : cores;
}

} // namespace cryolite::runtime
