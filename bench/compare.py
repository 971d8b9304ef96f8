#!/usr/bin/env python3
"""Times Cryolite beside PyTorch and onnxruntime, taking turns in the same run, and writes the table.

Every round times each contestant once, one after the other, so that a disturbance of the machine meets all of them;
what is reported is the median over rounds of each round's median step, with the smallest and largest beside it.
scripts/bench prepares what this needs and calls it.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODES = {"train": ("train step", 256), "infer": ("inference", 256), "infer1": ("inference", 1)}


class Peer:
    """A peer's script, kept running: what it compiled stays compiled from round to round."""

    def __init__(self, python, script):
        self.process = subprocess.Popen([python, str(ROOT / "bench/peers" / script), "--serve"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def time(self, net, mode, kind, threads, seconds):
        self.process.stdin.write(f"{net} {mode} {kind} {threads} {seconds}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: a peer stopped at {net} {mode} {kind}")
        time.sleep(0.1)  # its idle workers spin for a while
        return json.loads(line)["ms_median"]


def time_ours(build, net, mode, threads, seconds):
    name = f"^{net}/{'train' if mode == 'train' else 'infer'}/batch:{MODES[mode][1]}/threads:{threads}/real_time$"
    run = subprocess.run([build / "bench/step_bench", f"--benchmark_filter={name}", "--benchmark_format=json",
                          f"--benchmark_min_time={seconds}"], text=True, stdout=subprocess.PIPE, check=True)
    rows = json.loads(run.stdout)["benchmarks"]
    if len(rows) != 1:
        raise SystemExit(f"bench: {name} names {len(rows)} benchmarks")
    return rows[0]["ms_median"]


def contestants(build, peers, mode):
    yield "cryolite", lambda net, threads, seconds: time_ours(build, net, mode, threads, seconds)
    if "torch" in peers:
        for kind in ["eager", "compile"]:
            yield f"torch {kind}", lambda net, threads, seconds, kind=kind: peers["torch"].time(
                net, mode, kind, threads, seconds)
    if "onnxruntime" in peers and mode != "train":
        yield "onnxruntime", lambda net, threads, seconds: peers["onnxruntime"].time(net, mode, "-", threads, seconds)


def measure(build, peers, a):
    results = []
    cases = [(net, mode, threads) for net in a.nets for mode in MODES for threads in a.threads]
    for number, (net, mode, threads) in enumerate(cases):
        print(f"\r\033[K[{number + 1}/{len(cases)}] {net} {mode}, threads {threads}", end="", file=sys.stderr, flush=True)
        times = {}
        for _ in range(a.rounds):
            for name, run in contestants(build, peers, mode):
                times.setdefault(name, []).append(run(net, threads, a.seconds))
        results.append(dict(net=net, mode=mode, batch=MODES[mode][1], threads=threads, times_ms=times))
    print("\r\033[K", end="", file=sys.stderr)
    return results


def format_ms(times):
    digits = 4 if statistics.median(times) < 0.1 else 3
    return f"{statistics.median(times):.{digits}f} ({min(times):.{digits}f}-{max(times):.{digits}f})"


def format_ratio(theirs, ours):
    """Of the medians, and of the fastest rounds."""
    return f"{statistics.median(theirs) / statistics.median(ours):.2f} ({min(theirs) / min(ours):.2f})"


def markdown(results, names):
    head = ["network", "step", "batch", "threads"] + [f"{name}, ms" for name in names]
    head += [f"{name} / cryolite" for name in names[1:]]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in results:
        times = row["times_ms"]
        cells = [row["net"], MODES[row["mode"]][0], str(row["batch"]), str(row["threads"])]
        cells += [format_ms(times[name]) if name in times else "" for name in names]
        cells += [format_ratio(times[name], times["cryolite"]) if name in times else "" for name in names[1:]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cpu_name():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*: (.*)", text).group(1).strip()
    except (OSError, AttributeError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def versions(python):
    if not python:
        return {}
    code = ("import importlib.metadata as m, json\n"
            "print(json.dumps({p: m.version(p) for p in ['torch', 'onnxruntime']}))")
    return json.loads(subprocess.run([python, "-c", code], text=True, stdout=subprocess.PIPE, check=True).stdout)


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    arg.add_argument("--peers-python", help="a Python that has torch, onnx and onnxruntime; without it no peers")
    arg.add_argument("--nets", nargs="+", default=["lenet", "mlp"])
    arg.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arg.add_argument("--rounds", type=int, default=7)
    arg.add_argument("--seconds", type=float, default=1.0, help="of each timing")
    arg.add_argument("--quick", action="store_true", help="three rounds of a quarter of a second")
    arg.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results", help="folder of the tables")
    a = arg.parse_args()
    if a.quick:
        a.rounds, a.seconds = 3, 0.25

    peers = {}
    if a.peers_python:
        peers = {"torch": Peer(a.peers_python, "torch_bench.py"),
                 "onnxruntime": Peer(a.peers_python, "onnxruntime_bench.py")}
    results = measure(a.build, peers, a)
    for peer in peers.values():
        peer.process.stdin.close()
        peer.process.wait()

    names = ["cryolite"] + (["torch eager", "torch compile", "onnxruntime"] if peers else [])
    table = markdown(results, names)
    kernels = subprocess.run([a.build / "bench/kernel_table", *a.nets], text=True, stdout=subprocess.PIPE,
                             check=True).stdout
    machine = cpu_name()
    facts = dict(machine=machine, date=datetime.date.today().isoformat(), rounds=a.rounds, seconds=a.seconds,
                 **versions(a.peers_python))
    text = (f"# {machine}\n\n" + ", ".join(f"{k} {v}" for k, v in facts.items() if k != "machine") +
            ". Times: median over rounds of the median step (fastest to slowest round). Ratios: of the medians (of the "
            "fastest rounds).\n\n" +
            f"{table}\n\n## Kernels\n\n{kernels}")
    print(f"{table}\n\n{kernels}")
    a.results.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    (a.results / f"{stem}.md").write_text(text.rstrip() + "\n")
    (a.results / f"{stem}.json").write_text(json.dumps(dict(facts, results=results), indent=1) + "\n")
    print(f"written: {a.results / stem}.md and .json", file=sys.stderr)


if __name__ == "__main__":
    main()
