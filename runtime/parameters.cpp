// Parameters by name, and the profile.
#include "model.h"

#include <cstring>

using namespace cryolite::runtime;

namespace {

// Null, with an error, when the model has no such parameter or it has another number of elements.
const cryo_parameter *find(cryo_model &model, const char *name, const float *values, size_t elements) {
    if (!name || !values) {
        model.error.fail(CRYO_BAD_ARGUMENT, "%s is null", name ? "values" : "name");
        return nullptr;
    }
    for (int64_t i = 0; i < model.program->parameter_count; i++) {
        const cryo_parameter &parameter = model.program->parameters[i];
        if (strcmp(parameter.name, name) != 0) continue;
        if (size_t(parameter.elements) == elements) return &parameter;
        model.error.fail(CRYO_BAD_ARGUMENT, "parameter '%s' has %lld elements, not %zu", name,
                         static_cast<long long>(parameter.elements), elements);
        return nullptr;
    }
    model.error.fail(CRYO_BAD_ARGUMENT, "model '%s' has no parameter '%s'", model.program->name,
                     Printable(name, strlen(name)).get());
    return nullptr;
}

} // namespace

size_t cryo_parameter_count(const cryo_model *model) { return model ? size_t(model->program->parameter_count) : 0; }

cryo_status cryo_parameter_at(const cryo_model *model, size_t index, cryo_parameter_info *info) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!info) return model->error.fail(CRYO_BAD_ARGUMENT, "info is null");
    if (index >= cryo_parameter_count(model))
        return model->error.fail(CRYO_BAD_ARGUMENT, "parameter %zu: the model has %zu", index,
                                 cryo_parameter_count(model));
    const cryo_parameter &parameter = model->program->parameters[index];
    *info = {parameter.name, int(parameter.role), int(parameter.rank), parameter.shape, size_t(parameter.elements)};
    return CRYO_OK;
}

cryo_status cryo_get_parameter(cryo_model *model, const char *name, float *values, size_t elements) {
    if (!model) return CRYO_BAD_ARGUMENT;
    const cryo_parameter *parameter = find(*model, name, values, elements);
    if (!parameter) return CRYO_BAD_ARGUMENT;
    if (cryo_status status = model->fetch_parameters(); status != CRYO_OK) return status;
    memcpy(values, model->values(*parameter), elements * sizeof(float));
    return CRYO_OK;
}

cryo_status cryo_set_parameter(cryo_model *model, const char *name, const float *values, size_t elements) {
    if (!model) return CRYO_BAD_ARGUMENT;
    const cryo_parameter *parameter = find(*model, name, values, elements);
    if (!parameter) return CRYO_BAD_ARGUMENT;
    if (cryo_status status = model->fetch_parameters(); status != CRYO_OK) return status;
    memcpy(model->values(*parameter), values, elements * sizeof(float));
    model->parameters_changed();
    return CRYO_OK;
}

cryo_status cryo_set_profiling(cryo_model *model, int on) {
    if (!model) return CRYO_BAD_ARGUMENT;
    for (int mode = 0; mode < MODES; mode++) model->profile_of(mode).set_profiling(on != 0);
    return CRYO_OK;
}

size_t cryo_profile_count(const cryo_model *model) {
    size_t count = 0;
    for (int mode = 0; model && mode < MODES; mode++) count += model->profile_of(mode).step_count();
    return count;
}

cryo_status cryo_profile_at(const cryo_model *model, size_t index, cryo_profile_row *row) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!row) return model->error.fail(CRYO_BAD_ARGUMENT, "row is null");
    size_t count = cryo_profile_count(model), first = 0;
    if (index >= count) return model->error.fail(CRYO_BAD_ARGUMENT, "profile row %zu: the model has %zu", index, count);
    int mode = 0;
    while (index - first >= model->profile_of(mode).step_count()) first += model->profile_of(mode++).step_count();
    StepProfile profile = model->profile_of(mode).profile(index - first);
    const cryo_step &step = *profile.step;
    double calls = double(profile.calls);
    *row = {plan_of(*model->program, mode)->mode,
            profile.phase,
            step.name,
            step.key,
            profile.calls,
            profile.seconds,
            calls * step.flops,
            calls * step.bytes};
    return CRYO_OK;
}

size_t cryo_profile_phase_count(const cryo_model *model) {
    size_t count = 0;
    for (int mode = 0; model && mode < MODES; mode++) count += model->profile_of(mode).phase_count();
    return count;
}

cryo_status cryo_profile_phase_at(const cryo_model *model, size_t index, cryo_profile_phase *phase) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!phase) return model->error.fail(CRYO_BAD_ARGUMENT, "phase is null");
    size_t count = cryo_profile_phase_count(model), first = 0;
    if (index >= count)
        return model->error.fail(CRYO_BAD_ARGUMENT, "profile phase %zu: the model has %zu", index, count);
    int mode = 0;
    while (index - first >= model->profile_of(mode).phase_count()) first += model->profile_of(mode++).phase_count();
    PhaseProfile profile = model->profile_of(mode).phase_profile(index - first);
    *phase = {plan_of(*model->program, mode)->mode, int(index - first), profile.runs, profile.seconds};
    return CRYO_OK;
}
