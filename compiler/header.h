// The generated header: what a program includes to use a compiled model.
#ifndef CRYOLITE_HEADER_H
#define CRYOLITE_HEADER_H

#include "emit_program.h"

namespace cryolite {

std::string header_text(const ProgramTables &tables, const CompiledModel &model);

} // namespace cryolite
#endif
