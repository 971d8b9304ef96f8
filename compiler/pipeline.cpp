// The pipeline of each mode, and the driver: verify after every pass, blame by name.
#include "passes.h"

namespace cryolite {

const std::vector<Pass> &pipeline(Mode mode, bool one) {
    static const std::vector<Pass> train = {
        {"select_mode", select_mode},
        {"differentiate", differentiate},     // of the train branch alone: after select_mode
        {"apply_optimizer", apply_optimizer}, // replaces the gradient nodes
        {"simplify", simplify},               // before lower: sums that are zero are seen on whole ops
        {"lower", lower},
        {"simplify_lowered", simplify}, // what several ops' lowerings have in common
        {"mask_padding", mask_padding}, // after lower, where sums over samples are explicit
        {"place_concats", place_concats},
        {"fuse", fuse},
        {"rematerialize", rematerialize}, // of kernels: after fuse
    };
    static const std::vector<Pass> to_kernels = {
        {"select_mode", select_mode},
        {"simplify", simplify},
        {"fold_channels", fold_channels}, // of whole ops, without what simplify takes from between them
        {"lower", lower},
        {"simplify_lowered", simplify},
        {"mask_padding", mask_padding},
        {"place_concats", place_concats},
        {"fuse", fuse},
    };
    auto and_then = [](Pass last) { // of kernels: after fuse
        std::vector<Pass> passes = to_kernels;
        passes.push_back(last);
        return passes;
    };
    static const std::vector<Pass> infer = and_then({"append_programs", append_programs});
    static const std::vector<Pass> infer_one = and_then({"channels", channels}); // which has its own way with programs
    return mode == Mode::train ? train : one ? infer_one : infer;
}

Graph run_pipeline(const Graph &network, const PassContext &context,
                   const std::function<void(const char *pass, const Graph &)> &observe) {
    verify(network, "network");
    Graph graph = network;
    for (const Pass &pass : pipeline(context.mode, context.kernel.vector > 0)) {
        const std::string blame = std::string("pass '") + pass.name + "': ";
        try {
            graph = pass.run(graph, context);
        } catch (const NoChannels &) {
            throw;
        } catch (const CompileError &error) { // the author's: no gradient for an op, for one
            throw CompileError(blame + error.what());
        } catch (const std::exception &error) { throw InternalError(blame + error.what()); }
        verify(graph, pass.name);
        if (observe) observe(pass.name, graph);
    }
    return graph;
}

} // namespace cryolite
