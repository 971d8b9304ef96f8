"""Tables and the picture from the rows that compare.py measured."""
import html
import math
import re
import statistics

from rows import NETS, ONNX, TARGETS, TORCH

KINDS = TORCH + ONNX
SUITE_TARGET, SUITE_LEAST = 1.6, 0.95  # geometric mean over oneDNN, and no shape below
MEMORY_TARGET, ARENA_TARGET = 0.5, 1.1


def median(rounds, key="median"):
    return statistics.median(r[key] for r in rounds)


def fastest(rounds):
    return min(r["fastest"] for r in rounds)


def geometric_mean(values):
    values = list(values)
    return math.exp(statistics.mean(map(math.log, values))) if values else float("nan")


def ms_text(rounds):
    middle = median(rounds)
    digits = 4 if middle < 0.1 else 3 if middle < 10 else 1
    medians = [r["median"] for r in rounds]
    return f"{middle:.{digits}f} ({min(medians):.{digits}f}-{max(medians):.{digits}f})"


def best_peer(row):
    """(kind, median ratio, ratio of the fastest steps) of the peer that is fastest, or None."""
    ours = row["times_ms"]["cryolite"]
    kinds = [kind for kind in row["times_ms"] if kind != "cryolite"]
    if not kinds:
        return None
    kind = min(kinds, key=lambda kind: median(row["times_ms"][kind]))
    theirs = row["times_ms"][kind]
    return kind, median(theirs) / median(ours), fastest(theirs) / fastest(ours)


def passes(rows, peer="peer"):
    """Passes that have that peer: (record, ratio of medians, ratio of the fastest), the better format counts."""
    result = []
    for row in rows:
        for record in row.get("passes", []):
            forms = record.get(peer, {}).values()
            if forms:
                result.append((record,
                               min(median(form) for form in forms) / median(record["cryolite"]),
                               min(fastest(form) for form in forms) / fastest(record["cryolite"])))
    return result


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] +
                     ["| " + " | ".join(line) + " |" for line in lines])


def verdict(ok):
    return "pass" if ok else "**miss**"


def target_lines(rows):
    by_name = {row["name"]: row for row in rows}
    lines = []
    for target in TARGETS:
        row = by_name.get(target.name)
        best = row and best_peer(row)
        if not best:
            continue
        kind, ratio, ratio_fastest = best
        moonshot = f", moonshot {target.moonshot:g}x" if target.moonshot else ""
        lines.append([target.work, ms_text(row["times_ms"]["cryolite"]), f"{kind}: {ms_text(row['times_ms'][kind])}",
                      f"{ratio:.2f}x ({ratio_fastest:.2f}x)", f"{target.target:g}x{moonshot}",
                      verdict(ratio >= target.target)])
    conv = [p for p in passes(rows) if p[0]["op"] == "conv2d"]
    if conv:
        mean, mean_fastest = (geometric_mean(p[i] for p in conv) for i in (1, 2))
        least, name = min((p[1], f"{p[0]['shape']}, {p[0]['pass']}") for p in conv)
        below = sum(p[1] < SUITE_LEAST for p in conv)
        lines.append([f"conv suite, {len(conv)} passes, 1 thread", "", "oneDNN, better format",
                      f"{mean:.2f}x ({mean_fastest:.2f}x)", f"{SUITE_TARGET}x", verdict(mean >= SUITE_TARGET)])
        lines.append(["worst conv pass", "", name, f"{least:.2f}x; {below} of {len(conv)} below {SUITE_LEAST}x",
                      f"{SUITE_LEAST}x", verdict(least >= SUITE_LEAST)])
    for row in rows:
        if "peak_bytes" in row:
            lines += memory_lines(row)
    return lines


def memory_lines(row):
    mib = 1 / 2**20
    ours, least = row["peak_bytes"], row["arena_least_bytes"]
    lines = [[f"{row['net']}, arena of batch {row['batch']}", f"{row['arena_bytes'] * mib:.1f} MiB",
              f"lower bound {least * mib:.1f} MiB", f"{row['arena_bytes'] / least:.3f}", f"at most {ARENA_TARGET}",
              verdict(row["arena_bytes"] <= ARENA_TARGET * least)]]
    if "torch_bytes" in row:
        ratio = ours / row["torch_bytes"]
        lines.insert(0, [f"{row['net']}, peak memory of training, batch {row['batch']}", f"{ours * mib:.1f} MiB",
                         f"PyTorch {row['torch_bytes'] * mib:.1f} MiB", f"{ratio:.2f}", f"at most {MEMORY_TARGET}",
                         verdict(ratio <= MEMORY_TARGET)])
    return lines


