"""The layer suite: every convolution, linear layer, batch norm, activation and pool of a network's train step, one
thread, as the compiler's plan runs them, beside oneDNN through PyTorch on the same shapes.

Ours are timed inside real train steps, by the runtime's profile: all kernels of a layer's pass on all blocks of the
batch, weight transforms and merges among them. oneDNN's convolutions are timed inside PyTorch's train steps (`peer`),
and alone, again and again on values that the caches hold (`peer_alone`). Linear layers, which PyTorch does without
oneDNN, are timed alone. What lies between convolutions and linear layers we fuse, so that no kernel belongs to one
layer; the sum of it stands beside the sum of the peer's calls.
"""
import collections
import dataclasses
import json
import statistics
import subprocess

from contestants import BenchError, Ours
from rows import TRAIN_BATCH

HEAVY = {"conv2d": ("forward", "backward-data", "backward-weights"),
         "linear": ("forward", "backward-data", "backward-weights")}
BETWEEN = {op: ("forward", "backward") for op in
           ("batch_norm", "max_pool2d", "avg_pool2d", "relu", "relu6", "sigmoid", "tanh")}
BETWEEN["add"] = ("forward",)
NO_LAYER = ("sgd", "softmax", "softmax_cross_entropy", "pack")  # kernels that neither sum counts


