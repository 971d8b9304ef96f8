// The pointwise generators against a float64 interpreter: every op, shape edges, windows, sums, ragged blocks, special
// numbers, accuracy in ulp, uniform numbers, and the error text of malformed programs. Kernels are compiled as shipped.
#include "pointwise_reference.h"

#include "Halide.h"
#include "HalideBuffer.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

namespace cryolite::testing {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

// The kernel's outputs must equal the interpreter's to a relative error, with `scale` the size of summed terms.
void expect_equal(const std::vector<Tensor> &actual, const std::vector<Tensor> &expected, double tolerance) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t k = 0; k < actual.size(); k++) {
        ASSERT_EQ(actual[k].dims, expected[k].dims);
        double largest = 1e-3;
        for (double e : expected[k].data) largest = std::isfinite(e) ? std::max(largest, std::fabs(e)) : largest;
        for (size_t i = 0; i < actual[k].data.size(); i++) {
            const double a = actual[k].data[i], e = expected[k].data[i];
            if (std::isnan(e) ? std::isnan(a) : std::isinf(e) ? a == e : std::fabs(a - e) <= tolerance * largest)
                continue;
            FAIL() << "output " << k << " element " << i << ": " << a << " instead of " << e;
        }
    }
}

struct Options {
    int lanes = 0, blocks = 1, valid = -1; // lanes 0: the host's vector
    double low = -2, high = 2, tolerance = 3e-6;
    std::string target = "host";
};

int host_lanes() { return Halide::get_host_target().natural_vector_size<float>(); }

std::map<std::string, std::string> parameters(const std::string &program, int lanes, int blocks) {
    return {{"program", program}, {"lanes", std::to_string(lanes)}, {"n", std::to_string(lanes * blocks)}};
}

void check(const std::string &text, Options o = {}) {
    SCOPED_TRACE(text);
    const int lanes = o.lanes ? o.lanes : host_lanes();
    const Program program = parse_program(text);
    ProgramCall call = random_call(program, lanes * o.blocks, o.low, o.high);
    if (o.valid >= 0) call.valid = o.valid;
    const LoadedKernel kernel("pointwise", parameters(text, lanes, o.blocks), o.target);
    expect_equal(run_kernel(kernel, program, call, lanes), interpret(program, call), o.tolerance);
}

std::string dims(const char *n, int c, int h, int w) {
    return std::string("[") + n + "," + std::to_string(c) + "," + std::to_string(h) + "," + std::to_string(w) + "]";
}

const char *const bn_sigmoid = "a = mul(x, scale); b = add(a, shift); s = sigmoid(b);";

std::string channel_inputs(const std::string &shape) {
    std::string text;
    for (const char *name : {"scale", "shift", "mean", "invstd", "ca", "cb"})
        text += std::string(name) + " = input " + shape + ";";
    return text;
}

TEST(Pointwise, UnaryOps) {
    for (const char *op : {"neg", "exp", "square", "abs", "sigmoid", "relu", "tanh"})
        check("x = input [n,3]; y = " + std::string(op) + "(x); output y;", {.low = -9, .high = 9});
    for (const char *op : {"log", "sqrt", "rsqrt", "reciprocal"})
        check("x = input [n,3,2,5]; y = " + std::string(op) + "(x); output y;", {.low = 1e-3, .high = 9});
}

TEST(Pointwise, BinaryOpsBroadcast) {
    for (const char *op : {"add", "sub", "mul", "div", "max", "min", "relu_grad", "greater_equal"}) {
        const std::string f = op;
        check("x = input [n,3,2,5]; z = input [1,3,1,1]; s = input []; a = " + f + "(x, z); b = " + f +
              "(x, s); c = " + f + "(x, 0.5); output a; output b; output c;");
        check("x = input [n,1,4,1]; z = input [n,3,1,5]; a = " + f + "(x, z); output a;", {.blocks = 2});
    }
}

