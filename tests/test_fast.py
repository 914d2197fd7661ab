"""The float32 kernels against the naive twin, and the choice of precision."""

import itertools
import tracemalloc

import naive
import numpy as np
import pytest
from fast import fast, thinned

from perturb import CODES, METHODS, MLP, InputError, estimate
from perturb.compiled import compiled
from perturb.estimation.design import Design
from perturb.estimation.engine import FAST_CODES, run_trials
from perturb.estimation.meter import Mismatch
from perturb.estimation.point import Point
from perturb.estimation.precision import sufficient
from perturb.estimation.statistics import Statistics
from perturb.kernels.activations import softplus32, tanh4, tanh32
from perturb.kernels.float32_draws import BLOCK as FLOATS
from perturb.kernels.float32_draws import SPARE, draw_normals, draw_signs, draw_ternary
from perturb.kernels.float32_functions import exp32, log32, normal_pairs, philox8
from perturb.kernels.float32_signs import accumulate_signs, measured_once
from perturb.kernels.simd import iota_u, load, splat_u, store, total, totals16
from perturb.trial.random import NOISE, normals
from perturb.trial.readout import Reading
from perturb.trial.synapse import SUMS


def network(layers, patterns, activation="tanh", output="linear", error="cross_entropy"):
    rng = np.random.default_rng(1)
    net = MLP(layers, activation, output, error)
    target = rng.random((patterns, layers[-1]))
    objective = net.objective(
        rng.standard_normal((patterns, layers[0])), target / target.sum(1, keepdims=True)
    )
    return objective, net.init(0), rng.standard_normal(net.n_weights)


def run(
    point,
    trials,
    method="covariance",
    code="rademacher",
    reading=None,
    precision="float32",
    first=0,
    **options,
):
    objective, w, v = point
    design = Design(METHODS[method], CODES[code], w.size, options.pop("sigma", 0.05), 0.05, 4)
    statistics = Statistics(design, spans=[(first, first)])
    for count in [trials] if isinstance(trials, int) else trials:
        run_trials(
            Point(objective, w, v),
            reading or Reading(),
            statistics,
            count,
            precision=precision,
            **options,
        )
    return statistics


def assert_within_rounding(statistics, point, reading, first, trials, broadcasts=30):
    """Every broadcast may be off by `broadcasts` units of 2^-24 of the errors (ROUNDING = 5, six
    standard deviations), s by 1e-6 of its rms (n of its terms are summed), and every sum by 1e-6 of
    its terms.
    """
    (objective, w, v), design = point, statistics.design
    D, y, u, q = naive.trials(*point, reading, design, first, first + trials)
    off = broadcasts * 2.0**-24 * np.sqrt(np.mean(objective.pattern_errors(w) ** 2))
    s, V, s_off = D @ v, v @ v, 1e-6 * design.sigma * np.linalg.norm(v)
    q_off = {
        "dw": 0.0 * D,
        "s_dw": s_off * np.abs(D),
        "b": s_off / V * (np.abs(D) + np.abs(np.outer(s, v)) / V),
    }
    q_off, s, s_off = (
        {**q_off, "none": 0.0 * D},
        s * design.method.needs_s,
        s_off * design.method.needs_s,
    )
    wide_q = np.abs(q) + q_off[design.method.regressor]
    sizes = naive.sums(np.abs(D), np.abs(y), np.abs(u), np.abs(q), np.abs(s))
    wider = naive.sums(np.abs(D), np.abs(y) + off, np.abs(u) + off, wide_q, np.abs(s) + s_off)
    exact = naive.sums(D, y, u, q, s)
    for mine, right, size, wide in zip(
        (statistics.sums, statistics.totals), exact, sizes, wider, strict=True
    ):
        np.testing.assert_array_less(np.abs(mine - right), wide - size + 1e-6 * size + 1e-300)


@pytest.mark.parametrize("patterns", [5, 33])  # the lanes are trials; the lanes are patterns
@pytest.mark.parametrize("method, code", thinned(itertools.product(METHODS, FAST_CODES), 4))
def test_sums_of_every_method_and_code_equal_the_naive_ones(method, code, patterns):
    point, reading = network([3, 4, 2], patterns), Reading(noise=0.01)
    statistics = run(point, 70, method, code, reading, first=1000)  # across a block's end at 1024
    assert_within_rounding(statistics, point, reading, 1000, 70)


