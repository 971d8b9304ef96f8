// Networks: names, parameters, states, the end of a network, and the list of registered ones. Layers are in layers.cpp.
#include "compile.h"
#include "frontend.h"
#include "op.h"

#include <charconv>
#include <cmath>
#include <cstring>

namespace cryolite {

// ---------------------------------------------------------------------------------------------------------------------
// Calls

std::string source_text(Source where) {
    const char *slash = std::strrchr(where.file_name(), '/');
    return std::string(slash ? slash + 1 : where.file_name()) + ":" + std::to_string(where.line());
}

std::string number_text(double number) {
    char buffer[64];
    return std::string(buffer, std::to_chars(buffer, buffer + sizeof(buffer), number).ptr);
}

void Call::fail(const std::string &message) const {
    throw CompileError(what + (layer.empty() ? "" : " '" + layer + "'") + ": " + message + " (" + source_text(where) +
                       ")");
}

void Call::same_network(Value x) const {
    require(x.net, "an operand is the value of no network");
    require(x.net == net, "values of two networks are mixed: " + net->name() + " and " + x.net->name());
}

void Call::check_name(const std::string &name) const {
    bool good = !name.empty();
    for (char c : name) good = good && (std::isalnum(static_cast<unsigned char>(c)) || std::strchr("_-.", c));
    require(good, "the name \"" + name + "\" must consist of letters, digits, '_', '-' and '.'");
}

std::vector<Value> Call::add_all(const char *op, const std::vector<Value> &inputs, Attrs attrs) const {
    std::vector<ValueId> ids;
    for (Value x : inputs) {
        same_network(x);
        ids.push_back(x.id);
    }
    std::vector<Value> results;
    for (ValueId v : net->graph().add(op, std::move(ids), std::move(attrs), layer, source_text(where)))
        results.push_back({net, v});
    return results;
}

static bool is_stored(const Node &node) {
    return !std::strcmp(node.op->name, "parameter") || !std::strcmp(node.op->name, "state");
}

Value Call::add_stored(const char *op, const std::string &name, const Shape &shape, const Initializer &init) const {
    for (const Node &node : net->graph().nodes)
        if (is_stored(node) && node.attrs.string("name") == name)
            fail("there are two parameters or states '" + name + "', the first at " + node.source);
    for (int64_t extent : shape.dims)
        require(extent > 0, "the extents of '" + name + "' must be positive, they are " + shape.text());
    require(init.scale == Initializer::none || shape.rank() >= 2,
            "'" + name + "' of shape " + shape.text() + " has no fans: its initialiser needs two extents or more");
    require(std::isfinite(init.value) && (init.kind == Initializer::constant || init.value >= 0),
            "'" + name + "' cannot start as " + kind_name(init.kind) + " " + number_text(init.value));
    const Initializer start = resolve(init, shape);
    Attrs attrs{
        {"name", name}, {"shape", shape.dims}, {"init", std::string(kind_name(start.kind))}, {"value", start.value}};
    if (!std::strcmp(op, "state")) attrs.map["role"] = std::string("state");
    return add(op, {}, std::move(attrs));
}

Call plain_call(const char *what, Value x, Source where) {
    Call call{x.net, what, x.net ? x.net->scope() : "", where};
    call.require(x.net, "an operand is the value of no network");
    return call;
}

Call layer_call(const char *what, Value x, const std::string &name, Source where) {
    Call call = plain_call(what, x, where);
    call.layer = x.net->layer_name(name, where);
    return call;
}

const Shape &Value::shape() const {
    if (!net) throw CompileError("shape: the value of no network");
    return net->graph().shape(id);
}

// ---------------------------------------------------------------------------------------------------------------------
// Names

static std::string join(const std::string &prefix, const std::string &name) {
    return prefix.empty() ? name : prefix + "." + name;
}

std::string Network::layer_name(const std::string &given, Source where) {
    Call call{this, "layer", join(scope(), given), where};
    if (!given.empty()) call.check_name(given);
    // A named layer uses up its number, as in nn.Sequential, where the number is the position.
    const int number = scopes_.back().next++;
    const std::string name = join(scope(), given.empty() ? std::to_string(number) : given);
    call.layer = name;
    call.require(layers_.insert(name).second, "there are two layers of this name");
    return name;
}

Scope::Scope(Network &net, const std::string &name, Source where) : net_(net) {
    net.scopes_.push_back({net.layer_name(name, where), 0});
}
Scope::~Scope() { net_.scopes_.pop_back(); }

// ---------------------------------------------------------------------------------------------------------------------
// Network

Network::Network(std::string name) : name_(std::move(name)), graph_(std::make_unique<Graph>()), scopes_{{}} {
    // The name becomes a C++ namespace and C symbols.
    bool good = !name_.empty() && !std::isdigit(static_cast<unsigned char>(name_[0]));
    for (char c : name_) good = good && (std::isalnum(static_cast<unsigned char>(c)) || c == '_');
    if (!good) throw CompileError("network '" + name_ + "': the name must be an identifier of C");
    graph_->name = name_;
}
Network::~Network() = default;

Value Network::input(const std::string &name, const Shape &shape, Source where) {
    Call call{this, "input", name, where};
    call.check_name(name);
    for (const Node &node : graph_->nodes)
        if (!std::strcmp(node.op->name, "input"))
            call.fail("a network has one input, this is the second; the first is '" + node.layer + "' at " +
                      node.source);
    call.require(graph_->nodes.empty(), "the input must be made before parameters and states");
    call.require(shape.rank() == 1 || shape.rank() == 3,
                 "its shape must be [c] or [c, h, w], without the batch, not " + shape.text());
    for (int64_t extent : shape.dims) call.require(extent > 0, "extents must be positive, not " + shape.text());
    std::vector<int64_t> dims = shape.dims;
    dims.insert(dims.begin(), Shape::batch);
    return call.add("input", {}, {{"name", name}, {"shape", dims}});
}

static Value stored(Network &net, const char *op, const std::string &name, const Shape &shape, const Initializer &init,
                    Source where) {
    Call call{&net, op, join(net.scope(), name), where};
    call.check_name(name);
    return call.add_stored(op, join(net.scope(), name), shape, init);
}

Value Network::parameter(const std::string &name, const Shape &shape, Initializer init, Source where) {
    return stored(*this, "parameter", name, shape, init, where);
}

Value Network::state(const std::string &name, const Shape &shape, Initializer init, Source where) {
    return stored(*this, "state", name, shape, init, where);
}

void Network::assign(Value state, Value value, Source where) {
    Call call{this, "assign", scope(), where};
    call.same_network(state);
    call.same_network(value);
    const Node &target = graph_->producer(state.id);
    call.require(!std::strcmp(target.op->name, "state"),
                 std::string("only a state can be assigned to, this is the result of ") + target.op->name + " at " +
                     target.source);
    const std::string &name = target.attrs.string("name");
    call.require(state.shape() == value.shape(), "state '" + name + "' has shape " + state.shape().text() +
                                                     ", the new value has " + value.shape().text());
    for (const Node &node : graph_->nodes)
        if (!std::strcmp(node.op->name, "assign") && node.inputs[0] == state.id)
            call.fail("state '" + name + "' is assigned twice, first at " + node.source);
    call.layer = target.layer;
    call.add_all("assign", {state, value});
}

void Network::classify(Value logits, Source where) {
    Call call{this, "classify", "loss", where};
    call.same_network(logits);
    for (const Node &node : graph_->nodes)
        if (!std::strcmp(node.op->name, "output")) call.fail("a network is classified once, it was at " + node.source);
    Value loss, correct;
    cross_entropy(call, logits, loss, correct);
    // Mean and sum keep their axis as 1; results are single numbers.
    const Attrs axis{{"axes", std::vector<int64_t>{0}}}, scalar{{"shape", std::vector<int64_t>{}}};
    loss = call.add("reshape", {call.add("mean", {loss}, axis)}, scalar);
    correct = call.add("reshape", {call.add("sum", {correct}, axis)}, scalar);
    call.add_all("output", {loss}, {{"name", std::string("loss")}});
    call.add_all("output", {correct}, {{"name", std::string("correct")}});
    call.add_all("output", {call.add("softmax", {logits})}, {{"name", std::string("output")}});
}

void Network::optimize(Sgd sgd, Source where) {
    Call call{this, "sgd", "", where};
    auto check = [&](bool good, const char *what, double number, const char *rule) {
        call.require(good && std::isfinite(number), std::string(what) + " " + number_text(number) + " must be " + rule);
    };
    check(sgd.learning_rate > 0, "learning rate", sgd.learning_rate, "positive and finite");
    check(sgd.momentum >= 0 && sgd.momentum < 1, "momentum", sgd.momentum, "in [0, 1)");
    check(sgd.weight_decay >= 0, "weight decay", sgd.weight_decay, "0 or more, and finite");
    check(!sgd.nesterov || sgd.momentum > 0, "momentum", sgd.momentum, "positive for Nesterov's step");
    if (sgd.schedule.kind != Schedule::constant)
        check(sgd.schedule.period > 0, "schedule period", sgd.schedule.period, "positive and finite");
    if (sgd.schedule.kind == Schedule::step)
        check(sgd.schedule.gamma > 0, "schedule gamma", sgd.schedule.gamma, "positive and finite");
    optimizer_ = sgd;
}

void Network::initialize_weights(Initializer init, Source where) {
    Call{this, "initialize_weights", "", where}.require(
        std::isfinite(init.value) && (init.kind == Initializer::constant || init.value >= 0),
        "weights cannot start as " + std::string(kind_name(init.kind)) + " " + number_text(init.value));
    weight_init_ = init;
}

void check_complete(const Network &network, bool train) {
    bool input = false, classified = false, parameters = false;
    for (const Node &node : network.graph().nodes) {
        input = input || !std::strcmp(node.op->name, "input");
        classified = classified || !std::strcmp(node.op->name, "output");
        parameters = parameters || !std::strcmp(node.op->name, "parameter");
    }
    const auto &nodes = network.graph().nodes;
    const std::string last = nodes.empty() ? "" : "; it ends at (" + nodes.back().source + ")";
    auto require = [&](bool holds, const char *message) {
        if (!holds) throw CompileError("network '" + network.name() + "': " + message + last);
    };
    require(input, "it has no input");
    require(classified, "its end is missing: classify");
    require(!train || parameters, "it has no parameters to train");
}

// ---------------------------------------------------------------------------------------------------------------------
// Registration

static std::vector<NetworkEntry> &registry() {
    static std::vector<NetworkEntry> entries; // made on first use: registrations run before main, in any order
    return entries;
}

Registration::Registration(const char *name, void (*define)(Network &)) {
    registry().push_back({name, [name = std::string(name), define] {
                              auto network = std::make_unique<Network>(name);
                              define(*network);
                              return network;
                          }});
}

const std::vector<NetworkEntry> &registered_networks() {
    std::set<std::string> names;
    for (const NetworkEntry &entry : registry())
        if (!names.insert(entry.name).second) throw CompileError("network '" + entry.name + "' is registered twice");
    return registry();
}

} // namespace cryolite