TEST(Pointwise, LanesAndTargets) {
    const std::string text = "x = input [n,2,6,6]; dy = input [n,2,3,3];" + channel_inputs("[1,2,1,1]") + bn_sigmoid +
                             "u = avg_pool2d_grad(dy){window=2,stride=2,padding=0,h=6,w=6}; g = mul(u, s);"
                             "s0 = sum(g){axes=0,2,3}; gx = mul(g, x); s1 = sum(gx){axes=0,2,3}; output s0; output s1;";
    for (int lanes : {4, 8, 16}) {
        check(text, {.lanes = lanes, .blocks = 3});
        check("x = input [n,2,6,6]; y = max_pool2d(x){window=3,stride=2,padding=1}; output y;", {.lanes = lanes});
    }
    check(text, {.lanes = 8, .target = "x86-64-linux-avx-avx2-fma-f16c-sse41"});
    check(text, {.lanes = 4, .target = "x86-64-linux-sse41"});
}

TEST(Pointwise, Windows) {
    struct Case {
        int h, w, window, stride, padding;
    };
    for (Case c : {Case{4, 6, 2, 2, 0},
                   {5, 7, 2, 2, 0},
                   {7, 5, 3, 2, 0},
                   {8, 8, 3, 2, 1},
                   {7, 7, 2, 3, 0},
                   {6, 6, 6, 6, 0},
                   {5, 5, 3, 1, 1},
                   {13, 11, 2, 2, 1},
                   {1, 1, 1, 1, 0},
                   {9, 9, 3, 3, 0}}) {
        const std::string at = "{window=" + std::to_string(c.window) + ",stride=" + std::to_string(c.stride) +
                               ",padding=" + std::to_string(c.padding);
        const int ph = pooled_extent(c.h, c.window, c.stride, c.padding),
                  pw = pooled_extent(c.w, c.window, c.stride, c.padding);
        const std::string x = "x = input " + dims("n", 2, c.h, c.w), dy = "dy = input " + dims("n", 2, ph, pw);
        for (const char *op : {"avg_pool2d", "max_pool2d"})
            check(x + "; t = mul(x, 2); y = " + op + "(t)" + at + "}; output y;", {.blocks = 2});
        check(dy + "; y = avg_pool2d_grad(dy)" + at + ",h=" + std::to_string(c.h) + ",w=" + std::to_string(c.w) +
              "}; output y;");
        const std::string to = at + ",h=" + std::to_string(c.h) + ",w=" + std::to_string(c.w) + "}";
        check(x + "; t = add(x, 1); y = max_pool2d(t)" + at + "}; k = max_pool2d_winner(t)" + at +
              "}; output y; output k;");
        // Winners of the same kernel, and stored ones (here: any positions).
        check(x + ";" + dy + "; k = max_pool2d_winner(x)" + at + "}; dx = max_pool2d_route(dy, k)" + to +
              "; output dx;");
        check(dy + "; t = mul(dy, 2); p = greater_equal(t, 0); dx = max_pool2d_route(t, p)" + to + "; output dx;");
        check("v = input valid;" + dy + "; t = mul(dy, 2); p = greater_equal(t, 0); dx = max_pool2d_route(t, p)" + to +
              "; m = mask(dx, v); q = sum(m){axes=0,2,3}; output q;");
    }
    // A sum of differences, whose loops Halide does not turn round.
    for (const char *axes : {"2,3", "0,2,3"})
        check(std::string("dy = input [n,1,4,1]; k = input [n,1,4,1]; t = max_pool2d_route(dy, k)"
                          "{window=3,stride=2,padding=0,h=9,w=3}; m = neg(t); q = sum(m){axes=") +
              axes + "}; output q;");
    // A chain of pools, and pools of pools' gradients.
    check("x = input [n,2,9,9]; a = max_pool2d(x){window=3,stride=2,padding=1}; b = avg_pool2d(a){window=2,stride=1,"
          "padding=0}; c = sigmoid(b); output c;");
}

