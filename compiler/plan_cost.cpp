// By a roofline with the rates of one thread of two, Zen 4. What matters is the ratio of two plans, and there how well
// they use caches: a block of 16 samples has values that only memory holds, a sample reads all weights for itself.
//
//                       time of 16 samples alone over a block of them, estimated and measured
//   mobilenet_v2        0.94  0.88        densenet121    1.16  1.21
//   resnet50 112x112    1.16  1.13        resnet18_cifar 1.25  1.55
//   googlenet           1.08  1.16        vgg11_bn       5.9   4.2
//   lenet               1.11  1.38        mlp            3.0   2.5
#include "plan_cost.h"

#include <algorithm>
#include <string>

namespace cryolite {

namespace {

constexpr double flops_a_second = 105e9;

// Bytes a second, of what so many bytes are read again and again.
double rate(double bytes) { return bytes <= 1e6 ? 110e9 : bytes <= 16e6 ? 70e9 : 15e9; }

struct Work {
    double flops = 0, weights = 0, values = 0; // bytes of parameters and of what is prepared of them, and of the others
};

// Of a direct convolution's multiply-adds what Winograd's F(m x m, r x r) takes with its transforms.
double share_of_direct(const KernelSpec &kernel) {
    const auto m = kernel.parameters.find("m"), r = kernel.parameters.find("r");
    if (m == kernel.parameters.end() || r == kernel.parameters.end() || m->second == "0") return 1;
    const double tile = std::stod(m->second), window = std::stod(r->second), side = tile + window - 1;
    return 1.45 * side * side / (tile * tile * window * window);
}

// A step with all its tiles.
Work work_of(const PlanStep &step) {
    Work work{.flops = share_of_direct(step.kernel) * step.flops * double(step.tiles)};
    for (const PlanArg &arg : step.args) {
        if (arg.kind != CRYO_ARG_BUFFER) continue;
        double bytes = 4 * (arg.tile_stride ? double(step.tiles) : 1); // else all tiles see the same
        for (const cryo_dim &dim : arg.dims) bytes *= double(dim.extent);
        const bool stored = arg.region == CRYO_REGION_PARAMETERS || arg.region == CRYO_REGION_PREPARED;
        (stored ? work.weights : work.values) += bytes;
    }
    return work;
}

} // namespace

double seconds_of(const Plan &plan, int64_t blocks, int64_t threads) {
    double seconds = 0, weights = 0;
    const auto each_step = [&](auto act) { // with how many blocks a call has, and how many threads
        for (size_t p = size_t(plan.prepared_phases); p < plan.phases.size(); p++) {
            const PlanPhase &phase = plan.phases[p];
            for (const PlanStep &step : phase.block)
                act(step, int64_t(1), plan.strip_tasks ? std::min(step.tiles, threads) : int64_t(1));
            for (const PlanStep &step : phase.tile)
                act(step, step.of_block ? 1 : blocks, std::min(step.tiles, threads));
            for (const PlanStep &step : phase.tail) act(step, blocks, std::min(step.tiles, threads));
        }
    };
    each_step([&](const PlanStep &step, int64_t, int64_t) { weights += work_of(step).weights; });
    each_step([&](const PlanStep &step, int64_t blocks_a_call, int64_t sharing) {
        const Work work = work_of(step);
        const double read = work.weights / rate(weights) + work.values / rate(work.values);
        seconds += std::max(work.flops / flops_a_second, read) / double(blocks_a_call * sharing);
    });
    return seconds;
}

int64_t largest_few(const Plan &one, const Plan &lanes, int64_t max_batch, int64_t threads) {
    const int64_t blocks = (max_batch + lanes.lanes - 1) / lanes.lanes;
    const double alone = seconds_of(one, 1, 1);
    if (double(lanes.lanes) * alone <= seconds_of(lanes, blocks, 1)) return max_batch;
    const double rounds = seconds_of(lanes, blocks, threads) / alone; // of a sample a thread, while a block is made
    return std::max(int64_t(1), std::min({int64_t(rounds) * threads, lanes.lanes - 1, max_batch}));
}

} // namespace cryolite
