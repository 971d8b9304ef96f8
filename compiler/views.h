// Where values lie that have no storage of their own: behind reshape, in a slice, inside a concat.
#ifndef CRYOLITE_VIEWS_H
#define CRYOLITE_VIEWS_H

#include "op.h"

namespace cryolite {

// A range of another value's storage. The lanes of an element are not counted: offsets are those of one sample.
struct View {
    ValueId root = no_value; // has storage of its own; the value itself, where it has
    int64_t first = 0;       // element of the root
};

// A part of a concat that cannot be made inside it.
struct MisplacedPart : InternalError {
    using InternalError::InternalError;
};

// By ValueId. graph: lowered, after place_concats, or anything without concats; else MisplacedPart.
std::vector<View> find_views(const Graph &graph);

} // namespace cryolite
#endif