@pytest.mark.parametrize("patterns", fast([1, 3, 4, 32, 33], 3, 32))
@pytest.mark.parametrize("n_in", [*range(1, 10), 49])
def test_sizes_that_fill_no_vector(n_in, patterns):
    point = network([n_in, 5, 3], patterns)
    assert_within_rounding(run(point, 20), point, Reading(), 0, 20)


@pytest.mark.parametrize("layers", [[3, 2], [70, 70, 3], [300, 9, 9, 9, 2]])
@pytest.mark.parametrize("code", ["rademacher", "walsh", "ternary"])
def test_networks_of_one_layer_and_of_many_weights(layers, code):
    point = network(layers, 40, "logistic")
    assert_within_rounding(run(point, 6, code=code), point, Reading(), 0, 6)


@pytest.mark.parametrize("patterns", [5, 33])
@pytest.mark.parametrize("activation", ["linear", "tanh", "logistic", "relu", "softplus"])
@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_every_activation_and_error(activation, error, patterns):
    point = network(
        [3, 5, 4, 2],
        patterns,
        activation,
        activation if error == "squared_error" else "linear",
        error,
    )
    # outputs larger than their targets round more than their errors
    assert_within_rounding(run(point, 20), point, Reading(), 0, 20, broadcasts=100)


@pytest.mark.parametrize("patterns", [5, 33])
def test_a_converter_rounds_as_the_naive_one(patterns):
    point, reading = network([3, 4, 2], patterns), Reading(0.02, 6, 2.0)
    statistics = run(point, 40, reading=reading)
    _, y, _, _ = naive.trials(*point, reading, statistics.design, 0, 40)
    # none of 40 x 2 x 33 readings lies within 2^-24 of a threshold; the sums of steps are exact
    assert statistics.totals[0] == pytest.approx(y.sum(), rel=1e-6)


@pytest.mark.parametrize("patterns", [5, 33])
@pytest.mark.parametrize("code", FAST_CODES)
def test_same_bits_for_any_threads_batches_and_splits(code, patterns):
    point, options = (
        network([3, 4, 2], patterns),
        {"method": "pearlmutter", "code": code, "reading": Reading(0.1)},
    )
    whole = run(point, 3000, **options, threads=1)
    others = [
        run(point, 3000, **options, threads=3, batch=256),
        run(point, [1, 62, 1, 1500, 1436], **options),
        run(point, [300, 2700], **options, batch=500, threads=5),
    ]
    for other in others:
        np.testing.assert_array_equal(other.sums, whole.sums)
        np.testing.assert_array_equal(other.totals, whole.totals)
    assert not np.array_equal(run(point, 2999, **options).sums, whole.sums)


@pytest.mark.parametrize("patterns", [5, 33])
@pytest.mark.parametrize("method, code", list(itertools.product(METHODS, ["rademacher", "walsh"])))
def test_patterns_of_signs_measured_once_give_the_bits_of_trials_measured_each(
    method, code, patterns
):
    point = network([2, 2, 1], patterns, output="tanh", error="squared_error")  # 2^9 patterns
    assert measured_once(9, 7000, 0.0) == 512 and not measured_once(9, 1024, 0.0)
    for reading in (Reading(), Reading(0.0, 6, 2.0)):
        once, each = (
            run(point, 7000, method, code, reading, first=500, threads=1, batch=batch)
            for batch in (10**4, 1024)
        )
        np.testing.assert_array_equal(once.sums, each.sums)
        np.testing.assert_array_equal(once.totals, each.totals)


@pytest.mark.parametrize("patterns", fast([5, 33], 5))
@pytest.mark.parametrize(
    "layers", fast([[1, 1], [2, 1], [2, 2, 2]], [1, 1], [2, 1])
)  # 2^2, 2^3 and 2^12 patterns of signs
def test_sums_of_tiny_networks_equal_the_naive_ones(layers, patterns):
    point = network(layers, patterns, output="tanh", error="squared_error")
    trials = 4 * 2 ** point[1].size
    assert measured_once(point[1].size, 4 * 2**12, 0.0) and not measured_once(13, 10**9, 0.0)
    assert_within_rounding(run(point, trials, threads=1), point, Reading(), 0, trials)


