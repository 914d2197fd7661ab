"""Methods of weight perturbation as one table: what is measured, broadcast and regressed on.

`METHODS` holds those of the package by name.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perturb.errors import InputError
from perturb.trial.code import Code

# what z is regressed on: dw itself, s dw with s = dw.v, the source's b = (s/V)(dw - s v / 2V), or
# nothing: the gradient alone
REGRESSORS = {"dw": 0, "s_dw": 1, "b": 2, "none": 3}


def displacement(
    phase: tuple[int, int],
    D: np.ndarray,
    rv: np.ndarray | float,
    offset: np.ndarray | float = 0.0,
) -> np.ndarray:
    """a D + b r v of a phase (a, b). offset: of the drivers of D, not there where a = 0."""
    a, b = phase
    return a * D + (offset if a else 0.0) + b * rv


@dataclass(frozen=True)
class Method:
    """One way of turning measurements of E into per-weight estimates of g and z = Hv.

    Parameters
    ----------
    name : str
    phases : tuple of (a, b)
        For each evaluation E(w + a D + b r v) of a trial, every one measured anew, baselines too.
    gradient_weights : tuple of float, one for each phase
        How the evaluations combine into the broadcast number dE_g.
    hv_weights : tuple of float, one for each phase
        Into dE_z, often the same; all zero for the gradient alone.
    regressor : {"dw", "s_dw", "b", "none"}
        What z is regressed on: dw itself, s dw with s = dw.v, the source's b = (s/V)(dw - s v/2V)
        with V = v.v, or nothing.
    fit : {"moments", "least_squares"}
        "moments" divides by known denominators (sigma^2 for g; sigma^4 or r sigma^2 for z);
        "least_squares" solves each weight's own 2x2 problem for (g_i, z_i) with measured
        denominators.
    centred : bool
        Whether a covariance is taken rather than a mean product; of least squares, an intercept.
    label : str
        "as published" or "extension".
    broadcasts : str
        What is broadcast, in words.
    description : str
    correction : {"none", "diagonal", "along"}
        Of z, see Notes.

    Raises
    ------
    InputError
        If the numbers are not what a Taylor series of E wants: dE_g = D.g + even terms, and
        dE_z = r D'Hv + ... (regressor dw) or D'HD/2 + ... (the others); or if fit, regressor and
        correction do not go together.

    Notes
    -----
    "diagonal" regresses on s dw - kappa v dw^2 with kappa = (k-3)/(k-1), which takes the code's
    excess of H_ii v_i away (H_ii = 2 Cov(dE, dw^2)/(sigma^4 (k-1)), so s dw - kappa v dw^2 has the
    covariance z_i sigma^4); a code of k = 1 cannot see H_ii, and kappa is 0. "along" mends the
    joint least squares: z_i (1 - v_i^2/2V) + v_i c/2V, with c = v.z that the controller learns from
    dE and s. Both are exact on a quadratic for the codes of `unbiased`.

    Examples
    --------
    >>> import perturb
    >>> method = perturb.METHODS["difference"]
    >>> method.evaluations_per_trial, method.quantities, method.unbiased
    (4, ('gradient', 'hv'), 'every code')
    >>> method.moment("hv", 1, 1), method.moment("hv", 2, 0)
    (1.0, 0.0)
    """

    name: str
    phases: tuple[tuple[int, int], ...]
    gradient_weights: tuple[float, ...]
    hv_weights: tuple[float, ...]
    regressor: Literal["dw", "s_dw", "b", "none"]
    fit: Literal["moments", "least_squares"]
    centred: bool
    label: str
    broadcasts: str
    description: str
    correction: Literal["none", "diagonal", "along"] = "none"

    def __post_init__(self) -> None:
        # E(w + a D + b r v) = sum_ij a^i b^j D^i (r v)^j/(i! j!): dE_g is D.g, without E and r v.g
        wanted = {(0, 0): 0.0, (1, 0): 1.0, (0, 1): 0.0}
        wrong = [
            f"dE_g[{i}{j}]"
            for (i, j), want in wanted.items()
            if abs(self.moment("gradient", i, j) - want) > 1e-12
        ]
        # dE_z: nothing up to second order; r D'Hv without D.g and D'HD; or D'HD/2 without r D'Hv
        if self.regressor == "none":
            # no z: its weights are to give nothing that one could take for it
            wanted = dict.fromkeys(((0, 0), (1, 0), (2, 0), (0, 1), (1, 1)), 0.0)
        elif self.regressor == "dw":
            # R{dE}: r D'Hv alone; D.g and D'HD/2 would be noise, or bias
            wanted = {(0, 0): 0.0, (1, 0): 0.0, (2, 0): 0.0, (0, 1): 0.0, (1, 1): 1.0}
        else:
            # D'HD/2, from which Cov with s D_i takes z_i; D.g may be there, as noise
            wanted = {(0, 0): 0.0, (2, 0): 1.0, (0, 1): 0.0, (1, 1): 0.0}
        wrong += [
            f"dE_z[{i}{j}]"
            for (i, j), want in wanted.items()
            if abs(self.moment("hv", i, j) - want) > 1e-12
        ]
        if wrong:
            raise InputError(
                f"method {self.name}: the weights of {', '.join(wrong)} do not give the derivative"
                " wanted: see Method"
            )
        if self.fit == "least_squares" and (
            self.regressor != "b" or self.gradient_weights != self.hv_weights
        ):
            raise InputError(
                f'method {self.name}: fit = "least_squares" is of one dE on dw and b: set regressor'
                ' = "b" and equal weights'
            )
        # the corrections were derived for these regressors and fits alone
        fits = {
            "none": True,
            "diagonal": (self.regressor, self.fit) == ("s_dw", "moments") and self.centred,
        }
        fits["along"] = (self.regressor, self.fit) == ("b", "least_squares") and self.centred
        if not fits[self.correction]:
            raise InputError(
                f'method {self.name}: correction = "{self.correction}" goes with a centred '
                'regressor "s_dw" and fit "moments" (diagonal) or "b" and "least_squares" (along)'
            )

    def moment(self, of: Literal["gradient", "hv"], i: int, j: int) -> float:
        """What dE has of the Taylor series' term D^i (r v)^j / (i! j!).

        Parameters
        ----------
        of : {"gradient", "hv"}
            Which of dE_g and dE_z.
        i : int
            Power of D.
        j : int
            Power of r v.

        Returns
        -------
        float
            The sum over the phases of the weights times a^i b^j.
        """
        weights = self.gradient_weights if of == "gradient" else self.hv_weights
        return sum(c * a**i * b**j for c, (a, b) in zip(weights, self.phases, strict=True))

    @property
    def evaluations_per_trial(self) -> int:
        """Measurements of E in one trial."""
        return len(self.phases)

    @property
    def estimates_hv(self) -> bool:
        """Whether z is estimated at all; otherwise it is NaN everywhere."""
        return self.regressor != "none"

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is estimated: "gradient", and "hv" if z is."""
        return ("gradient", "hv") if self.estimates_hv else ("gradient",)

    @property
    def displaced(self) -> bool:
        """Whether the weights are displaced by +-r v."""
        return any(b for _, b in self.phases)

    @property
    def one_sided(self) -> bool:
        """Whether the curvature D'HD/2 enters dE_g, and so the noise of the gradient."""
        # 1e-12: weights such as 0.1 do not add up exactly
        return abs(self.moment("gradient", 2, 0)) > 1e-12

    @property
    def mixed(self) -> bool:
        """Whether D.g enters dE_z, and so the noise of z."""
        return abs(self.moment("hv", 1, 0)) > 1e-12

    @property
    def needs_s(self) -> bool:
        """Whether s = dw.v is summed and broadcast."""
        return self.regressor in ("s_dw", "b")

    @property
    def words(self) -> list[str]:
        """The words broadcast in a trial, in order."""
        # one word where both dE are the same combination
        signals = (
            ["dE"]
            if self.gradient_weights == self.hv_weights or not self.estimates_hv
            else ["dE_g", "dE_z"]
        )
        return signals + ["dw.v"] * self.needs_s

    @property
    def needs(self) -> list[str]:
        """What a synapse must know besides the words of a trial, and what must be done to it."""
        return (
            ["sigma"] * (self.fit == "moments")
            + ["kurtosis of the code"] * (self.correction == "diagonal")
            + ["v"] * (self.estimates_hv)
            + ["V = v.v"] * (self.regressor == "b")
            + ["c = v.z, once at the end"] * (self.correction == "along")
            + ["displacement of w by r v"] * self.displaced
        )

    @property
    def unbiased(self) -> str:
        """The codes for which z is unbiased on a quadratic E, in words; see `unbiased_with`."""
        if not self.estimates_hv:
            return "no z"
        if self.regressor == "dw":
            return "every code"
        if self.correction == "diagonal":
            return "codes of kurtosis above 1"
        covariance = self.regressor == "s_dw" and self.centred
        return "codes of kurtosis 3" if covariance or self.correction == "along" else "no code"

    def unbiased_with(self, code: Code) -> bool:
        """Whether z (and g) of a quadratic E are unbiased.

        Parameters
        ----------
        code : Code
            Of independent components, its moments known without error.

        Returns
        -------
        bool
        """
        if code.sensing > 0 and self.fit == "least_squares":
            return False
        k = code.kurtosis
        # the only law that is left is "codes of kurtosis above 1"
        law = {"no z": True, "every code": True, "no code": False, "codes of kurtosis 3": k == 3.0}
        return law.get(self.unbiased, k > 1.0)

    def kappa(self, kurtosis: float) -> float:
        """(k-3)/(k-1), the constant of the diagonal correction.

        Parameters
        ----------
        kurtosis : float
            k of the code.

        Returns
        -------
        float
            0 without that correction, and for k = 1, whose dw^2 is constant.
        """
        return (
            (kurtosis - 3.0) / (kurtosis - 1.0)
            if self.correction == "diagonal" and kurtosis > 1.0
            else 0.0
        )

    @property
    def summary(self) -> str:
        """One line: what it is, which codes make it unbiased, what it costs and needs."""
        z = f"z unbiased for {self.unbiased}" if self.estimates_hv else "no z"
        return (
            f"({self.label}) {self.description}; {z}; {self.evaluations_per_trial} evaluations a"
            f" trial; broadcasts {self.broadcasts}"
            + (f"; needs {', '.join(self.needs)}" if self.needs else "")
        )


