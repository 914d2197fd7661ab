"""Links: the same bits over every one of them, whatever gets lost, and care for the device."""

import itertools
import json
import math
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from chips import exclusive_or
from hypothesis import given, settings
from hypothesis import strategies as st
from linked import Unreliable, by_command, by_tcp, by_terminal, pair, responder
from test_asktell import assert_same, possible

from hardware.link.care import Care, Incidents
from hardware.link.drive import Driver, Journal
from hardware.link.instrument import Function, Line, open_instrument
from hardware.link.messages import Garbage, Hello, LinkError, Lost, decode, encode, hello_of
from hardware.link.server import listen
from hardware.link.streams import STREAMS
from perturb import InputError
from perturb.training import AskTell, Batch, Plan, begin
from perturb.training.rules import RULES

UPDATES = 5
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def xor():
    objective, W = exclusive_or()
    return objective, W[0]


def trained(objective, w, plan, updates=UPDATES):
    state = begin(w, plan)
    Batch(objective, plan, precision="float64").advance(state, updates)
    return state


def driven(instrument, w, plan, updates=UPDATES, window=1, timeout_s=5.0, tries=3):
    loop = AskTell(w, plan, n_patterns=4, tries=tries)
    driver = Driver(instrument, window, timeout_s)
    try:
        looks = list(driver.learn(loop, updates, every=10**9))
    finally:
        instrument.close()
    return loop, looks, driver


def opened(scheme, objective, w, by_itself):
    if scheme == "serial":
        pytest.importorskip("serial")
    chip = responder(objective, w, by_itself=by_itself)
    address = {
        "tcp": lambda: by_tcp(chip),
        "serial": lambda: by_terminal(chip),
        "stdio": lambda: by_command() + (" own" if by_itself else ""),
    }
    return open_instrument(address[scheme](), w.size, Care())


def grid():
    for rule in RULES:
        for method in ("central", "forward", "difference", "pearlmutter"):
            if possible(rule=rule, method=method):
                for by_itself in (False, True):
                    yield rule, method, by_itself


@pytest.mark.parametrize("scheme", ["tcp", "serial", pytest.param("stdio", marks=pytest.mark.slow)])
def test_over_every_link_every_rule_and_method_gives_the_bits_of_train(xor, scheme):
    objective, w = xor
    cases = list(grid())
    assert len(cases) > 20
    # a few over each link, all of them over TCP
    for rule, method, by_itself in cases if scheme == "tcp" else cases[3::11]:
        plan = Plan(rule=rule, method=method, code="gaussian", seed=3)
        loop, looks, _ = driven(opened(scheme, objective, w, by_itself), w, plan, window=4)
        assert_same(loop.state, trained(objective, w, plan)), (rule, method, by_itself)
        assert [look.updates for look in looks] == [0, UPDATES]
        assert looks[1].error == pytest.approx(objective.error(loop.w), rel=1e-12)