TEST(Pointwise, MaxPoolGradientGoesToTheFirstOfEqualElements) {
    for (int window : {2, 6}) {
        const std::string size = std::to_string(window);
        check("dy = input [n,1,1,1]; z = input [n,1,1,1]; x = broadcast(z){shape=nx1x" + size + "x" + size +
              "}; k = max_pool2d_winner(x){window=" + size +
              ",stride=1,padding=0}; dx = max_pool2d_route(dy, k){window=" + size + ",stride=1,padding=0,h=" + size +
              ",w=" + size + "}; output dx;");
    }
}

TEST(Pointwise, HotProgramsOfBatchNormWithPooling) {
    for (auto [h, w] : {std::pair(24, 24), {10, 6}, {7, 5}}) {
        const std::string x = "x = input " + dims("n", 6, h, w) + ";", channels = channel_inputs("[1,6,1,1]");
        const std::string dy = "dy = input " + dims("n", 6, h / 2, w / 2) + ";";
        const std::string gradient = "u = avg_pool2d_grad(dy){window=2,stride=2,padding=0,h=" + std::to_string(h) +
                                     ",w=" + std::to_string(w) + "}; q = sub(1.0, s); p = mul(s, q); g = mul(u, p);" +
                                     "d = sub(x, mean); xh = mul(d, invstd);";
        check(x + channels + bn_sigmoid + "y = avg_pool2d(s){window=2,stride=2,padding=0}; output y;");
        check(x + dy + channels + bn_sigmoid + gradient +
              "t = mul(g, xh); s0 = sum(g){axes=0,2,3}; s1 = sum(t){axes=0,2,3}; output s0; output s1;");
        check(
            x + dy + channels + "v = input valid;" + bn_sigmoid + gradient +
                "a1 = sub(g, ca); a2 = mul(xh, cb); a3 = sub(a1, a2); a4 = mul(a3, scale); o = mask(a4, v); output o;",
            {.valid = 3});
    }
}

TEST(Pointwise, HotProgramsOfFeatures) {
    for (const char *activation : {"sigmoid", "relu"})
        for (int c : {1, 10, 16, 84, 120}) {
            const std::string shape = std::to_string(c) + "];",
                              head = "x = input [n," + shape + "dy = input [n," + shape;
            const std::string f = activation, channels = channel_inputs("[1," + std::to_string(c) + "]");
            const std::string gradient =
                "a = mul(x, scale); b = add(a, shift); s = " + f + "(b); d = sub(x, mean); xh = mul(d, invstd);" +
                (f == "relu" ? "g = relu_grad(dy, b);" : "q = sub(1.0, s); p = mul(s, q); g = mul(dy, p);");
            check(head + channels + gradient +
                  "t = mul(g, xh); s0 = sum(g){axes=0}; s1 = sum(t){axes=0}; output s0; output s1;");
            check(head + channels + gradient +
                      "a1 = sub(g, ca); a2 = mul(xh, cb); o = sub(a1, a2); output o; output s;",
                  {.blocks = 2});
        }
}

TEST(Pointwise, SumsOverAnyAxes) {
    for (const char *axes : {"0", "1", "2", "3", "2,3", "0,2,3", "1,2,3", "0,1", "0,1,2,3"})
        for (int blocks : {1, 2})
            check("x = input [n,3,5,4]; v = input valid; y = square(x); m = mask(y, v); z = sum(m){axes=" +
                      std::string(axes) + "}; output z;",
                  {.blocks = blocks, .valid = host_lanes() * blocks - 1});
    // A value and sums of it, with different axes, in one kernel.
    check(
        "x = input [n,3,5,4]; g = exp(x); s0 = sum(g){axes=0,2,3}; output s0; output g; s1 = sum(g){axes=1}; output s1;"
        "h = mul(g, x); output h;");
    check("x = input [n]; y = sigmoid(x); s = sum(y){axes=0}; output s;", {.blocks = 2});
}

