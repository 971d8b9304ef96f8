// The `pointwise` generator: a program's inputs and outputs become the kernel's arguments in order of appearance.
#include "pointwise_generator.h"
#include "pointwise_kernel.h"

namespace cryolite {

class Pointwise : public PointwiseGenerator<Pointwise> {
public:
    Halide::GeneratorParam<std::string> program{"program", ""};

    std::string program_text() const { return program; }
};

} // namespace cryolite

HALIDE_REGISTER_GENERATOR(cryolite::Pointwise, pointwise)
