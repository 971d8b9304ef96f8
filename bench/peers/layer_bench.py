#!/usr/bin/env python3
"""oneDNN through PyTorch, one pass of one layer on a whole batch, one thread.

Serves requests of scripts/bench, one JSON object a line: op (a key of OPS),
pass (forward, backward-data, backward-weights; backward for all but conv2d and linear), x [n,c,h,w] or [n,c], seconds, and
what the op needs: w [k,c,r,s] or [k,c], stride, padding, window. The answer holds for each memory format the
milliseconds of single calls.
"""
import torch

from serving import serve, timed

aten = torch.ops.aten


def conv2d(r, form):
    x = torch.randn(r["x"]).to(memory_format=form)
    w = torch.randn(r["w"]).to(memory_format=form)
    groups = r["x"][1] // r["w"][1]
    rest = ([r["stride"]] * 2, [r["padding"]] * 2, [1, 1], False, [0, 0], groups)
    if r["pass"] == "forward":
        return lambda: aten.convolution(x, w, None, *rest)
    dy = torch.randn_like(aten.convolution(x, w, None, *rest))
    mask = [r["pass"] == "backward-data", r["pass"] == "backward-weights", False]
    return lambda: aten.convolution_backward(dy, x, w, None, *rest, mask)


def linear(r, form):
    x, w = torch.randn(r["x"]), torch.randn(r["w"])
    dy = torch.randn(r["x"][0], r["w"][0])
    return {"forward": lambda: aten.linear(x, w),
            "backward-data": lambda: torch.mm(dy, w),
            "backward-weights": lambda: torch.mm(dy.t(), x)}[r["pass"]]


def batch_norm(r, form):
    x = torch.randn(r["x"]).to(memory_format=form) if len(r["x"]) == 4 else torch.randn(r["x"])
    c = r["x"][1]
    weight, bias, mean, var = torch.ones(c), torch.zeros(c), torch.zeros(c), torch.ones(c)
    forward = lambda: aten.native_batch_norm(x, weight, bias, mean, var, True, 0.1, 1e-5)
    if r["pass"] == "forward":
        return forward
    y, saved_mean, saved_var = forward()
    dy = torch.randn_like(y)
    return lambda: aten.native_batch_norm_backward(dy, x, weight, mean, var, saved_mean, saved_var, True, 1e-5,
                                                   [True, True, True])


def pool(r, form):
    x = torch.randn(r["x"]).to(memory_format=form)
    size, stride, padding = [r["window"]] * 2, [r["stride"]] * 2, [r["padding"]] * 2
    if r["op"] == "max_pool2d":
        forward = lambda: aten.max_pool2d_with_indices(x, size, stride, padding)
        if r["pass"] == "forward":
            return forward
        y, indices = forward()
        dy = torch.randn_like(y)
        return lambda: aten.max_pool2d_with_indices_backward(dy, x, size, stride, padding, [1, 1], False, indices)
    forward = lambda: aten.avg_pool2d(x, size, stride, padding)
    if r["pass"] == "forward":
        return forward
    dy = torch.randn_like(forward())
    return lambda: aten.avg_pool2d_backward(dy, x, size, stride, padding, False, True, None)


def activation(r, form):
    x = torch.randn(r["x"])
    if len(r["x"]) == 4:
        x = x.to(memory_format=form)
    dy, other, y = torch.randn_like(x), torch.randn_like(x), torch.sigmoid(x)
    forward = {"relu": lambda: aten.relu_(x), "relu6": lambda: aten.hardtanh_(x, 0, 6), "add": lambda: aten.add_(x, other),
               "sigmoid": lambda: aten.sigmoid(x), "tanh": lambda: aten.tanh(x)}
    backward = {"relu": lambda: aten.threshold_backward(dy, x, 0), "relu6": lambda: aten.hardtanh_backward(dy, x, 0, 6),
                "sigmoid": lambda: aten.sigmoid_backward(dy, y), "tanh": lambda: aten.tanh_backward(dy, y)}
    return (forward if r["pass"] == "forward" else backward)[r["op"]]


OPS = {"conv2d": conv2d, "linear": linear, "batch_norm": batch_norm, "max_pool2d": pool, "avg_pool2d": pool,
       **{op: activation for op in ("relu", "relu6", "add", "sigmoid", "tanh")}}


def answer(request):
    formats = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    if len(request["x"]) != 4:
        del formats["nhwc"]
    times = {}
    with torch.inference_mode():
        for name, form in formats.items():
            times[name] = timed(OPS[request["op"]](request, form), request["seconds"] / len(formats))
    return times


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(answer)
