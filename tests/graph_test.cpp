// The graph: its text form in both directions, what the parser and the verifier refuse, and who is blamed.
#include "compile.h"
#include "passes.h"

#include "examples/lenet.cpp"
#include "examples/lenet_plain.cpp"
#include "examples/lenet_scratch.cpp"
#include "examples/mlp.cpp"

#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <random>

using namespace cryolite;

namespace {

const char *const small = R"(graph small {
  %0 : f32[n,4] = input() {name="image", shape=[-1, 4]}  # image net.cpp:3
  %1 : f32[2,4] = parameter() {init="uniform", name="0.weight", shape=[2, 4], value=0.5}  # 0 net.cpp:4
  %2 : f32[1,2] = state() {init="constant", name="mean", role="state", shape=[1, 2], value=0.0}
  %3 : f32[n,2] = linear(%0, %1)  # 0 net.cpp:4
  %4 : f32[1,2] = mean(%3) {axes=[0]}  # "" net.cpp:5
  assign(%2, %4)  # mean net.cpp:6
  %5 : i32[n] = label()  # loss
  %6, %7, %8 : f32[n], f32[n], f32[n,2] = softmax_cross_entropy(%3, %5)  # loss "a file.cpp:7"
  %9 : f32[1] = sum(%7) {axes=[0]}
  output(%9) {name="correct"}
}
)";

void expect_same(const Graph &a, const Graph &b) {
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.values, b.values);
    EXPECT_EQ(a.producers, b.producers);
    ASSERT_EQ(a.nodes.size(), b.nodes.size());
    for (size_t i = 0; i < a.nodes.size(); ++i) {
        const Node &left = a.nodes[i], &right = b.nodes[i];
        EXPECT_EQ(left.op, right.op);
        EXPECT_EQ(left.inputs, right.inputs);
        EXPECT_EQ(left.outputs, right.outputs);
        EXPECT_EQ(left.attrs, right.attrs) << print(a, left) << "\n" << print(b, right);
        EXPECT_EQ(left.layer, right.layer);
        EXPECT_EQ(left.source, right.source);
    }
}

TEST(Text, PrintsWhatItParsed) {
    EXPECT_EQ(print(parse(small)), small);
    expect_same(parse(small), parse(print(parse(small))));
}

TEST(Text, ExamplesSurvive) {
    ASSERT_GE(registered_networks().size(), 4u);
    for (const NetworkEntry &entry : registered_networks()) {
        const Graph graph = entry.build()->graph();
        const std::string text = print(graph);
        expect_same(graph, parse(text));
        EXPECT_EQ(print(parse(text)), text);
    }
}

TEST(Text, TakesOtherSpacingAndNames) {
    const Graph graph =
        parse("\n# a comment\r\n  graph \"a graph\"{\n%x:f32[ n , 4 ]=input( ){shape=[-1,4],name=\"image\"}\r\n\n"
              "\t%y.1 : f32[n,4] = relu( %x ) # 1\n # done\n}\n\n");
    EXPECT_EQ(print(graph), "graph \"a graph\" {\n"
                            "  %0 : f32[n,4] = input() {name=\"image\", shape=[-1, 4]}\n"
                            "  %1 : f32[n,4] = relu(%0)  # 1\n}\n");
}

TEST(Text, EveryKindOfAttribute) {
    Graph graph;
    graph.name = "attrs";
    graph.add1("batch_size", {},
               {{"bool", true},
                {"empty", std::vector<int64_t>{}},
                {"int", std::numeric_limits<int64_t>::min()},
                {"list", std::vector<int64_t>{-2, 0, 9}},
                {"one", 1.0},
                {"text", std::string("a \"quoted\" \\ line\nand \t \x01 \x7f caf\xc3\xa9 # }")}},
               "a layer", "");
    expect_same(graph, parse(print(graph)));
    EXPECT_NE(print(graph).find("{bool=true, empty=[], int=-9223372036854775808, list=[-2, 0, 9], one=1.0, "),
              std::string::npos)
        << print(graph);
}

TEST(Text, RealNumbersKeepTheirBits) {
    std::vector<double> numbers = {0.0,
                                   -0.0,
                                   0.1,
                                   1e300,
                                   1e-300,
                                   5e-324,
                                   1e22,
                                   123456789.0,
                                   std::numeric_limits<double>::max(),
                                   std::numeric_limits<double>::infinity(),
                                   -std::numeric_limits<double>::infinity(),
                                   std::numeric_limits<double>::quiet_NaN(),
                                   -std::numeric_limits<double>::quiet_NaN()};
    std::mt19937_64 random(7);
    while (numbers.size() < 2000) {
        const uint64_t bits = random();
        double number;
        std::memcpy(&number, &bits, sizeof(number));
        if (number == number) numbers.push_back(number);
    }
    for (double number : numbers) {
        Graph graph;
        graph.name = "bits";
        graph.add1("batch_size", {}, {{"x", number}});
        const double back = parse(print(graph)).nodes[0].attrs.number("x");
        EXPECT_EQ(std::memcmp(&back, &number, sizeof(back)), 0) << print(graph);
    }
}

