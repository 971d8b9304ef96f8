#!/usr/bin/env python3
"""Times PyTorch on CPU: one train step (forward, backward, SGD) and inference, for the networks Cryolite is compared on.

usage: torch_bench.py [--threads 1 2] [--nets lenet mlp ...] [--compile] > torch.jsonl
       torch_bench.py --serve          one request a line on stdin: net mode kind threads seconds
One JSON object a line: net, batch, image, mode (train|infer|infer1), variant (eager|compile, nchw|nhwc), threads,
ms_median, ms_min, images_per_s. Needs torch from PyPI, and torchvision for all networks but lenet and mlp.
"""
import argparse
import json
import sys
import time

import torch
import torch.nn as nn


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(),
                         nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10))


def cifar_resnet18():
    import torchvision
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def vision(name):
    def make():
        import torchvision
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return getattr(torchvision.models, name)(num_classes=10, **options)
    return make


NETS = {  # name: (make, image shape, train batch)
    "lenet": (lenet, (1, 28, 28), 256),
    "mlp": (mlp, (1, 28, 28), 256),
    "cifar_resnet18": (cifar_resnet18, (3, 32, 32), 64),
    "vgg11_bn": (vision("vgg11_bn"), (3, 64, 64), 32),
    "mobilenet_v2": (vision("mobilenet_v2"), (3, 96, 96), 32),
    "googlenet": (vision("googlenet"), (3, 96, 96), 32),
    "densenet121": (vision("densenet121"), (3, 64, 64), 32),
    "resnet50": (vision("resnet50"), (3, 112, 112), 16),
}


def timed(step, seconds):
    """Median and minimum of single steps, in milliseconds."""
    step()
    step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    times.sort()
    return times[len(times) // 2] * 1e3, times[0] * 1e3


def make_step(name, mode, kind, layout="nchw"):
    make, shape, batch = NETS[name]
    form = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    torch._dynamo.reset()  # else the recompile limit makes it fall back to eager
    torch.manual_seed(0)
    net = make().to(memory_format=form)
    n = 1 if mode == "infer1" else batch
    x = torch.randn(n, *shape).to(memory_format=form)
    y = torch.randint(0, 10, (n,))
    loss = nn.CrossEntropyLoss()
    run = torch.compile(net) if kind == "compile" else net
    if mode == "train":
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

        def step():
            optimizer.zero_grad()
            loss(run(x), y).backward()
            optimizer.step()
    else:
        net.eval()

        def step():
            with torch.inference_mode():
                run(x)
    return step, n


def report(name, mode, kind, layout, threads, n, median, least):
    print(json.dumps(dict(net=name, batch=n, image=NETS[name][1], mode=mode, variant=f"{kind},{layout}",
                          threads=threads, ms_median=round(median, 4), ms_min=round(least, 4),
                          images_per_s=round(n / median * 1e3, 1))), flush=True)


def serve():
    steps = {}  # compiled once, timed in every round
    for line in sys.stdin:
        name, mode, kind, threads, seconds = line.split()
        torch.set_num_threads(int(threads))
        key = (name, mode, kind, threads)
        if key not in steps:
            steps[key] = make_step(name, mode, kind)
            timed(steps[key][0], 0.5)
        step, n = steps[key]
        report(name, mode, kind, "nchw", int(threads), n, *timed(step, float(seconds)))


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument("--serve", action="store_true")
    arg.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arg.add_argument("--nets", nargs="+", default=list(NETS))
    arg.add_argument("--compile", action="store_true")
    arg.add_argument("--nhwc", action="store_true", help="channels_last as well")
    arg.add_argument("--seconds", type=float, default=5)
    arg.add_argument("--modes", nargs="+", default=["train", "infer", "infer1"])
    a = arg.parse_args()
    if a.serve:
        return serve()
    for name in a.nets:
        for threads in a.threads:
            torch.set_num_threads(threads)
            for layout in ["nchw", "nhwc"] if a.nhwc else ["nchw"]:
                for kind in ["eager", "compile"] if a.compile else ["eager"]:
                    for mode in a.modes:
                        step, n = make_step(name, mode, kind, layout)
                        report(name, mode, kind, layout, threads, n, *timed(step, a.seconds))


if __name__ == "__main__":
    main()
