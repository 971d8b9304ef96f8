// Reads a checkpoint: all of it is checked before anything of the model changes.
#include "checkpoint.h"
#include "file.h"
#include "model.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

using namespace cryolite::runtime;

namespace {

std::string shape_text(const std::vector<uint64_t> &shape) {
    std::string text = "[";
    for (size_t d = 0; d < shape.size(); d++) text += (d ? ", " : "") + std::to_string(shape[d]);
    return text + "]";
}

// The same elements in the same order: [1, 6, 1, 1] and [6].
std::vector<uint64_t> without_ones(std::vector<uint64_t> shape) {
    shape.erase(std::remove(shape.begin(), shape.end(), 1u), shape.end());
    return shape;
}

// Counters that PyTorch's batch norm saves beside its statistics; a model that counts, too, has one float of that name.
bool is_foreign_counter(const Tensor &tensor) {
    static const char suffix[] = "num_batches_tracked";
    size_t size = sizeof suffix - 1;
    return tensor.dtype == "I64" && tensor.shape.empty() && tensor.name.size() >= size &&
           tensor.name.compare(tensor.name.size() - size, size, suffix) == 0;
}

constexpr int64_t max_count = 1 << 24; // the largest up to which a float counts

struct Loader {
    cryo_model &model;
    const char *path;
    Memory bytes;
    size_t size = 0;
    const uint8_t *data = nullptr;
    size_t data_size = 0;
    Header header;
    std::vector<const Tensor *> sources; // by parameter; null: starts anew
    int64_t steps = 0;

    __attribute__((format(printf, 2, 3))) cryo_status bad(const char *format, ...) {
        char what[768];
        va_list args;
        va_start(args, format);
        vsnprintf(what, sizeof what, format, args);
        va_end(args);
        return model.error.fail(CRYO_BAD_FILE, "%s: %s", path, what);
    }
    cryo_status bad_tensor(const std::string &name, const char *expected, const std::string &found) {
        return bad("tensor '%s': expected %s, found %s", Printable(name.data(), name.size()).get(), expected,
                   Printable(found.data(), found.size()).get());
    }

    // A file may hold each parameter, a counter for each, and a header.
    cryo_status read() {
        size_t parameters = size_t(model.program->parameter_count);
        size_t most = sizeof(uint64_t) + max_header + parameters * sizeof(int64_t);
        most += size_t(model.program->parameter_bytes);
        cryo_status status = read_file(path, most, bytes, size, model.error);
        if (status != CRYO_OK) return status;
        uint64_t header_size = 0;
        if (size < sizeof header_size) return bad("expected a header, found %zu bytes", size);
        memcpy(&header_size, bytes.get(), sizeof header_size);
        if (header_size > max_header || header_size > size - sizeof header_size)
            return bad("expected a header of %llu bytes, found %zu (at most %zu are read)",
                       static_cast<unsigned long long>(header_size), size - sizeof header_size, max_header);
        const char *text = reinterpret_cast<const char *>(bytes.get()) + sizeof header_size;
        std::string what;
        if (!parse_header(text, size_t(header_size), 2 * parameters, header, what)) return bad("%s", what.c_str());
        data = bytes.get() + sizeof header_size + header_size;
        data_size = size - sizeof header_size - size_t(header_size);
        return CRYO_OK;
    }

    // Spoils the digits of the checksum in memory: call once.
    cryo_status check_metadata() {
        if (!header.ours) return CRYO_OK;
        if (!header.has_checksum || !header.has_fingerprint || !header.has_steps)
            return bad("expected cryolite.checksum, cryolite.fingerprint and cryolite.steps, found only some of them");
        uint8_t *digits = bytes.get() + sizeof(uint64_t) + header.checksum_at;
        bool plain =
            header.checksum.size() == checksum_digits && memcmp(digits, header.checksum.data(), checksum_digits) == 0;
        if (!plain) return bad("expected a checksum of %zu digits", checksum_digits);
        memset(digits, '0', checksum_digits);
        // In the pieces that save() has: the size, the header, each tensor.
        Checksum checksum;
        size_t header_size = size - data_size - sizeof(uint64_t);
        checksum.add(bytes.get(), sizeof(uint64_t));
        checksum.add(bytes.get() + sizeof(uint64_t), header_size);
        for (const Tensor &tensor : header.tensors) checksum.add(data + tensor.begin, tensor.end - tensor.begin);
        char expected[checksum_digits + 1] = {};
        write_hex(checksum.get(), expected);
        if (header.checksum != expected)
            return bad("damaged: the checksum of its content is %s, the file says %s", expected,
                       Printable(header.checksum.data(), header.checksum.size()).get());
        if (header.fingerprint != model.program->fingerprint)
            return bad("of another model: expected fingerprint %s, found %s", model.program->fingerprint,
                       Printable(header.fingerprint.data(), header.fingerprint.size()).get());
        char *end = nullptr;
        errno = 0;
        steps = strtoll(header.steps.c_str(), &end, 10);
        if (header.steps.empty() || header.steps[0] < '0' || header.steps[0] > '9' || *end || errno)
            return bad("expected a number of steps, found '%s'",
                       Printable(header.steps.data(), header.steps.size()).get());
        return CRYO_OK;
    }

