// cryolite_curves [--title TEXT] -o FILE.svg LABEL=LOG.csv ...: draws logs of `train` side by side.
#include "tools/curves.h"

#include "compiler/data/whole_file.h"

#include <cstdio>
#include <exception>

using namespace cryolite;

static constexpr char usage[] = "usage: cryolite_curves [--title TEXT] -o FILE.svg LABEL=LOG.csv ...\n";

int main(int argc, char **argv) {
    std::string title = "Learning curves", output;
    std::vector<std::pair<std::string, std::string>> logs;
    for (int i = 1; i < argc; i++) {
        std::string argument = argv[i];
        size_t equals = argument.rfind('=');
        if (argument == "--help") {
            std::fputs(usage, stdout);
            return 0;
        }
        if ((argument == "-o" || argument == "--title") && i + 1 < argc) {
            (argument == "-o" ? output : title) = argv[++i];
        } else if (equals != argument.npos && argument[0] != '-') {
            logs.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
        } else {
            std::fprintf(stderr, "cryolite_curves: error: '%s' is not understood (see --help)\n", argv[i]);
            return 2;
        }
    }
    if (output.empty() || logs.empty()) {
        std::fprintf(stderr, "cryolite_curves: error: -o and at least one log are required (see --help)\n");
        return 2;
    }
    try {
        std::vector<Curve> curves;
        for (const auto &[label, path] : logs) curves.push_back(read_curve(label, path));
        write_whole_file(output, draw_curves(title, curves));
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "cryolite_curves: error: %s\n", error.what());
        return 1;
    }
}
