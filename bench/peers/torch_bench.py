#!/usr/bin/env python3
"""PyTorch on CPU, whole networks: train steps (forward, backward, SGD) and inference.

Serves requests of scripts/bench, one JSON object a line: net, mode (train, infer), batch, threads, seconds, kind
("eager nchw", "eager nhwc", "compile nchw", "compile nhwc"; nhwc is channels_last). The answer holds the milliseconds
of single steps.
  torch_bench.py --memory NET BATCH     one training process of its own, a few steps: prints its peak resident bytes
  torch_bench.py --export FOLDER        every network in inference mode as ONNX, for onnx_bench.py
"""
import pathlib
import resource
import sys

import torch
import torch.nn as nn

from networks import NETS
from serving import serve, timed


def make_step(net_name, mode, batch, kind):
    make, shape = NETS[net_name]
    how, layout = kind.split()
    form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    torch.manual_seed(0)
    net = make().to(memory_format=form)
    x = torch.randn(batch, *shape).to(memory_format=form)
    y = torch.randint(0, 10, (batch,))
    net.train(mode == "train")
    run = torch.compile(net) if how == "compile" else net
    if mode == "infer":
        def step():
            with torch.inference_mode():
                run(x)
        return step
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss(run(x), y).backward()
        optimizer.step()
    return step


class Steps:
    """Made once for every request that differs; those of another network are let go."""

    def __init__(self):
        self.work, self.made = None, {}

    def answer(self, request):
        work = tuple(request[k] for k in ("net", "mode", "batch", "threads"))
        if work != self.work:
            self.work, self.made = work, {}
            torch._dynamo.reset()
        torch.set_num_threads(request["threads"])
        kind = request["kind"]
        if kind not in self.made:
            self.made[kind] = make_step(*work[:3], kind)
            self.made[kind]()  # compiles
        return {"ms": timed(self.made[kind], request["seconds"])}


def memory(net, batch):
    step = make_step(net, "train", batch, "eager nchw")
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


class FixedPool(nn.Module):
    """Adaptive average pooling at a known size as two matrix products: ONNX has only windows that divide."""

    def __init__(self, size, out):
        super().__init__()
        self.register_buffer("matrix", nn.functional.adaptive_avg_pool1d(torch.eye(size)[None], out)[0].t().contiguous())

    def forward(self, x):
        return self.matrix @ x @ self.matrix.t()


def export(folder):
    for name, (make, shape) in NETS.items():
        path = pathlib.Path(folder) / f"{name}.onnx"
        if path.exists():
            continue
        torch.manual_seed(0)
        net = make()
        if name == "vgg11_bn":
            net.avgpool = FixedPool(shape[1] // 32, 7)
        net = nn.Sequential(net, nn.Softmax(1)).eval()
        torch.onnx.export(net, (torch.randn(1, *shape),), str(path) + ".part", dynamo=False, opset_version=17,
                          input_names=["image"], output_names=["output"], dynamic_axes={"image": {0: "n"}})
        pathlib.Path(str(path) + ".part").rename(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--export"]:
        export(sys.argv[2])
    else:
        serve(Steps().answer)