def summary(rows):
    text = "" if not target_lines(rows) else table(
        ["work", "Cryolite, ms", "fastest peer asked for, ms", "ratio (of the fastest steps)", "target", ""],
        target_lines(rows)) + "\n\n"
    timed = [row for row in rows if "times_ms" in row]
    if timed:
        text += times_table(timed) + "\n"
    return text


def times_table(rows):
    kinds = [kind for kind in KINDS if any(kind in row["times_ms"] for row in rows)]
    lines = []
    for row in sorted(rows, key=lambda row: (NETS.index(row["net"]), row["mode"] != "train", row["batch"], row["threads"])):
        ours = row["times_ms"]["cryolite"]
        cells = [row["net"], row["mode"], str(row["batch"]), str(row["threads"]), ms_text(ours)]
        for kind in kinds:
            theirs = row["times_ms"].get(kind)
            cells.append(f"{median(theirs):.4g} ({median(theirs) / median(ours):.2f}x)" if theirs else "")
        lines.append(cells)
    return table(["network", "step", "batch", "threads", "Cryolite, ms", *[f"{kind}, ms" for kind in kinds]], lines)


def kind_of(record):
    """A layer without its channels and image: 'conv2d', 'conv2d depthwise 3x3 stride 2'."""
    window = re.match(r"(.*?\d+x\d+) ", record["shape"])
    step = re.search(r" stride \d+", record["shape"])
    return record["op"] + (f" {window[1]}" if window else "") + (step[0] if step else "")


def bound_text(measured):
    """What the suite's mean could be at most without an algorithm of fewer multiply-adds for more shapes."""
    ratios = []
    for record, ratio, _ in measured:
        if record["op"] == "conv2d":
            of_peak = record["flops"] / median(record["cryolite"]) * 1e-6 / record["kernel_peak_gflops"]
            ratios.append(ratio / of_peak if of_peak < 1 and "depthwise" not in record["shape"] else ratio)
    return ("" if not ratios else
            "Were every convolution that is slower than the FMA peak exactly as fast, depthwise ones, which wait for "
            f"memory, aside, the geometric mean of all passes would be {geometric_mean(ratios):.2f}x.\n\n")


def alone_text(rows):
    ratios = [ratio for record, ratio, _ in passes(rows, "peer_alone") if record["op"] == "conv2d"]
    return ("" if not ratios else
            "Beside oneDNN's convolutions alone, called again and again on values that the caches hold, ours still in "
            f"the step: {geometric_mean(ratios):.2f}x, {sum(r < SUITE_LEAST for r in ratios)} of {len(ratios)} below "
            f"{SUITE_LEAST}x.\n\n")


def layers_text(rows):
    measured = passes(rows)
    text, groups = "", {}
    for record, ratio, _ in measured:
        for kind in dict.fromkeys([record["op"], kind_of(record)]):
            groups.setdefault((kind, record["pass"]), []).append(ratio)
    if groups:
        text += ("## Layers, one thread\n\nRatios are oneDNN's time over ours, in its better memory format: "
                 "convolutions inside train steps, PyTorch's and ours, linear layers of PyTorch alone.\n\n") + table(
            ["layers", "pass", "shapes", "geometric mean", "least", "greatest", f"below {SUITE_LEAST}x"],
            [[kind, direction, str(len(r)), f"{geometric_mean(r):.2f}x", f"{min(r):.2f}x", f"{max(r):.2f}x",
              str(sum(ratio < SUITE_LEAST for ratio in r))] for (kind, direction), r in sorted(groups.items())]) + "\n\n"
        text += alone_text(rows) + bound_text(measured)
    between = [row for row in rows if row.get("between", {}).get("peer")]
    if between:
        text += ("Between them (normalization, activations, pooling, sums of branches), where we fuse: all of a train "
                 "step, beside the sum of PyTorch's calls.\n\n") + table(
            ["network", "Cryolite, ms", "PyTorch, ms", "ratio"],
            [[row["net"], f"{median(row['between']['cryolite']):.3f}", f"{median(row['between']['peer']):.3f}",
              f"{median(row['between']['peer']) / median(row['between']['cryolite']):.2f}x"] for row in between]) + "\n\n"
    all_passes = [(r, ratio) for r, ratio, _ in measured] or [(r, 0) for row in rows for r in row.get("passes", [])]
    if all_passes:
        lines = []
        for r, ratio in sorted(all_passes, key=lambda p: p[1]):
            rate = r["flops"] / median(r["cryolite"]) * 1e-6
            peer = min(r["peer"], key=lambda form: median(r["peer"][form]), default=None)
            lines.append([r["net"], r["shape"], r["pass"], f"{median(r['cryolite']):.3f}", f"{rate:.1f}",
                          f"{100 * rate / r['kernel_peak_gflops']:.0f}%",
                          f"{median(r['peer'][peer]):.3f} {peer}" if peer else "", f"{ratio:.2f}x" if peer else ""])
        text += table(["network", "shape", "pass", "ms", "GFLOP/s of the direct algorithm", "of FMA peak",
                       "oneDNN, ms", "ratio"], lines) + "\n\n"
    return text


