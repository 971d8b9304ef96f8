// What our pictures share. Plain SVG 1.1 by hand: no scripts, no fonts of its own, a white background that is readable
// on dark pages too.
#ifndef CRYOLITE_SVG_H
#define CRYOLITE_SVG_H

#include <string>

namespace cryolite {

// As text or as the value of an attribute.
std::string svg_escape(const std::string &text);

// From the opening tag to the title on a white background. style: lines of CSS beside those of text, title and head.
std::string svg_begin(const std::string &title, double width, double height, double margin, const std::string &style);

} // namespace cryolite
#endif