def test_a_function_is_an_instrument_of_its_own(xor, tmp_path, monkeypatch):
    objective, w = xor
    (tmp_path / "bench_of_mine.py").write_text(
        "import numpy as np\nseen = []\n"
        "def measure(w):\n    seen.append(w)\n    return E(w)\n"
        "measure.safe = lambda: seen.append('safe')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import bench_of_mine

    bench_of_mine.E = objective.error
    plan = Plan(method="difference", rule="diagonal")
    loop, _, _ = driven(open_instrument("python:bench_of_mine:measure", 9, Care()), w, plan)
    assert_same(loop.state, trained(objective, w, plan))
    assert bench_of_mine.seen[-1] == "safe"
    for wrong in ("python:bench_of_mine", "python:nothing:f", "python:bench_of_mine:seen"):
        with pytest.raises(InputError, match=f"^{wrong}"):
            open_instrument(wrong, 9, Care())
    bench_of_mine.E = lambda w: "much"
    with pytest.raises(LinkError, match="gave 'much', which is no number"):
        driven(open_instrument("python:bench_of_mine:measure", 9, Care()), w, plan)


@pytest.mark.parametrize("by_itself", [False, True])
def test_what_is_lost_doubled_or_shuffled_changes_nothing(xor, by_itself):
    objective, w = xor
    plan = Plan(trials_per_update=8, method="difference", rule="diagonal", seed=2)
    address = by_tcp(responder(objective, w, by_itself=by_itself))
    streams = itertools.count()

    def unreliable():
        return Unreliable(
            STREAMS["tcp"](address.removeprefix("tcp:"))(),
            next(streams),
            lost=0.03,
            doubled=0.03,
            nan=0.05,
            shuffled=16,
        )

    loop, looks, driver = driven(
        Line(unreliable, Care()), w, plan, window=16, timeout_s=0.1, tries=20, updates=10
    )
    assert_same(loop.state, trained(objective, w, plan, 10))
    assert driver.lost > 3 and driver.instrument.incidents.counts["value: no number"] >= 1


def test_a_chip_that_loses_requests_is_sent_its_weights_again(xor):
    objective, w = xor
    chip = responder(objective, w)
    answer, rng = chip.answer, random.Random(0)

    def deaf(message):
        # some requests to set are not heard of
        if message["do"] == "set" and rng.random() < 0.03:
            return {"is": "set", "id": -1}
        return answer(message)

    chip.answer = deaf
    plan = Plan(trials_per_update=40)
    loop, _, driver = driven(open_instrument(by_tcp(chip), 9, Care()), w, plan, window=50)
    assert_same(loop.state, trained(objective, w, plan))
    assert driver.instrument.incidents.counts["error order"] > 50 and loop.left_out == 0


def test_a_link_that_breaks_is_made_again(xor):
    objective, w = xor
    chip, plan = responder(objective, w), Plan(trials_per_update=6, method="difference")
    address, opened = by_tcp(chip), []

    def connect():
        opened.append(STREAMS["tcp"](address.removeprefix("tcp:"))())
        receive, left = opened[-1].receive, itertools.count()

        def breaking(timeout_s):
            if next(left) > 40:
                raise Lost("pulled out")
            return receive(timeout_s)

        opened[-1].receive = breaking
        return opened[-1]

    loop, _, driver = driven(Line(connect, Care()), w, plan, window=3)
    assert_same(loop.state, trained(objective, w, plan))
    assert len(opened) > 3 and driver.instrument.incidents.counts["link lost"] == len(opened) - 1


def test_nobody_there_ends_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(LinkError, match=f"127.0.0.1:{port}: no connection .*; tried for 0.5 s"):
        open_instrument(f"tcp://127.0.0.1:{port}", 9, Care(), patience_s=0.5)
    assert time.monotonic() - began < 5
    with pytest.raises(LinkError, match="no such command: cannot be started"):
        open_instrument("stdio:'no such command'", 9, Care(), patience_s=0.1)


@pytest.mark.parametrize(
    "address",
    [
        "udp://x",
        "tcp:127.0.0.1",
        "tcp://127.0.0.1",
        "tcp://:99",
        "tcp://127.0.0.1:99999",
        "serial:",
        "serial:/dev/tty?speed=3",
        "serial:/dev/tty?baud=fast",
        "stdio:",
        "stdio:'",
        "",
    ],
)
def test_a_wrong_address_ends_in_one_line(address):
    with pytest.raises(InputError, match="must|unknown|No closing") as caught:
        open_instrument(address, 9, Care())
    assert "\n" not in str(caught.value)


def test_only_this_machine_unless_told_otherwise():
    with pytest.raises(InputError, match="is not this machine, .* add .remote=yes"):
        open_instrument("tcp://192.0.2.1:5732", 9, Care())
    assert callable(STREAMS["tcp"]("//192.0.2.1:5732?remote=yes"))


# ---- peers that do not keep to the protocol


def peer(answer):
    """The address of a peer: after hello and safe it sends whatever answer(request) gives."""
    listening = socket.create_server(("127.0.0.1", 0))
    heard = []

    def attend():
        while True:
            stream, _ = listening.accept()
            lines = stream.makefile("rwb", buffering=0)
            try:
                for line in lines:
                    message = json.loads(line)
                    heard.append(message["do"])
                    reply = {
                        "hello": encode({"id": message["id"]} | Hello(2).message()),
                        "safe": encode({"id": message["id"], "is": "safe", "weights": [0.0, 0.0]}),
                    }.get(message["do"])
                    lines.write(reply or answer(message))
            except OSError:
                pass

    threading.Thread(target=attend, daemon=True).start()
    return f"tcp://127.0.0.1:{listening.getsockname()[1]}", heard


@pytest.mark.parametrize(
    "sent, said",
    [
        (b"\xff\xfe garbage\n", "is no line of the protocol"),
        (b"[1, 2]\n", "is no line of the protocol"),
        (b"1" * 10**6 + b"\n", "is no line of the protocol"),
        (b"[" * 10**5 + b"\n", "is no line of the protocol"),
        (b'{"is": "party"}\n', "that is no reply"),
        (b'{"is": "value", "id": 1' * 400_000, "a line of more than"),
    ],
)
def test_a_peer_that_sends_garbage_ends_in_one_line_safe_and_stored(tmp_path, sent, said):
    address, heard = peer(lambda message: sent)
    journal = Journal(tmp_path / "state.npz")
    loop = AskTell(np.zeros(2), Plan())
    driver = Driver(open_instrument(address, 2, Care()), journal=journal)
    with pytest.raises(LinkError, match=said) as caught:
        list(driver.learn(loop, 5, 1))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert heard.count("safe") == 2 and (tmp_path / "state.npz").exists()


@pytest.mark.parametrize("sent", [b"", b'{"is": "value", "id"'])
def test_a_peer_that_says_nothing_or_half_a_line_is_given_up(sent, monkeypatch):
    monkeypatch.setattr("hardware.link.drive.HOPELESS", 3)
    address, heard = peer(lambda message: sent)
    driver = Driver(open_instrument(address, 2, Care()), timeout_s=0.05)
    driver.instrument._reply_s = 0.2
    with pytest.raises(LinkError, match="3 answers in a row were no measurements .no answer in"):
        list(driver.learn(AskTell(np.zeros(2), Plan(), tries=9), 5, 1))
    assert heard.count("safe") == 2


def value(**fields):
    return lambda message: encode({"id": message["id"], "is": "value"} | fields)


@pytest.mark.parametrize("E", ["1.0", None, True, [1.0], {}, 10**400])
def test_a_value_that_is_no_number_is_a_failure(E):
    address, _ = peer(
        lambda message: (
            value(E=E)(message)
            if message["do"] == "measure"
            else encode({"id": message["id"], "is": "set"})
        )
    )
    line = open_instrument(address, 2, Care())
    (e, _) = AskTell(np.zeros(2), Plan()).ask()
    line.submit(e)
    assert line.collect(5.0) == [(e.id, None)]
    line.close()


@given(st.binary(max_size=300))
def test_any_line_is_a_message_or_garbage(line):
    try:
        assert isinstance(decode(line), dict)
    except Garbage as error:
        assert len(str(error)) < 300


@pytest.fixture(scope="module")
def served(xor):
    return responder(*xor, by_itself=True, low=-4.0, high=4.0)


@given(
    given_=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    ),
    do=st.sampled_from(["hello", "set", "measure", "safe", "x"]),
    name=st.sampled_from(
        ["at", "weights", "codes", "direction", "patterns", "perturb", "key", "set"]
    ),
)
@settings(max_examples=100, deadline=None)
def test_a_served_chip_answers_whatever_it_is_asked(served, given_, do, name):
    chip = served
    chip.greeted()
    reply = chip.answer({"id": 1, "do": do, name: given_})
    assert reply["is"] in ("hello", "set", "value", "safe", "error")
    encode(reply)
    assert chip.answer({"id": given_, "do": do})["is"]
    assert np.abs(chip.bench.held()).max() <= 4.0


