// inspect: what a network is made of and what it becomes: layers, parameters, plans. Or what a checkpoint holds.
// Plans are made, kernels are not: nothing is compiled unless a checkpoint is checked.
#include "../codegen.h"
#include "../frontend.h"
#include "../passes.h"
#include "../plan.h"
#include "../schedules.h"
#include "loaded_network.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace cryolite {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    NetworkOptions network;
    std::string checkpoint;
    bool json = false, no_train = false;
};

// Layers by the name in front of their results; parameters belong to them and are listed apart.
Json layers_json(const Graph &graph) {
    static const std::set<std::string> hidden = {"parameter", "state", "assign", "output"};
    Json layers = Json::array();
    for (const Node &node : graph.nodes) {
        if (hidden.count(node.op->name) || node.outputs.empty()) continue;
        Json inputs = Json::array(), attrs = Json::object();
        for (ValueId v : node.inputs) inputs.push_back(graph.shape(v).dims);
        for (const auto &[name, attr] : node.attrs.map)
            if (auto *number = std::get_if<int64_t>(&attr)) attrs[name] = *number;
        layers.push_back({{"name", node.layer},
                          {"op", node.op->name},
                          {"shape", graph.shape(node.outputs[0]).text()},
                          {"inputs", inputs}, // -1: the batch
                          {"attributes", attrs},
                          {"source", node.source}});
    }
    return layers;
}

const char *role_name(int role) {
    return role == CRYO_ROLE_PARAMETER ? "parameter" : role == CRYO_ROLE_STATE ? "state" : "optimizer";
}

Json parameters_json(const ParameterTable &table) {
    Json parameters = Json::array();
    for (const ParameterEntry &entry : table.entries)
        parameters.push_back({{"name", entry.name},
                              {"role", role_name(entry.role)},
                              {"shape", entry.shape.dims},
                              {"elements", entry.shape.elements()}});
    return parameters;
}

Json plan_json(const Plan &plan) {
    size_t steps = 0;
    std::set<std::string> kernels;
    for (const PlanPhase &phase : plan.phases)
        for (const std::vector<PlanStep> *list : {&phase.block, &phase.tile, &phase.tail})
            for (const PlanStep &step : *list) {
                steps++;
                kernels.insert(step.kernel.key());
            }
    return {
        {"mode", mode_name(plan.mode)},        {"phases", plan.phases.size()},          {"steps", steps},
        {"kernels", kernels.size()},           {"arena_bytes", plan.arena_bytes},       {"arena_peak", plan.arena_peak},
        {"scratch_bytes", plan.scratch_bytes}, {"prepared_bytes", plan.prepared_bytes}, {"min_batch", plan.min_batch}};
}

Json describe(const Network &network, const CompileOptions &options) {
    check_complete(network, options.train);
    KernelTarget target = resolve_target(options);
    std::vector<Mode> modes{Mode::evaluate, Mode::infer};
    if (options.train) modes.insert(modes.begin(), Mode::train);
    Json plans = Json::array();
    ParameterTable parameters = layout_parameters(network.graph());
    const std::shared_ptr<Choices> choices = load_schedules(options.schedules).choices(target);
    for (Mode mode : modes) {
        const PassContext context = pass_context(network, mode, options, target, choices);
        Graph graph = run_pipeline(network.graph(), context);
        if (mode == Mode::train) parameters = layout_parameters(graph); // and the optimizer's
        plans.push_back(plan_json(make_plan(graph, mode, parameters, context.kernel)));
    }
    return {{"name", network.name()},
            {"target", target.name},
            {"lanes", target.lanes},
            {"batch", options.batch},
            {"learning_rate", network.optimizer().learning_rate},
            {"layers", layers_json(network.graph())},
            {"parameters", parameters_json(parameters)},
            {"parameter_bytes", parameters.bytes},
            {"plans", plans}};
}

std::string shape_text(const Json &shape) {
    std::string text;
    for (const Json &extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent.get<int64_t>());
    return "[" + text + "]";
}

// Columns as wide as their widest cell.
void print_table(std::vector<std::vector<std::string>> rows) {
    std::vector<size_t> widths;
    for (const auto &row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], row[i].size());
    }
    for (const auto &row : rows) {
        std::string line = " ";
        for (size_t i = 0; i < row.size(); i++) line += fmt::format(" {:<{}}", row[i], widths[i] + 1);
        fmt::print("{}\n", line.substr(0, line.find_last_not_of(' ') + 1));
    }
}

