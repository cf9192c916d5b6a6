"""The loop shared by the peer drivers: one JSON request per line on stdin, one JSON answer per line on stdout.

Requests: {"op": "setup", ...} once per shape, {"op": "run"} as often as wanted, {"op": "quit"}.
An answer carries "ok"; a failure carries "error" and the driver goes on.
"""

import json
import sys
import time


def now_ms():
    return time.perf_counter() * 1e3


def serve(handlers):
    print(json.dumps({"ok": True, "ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("op")
        if name == "quit":
            break
        try:
            answer = {"ok": True, **handlers[name](**request)}
        except Exception as error:  # told to the harness, which skips the peer and says so
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
