// Labels on every byte of a plan's memory: of which value it is, and of which part of that value.
#ifndef CRYOLITE_TESTS_BYTE_LABELS_H
#define CRYOLITE_TESTS_BYTE_LABELS_H

#include "op.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace cryolite::test {

struct Range {
    int64_t begin = 0, end = 0;
    bool overlaps(const Range &other) const { return begin < other.end && other.begin < end; }
    auto operator<=>(const Range &) const = default;
};

// What a byte holds: of which value that a kernel makes, and where that value's first byte is, of this block.
struct Label {
    ValueId value = no_value;
    int64_t origin = 0;
    auto operator<=>(const Label &) const = default;
};

// The labels of a region's bytes.
class Memory {
public:
    void write(Range range, Label value) {
        std::vector<std::pair<Range, Label>> kept;
        for (auto [old, label] : pieces_) {
            if (!old.overlaps(range)) kept.push_back({old, label});
            if (old.begin < range.begin && old.end > range.begin) kept.push_back({{old.begin, range.begin}, label});
            if (old.end > range.end && old.begin < range.end) kept.push_back({{range.end, old.end}, label});
        }
        kept.push_back({range, value});
        pieces_ = kept;
    }
    bool holds(Range range, Label value) const {
        int64_t bytes = 0;
        for (auto [piece, label] : pieces_)
            if (label == value && piece.overlaps(range))
                bytes += std::min(piece.end, range.end) - std::max(piece.begin, range.begin);
        return bytes == range.end - range.begin;
    }

private:
    std::vector<std::pair<Range, Label>> pieces_; // disjoint
};

// Elements of a value that a kernel makes.
struct Part {
    ValueId value;
    int64_t from, count;
};
using Parts = std::vector<Part>;

// Those of them that begin with `from`.
inline Parts cut(const Parts &parts, int64_t from, int64_t count) {
    Parts result;
    for (const Part &part : parts) {
        const int64_t skipped = std::min(std::max<int64_t>(from, 0), part.count);
        const int64_t taken = std::min(part.count - skipped, count);
        if (taken > 0) result.push_back({part.value, part.from + skipped, taken});
        from -= part.count;
        count -= std::max<int64_t>(taken, 0);
    }
    return result;
}

// By value, what it is of: reshapes, slices and concats have no storage of their own.
inline std::vector<Parts> find_parts(const Graph &graph) {
    std::vector<Parts> parts(graph.values.size());
    for (const Node &node : graph.nodes)
        for (ValueId v : node.outputs) {
            Parts &of = parts[size_t(v)];
            const int64_t elements = graph.shape(v).elements();
            if (node.op->place == Place::own) of = {{v, 0, elements}};
            if (node.op->place == Place::same) of = parts[size_t(node.inputs[0])];
            if (node.op->place == Place::inside)
                of = cut(parts[size_t(node.inputs[0])],
                         node.attrs.integer("from") * (elements / node.attrs.integer("count")), elements);
            if (node.op->place == Place::around)
                for (ValueId input : node.inputs)
                    of.insert(of.end(), parts[size_t(input)].begin(), parts[size_t(input)].end());
        }
    return parts;
}

} // namespace cryolite::test
#endif
