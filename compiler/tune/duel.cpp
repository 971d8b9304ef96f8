// Medians for what is usual, minima for what the code can do: both must agree.
#include "duel.h"

#include <algorithm>
#include <cmath>

namespace cryolite {

static double median(std::vector<double> values) {
    if (values.empty()) return 0;
    auto middle = values.begin() + long(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

Verdict judge(const Pairs &pairs, double least) {
    Verdict verdict;
    const size_t count = std::min(pairs.champion.size(), pairs.challenger.size());
    if (count == 0) return verdict;
    verdict.champion = *std::min_element(pairs.champion.begin(), pairs.champion.end());
    verdict.challenger = *std::min_element(pairs.challenger.begin(), pairs.challenger.end());
    std::vector<double> gains, deviations;
    for (size_t i = 0; i < count; i++) gains.push_back(1 - pairs.challenger[i] / pairs.champion[i]);
    verdict.gain = median(gains);
    for (double gain : gains) deviations.push_back(std::abs(gain - verdict.gain));
    verdict.spread = median(deviations);
    const double enough = std::max(least, 2 * verdict.spread);
    verdict.wins = count >= 5 && verdict.gain > enough && verdict.challenger < verdict.champion * (1 - least);
    return verdict;
}

Pairs duel(const std::function<double()> &champion, const std::function<double()> &challenger, int pairs) {
    constexpr int few = 4;
    constexpr double plainly = 1.04, hopelessly = 1.25;
    Pairs result;
    for (int i = 0; i < pairs; i++) {
        if (i % 2) result.challenger.push_back(challenger());
        result.champion.push_back(champion());
        if (i % 2 == 0) result.challenger.push_back(challenger());
        if (i != 0 && i + 1 != few) continue;
        const Verdict verdict = judge(result);
        if (verdict.challenger > (i == 0 ? hopelessly : plainly) * verdict.champion) break;
    }
    return result;
}

} // namespace cryolite
