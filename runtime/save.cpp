// Writes a checkpoint.
#include "checkpoint.h"
#include "file.h"
#include "json.h"
#include "model.h"

#include <cstring>
#include <new>
#include <string>
#include <vector>

using namespace cryolite::runtime;

namespace {

// Tensors in the order of the network, their data gapless in the same order.
std::string make_header(const cryo_model &model, size_t &checksum_at) {
    std::string text = "{\"__metadata__\":{\"cryolite.checksum\":\"";
    checksum_at = text.size();
    text.append(checksum_digits, '0');
    text += "\",\"cryolite.fingerprint\":";
    append_json_string(text, model.program->fingerprint);
    text += ",\"cryolite.steps\":\"" + std::to_string(model.steps) + "\"}";
    uint64_t begin = 0;
    for (int64_t i = 0; i < model.program->parameter_count; i++) {
        const cryo_parameter &parameter = model.program->parameters[i];
        uint64_t end = begin + uint64_t(parameter.elements) * sizeof(float);
        text += ",";
        append_json_string(text, parameter.name);
        text += ":{\"dtype\":\"F32\",\"shape\":[";
        for (int64_t d = 0; d < parameter.rank; d++) text += (d ? "," : "") + std::to_string(parameter.shape[d]);
        text += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
        begin = end;
    }
    text += "}";
    text.append((8 - text.size() % 8) % 8, ' '); // the data begin at a multiple of 8
    return text;
}

cryo_status save(cryo_model &model, const char *path) {
    size_t checksum_at = 0;
    std::string header = make_header(model, checksum_at);
    uint64_t size = header.size();
    if (size > max_header)
        return model.error.fail(CRYO_BAD_ARGUMENT, "%s: the header would have %zu bytes", path, header.size());
    std::vector<Piece> pieces = {{&size, sizeof size}, {header.data(), header.size()}};
    for (int64_t i = 0; i < model.program->parameter_count; i++) {
        const cryo_parameter &parameter = model.program->parameters[i];
        pieces.push_back({model.values(parameter), size_t(parameter.elements) * sizeof(float)});
    }
    Checksum checksum;
    for (const Piece &piece : pieces) checksum.add(piece.bytes, piece.size);
    write_hex(checksum.get(), &header[checksum_at]);
    return replace_file(path, pieces.data(), pieces.size(), model.error);
}

} // namespace

cryo_status cryo_save(cryo_model *model, const char *path) {
    if (!model) return CRYO_BAD_ARGUMENT;
    if (!path) return model->error.fail(CRYO_BAD_ARGUMENT, "path is null");
    if (cryo_status status = model->fetch_parameters(); status != CRYO_OK) return status;
    try {
        return save(*model, path);
    } catch (const std::bad_alloc &) {
        return model->error.fail(CRYO_OUT_OF_MEMORY, "%s: no memory for the header", path);
    }
}
