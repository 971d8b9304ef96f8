#!/usr/bin/env python3
"""oneDNN's convolutions inside PyTorch's train steps, by oneDNN's own clock, one thread: what surrounds a call, and what
the caches hold, is as in training, as it is for ours.

Serves requests of scripts/bench, one JSON object a line: net, batch, seconds. The answer holds for each memory format a
list of convolutions: x [n,c,h,w], w [k,c/groups,r,s], stride, padding, pass (forward, backward-data, backward-weights)
and ms, one figure a step, the mean over equal layers. What reorders its values or weights counts as part of a
convolution. The allocator keeps what PyTorch frees, so that no call waits for fresh pages.
"""
import collections
import ctypes
import os
import re
import sys
import tempfile
import time

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
if not KEEP.items() <= os.environ.items():
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})

import torch

from serving import serve
from torch_bench import make_step

PASSES = {"forward_training": "forward", "backward_data": "backward-data", "backward_weights": "backward-weights"}
SHAPE = re.compile(r"(?:g(\d+))?mb(\d+)_ic(\d+)oc(\d+)_ih(\d+)oh\d+kh(\d+)sh(\d+)dh0ph(\d+)_iw(\d+)ow\d+kw(\d+)sw\d+dw0pw\d+")


def convolutions(lines):
    """(what, ms) of each convolution among the lines that oneDNN wrote, with the reorders that belong to it."""
    found, waiting = [], 0.0
    for line in lines:
        fields = line.strip().split(",")
        if fields[:4] != ["onednn_verbose", "v1", "primitive", "exec"]:
            continue
        kind, ms = fields[5], float(fields[-1])
        if kind == "reorder":
            # From a plain format, which names letters alone, it serves the next convolution; else the one before.
            plain = re.search(r"src:\w+:\w*:blocked:([a-z]+):", line)
            if plain or not found:
                waiting += ms
            else:
                found[-1][1] += ms
        elif kind == "convolution":
            g, n, c, k, h, r, stride, padding, w, s = (int(v or 1) for v in SHAPE.fullmatch(fields[-2]).groups())
            found.append([((n, c, h, w), (k, c // g, r, s), stride, padding, PASSES[fields[7]]), ms + waiting])
            waiting = 0.0
    return found


class Steps:
    """Made once for every network; that before is let go."""

    def __init__(self, log):
        self.log, self.work, self.made = log, None, {}

    def answer(self, request):
        work = request["net"], request["batch"]
        if work != self.work:
            self.work, self.made = work, {}
            for form in ("nchw", "nhwc"):
                self.made[form] = make_step(work[0], "train", work[1], f"eager {form}")
                self.made[form]()
        return {form: self.times(step, request["seconds"] / len(self.made)) for form, step in self.made.items()}

    def times(self, step, seconds, least=3):
        step()
        times, end = collections.defaultdict(list), time.perf_counter() + seconds
        done = 0
        while done < least or time.perf_counter() < end:
            equal = collections.defaultdict(list)
            for what, ms in convolutions(self.written(step)):
                equal[what].append(ms)
            for what, ms in equal.items():
                times[what].append(sum(ms) / len(ms))
            done += 1
        keys = ("x", "w", "stride", "padding", "pass")
        return [{**dict(zip(keys, what)), "ms": ms} for what, ms in times.items()]

    def written(self, step):
        """The lines that oneDNN writes while a step runs."""
        self.log.seek(0)
        self.log.truncate()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            step()
        ctypes.CDLL(None).fflush(None)
        self.log.seek(0)
        return self.log.readlines()


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = os.dup(1)
    with tempfile.TemporaryFile("w+") as log:
        os.dup2(log.fileno(), 1)  # oneDNN writes to standard output
        sys.stdout = open(answers, "w")
        serve(Steps(log).answer)
