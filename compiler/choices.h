// Decisions that passes take by models, and that a tuner may find to be better otherwise: the algorithm of a
// convolution, the phase of a weight gradient, what is stored. A row of the schedule database, too (schedules.h):
// generator is the kind, shape what it is about, knobs the option.
#ifndef CRYOLITE_CHOICES_H
#define CRYOLITE_CHOICES_H

#include "../generators/tuning.h"

#include <map>
#include <string>
#include <vector>

namespace cryolite {

// The kinds, those first that others depend on: what is stored is known by the lowered graph it is decided on.
inline constexpr const char *decision_kinds[] = {"winograd", "strassen", "weight_gradient", "storage"};

struct Decision {
    std::string kind;
    std::string about; // "c=64 h=32 ...": equal ones are decided equally
    std::vector<Knobs> options;
    size_t usual;    // the option that the model takes
    double work = 0; // that depends on it: additions a block, over all places with the same decision
};

class Choices {
public:
    void set(const std::string &kind, const std::string &about, const Knobs &option);
    // The option to take: what was set, if it is one of the decision's, else the usual one.
    size_t choose(const Decision &decision);
    // What was asked, each decision once; by kind, then the most work first.
    std::vector<Decision> asked() const;

private:
    using Name = std::pair<std::string, std::string>; // kind, about
    std::map<Name, Knobs> set_;
    std::map<Name, Decision> asked_;
};

} // namespace cryolite
#endif
