// Small graphs and their values, written down as JSON by the scripts in fixtures/.
//
//   {"mode": "train", "batch": 3,
//    "inputs": [{"name": "x", "kind": "parameter", "shape": [-1, 2], "values": "1 nan -0 ..."}, ...],
//    "nodes": [["linear", ["x", "weight"], {attributes}, ["y"]], ...],
//    "outputs": ["y"], "weights": "0.25 0.5 ..."}
// Kinds are parameter, state, label and constant. Outputs are results of nodes, or states after the step.
#ifndef CRYOLITE_TESTS_GRAPH_FIXTURE_H
#define CRYOLITE_TESTS_GRAPH_FIXTURE_H

#include "interpret.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cryolite::test {

nlohmann::json load_json(const std::string &name); // a fixture, gzipped or not
std::vector<double> read_numbers(const std::string &text);

struct GraphFixture {
    Graph graph; // for interpret() and KernelGraph: modes are selected
    InterpreterInputs inputs;
    std::vector<std::string> parameters, outputs;

    // With weights, the sum of the first output times them is the loss, and the gradients of all parameters are added.
    explicit GraphFixture(const nlohmann::json &json);

    // Outputs, then gradients of parameters, in the fixture's order.
    std::vector<std::vector<double>> results(const Interpreted &interpreted) const;
};

} // namespace cryolite::test
#endif