@pytest.mark.parametrize(
    "changes",
    [{"weights": 0}, {"weights": "9"}, {"low": 1.0, "high": 0.0}, {"bits": 8}, {"low": "a"}],
)
def test_a_hello_that_says_nonsense_is_refused(changes):
    with pytest.raises(LinkError, match="hello does not say what it must"):
        hello_of(Hello(9).message() | changes)
    with pytest.raises(LinkError, match="version 2 of the protocol, this program 1"):
        hello_of(Hello(9).message() | {"version": 2})


def test_a_chip_of_another_size_is_refused(xor):
    with pytest.raises(InputError, match="the chip has 9 weights, but 8 are to be set"):
        open_instrument(by_tcp(responder(*xor)), 8, Care())


# ---- care


class Watched:
    """A stream to a chip, and what the chip was written."""

    def __init__(self, n, care, low=None, high=None, bits=0, start=0.0, wrong=0.0):
        ours, theirs = pair()
        self.written, self.safe = [np.full(n, start)], 0
        hello = Hello(n, low=low, high=high, bits=bits)

        def attend():
            while True:
                try:
                    if (message := theirs.receive(60.0)) is None:
                        continue
                except Lost:
                    return
                id, w = message["id"], self.written[-1].copy()
                reply = {"id": id, "is": message["do"]}
                if message["do"] == "hello":
                    reply |= hello.message()
                elif message["do"] == "safe":
                    self.safe += 1
                    self.written.append(np.full(n, start))
                    reply |= {"weights": [start] * n}
                elif message["do"] == "set":
                    self.codes = message.get("codes")
                    values = message.get("weights", self.codes)
                    w[message.get("at", slice(None))] = values
                    self.written.append(w)
                    reply |= {"readback": (w + wrong).tolist()}
                else:
                    reply |= {"is": "value", "E": float((w**2).sum())}
                theirs.send(reply)

        threading.Thread(target=attend, daemon=True).start()
        self.line = Line(lambda: ours, care)


