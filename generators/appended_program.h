// A program behind a kernel's result, element by element (kernels.md, "Programs": of values [n]): what generators do
// with their parameter `program`.
#pragma once

#include "algorithms_pointwise.h"

namespace cryolite {

class AppendedProgram {
public:
    // In configure(): an input of the generator for each value that the program reads beside the result. "": no
    // program.
    template <class G> void add_inputs(G &generator, const std::string &text) {
        if (text.empty()) return;
        try {
            program_ = parse_program(text);
        } catch (const ProgramError &error) { throw Halide::CompileError(error.what()); }
        if (program_.inputs.empty() || program_.outputs.size() != 1)
            throw Halide::CompileError("a program that makes one value of the result expected: " + text);
        for (size_t i = 1; i < program_.inputs.size(); i++)
            others_.push_back(generator.template add_input<Halide::Buffer<float, 5>>(
                program_.statements[size_t(program_.inputs[i])].name));
    }
    // In generate(): gives each of these inputs its shape, the result's.
    template <class F> void each_input(F set_shape) const {
        for (Input *other : others_) set_shape(*other);
    }
    // Names of these inputs' buffers.
    std::vector<std::string> input_names() const {
        std::vector<std::string> names;
        for (size_t i = 1; i < program_.inputs.size(); i++)
            names.push_back(program_.statements[size_t(program_.inputs[i])].name);
        return names;
    }
    // What is stored of the result's element `at`.
    Halide::Expr of(const Halide::Expr &result, const std::vector<Halide::Expr> &at) const {
        if (program_.outputs.empty()) return result;
        std::vector<Halide::Expr> inputs{result};
        for (Input *other : others_) inputs.push_back((*other)(at));
        return element_of(program_, inputs);
    }

private:
    using Input = Halide::GeneratorInput<Halide::Buffer<float, 5>>;

    Program program_;
    std::vector<Input *> others_;
};

} // namespace cryolite
