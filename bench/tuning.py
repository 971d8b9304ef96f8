"""Measures what tuning gains: 30 kernels with their generators' own schedules, tuned, and under Halide's autoschedulers.

Each kernel is one run of tuning_bench; what the results' file holds already is not measured again. 15 kernels are layers of
the networks that the schedules' rules were made on, 15 have shapes that nobody had in mind.
"""
import argparse
import html
import json
import math
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "build/release/bench/tuning_bench"
RESULTS = ROOT / "bench/results"
AUTOSCHEDULERS = ["Mullapudi2016", "Li2018", "Adams2019"]
MARKS = [10, 60, 600]  # seconds

KNOWN = [
    "conv2d c=1 h=28 w=28 k=6 r=5 s=5 bias=true",
    "conv2d c=6 h=12 w=12 k=16 r=5 s=5 bias=true",
    "conv2d_grad_weight c=6 h=12 w=12 k=16 r=5 s=5",
    "conv2d c=64 h=32 w=32 k=64 r=3 s=3 padding=1",
    "conv2d c=128 h=16 w=16 k=128 r=3 s=3 padding=1",
    "conv2d c=256 h=8 w=8 k=256 r=3 s=3 padding=1",
    "conv2d c=64 h=32 w=32 k=128 r=3 s=3 padding=1 stride=2",
    "conv2d_grad_input c=64 h=32 w=32 k=128 r=3 s=3 padding=1 stride=2 swapped=true",
    "conv2d_grad_input c=64 h=32 w=32 k=64 r=3 s=3 padding=1 swapped=true",
    "conv2d_grad_weight c=64 h=32 w=32 k=64 r=3 s=3 padding=1",
    "conv2d c=64 h=28 w=28 k=256 r=1 s=1",
    "conv2d c=144 h=24 w=24 k=144 r=3 s=3 padding=1 groups=144",
    "linear c=256 k=120 bias=true",
    "linear_grad_input c=256 k=120",
    "linear_grad_weight c=64 k=120 weight_c=256",
]
NEW = [
    "conv2d c=5 h=19 w=23 k=7 r=3 s=3 padding=1",
    "conv2d c=37 h=13 w=13 k=29 r=3 s=3",
    "conv2d c=3 h=50 w=50 k=17 r=7 s=7 stride=3 padding=2",
    "conv2d c=96 h=11 w=11 k=52 r=5 s=5 padding=2",
    "conv2d c=200 h=9 w=9 k=11 r=1 s=1",
    "conv2d c=48 h=21 w=21 k=48 r=3 s=3 padding=1 groups=6",
    "conv2d c=20 h=17 w=5 k=33 r=2 s=2 stride=2",
    "conv2d_grad_input c=37 h=13 w=13 k=29 r=3 s=3 swapped=true",
    "conv2d_grad_input c=20 h=18 w=18 k=33 r=3 s=3 stride=2 padding=1 swapped=true",
    "conv2d_grad_weight c=37 h=13 w=13 k=29 r=3 s=3",
    "conv2d_grad_weight c=3 h=50 w=50 k=17 r=7 s=7 stride=3 padding=2",
    "conv2d_grad_weight c=200 h=9 w=9 k=11 r=1 s=1",
    "linear c=333 k=77",
    "linear_grad_input c=77 k=333",
    "linear_grad_weight c=333 k=77",
]


def at(row, seconds):
    """The best time known after so many seconds of search, in microseconds; wins that the end did not confirm are none."""
    best = row["own_us"]
    if row["knobs"] == "own":
        return best
    for passed, us in row.get("curve", [])[1:-1]:
        if passed <= seconds:
            best = us
    return row["tuned_us"] if seconds >= row["seconds"] else min(best, row["own_us"])


def geometric_mean(values):
    values = list(values)
    return math.exp(statistics.mean(map(math.log, values))) if values else float("nan")


def gain(row):
    """The own schedule's time over the tuned one's: median of the pairs measured afterwards, free of the machine's drift."""
    return 1 / (1 - statistics.median(r["gain"] for r in row["again"])) if row["again"] else 1


def best_autoscheduler(row):
    """How many times as long as the tuned kernel the best autoscheduler's takes, by its own pairs; None without any."""
    ratios = [a["us"] / a["own_us"] for a in row["autoschedulers"].values() if "us" in a and a["error"] < 1e-3]
    return min(ratios) * gain(row) if ratios else None


def last_gain(row):
    """Seconds of search until the last winner was found; 0 where the own schedule stayed the best."""
    wins = row.get("curve", [])[1:-1]
    return wins[-1][0] if wins and row["tuned_us"] < row["own_us"] else 0


def kernel_line(row):
    def other(name):
        a = row["autoschedulers"].get(name)
        if a is None:
            return "-"
        if "us" not in a:
            return "failed"
        return f"{a['us'] * row['own_us'] / a['own_us']:.1f} ({a['compile_s']:.1f} s)"
    marks = [mark for mark in MARKS if mark <= row["budget_s"] or row["exhausted"]]
    again = [f"{100 * r['gain']:+.0f}" for r in row["again"]]
    return [f"`{row['name']}`", f"{row['own_us']:.1f}"] + [f"{at(row, mark):.1f}" for mark in marks] + \
        [""] * (len(MARKS) - len(marks)) + [f"{gain(row):.2f}x", ", ".join(again) or "-",
         f"{(row['timed'] + row['by_code'] + row['failed']) / row['seconds']:.1f}"] + [other(n) for n in AUTOSCHEDULERS]


