#!/usr/bin/env python3
"""Times onnxruntime on CPU: inference of lenet and mlp, batch norm in inference mode (which onnxruntime folds).

usage: onnxruntime_bench.py [--nets lenet mlp] [--threads 1 2] [--seconds 5]
       onnxruntime_bench.py --serve          one request a line on stdin: net mode kind threads seconds
One JSON object a line, as torch_bench.py writes them. Needs onnx, onnxruntime and numpy.
"""
import argparse
import json
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """A chain of nodes with random weights."""

    def __init__(self):
        self.nodes, self.weights, self.last = [], [], "image"
        self.random = np.random.default_rng(1)

    def add(self, op, *parameters, **attributes):
        names = []
        for value in parameters:
            names.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(value.astype(np.float32), names[-1]))
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.last, *names], [output], **attributes))
        self.last = output

    def conv(self, c, k, window):
        self.add("Conv", self.random.normal(size=(k, c, window, window)) / window, self.random.normal(size=k))

    def batch_norm(self, c):
        self.add("BatchNormalization", np.ones(c), np.zeros(c), self.random.normal(size=c),
                 self.random.uniform(0.5, 2, size=c))

    def linear(self, c, k):
        self.add("Gemm", self.random.normal(size=(k, c)) / np.sqrt(c), self.random.normal(size=k), transB=1)

    def model(self):
        self.add("Softmax", axis=1)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["n", 10])
        graph = helper.make_graph(self.nodes, "net", [image], [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def lenet():
    b = Builder()
    for c, k in [(1, 6), (6, 16)]:
        b.conv(c, k, 5)
        b.batch_norm(k)
        b.add("Sigmoid")
        b.add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    b.add("Flatten")
    for c, k in [(256, 120), (120, 84)]:
        b.linear(c, k)
        b.batch_norm(k)
        b.add("Sigmoid")
    b.linear(84, 10)
    return b.model()


def mlp():
    b = Builder()
    b.add("Flatten")
    for c, k in [(784, 256), (256, 256)]:
        b.linear(c, k)
        b.batch_norm(k)
        b.add("Relu")
    b.linear(256, 10)
    return b.model()


NETS = {"lenet": lenet, "mlp": mlp}


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


def make_step(name, mode, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(NETS[name](), options, providers=["CPUExecutionProvider"])
    n = 1 if mode == "infer1" else 256
    image = np.random.default_rng(0).normal(size=(n, 1, 28, 28)).astype(np.float32)
    feeds = {"image": image}
    return (lambda: session.run(None, feeds)), n


def report(name, mode, threads, n, median, least):
    print(json.dumps(dict(net=name, batch=n, image=[1, 28, 28], mode=mode, variant="onnxruntime", threads=threads,
                          ms_median=round(median, 4), ms_min=round(least, 4),
                          images_per_s=round(n / median * 1e3, 1))), flush=True)


def serve():
    steps = {}
    for line in sys.stdin:
        name, mode, _, threads, seconds = line.split()
        key = (name, mode, threads)
        if key not in steps:
            steps[key] = make_step(name, mode, int(threads))
        step, n = steps[key]
        report(name, mode, int(threads), n, *timed(step, float(seconds)))


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument("--serve", action="store_true")
    arg.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arg.add_argument("--nets", nargs="+", default=list(NETS))
    arg.add_argument("--seconds", type=float, default=5)
    a = arg.parse_args()
    if a.serve:
        return serve()
    for name in a.nets:
        for threads in a.threads:
            for mode in ["infer", "infer1"]:
                step, n = make_step(name, mode, threads)
                report(name, mode, threads, n, *timed(step, a.seconds))


if __name__ == "__main__":
    main()
