#include "svg.h"

#include <fmt/format.h>

namespace cryolite {

std::string svg_escape(const std::string &text) {
    std::string result;
    for (char c : text) {
        if (c == '&')
            result += "&amp;";
        else if (c == '<')
            result += "&lt;";
        else if (c == '>')
            result += "&gt;";
        else if (c == '"')
            result += "&quot;";
        else if (static_cast<unsigned char>(c) >= ' ')
            result += c; // XML has no control characters
    }
    return result;
}

std::string svg_begin(const std::string &title, double width, double height, double margin, const std::string &style) {
    return fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
                       "height=\"{1:.0f}\" role=\"img\">\n<title>{2}</title>\n<style>\n"
                       "text {{ font-family: 'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif; fill: #222222; }}\n"
                       ".title {{ font-size: 16px; font-weight: bold; }}\n"
                       ".head {{ font-size: 13px; font-weight: bold; }}\n"
                       "{3}</style>\n"
                       "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" rx=\"6\" fill=\"#ffffff\"/>\n"
                       "<text x=\"{4:.1f}\" y=\"34\" class=\"title\">{2}</text>\n",
                       width, height, svg_escape(title), style, margin);
}

} // namespace cryolite