    // Every tensor's bytes are its shape's, and all together are the data, without overlap or gap.
    cryo_status check_offsets() {
        for (const Tensor &tensor : header.tensors) {
            uint64_t product = is_foreign_counter(tensor) ? sizeof(int64_t) : sizeof(float);
            bool fits = true;
            for (uint64_t extent : tensor.shape) fits = fits && !__builtin_mul_overflow(product, extent, &product);
            if (tensor.begin > tensor.end || tensor.end > data_size)
                return bad_tensor(tensor.name,
                                  ("offsets within the " + std::to_string(data_size) + " bytes of data").c_str(),
                                  shape_text({tensor.begin, tensor.end}));
            if (!fits || product != tensor.end - tensor.begin)
                return bad_tensor(tensor.name, ("the bytes of shape " + shape_text(tensor.shape)).c_str(),
                                  std::to_string(tensor.end - tensor.begin));
        }
        std::vector<const Tensor *> order;
        for (const Tensor &tensor : header.tensors) order.push_back(&tensor);
        std::sort(order.begin(), order.end(), [](const Tensor *a, const Tensor *b) {
            return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
        });
        uint64_t next = 0;
        for (const Tensor *tensor : order) {
            if (tensor->begin != next)
                return bad_tensor(tensor->name, ("data that begin at " + std::to_string(next)).c_str(),
                                  std::to_string(tensor->begin));
            next = tensor->end;
        }
        if (next != data_size)
            return bad("expected %llu bytes of data, found %zu", static_cast<unsigned long long>(next), data_size);
        return CRYO_OK;
    }

    int64_t foreign_count(const Tensor &tensor) const {
        int64_t count;
        memcpy(&count, data + tensor.begin, sizeof count);
        return count;
    }

    cryo_status match(const Tensor &tensor) {
        const bool counter = !header.ours && is_foreign_counter(tensor);
        for (size_t i = 0; i < sources.size(); i++) {
            const cryo_parameter &parameter = model.program->parameters[i];
            if (tensor.name != parameter.name) continue;
            if (sources[i]) return bad_tensor(tensor.name, "it once", "it twice");
            if (!counter && tensor.dtype != "F32") return bad_tensor(tensor.name, "dtype F32", tensor.dtype);
            if (counter && (foreign_count(tensor) < 0 || foreign_count(tensor) > max_count))
                return bad_tensor(tensor.name, "a count from 0 to 16777216", std::to_string(foreign_count(tensor)));
            std::vector<uint64_t> shape(parameter.shape, parameter.shape + parameter.rank);
            bool same = header.ours ? shape == tensor.shape : without_ones(shape) == without_ones(tensor.shape);
            if (!same) return bad_tensor(tensor.name, ("shape " + shape_text(shape)).c_str(), shape_text(tensor.shape));
            sources[i] = &tensor;
            return CRYO_OK;
        }
        if (counter) return CRYO_OK;
        return bad("tensor '%s' is not of model '%s'", Printable(tensor.name.data(), tensor.name.size()).get(),
                   model.program->name);
    }

    cryo_status check_tensors() {
        sources.assign(size_t(model.program->parameter_count), nullptr);
        for (const Tensor &tensor : header.tensors) {
            cryo_status status = match(tensor);
            if (status != CRYO_OK) return status;
        }
        for (size_t i = 0; i < sources.size(); i++) {
            const cryo_parameter &parameter = model.program->parameters[i];
            bool optional = !header.ours && parameter.role == CRYO_ROLE_OPTIMIZER;
            if (!sources[i] && !optional) return bad("tensor '%s' is missing", parameter.name);
        }
        return CRYO_OK;
    }

    void commit() {
        for (size_t i = 0; i < sources.size(); i++) {
            const cryo_parameter &parameter = model.program->parameters[i];
            size_t count = size_t(parameter.elements);
            if (sources[i] && sources[i]->dtype == "I64")
                *model.values(parameter) = float(foreign_count(*sources[i]));
            else if (sources[i])
                memcpy(model.values(parameter), data + sources[i]->begin, count * sizeof(float));
            else
                std::fill_n(model.values(parameter), count, float(parameter.init_value));
        }
        model.steps = steps;
        model.parameters_changed();
    }

    cryo_status load() {
        cryo_status status = read();
        if (status == CRYO_OK) status = check_offsets();
        if (status == CRYO_OK) status = check_metadata();
        if (status == CRYO_OK) status = check_tensors();
        if (status == CRYO_OK) commit();
        return status;
    }
};

} // namespace

cryo_status cryo_load(cryo_model *model, const char *path) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!path) return model->error.fail(CRYO_BAD_ARGUMENT, "path is null");
    try {
        Loader loader{*model, path, nullptr, 0, nullptr, 0, {}, {}, 0};
        return loader.load();
    } catch (const std::bad_alloc &) { return model->error.fail(CRYO_OUT_OF_MEMORY, "%s: no memory to read it", path); }
}