void print_text(const Json &model) {
    auto text = [](const Json &value) { return value.is_string() ? value.get<std::string>() : value.dump(); };
    fmt::print("{}: batch {}, learning rate {}\ntarget {}, {} lanes\n\nlayers\n", text(model["name"]),
               text(model["batch"]), text(model["learning_rate"]), text(model["target"]), text(model["lanes"]));
    std::vector<std::vector<std::string>> rows;
    for (const Json &layer : model["layers"])
        rows.push_back({text(layer["name"]), text(layer["op"]), text(layer["shape"]), text(layer["source"])});
    print_table(std::move(rows));

    rows = {};
    int64_t trained = 0;
    for (const Json &entry : model["parameters"]) {
        rows.push_back({text(entry["name"]), text(entry["role"]), shape_text(entry["shape"]), text(entry["elements"])});
        if (entry["role"] == "parameter") trained += entry["elements"].get<int64_t>();
    }
    fmt::print("\nparameters: {} trained numbers, {} bytes with states\n", trained, text(model["parameter_bytes"]));
    print_table(std::move(rows));

    fmt::print("\nplans\n");
    rows = {{"mode", "phases", "steps", "kernels", "arena bytes", "scratch bytes a thread", "smallest batch"}};
    for (const Json &plan : model["plans"])
        rows.push_back({text(plan["mode"]), text(plan["phases"]), text(plan["steps"]), text(plan["kernels"]),
                        text(plan["arena_bytes"]), text(plan["scratch_bytes"]), text(plan["min_batch"])});
    print_table(std::move(rows));
}

// Of one tensor of a checkpoint.
Json values_json(const LoadedNetwork &loaded, const cryo_parameter_info &info) {
    std::vector<float> values(info.elements);
    loaded.check(cryo_get_parameter(loaded.get(), info.name, values.data(), values.size()));
    double sum = 0, least = INFINITY, most = -INFINITY;
    int64_t not_finite = 0;
    for (float value : values) {
        if (!std::isfinite(value)) {
            not_finite++;
            continue;
        }
        sum += double(value);
        least = std::min(least, double(value));
        most = std::max(most, double(value));
    }
    auto finite = int64_t(values.size()) - not_finite;
    Json entry = {{"name", info.name},
                  {"role", role_name(info.role)},
                  {"shape", std::vector<int64_t>(info.shape, info.shape + info.rank)},
                  {"elements", info.elements},
                  {"not_finite", not_finite}};
    if (finite > 0) entry.update({{"min", least}, {"mean", sum / double(finite)}, {"max", most}});
    return entry;
}

void inspect_checkpoint(const Network &network, const Options &options) {
    LoadedNetwork loaded(network, options.network.compile, 1);
    loaded.load(options.checkpoint);
    Json entries = Json::array();
    for (size_t i = 0; i < cryo_parameter_count(loaded.get()); i++) {
        cryo_parameter_info info = {};
        loaded.check(cryo_parameter_at(loaded.get(), i, &info));
        entries.push_back(values_json(loaded, info));
    }
    int64_t steps = cryo_steps(loaded.get());
    if (options.json) {
        fmt::print("{}\n", Json{{"name", network.name()}, {"steps", steps}, {"parameters", entries}}.dump(2));
        return;
    }
    fmt::print("{}: a whole checkpoint of {} after {} steps\n", options.checkpoint, network.name(), steps);
    std::vector<std::vector<std::string>> rows{{"name", "role", "shape", "elements", "min", "mean", "max", ""}};
    for (const Json &entry : entries) {
        auto number = [&](const char *key) {
            return entry.contains(key) ? fmt::format("{:.5g}", entry[key].get<double>()) : std::string("-");
        };
        auto bad = entry["not_finite"].get<int64_t>();
        rows.push_back({entry["name"].get<std::string>(), entry["role"].get<std::string>(), shape_text(entry["shape"]),
                        entry["elements"].dump(), number("min"), number("mean"), number("max"),
                        bad ? fmt::format("{} not finite", bad) : ""});
    }
    print_table(std::move(rows));
}

void run(Options &options) {
    options.network.compile.train = !options.no_train;
    std::unique_ptr<Network> network = build_network(options.network);
    if (!options.checkpoint.empty()) return inspect_checkpoint(*network, options);
    Json model = describe(*network, options.network.compile);
    if (options.json)
        fmt::print("{}\n", model.dump(2));
    else
        print_text(model);
}

} // namespace

void add_inspect_command(CLI::App &app) {
    auto options = std::make_shared<Options>();
    CLI::App *command = app.add_subcommand("inspect", "Layers, parameters and plans; or a checkpoint");
    command->add_flag("--json", options->json, "As JSON");
    command->add_flag("--no-train", options->no_train, "Evaluate and infer only");
    command->add_option("--checkpoint", options->checkpoint, "Check this file and list what it holds");
    add_network_options(*command, options->network);
    command->callback([options] { run(*options); });
}

} // namespace cryolite
