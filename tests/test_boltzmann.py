"""Boltzmann machines, exact and sampled."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import Boltzmann, InputError, compare, estimate, finite_difference_hvp

SHAPES = [(1, 0), (2, 0), (3, 0), (1, 1), (3, 2), (2, 3)]
CONVENTIONS = list(itertools.product(((0, 1), (-1, 1)), (1, -1), (0.5, 1.0, 2.0)))


def make(shape, values=(0, 1), sign=1, temperature=1.0, seed=0, observed=False):
    rng = np.random.default_rng(seed)
    net = Boltzmann(*shape, temperature, values, sign)
    data = rng.choice(values, (7, shape[0])) if observed else rng.dirichlet(np.ones(2 ** shape[0]))
    return (
        net,
        net.objective(data),
        rng.standard_normal(net.n_weights),
        rng.standard_normal(net.n_weights),
    )


def brute_force(net, w):
    """P(state) by the definition, state by state, and the features s_i s_j, s_i of each."""
    states = list(itertools.product(net.values, repeat=net.n_units))
    features = np.array(
        [
            [s[i] * s[j] for i in range(len(s)) for j in range(i + 1, len(s))] + list(s)
            for s in states
        ]
    )
    P = np.exp(-net.sign * features @ w / net.temperature)
    return P / P.sum(), features


def changes(net, Q, features, v):
    """R{sum_a Q_a features_a} along v, Q over all states as one distribution."""
    D = net.sign * features @ v
    return (Q @ features * (Q @ D) - (Q * D) @ features) / net.temperature


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values, sign, temperature", CONVENTIONS)
def test_enumeration_equals_the_definitions(shape, values, sign, temperature):
    net, objective, w, v = make(shape, values, sign, temperature)
    P, f = brute_force(net, w)
    D = f @ v * sign
    np.testing.assert_allclose(net.p(w), P @ f, atol=1e-13)
    np.testing.assert_allclose(
        net.R_p(w, v), ((P @ f) * (P @ D) - (P * D) @ f) / temperature, atol=1e-12
    )
    visible = P.reshape(2 ** shape[0], -1).sum(1)
    np.testing.assert_allclose(net.probabilities(w), visible, atol=1e-14)
    p = objective.distribution
    assert objective.error(w) == pytest.approx((p * np.log(p / visible)).sum(), abs=1e-13)


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values, sign, temperature", CONVENTIONS[::5])
def test_gradient_and_hv_of_the_divergence(shape, values, sign, temperature, observed):
    net, objective, w, v = make(shape, values, sign, temperature, observed=observed)
    eps = 1e-6
    g = [
        (objective.error(w + eps * e) - objective.error(w - eps * e)) / (2 * eps)
        for e in np.eye(w.size)
    ]
    np.testing.assert_allclose(objective.gradient(w), g, atol=1e-8)
    np.testing.assert_allclose(
        objective.hvp(w, v), finite_difference_hvp(objective, w, v), atol=1e-8
    )
    H = objective.hessian(w)
    np.testing.assert_allclose(objective.hvp(w, H), H @ H, atol=1e-12)
    assert objective.error_gradient_hvp(w, v)[0] == pytest.approx(objective.error(w), abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SHAPES))
def test_hv_is_symmetric_and_r_p_the_derivative_of_p(seed, shape):
    net, objective, w, v = make(shape, seed=seed)
    u = np.random.default_rng(seed + 1).standard_normal(w.size)
    assert u @ objective.hvp(w, v) == pytest.approx(v @ objective.hvp(w, u), abs=1e-12)
    eps = 1e-5
    np.testing.assert_allclose(
        net.R_p(w, v), (net.p(w + eps * v) - net.p(w - eps * v)) / (2 * eps), atol=1e-8
    )


@pytest.mark.parametrize("values, sign, temperature", CONVENTIONS)
def test_fully_visible_machine_has_the_covariance_of_its_features_for_hessian(
    values, sign, temperature
):
    net, objective, w, _ = make((3, 0), values, sign, temperature)
    P, f = brute_force(net, w)
    centred = f - P @ f
    np.testing.assert_allclose(
        objective.hessian(w), (centred.T * P) @ centred / temperature**2, atol=1e-13
    )


def test_two_spins_in_closed_form():
    # E = w s1 s2: <s1 s2> = -tanh(w/T), R{p_12} = -v / (T cosh^2(w/T))
    for T, w, v in itertools.product((0.5, 1.0, 2.0), (-0.7, 0.0, 1.3), (1.0, -2.0)):
        net = Boltzmann(2, 0, T, values=(-1, 1))
        assert net.p([w, 0, 0])[0] == pytest.approx(-np.tanh(w / T), abs=1e-14)
        assert net.R_p([w, 0, 0], [v, 0, 0])[0] == pytest.approx(
            -v / (T * np.cosh(w / T) ** 2), abs=1e-14
        )


def test_the_other_sign_convention_flips_w_and_v_together():
    net, objective, w, v = make((3, 2))
    flipped = Boltzmann(3, 2, sign=-1)
    other = flipped.objective(objective.distribution)
    assert other.error(-w) == pytest.approx(objective.error(w), rel=1e-13)
    np.testing.assert_allclose(other.hvp(-w, -v), -objective.hvp(w, v), atol=1e-13)
    np.testing.assert_allclose(flipped.R_p(-w, -v), net.R_p(w, v), atol=1e-13)


def test_clamped_phase_is_averaged_pattern_by_pattern_not_pooled():
    net, objective, w, v = make((2, 2))
    P, features = brute_force(net, w)
    each = P.reshape(4, 4)  # a row for each visible state
    clamped = (objective.distribution[:, None] * each / each.sum(1, keepdims=True)).ravel()
    pooled = changes(net, clamped, features, v) - net.R_p(w, v)
    assert (
        np.abs(pooled - objective.hvp(w, v)).max() > 0.01
    )  # negative control: the mistake would be seen


def test_patterns_errors_add_up_and_twenty_units_are_enumerated():
    net, objective, w, v = make((3, 1), observed=True)
    assert np.mean([objective.pattern(i).error(w) for i in range(7)]) == pytest.approx(
        objective.error(w), abs=1e-14
    )
    large, big, w, v = make((10, 10))
    assert np.isfinite(big.hvp(w / 5, v)).all()
    with pytest.raises(InputError, match="25 neurons have too many states"):
        Boltzmann(20, 5).p(np.zeros(325))


@pytest.mark.parametrize("values, sign, temperature", CONVENTIONS)
def test_sampling_agrees_with_enumeration_within_five_standard_errors(values, sign, temperature):
    net, _, w, v = make((3, 2), values, sign, temperature)
    w = 0.5 * temperature * w
    sampled = net.sample(w, v, sweeps=400, chains=200, seed=3)
    assert (np.abs(sampled.p - net.p(w)) <= 5 * sampled.p_stderr).all()
    assert (np.abs(sampled.R_p - net.R_p(w, v)) <= 5 * sampled.R_p_stderr).all()
    assert (
        np.abs(sampled.R_p - 1.3 * net.R_p(w, v)) > 5 * sampled.R_p_stderr
    ).any()  # negative control
    assert sampled.n_samples == 80_000 and 0.5 < sampled.autocorrelation < 40


def test_clamped_sampling_agrees_with_the_conditional_expectation():
    net, _, w, v = make((2, 3))
    state = np.array([1.0, 0.0])
    P, features = brute_force(net, w)
    clamped = P * (features[:, -net.n_units :][:, :2] == state).all(1)
    clamped /= clamped.sum()
    sampled = net.sample(w, v, sweeps=400, chains=200, clamped=state)
    difference = np.abs(sampled.p - clamped @ features)
    assert (difference <= 5 * sampled.p_stderr + 1e-12).all() and sampled.p_stderr.max() > 0
    exact = changes(net, clamped, features, v)
    assert (np.abs(sampled.R_p - exact) <= 5 * sampled.R_p_stderr + 1e-12).all()


@pytest.mark.parametrize("values, sign, temperature", CONVENTIONS[::2])
@pytest.mark.parametrize("observed", [False, True])
def test_sampled_gradient_and_hv_of_the_divergence_agree_with_the_exact_ones(
    values, sign, temperature, observed
):
    _, objective, w, v = make((2, 2), values, sign, temperature, observed=observed)
    w = 0.5 * temperature * w
    sampled = objective.sample(w, v, sweeps=400, chains=100, seed=5)
    g, z = objective.gradient(w), objective.hvp(w, v)
    assert (np.abs(sampled.gradient - g) <= 5 * sampled.gradient_stderr + 1e-12).all()
    assert (np.abs(sampled.hv - z) <= 5 * sampled.hv_stderr + 1e-12).all()
    assert (np.abs(sampled.hv - 1.5 * z) > 5 * sampled.hv_stderr).any()  # negative control
    assert sampled.n_samples == 40_000 * (len(objective.states) + 1)


def test_standard_errors_of_the_sampled_divergence_are_the_spread_over_seeds():
    _, objective, w, v = make((2, 2), observed=True)
    runs = [objective.sample(w, v, sweeps=100, chains=20, seed=seed) for seed in range(60)]
    # a spread of 60 values is known to 9 %, its mean over 10 weights better; the phases must not
    # share random numbers
    for name in ("gradient", "hv"):
        spread = np.std([getattr(run, name) for run in runs], axis=0, ddof=1)
        claimed = np.sqrt(np.mean([getattr(run, f"{name}_stderr") ** 2 for run in runs], axis=0))
        assert np.mean(spread / claimed) == pytest.approx(1, abs=0.12)


def test_a_machine_too_large_to_enumerate_is_sampled():
    net = Boltzmann(40, 8)
    rng = np.random.default_rng(0)
    objective = net.objective(rng.integers(0, 2, (3, 40)))
    w, v = np.zeros(net.n_weights), rng.standard_normal(net.n_weights)
    sampled = objective.sample(w, v, sweeps=50, chains=40, burn_in=1)
    # at w = 0 every unit that is not clamped is a fair coin: the gradient is known
    mean = np.concatenate([objective.observed.mean(0), np.full(8, 0.5)])
    second = np.full((48, 48), 0.25)
    second[:40, :40], second[:40, 40:] = (
        objective.observed.T @ objective.observed / 3,
        0.5 * mean[:40, None],
    )
    g = np.concatenate([second[net.pairs] - 0.25, mean - 0.5])
    assert (np.abs(sampled.gradient - g) <= 5 * sampled.gradient_stderr).all()
    with pytest.raises(InputError, match="48 neurons have too many states to enumerate"):
        objective.hvp(w, v)


def test_standard_errors_of_sampling_account_for_slow_chains():
    # strongly coupled spins flip rarely: errors that took sweeps for independent would be far too
    # small
    net = Boltzmann(2, 0, values=(-1, 1))
    w, v = np.array([-1.5, 0, 0]), np.array([1.0, 0.3, -0.2])
    p = np.array([net.sample(w, v, sweeps=200, chains=20, seed=seed).p[1] for seed in range(100)])
    one = net.sample(w, v, sweeps=200, chains=2000)
    claimed = one.p_stderr[1] * 10  # twenty chains instead of two thousand
    assert p.std() == pytest.approx(claimed, rel=0.3)  # a spread of 100 values is known to 7 %
    assert one.autocorrelation > 5


def test_same_seed_same_sample_other_seed_another():
    net, _, w, v = make((3, 2))
    a, b, c = (net.sample(w, v, 50, 8, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.R_p, b.R_p)
    assert not np.array_equal(a.p, c.p)


@pytest.mark.slow
def test_weight_perturbation_works_on_a_boltzmann_machine():
    _, objective, w, v = make((3, 2))
    compared = compare(estimate(objective, w, v, 32, sigma=1e-3, r=1e-3), objective, w, v)
    assert compared.hv.cosine > 0.999 and compared.gradient.cosine > 0.999


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Boltzmann(0, 2), "n_visible = 0 must be"),
        (lambda: Boltzmann(2, temperature=0.0), "temperature = 0.0"),
        (lambda: Boltzmann(2, values=(0, 2)), "values"),
        (lambda: Boltzmann(2, sign=0), "sign = 0"),
        (lambda: Boltzmann(2).objective([0.5, 0.5]), "give 4 probabilities"),
        (lambda: Boltzmann(2).objective([0.5, 0.6, 0.1, 0.1]), "with sum 1"),
        (lambda: Boltzmann(2).objective([[0.5, 0.5]]), "entries 0 or 1"),
        (lambda: Boltzmann(2).sample(np.zeros(3), np.zeros(3), chains=1), "chains = 1 must be"),
        (
            lambda: Boltzmann(2).sample(np.zeros(3), np.zeros(3), clamped=[[0, 1], [1, 1]]),
            r"clamped has shape \(2, 2\)",
        ),
        (lambda: Boltzmann(2).sample(np.zeros(3), np.zeros(3), seed=-1), "seed = -1 must be"),
        (lambda: Boltzmann(2).sample(np.zeros(3), np.zeros(3), seed=1.5), "seed = 1.5 must be"),
        (lambda: Boltzmann(2).objective(np.zeros((0, 2))), "one row or more"),
        (lambda: Boltzmann(2, temperature="1"), "must be a positive number"),
        (lambda: Boltzmann(2).p(np.zeros(4)), r"w has shape \(4,\)"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_data_are_a_copy():
    for data in (np.array([0.25, 0.25, 0.5, 0.0]), np.array([[0.0, 1.0], [1.0, 1.0]])):
        machine = Boltzmann(2, 1)
        objective, w = machine.objective(data), machine.init(0)
        E = [objective.error(w), objective.pattern(0).error(w)]
        data[:] = 0.5
        assert [objective.error(w), objective.pattern(0).error(w)] == E
