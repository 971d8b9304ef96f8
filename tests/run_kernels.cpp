#include "run_kernels.h"

#include "codegen.h"
#include "device_value.h"
#include "guarded.h"
#include "jit.h"
#include "passes.h"
#include "schedules.h"
#include "strips.h"
#include "times.h"
#include "tune/search.h"

#include "../runtime/float_mode.h"
#include "../runtime/plan_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>

namespace cryolite::test {

namespace {

const std::string gradient_prefix = "gradient of ";

// Gradients, which the optimizer would take, are given out.
Graph give_gradients(const Graph &graph) {
    Rewriter rewriter(graph);
    for (const Node &node : graph.nodes) {
        if (node.op != find_op("gradient")) {
            rewriter.copy(node);
            continue;
        }
        const std::string &name = graph.producer(node.inputs[0]).attrs.string("name");
        rewriter.to.add("output", {rewriter.inputs(node)[1]}, {{"name", gradient_prefix + name}});
    }
    return std::move(rewriter.to);
}

// What follows the author's passes.
Graph lower_fully(const Graph &graph, const KernelContext &kernel) {
    const PassContext context{Mode::train, {}, kernel};
    static const std::set<std::string> done = {"select_mode", "differentiate", "apply_optimizer"};
    Graph result = give_gradients(graph);
    for (const Pass &pass : pipeline(Mode::train)) {
        if (done.count(pass.name)) continue;
        result = pass.run(result, context);
        verify(result, pass.name);
    }
    return result;
}

// A point of the generator's tuning space: one for a seed and a kernel, whatever its shapes.
Knobs random_knobs(const KernelSpec &spec, const KernelTarget &target, uint64_t seed) {
    const TuningSpace space = tuning_space(spec, target);
    if (space.knobs.empty()) return {};
    Search search(space, std::hash<std::string>()(spec.key()) + seed);
    search.skip({}); // the generator's own choice
    return search.random().value_or(Knobs{});
}

KernelSpec spec_of(const Kernel &kernel, const KernelTarget &target, uint64_t schedule) {
    KernelSpec spec{kernel.generator, kernel.parameters};
    spec.parameters["lanes"] = std::to_string(target.lanes);
    return schedule ? with_knobs(spec, random_knobs(spec, target, schedule)) : spec;
}

// With many processors blocks go in strips wherever they can, as few as there may be.
Kernel kernel_of(const Graph &graph, const Node &node, const KernelContext &context) {
    const int64_t channels = strip_kernel(graph, node, context, 1).channels;
    int64_t strips = 1;
    if (context.has_few_blocks() && channels > 1)
        for (strips = 2; channels % strips != 0;) strips++;
    return strip_kernel(graph, node, context, strips);
}

struct Runner {
    const Graph &graph;
    const InterpreterInputs &inputs;
    const KernelContext context;
    const uint64_t schedule;
    const KernelTarget &target;
    const LinkedObjects &objects;
    const Times times;
    std::string no_device;
    runtime::Device *device = target.gpu ? open_device(target.name, no_device) : nullptr;
    std::vector<ValueId> root;  // by ValueId: behind reshapes
    std::vector<Guarded> store; // by root: float32 or int32, block after block
    Interpreted result;

    Runner(const Graph &graph, const InterpreterInputs &inputs, const KernelContext &context, uint64_t schedule,
           const KernelTarget &target, const LinkedObjects &objects)
        : graph(graph), inputs(inputs), context(context), schedule(schedule), target(target), objects(objects),
          times(schedule_times(graph, context)), root(graph.values.size()), store(graph.values.size()) {
        for (const Node &node : graph.nodes)
            for (ValueId v : node.outputs)
                root[size_t(v)] = node.op->place == Place::same ? root[size_t(node.inputs[0])] : v;
    }

    int64_t blocks() const { return (inputs.batch + context.lanes - 1) / context.lanes; }
    // Of one block of a per-block value, or of a whole one.
    int64_t elements(ValueId v) const {
        const Shape &shape = graph.shape(v);
        return shape.elements() * (shape.batched() ? context.lanes : 1);
    }
    Guarded &bits(ValueId v) { return store[size_t(root[size_t(v)])]; }

    // Room for a result. Nothing may read what nobody wrote: that is a NaN.
    void make_room(ValueId v) {
        int64_t count = elements(v) * (graph.shape(v).per_block() ? context.max_blocks() : 1);
        bits(v) = Guarded(size_t(count));
        std::fill_n(bits(v).data(), count, to_bits(std::numeric_limits<float>::quiet_NaN()));
    }

