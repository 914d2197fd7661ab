"""Functions of the user's own as objectives."""

import numpy as np
import pytest

import perturb
from perturb import InputError
from perturb.networks.objective import Objective


def test_any_function_is_an_objective_and_what_is_missing_is_said_and_approximated():
    def error(w):
        return np.sin(w[0]) * w[1] ** 2 + np.exp(w[2])

    def gradient(w):
        return np.array([np.cos(w[0]) * w[1] ** 2, 2 * np.sin(w[0]) * w[1], np.exp(w[2])])

    w, v = np.array([0.3, -1.2, 0.5]), np.array([1.0, 2.0, -1.0])
    H = np.diag([-np.sin(0.3) * 1.44, 2 * np.sin(0.3), np.exp(0.5)])
    H[0, 1] = H[1, 0] = 2 * np.cos(0.3) * -1.2
    full = Objective.from_functions(error, gradient, lambda w, v: H @ v, n_weights=3)
    half = Objective.from_functions(error, gradient, n_weights=3)
    bare = Objective.from_functions(error, n_weights=3)
    assert (full.inexact, half.inexact, bare.inexact) == ((), ("hvp",), ("gradient", "hvp"))
    np.testing.assert_allclose(half.hvp(w, v), H @ v, atol=1e-8)
    np.testing.assert_allclose(bare.gradient(w), gradient(w), atol=1e-9)
    np.testing.assert_allclose(bare.hvp(w, v), H @ v, atol=1e-5)
    np.testing.assert_allclose(full.hvp(w, np.eye(3)), H)
    compared = perturb.compare(perturb.estimate(full, w, v, 64, sigma=1e-3, r=1e-3), full, w, v)
    assert compared.hv.cosine > 0.9999
    with pytest.raises(InputError, match="gradient.w. has shape"):
        Objective.from_functions(error, lambda w: w[:2], n_weights=3).gradient(w)
    with pytest.raises(InputError, match="must return one number"):
        Objective.from_functions(lambda w: w, n_weights=3).error(w)


def test_a_users_function_may_use_its_memory_again_and_change_what_it_gets():
    H, memory = np.diag([1.0, 2.0, 3.0]), np.zeros(3)

    def gradient(w):
        memory[:] = H @ w
        w[:] = 7.0
        return memory

    def hvp(w, v):
        memory[:] = H @ v
        w[:] = v[:] = 7.0
        return memory

    w = np.array([1.0, -1.0, 2.0])
    for given in (hvp, None):
        objective = Objective.from_functions(lambda w: w @ H @ w / 2, gradient, given, n_weights=3)
        np.testing.assert_allclose(objective.hessian(w), H, atol=1e-8)
        np.testing.assert_array_equal(w, [1.0, -1.0, 2.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, "1.0", None, 1j])
def test_an_error_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match=r"error\(w\)"):
        Objective.from_functions(lambda w: value, n_weights=3).error(np.zeros(3))
