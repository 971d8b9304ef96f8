#include "differential.h"

#include "compile.h"
#include "cryolite_runtime.h"
#include "device_value.h"
#include "op_graph.h"
#include "plan_format.h"
#include "run_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace cryolite::test {

namespace {

struct Difference {
    std::string blame, detail;
};
struct Skip {
    std::string why;
};

constexpr int classes = 3;
// What float32 may miss: of a tensor's largest value, of the largest of all tensors, and times what the last bits of
// the inputs and of all results make.
constexpr double relative = 3e-5, absolute = 3e-6, amplified = 50;

double largest(const std::vector<double> &values) {
    double result = 0;
    for (double x : values) result = std::isfinite(x) ? std::max(result, std::fabs(x)) : INFINITY;
    return result;
}
double apart(const std::vector<double> &a, const std::vector<double> &b) {
    if (a.size() != b.size()) return INFINITY;
    double result = 0;
    for (size_t i = 0; i < a.size(); i++) {
        double difference = std::fabs(a[i] - b[i]);
        if (std::isnan(difference)) return INFINITY;
        result = std::max(result, difference);
    }
    return result;
}

// What a mode computes: loss or output, and states and parameters after the step.
TensorMap results_of(Interpreted interpreted) {
    TensorMap results = std::move(interpreted.outputs);
    results.erase("correct"); // a tie may fall either way
    results.merge(interpreted.assigned);
    return results;
}

struct Reference {
    TensorMap values;
    std::map<std::string, double> slack; // by tensor: how far last bits move it
    double scale = 0;                    // largest value of all
};

class Comparison {
public:
    Comparison(const Network &network, const DifferentialOptions &options)
        : network_(network), options_(options), lanes_(lanes_of(options)), max_batch_(2 * lanes_ + 1),
          processors_(options.data % 2 ? 1 : 16), strip_bytes_(options.data % 4 < 2 ? 1 : 512 << 10) {}

    void run() {
        std::map<Mode, Reference> references;
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer}) references[mode] = check_passes(mode);
        if (options_.compile) check_compiled(references);
    }

