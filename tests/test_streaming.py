"""Statistics that are saved, loaded, gone on with and merged."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from test_codes import LOGISTIC

from perturb import CODES, METHODS, MLP, InputError, Statistics, estimate, solve
from perturb.estimation.design import MOST_TRIALS, Design
from perturb.trial.codes import lfsr

OPTIONS = {
    "method": "pearlmutter_corrected",
    "code": "ternary",
    "sigma": 0.05,
    "seed": 9,
    "error_noise": 0.01,
}


def same_bits(a, b):
    for one, other in zip((*a.closed, *a.open), (*b.closed, *b.open), strict=True):
        np.testing.assert_array_equal(one, other)
    assert a.spans == b.spans and a.design == b.design


def in_pieces(point, counts, path, **options):
    """Run piece by piece, saved and loaded in between."""
    statistics = None
    for count in counts:
        estimate(*point, count, **options, resume=statistics).statistics.save(path)
        statistics = Statistics.load(path)
    return statistics


@pytest.mark.parametrize(
    "method, code",
    [
        ("pearlmutter_corrected", "ternary"),
        ("difference", "walsh"),
        ("central", "measured"),
        ("difference", lfsr(7, 8)),
    ],
)
def test_ten_resumed_pieces_give_the_bits_of_one_run(small, tmp_path, method, code):
    options = {**OPTIONS, "method": method, "code": code}
    whole = estimate(*small, 1000, **options)
    pieces = in_pieces(
        small, [1, 63, 64, 100, 128, 7, 300, 37, 299, 1], tmp_path / "s.npz", **options
    )
    same_bits(pieces, whole.statistics)
    resumed = solve(pieces)
    for name in ("gradient", "gradient_stderr", "hv", "hv_stderr"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    # negative control: one trial more is not the same
    assert not np.array_equal(estimate(*small, 1001, **options).gradient, whole.gradient)


def tiny():
    """A 2-2-1 network; made anew in every process."""
    rng = np.random.default_rng(1)
    net = MLP([2, 2, 1])
    return (
        net.objective(rng.standard_normal((4, 2)), rng.standard_normal((4, 1))),
        net.init(0),
        rng.standard_normal(9),
    )


def part_of(job):
    point, first, count = job
    point = point or tiny()
    design = Design(
        METHODS[OPTIONS["method"]],
        CODES[OPTIONS["code"]],
        point[1].size,
        OPTIONS["sigma"],
        0.01,
        OPTIONS["seed"],
    )
    resume = Statistics(design, [(first, first)])
    return estimate(*point, count, **OPTIONS, precision="float64", resume=resume).statistics


def test_four_parts_merge_to_the_whole_within_rounding(small, tmp_path):
    whole = estimate(*small, 1000, **OPTIONS, precision="float64").statistics
    parts = [part_of((small, first, 250)) for first in (0, 250, 500, 750)]
    for i, part in enumerate(parts):
        part.save(tmp_path / f"{i}.npz")
    loaded = [Statistics.load(tmp_path / f"{i}.npz") for i in (2, 0, 3, 1)]
    merged = loaded[0].merge(loaded[1]).merge(loaded[2]).merge(loaded[3])
    assert merged.spans == [(0, 1000)]
    np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(solve(merged).hv, solve(whole).hv, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_million_trials_in_one_run_in_ten_pieces_and_in_four_processes(tmp_path):
    point, million = tiny(), 1_000_000
    for precision in ("float32", "float64"):
        whole = estimate(*point, million, **OPTIONS, precision=precision)
        same_bits(
            in_pieces(
                point, [million // 10] * 10, tmp_path / "s.npz", **OPTIONS, precision=precision
            ),
            whole.statistics,
        )
    jobs = [(None, i * million // 4, million // 4) for i in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(part_of, jobs))
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    size = np.abs(whole.statistics.sums).max(1, keepdims=True)
    np.testing.assert_allclose(merged.sums / size, whole.statistics.sums / size, atol=1e-12)


def test_a_file_replaces_the_one_before_whole_or_not_at_all(small, tmp_path, monkeypatch):
    path = tmp_path / "s.npz"
    first = estimate(*small, 64, **OPTIONS).statistics
    first.save(path)
    monkeypatch.setattr(
        "os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match="could not be written.*No space left"):
        estimate(*small, 128, **OPTIONS).statistics.save(path)
    monkeypatch.undo()
    same_bits(Statistics.load(path), first)
    assert [file.name for file in tmp_path.iterdir()] == ["s.npz"]
    with pytest.raises(InputError, match="could not be written"):
        first.save(tmp_path / "no" / "such" / "place.npz")


def test_damaged_and_foreign_files_are_one_line(small, tmp_path):
    path, broken = tmp_path / "s.npz", tmp_path / "broken.npz"
    original = estimate(*small, 64, **OPTIONS).statistics
    original.save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    contents = [content[:length] for length in (0, 1, 100, len(content) // 2, len(content) - 1)]
    for position in rng.choice(len(content), 300, replace=False):
        contents.append(
            content[:position]
            + bytes([content[position] ^ (1 << rng.integers(8))])
            + content[position + 1 :]
        )
    contents += [b"\x80\x04]", b"PK", b"0123456789" * 99]
    refused = 0
    for damaged in contents:
        broken.write_bytes(damaged)
        try:
            same_bits(Statistics.load(broken), original)  # a bit that means nothing, such as a date
        except InputError as error:
            assert "broken.npz: " in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 250
    np.savez(broken, a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for file in (broken, tmp_path / "array.npy", tmp_path):
        with pytest.raises(InputError, match="cannot be read as statistics.*Statistics.save"):
            Statistics.load(file)
    with pytest.raises(InputError, match="no such file"):
        Statistics.load(tmp_path / "none.npz")


def test_files_of_another_version_are_named(small, tmp_path, monkeypatch):
    estimate(*small, 64, **OPTIONS).statistics.save(tmp_path / "s.npz")
    monkeypatch.setattr("perturb.estimation.statistics.FORMAT", "perturb statistics 1")
    with pytest.raises(InputError, match="another version"):
        Statistics.load(tmp_path / "s.npz")


def test_statistics_of_a_users_code_need_it_back(small, tmp_path):
    options = {**OPTIONS, "code": LOGISTIC}
    estimate(*small, 20, **options).statistics.save(tmp_path / "s.npz")
    with pytest.raises(InputError, match="the code 'logistic' of its own: give it as code="):
        Statistics.load(tmp_path / "s.npz")
    resumed = estimate(
        *small, 20, **options, resume=Statistics.load(tmp_path / "s.npz", code=LOGISTIC)
    )
    np.testing.assert_array_equal(resumed.hv, estimate(*small, 40, **options).hv)


def test_shift_registers_are_stored_with_the_statistics(small, tmp_path):
    options = {**OPTIONS, "method": "central", "code": lfsr(7, 8)}
    begun = estimate(*small, 64, **options).statistics
    begun.save(tmp_path / "s.npz")
    assert Statistics.load(tmp_path / "s.npz").design == begun.design
    assert Statistics.load(tmp_path / "s.npz", code=lfsr(7, 8)).design == begun.design
    for other in ("lfsr", lfsr(7), lfsr(8, 8)):
        with pytest.raises(InputError, match="the statistics are of another code"):
            estimate(
                *small, 64, **{**options, "code": other}, resume=Statistics.load(tmp_path / "s.npz")
            )
    with pytest.raises(InputError, match="shift registers {'taps': 7, 'bits': 8}: leave out code="):
        Statistics.load(tmp_path / "s.npz", code=CODES["lfsr"])
    with pytest.raises(InputError, match="different designs"):
        begun.merge(
            Statistics(
                estimate(*small, 64, **{**options, "code": "lfsr"}).statistics.design, [(64, 64)]
            )
        )
    estimate(*small, 64, **{**options, "code": "lfsr"}).statistics.save(tmp_path / "one.npz")
    assert Statistics.load(tmp_path / "one.npz").design.code == CODES["lfsr"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sigma": 0.06}, "the statistics are of another sigma"),
        ({"seed": 1, "code": "gaussian"}, "the statistics are of another code, seed"),
        ({"error_noise": 0.02}, "another w, v, network, data or error noise"),
        ({"w": 0.1}, "another w, v, network, data or error noise"),
        ({"v": 0.1}, "another w, v, network, data or error noise"),
        ({"data": 0.1}, "another w, v, network, data or error noise"),
    ],
)
def test_statistics_go_on_only_with_what_they_were_begun_with(small, change, message):
    objective, w, v = small
    begun = estimate(objective, w, v, 64, **OPTIONS).statistics
    w, v = w + change.get("w", 0.0), v + change.get("v", 0.0)
    if "data" in change:
        objective = objective.network.objective(objective.x + change["data"], objective.target)
    options = {**OPTIONS, **{key: value for key, value in change.items() if key in OPTIONS}}
    with pytest.raises(InputError, match=message):
        estimate(objective, w, v, 64, **options, resume=begun)
    assert begun.spans == [(0, 64)]


def test_statistics_of_different_points_do_not_merge(small):
    objective, w, v = small
    a, b = (
        estimate(objective, w, v, 64, **OPTIONS).statistics,
        estimate(objective, w, 2 * v, 64, **OPTIONS).statistics,
    )
    b.spans = [(64, 128)]
    with pytest.raises(InputError, match="different w, v"):
        a.merge(b)


def test_more_trials_than_fit_are_refused(small):
    with pytest.raises(
        InputError,
        match=r"trials = 4611686018427387905 \(after 0\) are more than fit: at most 2\^62",
    ):
        estimate(*small, MOST_TRIALS + 1)
    last = Statistics(part_of((small, 0, 1)).design, [(MOST_TRIALS - 3, MOST_TRIALS - 3)])
    assert estimate(*small, 3, **OPTIONS, resume=last).trials == 3
    with pytest.raises(InputError, match="are more than fit"):
        estimate(*small, 1, **OPTIONS, resume=last)
