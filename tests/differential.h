// One network, every way it can be computed: float64 after each pass, the kernels, the whole compiled model. They must
// agree; the first that does not is to blame.
#ifndef CRYOLITE_TESTS_DIFFERENTIAL_H
#define CRYOLITE_TESTS_DIFFERENTIAL_H

#include "passes.h"

#include <functional>
#include <string>

namespace cryolite::test {

struct Verdict {
    enum Kind { agrees, differs, skipped } kind = agrees;
    std::string blame = {}; // differs: "train: pass 'fuse'", "train: kernels", "infer: plan or runtime"; skipped: why
    std::string detail = {};
};
struct DifferentialOptions {
    uint64_t data = 1;           // seed of images, labels, parameters, states and the width
    bool compile = true;         // false: passes only
    std::string target = "host"; // of the compiled model, or "opencl"
    // Changes the graph after the named pass: the test of this test.
    std::function<Graph(const std::string &pass, Graph graph)> meddle = {};
};

// Skipped are networks that the compiler refuses, with its words, and those whose numbers are not finite, or so
// sensitive to their inputs' last bits that float32 says nothing.
Verdict compare(const Network &network, const DifferentialOptions &options);

} // namespace cryolite::test
#endif
