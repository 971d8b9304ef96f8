// The text form of graphs, both directions: golden tests, --emit, and networks kept as text. print writes numbers so
// that parse reads back the same bits; a node's comment is its layer and its source.
#include "op.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

namespace cryolite {

// ---------------------------------------------------------------------------------------------------------------------
// Printing

// Characters of names, and what numbers and the words of a comment have besides.
constexpr const char *name_marks = "_.", *number_marks = "_.+-", *word_marks = "_.+-:/";

static bool plain(char c, const char *marks) {
    return std::isalnum(static_cast<unsigned char>(c)) || (c && std::strchr(marks, c));
}

static std::string quoted(const std::string &text) {
    static const char *digits = "0123456789abcdef";
    std::string result = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\')
            result += std::string("\\") + c;
        else if (c == '\n')
            result += "\\n";
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            result += std::string("\\x") + digits[c / 16] + digits[c % 16];
        else
            result += c;
    }
    return result + '"';
}

static std::string word(const std::string &text) {
    for (char c : text)
        if (!plain(c, word_marks)) return quoted(text);
    return text.empty() ? quoted(text) : text;
}

static std::string real_text(double value) {
    char buffer[64];
    std::string text(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
    // A real number never looks like an integer.
    return std::isfinite(value) && text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

static std::string attr_text(const Attr &attr) {
    if (auto *flag = std::get_if<bool>(&attr)) return *flag ? "true" : "false";
    if (auto *integer = std::get_if<int64_t>(&attr)) return std::to_string(*integer);
    if (auto *number = std::get_if<double>(&attr)) return real_text(*number);
    if (auto *text = std::get_if<std::string>(&attr)) return quoted(*text);
    std::string result = "[";
    for (int64_t x : std::get<std::vector<int64_t>>(attr))
        result += (result.size() > 1 ? ", " : "") + std::to_string(x);
    return result + "]";
}

static std::string type_text(const ValueType &type) {
    std::string shape;
    for (char c : type.shape.text())
        if (c != ' ') shape += c;
    return (type.type == Type::f32 ? "f32" : "i32") + shape;
}

std::string print(const Graph &graph, const Node &node) {
    std::string names, types, inputs, attrs;
    for (ValueId v : node.outputs) {
        const bool typed = v >= 0 && size_t(v) < graph.values.size();
        names += (names.empty() ? "%" : ", %") + std::to_string(v);
        types += (types.empty() ? "" : ", ") + (typed ? type_text(graph.type(v)) : "?");
    }
    for (ValueId v : node.inputs) inputs += (inputs.empty() ? "%" : ", %") + std::to_string(v);
    for (auto &[key, attr] : node.attrs.map) attrs += (attrs.empty() ? "" : ", ") + key + "=" + attr_text(attr);

    std::string line = names.empty() ? "" : names + " : " + types + " = ";
    line += std::string(node.op ? node.op->name : "?") + "(" + inputs + ")";
    if (!attrs.empty()) line += " {" + attrs + "}";
    if (!node.layer.empty() || !node.source.empty()) line += "  # " + word(node.layer);
    if (!node.source.empty()) line += " " + word(node.source);
    return line;
}

std::string print(const Graph &graph) {
    std::string text = "graph " + word(graph.name) + " {\n";
    for (const Node &node : graph.nodes) text += "  " + print(graph, node) + "\n";
    return text + "}\n";
}

// ---------------------------------------------------------------------------------------------------------------------
// Parsing: line by line, since a node is a line

namespace {

class Parser {
public:
    explicit Parser(const std::string &text) : text_(text) {}
    Graph run();

private:
    [[noreturn]] void fail(const std::string &message) const {
        throw CompileError("line " + std::to_string(line_number_) + ": " + message);
    }
    bool next_line(); // that is neither empty nor a comment
    void skip_spaces() {
        while (at_ < line_.size() && (line_[at_] == ' ' || line_[at_] == '\t' || line_[at_] == '\r')) ++at_;
    }
    bool at_end() { return skip_spaces(), at_ == line_.size(); }
    bool accept(char c) {
        skip_spaces();
        if (at_ == line_.size() || line_[at_] != c) return false;
        return ++at_, true;
    }
    void expect(char c) {
        if (!accept(c)) fail(std::string("expected '") + c + "' " + here());
    }
    std::string here() { return at_end() ? "at the end of the line" : "before '" + line_.substr(at_, 20) + "'"; }
    template <class T> bool number(const std::string &token, T &value) const {
        auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
        return error == std::errc() && end == token.data() + token.size();
    }

    std::string token(const char *what, const char *marks = name_marks);
    std::string string(); // quoted
    std::string word(const char *what) {
        return skip_spaces(), at_ < line_.size() && line_[at_] == '"' ? string() : token(what, word_marks);
    }
    int64_t integer();
    ValueType type();
    Attr attr();
    Attrs attrs();
    std::vector<std::string> value_names();
    ValueId value(const std::string &name) const;
    void node();
    void add(const std::vector<std::string> &names, const std::vector<ValueType> &types, const std::string &op,
             std::vector<ValueId> inputs, Attrs attrs, const std::string &layer, const std::string &source);

    const std::string &text_;
    size_t next_ = 0; // where the next line starts
    std::string line_;
    size_t at_ = 0;
    int line_number_ = 0;
    Graph graph_;
    std::map<std::string, ValueId> values_;
};

bool Parser::next_line() {
    while (next_ < text_.size()) {
        size_t end = std::min(text_.find('\n', next_), text_.size());
        line_ = text_.substr(next_, end - next_);
        next_ = end + 1;
        at_ = 0;
        ++line_number_;
        if (!at_end() && line_[at_] != '#') return true;
    }
    return false;
}

std::string Parser::token(const char *what, const char *marks) {
    skip_spaces();
    size_t start = at_;
    while (at_ < line_.size() && plain(line_[at_], marks)) ++at_;
    if (at_ == start) fail(std::string("expected ") + what + " " + here());
    return line_.substr(start, at_ - start);
}

std::string Parser::string() {
    std::string result;
    expect('"');
    for (;;) {
        if (at_ == line_.size()) fail("a string has no end");
        char c = line_[at_++];
        if (c == '"') return result;
        if (c == '\\') {
            char escape = at_ < line_.size() ? line_[at_++] : '\0';
            int code = 0;
            if (escape == '"' || escape == '\\')
                c = escape;
            else if (escape == 'n')
                c = '\n';
            else if (escape == 'x' && at_ + 2 <= line_.size() &&
                     std::from_chars(line_.data() + at_, line_.data() + at_ + 2, code, 16).ptr ==
                         line_.data() + at_ + 2)
                c = char(code), at_ += 2;
            else
                fail("unknown escape in a string");
        }
        result += c;
    }
}

int64_t Parser::integer() {
    std::string text = token("an integer", number_marks);
    int64_t value = 0;
    if (!number(text, value)) fail("'" + text + "' is not an integer");
    return value;
}

ValueType Parser::type() {
    ValueType result;
    std::string name = token("a type");
    if (name != "f32" && name != "i32") fail("'" + name + "' is no type: f32, i32");
    result.type = name == "f32" ? Type::f32 : Type::i32;
    expect('[');
    while (!accept(']')) {
        if (!result.shape.dims.empty()) expect(',');
        skip_spaces();
        if (result.shape.dims.empty() && accept('n'))
            result.shape.dims.push_back(Shape::batch);
        else if (result.shape.dims.empty() && accept('b'))
            result.shape.dims.push_back(Shape::blocks);
        else
            result.shape.dims.push_back(integer());
    }
    return result;
}

Attr Parser::attr() {
    skip_spaces();
    if (at_ < line_.size() && line_[at_] == '"') return string();
    if (accept('[')) {
        std::vector<int64_t> list;
        while (!accept(']')) {
            if (!list.empty()) expect(',');
            list.push_back(integer());
        }
        return list;
    }
    std::string text = token("a value", number_marks);
    if (text == "true" || text == "false") return text == "true";
    int64_t integer = 0;
    if (number(text, integer)) return integer;
    double real = 0;
    if (!number(text, real)) fail("'" + text + "' is not a value");
    return real;
}

Attrs Parser::attrs() {
    Attrs result;
    if (!accept('{')) return result;
    while (!accept('}')) {
        if (!result.map.empty()) expect(',');
        std::string key = token("an attribute");
        expect('=');
        if (!result.map.emplace(key, attr()).second) fail("attribute '" + key + "' is given twice");
    }
    return result;
}

std::vector<std::string> Parser::value_names() {
    std::vector<std::string> names;
    do {
        expect('%');
        names.push_back(token("a value's name"));
    } while (accept(','));
    return names;
}

ValueId Parser::value(const std::string &name) const {
    auto found = values_.find(name);
    if (found == values_.end()) fail("value %" + name + " is not known here");
    return found->second;
}

// %a, %b : type, type = op(%c) {key=value}  # layer source
void Parser::node() {
    std::vector<std::string> names;
    std::vector<ValueType> types;
    skip_spaces();
    if (line_[at_] == '%') {
        names = value_names();
        expect(':');
        do types.push_back(type());
        while (accept(','));
        expect('=');
    }
    std::string op = token("an op");
    std::vector<ValueId> inputs;
    expect('(');
    if (!accept(')')) {
        for (const std::string &name : value_names()) inputs.push_back(value(name));
        expect(')');
    }
    Attrs attributes = attrs();
    std::string layer, source;
    if (accept('#')) {
        layer = word("a layer");
        if (!at_end()) source = word("a source");
    }
    if (!at_end()) fail("unexpected text " + here());
    add(names, types, op, std::move(inputs), std::move(attributes), layer, source);
}

void Parser::add(const std::vector<std::string> &names, const std::vector<ValueType> &types, const std::string &op,
                 std::vector<ValueId> inputs, Attrs attrs, const std::string &layer, const std::string &source) {
    if (!find_op(op)) fail("there is no op '" + op + "'");
    std::vector<ValueId> results;
    try {
        results = graph_.add(op, std::move(inputs), std::move(attrs), layer, source);
    } catch (const std::exception &error) { // a missing attribute is the text's fault here, not ours
        fail(error.what());
    }
    if (results.size() != names.size() || names.size() != types.size())
        fail(op + " has " + std::to_string(results.size()) + " results, with as many names and types");
    for (size_t i = 0; i < names.size(); ++i) {
        if (!values_.emplace(names[i], results[i]).second) fail("value %" + names[i] + " is made twice");
        if (types[i] != graph_.type(results[i]))
            fail("%" + names[i] + " is " + type_text(graph_.type(results[i])) + ", not " + type_text(types[i]));
    }
}

Graph Parser::run() {
    if (!next_line()) fail("expected a graph");
    if (token("'graph'") != "graph") fail("expected 'graph'");
    graph_.name = word("the graph's name");
    expect('{');
    if (!at_end()) fail("unexpected text " + here());
    for (;;) {
        if (!next_line()) fail("the graph has no '}'");
        if (accept('}')) break;
        node();
    }
    if (!at_end() || next_line()) fail("unexpected text after the graph");
    try {
        verify(graph_, "parse");
    } catch (const InternalError &error) { fail(error.what()); }
    return std::move(graph_);
}

} // namespace

Graph parse(const std::string &text) { return Parser(text).run(); }

} // namespace cryolite
