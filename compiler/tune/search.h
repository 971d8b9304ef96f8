// Which point of a tuning space to try next: the generator's choice, then that with one knob changed, then random
// points and neighbours of the fastest so far.
#ifndef CRYOLITE_TUNE_SEARCH_H
#define CRYOLITE_TUNE_SEARCH_H

#include "../../generators/tuning.h"

#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <set>

namespace cryolite {

class Search {
public:
    // Equal seeds and answers give equal searches. refused: hears of each point that the space refuses, once.
    Search(TuningSpace space, uint64_t seed, std::function<void(const Knobs &, const std::string &)> refused = {});

    // A point never proposed before; none when the space seems to be exhausted. The first is every knob 0.
    std::optional<Knobs> next();
    std::optional<Knobs> random();    // the same, any of them as likely as any other
    void skip(const Knobs &knobs);    // as if proposed before
    void suggest(const Knobs &knobs); // soon: known to be good elsewhere
    void timed(const Knobs &knobs, double seconds);

private:
    std::optional<Knobs> fresh(Knobs (Search::*attempt)());
    Knobs likely_point();
    Knobs random_point();
    Knobs neighbour(const Knobs &knobs);
    Knobs complete(Knobs knobs);
    TuningSpace space_;
    std::mt19937_64 random_;
    std::function<void(const Knobs &, const std::string &)> refused_;
    std::set<Knobs> proposed_;
    std::deque<Knobs> first_;                       // to propose before others
    std::vector<std::pair<double, Knobs>> fastest_; // sorted
};

} // namespace cryolite
#endif
