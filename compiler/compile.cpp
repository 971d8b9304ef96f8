// Network -> graphs of three modes -> plans -> kernels and plan object -> library.
#include "compile.h"

#include "cache.h"
#include "codegen.h"
#include "emit_program.h"
#include "frontend.h"
#include "header.h"
#include "passes.h"
#include "plan_cost.h"
#include "schedules.h"

#include <algorithm>
#include <filesystem>
#include <ostream>
#include <set>
#include <thread>

namespace cryolite {

int processors_here() { return int(std::max(1u, std::thread::hardware_concurrency())); }

static int processors_for(const CompileOptions &options) {
    return options.processors > 0 ? options.processors : processors_here();
}

PassContext pass_context(const Network &network, Mode mode, const CompileOptions &options, const KernelTarget &target,
                         std::shared_ptr<Choices> choices) {
    KernelContext kernel{target.lanes, options.batch, network.math()};
    kernel.weights_change = mode == Mode::train;
    kernel.processors = processors_for(options);
    kernel.strip_bytes = options.strip_bytes;
    if (target.gpu) {
        kernel.math = Math::strict; // Winograd's kernels are for processors
        kernel.device = true;
    } else {
        kernel.choices = std::move(choices);
    }
    return {mode, network.optimizer(), kernel};
}

namespace {

// Everything about a network that comes before code generation.
struct Planned {
    struct ModeGraph {
        Mode mode;
        Graph graph;
        KernelContext context;
    };
    std::vector<ModeGraph> graphs;
    ProgramTables tables;
    std::vector<KernelSpec> kernels; // each once, in order of first use
};

// Infer of one sample, channels innermost.
PassContext one_context(const Network &network, const CompileOptions &options, const KernelTarget &target) {
    KernelContext kernel{.lanes = 1, .max_batch = 1, .math = network.math(), .vector = target.lanes};
    kernel.by_halves = target.by_halves;
    kernel.processors = processors_for(options);
    return {Mode::infer, network.optimizer(), kernel};
}

// What a checkpoint means: names and shapes of what it holds, and the network of inference over them, eps and strides
// included. How it was trained or initialised is not part of it.
std::string fingerprint(const Network &network) {
    const Graph graph = select_mode(network.graph(), {Mode::infer, {}, {}});
    std::string text;
    for (Node node : graph.nodes) {
        const bool stored = node.op == find_op("parameter") || node.op == find_op("state");
        if (stored) node.attrs.map = {{"name", node.attrs.string("name")}};
        node.layer = node.source = "";
        text += print(graph, node) + "\n";
    }
    return hash_text(text);
}

const Node *find_node(const Graph &graph, const std::string &op, const std::string &name = "") {
    for (const Node &node : graph.nodes)
        if (node.op->name == op && (name.empty() || node.attrs.string("name") == name)) return &node;
    return nullptr;
}

std::vector<Mode> modes(const CompileOptions &options) {
    if (options.train) return {Mode::train, Mode::evaluate, Mode::infer};
    return {Mode::evaluate, Mode::infer};
}

void choose_schedules(Plan &plan, const Schedules &schedules, const KernelTarget &target) {
    for (PlanPhase &phase : plan.phases)
        for (std::vector<PlanStep> *steps : {&phase.block, &phase.tile, &phase.tail})
            for (PlanStep &step : *steps) step.kernel = with_knobs(step.kernel, schedules.find(step.kernel, target));
}

void collect_kernels(const Plan &plan, std::vector<KernelSpec> &kernels, std::set<std::string> &known) {
    for (const PlanPhase &phase : plan.phases)
        for (const std::vector<PlanStep> *steps : {&phase.block, &phase.tile, &phase.tail})
            for (const PlanStep &step : *steps)
                if (known.insert(step.kernel.key()).second) kernels.push_back(step.kernel);
}

Planned plan_network(const Network &network, const CompileOptions &options, const Schedules &schedules) {
    if (options.batch < 1 || options.batch > 1 << 20)
        throw CompileError("batch must be from 1 to 1048576, not " + std::to_string(options.batch));
    check_complete(network, options.train);
    KernelTarget target = resolve_target(options);
    Planned planned;
    auto add_graph = [&](const PassContext &context) {
        planned.graphs.push_back({context.mode, run_pipeline(network.graph(), context), context.kernel});
    };
    const std::shared_ptr<Choices> choices = schedules.choices(target);
    for (Mode mode : modes(options)) add_graph(pass_context(network, mode, options, target, choices));
    ProgramTables &tables = planned.tables;
    if (options.few != 0 && !target.gpu) try {
            add_graph(one_context(network, options, target));
        } catch (const NoChannels &) {} // --emit plan says why
    const Graph &graph = network.graph();
    tables.name = network.name();
    tables.target = target;
    tables.fingerprint = fingerprint(network);
    tables.max_batch = options.batch;
    tables.input = graph.shape(find_node(graph, "input")->outputs[0]);
    tables.classes = graph.shape(find_node(graph, "output", "output")->inputs[0])[1];
    tables.optimizer = network.optimizer();
    tables.parameters = layout_parameters(options.train ? planned.graphs[0].graph : graph);

    std::set<std::string> known;
    for (auto &[mode, mode_graph, context] : planned.graphs) {
        tables.plans.push_back(make_plan(mode_graph, mode, tables.parameters, context));
        choose_schedules(tables.plans.back(), schedules, target);
        collect_kernels(tables.plans.back(), planned.kernels, known);
    }
    if (const Plan &one = tables.plans.back(); one.one) { // behind the one of lanes
        const Plan &lanes = tables.plans[tables.plans.size() - 2];
        tables.infer_one_batch = options.few > 0 ? std::min(options.few, options.batch)
                                                 : largest_few(one, lanes, options.batch, processors_for(options));
    }
    return planned;
}

} // namespace

CompiledModel compile(const Network &network, const CompileOptions &options) {
    return compile(network, options, load_schedules(options.schedules));
}

CompiledModel compile(const Network &network, const CompileOptions &options, const Schedules &schedules) {
    Planned planned = plan_network(network, options, schedules);
    const ProgramTables &tables = planned.tables;
    CompiledModel model;
    model.name = tables.name;
    model.target = tables.target.name;
    model.infer_one_batch = tables.infer_one_batch;
    model.kernels = int(planned.kernels.size());
    model.objects = compile_kernels(planned.kernels, tables.target, options, model.cached);
    model.objects.push_back({tables.name + "_program.o", emit_program(tables), {}});
    if (options.checked) model.objects.push_back(compile_checked_runtime(tables.target));
    model.parameter_bytes = tables.parameters.bytes;
    for (const Plan &plan : tables.plans) {
        model.arena_bytes = std::max(model.arena_bytes, plan.arena_bytes);
        model.scratch_bytes = std::max(model.scratch_bytes, plan.scratch_bytes);
    }
    model.header = header_text(tables, model);
    return model;
}

std::vector<KernelWork> kernel_work(const Network &network, const CompileOptions &options) {
    const Planned planned = plan_network(network, options, {});
    std::map<std::string, double> flops;
    for (const Plan &plan : planned.tables.plans) {
        const bool all = plan.one || planned.tables.target.gpu; // a call has all blocks
        const int64_t blocks = all ? 1 : KernelContext{planned.tables.target.lanes, options.batch}.max_blocks();
        for (const PlanPhase &phase : plan.phases) {
            for (const PlanStep &step : phase.block) flops[step.kernel.key()] += step.flops * double(blocks);
            for (const PlanStep &step : phase.tile)
                flops[step.kernel.key()] += step.flops * double(step.tiles * (step.of_block ? blocks : 1));
            for (const PlanStep &step : phase.tail) flops[step.kernel.key()] += step.flops;
        }
    }
    std::vector<KernelWork> work;
    for (const KernelSpec &kernel : planned.kernels) work.push_back({kernel, flops[kernel.key()]});
    return work;
}

std::vector<Decision> decisions(const Network &network, const CompileOptions &options, Mode mode,
                                const Schedules &schedules) {
    const KernelTarget target = resolve_target(options);
    const std::shared_ptr<Choices> choices = schedules.choices(target);
    run_pipeline(network.graph(), pass_context(network, mode, options, target, choices));
    return choices->asked();
}

void write_library(const CompiledModel &model, const std::string &folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw CompileError("'" + folder + "' cannot be made: " + error.message());
    write_archive(model.objects, folder + "/lib" + model.name + ".a");
    write_file(folder + "/" + model.name + ".h", model.header.data(), model.header.size());
}

std::vector<EmitStage> emit_stages() {
    std::vector<EmitStage> stages{{"graph", "the network as written, all modes"}};
    for (const std::vector<Pass> *passes : {&pipeline(Mode::train), &pipeline(Mode::infer, true)})
        for (const Pass &pass : *passes) {
            auto same = [&](const EmitStage &stage) { return stage.name == pass.name; };
            if (std::none_of(stages.begin(), stages.end(), same))
                stages.push_back({pass.name, "the graph of one mode after this pass"});
        }
    stages.push_back({"plan", "phases, steps, kernels and where their arguments lie"});
    stages.push_back({"stmt", "Halide's statement of the kernels"});
    stages.push_back({"asm", "assembly of the kernels"});
    return stages;
}

static Mode parse_mode(const std::string &text) {
    for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer})
        if (text == mode_name(mode)) return mode;
    if (text == "infer_one") return Mode::infer;
    throw CompileError("mode '" + text + "' is none of train, evaluate, infer, infer_one");
}