    static uint32_t to_bits(float x) {
        uint32_t word;
        std::memcpy(&word, &x, sizeof word);
        return word;
    }
    static double from_bits(uint32_t word) {
        float x;
        std::memcpy(&x, &word, sizeof x);
        return double(x);
    }

    // Where element e of sample s lies.
    size_t place(ValueId v, int64_t s, int64_t e) const {
        int64_t lane = s % context.lanes, block = s / context.lanes;
        return size_t(block * elements(v) + e * context.lanes + lane);
    }

    // Given values; samples that the last block lacks are zeros.
    void fill(ValueId v, const std::vector<double> &data) {
        const Guarded &words = bits(v);
        auto word = [&](double x) {
            return graph.type(v).type == Type::i32 ? uint32_t(int32_t(x)) : to_bits(float(x));
        };
        std::fill_n(words.data(), words.size(), 0);
        if (!graph.shape(v).batched()) {
            for (size_t i = 0; i < data.size(); i++) words.at(i) = word(data[i]);
            return;
        }
        int64_t row = graph.shape(v).elements();
        for (int64_t s = 0; s < inputs.batch; s++)
            for (int64_t e = 0; e < row; e++) words.at(place(v, s, e)) = word(data.at(size_t(s * row + e)));
    }

    std::vector<double> read(ValueId v) {
        const Guarded &words = bits(v);
        const Shape &shape = graph.shape(v);
        std::vector<double> data;
        // Rows of samples lie one after another, as whole values do.
        int64_t row = shape.batched() ? shape.elements() : elements(v) / context.lanes;
        int64_t count = shape.per_block() ? inputs.batch * row : elements(v);
        for (int64_t i = 0; i < count; i++)
            data.push_back(from_bits(words.at(shape.batched() ? place(v, i / row, i % row) : size_t(i))));
        return data;
    }

    void give(const std::string &name, std::vector<double> values) {
        if (name.starts_with(gradient_prefix))
            result.gradients[name.substr(gradient_prefix.size())] = std::move(values);
        else
            result.outputs[name] = std::move(values);
    }

    void take_stored(const Node &node) {
        auto found = inputs.stored.find(node.attrs.string("name"));
        fill(node.outputs[0], found != inputs.stored.end()
                                  ? found->second
                                  : std::vector<double>(size_t(elements(node.outputs[0])), node.attrs.number("value")));
    }

    void grammar(const Node &node) {
        const std::string op = node.op->name;
        if (op == "constant") fill(node.outputs[0], {node.attrs.number("value")});
        if (op == "batch_size") fill(node.outputs[0], {double(inputs.batch)});
        if (op == "learning_rate") fill(node.outputs[0], {inputs.learning_rate});
        if (op == "step") fill(node.outputs[0], {inputs.step});
        if (op == "input_rows") fill(node.outputs[0], inputs.images);
        if (op == "label") fill(node.outputs[0], inputs.labels);
        if (op == "parameter" || op == "state") take_stored(node);
        if (op == "assign") result.assigned[graph.producer(node.inputs[0]).attrs.string("name")] = read(node.inputs[1]);
        if (op == "output") give(node.attrs.string("name"), read(node.inputs[0]));
    }

    // Of concat and slice, block by block.
    void move_channels(const Node &node) {
        int64_t at = 0;
        if (node.op->place == Place::inside) at = -node.attrs.integer("from") * channel(node.inputs[0]);
        int64_t room = elements(node.outputs[0]);
        for (ValueId v : node.inputs) {
            for (int64_t block = 0; block < blocks(); block++)
                for (int64_t i = std::max<int64_t>(-at, 0); i < elements(v) && at + i < room; i++)
                    bits(node.outputs[0]).at(size_t(block * room + at + i)) =
                        bits(v).at(size_t(block * elements(v) + i));
            at += elements(v);
        }
    }
    int64_t channel(ValueId v) const { return elements(v) / graph.shape(v)[1]; }

