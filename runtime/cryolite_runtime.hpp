// A thin C++17 class over the C interface: ownership, exceptions, vectors. The contracts are cryolite_runtime.h's.
//
//   lenet::Model model({.threads = 4});    // generated: a cryolite::Model of lenet_program
//   model.initialize(42);
//   double loss = model.train_step(images, labels, 256).loss;
//   model.save("lenet.safetensors");
#ifndef CRYOLITE_RUNTIME_HPP
#define CRYOLITE_RUNTIME_HPP

#include "cryolite_runtime.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cryolite {

class Error : public std::runtime_error {
public:
    Error(cryo_status status, const char *text)
        : std::runtime_error(text && *text ? text : cryo_status_text(status)), status_(status) {}
    cryo_status status() const { return status_; }

private:
    cryo_status status_;
};

using Options = cryo_options;
using Result = cryo_result;
using ParameterInfo = cryo_parameter_info;
using ProfileRow = cryo_profile_row;

// What one inferring thread needs. Lives no longer than its model.
class Context {
public:
    Context(Context &&other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
    Context &operator=(Context &&other) noexcept {
        std::swap(context_, other.context_);
        return *this;
    }
    ~Context() { cryo_context_close(context_); }

    void infer(const float *images, int64_t batch, float *outputs) {
        cryo_status status = cryo_context_infer(context_, images, batch, outputs);
        if (status != CRYO_OK) throw Error(status, cryo_context_error(context_));
    }
    cryo_context *get() const { return context_; }

private:
    friend class Model;
    explicit Context(cryo_context *context) : context_(context) {}
    cryo_context *context_;
};

// Moving leaves an empty model, on which every call throws.
class Model {
public:
    explicit Model(const cryo_program &program, const Options &options = {}) {
        cryo_status status = cryo_open(&program, &options, &model_);
        if (status != CRYO_OK) throw Error(status, cryo_open_error());
    }
    Model(Model &&other) noexcept : model_(std::exchange(other.model_, nullptr)) {}
    Model &operator=(Model &&other) noexcept {
        std::swap(model_, other.model_);
        return *this;
    }
    ~Model() { cryo_close(model_); }

    void initialize(uint64_t seed) { check(cryo_initialize(model_, seed)); }
    Result train_step(const float *images, const int32_t *labels, int64_t batch) {
        Result result = {};
        check(cryo_train_step(model_, images, labels, batch, &result));
        return result;
    }
    Result evaluate(const float *images, const int32_t *labels, int64_t batch) {
        Result result = {};
        check(cryo_evaluate(model_, images, labels, batch, &result));
        return result;
    }
    void infer(const float *images, int64_t batch, float *outputs) {
        check(cryo_infer(model_, images, batch, outputs));
    }
    Context context() {
        cryo_context *context = nullptr;
        check(cryo_context_open(model_, &context));
        return Context(context);
    }

    double learning_rate() const { return cryo_learning_rate(model_); }
    void set_learning_rate(double rate) { check(cryo_set_learning_rate(model_, rate)); }
    int64_t steps() const { return cryo_steps(model_); }

    void save(const std::string &path) { check(cryo_save(model_, path.c_str())); }
    void load(const std::string &path) { check(cryo_load(model_, path.c_str())); }

    std::vector<ParameterInfo> parameters() const {
        std::vector<ParameterInfo> infos(cryo_parameter_count(model_));
        for (size_t i = 0; i < infos.size(); i++) check(cryo_parameter_at(model_, i, &infos[i]));
        return infos;
    }
    std::vector<float> parameter(const std::string &name) {
        for (const ParameterInfo &info : parameters())
            if (name == info.name) {
                std::vector<float> values(info.elements);
                check(cryo_get_parameter(model_, info.name, values.data(), values.size()));
                return values;
            }
        throw Error(CRYO_BAD_ARGUMENT, ("the model has no parameter '" + name + "'").c_str());
    }
    void set_parameter(const std::string &name, const std::vector<float> &values) {
        static const float none = 0;
        check(cryo_set_parameter(model_, name.c_str(), values.empty() ? &none : values.data(), values.size()));
    }

    void set_check_finite(bool on) { check(cryo_set_check_finite(model_, on)); }
    void set_profiling(bool on) { check(cryo_set_profiling(model_, on)); }
    std::vector<ProfileRow> profile() const {
        std::vector<ProfileRow> rows(cryo_profile_count(model_));
        for (size_t i = 0; i < rows.size(); i++) check(cryo_profile_at(model_, i, &rows[i]));
        return rows;
    }

    std::string name() const { return cryo_model_name(model_); }
    int64_t max_batch() const { return cryo_max_batch(model_); }
    int64_t classes() const { return cryo_classes(model_); }
    size_t input_elements() const { return cryo_input_elements(model_); }
    size_t memory_bytes() const { return cryo_memory_bytes(model_); }
    cryo_model *get() const { return model_; } // for the C functions

private:
    void check(cryo_status status) const {
        if (status != CRYO_OK) throw Error(status, cryo_error(model_));
    }
    cryo_model *model_ = nullptr;
};

} // namespace cryolite
#endif
