// Channels of several values side by side, and a range of a value's channels. Neither has code: in lane layout the
// channels of a block are contiguous, so the parts of a concat are made inside it, and a slice is a place in its input
// (views.h).
#include "common.h"

namespace cryolite {

static bool has_channels(const Shape &x) { return x.batched() && (x.rank() == 2 || x.rank() == 4); }

static std::vector<ValueType> infer_concat(const Graph &graph, const Node &node) {
    Shape result = graph.shape(node.inputs[0]);
    if (!has_channels(result)) compile_error(node, "the inputs must be [n, c] or [n, c, h, w], not " + result.text());
    for (size_t i = 1; i < node.inputs.size(); i++) {
        const Shape &x = graph.shape(node.inputs[i]);
        Shape fits = result;
        if (x.rank() == result.rank()) fits.dims[1] = x[1];
        if (x != fits)
            compile_error(node, "the inputs " + graph.shape(node.inputs[0]).text() + " and " + x.text() +
                                    " differ in more than their channels");
        result.dims[1] += x[1];
    }
    return {{result, Type::f32}};
}
static std::vector<ValueType> infer_slice(const Graph &graph, const Node &node) {
    Shape x = graph.shape(node.inputs[0]);
    int64_t from = node.attrs.integer("from"), count = node.attrs.integer("count");
    if (!has_channels(x)) compile_error(node, "the input must be [n, c] or [n, c, h, w], not " + x.text());
    if (from < 0 || count < 1 || count > x[1] - from)
        compile_error(node, "the channels " + text(from) + " to " + text(from + count - 1) + " are not in " + x.text());
    x.dims[1] = count;
    return {{x, Type::f32}};
}

static std::vector<ValueId> concat_gradient(Graph &g, const Node &n, const std::vector<ValueId> &dy) {
    std::vector<ValueId> dx;
    int64_t from = 0;
    for (ValueId v : n.inputs) {
        int64_t count = g.shape(v)[1];
        dx.push_back(g.add1("slice", {dy[0]}, {{"from", from}, {"count", count}}, n.layer));
        from += count;
    }
    return dx;
}

// Copies `count` elements of every sample.
static void copy_rows(const Tensor &from, int64_t first, Tensor &to, int64_t at, int64_t count) {
    int64_t from_row = from.elements() / from.shape[0], to_row = to.elements() / to.shape[0];
    for (int64_t n = 0; n < from.shape[0]; n++)
        std::copy_n(from.data.begin() + n * from_row + first, count, to.data.begin() + n * to_row + at);
}
static void concat_reference(const Graph &, const Node &, const Inputs &in, const Outputs &out) {
    int64_t at = 0;
    for (const Tensor *x : in) {
        int64_t row = x->elements() / x->shape[0];
        copy_rows(*x, 0, *out[0], at, row);
        at += row;
    }
}
static void slice_reference(const Graph &, const Node &node, const Inputs &in, const Outputs &out) {
    int64_t row = out[0]->elements() / out[0]->shape[0], channel = row / node.attrs.integer("count");
    copy_rows(*in[0], node.attrs.integer("from") * channel, *out[0], 0, row);
}

static std::vector<Case> concat_cases() {
    return cases_of({"[n,3,2,5] [n,2,2,5]", "[n,1,1,1] [n,2,1,1] [n,1,1,1] [n,4,1,1]", "[n,3] [n,1] [n,2]"});
}
static std::vector<Case> slice_cases() {
    auto of = [](const char *shape, int64_t from, int64_t count) {
        return case_of(shape, {{"from", from}, {"count", count}});
    };
    return {of("[n,4,3,2]", 1, 2), of("[n,4,3,2]", 0, 1), of("[n,3,1,1]", 0, 3), of("[n,5]", 3, 2)};
}

extern const OpDef concat_op, slice_op;
const OpDef concat_op = {.name = "concat",
                         .summary = "channels side by side",
                         .min_inputs = 2,
                         .max_inputs = 1 << 16,
                         .infer = infer_concat,
                         .gradient = concat_gradient,
                         .place = Place::around,
                         .padding = Padding::if_all,
                         .reference = concat_reference,
                         .cases = concat_cases};
const OpDef slice_op = {.name = "slice",
                        .summary = "count channels, the first of them `from`",
                        .min_inputs = 1,
                        .max_inputs = 1,
                        .infer = infer_slice,
                        .place = Place::inside,
                        .padding = Padding::if_all,
                        .reference = slice_reference,
                        .cases = slice_cases,
                        .no_gradient = made_by_gradients};

} // namespace cryolite