TEST(Pointwise, WholePrograms) {
    for (const char *shape : {"[]", "[1]", "[7]", "[1000003]", "[6,1,5,5]", "[1,6,1,1]", "[33,17]", "[120,256]"})
        check("w = input " + std::string(shape) + "; g = input " + shape +
              "; r = input []; m = mul(g, r); y = sub(w, m);"
              "z = mul(0.9, w); output y; output z;");
    check("m = input [1,6,1,1]; w = input [3,6,5,2]; k = input [3,1,1,1]; a = mul(w, m); y = sub(a, k); output y;");
    for (const char *axes : {"0", "1", "2", "3", "0,1", "0,2", "1,3", "2,3", "0,1,2,3"})
        check("w = input [3,6,5,37]; y = square(w); s = sum(y){axes=" + std::string(axes) +
              "}; t = sum(w){axes=" + axes + "}; output s; output t;");
    for (const char *shape : {"[1]", "[5]", "[64]", "[100003]"})
        check("w = input " + std::string(shape) + "; s = sum(w){axes=0}; output s;", {.tolerance = 2e-5});
    check("w = input [64,48]; s = sum(w){axes=0}; output s; output w;");
}

// What PyTorch gives. Denormals may be flushed, so a result below 1.2e-38 may be 0.
TEST(Pointwise, SpecialNumbers) {
    const std::vector<double> numbers{nan, inf, -inf, -0.0, 0.0, 1e-40f, -1e-40f, 3e38f, -3e38f, 88.9f, -88.9f, 1.0};
    const char *const unary[] = {"neg", "exp",        "log",     "sqrt", "rsqrt", "square",
                                 "abs", "reciprocal", "sigmoid", "relu", "tanh"};
    const char *const binary[] = {"add", "sub", "mul", "div", "max", "min", "relu_grad", "greater_equal"};
    std::string text = "x = input [n,12]; z = input [n,12];";
    for (const char *op : unary) text += std::string("u") + op + " = " + op + "(x); output u" + op + ";";
    for (const char *op : binary) text += std::string("b") + op + " = " + op + "(x, z); output b" + op + ";";
    text += "same = sub(x, x); output same; nothing = mul(x, 0); output nothing; r = max(x, 0); output r;";
    const Program program = parse_program(text);
    const int lanes = 16;
    ProgramCall call = random_call(program, lanes);
    for (int l = 0; l < lanes; l++)
        for (size_t i = 0; i < numbers.size(); i++) {
            call.inputs["x"].data[l * 12 + i] = numbers[i];
            call.inputs["z"].data[l * 12 + i] = numbers[(i + l) % numbers.size()];
        }
    const LoadedKernel kernel("pointwise", parameters(text, lanes, 1));
    const auto actual = run_kernel(kernel, program, call, lanes), expected = interpret(program, call);
    for (size_t k = 0; k < expected.size(); k++)
        for (size_t i = 0; i < expected[k].data.size(); i++) {
            const std::string &op = program.statements[program.outputs[k]].op;
            const double x = call.inputs["x"].data[i], z = call.inputs["z"].data[i], a = actual[k].data[i];
            double e = static_cast<float>(expected[k].data[i]);
            const bool denormal_operand = (x != 0 && std::fabs(x) < 1e-39) || (z != 0 && std::fabs(z) < 1e-39);
            if (denormal_operand && (std::fabs(e) > 1e37 || e == 0 || e == 1 || std::isnan(e) || std::isinf(e))) {
                EXPECT_EQ(std::isnan(a), std::isnan(e)) << op << "(" << x << ", " << z << ") = " << a;
                continue; // depends on whether the operand is flushed
            }
            if (std::isnan(e))
                EXPECT_TRUE(std::isnan(a)) << op << "(" << x << ", " << z << ") = " << a;
            else if (std::isinf(e))
                EXPECT_EQ(a, e) << op << "(" << x << ", " << z << ")";
            else
                EXPECT_NEAR(a, e, std::fabs(e) * 1e-6 + 1.2e-38) << op << "(" << x << ", " << z << ")";
        }
}

