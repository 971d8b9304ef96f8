// What a run of a plan costs, roughly: to choose between plans that do the same.
#ifndef CRYOLITE_PLAN_COST_H
#define CRYOLITE_PLAN_COST_H

#include "plan.h"

namespace cryolite {

// Seconds for one of `blocks` blocks of a batch, or for the sample of a plan of one, with so many threads that share
// its tiles. By a roofline: a step takes what its multiply-adds take, or what its bytes take from the cache that holds
// them.
double seconds_of(const Plan &plan, int64_t blocks, int64_t threads);

// The largest batch that takes no longer sample by sample, each on one of the threads, than in blocks: fewer samples
// than a block has, or any number. At least 1, at most max_batch.
int64_t largest_few(const Plan &one, const Plan &lanes, int64_t max_batch, int64_t threads);

} // namespace cryolite
#endif
