#!/usr/bin/env python3
"""Times our networks beside PyTorch, oneDNN, onnxruntime and OpenVINO, taking turns in the same run, and writes tables
and a picture to bench/results/. scripts/bench prepares what this needs and calls it.

Rows are NET/MODE/BATCH/THREADS (resnet18_cifar/train/64/2), layers/NET (every layer's passes beside oneDNN, one
thread) and memory/NET (peak resident memory of a training process). Without options: the rows that have a target,
layers and memory. What is not built is left out. Results are written after every row, and rows that are measured later
replace their older selves of the same machine.
"""
import argparse
import datetime
import fnmatch
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

import report
from contestants import ROOT, BenchError, Setup, memory_row, time_row
from layers import time_layers
from rows import NETS, TARGETS, TRAIN_BATCH, every_row


# AMD's virtual machines hide the model behind one name: by family, and by whether there is AVX-512.
GENERATIONS = {("25", False): " Zen 3", ("25", True): " Zen 4", ("26", True): " Zen 5"}


def cpu_name():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*: (.*)", text).group(1).strip()
        wide = " AVX-512" if "avx512f" in text else " AVX2" if "avx2" in text else ""
        family = re.search(r"cpu family\s*: (.*)", text)
        if "AuthenticAMD" in text and family:
            name += GENERATIONS.get((family.group(1).strip(), "avx512f" in text), "")
        return f"{name}{wide}, {os.cpu_count()} cores"
    except (OSError, AttributeError):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def versions(python):
    if not python:
        return {}
    code = ("import importlib.metadata as m, json\n"
            "print(json.dumps({p: m.version(p) for p in ['torch', 'onnxruntime', 'openvino']}))")
    return json.loads(subprocess.run([python, "-c", code], text=True, stdout=subprocess.PIPE, check=True).stdout)


class Results:
    """One JSON file a machine, its table and its picture beside it."""

    def __init__(self, folder, fresh):
        self.machine = cpu_name()
        folder.mkdir(parents=True, exist_ok=True)
        self.stem = folder / re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-")
        self.json = self.stem.with_name(self.stem.name + ".json")
        self.rows = {}
        if self.json.exists() and not fresh:
            old = json.loads(self.json.read_text())
            self.rows = {row["name"]: row for row in old.get("rows", [])}

    def add(self, row, facts):
        self.rows[row["name"]] = row | facts
        rows = list(self.rows.values())
        self.json.write_text(json.dumps({"machine": self.machine, "rows": rows}, indent=1) + "\n")
        self.stem.with_name(self.stem.name + ".md").write_text(report.markdown(self.machine, rows))
        self.stem.with_name(self.stem.name + ".svg").write_text(report.picture(self.machine, rows))


def plan(a):
    """[(name, function)] of everything asked for."""
    steps = []
    for row in every_row() if a.all else TARGETS:
        steps.append((row.name, row.net, lambda setup, say, row=row: time_row(setup, row, a.rounds, a.seconds, say)))
    for net in NETS:
        steps.append((f"layers/{net}", net,
                      lambda setup, say, net=net: time_layers(setup, net, a.layer_rounds, a.seconds, say)))
    for net, batch in TRAIN_BATCH.items():
        steps.append((f"memory/{net}", net, lambda setup, say, net=net, batch=batch: memory_row(setup, net, batch, say)))
    return [step for step in steps
            if (not a.rows or any(fnmatch.fnmatch(step[0], pattern) for pattern in a.rows)) and
            (not a.nets or step[1] in a.nets)]


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    arg.add_argument("--peers-python", help="a Python that has torch, torchvision, onnx, onnxruntime and openvino")
    arg.add_argument("--rows", nargs="+", help="names or patterns, as 'lenet/*' or 'layers/*'")
    arg.add_argument("--nets", nargs="+", choices=NETS)
    arg.add_argument("--all", action="store_true", help="every network, batches 1, 16, 256, 1 and 2 threads, all peers")
    arg.add_argument("--rounds", type=int, default=5)
    arg.add_argument("--layer-rounds", type=int, default=2)
    arg.add_argument("--seconds", type=float, default=1.0, help="of each timing; at least three steps")
    arg.add_argument("--quick", action="store_true", help="three rounds of a quarter of a second, one of layers")
    arg.add_argument("--list", action="store_true", help="print the names of the rows")
    arg.add_argument("--options", default="", help="more options for our networks' compiler, in one word: '--lanes 8'")
    arg.add_argument("--fresh", action="store_true", help="forget the older results of this machine")
    arg.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results")
    a = arg.parse_args()
    if a.quick:
        a.rounds, a.layer_rounds, a.seconds = 3, 1, 0.25
    steps = plan(a)
    if a.list:
        print("\n".join(name for name, _, _ in steps))
        return
    if not steps:
        raise SystemExit("bench: no row has that name; --list prints them")

    setup = Setup(a.build, a.peers_python, a.options.split())
    results = Results(a.results, a.fresh)
    facts = {"date": datetime.date.today().isoformat(), "seconds": a.seconds, **versions(a.peers_python)}
    start, failed = time.monotonic(), []
    for number, (name, net, measure) in enumerate(steps):
        def say(what):
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            end, clear = ("", "\r\033[K") if sys.stderr.isatty() else ("\n", "")
            print(f"{clear}[{number + 1}/{len(steps)} {minutes}:{seconds:02}] {what}", end=end, file=sys.stderr, flush=True)

        if not setup.has(net):
            failed.append(f"{name}: {net} is not built")
            continue
        try:
            results.add(measure(setup, say), facts | {"options": a.options})
        except (BenchError, subprocess.CalledProcessError) as error:
            failed.append(f"{name}: {error}")
    setup.close()
    print(file=sys.stderr)
    print(report.summary([row for row in results.rows.values() if any(row["name"] == s[0] for s in steps)]))
    for line in failed:
        print(f"not measured: {line}", file=sys.stderr)
    print(f"written: {results.stem}.md, .json and .svg, after {(time.monotonic() - start) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
