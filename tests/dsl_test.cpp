// The language: what it builds, and that every wrong use is refused with the layer, the shapes and the source line.
#include "compile.h"
#include "frontend.h"
#include "op.h"

#include "examples/lenet.cpp"
#include "examples/lenet_plain.cpp"
#include "examples/lenet_scratch.cpp"
#include "examples/mlp.cpp"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace cryolite;

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

std::string here(Source where) { return " (dsl_test.cpp:" + std::to_string(where.line()) + ")"; }

void expect_error(Source where, const std::string &message, const std::function<void()> &run) {
    std::string text = "nothing";
    try {
        run();
    } catch (const CompileError &error) { text = error.what(); }
    EXPECT_EQ(text, message + here(where));
}

void expect_wrong(Source where, const std::string &message, const std::function<void(Network &, Value)> &define) {
    Network net("net");
    Value x = net.input("image", {1, 28, 28}, where);
    expect_error(where, message, [&] { define(net, x); });
}

void expect_parts(Source where, const std::vector<std::string> &parts,
                  const std::function<void(Network &, Value)> &define) {
    Network net("net");
    Value x = net.input("image", {1, 28, 28}, where);
    std::string text = "nothing";
    try {
        define(net, x);
    } catch (const CompileError &error) { text = error.what(); }
    EXPECT_EQ(text.rfind(parts.at(0), 0), 0u) << text;
    for (const std::string &part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(text.find(here(where)), std::string::npos) << text;
}
std::vector<std::string> says(std::initializer_list<std::string> parts) { return parts; }

// The whole message but for the source line, which is the macro's.
#define WRONG(message, ...)                                                                                            \
    expect_wrong(Source::current(), message,                                                                           \
                 []([[maybe_unused]] Network &net, [[maybe_unused]] Value x) { __VA_ARGS__; })

// Of an op's own rule: the start, and what else it says.
#define WRONG_OP(parts, ...)                                                                                           \
    expect_parts(Source::current(), parts, []([[maybe_unused]] Network &net, Value x) { __VA_ARGS__; })
// Outside of expect_wrong's network.
#define WRONG_HERE(message, ...) expect_error(Source::current(), message, [&] { __VA_ARGS__; })

const Node *find_stored(const Network &net, const std::string &name) {
    for (const Node &node : net.graph().nodes)
        if ((node.op == find_op("parameter") || node.op == find_op("state")) && node.attrs.string("name") == name)
            return &node;
    return nullptr;
}

std::unique_ptr<Network> example(const std::string &name) {
    for (const NetworkEntry &entry : registered_networks())
        if (entry.name == name) return entry.build();
    throw std::runtime_error("no example " + name);
}

std::vector<std::string> stored_names(const Network &net) {
    std::vector<std::string> names;
    for (const Node &node : net.graph().nodes)
        if (node.attrs.has("init")) names.push_back(node.attrs.string("name"));
    return names;
}

TEST(Names, AreThoseOfSequential) {
    std::vector<std::string> expected;
    for (std::string layer : {"0", "4", "9", "12"}) {
        const std::string norm = std::to_string(std::stoi(layer) + 1);
        for (std::string name : {"weight", "bias"}) expected.push_back(layer + "." + name);
        for (std::string name : {"weight", "bias", "running_mean", "running_var"})
            expected.push_back(norm + "." + name);
    }
    expected.insert(expected.end(), {"15.weight", "15.bias"});
    EXPECT_EQ(stored_names(*example("lenet")), expected);
    EXPECT_EQ(stored_names(*example("lenet_scratch")), expected);
    EXPECT_EQ(stored_names(*example("lenet_plain")),
              (std::vector<std::string>{"0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias", "9.weight",
                                        "9.bias", "11.weight", "11.bias"}));
}

TEST(Names, OfScopesAndNamedLayers) {
    Network net("net");
    Value x = flatten(net.input("image", {4}));
    {
        Scope block(net, "block");
        x = linear(x, {.units = 3});
        Scope inner(net);
        net.state("count", {1}, zeros());
        x = linear(x, {.units = 3, .name = "last"});
    }
    linear(x, {.units = 2});
    EXPECT_EQ(stored_names(net),
              (std::vector<std::string>{"block.0.weight", "block.0.bias", "block.1.count", "block.1.last.weight",
                                        "block.1.last.bias", "2.weight", "2.bias"}));
}

TEST(Layers, KeepWhereTheyWereCalled) {
    Network net("net");
    Value x = net.input("image", {1, 28, 28});
    const Source where = Source::current();
    Value y = conv2d(x, {.channels = 6, .window = 5});
    const Node &node = net.graph().producer(y.id);
    EXPECT_EQ(node.source, "dsl_test.cpp:" + std::to_string(where.line() + 1));
    EXPECT_EQ(node.layer, "0");
    EXPECT_EQ(y.shape(), (Shape{Shape::batch, 6, 24, 24}));
}

TEST(Layers, ChannelsComeFromTheRankAlone) {
    Network net("net");
    batch_norm(net.input("image", {1, 28, 28}), {.channels = 1});
    EXPECT_EQ(find_stored(net, "0.weight")->attrs.list("shape"), std::vector<int64_t>{1});
    Network flat("flat");
    batch_norm(flat.input("image", {28}));
    EXPECT_EQ(find_stored(flat, "0.running_var")->attrs.list("shape"), std::vector<int64_t>{28});
}

TEST(Layers, DropoutsHaveTheirOwnSeeds) {
    Network net("net");
    Value x = net.input("image", {8});
    Value a = dropout(x), b = dropout(x, {.rate = 0.25});
    EXPECT_NE(net.graph().producer(a.id).attrs.integer("seed"), net.graph().producer(b.id).attrs.integer("seed"));
    EXPECT_EQ(net.graph().producer(b.id).attrs.number("rate"), 0.25);
}

TEST(Initializers, FollowTheFans) {
    const Shape conv{6, 3, 5, 5}, dense{10, 84};
    auto near = [](const Initializer &init, const Shape &shape, Initializer::Kind kind, double value) {
        EXPECT_EQ(resolve(init, shape).kind, kind);
        EXPECT_NEAR(resolve(init, shape).value, value, 1e-15);
        EXPECT_EQ(resolve(init, shape).scale, Initializer::none);
    };
    near(xavier_uniform(), conv, Initializer::uniform, std::sqrt(6.0 / (75 + 150)));
    near(xavier_uniform(), dense, Initializer::uniform, std::sqrt(6.0 / (84 + 10)));
    near(xavier_normal(), conv, Initializer::normal, std::sqrt(2.0 / (75 + 150)));
    near(he_uniform(), conv, Initializer::uniform, std::sqrt(6.0 / 75));
    near(he_normal(), dense, Initializer::normal, std::sqrt(2.0 / 84));
    near(pytorch_default(), conv, Initializer::uniform, 1 / std::sqrt(75.0));
    near(uniform(0.5), dense, Initializer::uniform, 0.5);
    near(constant(-2), dense, Initializer::constant, -2);
}

TEST(Initializers, OfLayers) {
    auto net = example("lenet");
    auto expect = [&](const char *name, const char *init, double value) {
        EXPECT_EQ(find_stored(*net, name)->attrs.string("init"), init) << name;
        EXPECT_NEAR(find_stored(*net, name)->attrs.number("value"), value, 1e-15) << name;
    };
    expect("0.weight", "uniform", std::sqrt(6.0 / (25 + 150)));
    expect("0.bias", "uniform", 1 / std::sqrt(25.0));
    expect("9.weight", "uniform", std::sqrt(6.0 / (256 + 120)));
    expect("15.bias", "uniform", 1 / std::sqrt(84.0));
    expect("1.weight", "constant", 1);
    expect("1.bias", "constant", 0);
    expect("1.running_mean", "constant", 0);
    expect("1.running_var", "constant", 1);
    EXPECT_EQ(find_stored(*net, "1.running_var")->attrs.string("role"), "state");

    Network plain("plain");
    linear(plain.input("image", {16}), {.units = 4, .bias = false});
    EXPECT_EQ(find_stored(plain, "0.weight")->attrs.number("value"), 0.25);
    EXPECT_EQ(find_stored(plain, "0.bias"), nullptr);
}

TEST(Examples, AreComplete) {
    for (const char *name : {"lenet", "lenet_plain", "lenet_scratch", "mlp"}) {
        auto net = example(name);
        EXPECT_NO_THROW(check_complete(*net)) << name;
        EXPECT_NO_THROW(verify(net->graph(), "network")) << name;
        EXPECT_EQ(net->graph().name, name);
    }
    EXPECT_EQ(example("lenet")->optimizer().learning_rate, 1.0);
    EXPECT_EQ(example("mlp")->optimizer().learning_rate, 0.1);
}

TEST(Wrong, Conv2d) {
    WRONG("conv2d '0': channels 0 must be positive; the input is [n, 1, 28, 28]", conv2d(x, {.window = 5}));
    WRONG("conv2d '0': window -1 must be positive; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .window = -1}));
    WRONG("conv2d '0': stride 0 must be positive; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .window = 5, .stride = 0}));
    WRONG("conv2d '0': padding -1 must not be negative; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .window = 5, .padding = -1}));
    WRONG("conv2d '0': groups 0 must be positive; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .window = 5, .groups = 0}));
    WRONG("conv2d '0': groups 2 must divide the input's channels and the layer's 6; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .window = 5, .groups = 2}));
    WRONG("conv2d '0': window 33 does not fit the padded input [n, 1, 32, 32]",
          conv2d(x, {.channels = 6, .window = 33, .padding = 2}));
    WRONG("conv2d '1': the input must be [n, c, h, w], not [n, 784]", conv2d(flatten(x), {.channels = 6, .window = 5}));
    WRONG("conv2d 'first': window 0 must be positive; the input is [n, 1, 28, 28]",
          conv2d(x, {.channels = 6, .name = "first"}));
    WRONG("parameter '0': a result of shape [2147483647, 1, 5, 5] has 2^31 elements or more",
          conv2d(x, {.channels = 2147483647, .window = 5, .bias = false}));
    WRONG("conv2d '0': '0.weight' cannot start as uniform -1",
          conv2d(x, {.channels = 6, .window = 5, .weight_init = uniform(-1)}));
}

TEST(Wrong, Linear) {
    WRONG("linear '1': units 0 must be positive; the input is [n, 784]", linear(flatten(x), {}));
    WRONG("linear '0': the input must be [n, c], not [n, 1, 28, 28]", linear(x, {.units = 10}));
}

// The source text's second network as printed: Conv2d(1, 6) before BatchNorm2d(16). The input has as many channels as
// the layer before made, whatever the author expected.
TEST(BatchNormTraps, T17_SixChannelsAreNotSixteen) {
    WRONG("batch_norm '1': expects 16 channels, the input [n, 6, 24, 24] has 6",
          batch_norm(conv2d(x, {.channels = 6, .window = 5}), {.channels = 16}));
}

TEST(Wrong, BatchNorm) {
    WRONG("batch_norm '0': expects 28 channels, the input [n, 1, 28, 28] has 1", batch_norm(x, {.channels = 28}));
    WRONG("batch_norm '0': the input must be [n, c] or [n, c, h, w], not [n, 1, 784]",
          batch_norm(reshape(x, {Shape::batch, 1, 784})));
    WRONG("batch_norm '0': eps 0 must be positive and finite; the input is [n, 1, 28, 28]", batch_norm(x, {.eps = 0}));
    WRONG("batch_norm '0': eps nan must be positive and finite; the input is [n, 1, 28, 28]",
          batch_norm(x, {.eps = nan}));
    WRONG("batch_norm '0': momentum 1.5 must be in [0, 1]: the weight of the old running value; the input is "
          "[n, 1, 28, 28]",
          batch_norm(x, {.momentum = 1.5}));
}

TEST(Wrong, Pools) {
    WRONG("avg_pool2d '0': window 0 must be positive; the input is [n, 1, 28, 28]", avg_pool2d(x, {}));
    WRONG("max_pool2d '0': stride -2 must be positive; the input is [n, 1, 28, 28]",
          max_pool2d(x, {.window = 2, .stride = -2}));
    WRONG("max_pool2d '0': padding 2 must be between 0 and half the window 3; the input is [n, 1, 28, 28]",
          max_pool2d(x, {.window = 3, .padding = 2}));
    WRONG("adaptive_avg_pool2d '0': height 0 must be positive; the input is [n, 1, 28, 28]",
          adaptive_avg_pool2d(x, {.height = 0}));
    WRONG("adaptive_avg_pool2d '0': width -1 must not be negative; the input is [n, 1, 28, 28]",
          adaptive_avg_pool2d(x, {.width = -1}));
    WRONG("adaptive_avg_pool2d '1': the input must be [n, c, h, w], not [n, 784]", adaptive_avg_pool2d(flatten(x)));
    WRONG("concat: an operand is the value of no network", concat({}));
    WRONG_OP(says({"concat", "the inputs [n, 1, 28, 28] and [n, 1, 14, 14] differ in more than their channels"}),
             concat({x, avg_pool2d(x, {.window = 2})}));
    WRONG_OP(says({"concat", "the inputs [n, 1, 28, 28] and [n, 784] differ in more than their channels"}),
             concat({x, flatten(x)}));
    WRONG("avg_pool2d '0': window 29 does not fit the padded input [n, 1, 28, 28]", avg_pool2d(x, {.window = 29}));
    WRONG("avg_pool2d '1': the input must be [n, c, h, w], not [n, 784]", avg_pool2d(flatten(x), {.window = 2}));
}

TEST(Wrong, OtherLayers) {
    WRONG("dropout '0': rate 1 must be in [0, 1); the input is [n, 1, 28, 28]", dropout(x, {.rate = 1}));
    WRONG("dropout '0': rate nan must be in [0, 1); the input is [n, 1, 28, 28]", dropout(x, {.rate = nan}));
    WRONG("softmax '0': the input must be [n, c], not [n, 1, 28, 28]", softmax(x));
    WRONG("flatten '0': the input must be [n, ...], not [4]", flatten(net.parameter("w", {4}, zeros())));
    WRONG("relu: an operand is the value of no network", relu(Value()));
}

TEST(Wrong, Arithmetic) {
    // Which shapes go together is the op's own rule.
    WRONG_OP(says({"add:", "[n, 1, 28, 28]", "[n, 784]"}), x + reshape(x, {Shape::batch, 784}));
    WRONG_OP(says({"mul:", "[n, 1, 28, 28]", "[1, 1, 1, 27]"}), x * net.parameter("w", {1, 1, 1, 27}, ones()));
    WRONG_OP(says({"sub 'norm':", "[n, 1, 28, 28]", "[2]"}), Scope norm(net, "norm");
             x - net.parameter("w", {2}, ones()));
    WRONG("div: the number nan is not finite", x / nan);
    WRONG("max: the number inf is not finite", maximum(x, inf));
    WRONG("min: an operand is the value of no network", minimum(1.0, 2.0));
    Network other("other");
    static Value y;
    y = other.input("image", {1, 28, 28});
    WRONG("add: values of two networks are mixed: net and other", x + y);
    WRONG("by_mode: values of two networks are mixed: net and other", by_mode(x, y));
    WRONG("assign: values of two networks are mixed: net and other", net.assign(net.state("s", {1}, zeros()), y));
    WRONG("classify 'loss': values of two networks are mixed: net and other", net.classify(y));
}

TEST(Wrong, Reductions) {
    WRONG("sum: there is no axis 4 in [n, 1, 28, 28]", reduce_sum(x, {4}));
    WRONG("mean: there is no axis -1 in [n, 1, 28, 28]", reduce_mean(x, {-1}));
    WRONG("mean: axis 2 of [n, 1, 28, 28] is given twice", reduce_mean(x, {2, 3, 2}));
    WRONG("sum: no axes of [n, 1, 28, 28] are given", reduce_sum(x, {}));
    WRONG("reshape: [n, 1, 28, 28] cannot become [784]: the batch stays in front", reshape(x, {784}));
    WRONG("reshape: [n, 1, 28, 28] cannot become [n, 783]: the number of elements differs",
          reshape(x, {Shape::batch, 783}));
    WRONG("reshape: [n, 1, 28, 28] cannot become [n, -28, -28]: extents must be positive",
          reshape(x, {Shape::batch, -28, -28}));
    WRONG("by_mode: the value in train has shape [n, 1, 28, 28], in infer [n, 784]", by_mode(x, flatten(x)));
}

TEST(Wrong, ParametersAndStates) {
    WRONG("assign: only a state can be assigned to, this is the result of parameter at " +
              ("dsl_test.cpp:" + std::to_string(Source::current().line())),
          net.assign(net.parameter("w", {1}, zeros()), net.parameter("v", {1}, zeros())));
    WRONG("assign: state 's' has shape [2], the new value has [n, 1, 28, 28]",
          net.assign(net.state("s", {2}, zeros()), x));
    WRONG("assign: state 's' is assigned twice, first at dsl_test.cpp:" + std::to_string(Source::current().line()),
          Value s = net.state("s", {2}, zeros());
          net.assign(s, s + 1.0); net.assign(s, s + 2.0));
    WRONG("parameter '0.w': there are two parameters or states '0.w', the first at dsl_test.cpp:" +
              std::to_string(Source::current().line()),
          Scope layer(net);
          net.state("w", {2}, zeros()); net.parameter("w", {2}, zeros()));
    WRONG("parameter 'w': the extents of 'w' must be positive, they are [2, 0]", net.parameter("w", {2, 0}, zeros()));
    WRONG("parameter 'w': 'w' of shape [2] has no fans: its initialiser needs two extents or more",
          net.parameter("w", {2}, he_normal()));
    WRONG("state 's': 's' cannot start as constant nan", net.state("s", {2}, constant(nan)));
    WRONG("parameter 'a b': the name \"a b\" must consist of letters, digits, '_', '-' and '.'",
          net.parameter("a b", {1}, ones()));
    WRONG("parameter 'w': a result of shape [65536, 65536, 65536, 65536] has 2^31 elements or more",
          net.parameter("w", {65536, 65536, 65536, 65536}, ones()));
}

TEST(Wrong, LayerNames) {
    WRONG("layer 'a': there are two layers of this name", relu(x, {.name = "a"}); relu(x, {.name = "a"}));
    WRONG("layer '1': there are two layers of this name", relu(x, {.name = "1"}); relu(x));
    WRONG("layer 'a b': the name \"a b\" must consist of letters, digits, '_', '-' and '.'", relu(x, {.name = "a b"}));
}

TEST(Wrong, InputAndEnd) {
    WRONG("input 'other': a network has one input, this is the second; the first is 'image' at dsl_test.cpp:" +
              std::to_string(Source::current().line()),
          net.input("other", {4}));
    WRONG("classify 'loss': the logits must be [n, classes], not [n, 1, 28, 28]", net.classify(x));
    WRONG("classify 'loss': a network is classified once, it was at dsl_test.cpp:" +
              std::to_string(Source::current().line()),
          Value y = flatten(x);
          net.classify(y); net.classify(y));
    WRONG("softmax_cross_entropy: the logits must be [n, classes], not [n, 1, 28, 28]", softmax_cross_entropy(x));

    Network net("net");
    WRONG_HERE("input 'image': its shape must be [c] or [c, h, w], without the batch, not [28, 28]",
               net.input("image", {28, 28}));
    WRONG_HERE("input 'image': extents must be positive, not [0]", net.input("image", {0}));
    WRONG_HERE("input 'image': a result of shape [n, 65536, 65536, 65536] has 2^31 elements or more",
               net.input("image", {65536, 65536, 65536}));
    net.parameter("w", {1}, ones());
    WRONG_HERE("input 'image': the input must be made before parameters and states", net.input("image", {4}));
    EXPECT_THROW(Network("two words"), CompileError);
}

TEST(Wrong, Incomplete) {
    auto message = [](const Network &net) -> std::string {
        try {
            check_complete(net);
        } catch (const CompileError &error) { return error.what(); }
        return "nothing";
    };
    Network empty("empty");
    EXPECT_EQ(message(empty), "network 'empty': it has no input");
    Network open("open");
    Value x = open.input("image", {4});
    const std::string line = "dsl_test.cpp:" + std::to_string(Source::current().line() - 1);
    EXPECT_EQ(message(open), "network 'open': its end is missing: classify; it ends at (" + line + ")");
    open.classify(x);
    EXPECT_NE(message(open).find("network 'open': it has no parameters to train"), std::string::npos);
    EXPECT_NO_THROW(check_complete(open, false));
}

TEST(Wrong, Optimizer) {
    WRONG("sgd: learning rate 0 must be positive and finite", net.optimize({.learning_rate = 0}));
    WRONG("sgd: learning rate inf must be positive and finite", net.optimize({.learning_rate = inf}));
    WRONG("sgd: momentum 1 must be in [0, 1)", net.optimize({.momentum = 1}));
    WRONG("sgd: weight decay -0.1 must be 0 or more, and finite", net.optimize({.weight_decay = -0.1}));
    WRONG("sgd: momentum 0 must be positive for Nesterov's step", net.optimize({.nesterov = true}));
    WRONG("sgd: schedule period 0 must be positive and finite", net.optimize({.schedule = {.kind = Schedule::cosine}}));
    WRONG("sgd: schedule gamma nan must be positive and finite",
          net.optimize({.schedule = {.kind = Schedule::step, .period = 10, .gamma = nan}}));
    WRONG("initialize_weights: weights cannot start as normal nan", net.initialize_weights(normal(nan)));
}

} // namespace