TEST(Pointwise, NanInAWindow) {
    for (const char *op : {"max_pool2d", "avg_pool2d"})
        for (int window : {2, 6})
            for (int place = 0; place < 36; place += 5) {
                const std::string at =
                    "{window=" + std::to_string(window) + ",stride=" + std::to_string(window) + ",padding=0}";
                static std::map<std::string, std::unique_ptr<LoadedKernel>> kernels;
                const std::string text = std::string("x = input [n,1,6,6]; y = ") + op + "(x)" + at + "; output y;";
                auto &kernel = kernels[text];
                if (!kernel) kernel = std::make_unique<LoadedKernel>("pointwise", parameters(text, 8, 1));
                const Program program = parse_program(text);
                ProgramCall call = random_call(program, 8);
                call.inputs["x"].data[3 * 36 + place] = nan;
                call.inputs["x"].data[4 * 36 + place] = inf;
                call.inputs["x"].data[5 * 36 + place] = -inf;
                expect_equal(run_kernel(*kernel, program, call, 8), interpret(program, call), 1e-6);
            }
}

// Of overlapping windows: the maximum, where it is (the last NaN, else the first of equal ones, be they -inf), and
// where its gradient goes. At every place, so that border and corner elements, which rows repeat, are among them.
TEST(Pointwise, NanInOverlappingWindows) {
    for (const char *windows : {"{window=3,stride=2,padding=1", "{window=3,stride=2,padding=0,ceil=1",
                                "{window=3,stride=1,padding=1", "{window=2,stride=1,padding=1"}) {
        const std::string at = windows;
        const Program sizes =
            parse_program("x = input [n,1,6,6]; t = mul(x, 2); y = max_pool2d(t)" + at + "}; output y;");
        const std::string text = "x = input [n,1,6,6]; dy = input " + sizes.statements.back().shape.text() +
                                 "; t = mul(x, 2); y = max_pool2d(t)" + at + "}; k = max_pool2d_winner(t)" + at +
                                 "}; dx = max_pool2d_route(dy, k)" + at + ",h=6,w=6}; output ";
        for (const char *outputs : {"y; output k;", "k;", "y;", "dx;"}) {
            LoadedKernel kernel("pointwise", parameters(text + outputs, 8, 1));
            const Program program = parse_program(text + outputs);
            for (int place = 0; place < 36; place++) {
                ProgramCall call = random_call(program, 8);
                std::vector<double> &x = call.inputs["x"].data;
                x[size_t(3 * 36 + place)] = nan;
                x[size_t(4 * 36 + place)] = x[size_t(4 * 36 + (place + 7) % 36)] = nan;
                x[size_t(5 * 36 + place)] = inf;
                std::fill(&x[6 * 36], &x[7 * 36], -inf);
                x[size_t(6 * 36 + place)] = nan;
                std::fill(&x[7 * 36], &x[8 * 36], place % 2 ? -inf : 1.5);
                expect_equal(run_kernel(kernel, program, call, 8), interpret(program, call), 1e-6);
            }
        }
    }
}

// Largest relative error over a sweep, in units of float32 epsilon, 2^-23.
double largest_error(const std::string &op, double low, double high) {
    const int features = 4096, lanes = 16;
    const std::string text = "x = input [n," + std::to_string(features) + "]; y = " + op + "(x); output y;";
    const Program program = parse_program(text);
    static std::map<std::string, std::unique_ptr<LoadedKernel>> kernels;
    auto &kernel = kernels[text];
    if (!kernel) kernel = std::make_unique<LoadedKernel>("pointwise", parameters(text, lanes, 1));
    const ProgramCall call = random_call(program, lanes, low, high);
    const auto actual = run_kernel(*kernel, program, call, lanes), expected = interpret(program, call);
    double worst = 0;
    for (size_t i = 0; i < actual[0].data.size(); i++) {
        const double e = expected[0].data[i];
        if (std::fabs(e) < 1.2e-38) continue;
        worst = std::max(worst, std::fabs(actual[0].data[i] / e - 1) * 0x1p23);
    }
    return worst;
}

