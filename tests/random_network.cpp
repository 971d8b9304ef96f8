#include "random_network.h"

#include <algorithm>
#include <random>

namespace cryolite::test {

namespace {

constexpr int max_genes = 7, most_channels = 24;

// The next value, from one that is [n, c, h, w] or [n, c].
struct Grower {
    Network &net;
    Value x;
    std::vector<Value> earlier = {}; // what x was before each gene

    bool image() const { return x.rank() == 4; }
    int smallest_side() const { return int(std::min(x.shape()[2], x.shape()[3])); }

    Value parameter(const Shape &shape) {
        Scope layer(net);
        return net.parameter("scale", shape, ones());
    }

    // A shape that broadcasts to x: some of its dimensions 1, the batch always.
    Shape part_of_x(uint32_t choice) const {
        Shape shape = x.shape();
        shape.dims[0] = 1;
        for (int d = 1; d < shape.rank(); d++)
            if (choice >> d & 1) shape.dims[size_t(d)] = 1;
        return shape;
    }
    // Some axes of x, at least one.
    Axes some_axes(uint32_t choice) const {
        Axes axes;
        for (int d = 0; d < x.rank(); d++)
            if (choice >> d & 1) axes.push_back(d);
        return axes.empty() ? Axes{x.rank() - 1} : axes;
    }

    Pool2d window(uint32_t a, uint32_t b) const {
        int size = 1 + int(a % 4), padding = int(b % 2 ? size / 2 : 0);
        size = std::min(size, smallest_side() + 2 * padding);
        padding = std::min(padding, size / 2);
        return {.window = size, .stride = 1 + int(b / 2 % 3), .padding = padding, .ceil = b / 6 % 2 != 0};
    }
    // Of means: equal windows, windows of nearly equal size, more windows than pixels, or the whole image.
    Value adaptive(uint32_t a, uint32_t b) {
        if (a % 3 == 0) return adaptive_avg_pool2d(x);
        return adaptive_avg_pool2d(x, {.height = 1 + int(b % 5), .width = int(b / 5 % 5)});
    }
    // One group, depthwise, or something between.
    int groups(uint32_t choice) const {
        const int channels = int(x.shape()[1]);
        if (choice % 3 == 0) return channels;
        for (int count : {2, 3})
            if (choice % 3 == 1 && channels % count == 0) return count;
        return 1;
    }
    Value convolution(uint32_t a, uint32_t b) {
        int padding = int(b % 2), size = std::min(1 + int(a % 3), smallest_side() + 2 * padding);
        const int groups = this->groups(a / 20);
        return conv2d(x, {.channels = groups * (1 + int(a / 4 % (groups > 1 ? 2 : 5))),
                          .window = size,
                          .stride = 1 + int(b / 2 % 2),
                          .padding = padding,
                          .groups = groups,
                          .bias = b / 4 % 3 != 0});
    }
    // A running mean, as an author writes one.
    Value centred(uint32_t a) {
        Scope layer(net);
        Axes axes = a % 2 || !image() ? Axes{0} : Axes{0, 2, 3};
        Value mean = reduce_mean(x, axes), moving = net.state("mean", mean.shape(), zeros());
        net.assign(moving, 0.75 * moving + 0.25 * mean);
        return x - by_mode(mean, moving);
    }
    Value unary(uint32_t a) {
        switch (a % 6) {
        case 0:
            return exp(0.5 * x);
        case 1:
            return sqrt(square(x) + 1);
        case 2:
            return log(square(x) + 0.5);
        case 3:
            return x / (abs(x) + 2);
        case 4:
            return abs(x);
        default:
            return -square(x);
        }
    }
    Value binary(uint32_t a, uint32_t b) {
        Value p = parameter(part_of_x(b));
        switch (a % 6) {
        case 0:
            return x * p;
        case 1:
            return p - x;
        case 2:
            return maximum(x, p);
        case 3:
            return minimum(p, x);
        case 4:
            return p / (square(x) + 1);
        default:
            return x + exp(p) * x;
        }
    }
    // x meets what was made of it.
    Value branch(uint32_t a) {
        switch (a % 5) {
        case 4: // a residual over one gene or several
            for (const Value &value : earlier)
                if (value.shape() == x.shape()) return x + value;
            [[fallthrough]];
        case 0:
            return x + tanh(x);
        case 1:
            return x * sigmoid(x);
        case 2:
            return relu(x) - 0.1 * x;
        default:
            return image() ? x + conv2d(x, {.channels = int(x.shape()[1]), .window = 3, .padding = 1})
                           : x + linear(x, {.units = int(x.shape()[1])});
        }
    }
    // x beside what was made of it, or of what it was made of: as in GoogLeNet, in DenseNet, in U-Net. Its gradients
    // are slices. Not for ever more channels.
    Value beside(uint32_t a, uint32_t b) {
        if (x.shape()[1] > most_channels) return x;
        std::vector<Value> parts = {x};
        if (a % 2)
            parts.push_back(image() ? conv2d(x, {.channels = 1 + int(b % 3), .window = 3, .padding = 1})
                                    : linear(x, {.units = 1 + int(b % 3)}));
        if (a / 2 % 2) parts.push_back(sigmoid(x));
        auto fits = [&](const Value &value) {
            Shape shape = value.shape();
            if (shape.rank() != x.rank() || shape[1] > most_channels) return false;
            shape.dims[1] = x.shape()[1];
            return shape == x.shape();
        };
        auto other = std::find_if(earlier.begin(), earlier.end(), fits);
        if (a / 4 % 2 && other != earlier.end()) parts.push_back(*other);
        if (a / 8 % 4 == 0) parts.push_back(x);
        if (a / 32 % 2) std::swap(parts.front(), parts.back());
        return concat(parts);
    }
    Value reduction(uint32_t a, uint32_t b) {
        switch (a % 3) {
        case 0:
            return x - reduce_mean(x, some_axes(b));
        case 1:
            return x / (1 + reduce_sum(square(x), some_axes(b | 2)));
        default:
            return x * reduce_mean(exp(0.25 * x), some_axes(b));
        }
    }