@dataclasses.dataclass(frozen=True)
class Layer:
    """What the peer is asked for; equal layers are timed once."""
    op: str
    x: tuple
    w: tuple = ()
    stride: int = 1
    padding: int = 0
    window: int = 0

    def request(self, direction, seconds):
        return {**dataclasses.asdict(self), "pass": direction, "seconds": seconds}

    @property
    def text(self):
        n, c, *image = self.x
        at = f"@{image[0]}" if image else ""
        if self.op == "linear":
            return f"{c} to {self.w[0]}, batch {n}"
        if self.op == "conv2d":
            groups = c // self.w[1]
            kind = "depthwise " if groups == c > 1 else f"{groups} groups " if groups > 1 else ""
            step = f" stride {self.stride}" if self.stride > 1 else ""
            return f"{kind}{self.w[2]}x{self.w[3]} {c} to {self.w[0]}{at}{step}, batch {n}"
        return f"{self.op} {c}{at}, batch {n}"

    def flops(self):
        n, c, *image = self.x
        if self.op == "linear":
            return 2 * n * c * self.w[0]
        k, per_group, r, s = self.w
        out = [(e + 2 * self.padding - v) // self.stride + 1 for e, v in zip(image, (r, s))]
        return 2 * n * k * per_group * r * s * out[0] * out[1]


def layers_of(setup, net):
    """[(name, Layer)] as `inspect` tells them."""
    batch = TRAIN_BATCH[net]
    text = subprocess.run([str(setup.program(net)), "inspect", "--json", "--batch", str(batch)], text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    result = []
    for layer in json.loads(text)["layers"]:
        if layer["op"] not in {**HEAVY, **BETWEEN}:
            continue
        shapes = [tuple(batch if e == -1 else e for e in shape) for shape in layer["inputs"]]
        if layer["op"] == "add" and (len(shapes) < 2 or shapes[0] != shapes[1]):
            continue
        a = layer["attributes"]
        w = shapes[1] if layer["op"] in HEAVY else ()
        result.append((layer["name"], Layer(layer["op"], shapes[0], w, a.get("stride", 1), a.get("padding", 0),
                                            a.get("window", 0))))
    return result


def pass_of(kernel, op, after_loss):
    """Which pass of a conv2d or linear layer a kernel with that layer's name belongs to, by its generator's name. A
    Winograd or Strassen convolution is its own input gradient, of weights that are turned round."""
    generator, *parameters = kernel.split()
    if "_grad_weight" in generator or generator == "sum_merge" or (op == "linear" and generator == "transpose"):
        return "backward-weights"
    own_gradient = generator in ("conv2d_winograd", "conv2d_strassen")
    if "grad_input" in generator or "flip=true" in parameters or (own_gradient and after_loss):
        return "backward-data"
    if generator in ("pointwise", "transpose", "sgd") or generator.startswith("batch_stats"):
        return None
    return "forward"


def faster_half(ms):
    ms = sorted(ms)
    return statistics.mean(ms[:(len(ms) + 1) // 2])


def ours_by_pass(profile, layers):
    """{(Layer, pass): {median, fastest}} of conv2d and linear, means over equal layers; and the sum of the rest."""
    heavy = {name: layer for name, layer in layers if layer.op in HEAVY}
    sums = collections.defaultdict(lambda: {"median": 0.0, "fastest": 0.0})
    rest = {"median": 0.0, "fastest": 0.0}
    after_loss = False
    for phase in profile["phases"]:
        for kernel in phase["kernels"]:
            after_loss |= kernel["kernel"].split()[0] == "softmax_cross_entropy"
            layer = heavy.get(kernel["layer"])
            direction = layer and pass_of(kernel["kernel"], layer.op, after_loss)
            if direction:
                total = sums[layer, direction]
            elif kernel["kernel"].split()[0] in NO_LAYER or kernel["layer"] in ("loss", "image"):
                continue
            else:
                total = rest
            total["median"] += kernel["ms"]
            total["fastest"] += kernel["ms_fastest"]
    counts = collections.Counter(heavy.values())
    return {key: {k: v / counts[key[0]] for k, v in total.items()} for key, total in sums.items()}, rest


def convolutions_in_steps(setup, net, seconds):
    """{(x, w, stride, padding, pass): {form: {median, fastest}}}"""
    result = collections.defaultdict(dict)
    reply = setup.peer("layer_steps.py").time(net=net, batch=TRAIN_BATCH[net], seconds=seconds)
    for form, found in reply.items():
        for c in found:
            key = tuple(c["x"]), tuple(c["w"]), c["stride"], c["padding"], c["pass"]
            result[key][form] = {"median": faster_half(c["ms"]), "fastest": min(c["ms"])}
    return result


def time_layers(setup, net, rounds, seconds, say):
    """One record for each pass of each different layer, and one for all between."""
    layers = layers_of(setup, net)
    ours = Ours(setup, net, "train", TRAIN_BATCH[net], 1, profile=True)
    counts = collections.Counter(layer for _, layer in layers)
    asked = [(layer, direction) for layer in counts for direction in {**HEAVY, **BETWEEN}[layer.op]]
    mine = collections.defaultdict(list)
    theirs, alone = (collections.defaultdict(lambda: collections.defaultdict(list)) for _ in range(2))
    between = []
    profile = {}
    for number in range(rounds):
        say(f"layers/{net}: round {number + 1} of {rounds}, train steps")
        profile = ours.time(seconds)["profile"]
        by_pass, rest = ours_by_pass(profile, layers)
        between.append(rest)
        for key, times in by_pass.items():
            mine[key].append(times)
        if not setup.peers_python:
            continue
        say(f"layers/{net}: round {number + 1} of {rounds}, PyTorch's train steps")
        in_steps = convolutions_in_steps(setup, net, seconds)
        for i, (layer, direction) in enumerate(asked):
            say(f"layers/{net}: round {number + 1} of {rounds}, oneDNN {i + 1} of {len(asked)}")
            reply = setup.peer("layer_bench.py").time(**layer.request(direction, 0.02))
            for form, ms in reply.items():
                alone[layer, direction][form].append({"median": faster_half(ms), "fastest": min(ms)})
            if layer.op != "conv2d":
                theirs[layer, direction] = alone[layer, direction]
            elif (layer, direction) in mine:
                forms = in_steps.get((layer.x, layer.w, layer.stride, layer.padding, direction))
                if not forms:
                    raise BenchError(f"{net}: no {direction} of {layer.text} in PyTorch's step")
                for form, times in forms.items():
                    theirs[layer, direction][form].append(times)
    ours.close()
    records = [{"net": net, "op": layer.op, "pass": direction, "shape": layer.text, "flops": layer.flops(),
                "kernel_peak_gflops": profile["fma_gflops"], "cryolite": mine[layer, direction],
                "peer": theirs[layer, direction], "peer_alone": alone[layer, direction]}
               for layer, direction in asked if layer.op in HEAVY and (layer, direction) in mine]
    return {"name": f"layers/{net}", "net": net, "passes": records,
            "between": {"cryolite": between, "peer": sum_between(asked, counts, theirs, rounds)}}


def sum_between(asked, counts, theirs, rounds):
    """The peer's calls between heavy layers, each in its better format, as many times as the network has them."""
    sums = []
    for number in range(rounds):
        total = {"median": 0.0, "fastest": 0.0}
        for key in asked:
            if key[0].op in HEAVY or not theirs[key]:
                continue
            for k in total:
                total[k] += counts[key[0]] * min(times[number][k] for times in theirs[key].values())
        sums.append(total)
    return sums if any(total["median"] for total in sums) else []
