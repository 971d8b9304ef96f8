#!/usr/bin/env python3
"""Tables from what scripts/bench_device measured: steps beside PyTorch's, and convolutions beside the device's peak.

usage: device_table.py FOLDER [--peak 67]

FOLDER: NETWORK.MODE.BATCH.json (`bench --json`), NETWORK.BATCH.profile.json (`bench --mode train --profile --json`) and
torch.jsonl (bench/peers/torch_device.py); the last two kinds may be missing. --peak: float32 TFLOP/s of the device.
"""
import argparse
import collections
import json
import os
import re

KINDS = ("eager", "compile", "graph", "graph+tf32")


def read(folder):
    steps, profiles, torch = {}, {}, {}
    for name in sorted(os.listdir(folder)):
        step = re.fullmatch(r"(\w+)\.(train|infer)\.(\d+)\.json", name)
        profile = re.fullmatch(r"(\w+)\.(\d+)\.profile\.json", name)
        if not step and not profile:
            continue
        with open(os.path.join(folder, name)) as file:
            measured = json.load(file)
        if step:
            steps[step[1], step[2], int(step[3])] = measured["ms_median"]
        else:
            profiles[profile[1], int(profile[2])] = measured["profile"]
    if os.path.exists(os.path.join(folder, "torch.jsonl")):
        with open(os.path.join(folder, "torch.jsonl")) as file:
            for row in map(json.loads, file):
                if "copied_ms" in row:
                    torch[row["work"]] = row["copied_ms"]
    return steps, profiles, torch


def print_steps(steps, torch):
    print("| step, batch | Cryolite, ms | " + " | ".join(f"PyTorch {kind}, ms" for kind in KINDS) +
          " | ratio to the fastest in float32 |")
    print("|---" * (len(KINDS) + 3) + "|")
    for (net, mode, batch), own in sorted(steps.items(), key=lambda item: (item[0][0], item[0][1] != "train", item[0][2])):
        peers = {kind: torch.get(f"{net}/{mode}/{batch}/{kind}") for kind in KINDS}
        exact = [ms for kind, ms in peers.items() if ms and "tf32" not in kind]
        cells = [f"{peers[kind]:.3g}" if peers[kind] else "" for kind in KINDS]
        ratio = f"{min(exact) / own:.2f}x" if exact else ""
        print(f"| `{net}` {mode}, {batch} | **{own:.3g}** | " + " | ".join(cells) + f" | {ratio} |")


def print_convolutions(profiles, peak):
    """Means over the layers of a shape."""
    passes = {"conv2d": "forward", "conv2d_grad_input": "input gradient", "conv2d_grad_weight": "weight gradient",
              "conv2d_grad_weight_tiles": "weight gradient"}
    for (net, batch), profile in sorted(profiles.items()):
        rates = collections.defaultdict(lambda: [0.0, 0.0])
        for phase in profile["phases"]:
            for kernel in phase["kernels"]:
                name, *words = kernel["kernel"].split()
                if name not in passes:
                    continue
                p = dict(word.split("=", 1) for word in words)
                stride = f", stride {p['stride']}" if p["stride"] != "1" else ""
                shape = (int(p["h"]), f"{p['r']}x{p['s']}, {p['c']} -> {p['k']} @ {p['h']}{stride}")
                total = rates[shape, passes[name]]
                total[0] += kernel["flops"]
                total[1] += kernel["ms"] * 1e-3
        print(f"\n| `{net}`, batch {batch} | forward | input gradient | weight gradient |\n|---|---|---|---|")
        for shape in sorted({shape for shape, _ in rates}, key=lambda s: (-s[0], s[1])):
            cells = []
            for what in ("forward", "input gradient", "weight gradient"):
                flops, seconds = rates.get((shape, what), (0, 0))
                rate = flops / seconds * 1e-12 if seconds else 0
                cells.append(f"{rate:.1f} ({100 * rate / peak:.0f}%)" if rate else "")
            print(f"| {shape[1]} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--peak", type=float, default=67)
    options = parser.parse_args()
    steps, profiles, torch = read(options.folder)
    print_steps(steps, torch)
    print("\nTFLOP/s of convolutions in the train step (share of the float32 peak of " + f"{options.peak:g}):")
    print_convolutions(profiles, options.peak)


if __name__ == "__main__":
    main()
