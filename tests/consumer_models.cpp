// Writes the libraries that the consumer project links: consumer_models <folder> <kernel cache>
#include "compile.h"
#include "networks.h"

#include <cstdio>
#include <exception>

using namespace cryolite;

static void write(const char *name, void (*define)(Network &), int64_t batch, const char *folder, const char *cache,
                  const char *target = "host") {
    Network net(name);
    net.optimize({.learning_rate = 0.1});
    define(net);
    write_library(compile(net, {.batch = batch, .target = target, .cache = cache}), folder);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    try {
        write("lenet", test::lenet, 64, argv[1], argv[2]);
        write("mlp", test::mlp, 48, argv[1], argv[2]);
        write("mlp_opencl", test::mlp, 48, argv[1], argv[2], "opencl");
    } catch (const std::exception &error) {
        std::fprintf(stderr, "consumer_models: %s\n", error.what());
        return 1;
    }
    return 0;
}
