// A generator's algorithm under one of Halide's autoschedulers instead of its own schedule.
#ifndef CRYOLITE_BENCH_AUTOSCHEDULED_H
#define CRYOLITE_BENCH_AUTOSCHEDULED_H

#include "codegen.h"

namespace cryolite {

// "Mullapudi2016", "Li2018", "Adams2019".
extern const std::vector<std::string> autoschedulers;
// Whether the generator's algorithm stands apart from its schedule.
bool can_be_autoscheduled(const KernelSpec &kernel);
// The object, Halide's runtime in it, and the symbol of its argv function. For one core.
CompiledObject compile_autoscheduled(const KernelSpec &kernel, const KernelTarget &target,
                                     const std::string &autoscheduler);
std::string autoscheduled_symbol(const std::string &autoscheduler);

} // namespace cryolite
#endif