std::string parse_error(const std::string &text) {
    try {
        parse(text);
    } catch (const CompileError &error) { return error.what(); }
    return "nothing";
}

TEST(Text, ErrorsOfALine) {
    const std::pair<const char *, const char *> cases[] = {
        {"%1 : f32[n,4] = rulu(%0)", "line 3: there is no op 'rulu'"},
        {"%1 : f32[n,4] = relu(%7)", "line 3: value %7 is not known here"},
        {"%0 : f32[n,4] = relu(%0)", "line 3: value %0 is made twice"},
        {"%1 : f32[n,5] = relu(%0)", "line 3: %1 is f32[n,4], not f32[n,5]"},
        {"%1 : i32[n,4] = relu(%0)", "line 3: %1 is f32[n,4], not i32[n,4]"},
        {"%1 : f64[n,4] = relu(%0)", "line 3: 'f64' is no type: f32, i32"},
        {"%1 : f32[n,x] = relu(%0)", "line 3: 'x' is not an integer"},
        {"%1 : f32[n,4] relu(%0)", "line 3: expected '=' before 'relu(%0)'"},
        {"%1 = relu(%0)", "line 3: expected ':' before '= relu(%0)'"},
        {"%1, %2 : f32[n,4] = relu(%0)", "line 3: relu has 1 results, with as many names and types"},
        {"relu(%0)", "line 3: relu has 1 results, with as many names and types"},
        {"%1 : f32[n,4] = relu(%0", "line 3: expected ')' at the end of the line"},
        {"%1 : f32[n,4] = relu(%0) {a=", "line 3: expected a value at the end of the line"},
        {"%1 : f32[n,4] = relu(%0) {a=1, a=2}", "line 3: attribute 'a' is given twice"},
        {"%1 : f32[n,4] = relu(%0) {a=1x}", "line 3: '1x' is not a value"},
        {"%1 : f32[n,4] = relu(%0) {a=99999999999999999999}", ""}, // a real number then
        {"%1 : f32[n,4] = relu(%0) {a=1e999}", "line 3: '1e999' is not a value"},
        {"%1 : f32[n,4] = relu(%0) {a=\"open}", "line 3: a string has no end"},
        {"%1 : f32[n,4] = relu(%0) {a=\"\\q\"}", "line 3: unknown escape in a string"},
        {"%1 : f32[n,4] = relu(%0) {a=\"\\xg0\"}", "line 3: unknown escape in a string"},
        {"%1 : f32[n,4] = relu(%0) # 1 net.cpp:2 more", "line 3: unexpected text before 'more'"},
        {"%1 : f32[n,4] = relu(%0) extra", "line 3: unexpected text before 'extra'"},
        {"%1 : f32[n,4] = relu(%0, %0)", "line 3: relu: has 2 inputs, takes 1"},
    };
    for (auto &[line, message] : cases) {
        const std::string text =
            std::string("graph g {\n%0 : f32[n,4] = input() {name=\"image\", shape=[-1, 4]}\n") + line + "\n}\n";
        EXPECT_EQ(parse_error(text), *message ? message : "nothing") << line;
    }
    // An attribute that the op needs, and a rule of the whole graph.
    EXPECT_EQ(parse_error("graph g {\n%0 : f32[n,4] = input()\n}").rfind("line 2: ", 0), 0u);
    EXPECT_NE(parse_error("graph g {\n%0 : i32[n] = label()\n%1 : i32[n] = label()\n}").find("a second label"),
              std::string::npos);
}

TEST(Text, ErrorsOfTheFrame) {
    EXPECT_EQ(parse_error(""), "line 0: expected a graph");
    EXPECT_EQ(parse_error("grph g {\n}"), "line 1: expected 'graph'");
    EXPECT_EQ(parse_error("graph g\n}"), "line 1: expected '{' at the end of the line");
    EXPECT_EQ(parse_error("graph g {\n"), "line 1: the graph has no '}'");
    EXPECT_EQ(parse_error("graph g {\n} x\n"), "line 2: unexpected text after the graph");
    EXPECT_EQ(parse_error("graph g {\n}\ngraph h {\n}\n"), "line 3: unexpected text after the graph");
}