    // A whole-batch launch: all blocks in one dimension more, or in the one that a block value has for them.
    void call_device(const Node &node, const Kernel &kernel, cryo_kernel function, int64_t tile) {
        int32_t batch = int32_t(inputs.batch), index = 0;
        std::vector<cryo_buffer> buffers(kernel.args.size());
        std::vector<std::vector<cryo_halide_dim>> dims(kernel.args.size());
        std::vector<DeviceValue> values;
        std::vector<void *> argv;
        for (size_t a = 0; a < kernel.args.size(); a++) {
            const KernelArg &arg = kernel.args[a];
            argv.push_back(arg.kind == KernelArg::block ? &index : &batch);
            if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) continue;
            ValueId v = (arg.kind == KernelArg::input ? node.inputs : node.outputs).at(size_t(arg.index));
            dims[a] = dims_of(arg, v);
            const cryo_halide_dim all = {0, int32_t(blocks()), int32_t(elements(v)), 0};
            if (graph.shape(v).batched() && !arg.single && !arg.all_blocks)
                dims[a].back() = all;
            else if (graph.shape(v).per_block() && !arg.all_blocks)
                dims[a].push_back(all);
            values.emplace_back(*device, bits(v));
            buffers[a] = buffer_of(v, dims[a]);
            buffers[a].device = values.back().address(tile * arg.tile_stride);
            argv.back() = &buffers[a];
        }
        const std::string name = "kernel '" + spec_of(kernel, target, schedule).key() + "'";
        GuardWatch watch(name); // PoCL's devices are this process
        if (int code = function(argv.data()))
            throw InternalError(name + " says " + std::to_string(code) + ": " + device->kernel_error());
        for (size_t i = values.size() - node.outputs.size(); i < values.size(); i++) values[i].take_back(name);
    }

    std::vector<cryo_halide_dim> dims_of(const KernelArg &arg, ValueId v) const {
        std::vector<cryo_halide_dim> dims;
        int64_t stride = 1;
        for (size_t d = 0; d < arg.extents.size(); d++) {
            dims.push_back({0, int32_t(arg.extents[d]), int32_t(arg.strides.empty() ? stride : arg.strides[d]), 0});
            stride *= arg.extents[d];
        }
        if (arg.all_blocks) dims.push_back({0, int32_t(context.max_blocks()), int32_t(elements(v)), 0});
        return dims;
    }
    cryo_buffer buffer_of(ValueId v, std::vector<cryo_halide_dim> &dims) const {
        cryo_buffer buffer = {};
        buffer.type = {uint8_t(graph.type(v).type == Type::i32 ? 0 : 2), 32, 1};
        buffer.dimensions = int32_t(dims.size());
        buffer.dim = dims.data();
        return buffer;
    }

    // One call. block: which one; -1: all.
    void call(const Node &node, const Kernel &kernel, cryo_kernel function, int64_t block, int64_t tile) {
        Guarded scratch{size_t(kernel.scratch)};
        std::fill_n(scratch.data(), kernel.scratch, to_bits(std::numeric_limits<float>::quiet_NaN()));
        int32_t batch = int32_t(inputs.batch), index = int32_t(std::max<int64_t>(block, 0)), part = int32_t(tile);
        bool last = block == blocks() - 1;
        int32_t valid = int32_t(last ? inputs.batch - block * context.lanes : context.lanes);
        std::vector<cryo_buffer> buffers(kernel.args.size());
        std::vector<std::vector<cryo_halide_dim>> dims(kernel.args.size());
        std::vector<void *> argv;
        for (size_t a = 0; a < kernel.args.size(); a++) {
            const KernelArg &arg = kernel.args[a];
            if (arg.kind == KernelArg::batch) argv.push_back(&batch);
            if (arg.kind == KernelArg::valid) argv.push_back(&valid);
            if (arg.kind == KernelArg::block) argv.push_back(&index);
            if (arg.kind == KernelArg::tile) argv.push_back(&part);
            if (arg.kind == KernelArg::scratch) {
                dims[a].push_back({0, int32_t(kernel.scratch), 1, 0});
                buffers[a] = {};
                buffers[a].host = reinterpret_cast<uint8_t *>(scratch.data());
                buffers[a].type = {2, 32, 1};
                buffers[a].dimensions = 1;
                buffers[a].dim = dims[a].data();
                argv.push_back(&buffers[a]);
            }
            if (arg.kind != KernelArg::input && arg.kind != KernelArg::output) continue;
            ValueId v = (arg.kind == KernelArg::input ? node.inputs : node.outputs).at(size_t(arg.index));
            dims[a] = dims_of(arg, v);
            int64_t at = tile * arg.tile_stride;
            if (graph.shape(v).per_block() && !arg.all_blocks) at += block * elements(v);
            cryo_buffer &buffer = buffers[a] = buffer_of(v, dims[a]);
            buffer.host = reinterpret_cast<uint8_t *>(&bits(v).at(size_t(at)));
            argv.push_back(&buffer);
        }
        const std::string name = "kernel '" + spec_of(kernel, target, schedule).key() + "'";
        GuardWatch watch(name);
        int code = function(argv.data());
        if (code != 0) throw InternalError(name + " says " + std::to_string(code));
        for (ValueId v : node.outputs)
            if (!bits(v).slack_is_whole()) throw InternalError(name + " writes before its result");
    }

