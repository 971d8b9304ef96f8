// What a run of a plan costs, roughly: to choose between plans that do the same.
#ifndef CRYOLITE_PLAN_COST_H
#define CRYOLITE_PLAN_COST_H

#include "plan.h"

namespace cryolite {

// Seconds that one thread needs for one of `blocks` blocks of a batch, or for the sample of a plan of one. By a
// roofline: a step takes what its multiply-adds take, or what its bytes take from the cache that holds them.
double thread_seconds(const Plan &plan, int64_t blocks);

// The largest batch whose samples take no longer one by one, by `one`, than a block of them does by `lanes`: fewer than
// a block, or any. At least 1, at most max_batch.
int64_t largest_few(const Plan &one, const Plan &lanes, int64_t max_batch);

} // namespace cryolite
#endif
