// The command line of a network file: compile, train, eval, inspect, bench, tune, schedules. A failure is one line on
// stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
#include "commands/command.h"

#include "data/idx.h"
#include "graph.h"

#include <fmt/format.h>

#include <algorithm>

using namespace cryolite;

static int fail(const std::string &program, std::string message, int code) {
    while (!message.empty() && message.back() == '\n') message.pop_back();
    std::replace(message.begin(), message.end(), '\n', ' ');
    std::fflush(stdout);
    fmt::print(stderr, "{}: error: {}\n", program, message);
    return code;
}

// Commands run inside parse, as callbacks of CLI11.
static int run(CLI::App &app, const std::string &program, int argc, char **argv) {
    try {
        app.parse(argc, argv);
        return 0;
    } catch (const CLI::ParseError &error) {
        if (error.get_exit_code() == 0) return app.exit(error); // --help
        return fail(program, std::string(error.what()) + " (see --help)", 2);
    } catch (const UsageError &error) { return fail(program, std::string(error.what()) + " (see --help)", 2); }
}

int main(int argc, char **argv) {
    std::string program = argc > 0 ? argv[0] : "cryolite";
    program = program.substr(program.rfind('/') + 1);
    try {
        CLI::App app("Compiles, trains and evaluates the networks of this program", program);
        app.require_subcommand(1);
        add_compile_command(app);
        add_train_command(app);
        add_eval_command(app);
        add_inspect_command(app);
        add_bench_command(app);
        add_tune_command(app);
        add_schedules_command(app);
        int code = run(app, program, argc, argv);
        if (std::fflush(stdout) || std::ferror(stdout)) return fail(program, "the output cannot be written", 1);
        return code;
    } catch (const InternalError &error) {
        return fail(program, std::string("internal error: ") + error.what(), 1);
    } catch (const std::bad_alloc &) {
        return fail(program, "out of memory", 1);
    } catch (const std::exception &error) { // CompileError, DataError, Failure
        return fail(program, error.what(), 1);
    }
}