    void run(const Node &node, Space space) {
        if (node.op->place == Place::same) return;
        for (ValueId v : node.outputs) make_room(v);
        if (node.op->place != Place::own) {
            move_channels(node);
            return;
        }
        if (space == Space::none) {
            grammar(node);
            return;
        }
        if (!node.op->kernel) throw InternalError("fuse left a statement: " + print(graph, node));
        const Kernel kernel = kernel_of(graph, node, context);
        auto function = objects.lookup<cryo_kernel>(kernel_symbol(spec_of(kernel, target, schedule), target) + "_argv");
        const bool of_block = space == Space::block || kernel.of_block;
        const int64_t tiles = std::max<int64_t>(kernel.tiles, 1);
        if (target.gpu)
            for (int64_t tile = 0; tile < tiles; tile++) call_device(node, kernel, function, tile);
        else
            for (int64_t block = of_block ? 0 : -1; block < (of_block ? blocks() : 0); block++)
                for (int64_t tile = 0; tile < tiles; tile++) call(node, kernel, function, block, tile);
    }
};

} // namespace

struct KernelGraph::Compiled {
    KernelTarget target;
    KernelContext context;
    uint64_t schedule;
    Graph graph;
    std::unique_ptr<LinkedObjects> objects;
};

KernelGraph::KernelGraph(const Graph &graph, const KernelOptions &options) {
    CompileOptions compile{
        .batch = options.max_batch, .target = options.target, .lanes = options.lanes, .cache = CRYOLITE_TEST_CACHE};
    KernelTarget target = resolve_target(compile);
    KernelContext context{target.lanes, options.max_batch, target.gpu ? Math::strict : Math::measured};
    context.device = target.gpu;
    context.processors = options.processors;
    compiled_ =
        std::make_unique<Compiled>(Compiled{target, context, options.schedule, lower_fully(graph, context), {}});

    std::vector<KernelSpec> kernels;
    std::set<std::string> known;
    for (const Node &node : compiled_->graph.nodes)
        if (node.op->kernel) {
            KernelSpec spec = spec_of(kernel_of(compiled_->graph, node, context), target, options.schedule);
            if (known.insert(spec.key()).second) kernels.push_back(spec);
        }
    int cached = 0;
    compiled_->objects = std::make_unique<LinkedObjects>(compile_kernels(kernels, target, compile, cached), target.name,
                                                         graph.name, device_functions());
}

KernelGraph::~KernelGraph() = default;

int64_t KernelGraph::lanes() const { return compiled_->context.lanes; }
bool KernelGraph::has_block_tiles() const {
    return std::any_of(compiled_->graph.nodes.begin(), compiled_->graph.nodes.end(), [&](const Node &node) {
        return node.op->kernel && kernel_of(compiled_->graph, node, compiled_->context).of_block;
    });
}
const Graph &KernelGraph::lowered() const { return compiled_->graph; }

Interpreted KernelGraph::run(const InterpreterInputs &inputs) const {
    runtime::FloatMode mode; // the runtime's
    Runner runner(compiled_->graph, inputs, compiled_->context, compiled_->schedule, compiled_->target,
                  *compiled_->objects);
    for (size_t i = 0; i < compiled_->graph.nodes.size(); i++)
        runner.run(compiled_->graph.nodes[i], runner.times.space[i]);
    return std::move(runner.result);
}

const std::vector<std::string> &kernel_targets() {
    static const std::vector<std::string> runnable = [] {
#ifdef __SANITIZE_ADDRESS__
        return std::vector<std::string>{resolve_target({}).name + "-asan"};
#endif
        std::vector<std::string> names;
        for (const char *name : {"x86-64-linux-avx-avx2-avx512-avx512_skylake-f16c-fma-sse41",
                                 "x86-64-linux-avx-avx2-f16c-fma-sse41", "x86-64-linux-sse41"})
            try {
                LinkedObjects({}, resolve_target({.target = name}).name, name);
                names.push_back(name);
            } catch (const CompileError &) {} // not on this machine
        return names;
    }();
    return runnable;
}

const std::vector<std::string> &device_targets() {
    static const std::vector<std::string> targets = {"opencl", "opencl_32_lanes", "cuda", "cuda_32_lanes"};
    return targets;
}

KernelOptions device_options(const std::string &name) {
    return {.target = name.substr(0, name.find('_')), .lanes = name.find('_') == std::string::npos ? 8 : 32};
}

std::string short_target(const std::string &name) {
    for (const char *set : {"avx512", "avx2", "sse41"})
        if (name.find(set) != std::string::npos) return set;
    return name;
}

} // namespace cryolite::test
