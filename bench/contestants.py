"""Those who are timed: our networks' bench command and the peers, each a process that answers on a pipe."""
import json
import os
import pathlib
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class BenchError(Exception):
    pass


class Process:
    """Writes a line, reads a line of JSON. What the process says besides goes to a log."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen([str(c) for c in command], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=open(log, "a"))

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            raise BenchError(f"{self.name} stopped, see {self.log}")
        reply = json.loads(answer)
        if isinstance(reply, dict) and "error" in reply:
            raise BenchError(f"{self.name}: {reply['error']}")
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """One network, mode, batch and number of threads."""

    def __init__(self, setup, net, mode, batch, threads, profile=False):
        command = [setup.program(net), "bench", "--serve", "--mode", mode, "--batch", batch, "--threads", threads,
                   "--seconds", 0.5, *setup.options]
        self.process = Process(net, command + ["--profile"] * profile, setup.folder / "ours.log")

    def time(self, seconds):
        return self.process.ask(str(seconds))

    def close(self):
        self.process.close()


class Peer:
    def __init__(self, setup, script, *arguments):
        command = [setup.peers_python, ROOT / "bench/peers" / script, *arguments]
        self.process = Process(script, command, setup.folder / f"{script}.log")

    def time(self, **request):
        """Milliseconds of single steps: a list, or one a memory format."""
        return self.process.ask(json.dumps(request))

    def close(self):
        self.process.close()


class Setup:
    """Where things are, and the peers that have been started."""

    def __init__(self, build, peers_python, options):
        self.build, self.peers_python, self.options = build, peers_python, options
        self.folder = ROOT / "build/bench"
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.folder / "inductor"))  # compiled once a machine
        self.peers = {}

    def program(self, net):
        return self.build / "examples/bin" / net

    def has(self, net):
        return self.program(net).exists()

    def peer(self, script):
        if script not in self.peers:
            arguments = [self.onnx_folder()] if script == "onnx_bench.py" else []
            self.peers[script] = Peer(self, script, *arguments)
        return self.peers[script]

    def onnx_folder(self):
        folder = self.folder / "onnx"
        folder.mkdir(exist_ok=True)
        subprocess.run([self.peers_python, ROOT / "bench/peers/torch_bench.py", "--export", folder], check=True,
                       stdout=subprocess.DEVNULL, stderr=open(self.folder / "export.log", "w"))
        return folder

    def close(self):
        for peer in self.peers.values():
            peer.close()


def time_row(setup, row, rounds, seconds, say):
    """{contestant: [{median, fastest} of a round]}: every round times each of them once, one after the other, so that a
    disturbance of the machine meets all of them."""
    ours = Ours(setup, row.net, row.mode, row.batch, row.threads)

    def time_ours():
        reply = ours.time(seconds)
        return {"median": reply["ms_median"], "fastest": reply["ms_fastest"]}

    def time_peer(kind, seconds=seconds):
        script = "onnx_bench.py" if kind in ("onnxruntime", "openvino") else "torch_bench.py"
        ms = setup.peer(script).time(net=row.net, mode=row.mode, batch=row.batch, threads=row.threads, kind=kind,
                                     seconds=seconds)["ms"]
        time.sleep(0.1)  # its idle workers spin for a while
        return {"median": statistics.median(ms), "fastest": min(ms)}

    times, missing = {"cryolite": []}, {}
    for kind in row.peers if setup.peers_python else ():
        say(f"{row.name}: preparing {kind}")
        try:
            time_peer(kind, 0)
            times[kind] = []
        except BenchError as error:  # a peer that cannot run this one is left out, and named
            missing[kind] = str(error)
    for number in range(rounds):
        say(f"{row.name}: round {number + 1} of {rounds}")
        for kind in times:
            times[kind].append(time_ours() if kind == "cryolite" else time_peer(kind))
    ours.close()
    return {"name": row.name, "net": row.net, "mode": row.mode, "batch": row.batch, "threads": row.threads,
            "target": row.target, "moonshot": row.moonshot, "times_ms": times, "missing": missing}


def memory_row(setup, net, batch, say):
    """Peak resident bytes of a training process, ours and PyTorch's, each in a process of its own."""
    say(f"memory/{net}")
    folder = setup.folder / "models"
    run = lambda *command: subprocess.run([str(c) for c in command], check=True, text=True, stdout=subprocess.PIPE,
                                          stderr=open(setup.folder / "memory.log", "w")).stdout
    run(setup.program(net), "compile", "-o", folder, "--batch", batch, *setup.options)
    program = folder / f"train_{net}"
    run("c++", "-std=c++17", "-O2", f"-DMODEL={net}", f"-DMODEL_HEADER=\"{net}.h\"", ROOT / "bench/train_process.cpp",
        "-I", folder, "-I", ROOT / "runtime", folder / f"lib{net}.a", setup.build / "libcryolite_runtime.a", "-pthread",
        "-o", program)
    result = {"name": f"memory/{net}", "net": net, "batch": batch, **json.loads(run(program))}
    plans = json.loads(run(setup.program(net), "inspect", "--json", "--batch", batch, *setup.options))["plans"]
    plan = next(plan for plan in plans if plan["mode"] == "train")
    result |= {"arena_bytes": plan["arena_bytes"], "arena_least_bytes": plan["arena_peak"]}
    if setup.peers_python:
        torch = run(setup.peers_python, ROOT / "bench/peers/torch_bench.py", "--memory", net, batch)
        result["torch_bytes"] = int(torch.split()[-1])
    return result
