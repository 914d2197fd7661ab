"""Perturbation codes: what a synapse adds to its weight in a trial.

A code is a function of (seed, trial, weight index). `CODES` holds those of the package by name.
"""

import math
from dataclasses import replace

import numpy as np

from perturb.errors import InputError
from perturb.trial.code import LFSR, SEQUENTIAL, SINE, WALSH, Code
from perturb.trial.shift_registers import LONGEST_REGISTER, Registers


def _walsh(n: int) -> int:
    return 1 << n.bit_length()  # the power of two >= n + 1


def _one_by_one(n: int) -> int:
    return n


def _sine(n: int) -> int:
    # frequencies 1..n are all different, and none is the negative of another, modulo 2n + 1
    return 2 * n + 1


CODES: dict[str, Code] = {
    code.name: code
    for code in (
        Code(
            "rademacher", 0, 1.0, 1.0, False, "+-sigma, equally likely: one random bit per weight"
        ),
        Code("gaussian", 1, 3.0, 15.0, False, "normal, standard deviation sigma"),
        Code(
            "uniform",
            4,
            1.8,
            # E x^4 = 9/5 and E x^6 = 27/7 on [-sqrt(3), sqrt(3)]
            27 / 7,
            False,
            "uniform between -sqrt(3) sigma and sqrt(3) sigma",
        ),
        Code(
            "ternary",
            2,
            3.0,
            # a^4/3 = 3 and a^6/3 = 9
            9.0,
            False,
            "-a, 0 or +a with probability 1/6, 2/3, 1/6, a = sqrt(3) sigma: three levels, the"
            " kurtosis of a Gaussian",
        ),
        Code(
            "walsh",
            WALSH,
            1.0,
            1.0,
            True,
            "+-sigma, Walsh-Hadamard columns with random signs: weights do not disturb each other"
            " over a period (the power of two >= n + 1)",
            _walsh,
        ),
        Code(
            "lfsr",
            LFSR,
            1.0,
            1.0,
            False,
            "+-sigma, shifted bits of maximal-length shift registers of period L = 2^m - 1, one for"
            " all weights or one per tile: weights correlate by -1/L, a bias of -(sum_j g_j -"
            " g_i)/L, or by 1 where two registers meet; for methods on dw alone",
            Registers(),
            balanced=False,
            independent=False,
        ),
        Code(
            "sequential",
            SEQUENTIAL,
            math.nan,
            math.nan,
            True,
            "one weight at a time by +-sigma sqrt(n), so that the rms over its period of n trials"
            " is sigma; for methods on dw alone",
            _one_by_one,
            balanced=False,
            independent=False,
        ),
        Code(
            "sine",
            SINE,
            # 4 <cos^4> = 3/2 and 8 <cos^6> = 5/2
            1.5,
            2.5,
            True,
            "sqrt(2) sigma cos, a frequency and a random phase of its own per weight: weights do"
            " not disturb each other over a period (2n + 1)",
            _sine,
        ),
        Code(
            "measured",
            1,
            3.0,
            15.0,
            False,
            "gaussian, the circuit's own noise, which each synapse measures with an error of 10 %"
            " of sigma",
            sensing=0.1,
        ),
    )
}


def lfsr(taps: int | None = None, bits: int | None = None) -> Code:
    """The code `lfsr` with several shift registers, as in the tiles of a chip.

    Parameters
    ----------
    taps : int, optional
        Consecutive weights that each register feeds; None, one register for all weights.
    bits : int, optional
        Of each register, 2 to 24; None, the fewest that give as many different taps as there are
        weights.

    Returns
    -------
    Code

    Raises
    ------
    InputError
        If taps or bits is not an integer in its range.

    Notes
    -----
    With several registers, weights of two of them may get the same perturbation, see `Registers`:
    then the estimate of each tends to the sum of what both should be, and `predict` says how many.
    More bits make it rarer.

    Examples
    --------
    >>> import perturb
    >>> perturb.lfsr(taps=64, bits=10).period(128)
    1023
    """
    for name, value, least, most in (("taps", taps, 1, 2**62), ("bits", bits, 2, LONGEST_REGISTER)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= most):
            allowed = f"from {least} to {most}" if name == "bits" else f">= {least}"
            raise InputError(
                f"{name} = {value!r} of code lfsr must be an integer {allowed}, or None"
            )
    return replace(CODES["lfsr"], length=Registers(taps and int(taps), bits and int(bits)))