TEST(Pointwise, Accuracy) {
    for (const char *op : {"exp", "sigmoid", "tanh"}) {
        double worst = 0;
        for (auto [low, high] : {std::pair(-1.0, 1.0), {-10.0, 10.0}, {-87.0, 88.7}, {-1e-3, 1e-3}, {-1e-20, 1e-20}})
            worst = std::max(worst, largest_error(op, low, high));
        RecordProperty(op, std::to_string(worst));
        EXPECT_LE(worst, 2.0) << op;
    }
    double worst = 0;
    for (auto [low, high] : {std::pair(1e-37, 1e-3), {0.5, 1.5}, {1.0, 1e6}, {1e30, 3e38}})
        worst = std::max(worst, largest_error("log", low, high));
    RecordProperty("log", std::to_string(worst));
    EXPECT_LE(worst, 2.0) << "log";
}

TEST(Pointwise, UniformNumbers) {
    const std::string text =
        "block = input block; step = input []; u = uniform(block, step){seed=7,shape=nx8x8x8}; output u;";
    const Program program = parse_program(text);
    const LoadedKernel kernel("pointwise", parameters(text, 16, 1)), two_blocks("pointwise", parameters(text, 16, 2));
    auto numbers = [&](const LoadedKernel &k, int samples, int block, float step) {
        ProgramCall call{{{"step", {{}, {step}}}}, samples, block, samples, samples};
        return run_kernel(k, program, call, 16)[0].data;
    };
    const auto first = numbers(kernel, 16, 0, 1), again = numbers(kernel, 16, 0, 1), next = numbers(kernel, 16, 1, 1);
    EXPECT_EQ(first, again);
    // Numbers belong to the sample, not to the call it is computed in.
    const auto both = numbers(two_blocks, 32, 0, 1);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), both.begin()));
    EXPECT_TRUE(std::equal(next.begin(), next.end(), both.begin() + first.size()));
    auto moments = [](const std::vector<double> &v, const std::vector<double> &w) {
        double mean = 0, variance = 0, covariance = 0;
        for (size_t i = 0; i < v.size(); i++) {
            mean += v[i] / v.size();
            variance += (v[i] - 0.5) * (v[i] - 0.5) / v.size();
            covariance += (v[i] - 0.5) * (w[i] - 0.5) / v.size();
            EXPECT_TRUE(v[i] >= 0 && v[i] < 1);
        }
        // Five standard errors of 8192 numbers.
        EXPECT_NEAR(mean, 0.5, 0.016);
        EXPECT_NEAR(variance, 1.0 / 12, 0.0042);
        EXPECT_NEAR(covariance, 0, 0.0047);
    };
    moments(first, next);
    moments(numbers(kernel, 16, 0, 2), first);
    moments(numbers(kernel, 16, 0, 100000), first);
    std::vector<double> shifted(first.begin() + 1, first.end());
    shifted.push_back(first[0]);
    moments(first, shifted);
    std::vector<int> counts(16, 0);
    for (double u : first) counts[static_cast<int>(u * 16)]++;
    for (int count : counts) EXPECT_NEAR(count, 512, 110);
    // A dropout with keep probability 0.75.
    check("x = input [n,5]; u = input [n,5]; k = greater_equal(u, 0.25); s = mul(k, x); y = div(s, 0.75); output y;",
          {.low = 0, .high = 1});
}

