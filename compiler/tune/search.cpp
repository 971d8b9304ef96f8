// Evolutionary, with mutation only: spaces have two to four knobs.
#include "search.h"

#include <algorithm>

namespace cryolite {

namespace {

constexpr size_t parents = 4;
constexpr size_t most_first = 8;
constexpr int patience = 4000; // attempts at a point that is new and allowed

// Knobs of value 0 mean the same as none.
Knobs plain(Knobs knobs) {
    std::erase_if(knobs, [](auto &knob) { return knob.second == 0; });
    return knobs;
}

} // namespace

Search::Search(TuningSpace space, uint64_t seed, std::function<void(const Knobs &, const std::string &)> refused)
    : space_(std::move(space)), random_(seed), refused_(std::move(refused)) {
    auto alone = [&](const std::string &name) {
        return std::count(space_.together.begin(), space_.together.end(), name) == 0;
    };
    for (const Knob &knob : space_.knobs)
        for (int value : knob.values)
            if (alone(knob.name) && first_.size() < most_first) first_.push_back({{knob.name, value}});
}

std::optional<Knobs> Search::next() {
    if (proposed_.insert(Knobs{}).second) return Knobs{};
    return fresh(&Search::likely_point);
}

std::optional<Knobs> Search::random() { return fresh(&Search::random_point); }

std::optional<Knobs> Search::fresh(Knobs (Search::*attempt)()) {
    for (int i = 0; i < patience; i++) {
        const Knobs knobs = (this->*attempt)();
        if (!proposed_.insert(knobs).second) continue;
        const std::string refusal = space_.refusal(knobs);
        if (refusal.empty()) return knobs;
        if (refused_) refused_(knobs, refusal);
    }
    return std::nullopt;
}

Knobs Search::likely_point() {
    if (!first_.empty()) {
        Knobs knobs = std::move(first_.front());
        first_.pop_front();
        return knobs;
    }
    const bool explore = fastest_.empty() || random_() % 5 < 2;
    return explore ? random_point() : neighbour(fastest_[random_() % fastest_.size()].second);
}

void Search::suggest(const Knobs &knobs) { first_.push_front(plain(knobs)); }

void Search::skip(const Knobs &knobs) { proposed_.insert(plain(knobs)); }

void Search::timed(const Knobs &knobs, double seconds) {
    fastest_.push_back({seconds, plain(knobs)});
    std::sort(fastest_.begin(), fastest_.end());
    if (fastest_.size() > parents) fastest_.resize(parents);
}

Knobs Search::random_point() {
    Knobs knobs;
    for (const Knob &knob : space_.knobs)
        if (!knob.values.empty() && random_() % 4) knobs[knob.name] = knob.values[random_() % knob.values.size()];
    return complete(std::move(knobs));
}

// One or two knobs moved: most often to the next value, up or down, of those in order.
Knobs Search::neighbour(const Knobs &from) {
    Knobs knobs = from;
    for (uint64_t moves = 1 + random_() % 2; moves > 0; moves--) {
        const Knob &knob = space_.knobs[random_() % space_.knobs.size()];
        if (knob.values.empty()) continue;
        auto at = std::find(knob.values.begin(), knob.values.end(), cryolite::knob(knobs, knob.name));
        const uint64_t choice = random_() % 6;
        if (choice == 0)
            knobs.erase(knob.name);
        else if (choice == 1 || at == knob.values.end())
            knobs[knob.name] = knob.values[random_() % knob.values.size()];
        else if (choice % 2 && at != knob.values.begin())
            knobs[knob.name] = *(at - 1);
        else if (at + 1 != knob.values.end())
            knobs[knob.name] = *(at + 1);
    }
    return complete(plain(std::move(knobs)));
}

// Of knobs that go together, all get a value when one of those that moved has one.
Knobs Search::complete(Knobs knobs) {
    const std::vector<std::string> &together = space_.together;
    const auto given = std::count_if(together.begin(), together.end(), [&](auto &name) { return knobs.count(name); });
    if (given == 0 || size_t(given) == together.size()) return knobs;
    for (const Knob &knob : space_.knobs)
        if (std::find(together.begin(), together.end(), knob.name) != together.end() && !knobs.count(knob.name))
            knobs[knob.name] = knob.values[random_() % knob.values.size()];
    return knobs;
}

} // namespace cryolite
