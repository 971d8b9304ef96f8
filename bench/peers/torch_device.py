#!/usr/bin/env python3
"""PyTorch on a CUDA device, whole networks: train steps (forward, backward, SGD) and inference, float32.

usage: torch_device.py [--wait FILE] [--seconds 0.5] [NET/MODE/BATCH/KIND ...]

KIND: eager, compile (torch.compile), graph (the eager step as a CUDA graph); "+tf32" lets matrix units round to TF32,
else they are off. Prints one JSON object a line with milliseconds a step: resident (the batch lies on the device, the
loss stays there) and copied (the batch comes from pinned memory, the loss or the outputs come back, as Cryolite's step
does), medians over rounds. Each work has a process of its own, one at a time; those that compile do that first, side by
side. --wait: the times are taken once that file is there.
"""
import argparse
import json
import multiprocessing
import os
import statistics
import time

import torch
import torch.nn as nn

from networks import NETS

ALL = [f"{net}/{mode}/{batch}/{kind}" for net in ("lenet", "resnet18_cifar") for mode in ("train", "infer")
       for batch in (256, 2048) for kind in ("eager", "graph", "compile", "graph+tf32")]


class Work:
    def __init__(self, name):
        net_name, mode, batch, kind = name.split("/")
        kind, *tf32 = kind.split("+")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(tf32)
        make, shape = NETS[net_name]
        torch.manual_seed(0)
        net = make().cuda()
        self.images = torch.randn(int(batch), *shape).pin_memory()
        self.labels = torch.randint(0, 10, (int(batch),)).pin_memory()
        self.x, self.y = self.images.cuda(), self.labels.cuda()
        net.train(mode == "train")
        run = torch.compile(net) if kind == "compile" else net
        loss = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

        def train():
            optimizer.zero_grad()
            value = loss(run(self.x), self.y)
            value.backward()
            optimizer.step()
            return value.detach()

        def infer():
            with torch.no_grad():
                return run(self.x)

        self.step = train if mode == "train" else infer
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.synchronize()
        if kind == "graph":
            graph, step = torch.cuda.CUDAGraph(), self.step
            with torch.cuda.graph(graph):
                result = step()

            def replay():
                graph.replay()
                return result
            self.step = replay

    def copied(self):
        self.x.copy_(self.images, non_blocking=True)
        self.y.copy_(self.labels, non_blocking=True)
        self.step().cpu()

    def time(self, step, seconds):
        """Milliseconds a step: the median over rounds of steps that the device gets in one go."""
        step()
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        count = max(1, int(seconds / 10 / (time.perf_counter() - began)))
        rounds, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or not rounds:
            began = time.perf_counter()
            for _ in range(count):
                step()
            torch.cuda.synchronize()
            rounds.append((time.perf_counter() - began) / count)
        return statistics.median(rounds) * 1e3


def serve(name, seconds, pipe):
    """One work in a process: ready, then timed when told to."""
    try:
        work = Work(name) if "compile" in name else torch.zeros(1).cuda()
        pipe.send("ready")
        pipe.recv()
        if "compile" not in name:
            work = Work(name)
        pipe.send({"resident_ms": work.time(work.step, seconds), "copied_ms": work.time(work.copied, seconds)})
    except Exception as error:  # of any kind: the others go on
        pipe.send("failed")
        pipe.send({"error": str(error)[:300]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wait")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("work", nargs="*", default=ALL)
    options = parser.parse_args()
    processes = []
    for name in options.work:
        pipe, end = multiprocessing.Pipe()
        process = multiprocessing.Process(target=serve, args=(name, options.seconds, end))
        process.start()  # a fork: nothing here has used the device yet
        end.close()
        processes.append((name, process, pipe))
    ready = 0
    for name, process, pipe in processes:
        try:
            ready += pipe.recv() == "ready"
        except EOFError:
            pass
    print(json.dumps({"torch": torch.__version__, "ready": ready}), flush=True)
    while options.wait and not os.path.exists(options.wait):
        time.sleep(0.2)
    for name, process, pipe in processes:
        try:
            pipe.send("go")
            result = pipe.recv()
        except (EOFError, OSError):
            result = {"error": "its process died"}
        print(json.dumps({"work": name} | result), flush=True)
        process.join()


if __name__ == "__main__":
    main()