    Value rarer(uint32_t kind, uint32_t a, uint32_t b) {
        switch (kind) {
        case 14:
            return a % 2 ? dropout(x, {.rate = 0.25}) : image() ? flatten(x) : softmax(x);
        case 15:
            return relu6(8 * x);
        case 16:
            return image() ? adaptive(a, b) : beside(a, b);
        case 17:
            return beside(a, b);
        default: // seen in another shape, if it has the elements
            return image() ? reshape(x, {Shape::batch, x.shape()[1] * x.shape()[2], x.shape()[3], 1})
                           : reshape(x, {Shape::batch, 1, x.shape()[1], 1});
        }
    }

    void grow(const Gene &gene) {
        uint32_t a = gene.a, b = gene.b;
        const Value before = x;
        switch (gene.kind % 19) {
        case 0:
        case 1:
            x = image() ? convolution(a, b) : linear(x, {.units = 1 + int(a % 7), .bias = b % 3 != 0});
            break;
        case 2:
        case 3:
            x = batch_norm(x, {.momentum = b % 3 == 0 ? std::nullopt : std::optional(0.75),
                               .unbiased = a % 2 == 0,
                               .frozen = b % 5 == 0});
            break;
        case 4:
            x = sigmoid(x);
            break;
        case 5:
            x = relu(x);
            break;
        case 6:
            x = tanh(x);
            break;
        case 7:
            x = image() ? avg_pool2d(x, window(a, b)) : unary(a);
            break;
        case 8:
            x = image() ? max_pool2d(x, window(a, b)) : unary(b);
            break;
        case 9:
            x = unary(a);
            break;
        case 10:
            x = binary(a, b);
            break;
        case 11:
            x = branch(a);
            break;
        case 12:
            x = reduction(a, b);
            break;
        case 13:
            x = centred(a);
            break;
        default:
            x = rarer(gene.kind % 19, a, b);
        }
        earlier.push_back(before);
    }
};

} // namespace

Genome random_genome(uint64_t seed) {
    std::mt19937_64 random(seed * 2 + 1);
    Genome genome;
    genome.input = uint32_t(random());
    for (size_t count = 1 + random() % max_genes; count > 0; count--)
        genome.genes.push_back({uint32_t(random()), uint32_t(random()), uint32_t(random())});
    return genome;
}

std::unique_ptr<Network> grow(const Genome &genome) {
    auto net = std::make_unique<Network>("random");
    net->optimize({.learning_rate = 0.5, .momentum = 0.9, .weight_decay = 1e-2, .nesterov = genome.input % 2 == 0});
    uint32_t i = genome.input / 2;
    Shape shape = i % 4 == 0 ? Shape{1 + i / 4 % 9} : Shape{1 + i / 4 % 4, 1 + i / 16 % 9, 1 + i / 256 % 9};
    Grower grower{*net, net->input("image", shape)};
    for (const Gene &gene : genome.genes) grower.grow(gene);
    Value x = grower.image() ? flatten(grower.x) : grower.x;
    net->classify(linear(x, {.units = 3}));
    return net;
}

Genome shrink(Genome genome, const std::function<bool(const Genome &)> &fails) {
    for (bool smaller = true; smaller;) {
        smaller = false;
        for (size_t i = 0; i < genome.genes.size(); i++) {
            Genome without = genome;
            without.genes.erase(without.genes.begin() + std::ptrdiff_t(i));
            if (!fails(without)) continue;
            genome = without;
            smaller = true;
            break;
        }
    }
    for (uint32_t input : {0u, 2u, 10u, 42u, 298u}) { // [1], [1, 1, 1], then larger images
        Genome other = genome;
        other.input = input;
        if (fails(other)) return other;
    }
    return genome;
}

} // namespace cryolite::test