TEST(Pointwise, MalformedPrograms) {
    auto message = [](const std::string &text) -> std::string {
        try {
            LoadedKernel kernel("pointwise", {{"program", text}});
        } catch (const Halide::Error &error) { return error.what(); }
        return "no error";
    };
    const std::pair<const char *, const char *> cases[] = {
        {"x = input [n,3]; y = relu(x);", "no output"},
        {"x = input [n,3]; y = relux(x); output y;", "'y = relux(x)': unknown op 'relux'"},
        {"x = input [n,3]; y = relu(z); output y;", "unknown name 'z'"},
        {"x = input [n,3]; y = add(x); output y;", "add takes 2 operands, not 1"},
        {"x = input [n,3]; x = relu(x); output x;", "'x' is defined twice"},
        {"x = input [n,3]; z = input [1,4]; y = add(x, z); output y;", "shapes [n,3] and [1,4] do not broadcast"},
        {"x = input [n,3]; z = input [3]; y = add(x, z); output y;", "ranks of [n,3] and [3] differ"},
        {"x = input [n,3]; y = relu(neg(x)); output y;", "do not nest"},
        {"x = input [n,3]; y = max_pool2d(x){window=2,stride=2,padding=0}; output y;",
         "needs a block value [n, c, h, w]"},
        {"x = input [n,1,4,4]; y = max_pool2d(x){window=5,stride=2,padding=0}; output y;", "does not fit"},
        {"x = input [n,1,4,4]; y = max_pool2d(x){window=2,stride=0,padding=0}; output y;", "stride must be at least 1"},
        {"x = input [n,1,4,4]; y = max_pool2d(x){window=2,padding=0}; output y;", "needs the attribute stride"},
        {"x = input [n,1,4,4]; y = max_pool2d(x){window=2,stride=2,padding=2}; output y;", "more than half the window"},
        {"x = input [n,1,4,4]; y = max_pool2d(x){window=2,stride=2,pad=2}; output y;", "unknown attribute 'pad'"},
        {"x = input [n,3]; y = sum(x){axes=2}; output y;", "bad axis 2"},
        {"x = input [n,3]; y = sum(x){axes=0}; z = relu(y); output z;", "a sum can only be an output"},
        {"x = input [n,3]; y = sum(x){axes=0}; output x;", "the sum 'y' is not an output"},
        {"x = input [n,3]; w = input [1,3]; y = neg(w); output y; output x;", "is a whole value in a program of block"},
        {"x = input [n,0]; output x;", "is not positive"},
        {"x = input [n,70000,70000]; output x;", "too large"},
        {"x = input [n,3]; y = mask(x, x); output y;", "is 'input valid'"},
        {"x = input [n,3]; y = mul(x, 1.5q); output y;", "neither a name nor a number"},
        {"X = input [n,3]; output X;", "'X' is not a name"},
        {"", "no output"},
    };
    for (auto [text, expected] : cases)
        EXPECT_NE(message(text).find(expected), std::string::npos) << text << "\n" << message(text);
}