def test_a_noisy_reading_is_made_anew_in_every_trial():
    point, trials = network([2, 2, 1], 5, output="tanh", error="squared_error"), 4 * 2**9
    assert not measured_once(9, trials, 1e-3)
    assert_within_rounding(
        run(point, trials, reading=Reading(1e-3), threads=1), point, Reading(1e-3), 0, trials
    )


def test_both_precisions_may_take_turns():
    point = network([3, 4, 2], 33)
    mixed = run(point, [1300, 50])
    run_trials(Point(*point), Reading(), mixed, 100, precision="float64")
    run_trials(Point(*point), Reading(), mixed, 750)
    exact = run(point, 2200, precision="float64")
    assert mixed.precision == "float32" and exact.precision == "float64" and mixed.trials == 2200
    size = np.abs(exact.sums).max(1, keepdims=True)
    np.testing.assert_allclose(mixed.sums / size, exact.sums / size, atol=1e-5)  # float32


def test_memory_does_not_grow_with_the_trials():
    point = network([100, 20, 10], 4)
    run(point, 256)

    def peak(trials):
        tracemalloc.start()
        run(point, trials, threads=2)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(60_000) < 1.2 * peak(20_000) < 4e7


def test_an_error_that_is_not_finite_names_its_trial():
    point = network([3, 4, 2], 33, "linear", error="squared_error")
    with pytest.raises(InputError, match="E is not finite in trial 0 of covariance/rademacher"):
        run(point, 300, sigma=1e30)


# ---- the parts


