// Sizes and facts as constants, the program's symbol, a C++ class. Works as C and as C++17.
#include "header.h"

#include <fmt/format.h>

#include <algorithm>

namespace cryolite {

static std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return char(toupper(c)); });
    return text;
}

static constexpr char format[] = R"(// {name}.h: written by Cryolite from the network '{name}'. Do not edit.
// target {target}
//
// images   float[batch]{sample}, row-major    labels  int32[batch], 0 to {last_class}
// outputs  float[batch][{classes}]
#ifndef {upper}_H
#define {upper}_H

#include "cryolite_runtime.h"

#define {upper}_MAX_BATCH {batch}
#define {upper}_INPUT_ELEMENTS {input_elements}  // of one sample
#define {upper}_CLASSES {classes}
#define {upper}_PARAMETER_BYTES {parameter_bytes}
#define {upper}_ARENA_BYTES {arena_bytes}      // activations and gradients, largest plan
#define {upper}_SCRATCH_BYTES {scratch_bytes}  // per thread

#ifdef __cplusplus
extern "C" {{
#endif
extern const cryo_program {name}_program;  // for cryo_open
#ifdef __cplusplus
}}

#include "cryolite_runtime.hpp"

namespace {name} {{

// Owns parameters and memory; its functions are those of cryolite::Model.
class Model : public cryolite::Model {{
public:
    explicit Model(const cryolite::Options &options = {{}}) : cryolite::Model({name}_program, options) {{}}
}};

}}  // namespace {name}
#endif
#endif
)";

std::string header_text(const ProgramTables &tables, const CompiledModel &model) {
    std::string sample;
    for (size_t i = 1; i < tables.input.dims.size(); i++) sample += fmt::format("[{}]", tables.input.dims[i]);
    return fmt::format(format, fmt::arg("name", tables.name), fmt::arg("upper", upper(tables.name)),
                       fmt::arg("target", tables.target.name), fmt::arg("sample", sample),
                       fmt::arg("last_class", tables.classes - 1), fmt::arg("classes", tables.classes),
                       fmt::arg("batch", tables.max_batch), fmt::arg("input_elements", tables.input.elements()),
                       fmt::arg("parameter_bytes", model.parameter_bytes), fmt::arg("arena_bytes", model.arena_bytes),
                       fmt::arg("scratch_bytes", model.scratch_bytes));
}

} // namespace cryolite
