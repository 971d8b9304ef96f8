// Searches the decisions over a whole step: which algorithm a convolution takes, in which phase a weight gradient is
// made, what is stored and what every reader makes again (choices.h). Each alternative is compiled, compared and timed
// in a child process, whole steps in turns with those of the best so far; what is found becomes rows of the database.
#ifndef CRYOLITE_TUNE_STEP_TUNER_H
#define CRYOLITE_TUNE_STEP_TUNER_H

#include "../schedule_database.h"

#include <csignal>
#include <functional>

namespace cryolite {

struct StepTuneProgress {
    double passed, budget; // seconds
    int timed, failed;     // alternatives
    double before, best;   // seconds of a step: when the search began, the best known; 0 while not known
};

struct StepTuneOptions {
    Mode mode = Mode::train; // whose step
    int threads = 1;
    double budget = 60;    // seconds
    double patience = 120; // seconds that an alternative may take to compile, and to run
    int pairs = 15;        // of a duel
    double least = 0.01;   // share of the step's time that an alternative must save, besides twice the deviation
    std::function<void(const Decision &, const Knobs &option, const std::string &outcome)> explain; // every alternative
    std::function<void(const StepTuneProgress &)> progress;                                         // often
    const volatile std::sig_atomic_t *stop = nullptr; // not 0: come to an end
};

struct TunedStep {
    std::vector<TunedSchedule> kept;        // decisions that are taken otherwise now; all are in the database
    int decisions = 0;                      // that the mode's passes take
    int timed = 0, failed = 0;              // alternatives
    double seconds = 0, before_seconds = 0; // of a step: with what is kept, without; 0: nothing was kept
    double passed = 0;                      // seconds that it took
    bool exhausted = false;                 // every alternative was tried
};

// Goes on where an earlier call with this database ended. Kernels take the database's schedules. An alternative is kept
// when it wins twice; in the end all new ones must win once more, together, against what was known before, or none is,
// and the search goes on from there. Without a cache every alternative compiles all kernels. The calling process must
// have one thread. Throws InternalError where the network itself does not run.
TunedStep tune_step(const Network &network, const CompileOptions &compile, ScheduleDatabase &database,
                    const StepTuneOptions &options);

} // namespace cryolite
#endif
