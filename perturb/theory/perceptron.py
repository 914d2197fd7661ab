"""Learning curves of a linear perceptron that learns from its teacher (Werfel, Xie and Seung
2005).
"""

import math
from typing import NamedTuple

import numpy as np

from perturb.checks import as_number, at_least_zero, integer, positive
from perturb.errors import InputError, choose

Array = np.ndarray


class Recursion(NamedTuple):
    """E' = a E + b, the expected error after an update from the expected error before it.

    Parameters
    ----------
    a : float
        Stable below 1.
    b : float
        In units of E.
    """

    a: float
    b: float

    @property
    def floor(self) -> float:
        """b/(1 - a), to which E tends; infinite for a >= 1."""
        return self.b / (1 - self.a) if self.a < 1 else math.inf

    def errors(self, E0: float, updates: int) -> Array:
        """The expected errors.

        Parameters
        ----------
        E0 : float
            Before the first update.
        updates : int

        Returns
        -------
        array of shape (updates + 1,)
            E_t = a^t E_0 + b (1 - a^t)/(1 - a) for t = 0..updates.

        Raises
        ------
        InputError
            For an E0 that is not finite or updates below 0.
        """
        # b times the geometric sum 1 + a + ... + a^(t-1), which is t for a = 1
        t = np.arange(integer("updates", updates, 0) + 1)
        with np.errstate(over="ignore"):
            power = self.a**t
            return power * as_number("E0", E0) + self.b * (
                t if self.a == 1 else (1 - power) / (1 - self.a)
            )


def _perceptron(kind: str, n_inputs: int, n_outputs: int) -> tuple[float, float, float]:
    """(A, B, C) of a = 1 - 2 eta + A eta^2 and b = eta^2 (B sigma^2 + C sE^2/sigma^2), see
    `perceptron_curve`.
    """
    N, M = integer("n_inputs", n_inputs, 1), integer("n_outputs", n_outputs, 1)
    # MN, the weights
    n = M * N
    table = {
        # E|x|^2 x x' = (N + 2) I for x ~ N(0, I)
        "gradient": (N + 2, 0.0, 0.0),
        # M outputs are perturbed, and not the MN weights
        "node": ((M + 2) * (N + 2), n * (M + 2) * (M + 4) / 8, n / 2),
        # n + 2 = n + k - 1 with k = 3: variance of one trial, and the square of its mean
        "weight-gaussian": ((n + 2) * (N + 2), n * (M + 2) * (N + 2) * (n + 4) / 8, n / 2),
        "weight-rademacher": (n * (N + 2), n * (n**2 + 2 * n * N + 2 * n * (M - 1)) / 8, n / 2),
        # no even part, and the mean of two readings' noise
        "antithetic": ((n + 2) * (N + 2), 0.0, n / 4),
    }
    return choose("kind", kind, table)


