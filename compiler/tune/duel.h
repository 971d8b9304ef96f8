// Which of two kernels is faster, decided on a machine that others use as well.
#ifndef CRYOLITE_TUNE_DUEL_H
#define CRYOLITE_TUNE_DUEL_H

#include <functional>
#include <vector>

namespace cryolite {

// Thread times of interleaved calls: pair i is of the same moment.
struct Pairs {
    std::vector<double> champion, challenger; // seconds
};

struct Verdict {
    double champion = 0, challenger = 0; // least seconds
    double gain = 0;                     // share of the champion's time saved: median of the pairs
    double spread = 0;                   // median absolute deviation of the pairs' gains
    bool wins = false;                   // the gain is real: above max(least, 2 spread), of the minima as well
};

constexpr double least_gain = 0.03;

Verdict judge(const Pairs &pairs, double least = least_gain);

// Takes turns, the second first in every other pair: `pairs` pairs, or fewer, down to one, where the challenger is
// plainly slower. Each function gives the seconds of one sample.
Pairs duel(const std::function<double()> &champion, const std::function<double()> &challenger, int pairs);

} // namespace cryolite
#endif
