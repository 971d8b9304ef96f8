// The weight gradient of a convolution by Winograd's products: tasks over output or input channels that walk all
// blocks, so that there are no partial sums.
#include "common.h"
#include "conv2d_winograd.h"

#include "winograd.h"

namespace cryolite {

static WinogradConv conv_of(const Graph &g, const Node &n, int64_t lanes) {
    const Shape &x = g.shape(n.inputs[0]), &dy = g.shape(n.inputs[1]);
    return {.lanes = int(lanes),
            .c = int(x[1]),
            .h = int(x[2]),
            .w = int(x[3]),
            .k = int(dy[1]),
            .r = int(n.attrs.integer("r")),
            .padding = int(n.attrs.integer("padding")),
            .m = int(n.attrs.integer("m"))};
}
static std::vector<ValueType> infer(const Graph &g, const Node &n) {
    const WinogradConv q = conv_of(g, n, 1);
    const Shape &x = g.shape(n.inputs[0]), &dy = g.shape(n.inputs[1]);
    if (x.rank() != 4 || !x.batched() || dy != Shape{Shape::batch, q.k, q.ho(), q.wo()})
        compile_error(n, "gradient " + dy.text() + " does not fit input " + x.text());
    return {{Shape{q.k, q.c, q.r, q.r}, Type::f32}};
}
static Kernel kernel(const Graph &g, const Node &n, const KernelContext &context) {
    const WinogradConv q = conv_of(g, n, context.lanes), task = winograd_grad_weight_task(q);
    const int64_t window = int64_t(q.r) * q.r, v = context.lanes;
    KernelArg x = input_arg(g, n, 0, context), dy = input_arg(g, n, 1, context);
    for (KernelArg *arg : {&x, &dy}) {
        arg->extents.pop_back();
        arg->all_blocks = true;
    }
    KernelArg dw{.kind = KernelArg::output,
                 .index = 0,
                 .extents = {q.r, q.r, task.c, task.k},
                 .strides = {1, q.r, window, window * q.c}};
    Kernel kernel{.generator = "conv2d_winograd_grad_weight",
                  .parameters = {{"c", text(task.c)},
                                 {"h", text(q.h)},
                                 {"w", text(q.w)},
                                 {"k", text(task.k)},
                                 {"r", text(q.r)},
                                 {"padding", text(q.padding)},
                                 {"m", text(q.m)}},
                  .args = {},
                  .tiles = (q.c / task.c) * (q.k / task.k),
                  .flops = 2.0 * double(v * context.max_blocks()) * double(window * task.c * task.k) * q.ho() * q.wo(),
                  .scratch = winograd_grad_weight(task).scratch_elements};
    if (task.c < q.c) {
        kernel.parameters["weight_c"] = text(q.c);
        x.extents.back() = task.c;
        x.tile_stride = v * q.w * q.h * task.c;
        dw.tile_stride = window * task.c;
    } else {
        dy.extents.back() = task.k;
        dy.tile_stride = v * q.wo() * q.ho() * task.k;
        dw.tile_stride = window * q.c * task.k;
    }
    kernel.args = {{.kind = KernelArg::batch, .extents = {}}, x, dy, {.kind = KernelArg::scratch, .extents = {}}, dw};
    store_alone(kernel, 4, context);
    return kernel;
}
static void reference(const Graph &g, const Node &n, const Inputs &in, const Outputs &out) {
    const WinogradConv q = conv_of(g, n, 1);
    size_t result = 0;
    for (int k = 0; k < q.k; k++)
        for (int c = 0; c < q.c; c++)
            for (int i = 0; i < q.r * q.r; i++, result++) {
                double sum = 0;
                for (int64_t s = 0; s < in[0]->shape[0]; s++)
                    for (int o = 0; o < q.ho() * q.wo(); o++) {
                        const int row = o / q.wo() + i / q.r - q.padding, column = o % q.wo() + i % q.r - q.padding;
                        if (row < 0 || row >= q.h || column < 0 || column >= q.w) continue;
                        sum += in[0]->data[size_t(((s * q.c + c) * q.h + row) * q.w + column)] *
                               in[1]->data[size_t((s * q.k + k) * q.ho() * q.wo() + o)];
                    }
                out[0]->data[result] = sum;
            }
}

bool lower_conv2d_grad_weight_to_winograd(Rewriter &r, const Node &n, const KernelContext &context) {
    const Shape &x = r.from.shape(n.inputs[0]), &dy = r.from.shape(n.inputs[1]);
    const WinogradConv q = choose_winograd(n, context, x, dy[1], n.attrs.integer("r"), n.attrs.integer("s"),
                                           n.attrs.integer("padding"), WinogradUse::grad_weight);
    if (!q.m) return false;
    r.bind(n.outputs[0],
           r.to.add1("conv2d_winograd_grad_weight", r.inputs(n),
                     {{"r", int64_t(q.r)}, {"m", int64_t(q.m)}, {"padding", int64_t(q.padding)}}, n.layer, n.source));
    return true;
}

static std::vector<Case> cases() {
    std::vector<Case> cases;
    auto add = [&](const char *shapes, int64_t r, int64_t m, int64_t padding) {
        cases.push_back(case_of(shapes, {{"r", r}, {"m", m}, {"padding", padding}}));
    };
    add("[n,2,4,4] [n,3,4,4]", 3, 4, 1);
    add("[n,1,1,1] [n,1,1,1]", 3, 4, 1);
    add("[n,3,7,5] [n,2,5,3]", 3, 4, 0);
    add("[n,2,5,7] [n,3,7,9]", 3, 4, 2);
    add("[n,5,7,7] [n,7,7,7]", 3, 4, 1);
    add("[n,2,6,5] [n,9,6,5]", 3, 2, 1);
    add("[n,2,8,9] [n,3,8,9]", 5, 2, 2);
    add("[n,3,5,5] [n,2,1,1]", 5, 2, 0);
    add("[n,17,14,14] [n,13,14,14]", 3, 4, 1);
    add("[n,3,3,3] [n,64,3,3]", 3, 4, 1);  // several tasks of output channels,
    add("[n,64,5,5] [n,20,5,5]", 3, 4, 1); // of input channels
    return cases;
}

extern const OpDef conv2d_winograd_grad_weight_op;
const OpDef conv2d_winograd_grad_weight_op = {.name = "conv2d_winograd_grad_weight",
                                              .summary = "conv2d_grad_weight by Winograd's products, tile by tile",
                                              .min_inputs = 2,
                                              .max_inputs = 2,
                                              .infer = infer,
                                              .kernel = kernel,
                                              .masked_input = 1,
                                              .reference = reference,
                                              .cases = cases,
                                              .no_gpu = direct_on_devices,
                                              .no_gradient = made_by_lowering};

} // namespace cryolite
