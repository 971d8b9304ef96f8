// Concats and slices have no code: where their parts lie, when they are copied, and that whole models with several
// blocks and a ragged one read what was written (differential.h: passes, kernels, plan and runtime).
#include "differential.h"
#include "fixture.h"
#include "views.h"

#include <gtest/gtest.h>

using namespace cryolite;
using namespace cryolite::test;

namespace {

Value conv(Value x, int channels) { return conv2d(x, {.channels = channels, .window = 3, .padding = 1}); }
void finish(Network &net, Value x) { net.classify(linear(flatten(x), {.units = 3})); }

// As in DenseNet: each concat begins with the one before.
void nested(Network &net) {
    Value x = conv(net.input("image", {2, 5, 4}), 3);
    for (int channels : {2, 1, 2}) x = concat({x, conv(relu(batch_norm(x)), channels)});
    finish(net, x);
}
// The same, written as torchvision does: a list of all parts so far.
void listed(Network &net) {
    std::vector<Value> parts = {conv(net.input("image", {2, 5, 4}), 3)};
    for (int channels : {2, 1, 2}) parts.push_back(conv(relu(batch_norm(concat(parts))), channels));
    finish(net, concat(parts));
}
// As in GoogLeNet: branches of one value, twice.
void branches(Network &net) {
    Value x = net.input("image", {2, 6, 6});
    for (int i = 0; i < 2; i++) {
        Value a = relu(batch_norm(conv(x, 2))), b = sigmoid(conv(x, 1));
        x = concat({a, max_pool2d(x, {.window = 3, .stride = 1, .padding = 1}), b});
    }
    finish(net, x);
}
// A value in two concats that are no prefixes of each other, and twice in one: copies.
void shared(Network &net) {
    Value x = net.input("image", {2, 4, 4}), a = conv(x, 2), b = conv(x, 1);
    finish(net, concat({a, b, a}) + concat({b, a, conv(x, 2)}));
}
// The images are a part, too.
void with_input(Network &net) {
    Value x = net.input("image", {2, 4, 4});
    finish(net, batch_norm(concat({x, tanh(conv(x, 2)), x})));
}
// [n, c]: gradients of linear layers, over all blocks at once, are slices.
void features(Network &net) {
    Value x = flatten(net.input("image", {1, 3, 3}));
    Value a = linear(x, {.units = 5}), b = relu(linear(x, {.units = 3})), c = linear(concat({a, b}), {.units = 4});
    net.classify(linear(concat({a, c, b}), {.units = 3}));
}

struct Subject {
    const char *name;
    Define define;
    int copies; // in train
};
const Subject subjects[] = {{"nested", nested, 0}, {"listed", listed, 0},         {"branches", branches, 0},
                            {"shared", shared, 3}, {"with_input", with_input, 1}, {"features", features, 2}};

class Concat : public testing::TestWithParam<Subject> {};

TEST_P(Concat, CopiesOnlyWhatLiesElsewhere) {
    auto network = build(GetParam().define);
    int copies = -1;
    size_t before = 0;
    run_pipeline(network->graph(), {Mode::train, {}, {8, 64}}, [&](const std::string &pass, const Graph &graph) {
        if (pass == "place_concats") copies = int(graph.nodes.size() - before);
        before = graph.nodes.size();
    });
    EXPECT_EQ(copies, GetParam().copies);
}

TEST_P(Concat, PartsLieInside) {
    auto network = build(GetParam().define);
    Graph graph = run_pipeline(network->graph(), {Mode::train, {}, {8, 64}});
    std::vector<View> views = find_views(graph);
    int parts = 0;
    for (const Node &node : graph.nodes) {
        if (node.op->place != Place::around) continue;
        View whole = views[size_t(node.outputs[0])];
        int64_t at = whole.first;
        for (ValueId v : node.inputs) {
            EXPECT_EQ(views[size_t(v)].root, whole.root);
            EXPECT_EQ(views[size_t(v)].first, at);
            at += graph.shape(v).elements();
            parts++;
        }
    }
    EXPECT_GE(parts, 3);
}

TEST_P(Concat, EveryWayOfComputingAgrees) {
    for (uint64_t data : {1, 2, 3, 4}) {
        Verdict verdict = compare(*build(GetParam().define), {.data = data});
        EXPECT_EQ(verdict.kind, Verdict::agrees) << verdict.blame << ": " << verdict.detail;
    }
}

INSTANTIATE_TEST_SUITE_P(Networks, Concat, testing::ValuesIn(subjects),
                         [](const auto &info) { return std::string(info.param.name); });

} // namespace