void emit(const Network &network, const CompileOptions &options, const std::string &stage, const std::string &mode_text,
          const std::string &kernel, std::ostream &out) {
    std::vector<EmitStage> stages = emit_stages();
    if (std::none_of(stages.begin(), stages.end(), [&](auto &known) { return known.name == stage; })) {
        std::string names;
        for (const EmitStage &known : stages) names += " " + known.name;
        throw CompileError("there is no stage '" + stage + "'; stages are:" + names);
    }
    Mode mode = parse_mode(mode_text);
    if (mode == Mode::train && !options.train) throw CompileError("mode train is switched off");
    check_complete(network, options.train);
    if (stage == "graph") {
        out << print(network.graph());
        return;
    }
    KernelTarget target = resolve_target(options);
    if (mode_text == "infer_one" && target.gpu) {
        out << "no plan of one sample: a device has too little to do with it\n";
        return;
    }
    bool found = false;
    const Schedules schedules = load_schedules(options.schedules);
    const PassContext context = mode_text == "infer_one"
                                    ? one_context(network, options, target)
                                    : pass_context(network, mode, options, target, schedules.choices(target));
    Graph graph;
    try {
        graph = run_pipeline(network.graph(), context, [&](const char *pass, const Graph &graph) {
            if (stage != pass) return;
            out << print(graph);
            found = true;
        });
    } catch (const NoChannels &why) {
        if (!found) out << "no plan of one sample: " << why.what() << "\n";
        return;
    }
    if (found) return;
    const ProgramTables tables = plan_network(network, options, schedules).tables;
    Plan plan = make_plan(graph, mode, tables.parameters, context.kernel);
    choose_schedules(plan, schedules, target);
    if (stage == "plan") {
        if (plan.one) out << "batches of 1 to " << tables.infer_one_batch << ":\n";
        out << print(plan);
        return;
    }
    std::vector<KernelSpec> kernels;
    std::set<std::string> known;
    collect_kernels(plan, kernels, known);
    for (const KernelSpec &spec : kernels)
        if (spec.key().find(kernel) != std::string::npos)
            out << "// " << spec.key() << "\n" << print_kernel(spec, target, stage) << "\n";
}

} // namespace cryolite
