"""Philox and the perturbation codes."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import CODES, InputError
from perturb.trial.code import Code
from perturb.trial.codes import lfsr
from perturb.trial.random import NOISE, _state, normals, pattern_index, philox

# Random123's known answers for philox4x32-10
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, answer", KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert (
        tuple(int(word) for word in philox(*(np.uint64(word) for word in (*counter, *key))))
        == answer
    )
    assert naive.philox(counter, key) == answer


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(CODES)),
    st.integers(1, 300),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**62),
    st.data(),
)
def test_any_slice_of_any_trial_equals_the_naive_code(code, n, seed, trial, data):
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    expected = naive.perturbation(code, n, 0.5, seed, trial)[start:stop]
    # Gaussian: log and cos may differ in the last place
    np.testing.assert_allclose(
        CODES[code].draw(n, 0.5, seed, trial, start, stop), expected, rtol=1e-13, atol=1e-14
    )


def test_noise_and_patterns_equal_the_naive_ones():
    out = np.empty(11)
    normals(np.uint64(9), NOISE, 5, 2, out)
    np.testing.assert_allclose(
        out, [naive.normal(9, NOISE, 5, 2, k) for k in range(11)], rtol=1e-13
    )
    assert [pattern_index(np.uint64(3), t, 7) for t in range(50)] == [
        naive.pattern_index(3, t, 7) for t in range(50)
    ]


def drawn(code, n, first, last, seed=11):
    return np.array([code.draw(n, 1.0, seed, t) for t in range(first, last)])


RANDOM = [code for code in CODES.values() if not code.periodic]
PERIODIC = [code for code in CODES.values() if code.periodic]
names = {"ids": lambda code: code.name}


@pytest.mark.parametrize("code", CODES.values(), **names)
def test_moments_are_those_stated(code):
    n, trials = 64, 2048
    D = drawn(code, n, 0, trials)
    if code.name == "sequential":
        assert [np.mean(D**power) for power in (2, 4, 6)] == pytest.approx([1.0, n, n**2])
        assert "kurtosis n, sixth moment n^2; periodic, folded over, orthogonal" in code.summary
        return
    # five standard errors of the mean of D^p, from the moments of the code (a Gaussian's 12th
    # moment is 10395)
    for power, expected in ((1, 0.0), (2, 1.0), (4, code.kurtosis), (6, code.sixth)):
        spread = np.sqrt(np.mean(D ** (2 * power)) - np.mean(D**power) ** 2)
        assert abs(np.mean(D**power) - expected) <= 5 * spread / np.sqrt(D.size) + 1e-12
    assert abs(np.mean(D**2) - 1.1) > 5 * np.std(D**2) / np.sqrt(D.size)  # negative control


def worst_correlation(D):
    """Over all pairs of columns of D (trials, columns), in standard errors."""
    C = D.T @ D / len(D)
    return np.abs(C - np.diag(np.diag(C))).max() * np.sqrt(len(D))


def dies(code, n, trials):
    """Weights of two dies, this trial's and the next one's, side by side: (trials, 4 n)."""
    two = [drawn(code, n, 0, trials + 1, seed) for seed in (3, 4)]
    return np.concatenate([D[shift : trials + shift] for D in two for shift in (0, 1)], axis=1)


@pytest.mark.parametrize("code", RANDOM, **names)
def test_weights_layers_dies_and_trials_are_uncorrelated(code):
    # 26 weights are the layers of a 3-4-2 network; 5356 pairs, of which one in 2e7 lies beyond 5.5
    # standard errors
    assert worst_correlation(dies(code, 26, 4096)) < 5.5
    D = drawn(code, 40, 0, 4096)
    assert abs((D[1:, 1:] * D[:-1, :-1]).mean()) < 5 / np.sqrt(
        (len(D) - 1) * 39
    )  # along the diagonal of trials and weights


class _OneStream:
    """A slip of published code: all layers (3-4: 16 weights, 4-2: 10) draw from one random key."""

    def draw(self, n, sigma, seed, trial):
        D = CODES["rademacher"].draw(n, sigma, seed, trial)
        D[16:26] = D[:10]
        return D


class _NoSeed:
    """Another: the seed is ignored."""

    def draw(self, n, sigma, seed, trial):
        return CODES["gaussian"].draw(n, sigma, 0, trial)


@pytest.mark.parametrize("slip", [_OneStream(), _NoSeed()])
def test_a_shared_stream_and_an_ignored_seed_would_be_seen(slip):
    assert worst_correlation(dies(slip, 26, 4096)) > 50


@pytest.mark.parametrize("code", CODES.values(), **names)
def test_every_code_honours_the_seed(code):
    n = 64
    draws = {drawn(code, n, 0, 8, seed).tobytes() for seed in (0, 1, 2**32, 2**63)}
    # a register of 127 states may start two dies alike; these four it does not
    assert len(draws) == 4
    np.testing.assert_array_equal(drawn(code, n, 0, 8, 1), drawn(code, n, 0, 8, 1))


@pytest.mark.parametrize("n", [1, 3, 9, 27, 100])
@pytest.mark.parametrize("code", [code for code in PERIODIC if code.orthogonal], **names)
def test_orthogonal_codes_are_so_over_a_period_and_fold_over(code, n):
    period = code.period(n)
    assert n <= period <= 2 * n + 1
    passes = [drawn(code, n, p * period, (p + 1) * period) for p in range(3)]
    for D in passes:
        np.testing.assert_allclose(D.T @ D, period * np.eye(n), atol=1e-9 * period)
        if code.balanced:
            np.testing.assert_allclose(D.sum(0), 0, atol=1e-9 * period)
    np.testing.assert_array_equal(passes[1], -passes[0])
    if n >= 27:  # new signs or phases
        assert np.abs(passes[2] - passes[0]).max() > 0.1


@pytest.mark.parametrize("n", [1, 3, 8, 27, 100])
def test_shift_register_visits_every_state_and_its_taps_correlate_by_minus_one_over_L(n):
    code = CODES["lfsr"]
    L = code.period(n)
    assert n <= L < max(4, 2 * n + 2) and (L + 1) & L == 0
    D = drawn(code, n, 0, L)
    np.testing.assert_array_equal(D.T @ D, (L + 1) * np.eye(n) - 1)
    np.testing.assert_array_equal(np.abs(D.sum(0)), 1)
    np.testing.assert_array_equal(drawn(code, n, L, 2 * L), -D)
    np.testing.assert_array_equal(
        D[1:, :-1], D[:-1, 1:]
    )  # weight i + 1 had yesterday what weight i has today: it is a shift


def test_the_bits_of_one_register_stay_what_they_were():
    # drawn before tiles had registers; + as 1, the first weight first
    pinned = {
        (9, 0, 0): 0x9B,
        (9, 3, 40): 0x9B,
        (26, 2**63, 10**12 + 7): 0x196F51,
        (100, 5, 130): 0x37B5B2470BE57344F143040FE,
        (300, 1, 0): 0x6FB317043E00F08F4C90BC67B7514368C7E22C2B5FAA8297C8929F441C32CA397405A759CFE,
    }
    for (n, seed, trial), bits in pinned.items():
        for code in (CODES["lfsr"], lfsr(), lfsr(taps=n), lfsr(taps=n + 5)):
            D = code.draw(n, 1.0, seed, trial)
            assert sum(1 << (n - 1 - i) for i in range(n) if D[i] > 0) == bits
    assert lfsr() == CODES["lfsr"] != lfsr(9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**62),
    st.data(),
)
def test_any_slice_of_several_registers_equals_the_naive_code(n, taps, seed, trial, data):
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    bits = data.draw(st.none() | st.integers(max(2, min(taps, n).bit_length()), 9))
    expected = naive.perturbation("lfsr", n, 0.5, seed, trial, taps, bits)[start:stop]
    np.testing.assert_array_equal(lfsr(taps, bits).draw(n, 0.5, seed, trial, start, stop), expected)


@pytest.mark.parametrize("taps, bits", [(1, None), (1, 3), (7, None), (7, 8), (7, 3), (26, None)])
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_taps_of_several_registers_correlate_by_minus_one_over_L_or_by_one_where_they_meet(
    taps, bits, seed
):
    code, n = lfsr(taps, bits), 26
    L = code.period(n)
    assert L == 2 ** (bits or 5) - 1
    D = drawn(code, n, 0, L, seed)
    starts = [naive.words(seed, 0, k, 0) for k in range(-(-n // taps))]
    phases = np.array(
        [(starts[i // taps][0] * 2**32 + starts[i // taps][1] + i % taps) % L for i in range(n)]
    )
    meet = phases[:, None] == phases
    np.testing.assert_array_equal(D.T @ D, np.where(meet, L, -1))
    np.testing.assert_array_equal(drawn(code, n, L, 2 * L, seed), -D)
    assert code.registers.shared(n, seed) == (meet.sum(0) > 1).sum()
    np.testing.assert_array_equal(code.registers.phases(n, seed), phases)
    # within a tile it is a shift; from tile to tile it is none, but by chance
    shifted = (D[1:, :-1] == D[:-1, 1:]).all(0)
    assert all(shifted[i] for i in range(n - 1) if (i + 1) % taps)
    # what the theory makes of it: C slope
    slope = np.random.default_rng(seed % 97).standard_normal(n)
    np.testing.assert_allclose(
        code.registers.correlated(slope, seed), D.T @ D @ slope / L, atol=1e-12
    )


def test_registers_start_anywhere_and_elsewhere_for_another_seed():
    code, n = lfsr(taps=1, bits=8), 20_000
    phases = code.registers.phases(n, 3)
    counts = np.bincount(phases, minlength=255)
    assert counts.size == 255 and abs(counts - n / 255).max() < 5 * np.sqrt(n / 255)
    assert (phases == code.registers.phases(n, 4)).mean() < 5 / 255


def test_registers_that_cannot_be_are_refused():
    for options, message in (
        ({"taps": 0}, "taps = 0 of code lfsr must be an integer >= 1"),
        ({"taps": 2.0}, r"taps = 2\.0"),
        ({"taps": True}, "taps = True"),
        ({"bits": 1}, "bits = 1 of code lfsr must be an integer from 2 to 24"),
        ({"bits": 25}, "bits = 25"),
    ):
        with pytest.raises(InputError, match=message):
            lfsr(**options)
    with pytest.raises(
        InputError,
        match=(
            "a register of 5 bits has 31 different taps, too few for the 64 weights.* at least 7"
            " bits"
        ),
    ):
        lfsr(64, 5).check(100)
    lfsr(64, 5).check(31)  # no more weights than that
    lfsr(31, 5).check(10**6)
    with pytest.raises(InputError, match="too few for the 100 weights"):
        lfsr(bits=6).check(100)
    with pytest.raises(
        InputError,
        match=(
            "at most 24 bits, too short for 16777216 weights: set the bits of its registers, or use"
        ),
    ):
        lfsr(256).check(2**24)
    lfsr(256, 24).check(2**24)


@pytest.mark.parametrize("bits", range(2, 25))
def test_every_register_is_of_maximal_length(bits):
    # x generates the whole multiplicative group: x^(2^m - 1) = 1, and x to no proper divisor of 2^m
    # - 1 is
    L = 2**bits - 1
    divisors = {
        p for p in range(2, 4100) if L % p == 0 and all(p % q for q in range(2, int(p**0.5) + 1))
    }
    rest = L
    for p in divisors:
        while rest % p == 0:
            rest //= p
    divisors |= {rest} - {1}
    assert _state(L, bits) == 1
    assert all(_state(L // p, bits) != 1 for p in divisors)


def test_measured_code_is_known_within_its_error():
    code, n, trials = CODES["measured"], 50, 2000
    D = drawn(code, n, 0, trials)
    known = np.array([code.sensed(D[t], 1.0, 11, t) for t in range(trials)])
    error = known - D
    assert np.std(error) == pytest.approx(code.sensing, rel=5 / np.sqrt(2 * error.size))
    assert abs(np.mean(error * D)) < 5 * code.sensing / np.sqrt(error.size)
    np.testing.assert_array_equal(code.sensed(D[7][20:30], 1.0, 11, 7, 20), known[7][20:30])
    np.testing.assert_array_equal(CODES["gaussian"].sensed(D[7], 1.0, 11, 7), D[7])


def test_slice_outside_the_network_is_refused():
    with pytest.raises(InputError, match="weights 3..9 do not lie within 0..5"):
        CODES["gaussian"].draw(5, 1.0, 0, 0, 3, 9)


def test_a_register_too_short_is_refused():
    with pytest.raises(InputError, match="at most 24 bits, too short for 16777216 weights"):
        CODES["lfsr"].check(2**24)


def logistic_noise(seed, trial, start, stop):
    rng = np.random.Generator(np.random.Philox(key=[seed, trial]))
    return rng.logistic(size=stop)[start:] * np.sqrt(3) / np.pi


def two_columns(seed, trial, start, stop):
    return np.array([[1, 1, -1, -1], [1, -1, 1, -1]], dtype=float)[start:stop, trial % 4]


LOGISTIC = Code.from_function("logistic", logistic_noise, 4.2, 279 / 7)


def test_codes_of_the_users_own_are_taken_if_they_are_what_they_say():
    LOGISTIC.check(100)
    own = Code.from_function("own", two_columns, 1.0, 1.0, period=4)
    own.check(2)
    np.testing.assert_array_equal(own.draw(2, 0.5, 0, 1), [0.5, -0.5])
    with pytest.raises(InputError, match="period 4 is too short for 4 weights"):
        own.check(4)


@pytest.mark.parametrize(
    "function, kurtosis, message",
    [
        (
            lambda seed, trial, start, stop: logistic_noise(seed, trial, start, stop),
            3.0,
            r"E D\^4 is 4.* not 3",
        ),
        (
            lambda seed, trial, start, stop: 1.1 * logistic_noise(seed, trial, start, stop),
            4.2,
            r"E D\^2 is 1.2",
        ),
        (
            lambda seed, trial, start, stop: 1 + logistic_noise(seed, trial, start, stop),
            4.2,
            r"E D\^1 is 1",
        ),
        (
            lambda seed, trial, start, stop: logistic_noise(0, trial, start, stop),
            4.2,
            "ignores its seed",
        ),
        (
            lambda seed, trial, start, stop: logistic_noise(seed, trial, 0, stop - start),
            4.2,
            "a slice of a trial differs",
        ),
        (
            lambda seed, trial, start, stop: logistic_noise(seed, trial, 0, 1),
            4.2,
            r"has shape \(1,\): return \(100,\)",
        ),
        (lambda seed, trial, start, stop: np.full(stop - start, np.nan), 4.2, "is not finite"),
        (lambda seed, trial, start, stop: "noise", 4.2, "failed"),
        (
            lambda seed, trial, start, stop: np.repeat(logistic_noise(seed, trial, 0, stop), 2)[
                start:stop
            ],
            4.2,
            "weights 1 apart correlate by 0.5",
        ),
        (logistic_noise, np.nan, "kurtosis = nan"),
    ],
)
def test_codes_that_are_not_what_they_say_are_refused(function, kurtosis, message):
    with pytest.raises(InputError, match=message) as caught:
        Code.from_function("mine", function, kurtosis, 279 / 7).check(100)
    assert "\n" not in str(caught.value)
