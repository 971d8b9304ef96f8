// A graph through its real kernels: what interpret() says in float64, in float32 as it ships. Knows nothing of plans:
// every value has storage of its own between guard pages (guarded.h), and nodes run in the order of the graph.
//
//   Interpreted ours = run_kernels(graph, inputs), expected = interpret(graph, inputs);
#ifndef CRYOLITE_TESTS_RUN_KERNELS_H
#define CRYOLITE_TESTS_RUN_KERNELS_H

#include "interpret.h"

#include <memory>
#include <string>
#include <vector>

namespace cryolite::test {

struct KernelOptions {
    std::string target = "host"; // a Halide target's name, or "opencl"
    int64_t lanes = 0;           // 0: the target's own
    int64_t max_batch = 64;
    int64_t processors = 1; // many: blocks in tiles and strips
    uint64_t schedule = 0;  // not 0: knobs of the generators at random, from this seed; 0: their own choice
};

// Compiled once, run for any batch up to max_batch.
class KernelGraph {
public:
    // graph: what interpret() takes before lower; gradient nodes may be there, parameters may be batched. Throws what
    // the compiler throws.
    explicit KernelGraph(const Graph &graph, const KernelOptions &options = {});
    ~KernelGraph();

    int64_t lanes() const;
    bool has_block_tiles() const;
    const Graph &lowered() const; // what the kernels do
    // inputs: as interpret()'s, rounded to float32; lanes and padding are the kernels' own.
    Interpreted run(const InterpreterInputs &inputs) const;

private:
    struct Compiled;
    std::unique_ptr<Compiled> compiled_;
};

inline Interpreted run_kernels(const Graph &graph, const InterpreterInputs &inputs, const KernelOptions &options = {}) {
    return KernelGraph(graph, options).run(inputs);
}

// The names of the targets that every kernel must be right on and this machine can run: AVX-512, AVX2, SSE4.1;
// under the address sanitizer the machine's own with instrumented kernels.
const std::vector<std::string> &kernel_targets();
// Devices with 8 and with 32 lanes, whether this machine has them or not; device_options() of one.
const std::vector<std::string> &device_targets();
KernelOptions device_options(const std::string &name);
// "avx512", "avx2" or "sse41"; other names as they are.
std::string short_target(const std::string &name);

} // namespace cryolite::test
#endif
