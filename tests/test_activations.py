"""Compiled activations and errors against 170 digits and against slow twins."""

from decimal import Decimal as Number
from decimal import localcontext

import numpy as np
import pytest

from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS

# f and f' from t = e^-|x|, of positive and of negative x; units of the last place of each
EXACT = {
    "tanh": (
        lambda x, t: ((1 - t * t) / (1 + t * t)).copy_sign(x),
        lambda x, t: 4 * t * t / (1 + t * t) ** 2,
        3,
    ),
    "logistic": (
        lambda x, t: (1 if x > 0 else t) / (1 + t),
        lambda x, t: t / (1 + t) ** 2,
        3,
    ),
    "softplus": (
        lambda x, t: max(x, Number(0)) + (1 + t).ln(),
        lambda x, t: (1 if x > 0 else t) / (1 + t),
        4,
    ),
}
COMPILED = pytest.mark.parametrize("name", EXACT)


def units_off(found, exact):
    return max(
        abs(Number(float(a)) - b) / Number(float(np.spacing(abs(float(b)))))
        for a, b in zip(found, exact, strict=True)
    )


@COMPILED
def test_values_and_slopes_keep_all_but_the_last_digits_everywhere(name):
    f, df, units = EXACT[name]
    sizes = np.concatenate([np.geomspace(1e-300, 1e-3, 60), np.geomspace(1e-3, 350.0, 500)])
    sizes = np.concatenate([sizes, np.linspace(0.1, 40.0, 600)])
    x = np.concatenate([sizes, -sizes])
    y, slope = ACTIVATIONS[name].with_slope(x)
    with localcontext() as context:
        # 1 + e^-350 still has 18 digits of it; of tanh 1e-300 nothing would be left
        context.prec = 170
        numbers = [Number(float(at)) for at in x]
        t = [(-abs(number)).exp() for number in numbers]
        pairs = list(zip(numbers, t, strict=True))
        exact = [n if name == "tanh" and abs(n) < 1e-15 else f(n, s) for n, s in pairs]
        assert units_off(y, exact) < units
        assert units_off(slope, [df(n, s) for n, s in pairs]) < 3


def test_the_ends_are_those_of_numpy():
    x = np.array([0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-300, 19.5, 700.0, -1e300])
    x = np.append(x, [np.inf, -np.inf, np.nan])
    tanh, slope = ACTIVATIONS["tanh"].with_slope(x)
    np.testing.assert_array_equal(tanh, np.tanh(x))
    np.testing.assert_array_equal(np.signbit(tanh[:-1]), np.signbit(x[:-1]))
    np.testing.assert_array_equal(slope[:6], 1.0)
    np.testing.assert_array_equal(slope[7:], [0.0, 0.0, 0.0, 0.0, np.nan])
    ends = np.array([-np.inf, -800.0, 800.0, np.inf, np.nan])
    logistic, slope = ACTIVATIONS["logistic"].with_slope(ends)
    np.testing.assert_array_equal(logistic, [0.0, 0.0, 1.0, 1.0, np.nan])
    np.testing.assert_array_equal(slope, [0.0, 0.0, 0.0, 0.0, np.nan])
    softplus, slope = ACTIVATIONS["softplus"].with_slope(ends)
    # e^-708 stands for what is less
    np.testing.assert_allclose(softplus, [0.0, 0.0, 800.0, np.inf, np.nan], atol=4e-308)
    np.testing.assert_array_equal(slope, [0.0, 0.0, 1.0, 1.0, np.nan])


@COMPILED
def test_an_entry_is_the_same_in_arrays_of_any_shape_and_layout(name):
    activation, x = ACTIVATIONS[name], np.linspace(-30.0, 30.0, 210)
    y, slope = activation.with_slope(x)
    before = x.copy()
    # the rest after whole vectors, and one alone
    single = [activation.with_slope(x[i : i + 1]) for i in range(len(x))]
    np.testing.assert_array_equal(np.concatenate([each for each, _ in single]), y)
    np.testing.assert_array_equal(np.concatenate([each for _, each in single]), slope)
    for of in (
        lambda a: a[:0],
        lambda a: a[3],
        lambda a: a[::3],
        lambda a: a[::-1],
        lambda a: a.reshape(15, 14).T,
        lambda a: a.reshape(5, 6, 7)[:, ::2],
        lambda a: np.asfortranarray(a.reshape(5, 6, 7)),
    ):
        for found in (activation.with_slope(of(x)), (activation.f(of(x)),)):
            assert np.shape(found[0]) == np.shape(of(x))
            np.testing.assert_array_equal(found[0], of(y))
        np.testing.assert_array_equal(activation.df(of(x), of(y)), of(slope))
    np.testing.assert_array_equal(x, before)
    for whole in (np.arange(-3, 4), np.arange(-3, 4).astype(np.float32)):
        np.testing.assert_array_equal(activation.f(whole), activation.f(whole.astype(float)))


def naive(error, y, t, R_y):
    """e and R{e} of one pattern."""
    if error == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-y))
        return p - t, p * (1 - p) * R_y
    p = np.exp(y) / np.exp(y).sum()
    return t.sum() * p - t, t.sum() * (np.diag(p) - np.outer(p, p)) @ R_y


@pytest.mark.parametrize("error", ["cross_entropy", "binary_cross_entropy"])
def test_derivatives_of_errors_are_those_of_the_naive_twin_in_any_layout(error):
    rng = np.random.Generator(np.random.Philox(0))
    y, R_y = 3.0 * rng.standard_normal((7, 5)), rng.standard_normal((2, 7, 5))
    t = rng.random((7, 5))  # whose sums are not 1
    y[1] = 2.0
    y[2, 1] = y[2, 3] = 4.0  # two are the likeliest
    e, R_e = ERRORS[error].e(y, t), ERRORS[error].R_e(y, t)(R_y)
    for s in range(7):
        for d in range(2):
            expected = naive(error, y[s], t[s], R_y[d, s])
            np.testing.assert_allclose(e[s], expected[0], rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(R_e[d, s], expected[1], rtol=1e-12, atol=1e-15)
        # a pattern does not feel the others
        np.testing.assert_array_equal(ERRORS[error].e(y[s : s + 1], t[s : s + 1])[0], e[s])
    turned = np.asfortranarray(y), np.asfortranarray(t)
    turned[1].setflags(write=False)
    np.testing.assert_array_equal(ERRORS[error].e(*turned), e)
    found = ERRORS[error].R_e(*turned)(np.asfortranarray(R_y))
    np.testing.assert_array_equal(found, R_e)
    # one row of targets for all
    np.testing.assert_array_equal(ERRORS[error].e(y, t[:1])[0], e[0])
    np.testing.assert_array_equal(ERRORS[error].e(y, t[:1]), ERRORS[error].e(y, t[[0] * 7]))
