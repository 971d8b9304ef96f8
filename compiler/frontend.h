// What the functions of the language share: where they were called, how they complain, how they add nodes.
#ifndef CRYOLITE_FRONTEND_H
#define CRYOLITE_FRONTEND_H

#include "graph.h"

namespace cryolite {

// One call of a function of the language.
struct Call {
    Network *net;
    std::string what;  // "conv2d"
    std::string layer; // "4", or the enclosing Scope's name where the function is no layer
    Source where;

    // Throws CompileError: "conv2d '4': <message> (net.cpp:12)".
    [[noreturn]] void fail(const std::string &message) const;
    void require(bool holds, const std::string &message) const {
        if (!holds) fail(message);
    }
    // Of a layer's options: the message goes on with the shape of the input.
    void option(bool holds, const std::string &message, Value x) const {
        require(holds, message + "; the input is " + x.shape().text());
    }
    void positive(const char *name, int64_t number, Value x) const {
        option(number > 0, std::string(name) + " " + std::to_string(number) + " must be positive", x);
    }
    void same_network(Value x) const;
    // Names become parts of files and of checkpoints: letters, digits, '_', '-' and '.'.
    void check_name(const std::string &name) const;

    std::vector<Value> add_all(const char *op, const std::vector<Value> &inputs, Attrs attrs = {}) const;
    Value add(const char *op, const std::vector<Value> &inputs, Attrs attrs = {}) const {
        return add_all(op, inputs, std::move(attrs)).at(0);
    }
    // op: "parameter" or "state". name is the full one.
    Value add_stored(const char *op, const std::string &name, const Shape &shape, const Initializer &init) const;
};
// Of a layer, which takes the next number or the given name.
Call layer_call(const char *what, Value x, const std::string &name, Source where);
// Of a function that is no layer.
Call plain_call(const char *what, Value x, Source where);

// [n, c] logits and the network's labels, made on first use -> losses and hits, both [n].
void cross_entropy(const Call &call, Value logits, Value &loss, Value &correct);

std::string source_text(Source where);         // "net.cpp:12"
std::string number_text(double number);        // the shortest that reads back the same
const char *kind_name(Initializer::Kind kind); // "constant", "uniform", "normal"

// The value of an initialiser for a weight of this shape: scale becomes none. The weight has at least two extents.
Initializer resolve(const Initializer &init, const Shape &weight);

// Throws CompileError when a network lacks what a compiler needs: input, classify, and parameters when it is to be
// trained.
void check_complete(const Network &network, bool train = true);

} // namespace cryolite
#endif