TEST(Text, TruncatedTextIsRefused) {
    const std::string text = small;
    for (size_t length = 0; length + 2 < text.size(); ++length)
        EXPECT_NE(parse_error(text.substr(0, length)), "nothing");
}

TEST(Text, MutatedTextIsReadOrRefused) {
    std::mt19937 random(11);
    auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
    std::vector<std::string> texts = {small};
    for (const NetworkEntry &entry : registered_networks()) texts.push_back(print(entry.build()->graph()));
    const std::string bytes = "0129-%\"{}[](),=#:.ebn \n\\\xff";
    int refused = 0;
    for (int i = 0; i < 1500; ++i) {
        std::string text = texts[below(texts.size())];
        for (size_t n = 1 + below(2); n > 0; --n) text[below(text.size())] = bytes[below(bytes.size())];
        try {
            const std::string printed = print(parse(text));
            EXPECT_EQ(print(parse(printed)), printed);
        } catch (const CompileError &error) { // and no other exception
            EXPECT_EQ(std::string(error.what()).rfind("line ", 0), 0u) << error.what();
            ++refused;
        }
    }
    EXPECT_GT(refused, 500);
}

// The verifier's message about `small` after a change.
std::string broken(const std::function<void(Graph &)> &change) {
    Graph graph = parse(small);
    change(graph);
    try {
        verify(graph, "oops");
    } catch (const InternalError &error) {
        const std::string text = error.what();
        EXPECT_EQ(text.rfind("pass 'oops' broke the graph 'small': ", 0), 0u) << text;
        return text;
    }
    return "nothing";
}

TEST(Verify, AcceptsWholeGraphs) {
    EXPECT_EQ(broken([](Graph &) {}), "nothing");
    for (const NetworkEntry &entry : registered_networks()) EXPECT_NO_THROW(verify(entry.build()->graph(), "network"));
}

TEST(Verify, CatchesEveryBrokenRule) {
    auto expect = [](const char *part, const std::function<void(Graph &)> &change) {
        const std::string text = broken(change);
        EXPECT_NE(text.find(part), std::string::npos) << text;
    };
    expect("value %3 is read before it is made", [](Graph &g) { std::swap(g.nodes[3], g.nodes[4]); });
    expect("value %99 is read before it is made", [](Graph &g) { g.nodes[3].inputs[0] = 99; });
    expect("value %-1 is read before it is made", [](Graph &g) { g.nodes[3].inputs[0] = no_value; });
    expect("value %2 is made twice", [](Graph &g) { g.nodes[3].outputs[0] = 2; });
    expect("value %1 is out of order, %0 is next", [](Graph &g) { g.nodes.erase(g.nodes.begin()); });
    expect("value %9 has no type", [](Graph &g) { g.values.pop_back(), g.producers.pop_back(); });
    expect("names another producer", [](Graph &g) { g.producers[3] = 1; });
    expect("as many producers as values", [](Graph &g) { g.producers.pop_back(); });
    expect("value %10 is made by no node", [](Graph &g) { g.values.push_back({}), g.producers.push_back(0); });
    expect("should have shape [n, 2]", [](Graph &g) { g.values[3].shape.dims[1] = 3; });
    expect("should have shape [n, 2]", [](Graph &g) { g.values[3].type = Type::i32; });
    expect("the op has 3 results", [](Graph &g) {
        g.nodes[7].outputs.pop_back(), g.nodes.resize(8), g.values.resize(8), g.producers.resize(8);
    });
    expect("a node has no op, in: %3 : f32[n,2] = ?(%0, %1)", [](Graph &g) { g.nodes[3].op = nullptr; });
    expect("wrong number of inputs", [](Graph &g) { g.nodes[3].inputs.resize(1); });
    expect("'axes' is missing, in: %4", [](Graph &g) { g.nodes[4].attrs.map.clear(); });
    expect("net.cpp:4", [](Graph &g) { g.nodes[1].attrs.map["shape"] = std::vector<int64_t>{2, 5}; });
    expect("assign to a value of op linear", [](Graph &g) { g.nodes[5].inputs = {3, 3}; });
    expect("assign", [](Graph &g) { g.nodes[5].inputs = {2, 3}; }); // of another shape
    expect("a second assign to %2", [](Graph &g) { g.add("assign", {2, 2}); });
    expect("a second output of this name", [](Graph &g) { g.add("output", {9}, {{"name", std::string("correct")}}); });
    expect("a second label", [](Graph &g) { g.add("label", {}); });
    expect("a second input", [](Graph &g) { g.add("input", {}, g.nodes[0].attrs); });
    expect("a second value of this name", [](Graph &g) { g.add("parameter", {}, g.nodes[1].attrs); });
    expect("a second value of this name", [](Graph &g) {
        Attrs attrs = g.nodes[2].attrs;
        attrs.map["name"] = std::string("0.weight");
        g.add("state", {}, attrs);
    });
    expect("gradient", [](Graph &g) { g.add("gradient", {2, 2}); }); // of a state
}

