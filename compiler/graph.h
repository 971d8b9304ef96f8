// The graph: single static assignment, nodes in topological order, static shapes but for the batch.
//
// One kind of node for everything; what an op means is in its OpDef (op.h). Effects are nodes without results:
// assign(state, value) takes place at the end of a step, output(value) names what a plan gives its caller; both keep
// their inputs alive, everything else may be dropped. Passes copy and rebuild; values are dense integers.
#ifndef CRYOLITE_GRAPH_H
#define CRYOLITE_GRAPH_H

#include "cryolite.h"

#include <deque>
#include <map>
#include <variant>

namespace cryolite {

struct OpDef;
using ValueId = int;
constexpr ValueId no_value = -1;

enum class Type { f32, i32 };
enum class Mode { train, evaluate, infer };
const char *mode_name(Mode mode);

using Attr = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;

// Attributes in name order; asking for one that is missing is an InternalError.
struct Attrs {
    std::map<std::string, Attr> map;
    Attrs() = default;
    Attrs(std::initializer_list<std::pair<const std::string, Attr>> list) : map(list) {}
    bool has(const std::string &key) const { return map.count(key) != 0; }
    bool flag(const std::string &key) const;
    int64_t integer(const std::string &key) const;
    double number(const std::string &key) const;
    const std::string &string(const std::string &key) const;
    const std::vector<int64_t> &list(const std::string &key) const;
    bool operator==(const Attrs &) const = default;
};

struct ValueType {
    Shape shape;
    Type type = Type::f32;
    bool operator==(const ValueType &) const = default;
};

struct Node {
    const OpDef *op = nullptr;
    std::vector<ValueId> inputs;
    std::vector<ValueId> outputs;
    Attrs attrs;
    std::string layer;  // "4", "4.weight_grad": what messages and profiles call it
    std::string source; // "lenet.cpp:12"
};

struct Graph {
    std::string name; // "lenet", "lenet.train"
    // Deques, so that a shape or a node that someone holds stays where it is while nodes are added.
    std::deque<Node> nodes;       // topological order
    std::deque<ValueType> values; // by ValueId
    std::vector<int> producers;   // by ValueId: index into nodes

    // Appends a node; infers and checks its results. Throws CompileError.
    std::vector<ValueId> add(const std::string &op, std::vector<ValueId> inputs, Attrs attrs = {},
                             const std::string &layer = {}, const std::string &source = {});
    ValueId add1(const std::string &op, std::vector<ValueId> inputs, Attrs attrs = {}, const std::string &layer = {},
                 const std::string &source = {}); // for ops with one result

    const ValueType &type(ValueId v) const { return values.at(size_t(v)); }
    const Shape &shape(ValueId v) const { return type(v).shape; }
    const Node &producer(ValueId v) const { return nodes.at(size_t(producers.at(size_t(v)))); }
    std::vector<int> use_counts() const; // by ValueId
};

// Copies a graph node by node while a pass rewrites it. For every node of the old graph in order, the pass either calls
// copy, or adds other nodes to `to` and binds the old results to new values.
struct Rewriter {
    const Graph &from;
    Graph to;
    std::vector<ValueId> map; // old value -> new value

    explicit Rewriter(const Graph &graph);
    std::vector<ValueId> inputs(const Node &node) const; // mapped
    void copy(const Node &node);
    void bind(ValueId old_value, ValueId new_value) { map.at(size_t(old_value)) = new_value; }
};

// The text form, one node a line; parse(print(g)) prints the same again. parse throws CompileError with the line
// number.
//   graph lenet.train {
//     %0 : f32[n,1,28,28] = input() {name="image"}
//     %1 : f32[6,1,5,5] = parameter() {name="0.weight", ...}
//     %2 : f32[n,6,24,24] = conv2d(%0, %1) {padding=0, stride=1}  # 0 lenet.cpp:12
//     %3, %4 : f32[1,6,1,1], f32[1,6,1,1] = batch_stats(%2)       # 1
//     assign(%5, %6)
//   }
std::string print(const Graph &graph);
std::string print(const Graph &graph, const Node &node); // one line, for messages: broken nodes print too
Graph parse(const std::string &text);

// Our own bug, not the author's: which pass, what was violated.
struct InternalError : std::logic_error {
    using std::logic_error::logic_error;
};
// Checks every rule of a graph: topological order, single assignment, types equal to what the op infers, assigns only
// to states and once each. Throws InternalError that names `pass`.
void verify(const Graph &graph, const std::string &pass);

} // namespace cryolite
#endif
