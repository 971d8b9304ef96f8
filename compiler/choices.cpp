// What passes asked, and what they were told.
#include "choices.h"

#include <algorithm>

namespace cryolite {

void Choices::set(const std::string &kind, const std::string &about, const Knobs &option) {
    set_[{kind, about}] = option;
}

size_t Choices::choose(const Decision &decision) {
    const Name name(decision.kind, decision.about);
    auto [known, is_new] = asked_.try_emplace(name, decision);
    if (!is_new) known->second.work += decision.work;
    auto told = set_.find(name);
    if (told == set_.end()) return decision.usual;
    auto option = std::find(decision.options.begin(), decision.options.end(), told->second);
    return option == decision.options.end() ? decision.usual : size_t(option - decision.options.begin());
}

std::vector<Decision> Choices::asked() const {
    std::vector<Decision> all;
    for (const char *kind : decision_kinds) {
        const size_t first = all.size();
        for (auto &[name, decision] : asked_)
            if (name.first == kind) all.push_back(decision);
        std::stable_sort(all.begin() + long(first), all.end(),
                         [](const Decision &a, const Decision &b) { return a.work > b.work; });
    }
    return all;
}

} // namespace cryolite
