// What is computed of a convolution's result alone, element by element, is computed in its kernel, before it is stored:
// activations, and the sum that ends a residual block. Programs with pools, sums or values of other shapes stay
// kernels. So do those behind Winograd convolutions, which store a tile's results all over the image: resnet18_cifar's
// layers of 64 @ 32 took 4 to 5 ms longer with their programs, whose kernels take 2 (AVX2).
#include "../ops/common.h"
#include "../passes.h"
#include "../program_text.h"

#include "../../generators/program.h"

#include <map>
#include <set>

namespace cryolite {

namespace {

// About the leaves of the result's expression as a tree, as which Halide takes it, once for each sum of a register
// tile.
double leaves(const Program &program) {
    std::vector<double> of(program.statements.size(), 1);
    for (size_t i = 0; i < of.size(); i++) {
        const ProgramStatement &s = program.statements[i];
        double operands = 0;
        for (const ProgramOperand &o : s.operands) operands += o.statement < 0 ? 1 : of[size_t(o.statement)];
        if (!s.is_input()) of[i] = operands * (is_polynomial(s) ? 400 : 4);
    }
    return of[size_t(program.outputs[0])];
}

// The program as one of values [n]; empty where an element of the result depends on more than that of each input.
std::string of_elements(const Graph &graph, const Node &node) {
    const double most_leaves = 2000; // a sigmoid with a product and a sum; not a tanh of a sigmoid
    if (node.outputs.size() != 1 || !node.attrs.string("scalars").empty()) return "";
    const Shape &result = graph.shape(node.outputs[0]);
    for (ValueId v : node.inputs)
        if (graph.shape(v) != result) return "";
    std::string text = node.attrs.string("program");
    const Program program = parse_program(text);
    if (leaves(program) > most_leaves) return "";
    for (const ProgramStatement &s : program.statements)
        if (!s.attributes.empty() || !s.axes.empty() || s.op == "broadcast") return "";
    const std::string shape = bracketed(result);
    for (size_t at = 0; (at = text.find(shape, at)) != std::string::npos;) text.replace(at, shape.size(), "[n]");
    return text;
}

bool appends(const Node &node) { return named(node, "conv2d") || named(node, "conv2d_strassen"); }

} // namespace

Graph append_programs(const Graph &graph, const PassContext &context) {
    if (context.kernel.device) return graph;
    struct Appended {
        const Node *convolution;
        std::string program;
        int first; // which of its inputs the convolution's result is
    };
    const std::vector<int> uses = graph.use_counts();
    std::map<const Node *, Appended> appended; // by the pointwise node
    std::set<const Node *> delayed;            // convolutions that are made where their program is
    for (const Node &node : graph.nodes) {
        if (node.op != find_op("pointwise")) continue;
        const std::string program = of_elements(graph, node);
        for (size_t i = 0; i < node.inputs.size() && !program.empty(); i++) {
            const Node &maker = graph.producer(node.inputs[i]);
            if (!appends(maker) || uses[size_t(node.inputs[i])] != 1) continue;
            appended[&node] = {&maker, program, int(i)};
            delayed.insert(&maker);
            break;
        }
    }
    Rewriter rewriter(graph);
    for (const Node &node : graph.nodes) {
        if (delayed.count(&node)) continue;
        auto found = appended.find(&node);
        if (found == appended.end()) {
            rewriter.copy(node);
            continue;
        }
        const auto &[convolution, program, first] = found->second;
        std::vector<ValueId> inputs = rewriter.inputs(*convolution);
        for (size_t i = 0; i < node.inputs.size(); i++)
            if (int(i) != first) inputs.push_back(rewriter.map[size_t(node.inputs[i])]);
        Attrs attrs = convolution->attrs;
        attrs.map["program"] = with_input_first(program, first);
        rewriter.bind(node.outputs[0],
                      rewriter.to.add1(convolution->op->name, inputs, attrs, convolution->layer, convolution->source));
    }
    return std::move(rewriter.to);
}

} // namespace cryolite