TEST(Graph, AddRefusesWhatIsNotThere) {
    Graph graph = parse(small);
    EXPECT_EQ(graph.use_counts()[3], 2);
    EXPECT_THROW(graph.add("rulu", {0}), InternalError);
    EXPECT_THROW(graph.add("relu", {10}), InternalError);
    EXPECT_THROW(graph.add("relu", {no_value}), InternalError);
    EXPECT_THROW(graph.add("relu", {}), CompileError);
    EXPECT_THROW(graph.add1("softmax_cross_entropy", {3, 5}), InternalError);
}

TEST(Graph, ShapesStayWhileNodesAreAdded) {
    Graph graph = parse(small);
    const Shape &shape = graph.shape(3);
    const Node &node = graph.producer(3);
    for (int i = 0; i < 1000; ++i) graph.add("relu", {3});
    EXPECT_EQ(&shape, &graph.shape(3));
    EXPECT_EQ(&node, &graph.producer(3));
}

TEST(Graph, RewriterMapsValues) {
    const Graph graph = parse(small);
    Rewriter rewriter(graph);
    for (const Node &node : graph.nodes) {
        rewriter.copy(node);
        if (node.op == find_op("linear")) rewriter.bind(3, rewriter.to.add1("relu", {rewriter.map[3]}, {}, "0"));
    }
    EXPECT_NO_THROW(verify(rewriter.to, "test"));
    EXPECT_EQ(rewriter.to.nodes.size(), graph.nodes.size() + 1);
    EXPECT_EQ(rewriter.to.nodes[5].inputs, std::vector<ValueId>{4}); // mean reads relu now
    Rewriter dropping(graph);
    EXPECT_THROW(dropping.copy(graph.nodes[3]), InternalError);
}

TEST(Shapes, ElementsAndText) {
    EXPECT_EQ((Shape{Shape::batch, 6, 2}.elements()), 12);
    EXPECT_EQ((Shape{Shape::blocks, 6}.text()), "[b, 6]");
    EXPECT_EQ(Shape{}.elements(), 1);
    EXPECT_EQ(Shape{}.text(), "[]");
    const int64_t large = int64_t(1) << 40;
    EXPECT_EQ((Shape{large, large}.elements()), std::numeric_limits<int64_t>::max());
    EXPECT_EQ((Shape{Shape::batch, 6, 24, 24}.reduced({0, 2, 3})), (Shape{1, 6, 1, 1}));
    EXPECT_THROW((Shape{2, 3}.reduced({2})), CompileError);
}

TEST(Pipeline, ListsAndBlame) {
    auto names = [](Mode mode) {
        std::string text;
        for (const Pass &pass : pipeline(mode)) text += std::string(pass.name) + " ";
        return text;
    };
    const std::string tail = "lower simplify_lowered mask_padding place_concats fuse ";
    EXPECT_EQ(names(Mode::train), "select_mode differentiate apply_optimizer simplify " + tail + "rematerialize ");
    EXPECT_EQ(names(Mode::evaluate), "select_mode simplify fold_channels " + tail + "append_programs ");
    EXPECT_EQ(names(Mode::infer), "select_mode simplify fold_channels " + tail + "append_programs ");

    // A broken network is blamed on the network, before any pass.
    Graph graph = parse(small);
    graph.values[3].shape.dims[1] = 3;
    try {
        run_pipeline(graph, {Mode::train, {}, {16, 256}});
        FAIL();
    } catch (const InternalError &error) { EXPECT_EQ(std::string(error.what()).rfind("pass 'network' ", 0), 0u); }
}

TEST(Pipeline, TextSurvivesEveryPass) {
    for (const NetworkEntry &entry : registered_networks())
        for (Mode mode : {Mode::train, Mode::evaluate, Mode::infer}) {
            auto network = entry.build();
            size_t passes = 0;
            run_pipeline(network->graph(), {mode, network->optimizer(), {16, 256}},
                         [&](const char *pass, const Graph &graph) {
                             ++passes;
                             EXPECT_EQ(print(parse(print(graph))), print(graph)) << entry.name << " after " << pass;
                         });
            EXPECT_EQ(passes, pipeline(mode).size());
        }
}

} // namespace
