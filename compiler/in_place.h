// Where a kernel's result takes the place of one of its inputs, instead of storage of its own.
#ifndef CRYOLITE_IN_PLACE_H
#define CRYOLITE_IN_PLACE_H

#include "op.h"

namespace cryolite {

// By input: the node's single result, of the same shape, reads it only at the element that it makes; so it may be
// written over it, if nothing reads the input later.
std::vector<bool> read_where_written(const Graph &graph, const Node &node);

} // namespace cryolite
#endif
