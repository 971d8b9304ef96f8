// Where parameters and states lie in the block that all plans share.
#include "plan.h"

namespace cryolite {

const ParameterEntry &ParameterTable::at(const std::string &name) const {
    for (const ParameterEntry &entry : entries)
        if (entry.name == name) return entry;
    throw InternalError("plan: no storage for parameter '" + name + "'");
}

ParameterTable layout_parameters(const Graph &graph) {
    ParameterTable table;
    for (bool optimizer : {false, true})
        for (const Node &node : graph.nodes) {
            if (node.op != find_op("parameter") && node.op != find_op("state")) continue;
            bool moment = node.attrs.has("role") && node.attrs.string("role") == "optimizer";
            if (moment != optimizer) continue;
            const std::string &init = node.attrs.string("init");
            const Shape &shape = graph.shape(node.outputs[0]);
            table.entries.push_back({.name = node.attrs.string("name"),
                                     .role = moment                            ? CRYO_ROLE_OPTIMIZER
                                             : node.op == find_op("parameter") ? CRYO_ROLE_PARAMETER
                                                                               : CRYO_ROLE_STATE,
                                     .shape = shape,
                                     .offset = table.bytes,
                                     .init = init == "uniform"  ? CRYO_INIT_UNIFORM
                                             : init == "normal" ? CRYO_INIT_NORMAL
                                                                : CRYO_INIT_CONSTANT,
                                     .init_value = node.attrs.number("value")});
            table.bytes += (shape.elements() * 4 + CRYO_ALIGNMENT - 1) / CRYO_ALIGNMENT * CRYO_ALIGNMENT;
        }
    return table;
}

} // namespace cryolite
