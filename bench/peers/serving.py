"""How a peer talks to scripts/bench: one JSON object a line, a request in, its times out."""
import json
import sys
import time
import traceback


def timed(step, seconds, least=3):
    """Milliseconds of single steps, after one to warm up."""
    step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def serve(answer):
    """answer(request) -> something JSON can hold. What it raises goes back as {"error": ...}."""
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries print, too
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(reply), file=out, flush=True)