def markdown(machine, rows):
    head = ["kernel", "own, us"] + [f"tuned {m} s" for m in MARKS] + ["gain", "again, %", "candidates/s"] + AUTOSCHEDULERS
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(kernel_line(row)) + " |" for row in rows]
    gains = [gain(row) for row in rows]
    new = [gain(row) for row in rows if row["name"] in NEW]
    over = [ratio for ratio in map(best_autoscheduler, rows) if ratio]
    lost = [row for row in rows for r in row["again"] if r["gain"] < -0.02]
    text = f"# Tuning, {machine}\n\nTimes of one call, one core, least thread time. `scripts/bench_tuning` makes this.\n\n"
    text += f"- tuned over own, geometric mean: {geometric_mean(gains):.3f}x of {len(gains)} kernels"
    text += f", {geometric_mean(new):.3f}x of {len(new)} with new shapes\n" if new else "\n"
    if over:
        text += f"- the best autoscheduler's time over tuned: {geometric_mean(over):.1f}x, least {min(over):.1f}x, of {len(over)}\n"
    found = sorted(seconds for seconds in map(last_gain, rows) if seconds)
    if found:
        text += f"- seconds until the last gain, where there was one: median {statistics.median(found):.1f}, "
        text += f"most {found[-1]:.1f}\n"
    seconds = sum(row["seconds"] for row in rows)
    tried = sum(row["timed"] + row["by_code"] + row["failed"] for row in rows)
    text += f"- kernels whose every candidate was seen: {sum(row['exhausted'] for row in rows)}\n"
    text += f"- candidates a second: {tried / seconds:.1f}, of which {sum(row['timed'] for row in rows) / seconds:.1f} "
    text += f"were timed; {sum(row['failed'] for row in rows)} failed\n"
    text += f"- winners measured again that are more than 2 % slower than the own schedule: {len(lost)}\n\n"
    return text + "\n".join(lines) + "\n"


def picture(machine, rows):
    """Best time so far over the own schedule's, against the logarithm of the seconds of search: a line a kernel."""
    longest = max(max(row["seconds"] for row in rows), 2)
    lowest = min(min(row["tuned_us"] / row["own_us"] for row in rows), 0.9)

    def x(seconds):
        return 60 + 800 * math.log(max(seconds, 0.5) / 0.5) / math.log(longest / 0.5)

    def y(ratio):
        return 50 + 340 * (1.02 - ratio) / (1.02 - lowest)

    svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 440" width="900" height="440" role="img">',
           "<style>text{font:13px sans-serif;fill:#333}</style>", '<rect width="900" height="440" fill="#fff"/>',
           f'<text x="60" y="24">Best time so far, of the generator\'s own schedule: {html.escape(machine)}</text>']
    for ratio in [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]:
        if ratio >= lowest - 0.02:
            svg.append(f'<line x1="60" x2="860" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}" stroke="#ddd"/>'
                       f'<text x="52" y="{y(ratio) + 4:.1f}" text-anchor="end">{ratio:.1f}</text>')
    for seconds in [1, 3, 10, 30, 60, 180, 600]:
        if seconds <= longest:
            svg.append(f'<text x="{x(seconds):.1f}" y="415" text-anchor="middle">{seconds} s</text>')
    for row in rows:
        path, best = [f"M{x(0.5):.1f} {y(1):.1f}"], 1.0
        for passed, us in row.get("curve", [])[1:-1]:
            best = min(best, us / row["own_us"])
            path.append(f"H{x(passed):.1f}V{y(best):.1f}")
        final = row["tuned_us"] / row["own_us"]
        path.append(f"H{x(row['seconds']):.1f}V{y(final):.1f}")
        colour = "#c2410c" if row["name"] in NEW else "#1d4ed8"
        svg.append(f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-opacity="0.6" stroke-width="1.5">'
                   f"<title>{html.escape(row['name'])}</title></path>")
    svg.append('<text x="60" y="434" style="fill:#1d4ed8">known shapes</text>'
               '<text x="160" y="434" style="fill:#c2410c">new shapes</text>')
    return "\n".join(svg) + "\n</svg>\n"


def measure(name, budget):
    command = [str(BENCH), "--budget", str(budget)] + name.split()
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        print(f"{name}: {run.stderr.strip()}", file=sys.stderr)
        return None
    return {"name": name} | json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=600, help="seconds of search a kernel")
    parser.add_argument("--quick", action="store_true", help="10 seconds a kernel")
    parser.add_argument("--kernels", help="only those whose name contains this")
    parser.add_argument("--machine", default="this-machine", help="the results' file is tuning-MACHINE")
    options = parser.parse_args()
    budget = 10 if options.quick else options.budget
    file = RESULTS / f"tuning-{options.machine}.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for name in KNOWN + NEW:
        done = any(row["name"] == name and (row["budget_s"] >= budget or row["exhausted"]) for row in rows)
        if done or (options.kernels and options.kernels not in name):
            continue
        row = measure(name, budget)
        if row is None:
            continue
        print(f"{name}: {row['own_us']:.1f} us, tuned {row['tuned_us']:.1f} us, {row['knobs']}", flush=True)
        rows = [other for other in rows if other["name"] != name] + [row]
        rows.sort(key=lambda r: (KNOWN + NEW).index(r["name"]))
        file.write_text(json.dumps(rows, indent=1) + "\n")
        file.with_suffix(".md").write_text(markdown(options.machine, rows))
        file.with_suffix(".svg").write_text(picture(options.machine, rows))


if __name__ == "__main__":
    main()