def facts_text(rows):
    facts = {}
    for row in rows:
        for key in ("date", "seconds", "torch", "onnxruntime", "openvino", "options"):
            if row.get(key):
                facts.setdefault(key, set()).add(str(row[key]))
    return ", ".join(f"{key} {' and '.join(sorted(values))}" for key, values in facts.items())


def markdown(machine, rows):
    text = (f"# {machine}\n\n{facts_text(rows)}. Times are medians over rounds of the median step (lowest to highest "
            "round), contestants taking turns; ratios are the peer's time over ours, of the medians (of the fastest "
            "steps). nhwc is PyTorch's channels_last.\n\n")
    lines = target_lines(rows)
    if lines:
        text += "## Targets\n\n" + table(["work", "Cryolite, ms", "fastest peer asked for, ms", "ratio", "target", ""],
                                         lines) + "\n\n"
    timed = [row for row in rows if "times_ms" in row]
    if timed:
        text += "## Networks\n\n" + times_table(timed) + "\n\n"
    missing = [f"- {row['name']}, {kind}: {why}" for row in timed for kind, why in row["missing"].items()]
    if missing:
        text += "Not measured:\n" + "\n".join(missing) + "\n\n"
    return (text + layers_text(rows)).rstrip() + "\n"


def picture(machine, rows):
    """Bars: the fastest peer's time over ours, a tick where the target is; dots: each pass of each layer over oneDNN's."""
    bars = [(row["name"], *best_peer(row)[:2], row["target"]) for row in rows if "times_ms" in row and best_peer(row)]
    groups = {}
    for record, ratio, _ in passes(rows):
        groups.setdefault(f"{record['op']} {record['pass']}", []).append((ratio, f"{record['shape']}: {ratio:.2f}x"))
    left, right, pitch, top = 260, 860, 22, 78
    low, high = math.log2(0.25), math.log2(16)
    at = lambda ratio: left + (right - left) * (min(max(math.log2(ratio), low), high) - low) / (high - low)
    height = top + pitch * (len(bars) + len(groups) + 2) + 10
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" width="900" height="{height}" role="img">',
           "<style>text { font-family: 'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif; font-size: 12px; fill: #222222; }"
           " .title { font-size: 16px; font-weight: bold; } .note { fill: #555555; }</style>",
           f'<rect width="900" height="{height}" rx="6" fill="#ffffff"/>']

    def text(x, y, words, css="", anchor="start"):
        svg.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{html.escape(words)}</text>')

    def line(x, y0, y1, colour, width=1):
        svg.append(f'<line x1="{x:.1f}" y1="{y0:.1f}" x2="{x:.1f}" y2="{y1:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    text(24, 30, f"How many times faster than the fastest peer: {machine}", "title")
    text(24, 50, "Bars: whole networks, the black mark is the target. Dots: passes of single layers beside oneDNN.", "note")
    for power in range(int(low), int(high) + 1):
        line(at(2.0**power), top - 8, height - 12, "#222222" if power == 0 else "#e4e4e4")
        text(at(2.0**power), top - 12, f"{2.0**power:g}x", "note", "middle")
    y = top
    for name, kind, ratio, target in bars:
        colour = "#0b5fa5" if ratio >= (target or 1) else "#c8500a"
        x0, x1 = sorted((at(1), at(ratio)))
        svg.append(f'<rect x="{x0:.1f}" y="{y:.1f}" width="{max(x1 - x0, 1):.1f}" height="14" fill="{colour}"/>')
        if target:
            line(at(target), y - 2, y + 16, "#000000", 2)
        text(left - 8, y + 11, name, "", "end")
        text(max(x1, at(target or 1)) + 6, y + 11, f"{ratio:.2f} {kind}", "note")
        y += pitch
    for name, dots in groups.items():
        y += pitch if name == next(iter(groups)) else 0
        text(left - 8, y + 11, name, "", "end")
        for ratio, hint in dots:
            colour = "#0b5fa5" if ratio >= SUITE_LEAST else "#c8500a"
            svg.append(f'<circle cx="{at(ratio):.1f}" cy="{y + 7}" r="3.5" fill="{colour}" fill-opacity="0.6">'
                       f'<title>{html.escape(hint)}</title></circle>')
        mean = geometric_mean(ratio for ratio, _ in dots)
        line(at(mean), y - 1, y + 15, "#000000", 2)
        text(right + 4, y + 11, f"{mean:.2f}", "note")
        y += pitch
    return "\n".join(svg) + "\n</svg>\n"
