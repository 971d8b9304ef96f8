// Golden tests of passes: a small graph as text, one pass, the text of what comes out.
#ifndef CRYOLITE_TESTS_GOLDEN_H
#define CRYOLITE_TESTS_GOLDEN_H

#include "passes.h"

#include <gtest/gtest.h>
#include <sstream>

namespace cryolite::test {

inline PassContext context(Mode mode) { return {mode, {.learning_rate = 0.1, .momentum = 0.5}, {4, 8}}; }

// The nodes alone: without layers, sources and indentation.
inline std::string nodes(const Graph &graph) {
    std::stringstream in(print(graph));
    std::string result, line;
    while (std::getline(in, line)) {
        line = line.substr(0, line.find("  #"));
        if (line.rfind("graph", 0) == 0 || line == "}") continue;
        result += line.substr(line.find_first_not_of(' ')) + "\n";
    }
    return result;
}
inline std::string trimmed(const std::string &text) {
    std::stringstream in(text);
    std::string result, line;
    while (std::getline(in, line))
        if (size_t at = line.find_first_not_of(' '); at != std::string::npos) result += line.substr(at) + "\n";
    return result;
}
inline void expect_after(Graph (*pass)(const Graph &, const PassContext &), Mode mode, const std::string &from,
                         const std::string &to) {
    Graph graph = parse("graph g {\n" + from + "\n}\n");
    verify(graph, "test");
    Graph result = pass(graph, context(mode));
    verify(result, "pass");
    EXPECT_EQ(nodes(result), trimmed(to));
}

} // namespace cryolite::test
#endif
