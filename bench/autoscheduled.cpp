// Autoschedulers want estimates of all extents; they are the constraints that the generator sets.
#include "autoscheduled.h"

#include "cache.h"
#include "graph.h"

#include <Halide.h>

#include <algorithm>

namespace cryolite {

using Halide::Internal::ArgInfoDirection;

const std::vector<std::string> autoschedulers = {"Mullapudi2016", "Li2018", "Adams2019"};

namespace {

Halide::Expr extent_of(const Halide::Parameter &buffer, int d) {
    const Halide::Expr extent = buffer.extent_constraint(d);
    if (!extent.defined()) throw InternalError("an extent of '" + buffer.name() + "' is not constant");
    return extent;
}

void estimate(Halide::Parameter buffer) {
    for (int d = 0; buffer.is_buffer() && d < buffer.dimensions(); d++) {
        buffer.set_min_constraint_estimate(d, 0);
        buffer.set_extent_constraint_estimate(d, extent_of(buffer, d));
    }
}

void estimate(Halide::Func output) {
    const Halide::Parameter buffer = output.output_buffer().parameter();
    for (int d = 0; d < output.dimensions(); d++)
        output.set_estimate(output.args()[size_t(d)], 0, extent_of(buffer, d));
}

Halide::Argument argument_of(const Halide::Parameter &parameter) {
    const bool buffer = parameter.is_buffer();
    return Halide::Argument(parameter.name(), buffer ? Halide::Argument::InputBuffer : Halide::Argument::InputScalar,
                            parameter.type(), parameter.dimensions(), parameter.get_argument_estimates());
}

void load_plugin_once(const std::string &autoscheduler) {
    std::string name = autoscheduler;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    Halide::load_plugin(std::string(CRYOLITE_HALIDE_LIBRARIES) + "/libautoschedule_" + name + ".so");
}

} // namespace

bool can_be_autoscheduled(const KernelSpec &kernel) {
    auto stride = kernel.parameters.find("stride");
    const bool strided = stride != kernel.parameters.end() && stride->second != "1";
    return kernel.generator == "conv2d" || (kernel.generator == "conv2d_grad_input" && !strided) ||
           kernel.generator == "linear" || kernel.generator == "linear_grad_input";
}

std::string autoscheduled_symbol(const std::string &autoscheduler) { return "by_" + autoscheduler; }

CompiledObject compile_autoscheduled(const KernelSpec &kernel, const KernelTarget &target,
                                     const std::string &autoscheduler) {
    using T = Halide::Target;
    try {
        load_plugin_once(autoscheduler);
        const Halide::Target halide =
            Halide::Target(target.name).with_feature(T::NoAsserts).with_feature(T::NoBoundsQuery);
        const Halide::AutoschedulerParams parameters(autoscheduler, {{"parallelism", "1"}});
        auto generator =
            Halide::Internal::GeneratorRegistry::create(kernel.generator, Halide::GeneratorContext(halide, parameters));
        for (auto &[name, value] : kernel.parameters) generator->set_generatorparam_value(name, value);
        Halide::Pipeline pipeline = generator->build_pipeline();
        std::vector<Halide::Argument> arguments;
        for (const auto &info : generator->arginfos()) {
            if (info.dir == ArgInfoDirection::Input)
                for (const auto &parameter : generator->input_parameter(info.name)) {
                    estimate(parameter);
                    arguments.push_back(argument_of(parameter));
                }
            else
                for (const Halide::Func &func : generator->output_func(info.name)) estimate(func);
        }
        pipeline.apply_autoscheduler(halide, parameters);
        TemporaryFile object(".o");
        pipeline.compile_to_object(object.path(), arguments, autoscheduled_symbol(autoscheduler), halide);
        return {autoscheduler + ".o", read_file(object.path()), {}};
    } catch (const Halide::Error &error) { throw InternalError(error.what()); }
}

} // namespace cryolite
