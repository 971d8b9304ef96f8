// One loop: children compile on some cores, one child at a time runs on a core of its own.
#include "tuner.h"

#include "child.h"
#include "duel.h"
#include "kernel_arguments.h"
#include "machine_code.h"
#include "search.h"

#include "../cache.h"
#include "../graph.h"
#include "../jit.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <thread>

namespace cryolite {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double tolerance = 1e-4; // largest difference of a result over the largest value

struct Compiled {
    Knobs knobs;
    KernelSpec kernel;
    CompiledObject object;
    MachineCode code;
};

// What a run in a child found out, handed back as bytes.
struct Found {
    double error = 0;
    Verdict against_champion, against_own;
};

template <typename T> std::string to_bytes(const T &value) {
    return std::string(reinterpret_cast<const char *>(&value), sizeof value);
}
template <typename T> T from_bytes(const std::string &bytes) {
    if (bytes.size() < sizeof(T)) throw InternalError("a child's answer is cut short");
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

class Tuner {
public:
    Tuner(const KernelSpec &kernel, const KernelTarget &target, ScheduleDatabase &database, const TuneOptions &options)
        : kernel_(kernel), target_(target), database_(database), options_(options), key_(schedule_key(kernel, target)),
          search_(tuning_space(kernel, target), std::hash<std::string>()(kernel.key()) + options.seed,
                  [this](const Knobs &knobs, const std::string &why) {
                      tuned_.counts.refused++;
                      tell(knobs, "refused: " + why);
                  }) {
        std::vector<int> cores = usable_cores();
        jobs_ = options.jobs > 0 ? options.jobs : std::max(1, int(cores.size()));
        if (cores.size() > 1) {
            all_cores_ = cores;
            timing_core_ = {cores.back()};
            cores.pop_back();
            other_cores_ = cores;
        }
    }

    Tuned run() {
        prepare();
        tuned_.schedule.key = key_;
        while (!over() || timing_) {
            start_compiling();
            start_timing();
            share_cores();
            if (compiling_.empty() && !timing_) break; // nothing left
            std::vector<Child *> children;
            for (auto &job : compiling_) children.push_back(job.child.get());
            if (timing_) children.push_back(timing_->child.get());
            Child::wait(children, 0.1);
            finish_compiling();
            finish_timing();
            share_cores();
            report();
            if (stopped()) break;
        }
        compiling_.clear();
        timing_.reset();
        if (!stopped()) settle();
        tuned_.seconds = passed();
        return std::move(tuned_);
    }

private:
    struct Job {
        Knobs knobs;
        std::unique_ptr<Child> child;
    };
    struct Timing {
        Compiled candidate;
        bool again; // it won once
        std::unique_ptr<Child> child;
    };

    double passed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    bool stopped() const { return options_.stop && *options_.stop; }
    bool over() const { return stopped() || passed() >= options_.budget; }
    void tell(const Knobs &knobs, const std::string &outcome) const {
        if (options_.explain) options_.explain(knobs, outcome);
    }
    void remember(const Knobs &knobs, const std::string &outcome) {
        database_.add_tried(key_, {knobs, outcome});
        tell(knobs, outcome);
    }

    // Compiled in this process, so that children inherit a compiler that is warm; it is the one candidate to trust.
    void prepare() {
        own_ = compile({});
        champion_ = own_;
        codes_[own_.code.hash] = {};
        arguments_ = std::make_unique<KernelArguments>(kernel_, target_, options_.batch, options_.functions);
        Child child([this] { return own_results(); }, options_.patience, timing_core_);
        while (!child.finished()) Child::wait({&child}, 1);
        if (!child.succeeded()) throw InternalError("kernel '" + kernel_.key() + "': " + child.failure());
        expected_.resize(child.text().size() / sizeof(float));
        std::memcpy(expected_.data(), child.text().data(), expected_.size() * sizeof(float));
        search_.next(); // the own choice
        for (const TriedCandidate &tried : database_.tried(key_)) search_.skip(tried.knobs);
        int suggestions = 6;
        for (const TunedSchedule &known : database_.all()) {
            if (known.key == key_ && !known.knobs.empty()) waiting_.push_back(known.knobs);
            const bool near = known.key.generator == key_.generator && known.key.target == key_.target;
            if (near && known.key != key_ && suggestions-- > 0) search_.suggest(known.knobs);
        }
    }

    // In a child.
    void open_device() const {
        if (!options_.device) return;
        std::string why;
        runtime::Device *device = options_.device(why);
        if (!device) throw InternalError(why);
        arguments_->move_to(*device);
    }

    // In a child.
    std::string own_results() const {
        open_device();
        const LinkedObjects linked({own_.object}, target_.name, kernel_.generator, options_.functions);
        const std::string fault = arguments_->try_out(function_of(own_, linked));
        if (!fault.empty()) throw InternalError(fault);
        const std::vector<float> results = arguments_->results();
        return std::string(reinterpret_cast<const char *>(results.data()), results.size() * sizeof(float));
    }

    KernelFunction function_of(const Compiled &compiled, const LinkedObjects &linked) const {
        return linked.lookup<KernelFunction>(kernel_symbol(compiled.kernel, target_) + "_argv");
    }

    Compiled compile(const Knobs &knobs) const {
        Compiled compiled{knobs, with_knobs(kernel_, knobs), {}, {}};
        compiled.object = compile_kernel(compiled.kernel, target_);
        compiled.code = target_.gpu ? device_code(compiled.object.bytes, kernel_symbol(compiled.kernel, target_))
                                    : machine_code(compiled.object.bytes, compiled.kernel.key());
        return compiled;
    }

    void start_compiling() {
        while (!over() && int(compiling_.size()) < jobs_ && ready_.size() < 8) {
            std::optional<Knobs> knobs;
            if (!waiting_.empty()) {
                knobs = waiting_.front();
                waiting_.pop_front();
                search_.skip(*knobs);
            } else {
                knobs = search_.next();
            }
            if (!knobs) {
                tuned_.exhausted = true;
                return;
            }
            auto work = [this, knobs] {
                Compiled compiled = compile(*knobs);
                return to_bytes(compiled.code) +
                       std::string(compiled.object.bytes.begin(), compiled.object.bytes.end());
            };
            compiling_.push_back({*knobs, std::make_unique<Child>(work, options_.patience, compiling_cores())});
        }
    }

    // Compilers have the timing core too, while nothing is timed.
    const std::vector<int> &compiling_cores() const { return timing_ ? other_cores_ : all_cores_; }
    void share_cores() {
        if (bool(timing_) == timing_was_) return;
        timing_was_ = bool(timing_);
        for (const Job &job : compiling_) job.child->run_on(compiling_cores());
    }

    void finish_compiling() {
        for (auto job = compiling_.begin(); job != compiling_.end();) {
            if (!job->child->finished()) {
                ++job;
                continue;
            }
            if (job->child->succeeded()) {
                const std::string &bytes = job->child->text();
                Compiled candidate{job->knobs, with_knobs(kernel_, job->knobs), {}, from_bytes<MachineCode>(bytes)};
                candidate.object = {kernel_symbol(candidate.kernel, target_) + ".o",
                                    {bytes.begin() + sizeof(MachineCode), bytes.end()},
                                    {candidate.kernel.key()}};
                const auto [same, fresh] = codes_.insert({candidate.code.hash, job->knobs});
                const std::string refusal = !fresh ? "its code is that of " + print(same->second)
                                                   : code_refusal(candidate.code.hot, own_.code.hot);
                if (refusal.empty()) {
                    ready_.push_back(std::move(candidate));
                } else {
                    tuned_.counts.by_code++;
                    remember(job->knobs, "rejected: " + refusal);
                }
            } else {
                tuned_.counts.failed++;
                remember(job->knobs, "rejected in compilation: " + job->child->failure());
            }
            job = compiling_.erase(job);
        }
    }

    void start_timing() {
        if (timing_ || ready_.empty() || stopped()) return;
        start_timing(std::move(ready_.front()), false);
        ready_.pop_front();
    }
    void start_timing(Compiled candidate, bool again) {
        timing_ = std::make_unique<Timing>(Timing{std::move(candidate), again, {}});
        auto work = [this, again] { return to_bytes(measure(timing_->candidate, again)); };
        timing_->child = std::make_unique<Child>(work, options_.patience, timing_core_);
    }

    // In a child.
    Found measure(const Compiled &candidate, bool again) const {
        std::vector<CompiledObject> objects{own_.object};
        if (champion_.object.name != own_.object.name) objects.push_back(champion_.object);
        if (candidate.object.name != own_.object.name && candidate.object.name != champion_.object.name)
            objects.push_back(candidate.object);
        open_device();
        const LinkedObjects linked(objects, target_.name, kernel_.generator, options_.functions);
        const KernelFunction own = function_of(own_, linked), champion = function_of(champion_, linked),
                             challenger = function_of(candidate, linked);
        const std::string fault = arguments_->try_out(challenger);
        if (!fault.empty()) throw InternalError(fault);
        Found found{.error = difference(arguments_->results(), expected_)};
        if (!(found.error <= tolerance))
            throw InternalError(fmt::format("it gives other numbers: they differ by {:.2g}", found.error));
        auto time = [&](KernelFunction f) { return [this, f] { return arguments_->seconds(f); }; };
        const int pairs = again ? 2 * options_.pairs : options_.pairs;
        if (again) found.against_own = judge(duel(time(own), time(challenger), pairs));
        if (!again || champion != own)
            found.against_champion = judge(duel(time(champion), time(challenger), pairs));
        else
            found.against_champion = found.against_own;
        return found;
    }

    void finish_timing() {
        if (!timing_ || !timing_->child->finished()) return;
        const std::unique_ptr<Timing> timing = std::move(timing_);
        const Knobs &knobs = timing->candidate.knobs;
        if (!timing->child->succeeded()) {
            tuned_.counts.failed++;
            remember(knobs, "rejected: " + timing->child->failure());
            return;
        }
        const Found found = from_bytes<Found>(timing->child->text());
        const Verdict &verdict = found.against_champion;
        if (!timing->again) {
            tuned_.counts.timed++;
            search_.timed(knobs, verdict.challenger);
            note_own(verdict);
            if (verdict.wins)
                start_timing(std::move(timing->candidate), true);
            else
                remember(knobs, fmt::format("timed: {:+.1f}% against the best, spread {:.1f}%", -100 * verdict.gain,
                                            100 * verdict.spread));
        } else if (verdict.wins && found.against_own.wins) {
            take(timing->candidate, found);
        } else {
            remember(knobs, fmt::format("timed: its win was not repeated, {:+.1f}%", -100 * verdict.gain));
        }
    }

    void note_own(const Verdict &verdict) {
        if (champion_.knobs.empty() && (own_seconds_ == 0 || verdict.champion < own_seconds_))
            own_seconds_ = best_seconds_ = verdict.champion;
        if (tuned_.curve.empty()) tuned_.curve.push_back({passed(), own_seconds_});
    }

    void take(const Compiled &winner, const Found &found) {
        const Verdict &own = found.against_own;
        champion_ = winner;
        own_seconds_ = own.champion;
        best_seconds_ = own.challenger;
        tuned_.curve.push_back({passed(), best_seconds_});
        store(winner.knobs, own, found.error);
        remember(winner.knobs, fmt::format("won: {:+.1f}% against the generator's own choice, spread {:.1f}%",
                                           -100 * own.gain, 100 * own.spread));
    }

    void store(const Knobs &knobs, const Verdict &own, double error) {
        tuned_.schedule = {.key = key_,
                           .knobs = knobs,
                           .seconds = own.challenger,
                           .own_seconds = own.champion,
                           .spread = own.spread,
                           .error = error,
                           .made = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))),
                           .machine = target_.gpu ? target_.cpu : processor_name()};
        database_.store({tuned_.schedule});
    }

    // The winner once more; where it does not win again, the generator's own choice is what is known to be best.
    void settle() {
        const bool own_is_best = champion_.knobs.empty();
        Found found;
        try {
            Child child([this] { return to_bytes(measure(champion_, true)); }, options_.patience, timing_core_);
            while (!child.finished()) Child::wait({&child}, 1);
            if (!child.succeeded()) throw InternalError(child.failure());
            found = from_bytes<Found>(child.text());
        } catch (const InternalError &error) {
            if (own_is_best) throw; // the generator's own kernel does not run
            remember(champion_.knobs, std::string("rejected in the end: ") + error.what());
        }
        if (!own_is_best && !found.against_own.wins) {
            remember(champion_.knobs, fmt::format("lost in the end: {:+.1f}%", -100 * found.against_own.gain));
            found = {};
            found.against_own.champion = found.against_own.challenger = own_seconds_;
            champion_ = own_;
        }
        if (champion_.knobs.empty()) found.against_own.challenger = found.against_own.champion;
        store(champion_.knobs, found.against_own, found.error);
        tuned_.curve.push_back({passed(), tuned_.schedule.seconds});
    }

    void report() const {
        if (options_.progress)
            options_.progress({tuned_.counts, passed(), options_.budget, own_seconds_, best_seconds_});
    }

    const KernelSpec &kernel_;
    const KernelTarget &target_;
    ScheduleDatabase &database_;
    const TuneOptions &options_;
    const ScheduleKey key_;
    Tuned tuned_;
    Search search_;
    std::vector<int> timing_core_, other_cores_, all_cores_;
    int jobs_ = 1;
    Clock::time_point start_ = Clock::now();
    Compiled own_, champion_;
    double own_seconds_ = 0, best_seconds_ = 0;
    std::unique_ptr<KernelArguments> arguments_;
    std::vector<float> expected_;     // what the own choice gives
    std::map<uint64_t, Knobs> codes_; // by hash, whose it was first
    std::deque<Knobs> waiting_;       // known from before
    std::vector<Job> compiling_;
    std::deque<Compiled> ready_;
    std::unique_ptr<Timing> timing_;
    bool timing_was_ = false;
};

} // namespace

Tuned tune(const KernelSpec &kernel, const KernelTarget &target, ScheduleDatabase &database,
           const TuneOptions &options) {
    if (tuning_space(kernel, target).knobs.empty())
        throw CompileError("generator '" + kernel.generator + "' has nothing to tune");
    return Tuner(kernel, target, database, options).run();
}

std::string device_name(const std::function<runtime::Device *(std::string &why)> &open) {
    Child child(
        [&] {
            std::string why;
            if (runtime::Device *device = open(why)) return std::string(device->name());
            throw InternalError(why);
        },
        30);
    while (!child.finished()) Child::wait({&child}, 1);
    if (!child.succeeded()) throw InternalError(child.failure());
    std::string name = child.text();
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
}

std::string processor_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
    return "unknown";
}

} // namespace cryolite
