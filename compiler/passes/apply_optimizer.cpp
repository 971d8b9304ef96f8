// Every gradient becomes an update of its parameter; velocities become states.
#include "../passes.h"

namespace cryolite {

Graph apply_optimizer(const Graph &graph, const PassContext &context) {
    const Sgd &sgd = context.optimizer;
    Rewriter rewriter(graph);
    Graph &to = rewriter.to;
    ValueId rate = no_value;
    for (const Node &node : graph.nodes) {
        if (node.op != find_op("gradient")) {
            rewriter.copy(node);
            continue;
        }
        if (rate == no_value) rate = to.add1("learning_rate", {});
        ValueId parameter = rewriter.inputs(node)[0], gradient = rewriter.inputs(node)[1], velocity = no_value;
        std::vector<ValueId> inputs{parameter};
        if (sgd.momentum > 0) {
            const std::string &name = to.producer(parameter).attrs.string("name");
            velocity = to.add1("state", {},
                               {{"name", "optimizer.velocity." + name},
                                {"shape", to.shape(parameter).dims},
                                {"init", std::string("constant")},
                                {"value", 0.0},
                                {"role", std::string("optimizer")}},
                               node.layer, node.source);
            inputs.push_back(velocity);
        }
        inputs.insert(inputs.end(), {gradient, rate});
        Attrs attrs{{"momentum", sgd.momentum}, {"weight_decay", sgd.weight_decay}, {"nesterov", sgd.nesterov}};
        std::vector<ValueId> updated = to.add("sgd", inputs, attrs, node.layer, node.source);
        to.add("assign", {parameter, updated[0]}, {}, node.layer, node.source);
        if (velocity != no_value) to.add("assign", {velocity, updated[1]}, {}, node.layer, node.source);
    }
    return std::move(to);
}

} // namespace cryolite