class Told:
    """An evaluation at weights."""

    own, code, direction, patterns = False, "", None, None
    seed = trial = phase = id = 0

    def __init__(self, weights):
        self.weights = np.array(weights, float)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=6),
    st.floats(0.05, 2.0),
    st.sampled_from([(None, None), (-1.0, 1.0)]),
)
def test_no_write_is_beyond_the_bounds_or_above_the_largest_step(points, step, of_chip):
    chip = Watched(3, Care(-2.0, 1.5, largest_step=step), *of_chip)
    for point in points:
        chip.line.submit(Told(point))
        ((_, E),) = chip.line.collect(5.0)
        low, high = max(-2.0, of_chip[0] or -9.0), min(1.5, of_chip[1] or 9.0)
        np.testing.assert_array_equal(chip.written[-1], np.clip(point, low, high))
        assert E == float((chip.written[-1] ** 2).sum())
    written = np.array(chip.written)
    assert written.min() >= low and written.max() <= high
    # the place of a last digit: weights are written as decimal numbers, and differ by rounding
    assert np.abs(np.diff(written, axis=0)).max() <= step + 1e-15
    chip.line.safe()
    assert np.abs(np.diff(chip.written, axis=0)).max() <= step + 1e-15
    assert np.array_equal(chip.written[-1], np.zeros(3))
    outside = any(not -2 <= x <= 1.5 for point in points for x in point)
    assert ("weight beyond its bounds" in chip.line.incidents.counts) >= outside
    chip.line.close()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of values that overflow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=40, max_size=40))
def test_whatever_values_are_told_no_write_is_beyond_the_bounds(values):
    given_, seen = iter(values), []

    def measure(w):
        seen.append(w)
        if (E := next(given_, None)) is None:
            raise EOFError
        return E

    care = Care(-0.5, 0.25, largest_step=0.1)
    loop = AskTell(np.zeros(3), Plan(eta=10.0, longest_step=1e6), tries=2)
    with pytest.raises((EOFError, InputError)):
        list(Driver(Function(measure, 3, care)).learn(loop, 100, 100))
    written = np.array(seen)
    assert written.min() >= -0.5 and written.max() <= 0.25
    assert np.abs(np.diff(written, axis=0)).max(initial=0.0) <= 0.1 + 1e-15


def test_weights_that_are_no_numbers_are_never_written():
    chip = Watched(2, Care())
    with pytest.raises(InputError, match="not finite: learning has diverged"):
        chip.line.submit(Told([math.nan, 0.0]))
    assert len(chip.written) == 2  # the start, and safe


