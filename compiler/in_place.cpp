#include "in_place.h"

#include "../generators/program.h"

#include <algorithm>

namespace cryolite {

// Other values than that of the element: of a window, of all windows, in sums, of another shape.
static bool reads_elsewhere(const ProgramStatement &s) {
    return !s.axes.empty() || s.attributes.count("window") || s.attributes.count("h");
}

std::vector<bool> read_where_written(const Graph &graph, const Node &node) {
    std::vector<bool> result(node.inputs.size(), false);
    if (node.op != find_op("pointwise") || node.outputs.size() != 1) return result;
    const Program program = parse_program(node.attrs.string("program"));
    if (std::any_of(program.statements.begin(), program.statements.end(), reads_elsewhere)) return result;
    for (size_t i = 0; i < result.size(); i++) result[i] = graph.shape(node.inputs[i]) == graph.shape(node.outputs[0]);
    return result;
}

} // namespace cryolite
