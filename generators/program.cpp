// Parser and shape inference of pointwise programs. Every rule of kernels.md that can be broken is checked here, so
// that the evaluator needs no checks of its own.
#include "program.h"

#include <algorithm>
#include <cctype>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <set>

namespace cryolite {
namespace {

enum class Family { unary, binary, mask, pool, avg_pool_grad, route, adaptive, broadcast, uniform, sum };

const std::map<std::string, Family> &families() {
    static const std::map<std::string, Family> table = [] {
        std::map<std::string, Family> t;
        for (const char *op :
             {"neg", "exp", "log", "sqrt", "rsqrt", "square", "abs", "reciprocal", "sigmoid", "relu", "relu6", "tanh"})
            t[op] = Family::unary;
        for (const char *op : {"add", "sub", "mul", "div", "max", "min", "relu_grad", "relu6_grad", "greater_equal"})
            t[op] = Family::binary;
        t["mask"] = Family::mask;
        t["avg_pool2d"] = t["max_pool2d"] = t["max_pool2d_winner"] = Family::pool;
        t["avg_pool2d_grad"] = Family::avg_pool_grad;
        t["max_pool2d_route"] = Family::route;
        t["adaptive_avg_pool2d"] = t["adaptive_avg_pool2d_grad"] = Family::adaptive;
        t["broadcast"] = Family::broadcast;
        t["uniform"] = Family::uniform;
        t["sum"] = Family::sum;
        return t;
    }();
    return table;
}

std::string trimmed(const std::string &s) {
    size_t first = s.find_first_not_of(" \t\r\n"), last = s.find_last_not_of(" \t\r\n");
    return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

std::vector<std::string> split(const std::string &s, char separator) {
    std::vector<std::string> parts;
    size_t begin = 0, end;
    while ((end = s.find(separator, begin)) != std::string::npos) {
        parts.push_back(trimmed(s.substr(begin, end - begin)));
        begin = end + 1;
    }
    parts.push_back(trimmed(s.substr(begin)));
    return parts;
}

bool is_name(const std::string &s) {
    if (s.empty() || !std::islower(static_cast<unsigned char>(s[0]))) return false;
    return std::all_of(s.begin(), s.end(),
                       [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '_'; });
}

// Comments run from # to the end of the line. `:` may stand for `=`, which GenGen's command line does not pass on.
std::string normalized(const std::string &text) {
    std::string result;
    bool comment = false;
    for (char c : text) {
        if (c == '#') comment = true;
        if (c == '\n') comment = false;
        if (!comment) result += c == ':' ? '=' : c;
    }
    return result;
}

class Parser {
public:
    Program parse(const std::string &text) {
        for (const std::string &statement : split(normalized(text), ';')) {
            if (statement.empty()) continue;
            current_ = statement;
            parse_statement(statement);
        }
        current_.clear();
        if (program_.outputs.empty()) fail("no output");
        check_sums();
        return std::move(program_);
    }

private:
    [[noreturn]] void fail(const std::string &why) const {
        throw ProgramError("pointwise program: " + (current_.empty() ? "" : "'" + current_ + "': ") + why);
    }

    void parse_statement(const std::string &text) {
        if (text.rfind("output", 0) == 0 && text.find('=') == std::string::npos) return parse_output(text);
        size_t equals = text.find('=');
        if (equals == std::string::npos) fail("expected 'name = op(...)' or 'output name'");
        ProgramStatement s;
        s.text = text;
        s.name = trimmed(text.substr(0, equals));
        if (!is_name(s.name)) fail("'" + s.name + "' is not a name ([a-z][a-z0-9_]*)");
        if (names_.count(s.name)) fail("'" + s.name + "' is defined twice");
        const std::string right = trimmed(text.substr(equals + 1));
        if (right.rfind("input", 0) == 0 && right.find('(') == std::string::npos)
            parse_input(right, s);
        else
            parse_operation(right, s);
        const int index = static_cast<int>(program_.statements.size());
        names_[s.name] = index;
        if (s.is_input()) program_.inputs.push_back(index);
        program_.statements.push_back(std::move(s));
    }

    void parse_output(const std::string &text) {
        const std::string name = trimmed(text.substr(6));
        auto found = names_.find(name);
        if (found == names_.end()) fail("unknown name '" + name + "'");
        if (program_.statements[found->second].is_integer()) fail("an int32 scalar cannot be an output");
        if (std::count(program_.outputs.begin(), program_.outputs.end(), found->second)) fail("output twice");
        program_.outputs.push_back(found->second);
    }

    void parse_input(const std::string &text, ProgramStatement &s) {
        const std::string kind = trimmed(text.substr(5));
        if (kind == "valid" || kind == "block" || kind == "batch") {
            s.op = kind;
            return;
        }
        if (kind.size() < 2 || kind.front() != '[' || kind.back() != ']')
            fail("expected 'input [shape]', 'input valid', 'input block' or 'input batch'");
        s.op = "input";
        const std::string inside = trimmed(kind.substr(1, kind.size() - 2));
        if (!inside.empty()) s.shape = parse_shape(split(inside, ','));
    }

    ProgramShape parse_shape(const std::vector<std::string> &parts) const {
        ProgramShape shape;
        long long total = 1;
        for (size_t i = 0; i < parts.size(); i++) {
            if (i == 0 && parts[i] == "n") {
                shape.dims.push_back(ProgramShape::batch);
                continue;
            }
            const int extent = parse_integer(parts[i]);
            if (extent < 1) fail("dimension " + parts[i] + " is not positive");
            total *= extent;
            if (total > INT_MAX / 64) fail("shape is too large");
            shape.dims.push_back(extent);
        }
        if (shape.rank() > 4) fail("rank above 4");
        return shape;
    }

    int parse_integer(const std::string &text) const {
        char *end = nullptr;
        const long value = std::strtol(text.c_str(), &end, 10);
        if (text.empty() || *end || value < INT_MIN || value > INT_MAX) fail("'" + text + "' is not an integer");
        return static_cast<int>(value);
    }

    void parse_operation(const std::string &text, ProgramStatement &s) const {
        const size_t open = text.find('('), close = text.find(')');
        if (open == std::string::npos || close == std::string::npos || close < open) fail("expected 'op(operands)'");
        s.op = trimmed(text.substr(0, open));
        if (!families().count(s.op)) fail("unknown op '" + s.op + "'");
        const std::string inside = trimmed(text.substr(open + 1, close - open - 1));
        if (inside.find('(') != std::string::npos) fail("operations do not nest");
        if (!inside.empty())
            for (const std::string &operand : split(inside, ',')) s.operands.push_back(parse_operand(operand));
        parse_attributes(trimmed(text.substr(close + 1)), s);
        infer(s);
    }

    ProgramOperand parse_operand(const std::string &text) const {
        ProgramOperand operand;
        if (is_name(text) && text != "inf" && text != "nan") {
            auto found = names_.find(text);
            if (found == names_.end()) fail("unknown name '" + text + "'");
            if (program_.statements[found->second].op == "sum") fail("a sum can only be an output");
            operand.statement = found->second;
            return operand;
        }
        char *end = nullptr;
        operand.literal = std::strtof(text.c_str(), &end);
        if (text.empty() || *end) fail("'" + text + "' is neither a name nor a number");
        return operand;
    }

    void parse_attributes(const std::string &text, ProgramStatement &s) const {
        if (text.empty()) return;
        if (text.size() < 2 || text.front() != '{' || text.back() != '}') fail("unexpected '" + text + "'");
        std::string key;
        for (const std::string &part : split(text.substr(1, text.size() - 2), ',')) {
            const size_t equals = part.find('=');
            std::string value = part;
            if (equals != std::string::npos) {
                key = trimmed(part.substr(0, equals));
                value = trimmed(part.substr(equals + 1));
                if (!allowed(s.op).count(key)) fail("unknown attribute '" + key + "' of " + s.op);
                if (!seen_once(s, key)) fail("attribute '" + key + "' is given twice");
            } else if (key != "axes") {
                fail("expected 'attribute=value', not '" + part + "'");
            }
            if (key == "axes")
                s.axes.push_back(parse_integer(value));
            else if (key == "shape")
                s.shape = value == "[]" ? ProgramShape{} : parse_shape(split(value, 'x'));
            else
                s.attributes[key] = parse_integer(value);
        }
    }

    static bool seen_once(const ProgramStatement &s, const std::string &key) {
        if (key == "axes") return s.axes.empty();
        if (key == "shape") return s.shape.dims.empty();
        return !s.attributes.count(key);
    }

    static const std::set<std::string> &allowed(const std::string &op) {
        static const std::set<std::string> none, pool{"window", "stride", "padding", "ceil"}, sum{"axes"},
            shape{"shape"}, grad{"window", "stride", "padding", "ceil", "h", "w"}, size{"h", "w"},
            uniform{"seed", "shape"};
        switch (families().at(op)) {
        case Family::pool:
            return pool;
        case Family::avg_pool_grad:
        case Family::route:
            return grad;
        case Family::adaptive:
            return size;
        case Family::sum:
            return sum;
        case Family::broadcast:
            return shape;
        case Family::uniform:
            return uniform;
        default:
            return none;
        }
    }

    const ProgramStatement *operand(const ProgramStatement &s, int i) const {
        return s.operands[i].statement < 0 ? nullptr : &program_.statements[s.operands[i].statement];
    }

    ProgramShape operand_shape(const ProgramStatement &s, int i) const {
        return s.operands[i].statement < 0 ? ProgramShape{} : operand(s, i)->shape;
    }

    void expect_operands(const ProgramStatement &s, size_t count) const {
        if (s.operands.size() != count)
            fail(s.op + " takes " + std::to_string(count) + " operands, not " + std::to_string(s.operands.size()));
    }

    int need(const ProgramStatement &s, const std::string &key, int least) const {
        auto found = s.attributes.find(key);
        if (found == s.attributes.end()) fail(s.op + " needs the attribute " + key);
        if (found->second < least) fail(key + " must be at least " + std::to_string(least));
        return found->second;
    }

    void infer(ProgramStatement &s) const {
        switch (families().at(s.op)) {
        case Family::unary:
            expect_operands(s, 1), s.shape = operand_shape(s, 0);
            break;
        case Family::binary:
            expect_operands(s, 2), s.shape = broadcast_shape(operand_shape(s, 0), operand_shape(s, 1));
            break;
        case Family::mask:
            expect_operands(s, 2), s.shape = operand_shape(s, 0);
            if (!s.shape.is_block()) fail("mask needs a block value");
            if (!operand(s, 1) || operand(s, 1)->op != "valid") fail("the second operand of mask is 'input valid'");
            break;
        case Family::pool:
            expect_operands(s, 1), s.shape = pool_shape(s, operand_shape(s, 0));
            break;
        case Family::avg_pool_grad:
            infer_pool_grad(s, 1);
            break;
        case Family::route:
            infer_pool_grad(s, 2);
            if (operand_shape(s, 0) != operand_shape(s, 1))
                fail("dy " + operand_shape(s, 0).text() + " and winner " + operand_shape(s, 1).text() + " differ");
            break;
        case Family::adaptive:
            expect_operands(s, 1), infer_size(s);
            break;
        case Family::broadcast:
            expect_operands(s, 1);
            if (broadcast_shape(operand_shape(s, 0), s.shape) != s.shape)
                fail("cannot broadcast " + operand_shape(s, 0).text() + " to " + s.shape.text());
            break;
        case Family::uniform:
            expect_operands(s, 2), need(s, "seed", INT_MIN);
            if (!s.shape.is_block()) fail("uniform makes a block value: shape=nx...");
            if (!operand(s, 0) || operand(s, 0)->op != "block") fail("the first operand of uniform is 'input block'");
            if (operand_shape(s, 1).rank() != 0) fail("the step of uniform is a scalar []");
            break;
        case Family::sum:
            infer_sum(s);
            break;
        }
    }

    ProgramShape broadcast_shape(const ProgramShape &a, const ProgramShape &b) const {
        if (a.rank() == 0) return b;
        if (b.rank() == 0) return a;
        if (a.rank() != b.rank()) fail("ranks of " + a.text() + " and " + b.text() + " differ");
        ProgramShape result = a;
        for (int i = 0; i < a.rank(); i++) {
            if (a.dims[i] == 1)
                result.dims[i] = b.dims[i];
            else if (b.dims[i] != 1 && b.dims[i] != a.dims[i])
                fail("shapes " + a.text() + " and " + b.text() + " do not broadcast");
        }
        return result;
    }

    ProgramShape pool_shape(const ProgramStatement &s, const ProgramShape &x) const {
        if (!x.is_block() || x.rank() != 4) fail(s.op + " needs a block value [n, c, h, w], not " + x.text());
        const int window = need(s, "window", 1), stride = need(s, "stride", 1), padding = need(s, "padding", 0);
        if (padding > window / 2) fail("padding is more than half the window");
        ProgramShape y = x;
        for (int d : {2, 3}) {
            y.dims[d] = pooled_extent(x.dims[d], window, stride, padding, s.is_ceil());
            if (y.dims[d] < 1) fail("the window does not fit into " + x.text());
        }
        return y;
    }

    void infer_pool_grad(ProgramStatement &s, size_t operands) const {
        expect_operands(s, operands), infer_size(s);
        if (pool_shape(s, s.shape) != operand_shape(s, 0))
            fail("dy " + operand_shape(s, 0).text() + " is not the pooled shape of " + s.shape.text());
    }

    // The operand's shape with the height and width that are stated.
    void infer_size(ProgramStatement &s) const {
        s.shape = operand_shape(s, 0);
        if (!s.shape.is_block() || s.shape.rank() != 4) fail(s.op + " needs a block value [n, c, h, w]");
        s.shape.dims[2] = need(s, "h", 1);
        s.shape.dims[3] = need(s, "w", 1);
    }

    void infer_sum(ProgramStatement &s) const {
        expect_operands(s, 1);
        s.shape = operand_shape(s, 0);
        if (s.axes.empty()) fail("sum needs axes");
        std::sort(s.axes.begin(), s.axes.end());
        for (size_t i = 0; i < s.axes.size(); i++) {
            if (s.axes[i] < 0 || s.axes[i] >= s.shape.rank() || (i && s.axes[i] == s.axes[i - 1]))
                fail("bad axis " + std::to_string(s.axes[i]) + " of " + s.shape.text());
            s.shape.dims[s.axes[i]] = 1;
        }
    }

    void check_sums() const {
        const bool block = program_.is_block();
        for (size_t i = 0; i < program_.statements.size(); i++) {
            const ProgramStatement &s = program_.statements[i];
            const bool is_output = std::count(program_.outputs.begin(), program_.outputs.end(), static_cast<int>(i));
            const ProgramShape &space = s.op == "sum" ? operand_shape(s, 0) : s.shape;
            if (s.op == "sum" && !is_output) fail("the sum '" + s.name + "' is not an output");
            if (is_output && block && !space.is_block())
                fail("output '" + s.name + "' " + space.text() + " is a whole value in a program of block values");
        }
    }

    Program program_;
    std::map<std::string, int> names_;
    std::string current_; // the statement that errors name
};

} // namespace

std::string ProgramShape::text() const {
    std::string result = "[";
    for (size_t i = 0; i < dims.size(); i++)
        result += (i ? "," : "") + (dims[i] == batch ? std::string("n") : std::to_string(dims[i]));
    return result + "]";
}

bool Program::is_block() const {
    return std::any_of(statements.begin(), statements.end(),
                       [](const ProgramStatement &s) { return s.shape.is_block(); });
}

int pooled_extent(int extent, int window, int stride, int padding, bool ceil) {
    const int span = extent + 2 * padding - window;
    if (span < 0) return 0;
    const int rest = ceil && span % stride > 0 && (span / stride + 1) * stride < extent + padding;
    return span / stride + 1 + rest;
}

Program parse_program(const std::string &text) { return Parser().parse(text); }

} // namespace cryolite