private:
    static int64_t lanes_of(const DifferentialOptions &options) {
        return (options.target == "host" ? std::array{16, 8, 4} : std::array{32, 8, 8})[options.data % 3];
    }
    PassContext context(Mode mode) const {
        return {mode,
                network_.optimizer(),
                {.lanes = lanes_, .max_batch = max_batch_, .processors = processors_, .strip_bytes = strip_bytes_}};
    }
    int64_t batch() const { return lanes_ + lanes_ / 2 + 1; }

    InterpreterInputs inputs_of(const Graph &graph, int64_t batch) const {
        InterpreterInputs inputs;
        inputs.batch = batch;
        inputs.learning_rate = network_.optimizer().learning_rate;
        uint64_t seed = options_.data * 1000;
        for (const Node &node : graph.nodes) {
            if (node.op == find_op("input"))
                inputs.images = numbers(seed++, graph.shape(node.outputs[0]).elements() * inputs.batch);
            if (node.op != find_op("parameter") && node.op != find_op("state")) continue;
            // Variances are positive.
            bool state = node.op == find_op("state");
            inputs.stored[node.attrs.string("name")] =
                numbers(seed++, graph.shape(node.outputs[0]).elements(), state ? 0.5 : -0.7, state ? 1.5 : 0.7);
        }
        for (int64_t i = 0; i < batch; i++) inputs.labels.push_back(double((i * 5 + int64_t(options_.data)) % classes));
        return inputs;
    }

    Reference make_reference(const Graph &graph, const InterpreterInputs &inputs) const {
        Reference reference{results_of(interpret(graph, inputs)), {}, 0};
        for (const auto &[name, values] : reference.values)
            reference.scale = std::max(reference.scale, largest(values));
        if (!(reference.scale < 1e4)) throw Skip{"numbers are not finite, or large"};
        InterpreterInputs moved = nudged(inputs);
        moved.rounding = options_.data; // ties of sums, statistics of constants
        TensorMap results = results_of(interpret(graph, moved));
        for (const auto &[name, values] : reference.values) {
            double slack = apart(values, results.at(name));
            if (!(slack < 1e-4 * reference.scale)) throw Skip{"numbers are sensitive"};
            reference.slack[name] = slack;
        }
        return reference;
    }

    // exactness: 1 for float32.
    void expect_equal(const TensorMap &ours, const Reference &reference, double exactness, const std::string &blame) {
        for (const auto &[name, values] : reference.values) {
            auto found = ours.find(name);
            if (found == ours.end()) throw Difference{blame, "'" + name + "' is missing"};
            double difference = apart(found->second, values), slack = reference.slack.at(name);
            double allowed = relative * largest(values) + absolute * reference.scale + amplified * slack;
            if (difference <= exactness * allowed) continue;
            throw Difference{blame, "'" + name + "' is off by " + std::to_string(difference) +
                                        ", its largest value is " + std::to_string(largest(values))};
        }
    }

    // Every pass, in float64.
    Reference check_passes(Mode mode) {
        const std::string last_of_author = mode == Mode::train ? "apply_optimizer" : "select_mode";
        Graph graph = network_.graph();
        // Between lower and mask_padding, sums see the padding of a last block that is not whole.
        InterpreterInputs ragged, whole;
        Reference of_ragged, of_whole;
        bool fused = false, has_reference = false;
        for (const Pass &pass : pipeline(mode)) {
            const std::string name = pass.name, blame = std::string(mode_name(mode)) + ": pass '" + name + "'";
            try {
                graph = pass.run(graph, context(mode));
                verify(graph, pass.name);
            } catch (const CompileError &error) { throw Skip{error.what()}; } catch (const std::exception &error) {
                throw Difference{blame, error.what()};
            }
            if (options_.meddle) graph = options_.meddle(name, std::move(graph));
            if (print(parse(print(graph))) != print(graph)) throw Difference{blame, "the text form does not survive"};
            if (name == last_of_author) {
                ragged = inputs_of(graph, batch());
                whole = inputs_of(graph, 2 * lanes_);
                of_ragged = make_reference(graph, ragged);
                of_whole = make_reference(graph, whole);
                if (mode == Mode::train) trained_ = {graph, ragged};
                has_reference = true;
                ragged.padding = whole.padding = 1e3;
                continue;
            }
            fused = fused || name == "fuse"; // no kernel of a fused graph has a reference
            if (!has_reference || fused) continue;
            if (name == "lower") ragged.lanes = whole.lanes = lanes_;
            if (name == "lower" || name == "simplify_lowered")
                expect_equal(results_of(interpret(graph, whole)), of_whole, 1e-6, blame);
            else
                expect_equal(results_of(interpret(graph, ragged)), of_ragged, 1e-6, blame);
        }
        return of_ragged;
    }

    void check(cryo_status status, cryo_model *model, const std::string &blame) {
        if (status != CRYO_OK) throw Difference{blame, cryo_error(model)};
    }

    // So few samples at once that the plan of one sample runs.
    void check_few(cryo_model *opened, const std::vector<float> &images, const Reference &reference) {
        const int64_t elements = int64_t(images.size()) / batch();
        std::vector<float> outputs(size_t(batch() * classes), NAN);
        for (int64_t first = 0, few = 1; first < batch(); first += few, few = few % 3 + 1) {
            few = std::min({few, batch() - first, lanes_ / 2});
            check(cryo_infer(opened, images.data() + first * elements, few, outputs.data() + first * classes), opened,
                  "infer, few samples");
        }
        TensorMap ours;
        ours["output"].assign(outputs.begin(), outputs.end());
        expect_equal(ours, reference, 1, "infer of one sample: kernels, plan or runtime");
    }

    // The library, as it ships.
    void check_compiled(const std::map<Mode, Reference> &references) {
        std::unique_ptr<CompiledModel> compiled;
        std::unique_ptr<LoadedModel> loaded;
        try {
            compiled = std::make_unique<CompiledModel>(compile(network_, {.batch = max_batch_,
                                                                          .target = options_.target,
                                                                          .lanes = lanes_,
                                                                          .processors = int(processors_),
                                                                          .strip_bytes = strip_bytes_,
                                                                          .few = lanes_ / 2,
                                                                          .cache = CRYOLITE_TEST_CACHE}));
            loaded = std::make_unique<LoadedModel>(*compiled, device_functions());
        } catch (const std::exception &error) { throw Difference{"compiling", error.what()}; }
        cryo_options options = {};
        options.threads = 1 + int(options_.data % 2);
        cryo_model *opened = nullptr;
        if (cryo_open(loaded->program(), &options, &opened) != CRYO_OK) throw Difference{"opening", cryo_open_error()};
        std::unique_ptr<cryo_model, decltype(&cryo_close)> model(opened, cryo_close);
        check(cryo_initialize(opened, 1), opened, "initializing");
        for (const auto &[name, values] : trained_.inputs.stored) {
            std::vector<float> floats(values.begin(), values.end());
            check(cryo_set_parameter(opened, name.c_str(), floats.data(), floats.size()), opened, "parameters");
        }
        check(cryo_set_check_finite(opened, 1), opened, "checking"); // no padding lane may hold anything else
        std::vector<float> images(trained_.inputs.images.begin(), trained_.inputs.images.end());
        std::vector<int32_t> labels(trained_.inputs.labels.begin(), trained_.inputs.labels.end());

        TensorMap ours;
        std::vector<float> outputs(size_t(batch() * classes));
        check(cryo_infer(opened, images.data(), batch(), outputs.data()), opened, "infer");
        ours["output"].assign(outputs.begin(), outputs.end());
        expect_equal(ours, references.at(Mode::infer), 1, "infer: kernels, plan or runtime");
        if (loaded->program()->infer_one) check_few(opened, images, references.at(Mode::infer));

        cryo_result result = {};
        check(cryo_evaluate(opened, images.data(), labels.data(), batch(), &result), opened, "evaluate");
        expect_equal({{"loss", {result.loss}}}, references.at(Mode::evaluate), 1, "evaluate: kernels, plan or runtime");

        check(cryo_train_step(opened, images.data(), labels.data(), batch(), &result), opened, "train");
        ours = {{"loss", {result.loss}}};
        for (size_t i = 0; i < cryo_parameter_count(opened); i++) {
            cryo_parameter_info info;
            cryo_parameter_at(opened, i, &info);
            std::vector<float> values(info.elements);
            check(cryo_get_parameter(opened, info.name, values.data(), values.size()), opened, "parameters");
            ours[info.name].assign(values.begin(), values.end());
        }
        try {
            expect_equal(ours, references.at(Mode::train), 1, "train: plan or runtime");
        } catch (const Difference &) {
            // The same kernels, one after another, without a plan.
            const KernelOptions same{
                .target = options_.target, .lanes = lanes_, .max_batch = max_batch_, .processors = processors_};
            expect_equal(results_of(run_kernels(trained_.graph, trained_.inputs, same)), references.at(Mode::train), 1,
                         "train: kernels");
            throw;
        }
    }

    struct Trained {
        Graph graph;
        InterpreterInputs inputs;
    };
    const Network &network_;
    const DifferentialOptions &options_;
    int64_t lanes_, max_batch_, processors_; // with many, few blocks are cut into tiles
    int64_t strip_bytes_;                    // with one, whole blocks go channel by channel
    Trained trained_;
};

} // namespace

Verdict compare(const Network &network, const DifferentialOptions &options) {
    try {
        Comparison(network, options).run();
    } catch (const Skip &skip) { return {Verdict::skipped, skip.why}; } catch (const Difference &difference) {
        return {Verdict::differs, difference.blame, difference.detail};
    }
    return {};
}

} // namespace cryolite::test