@pytest.mark.parametrize("code", ["rademacher", "walsh"])
@pytest.mark.parametrize("n", [1, 9, 127, 128, 300])
def test_bits_are_the_signs_of_the_code(code, n):
    start, T = 256 * 12345, 256
    bits = np.zeros(2 * ((n + 127) // 128) * (T + SPARE), np.uint64)
    draw_signs(CODES[code].kind, np.uint64(2**40 + 7), start, CODES[code].period(n), n, T, bits)
    for t in (0, 1, 77, 255):
        signs = [2 * (int(bits[i // 64 * (T + SPARE) + t]) >> i % 64 & 1) - 1 for i in range(n)]
        np.testing.assert_array_equal(signs, naive.perturbation(code, n, 1.0, 2**40 + 7, start + t))


@pytest.mark.parametrize("n, rows", list(itertools.product([1, 2, 65, 255, 256, 2500], [8, 16])))
def test_sums_of_signs_times_coefficients(n, rows):
    rng = np.random.default_rng(n)
    bits, c = (
        rng.integers(0, 2**64, (2 * ((n + 127) // 128), 256 + SPARE), np.uint64),
        rng.standard_normal((rows, 256)),
    )
    signs = (
        2.0
        * (
            (bits.repeat(64, 0)[:n, :256] >> (np.arange(n) % 64).astype(np.uint64)[:, None])
            & np.uint64(1)
        )
        - 1.0
    )
    L = np.empty(n * rows + 16, np.float32)
    accumulate_signs(n, bits.ravel(), c.astype(np.float32).ravel(), rows, L)
    # 256 terms of order 1, rounded at 2^-24 a few times
    np.testing.assert_allclose(L[: n * rows].reshape(n, rows), signs @ c.T, atol=5e-5)


def test_perturbations_of_other_codes_are_those_of_the_code():
    n, start = 21, FLOATS * 1000
    for draw, code in ((draw_normals, "gaussian"), (draw_ternary, "ternary")):
        D = np.empty(32 * FLOATS, np.float32)
        draw(np.uint64(2**33 + 5), start, n, D)
        exact = [naive.perturbation(code, n, 1.0, 2**33 + 5, start + t) for t in range(FLOATS)]
        np.testing.assert_allclose(
            D.reshape(32, -1)[:n].T, exact, atol=2e-6
        )  # the radius loses most, near 0


@compiled()
def _apply(which, x, out):
    for i in range(0, x.size, 64):
        a, b, c, d = load(x, i), load(x, i + 16), load(x, i + 32), load(x, i + 48)
        if which == 0:
            a, b, c, d = tanh32(a), tanh32(b), tanh32(c), tanh32(d)
        elif which == 1:
            a, b, c, d = tanh4(a, b, c, d)
        elif which == 2:
            a, b, c, d = exp32(a), exp32(b), exp32(c), exp32(d)
        elif which == 3:
            a, b, c, d = log32(a), log32(b), log32(c), log32(d)
        else:
            a, b, c, d = softplus32(a), softplus32(b), softplus32(c), softplus32(d)
        store(out, i, a)
        store(out, i + 16, b)
        store(out, i + 32, c)
        store(out, i + 48, d)


@pytest.mark.parametrize(
    "which, f, low, high",
    [
        (0, np.tanh, -12, 12),
        (1, np.tanh, -12, 12),
        (2, np.exp, -80, 80),
        (3, np.log, 1e-6, 1e6),
        (4, lambda x: np.logaddexp(0.0, x), -20, 20),
    ],
)
def test_functions_of_vectors_are_good_to_float32(which, f, low, high):
    x = np.linspace(low, high, 6400).astype(np.float32)
    out = np.empty_like(x)
    _apply(which, x, out)
    exact = f(x.astype(float))
    # four units of the last place of the value, or of 1 where the value is smaller
    np.testing.assert_array_less(np.abs(out - exact), 4 * 2.0**-23 * np.maximum(1.0, np.abs(exact)))
    _apply(which, np.full(64, np.nan, np.float32), out[:64])
    assert which == 3 or np.isnan(out[:64]).all()


@compiled()
def _normals(seed, trial, stream, out):
    zero = splat_u(np.uint64(0))
    a, b, c, d = philox8(
        splat_u(np.uint64(trial)), zero, iota_u(), splat_u(np.uint64(stream)), seed, np.uint64(0)
    )
    x, y = normal_pairs(a, c, b, d)
    store(out, 0, x)
    store(out, 16, y)


@compiled()
def _reduce(x, out):
    v = (
        load(x, 0),
        load(x, 16),
        load(x, 32),
        load(x, 48),
        load(x, 64),
        load(x, 80),
        load(x, 96),
        load(x, 112),
        load(x, 128),
        load(x, 144),
        load(x, 160),
        load(x, 176),
        load(x, 192),
        load(x, 208),
        load(x, 224),
        load(x, 240),
    )
    store(out, 0, totals16(v))
    return total(v[5])


def test_normals_and_totals_of_vectors():
    largest, exact, out = 0.0, np.empty(32), np.empty(32, np.float32)
    for trial in range(300):
        _normals(np.uint64(11), trial, NOISE, out)
        normals(np.uint64(11), NOISE, trial, 0, exact)
        cos, sin = out.reshape(2, 2, 8)  # of words (a, b), then of (c, d)
        largest = max(
            largest, np.abs(np.stack([cos[0], sin[0], cos[1], sin[1]], 1).ravel() - exact).max()
        )
    assert largest < 5e-6  # the radius near 0 loses most: 2^-25 / radius
    x = np.arange(256, dtype=np.float32)
    assert _reduce(x, out) == x[80:96].sum()
    np.testing.assert_array_equal(out[:16], x.reshape(16, 16).sum(1))


# ---- the choice


def choice(point, sigma=1e-2, noise=0.0, method="covariance", code="rademacher"):
    objective, w, v = point
    design = Design(METHODS[method], CODES[code], w.size, sigma, 1e-2, 0)
    return sufficient(Point(objective, w, v), Reading(noise), design)


def test_float32_is_chosen_where_its_rounding_does_not_count():
    point = network([8, 6, 3], 40)
    assert choice(point) == "float32"
    assert choice(point, sigma=1e-6) == "float64"
    assert (
        choice(point, sigma=1e-6, noise=1e-3) == "float32"
    )  # the noise is larger than the rounding
    assert (
        choice(point, code="walsh") == "float64"
    )  # nothing but rounding would be left over a period
    assert choice(point, code="walsh", noise=1e-3) == "float32"
    assert choice(point, method="difference") == "float32"
    assert choice(point, sigma=1e-6, method="difference") == "float64"  # r sigma |z| is 1e-8 of E
    assert estimate(*point, 100, "covariance", "rademacher").precision == "float32"
    assert estimate(*point, 100, "covariance", "rademacher", sigma=1e-6).precision == "float64"


def test_rounding_adds_little_where_float32_is_chosen_and_much_where_it_is_not():
    point = network([8, 6, 3], 40)
    shares = []
    for sigma, wanted in ((1e-2, "float32"), (3e-8, "float64")):
        exact, fast = (
            estimate(*point, 4000, "covariance", "rademacher", sigma=sigma, precision=precision)
            for precision in ("float64", "float32")
        )
        shares.append(
            np.mean((fast.gradient - exact.gradient) ** 2) / np.mean(exact.gradient_stderr**2)
        )
        assert choice(point, sigma) == wanted
    assert shares[0] < 0.01 < 0.1 < shares[1]  # the second is the negative control


@pytest.mark.parametrize(
    "change, message",
    [
        ({"precision": "float16"}, "precision = 'float16' is unknown"),
        ({"precision": "float32", "presentation": "pattern"}, "float32.* has no kernel"),
        ({"sigma": 1e-18}, "sigma = 1e-18 is so small that rounding"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    point = network([3, 4, 2], 5)
    with pytest.raises(InputError, match=message) as caught:
        estimate(*point, **{"trials": 8, "method": "covariance", "code": "rademacher", **change})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, code",
    [
        ("difference", "walsh"),
        ("covariance", "rademacher"),
        ("pearlmutter", "gaussian"),
        ("central", "ternary"),
    ],
)
@pytest.mark.parametrize("S", [5, 40])
def test_mismatched_perturbations_in_float32_and_float64(method, code, S):
    rng = np.random.default_rng(3)
    net = MLP([7, 6, 3], error="cross_entropy")
    objective = net.objective(rng.standard_normal((S, 7)), rng.integers(0, 3, S))
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    n = w.size
    mismatch = Mismatch(1 + 0.2 * rng.standard_normal(n), 1e-3 * rng.standard_normal(n))
    found = {}
    for precision in ("float32", "float64"):
        for wrong in (mismatch, None):
            statistics = Statistics(Design(METHODS[method], CODES[code], n, 0.02, 0.02, seed=5))
            for trials in (70, 330):
                run_trials(
                    Point(objective, w, v),
                    Reading(0.001),
                    statistics,
                    trials,
                    precision=precision,
                    mismatch=wrong,
                )
            found[precision, wrong is None] = statistics
    single, double, ideal = found["float32", False], found["float64", False], found["float64", True]
    size = np.abs(double.sums).max(1, keepdims=True)
    size[size == 0] = 1.0
    np.testing.assert_allclose(single.sums / size, double.sums / size, atol=2e-3)
    xy = SUMS.index("xy")
    assert np.abs(double.sums[xy] - ideal.sums[xy]).max() > 0.02 * np.abs(ideal.sums[xy]).max()
    # and the float64 kernel is the loop that one would write
    D = np.array([CODES[code].draw(n, 0.02, 5, trial) for trial in range(400)])
    np.testing.assert_allclose(double.sums[SUMS.index("xx")], (D**2).sum(0), rtol=1e-12)
    y = np.zeros(400)
    for phase, (a, b) in enumerate(METHODS[method].phases):
        points = w + (a * mismatch.gain * D + mismatch.offset if a else 0 * D) + b * 0.02 * v
        for trial in range(400):
            xi = np.empty(S)
            normals(np.uint64(5), NOISE, trial, phase, xi)
            y[trial] += METHODS[method].gradient_weights[phase] * (
                objective.error(points[trial]) + 0.001 * xi.mean()
            )
    np.testing.assert_allclose(double.sums[xy], y @ D, rtol=1e-8, atol=1e-10 * float(size[xy, 0]))