TEST(Loss, SoftmaxCrossEntropyAgreesWithFloat64) {
    const int lanes = 8, valid = 5;
    for (int classes : {1, 10, 1000}) {
        SCOPED_TRACE(classes);
        const std::map<std::string, std::string> parameters{{"c", std::to_string(classes)}, {"lanes", "8"}};
        const LoadedKernel kernel("softmax_cross_entropy", parameters), softmax("softmax", parameters);
        Halide::Runtime::Buffer<float> x(lanes, classes, 1), y(lanes, classes, 1), delta(lanes, classes, 1);
        Halide::Runtime::Buffer<float> loss(lanes, 1), correct(lanes, 1);
        Halide::Runtime::Buffer<int> label(lanes, 1);
        const Tensor logits = random_tensor({classes, lanes}, 5, -30, 30);
        for (int i = 0; i < classes * lanes; i++) x.data()[i] = static_cast<float>(logits.data[i]);
        for (int l = 0; l < lanes; l++) label(l, 0) = l * 3 % classes;
        x(3, classes / 2, 0) = nan;
        int valid_argument = valid;
        void *arguments[] = {&valid_argument,   x.raw_buffer(),       label.raw_buffer(),
                             loss.raw_buffer(), correct.raw_buffer(), delta.raw_buffer()};
        kernel.call(arguments);
        void *softmax_arguments[] = {x.raw_buffer(), y.raw_buffer()};
        softmax.call(softmax_arguments);
        for (int l = 0; l < lanes; l++) {
            double largest = -inf, total = 0;
            int best = 0;
            for (int c = 0; c < classes; c++)
                if (x(l, c, 0) > largest) largest = x(l, c, 0), best = c;
            for (int c = 0; c < classes; c++) total += std::exp(x(l, c, 0) - largest);
            for (int c = 0; c < classes; c++) {
                const double p = std::exp(x(l, c, 0) - largest) / total;
                if (l == 3) {
                    EXPECT_TRUE(std::isnan(y(l, c, 0)) && std::isnan(delta(l, c, 0)));
                    continue;
                }
                EXPECT_NEAR(y(l, c, 0), p, 1e-6);
                EXPECT_NEAR(delta(l, c, 0), l < valid ? p - (c == label(l, 0)) : 0, 1e-6);
            }
            if (l == 3)
                EXPECT_TRUE(std::isnan(loss(l, 0)));
            else
                EXPECT_NEAR(loss(l, 0), l < valid ? std::log(total) + largest - x(l, label(l, 0), 0) : 0, 1e-5);
            const float hit = l < valid && best == label(l, 0) ? 1.0f : 0.0f;
            if (l != 3) { EXPECT_EQ(correct(l, 0), hit); }
        }
    }
}

TEST(Standalone, AgreeWithPrograms) {
    struct Case {
        const char *generator;
        std::map<std::string, std::string> parameters;
        const char *program;
    };
    const Case cases[] = {
        {"relu", {{"c", "3"}, {"h", "2"}, {"w", "5"}}, "x = input [n,3,2,5]; y = relu(x); output y;"},
        {"sigmoid", {{"c", "3"}, {"h", "2"}, {"w", "5"}}, "x = input [n,3,2,5]; y = sigmoid(x); output y;"},
        {"tanh", {{"c", "3"}, {"h", "2"}, {"w", "5"}}, "x = input [n,3,2,5]; y = tanh(x); output y;"},
        {"avg_pool2d",
         {{"h", "6"}, {"w", "4"}},
         "x = input [n,1,6,4]; y = avg_pool2d(x){window=2,stride=2,padding=0}; output y;"},
        {"max_pool2d",
         {{"h", "6"}, {"w", "4"}, {"window", "3"}, {"padding", "1"}},
         "x = input [n,1,6,4]; y = max_pool2d(x){window=3,stride=2,padding=1}; output y;"},
        {"batch_norm",
         {{"c", "3"}, {"h", "6"}, {"w", "4"}, {"eps", "0.001"}},
         "x = input [n,3,6,4]; w = input [1,3,1,1]; b = input [1,3,1,1]; m = input [1,3,1,1]; v = input [1,3,1,1];"
         "e = add(v, 0.001); i = rsqrt(e); d = sub(x, m); k = mul(d, i); s = mul(k, w); y = add(s, b); output y;"},
    };
    for (const Case &c : cases) {
        SCOPED_TRACE(c.generator);
        auto parameters = c.parameters;
        parameters["lanes"] = "8";
        const LoadedKernel kernel(c.generator, parameters);
        const Program program = parse_program(c.program);
        const ProgramCall call = random_call(program, 8, 0.1, 2);
        expect_equal(run_kernel(kernel, program, call, 8), interpret(program, call), 2e-6);
    }
}

} // namespace
} // namespace cryolite::testing
