#!/usr/bin/env python3
"""onnxruntime and OpenVINO on CPU: inference of the networks that torch_bench.py --export wrote.

Serves requests of scripts/bench, one JSON object a line: net, batch, threads, seconds, kind (onnxruntime, openvino).
The answer holds the milliseconds of single steps. The batch is fixed when a network is loaded.
  onnx_bench.py FOLDER
"""
import sys

import numpy as np

from serving import serve, timed


def onnxruntime_step(path, batch, threads):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("n", batch)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=session.get_inputs()[0].shape).astype(np.float32)
    return lambda: session.run(None, {"image": image})


def openvino_step(path, batch, threads):
    import openvino
    core = openvino.Core()
    model = core.read_model(path)
    shape = model.input(0).partial_shape
    shape[0] = batch
    model.reshape({"image": shape})
    compiled = core.compile_model(model, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    image = np.random.default_rng(0).normal(size=[int(d) for d in compiled.input(0).shape]).astype(np.float32)
    tensor = openvino.Tensor(image)
    request.set_input_tensor(tensor)
    return lambda: request.infer()


class Steps:
    """Made once for every request that differs; those of another network are let go."""

    def __init__(self, folder):
        self.folder, self.work, self.made = folder, None, {}

    def answer(self, request):
        work = tuple(request[k] for k in ("net", "batch", "threads"))
        if work != self.work:
            self.work, self.made = work, {}
        kind = request["kind"]
        if kind not in self.made:
            make = {"onnxruntime": onnxruntime_step, "openvino": openvino_step}[kind]
            self.made[kind] = make(f"{self.folder}/{work[0]}.onnx", *work[1:])
        return {"ms": timed(self.made[kind], request["seconds"])}


if __name__ == "__main__":
    serve(Steps(sys.argv[1]).answer)
