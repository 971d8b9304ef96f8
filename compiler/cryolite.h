// The language of networks: the one header an author includes.
//
//     static void lenet(Network &net) {
//         Value x = net.input("image", {1, 28, 28});
//         x = avg_pool2d(sigmoid(batch_norm(conv2d(x, {.channels = 6, .window = 5}))), {.window = 2});
//         net.classify(linear(flatten(x), {.units = 10}));
//     }
//     CRYOLITE_NETWORK(lenet)
//
// Layers are numbered in the order in which they are called, as in PyTorch's nn.Sequential, so parameters are named as
// in its state_dict ("0.weight", "1.running_mean"); a layer's `name` field replaces its number, the layers after it
// keep theirs. Arithmetic, reductions and reshape are not layers and take no number. C++ does not say which operand of
// conv2d(x, ...) + conv2d(y, ...) is called first: write such layers in statements of their own. Every wrong use throws
// CompileError, which names the layer, the shapes and the source line. Shapes are [n, c, h, w] or [n, c]; n is the
// batch, known only when the program runs.
#ifndef CRYOLITE_H
#define CRYOLITE_H

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace cryolite {

using Source = std::source_location;
class Network;

// The author's network is wrong. what() reads: conv2d '4': window 5 does not fit the padded input [n, 16, 4, 4]
// (net.cpp:12)
struct CompileError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Axes = std::vector<int>;

// Extents, outermost first. A leading `batch` stands for the samples of a batch, and prints as n.
struct Shape {
    static constexpr int64_t batch = -1;  // n
    static constexpr int64_t blocks = -2; // b, blocks of a batch: partial sums of the compiler, never seen by authors

    std::vector<int64_t> dims;

    Shape() = default;
    Shape(std::initializer_list<int64_t> d) : dims(d) {}
    explicit Shape(std::vector<int64_t> d) : dims(std::move(d)) {}

    int rank() const { return int(dims.size()); }
    int64_t operator[](int i) const { return dims.at(size_t(i)); }
    bool batched() const { return !dims.empty() && dims[0] == batch; }
    bool per_block() const { return !dims.empty() && dims[0] < 0; } // batched, or one per block
    int64_t elements() const;                                       // without the leading n or b
    Shape reduced(const Axes &axes) const;                          // the listed axes made 1
    std::string text() const;                                       // "[n, 6, 24, 24]"
    bool operator==(const Shape &) const = default;
};

// One tensor of the network: a cheap handle, valid as long as its Network.
struct Value {
    Network *net = nullptr;
    int id = -1;

    const Shape &shape() const;
    int rank() const { return shape().rank(); }
};

// ---------------------------------------------------------------------------------------------------------------------
// Initialisers. fan_in and fan_out are PyTorch's: weight.shape[1] * window area and weight.shape[0] * window area.

struct Initializer {
    enum Kind { constant, uniform, normal } kind = constant;
    double value = 0; // the constant, the bound a of U(-a, a), or the standard deviation
    enum Scale { none, xavier, he, pytorch } scale = none; // how value is derived from the fans
};
Initializer zeros();
Initializer ones();
Initializer constant(double value);
Initializer uniform(double bound);
Initializer normal(double deviation);
Initializer xavier_uniform();  // a = sqrt(6 / (fan_in + fan_out))
Initializer xavier_normal();   // deviation = sqrt(2 / (fan_in + fan_out))
Initializer he_uniform();      // a = sqrt(6 / fan_in)
Initializer he_normal();       // deviation = sqrt(2 / fan_in)
Initializer pytorch_default(); // weights and biases of conv2d and linear: a = 1 / sqrt(fan_in)

// ---------------------------------------------------------------------------------------------------------------------
// Layers

struct Conv2d {
    int channels = 0; // output channels
    int window = 0;   // square
    int stride = 1;
    int padding = 0; // zeros on each side
    int groups = 1;  // channels in so many convolutions side by side; the input's channels: depthwise
    bool bias = true;
    std::optional<Initializer> weight_init = std::nullopt; // default: the network's, see Network::initialize_weights
    std::string name = {};
};
struct Linear {
    int units = 0;
    bool bias = true;
    std::optional<Initializer> weight_init = std::nullopt;
    std::string name = {};
};
struct BatchNorm {
    int channels = 0; // 0: the input's; a stated count that differs from the input's is an error
    double eps = 1e-5;
    // Weight of the OLD running value (PyTorch's momentum is 1 minus this). nullopt: plain averages over all steps, as
    // PyTorch's momentum=None; their number is the state num_batches_tracked, exact up to 2^24.
    std::optional<double> momentum = 0.9;
    // Running variance from the unbiased batch variance, as PyTorch; normalising is always biased.
    bool unbiased = false;
    // For fine-tuning: train steps, too, normalise with the running statistics and leave them as they are; weight and
    // bias are trained. Checkpoints fit networks with and without.
    bool frozen = false;
    std::string name = {};
};
struct Pool2d {
    int window = 0;
    int stride = 0;  // 0: the window
    int padding = 0; // at most half the window
    // A rest that is smaller than the stride gets a window of its own, if that begins inside the image or before it:
    // PyTorch's ceil_mode.
    bool ceil = false;
    std::string name = {};
};
struct AdaptivePool2d {
    int height = 1, width = 0; // of the result; width 0: the height
    std::string name = {};
};
struct Dropout {
    double rate = 0.5; // probability of zero, in [0, 1)
    std::string name = {};
};
struct Layer {
    std::string name = {};
};

Value conv2d(Value x, Conv2d options, Source where = Source::current());             // [n,c,h,w] -> [n,k,ho,wo]
Value linear(Value x, Linear options, Source where = Source::current());             // [n,c] -> [n,k]
Value batch_norm(Value x, BatchNorm options = {}, Source where = Source::current()); // [n,c] or [n,c,h,w]
Value avg_pool2d(Value x, Pool2d options, Source where = Source::current());         // padding counts as zeros
Value max_pool2d(Value x, Pool2d options, Source where = Source::current()); // padding is -infinity; NaN stays NaN
// Means of height by width windows of nearly equal size; 1 by 1: of the whole image.
Value adaptive_avg_pool2d(Value x, AdaptivePool2d options = {}, Source where = Source::current());
Value dropout(Value x, Dropout options = {},
              Source where = Source::current()); // kept values are scaled by 1 / (1 - rate)
Value flatten(Value x, Layer options = {}, Source where = Source::current()); // [n, ...] -> [n, product]
Value sigmoid(Value x, Layer options = {}, Source where = Source::current());
// Channels side by side: [n, c, h, w] or [n, c], which differ in c alone. No layer; it costs nothing.
Value concat(const std::vector<Value> &values, Source where = Source::current());
Value relu(Value x, Layer options = {}, Source where = Source::current());
Value relu6(Value x, Layer options = {}, Source where = Source::current()); // relu, at most 6
Value tanh(Value x, Layer options = {}, Source where = Source::current());
Value softmax(Value x, Layer options = {}, Source where = Source::current()); // [n, c], over c

// ---------------------------------------------------------------------------------------------------------------------
// The language below the layers: numpy broadcasting between equal ranks, or with a number.

// An operand: a value or a number, with the place where it was written.
struct Operand {
    Value value;
    double number = 0;
    Source where;
    Operand(Value v, Source w = Source::current()) : value(v), where(w) {}
    Operand(double x, Source w = Source::current()) : number(x), where(w) {}
};
Value operator+(const Operand &a, const Operand &b);
Value operator-(const Operand &a, const Operand &b);
Value operator*(const Operand &a, const Operand &b);
Value operator/(const Operand &a, const Operand &b);
Value operator-(const Operand &a);
Value exp(Value x, Source where = Source::current());
Value log(Value x, Source where = Source::current());
Value sqrt(Value x, Source where = Source::current());
Value square(Value x, Source where = Source::current());
Value abs(Value x, Source where = Source::current());
Value maximum(const Operand &a, const Operand &b);
Value minimum(const Operand &a, const Operand &b);

Value reduce_sum(Value x, const Axes &axes, Source where = Source::current());  // reduced axes stay, as 1
Value reduce_mean(Value x, const Axes &axes, Source where = Source::current()); // n counts the samples of the batch
Value reshape(Value x, const Shape &shape, Source where = Source::current());   // the batch stays in front

// In train plans the first, in evaluate and infer plans the second. Shapes must be equal.
Value by_mode(Value train, Value infer, Source where = Source::current());

// [n, c] logits and the network's labels -> [n] losses.
Value softmax_cross_entropy(Value logits, Source where = Source::current());

// ---------------------------------------------------------------------------------------------------------------------
// Training

// The learning rate of step t is learning_rate * factor(t).
struct Schedule {
    enum Kind { constant, step, cosine } kind = constant;
    double period = 0; // step: every so many steps times gamma; cosine: from 1 to 0 over so many steps
    double gamma = 0.1;
};
// g += weight_decay * w;  v = momentum * v + g;  w -= learning_rate * v  (PyTorch's SGD)
struct Sgd {
    double learning_rate = 0.1;
    double momentum = 0;
    double weight_decay = 0;
    bool nesterov = false;
    Schedule schedule = {};
};

// Which algorithms the compiler may choose for speed. Each gives the same results on every run and number of threads.
enum class Math {
    strict,   // plain sums of products: NaN and infinities come out where PyTorch has them
    measured, // Winograd and Strassen convolutions, too, where their measured error is within 4 times that of plain
              // sums
    fast,     // these wherever they are faster
};

struct Graph;

class Network {
public:
    explicit Network(std::string name);
    ~Network();
    Network(const Network &) = delete;
    Network &operator=(const Network &) = delete;

    // The images of the batch: [n, c, h, w] or [n, c]; shape is given without n. One input a network, called first.
    Value input(const std::string &name, const Shape &shape, Source where = Source::current());

    // A trained parameter, or a state: a value that lives across steps and is changed by assign alone. The name is put
    // behind the enclosing Scope's: "1.weight".
    Value parameter(const std::string &name, const Shape &shape, Initializer init, Source where = Source::current());
    Value state(const std::string &name, const Shape &shape, Initializer init, Source where = Source::current());
    // At the end of a train step, state becomes value. Once per state; train plans only.
    void assign(Value state, Value value, Source where = Source::current());

    // The usual end: softmax cross-entropy, mean over the batch, in train and evaluate; probabilities in infer.
    // logits: [n, classes].
    void classify(Value logits, Source where = Source::current());

    void optimize(Sgd sgd, Source where = Source::current());
    void initialize_weights(Initializer init, Source where = Source::current()); // of conv2d and linear weights
    void math(Math math) { math_ = math; }                                       // default: measured

    const std::string &name() const { return name_; }
    const Sgd &optimizer() const { return optimizer_; }
    Math math() const { return math_; }
    const Initializer &weight_init() const { return weight_init_; }
    Graph &graph() { return *graph_; }
    const Graph &graph() const { return *graph_; }

    // For layer functions: the next layer's full name, a number or the given one, below the enclosing Scope.
    std::string layer_name(const std::string &given, Source where);
    const std::string &scope() const { return scopes_.back().prefix; } // the enclosing Scope's full name, or ""

private:
    friend class Scope;
    std::string name_;
    std::unique_ptr<Graph> graph_;
    Sgd optimizer_;
    Initializer weight_init_ = pytorch_default();
    Math math_ = Math::measured;
    struct Level {
        std::string prefix;
        int next = 0;
    };
    std::vector<Level> scopes_;
    std::set<std::string> layers_; // full names taken so far
};

// A layer of the author's own: takes the next number (or the name), and what is made inside is named below it.
//     Scope layer(net);  net.parameter("weight", ...)   // "1.weight"
class Scope {
public:
    explicit Scope(Network &net, const std::string &name = {}, Source where = Source::current());
    ~Scope();
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;

private:
    Network &net_;
};

// Registered networks; the command line picks by name, or takes the only one.
struct Registration {
    Registration(const char *name, void (*define)(Network &));
};
#define CRYOLITE_NETWORK(function)                                                                                     \
    static const ::cryolite::Registration cryolite_registration_##function(#function, function);

} // namespace cryolite
#endif
