"""Philox and the perturbation codes."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import CODES, InputError
from perturb.philox import NOISE, normals, pattern_index, philox

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
    assert tuple(int(word) for word in philox(*(np.uint64(word) for word in (*counter, *key)))) == answer
    assert naive.philox(counter, key) == answer


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(CODES)), st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**62), st.data()
)  # fmt: skip
def test_any_slice_of_any_trial_equals_the_naive_code(code, n, seed, trial, data):
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    expected = naive.perturbation(code, n, 0.5, seed, trial)[start:stop]
    # Gaussian: log and cos may differ in the last place
    np.testing.assert_allclose(CODES[code].draw(n, 0.5, seed, trial, start, stop), expected, rtol=1e-13, atol=1e-14)


def test_noise_and_patterns_equal_the_naive_ones():
    out = np.empty(11)
    normals(np.uint64(9), NOISE, 5, 2, out)
    np.testing.assert_allclose(out, [naive.normal(9, NOISE, 5, 2, k) for k in range(11)], rtol=1e-13)
    assert [pattern_index(np.uint64(3), t, 7) for t in range(50)] == [naive.pattern_index(3, t, 7) for t in range(50)]


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_moments_are_those_stated(code):
    n, trials = 64, 2048
    D = np.array([code.draw(n, 1.0, 7, t) for t in range(trials)])
    samples = D.size
    # five standard errors of the mean of D^p, from the moments of the code (a Gaussian's 12th moment is 10395)
    for power, expected in ((1, 0.0), (2, 1.0), (4, code.kurtosis), (6, code.sixth)):
        spread = np.sqrt(np.mean(D ** (2 * power)) - np.mean(D**power) ** 2)
        assert abs(np.mean(D**power) - expected) <= 5 * spread / np.sqrt(samples) + 1e-12
    assert abs(np.mean(D**2) - 1.1) > 5 * np.std(D**2) / np.sqrt(samples)  # negative control


@pytest.mark.parametrize("code", [code for code in CODES.values() if not code.orthogonal], ids=lambda code: code.name)
def test_weights_and_trials_are_uncorrelated(code):
    n, trials = 40, 4096
    D = np.array([code.draw(n, 1.0, 3, t) for t in range(trials)])
    C = D.T @ D / trials
    assert np.abs(C - np.diag(np.diag(C))).max() < 5 / np.sqrt(trials)  # 780 pairs: five standard errors
    assert np.abs((D[1:] * D[:-1]).mean(0)).max() < 5 / np.sqrt(trials)
    assert abs((D[1:, 1:] * D[:-1, :-1]).mean()) < 5 / np.sqrt((trials - 1) * (n - 1))


@pytest.mark.parametrize("n", [1, 3, 9, 27, 100])
def test_walsh_is_orthogonal_and_balanced_over_a_period(n):
    code = CODES["walsh"]
    period = code.period(n)
    assert period > n and period & (period - 1) == 0 and period <= 2 * n
    for first in (0, period):
        D = np.array([code.draw(n, 1.0, 11, t) for t in range(first, first + period)])
        np.testing.assert_array_equal(D.T @ D, period * np.eye(n))
        np.testing.assert_array_equal(D.sum(0), 0)


def test_walsh_folds_over_and_then_changes_its_signs():
    code, n = CODES["walsh"], 50
    period = code.period(n)
    passes = [np.array([code.draw(n, 1.0, 11, t) for t in range(p * period, (p + 1) * period)]) for p in range(3)]
    np.testing.assert_array_equal(passes[1], -passes[0])
    assert 0.2 < (passes[2] == passes[0]).mean() < 0.8


def test_seeds_give_different_perturbations():
    draws = {CODES["rademacher"].draw(64, 1.0, seed, 0).tobytes() for seed in (0, 1, 2**32, 2**63)}
    assert len(draws) == 4


def test_slice_outside_the_network_is_refused():
    with pytest.raises(InputError, match="weights 3..9 do not lie within 0..5"):
        CODES["gaussian"].draw(5, 1.0, 0, 0, 3, 9)