def test_what_is_read_back_is_compared():
    for wrong, incidents in ((1e-3, {}), (0.02, {"weight read back differs from what was set": 1})):
        chip = Watched(2, Care(tolerance=0.01, settle_s=1e-3), wrong=wrong)
        chip.line.submit(Told([0.5, -0.5]))
        chip.line.collect(5.0)
        assert chip.line.incidents.counts == incidents
    assert chip.line.incidents.worst.popitem()[1] == pytest.approx(0.02)


def test_weights_by_codes_of_a_converter_and_changed_ones_alone():
    chip = Watched(4, Care(), -2.0, 2.0, bits=8)
    chip.line.submit(Told([-2.0, 2.0, 0.0, 1.0]))
    chip.line.collect(5.0)
    assert chip.codes == [0, 255, 128, 191]
    chip.line.submit(Told([-2.0, 2.0, 0.0, 0.5]))
    chip.line.collect(5.0)
    assert chip.codes == [159]


@pytest.mark.parametrize("how", [KeyboardInterrupt, RuntimeError, None])
def test_whatever_way_it_ends_the_weights_are_safe_and_the_state_is_stored(tmp_path, how):
    chip = Watched(2, Care())
    path, plan = tmp_path / "state.npz", Plan()
    loop = AskTell(np.ones(2), plan)
    learning = Driver(chip.line, journal=Journal(path)).learn(loop, 4, 2)
    next(learning)
    if how is None:
        assert len(list(learning)) == 2
    else:
        with pytest.raises(how):
            learning.throw(how)
    assert chip.safe == 2 and np.array_equal(chip.written[-1], [0.0, 0.0])
    assert AskTell.load(path, plan).updates == loop.updates == (4 if how is None else 0)


def test_a_chip_whose_host_is_silent_or_gone_goes_to_safe_weights(xor):
    objective, w = xor
    chip = responder(objective, w)
    line = open_instrument(by_tcp(chip, watchdog_s=0.2), 9, Care())
    line.submit(Told(w + 1.0))
    assert line.collect(5.0) and np.array_equal(chip.bench.held(), w + 1.0)
    time.sleep(0.6)
    assert np.array_equal(chip.bench.held(), w)
    # the next measurement finds that out, and sets its weights again
    line.submit(Told(w + 1.0))
    ((_, E),) = line.collect(5.0)
    assert E == objective.error(w + 1.0) and line.incidents.counts == {"error order": 1}
    line.close()
    for _ in range(50):
        if np.array_equal(chip.bench.held(), w):
            break
        time.sleep(0.05)
    assert np.array_equal(chip.bench.held(), w)


def test_in_real_time_a_measurement_takes_as_long_as_on_the_chip(xor, monkeypatch):
    objective, w = xor
    slept = []
    monkeypatch.setattr("hardware.link.server.time.sleep", slept.append)
    chip = responder(objective, w, {"array.settle_ns": 10_000_000})
    for real_time in (False, True):
        chip.real_time = real_time
        assert chip.answer({"id": 1, "do": "measure"})["is"] == "value"
    # four patterns, each through two layers
    assert len(slept) == 1 and 0.08 <= slept[0] < 0.081


def test_bounds_and_numbers_of_care_are_checked():
    with pytest.raises(InputError, match="low = 1 must be below high = 0"):
        Care(1, 0)
    with pytest.raises(InputError, match="largest_step = -1"):
        Care(largest_step=-1)
    assert Incidents().counts == {}


# ---- the journal


def test_a_journal_has_every_answer_since_the_state(xor, tmp_path):
    objective, w = xor
    plan, path = Plan(trials_per_update=3, rate="line"), tmp_path / "state.npz"
    chip, told = Batch(objective, plan, precision="float64"), 0
    loop, journal = AskTell(w, plan), Journal(path)
    journal.save(loop)
    while loop.updates < UPDATES:
        for e in loop.ask(3):
            E = chip.answer(e)
            journal.note(e.id, E)
            loop.tell(e.id, E)
            told += 1
        if told % 12 == 0:
            journal.save(loop)
        # killed: all that is left is on the disk
        journal.close()
        journal, loop = Journal(path), AskTell.load(path, plan)
        journal.replay(loop)
    assert_same(loop.state, trained(objective, w, plan))
    assert told == plan.evaluations(UPDATES)
    (tmp_path / "state.npz.told").write_bytes(b"0 zero\n")
    with pytest.raises(InputError, match="told: damaged"):
        Journal(path).replay(loop)
    (tmp_path / "state.npz.told").write_bytes(b"cut sho")
    assert Journal(path).replay(loop) == 0


