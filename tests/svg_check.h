// What a picture must be, whatever it shows.
#ifndef CRYOLITE_SVG_CHECK_H
#define CRYOLITE_SVG_CHECK_H

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

namespace cryolite {

inline size_t count(const std::string &text, const std::string &part) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) n++;
    return n;
}

// Tags are balanced, attributes quoted, no bare & or <: what a strict reader of XML asks of a file without prologue.
inline void expect_well_formed_svg(const std::string &svg) {
    static const std::regex tag("<(/?)([a-z]+)((?: [A-Za-z0-9:-]+=\"[^\"<]*\")*)(/?)>");
    static const std::regex entity("&(?!amp;|lt;|gt;|quot;)");
    std::vector<std::string> open;
    size_t tags = 0;
    for (std::sregex_iterator at(svg.begin(), svg.end(), tag), end; at != end; ++at, ++tags) {
        if (!(*at)[1].str().empty()) {
            ASSERT_FALSE(open.empty());
            EXPECT_EQ(open.back(), (*at)[2].str());
            open.pop_back();
        } else if ((*at)[4].str().empty()) {
            open.push_back((*at)[2].str());
        }
    }
    EXPECT_TRUE(open.empty());
    EXPECT_EQ(tags, count(svg, "<"));
    EXPECT_FALSE(std::regex_search(svg, entity));
    EXPECT_EQ(count(svg, "nan") + count(svg, "inf,"), 0u);
}

struct Rectangle {
    double x, y, width, height;
};
inline std::vector<Rectangle> rectangles(const std::string &svg) {
    static const std::regex rect("<rect x=\"([0-9.-]+)\" y=\"([0-9.-]+)\" width=\"([0-9.-]+)\" height=\"([0-9.-]+)\"");
    std::vector<Rectangle> result;
    for (std::sregex_iterator at(svg.begin(), svg.end(), rect), end; at != end; ++at)
        result.push_back({std::stod((*at)[1]), std::stod((*at)[2]), std::stod((*at)[3]), std::stod((*at)[4])});
    return result;
}

} // namespace cryolite
#endif
