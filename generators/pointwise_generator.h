// Base of the generators that run a pointwise program: `pointwise` itself and the standalone ones.
#pragma once

#include "gpu.h"
#include "lanes.h"
#include "pointwise_kernel.h"

namespace cryolite {

// `Derived` has std::string program_text(), called once its parameters are set.
template <class Derived> class PointwiseGenerator : public Halide::Generator<Derived> {
public:
    Halide::GeneratorParam<int> lanes{"lanes", 0}; // 0: the target's float32 vector
    Halide::GeneratorParam<int> n{"n", 0};         // samples in one call, 0: one block

    void configure() {
        try {
            program_ = parse_program(static_cast<Derived *>(this)->program_text());
        } catch (const ProgramError &error) { throw Halide::CompileError(error.what()); }
        arguments_.vector_size = this->natural_vector_size(Halide::Float(32));
        arguments_.lanes = lanes ? static_cast<int>(lanes) : arguments_.vector_size;
        if (n % arguments_.lanes) throw Halide::CompileError("pointwise: n is not a multiple of lanes");
        arguments_.blocks = resolve_blocks(this->get_target(), n, arguments_.lanes);
        add_arguments();
    }

    void generate() {
        for (auto &[statement, buffer] : buffers_)
            set_shape(*buffer,
                      buffer_extents(program_.statements[statement].shape, arguments_.lanes, arguments_.blocks));
        arguments_.input = [this](int statement, const std::vector<Halide::Expr> &at) {
            return Halide::Expr((*buffers_.at(statement))(at));
        };
        arguments_.scalar = [this](int statement) { return Halide::Expr(*scalars_.at(statement)); };
        const std::vector<Halide::Func> funcs = is_gpu(this->get_target())
                                                    ? build_pointwise_for_gpu(program_, arguments_)
                                                    : build_pointwise(program_, arguments_);
        for (size_t i = 0; i < funcs.size(); i++) {
            *outputs_[i] = funcs[i];
            // Halide gives the later buffers of a Tuple the bounds of the first.
            bool bounds = true;
            for (Halide::OutputImageParam buffer : Halide::Func(funcs[i]).output_buffers()) {
                set_shape(buffer, extents_of_output(program_.outputs[i]), bounds);
                bounds = false;
            }
        }
    }

private:
    void add_arguments() {
        for (int statement : program_.inputs) {
            const ProgramStatement &s = program_.statements[statement];
            if (s.is_integer())
                scalars_[statement] = this->template add_input<int>(s.name);
            else
                buffers_[statement] = this->template add_input<Halide::Buffer<float>>(
                    s.name, std::max<int>(1, s.shape.rank() + s.shape.is_block()));
        }
        auto rank = [&](int statement) { return static_cast<int>(extents_of_output(statement).size()); };
        if (outputs_share_func(program_)) {
            const std::vector<Halide::Type> types(program_.outputs.size(), Halide::Float(32));
            outputs_.push_back(this->template add_output<Halide::Func>("output", types, rank(program_.outputs[0])));
            return;
        }
        for (int statement : program_.outputs)
            outputs_.push_back(this->template add_output<Halide::Func>("output_" + program_.statements[statement].name,
                                                                       Halide::Float(32), rank(statement)));
    }

    std::vector<int> extents_of_output(int statement) const {
        return output_extents(program_, statement, arguments_.lanes, arguments_.blocks);
    }

    // An extent of 0, of the blocks on a GPU, is left to run time with its stride.
    template <class Buffer> void set_shape(Buffer &buffer, const std::vector<int> &extents, bool bounds = true) {
        int stride = 1, d = 0;
        for (int extent : extents) {
            auto dimension = buffer.dim(d++);
            if (bounds && extent > 0) dimension.set_bounds(0, extent);
            if (bounds && extent == 0) dimension.set_min(0);
            if (extent > 0) dimension.set_stride(stride);
            stride *= extent;
        }
    }

    Program program_;
    PointwiseArguments arguments_;
    std::map<int, Halide::GeneratorInput<Halide::Buffer<float>> *> buffers_;
    std::map<int, Halide::GeneratorInput<int> *> scalars_;
    std::vector<Halide::GeneratorOutput<Halide::Func> *> outputs_;
};

} // namespace cryolite
