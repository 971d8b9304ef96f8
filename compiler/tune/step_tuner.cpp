// One alternative after another, by kind, those first on which most work depends.
#include "step_tuner.h"

#include "child.h"
#include "duel.h"
#include "kernel_arguments.h"
#include "tuner.h"

#include "../../runtime/cryolite_runtime.h"
#include "../graph.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <set>

namespace cryolite {

namespace {

using Clock = std::chrono::steady_clock;

// Of a result over the largest value. A relu that rounding decides otherwise moves gradients by up to a hundredth.
constexpr double tolerance = 1e-2;
constexpr double sample_seconds = 5e-3; // short steps are timed several at once

double seconds_of(const std::function<void()> &work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// An open model and a batch of random data for it; equal networks get equal data.
class Subject {
public:
    Subject(const CompiledModel &compiled, Mode mode, int threads) : mode_(mode), loaded_(compiled) {
        cryo_options open = {};
        open.threads = threads;
        if (cryo_open(loaded_.program(), &open, &model_) != CRYO_OK) throw InternalError(cryo_open_error());
        check(cryo_initialize(model_, 1));
        batch_ = cryo_max_batch(model_);
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        images_.resize(size_t(batch_) * cryo_input_elements(model_));
        for (float &pixel : images_) pixel = normal(random);
        for (int64_t i = 0; i < batch_; i++) labels_.push_back(int32_t(random() % uint32_t(cryo_classes(model_))));
        outputs_.resize(size_t(batch_ * cryo_classes(model_)));
    }
    ~Subject() { cryo_close(model_); }
    Subject(const Subject &) = delete;
    Subject &operator=(const Subject &) = delete;

    // What one step makes: the outputs, or the loss and all parameters and states.
    std::vector<std::vector<float>> results() {
        check(cryo_set_learning_rate(model_, 0.1));
        step();
        check(cryo_set_learning_rate(model_, 0)); // labels are random: nothing may run away
        if (mode_ == Mode::infer) return {outputs_};
        std::vector<std::vector<float>> all{{float(result_.loss)}};
        for (size_t i = 0; i < cryo_parameter_count(model_); i++) {
            cryo_parameter_info info = {};
            check(cryo_parameter_at(model_, i, &info));
            all.emplace_back(info.elements);
            check(cryo_get_parameter(model_, info.name, all.back().data(), all.back().size()));
        }
        return all;
    }

    // Of one step.
    double seconds() {
        if (steps_ == 0) { // so many for a sample
            step();
            steps_ = std::max(1, int(sample_seconds / std::max(1e-7, seconds_of([this] { step(); }))));
        }
        return seconds_of([this] {
                   for (int i = 0; i < steps_; i++) step();
               }) /
               steps_;
    }

private:
    void check(cryo_status status) const {
        if (status != CRYO_OK) throw InternalError(cryo_error(model_));
    }
    void step() {
        if (mode_ == Mode::train)
            check(cryo_train_step(model_, images_.data(), labels_.data(), batch_, &result_));
        else if (mode_ == Mode::evaluate)
            check(cryo_evaluate(model_, images_.data(), labels_.data(), batch_, &result_));
        else
            check(cryo_infer(model_, images_.data(), batch_, outputs_.data()));
    }

    Mode mode_;
    LoadedModel loaded_;
    cryo_model *model_ = nullptr;
    int64_t batch_ = 0;
    std::vector<float> images_, outputs_;
    std::vector<int32_t> labels_;
    cryo_result result_ = {};
    int steps_ = 0;
};

double largest_difference(const std::vector<std::vector<float>> &results,
                          const std::vector<std::vector<float>> &expected) {
    if (results.size() != expected.size()) return INFINITY;
    double largest = 0;
    for (size_t i = 0; i < results.size(); i++) largest = std::max(largest, difference(results[i], expected[i]));
    return largest;
}

// Answers instead of the models': rows of the database, by key.
using Answers = std::map<ScheduleKey, TunedSchedule>;

struct Found {
    double error = 0;
    Verdict verdict;
};

struct Alternative {
    Decision decision;
    Knobs option;
};

class StepTuner {
public:
    StepTuner(const Network &network, const CompileOptions &compile, ScheduleDatabase &database,
              const StepTuneOptions &options)
        : network_(network), compile_(compile), database_(database), options_(options),
          target_(resolve_target(compile)) {
        compile_.train = options.mode == Mode::train;
        compile_.schedules = ""; // answers and kernels' schedules come from the rows
        compile_.progress = {};
    }

    TunedStep run() {
        for (TunedSchedule &row : database_.all()) {
            if (!is_decision(row.key.generator))
                kernels_.push_back(std::move(row));
            else if (!row.knobs.empty() && row.key == decision_key(row.key.generator, row.key.shape, target_))
                answers_[row.key] = std::move(row);
        }
        before_ = answers_;
        try {
            in_child(whole_compilation, [this] { // the network itself; all its kernels are in the cache then
                Subject(compiled(answers_), options_.mode, options_.threads).results();
                return std::string();
            });
        } catch (const InternalError &) {
            if (!stopped()) throw;
        }
        while (!over()) {
            std::optional<Alternative> next = next_alternative();
            if (next) {
                consider(*next);
                report();
            } else if (settle()) { // else there are alternatives to what the step is again
                tuned_.exhausted = !stopped();
                break;
            }
        }
        if (!stopped() && !tuned_.exhausted) settle();
        tuned_.passed = passed();
        return std::move(tuned_);
    }

private:
    static constexpr double whole_compilation = 3600; // seconds

    static bool is_decision(const std::string &generator) {
        return std::find(std::begin(decision_kinds), std::end(decision_kinds), generator) != std::end(decision_kinds);
    }
    double passed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    bool stopped() const { return options_.stop && *options_.stop; }
    bool over() const { return stopped() || passed() >= options_.budget; }

    Schedules schedules(const Answers &answers) const {
        Schedules schedules;
        std::vector<TunedSchedule> rows = kernels_;
        for (auto &[key, row] : answers) rows.push_back(row);
        schedules.add(std::move(rows));
        return schedules;
    }
    CompiledModel compiled(const Answers &answers) const { return compile(network_, compile_, schedules(answers)); }

    // The first that was not tried. The passes are asked anew where an answer has changed: others may then follow.
    std::optional<Alternative> next_alternative() {
        if (decisions_.empty()) decisions_ = decisions(network_, compile_, options_.mode, schedules(answers_));
        tuned_.decisions = int(decisions_.size());
        for (const Decision &decision : decisions_) {
            const ScheduleKey key = decision_key(decision.kind, decision.about, target_);
            auto [tried, is_new] = tried_.try_emplace(key);
            if (is_new)
                for (const TriedCandidate &before : database_.tried(key)) tried->second.insert(before.knobs);
            for (const Knobs &option : decision.options)
                if (option != answer(decision, key) && tried->second.insert(option).second)
                    return Alternative{decision, option};
        }
        return std::nullopt;
    }
    Knobs answer(const Decision &decision, const ScheduleKey &key) const {
        auto found = answers_.find(key);
        return found == answers_.end() ? decision.options[decision.usual] : found->second.knobs;
    }

    void consider(const Alternative &alternative) {
        const ScheduleKey key = decision_key(alternative.decision.kind, alternative.decision.about, target_);
        Answers changed = answers_;
        changed[key] = {.key = key, .knobs = alternative.option};
        Found found;
        try {
            found = compare(answers_, changed, options_.pairs);
            tuned_.timed++;
            if (first_ == 0) first_ = best_ = found.verdict.champion;
            if (found.verdict.wins) found = compare(answers_, changed, 2 * options_.pairs);
        } catch (const InternalError &error) {
            if (stopped()) return; // perhaps for that
            tuned_.failed++;
            return remember(alternative, std::string("rejected: ") + error.what());
        }
        const Verdict &verdict = found.verdict;
        const std::string figures =
            fmt::format("{:+.1f}% of the step, spread {:.1f}%", -100 * verdict.gain, 100 * verdict.spread);
        if (!verdict.wins) return remember(alternative, "timed: " + figures);
        changed[key] = row(key, alternative.option, found);
        database_.store({changed[key]});
        won_.insert(key);
        answers_ = std::move(changed);
        decisions_.clear();
        best_ = verdict.challenger;
        remember(alternative, "won: " + figures);
    }

    // In a child, which may crash, hang or find other numbers: then it throws.
    Found compare(const Answers &champion, const Answers &challenger, int pairs) const {
        const std::string bytes = in_child(options_.patience, [&] {
            const CompiledModel first = compiled(champion), second = compiled(challenger);
            Subject one(first, options_.mode, options_.threads), other(second, options_.mode, options_.threads);
            Found found{.error = largest_difference(other.results(), one.results())};
            if (!(found.error <= tolerance))
                throw InternalError(fmt::format("it gives other numbers: they differ by {:.2g}", found.error));
            found.verdict =
                judge(duel([&] { return one.seconds(); }, [&] { return other.seconds(); }, pairs), options_.least);
            return std::string(reinterpret_cast<const char *>(&found), sizeof found);
        });
        Found found;
        if (bytes.size() != sizeof found) throw InternalError("a child's answer is cut short");
        std::memcpy(&found, bytes.data(), sizeof found);
        return found;
    }

    std::string in_child(double patience, const std::function<std::string()> &work) const {
        Child child(work, patience);
        while (!child.finished()) {
            Child::wait({&child}, 0.2);
            report();
            if (stopped()) throw InternalError("interrupted");
        }
        if (!child.succeeded()) throw InternalError(child.failure());
        return child.text();
    }

    // All new answers together against those from before, which may be other networks' as well: they stay. False where
    // the new ones do not win: the step is as before then.
    bool settle() {
        if (won_.empty()) return true;
        Found found;
        try {
            found = compare(before_, answers_, 2 * options_.pairs);
        } catch (const InternalError &) {
            if (stopped()) return true;
        }
        std::vector<TunedSchedule> rows;
        for (const ScheduleKey &key : won_) {
            auto known = before_.find(key);
            if (found.verdict.wins)
                rows.push_back(answers_.at(key));
            else
                rows.push_back(known == before_.end() ? row(key, {}, found) : known->second); // {}: the model's answer
        }
        database_.store(rows);
        won_.clear();
        if (!found.verdict.wins) {
            answers_ = before_;
            decisions_.clear();
            return false;
        }
        tuned_.seconds = found.verdict.challenger;
        tuned_.before_seconds = found.verdict.champion;
        tuned_.kept = std::move(rows);
        return true;
    }

    TunedSchedule row(const ScheduleKey &key, const Knobs &option, const Found &found) const {
        return {.key = key,
                .knobs = option,
                .seconds = found.verdict.challenger,
                .own_seconds = found.verdict.champion,
                .spread = found.verdict.spread,
                .error = found.error,
                .made = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))),
                .machine = processor_name()};
    }

    void remember(const Alternative &alternative, const std::string &outcome) {
        const Decision &decision = alternative.decision;
        database_.add_tried(decision_key(decision.kind, decision.about, target_), {alternative.option, outcome});
        if (options_.explain) options_.explain(decision, alternative.option, outcome);
    }
    void report() const {
        if (options_.progress)
            options_.progress({passed(), options_.budget, tuned_.timed, tuned_.failed, first_, best_});
    }

    const Network &network_;
    CompileOptions compile_;
    ScheduleDatabase &database_;
    const StepTuneOptions &options_;
    const KernelTarget target_;
    const Clock::time_point start_ = Clock::now();
    std::vector<TunedSchedule> kernels_;
    Answers answers_, before_;        // best known; when the search began
    std::set<ScheduleKey> won_;       // in this search
    std::vector<Decision> decisions_; // of the passes with these answers; empty: not known
    std::map<ScheduleKey, std::set<Knobs>> tried_;
    TunedStep tuned_;
    double first_ = 0, best_ = 0;
};

} // namespace

TunedStep tune_step(const Network &network, const CompileOptions &compile, ScheduleDatabase &database,
                    const StepTuneOptions &options) {
    return StepTuner(network, compile, database, options).run();
}

} // namespace cryolite