# phases and weights that several methods share
# E(w), E(w + D): dE = D.g + D'HD/2
_ONE_SIDED, _DIFFERENCE = ((0, 0), (1, 0)), (-1.0, 1.0)
# and E(w - D): odd D.g, even D'HD/2
_PAIR, _ODD, _EVEN = ((0, 0), (1, 0), (-1, 0)), (0.0, 0.5, -0.5), (-1.0, 0.5, 0.5)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="pearlmutter",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=_DIFFERENCE,
            regressor="b",
            fit="least_squares",
            centred=False,
            label="as published",
            broadcasts="dE, dw.v",
            description=(
                "the source's joint least squares for g_i and z_i, no intercept; inconsistent for"
                " z: tr H leaks in"
            ),
        ),
        Method(
            name="pearlmutter_intercept",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=_DIFFERENCE,
            regressor="b",
            fit="least_squares",
            centred=True,
            label="extension",
            broadcasts="dE, dw.v",
            description="the same with an intercept: no trace term, but z along v is halved",
        ),
        Method(
            name="pearlmutter_corrected",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=_DIFFERENCE,
            regressor="b",
            fit="least_squares",
            centred=True,
            label="extension",
            broadcasts="dE, dw.v",
            description=(
                "with an intercept, and z along v put right by the controller's own c = v.z ="
                " Cov(dE, (dw.v)^2)/sigma^4"
            ),
            correction="along",
        ),
        Method(
            name="forward",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=(0.0, 0.0),
            regressor="none",
            fit="moments",
            centred=False,
            label="as published",
            broadcasts="dE",
            description="gradient alone: <dE dw>/sigma^2, one-sided",
        ),
        Method(
            name="central",
            phases=((1, 0), (-1, 0)),
            gradient_weights=(0.5, -0.5),
            hv_weights=(0.0, 0.0),
            regressor="none",
            fit="moments",
            centred=False,
            label="as published",
            broadcasts="dE",
            description="gradient alone, from a +- pair: curvature cancels",
        ),
        Method(
            name="covariance",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=_DIFFERENCE,
            regressor="s_dw",
            fit="moments",
            centred=True,
            label="extension",
            broadcasts="dE, dw.v",
            description=(
                "z_i = Cov(dE, s dw_i)/sigma^4, s = dw.v; bias (k-3)/2 H_ii v_i for a code of"
                " kurtosis k"
            ),
        ),
        Method(
            name="covariance_corrected",
            phases=_ONE_SIDED,
            gradient_weights=_DIFFERENCE,
            hv_weights=_DIFFERENCE,
            regressor="s_dw",
            fit="moments",
            centred=True,
            label="extension",
            broadcasts="dE, dw.v",
            description=(
                "covariance with s dw_i - kappa v_i dw_i^2, kappa = (k-3)/(k-1): "
                "each synapse takes its own H_ii v_i away"
            ),
            correction="diagonal",
        ),
        Method(
            name="antithetic",
            phases=_PAIR,
            gradient_weights=_ODD,
            hv_weights=_EVEN,
            regressor="s_dw",
            fit="moments",
            centred=True,
            label="extension",
            broadcasts="dE odd and even, dw.v",
            description=(
                "covariance on the even part of a +- pair: free of the gradient's noise, same bias"
            ),
        ),
        Method(
            name="antithetic_corrected",
            phases=_PAIR,
            gradient_weights=_ODD,
            hv_weights=_EVEN,
            regressor="s_dw",
            fit="moments",
            centred=True,
            label="extension",
            broadcasts="dE odd and even, dw.v",
            description="the same with the diagonal correction",
            correction="diagonal",
        ),
        Method(
            name="difference_2point",
            phases=((1, 1), (1, 0), (0, 1), (0, 0)),
            # z: a b of (1, 1) alone, r D'Hv; the gradient needs two of the four
            gradient_weights=(0.0, 1.0, 0.0, -1.0),
            hv_weights=(1.0, -1.0, -1.0, 1.0),
            regressor="dw",
            fit="moments",
            centred=False,
            label="extension",
            broadcasts="dE_g, dE_z; w displaced by r v",
            description=(
                "R{} of weight perturbation, one-sided: [E(w+rv+dw) - E(w+dw)] - [E(w+rv) - E(w)],"
                " baselines measured in every trial, so 16 times the noise variance of the 4-point"
                " form; bias O(r) beyond a quadratic"
            ),
        ),
        Method(
            name="difference",
            phases=((1, 1), (-1, 1), (1, -1), (-1, -1)),
            # over the signs of a and b: <a ...> leaves D.g, <a b ...> leaves r D'Hv
            gradient_weights=(0.25, -0.25, 0.25, -0.25),
            hv_weights=(0.25, -0.25, -0.25, 0.25),
            regressor="dw",
            fit="moments",
            centred=False,
            label="extension",
            broadcasts="dE; w displaced by +-r v",
            description=(
                "R{} of weight perturbation: 4-point cross difference; bias O(r^2) + O(sigma^2)"
                " beyond a quadratic"
            ),
        ),
    )
}