def perceptron_curve(
    kind: str,
    n_inputs: int,
    n_outputs: int,
    eta: float,
    sigma: float = 1e-2,
    error_noise: float = 0.0,
) -> Recursion:
    """(a, b) of E' = a E + b for a linear perceptron that learns from its teacher.

    Parameters
    ----------
    kind : {"gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"}
        What learns: exact gradients, node perturbation, weight perturbation by either code, or by
        Gaussian pairs.
    n_inputs, n_outputs : int
        N and M.
    eta : float
        Learning rate.
    sigma : float
        The rms perturbation, of the weights or, of "node", of the outputs.
    error_noise : float
        sE, standard deviation of a one-sided dE, of one evaluation in a pair.

    Returns
    -------
    Recursion

    Raises
    ------
    InputError
        For an unknown kind, or a number out of its range.

    Notes
    -----
    y = W x, E = |(W - W*) x|^2/2, a fresh x ~ N(0, I) and one trial for each update; E is meant
    over x. a = 1 - 2 eta + A eta^2, b = eta^2 (B sigma^2 + C sE^2/sigma^2), with

        gradient           A = N + 2,       B = C = 0
        node               A = (M+2)(N+2),  B = MN(M+2)(M+4)/8,                       C = MN/2
        weight-gaussian    A = (MN+2)(N+2), B = MN(M+2)(N+2)(MN+4)/8,                 C = MN/2
        weight-rademacher  A = MN(N+2),     B = MN[M^2 N^2 + 2MN^2 + 2MN(M-1)]/8,     C = MN/2
        antithetic         A = (MN+2)(N+2), B = 0,                                    C = MN/4

    References
    ----------
    Werfel, Xie and Seung, Learning curves for stochastic gradient descent in linear feedforward
    networks, Neural Computation 17 (2005) 2699-2718.

    Examples
    --------
    >>> from perturb.theory.learning_curves import perceptron_curve
    >>> perceptron_curve("gradient", n_inputs=2, n_outputs=1, eta=0.25)
    Recursion(a=0.75, b=0.0)
    """
    A, B, C = _perceptron(kind, n_inputs, n_outputs)
    eta, sigma, error_noise = (
        positive("eta", eta),
        positive("sigma", sigma),
        at_least_zero("error_noise", error_noise),
    )
    return Recursion(
        1 - 2 * eta + A * eta**2, eta**2 * (B * sigma**2 + C * error_noise**2 / sigma**2)
    )


def perceptron_rates(kind: str, n_inputs: int, n_outputs: int) -> tuple[float, float]:
    """The best and the largest stable learning rate of `perceptron_curve`.

    Parameters
    ----------
    kind : {"gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"}
        What learns: exact gradients, node perturbation, weight perturbation by either code, or by
        Gaussian pairs.
    n_inputs, n_outputs : int
        N and M.

    Returns
    -------
    tuple of two floats
        (eta_opt, eta_max) = (1/A, 2/A): where a is least, 1 - 1/A, and where it reaches 1.

    Raises
    ------
    InputError
        For an unknown kind, or a number out of its range.

    References
    ----------
    Werfel, Xie and Seung, Learning curves for stochastic gradient descent in linear feedforward
    networks, Neural Computation 17 (2005) 2699-2718.

    Examples
    --------
    >>> from perturb.theory.learning_curves import perceptron_rates
    >>> perceptron_rates("weight-rademacher", n_inputs=2, n_outputs=1)
    (0.125, 0.25)
    """
    A, _, _ = _perceptron(kind, n_inputs, n_outputs)
    # 1 - 2 eta + A eta^2 is least at 1/A and is 1 again at 2/A
    return 1 / A, 2 / A


def perceptron_sigma(kind: str, n_inputs: int, n_outputs: int, error_noise: float) -> float:
    """The amplitude with the least b of `perceptron_curve`, and so the least floor.

    Parameters
    ----------
    kind : {"gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"}
        What learns: exact gradients, node perturbation, weight perturbation by either code, or by
        Gaussian pairs.
    n_inputs, n_outputs : int
        N and M.
    error_noise : float
        sE.

    Returns
    -------
    float
        sigma^4 = C sE^2/B, for all eta; of weight-gaussian 4 sE^2/((M+2)(N+2)(MN+4)).

    Raises
    ------
    InputError
        For kinds with B = 0: no amplitude is too large for them.

    References
    ----------
    Werfel, Xie and Seung, Learning curves for stochastic gradient descent in linear feedforward
    networks, Neural Computation 17 (2005) 2699-2718.

    Examples
    --------
    >>> from perturb.theory.learning_curves import perceptron_sigma
    >>> round(perceptron_sigma("weight-gaussian", 2, 1, error_noise=0.01), 4)
    0.0485
    """
    _, B, C = _perceptron(kind, n_inputs, n_outputs)
    if B == 0:
        raise InputError(
            f"kind = {kind!r} has no best sigma, its curvature does not disturb: take the largest"
            " that E allows"
        )
    # d/d sigma^2 of B sigma^2 + C sE^2/sigma^2
    return (C / B) ** 0.25 * math.sqrt(at_least_zero("error_noise", error_noise))