def in_a_process(work):
    """The id of a child that does the work; its status is 0 if it came to an end."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def killed_or_done(pid, after_s):
    """Whether a child was killed after so long; else it has ended well."""
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0
            return False
        time.sleep(1e-3)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status != 0


@pytest.mark.slow
@pytest.mark.parametrize("by_itself", [False, True])
def test_a_host_that_is_killed_a_hundred_times_loses_nothing(xor, tmp_path, by_itself):
    objective, w = xor
    plan = Plan(method="difference", rule="newton-cg", trials_per_update=4, rate="line", seed=1)
    address, path = by_tcp(responder(objective, w, by_itself=by_itself)), tmp_path / "state.npz"
    AskTell(w, plan).save(path)
    rng, kills, updates = random.Random(by_itself), 0, 0

    def session():
        loop, journal = AskTell.load(path, plan), Journal(path)
        journal.replay(loop)
        chip = open_instrument(address, 9, Care())
        list(Driver(chip, window=3, journal=journal).learn(loop, updates, 10))

    # on and on, until it has been killed often enough
    while kills < 100:
        updates += 40
        while killed_or_done(in_a_process(session), rng.uniform(0.0, 0.4)):
            kills += 1
    assert_same(AskTell.load(path, plan).state, trained(objective, w, plan, updates))


@pytest.mark.slow
def test_a_chip_that_is_killed_fifty_times_is_found_again(xor):
    objective, w = xor
    chip, plan = responder(objective, w), Plan(method="difference", seed=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rng, stop = random.Random(0), threading.Event()
    kills = []

    def keep_killing():
        while not stop.is_set():
            pid = in_a_process(lambda: listen(chip, "127.0.0.1", port, 5.0))
            time.sleep(rng.uniform(0.1, 0.4))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills.append(pid)

    killer = threading.Thread(target=keep_killing)
    killer.start()
    try:
        line = open_instrument(f"tcp://127.0.0.1:{port}", 9, Care())
        loop = AskTell(w, plan)
        driver = Driver(line, window=2)
        updates = 0
        while len(kills) < 50:
            updates += 50
            list(driver.learn(loop, updates, 10**9))
    finally:
        stop.set()
        killer.join()
    assert_same(loop.state, trained(objective, w, plan, updates))
    assert line.incidents.counts["link lost"] > 10 and loop.left_out == 0


# ---- the firmware of hardware/README.md


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    text = (ROOT / "hardware" / "README.md").read_text()
    # not as the other examples, which are run as they are: it waits for a host
    code = text.split("```py\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    path = tmp_path_factory.mktemp("firmware") / "firmware.py"
    path.write_text(code)
    return f"stdio:{sys.executable} {path}"


def test_the_firmware_of_the_readme_learns_as_an_objective_does(xor, firmware):
    objective, _ = xor
    chip = open_instrument(firmware, 9, Care(tolerance=1e-9, largest_step=5.0))
    assert chip.hello.low == -8.0
    w = np.array([0.4, -0.7, 0.1, -0.3, 0.0, 0.0, 0.9, -0.2, 0.0])
    plan = Plan(method="difference", rule="diagonal", trials_per_update=4, sigma=0.05, r=0.05)
    loop, looks, driver = driven(chip, w, plan, updates=20, window=8)
    # libraries round tanh and exp otherwise in the last place
    np.testing.assert_allclose(loop.w, trained(objective, w, plan, 20).w[0], rtol=0, atol=1e-7)
    assert looks[-1].error == pytest.approx(objective.error(loop.w), rel=1e-9)
    assert driver.instrument.incidents.counts == {} and driver.lost == 0
