"""What asking, sending and telling cost for each evaluation.

    python tests/benchmarks/links.py

Own time of `AskTell` and of a driver of a Python function with 1,000 weights, wanted is 50 us; and
evaluations a second over TCP on this machine with 100 weights, at a peer in a process of its own
that does nothing but answer, wanted are 2,000. Best of the repeats; the own time on the process's
own clock.
"""

import subprocess
import sys
import time

import numpy as np

from hardware.link.care import Care
from hardware.link.drive import Driver
from hardware.link.instrument import Function, open_instrument
from perturb.training import AskTell, Plan

PEER = """
import json, socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
stream, _ = listening.accept()
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for line in stream.makefile("rb"):
    m = json.loads(line)
    reply = {
        "hello": {"is": "hello", "version": 1, "weights": 100},
        "safe": {"is": "safe", "weights": [0.0] * 100},
        "set": {"is": "set"},
        "measure": {"is": "value", "E": 0.5},
    }[m["do"]]
    stream.sendall(json.dumps({"id": m["id"], **reply}).encode() + b"\\n")
"""


def asked(plan, n=1000, evaluations=1000):
    loop = AskTell(np.zeros(n), plan)
    start, done = time.process_time(), 0
    while done < evaluations:
        for e in loop.ask():
            assert e.weights.size == n
            loop.tell(e.id, 0.5)
            done += 1
    return 1e6 * (time.process_time() - start) / done


def by_function(plan, n=1000, updates=200):
    loop, driver = AskTell(np.zeros(n), plan), Driver(Function(lambda w: 0.5, n, Care()))
    start = time.process_time()
    list(driver.learn(loop, updates, updates))
    return 1e6 * (time.process_time() - start) / driver.evaluations


def by_tcp(plan, window, n=100, updates=500):
    peer = subprocess.Popen([sys.executable, "-c", PEER], stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout is not None
        line = open_instrument(f"tcp://127.0.0.1:{peer.stdout.readline().strip()}", n, Care())
        loop, driver = AskTell(np.zeros(n), plan), Driver(line, window)
        start = time.perf_counter()
        list(driver.learn(loop, updates, updates))
        spent = time.perf_counter() - start
        line.close()
    finally:
        peer.kill()
        peer.wait()
    return driver.evaluations / spent


PLANS = {
    "a pair a trial": Plan(),
    "8 trials an update": Plan(trials_per_update=8),
    "four phases": Plan(method="difference"),
}
for name, plan in PLANS.items():
    asked(plan)
    own = min(asked(plan) for _ in range(7))
    driven = min(by_function(plan) for _ in range(5))
    print(f"{name:<20} {own:>6.1f} us an evaluation, of a driven function {driven:>6.1f} us")
for window in (1, 8):
    rate = max(by_tcp(PLANS["a pair a trial"], window) for _ in range(3))
    print(f"over TCP, {window} under way {rate:>8,.0f} evaluations/s")
