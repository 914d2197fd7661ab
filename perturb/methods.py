"""Methods of weight perturbation as one table: what is measured, what is broadcast, what each synapse regresses on."""

from dataclasses import dataclass
from typing import Literal

from perturb.errors import InputError

# what z is regressed on: dw itself, s dw with s = dw.v, or the source's b = (s/V)(dw - s v / 2V)
REGRESSORS = {"dw": 0, "s_dw": 1, "b": 2}


@dataclass(frozen=True)
class Method:
    """One way of turning measurements of E into per-weight estimates of g and z = Hv.

    phases: (a, b) for each evaluation E(w + a D + b r v) of a trial. gradient_weights, hv_weights: how the evaluations combine
    into the two broadcast numbers dE_g, dE_z (often the same). regressor: what z is regressed on, see REGRESSORS.
    fit: "moments" divides a covariance by its known denominator (sigma^2; sigma^4 or r sigma^2), centred: by the covariance
    rather than the mean product; "least_squares" solves each weight's own 2x2 problem for (g_i, z_i) with measured denominators.

    The constructor checks that the numbers are what a Taylor series of E wants: dE_g = D.g + even terms, and dE_z = r D'Hv + ...
    (regressor dw) or D'HD/2 + ... (the others).
    """

    name: str
    phases: tuple[tuple[int, int], ...]
    gradient_weights: tuple[float, ...]
    hv_weights: tuple[float, ...]
    regressor: Literal["dw", "s_dw", "b"]
    fit: Literal["moments", "least_squares"]
    centred: bool
    label: str
    broadcasts: str
    description: str

    def __post_init__(self) -> None:
        def moment(weights: tuple[float, ...], i: int, j: int) -> float:
            return sum(c * a**i * b**j for c, (a, b) in zip(weights, self.phases, strict=True))

        wanted = {(0, 0): 0.0, (1, 0): 1.0, (0, 1): 0.0}
        wrong = [f"dE_g[{i}{j}]" for (i, j), want in wanted.items() if abs(moment(self.gradient_weights, i, j) - want) > 1e-12]
        if self.regressor == "dw":
            wanted = {(0, 0): 0.0, (1, 0): 0.0, (0, 1): 0.0, (1, 1): 1.0}
        else:
            wanted = {(0, 0): 0.0, (2, 0): 1.0, (0, 1): 0.0, (1, 1): 0.0}
        wrong += [f"dE_z[{i}{j}]" for (i, j), want in wanted.items() if abs(moment(self.hv_weights, i, j) - want) > 1e-12]
        if wrong:
            raise InputError(
                f"method {self.name}: the weights of {', '.join(wrong)} do not give the derivative wanted: see Method"
            )

    @property
    def evaluations_per_trial(self) -> int:
        return len(self.phases)

    @property
    def displaced(self) -> bool:
        """Whether the weights are displaced by +-r v."""
        return any(b for _, b in self.phases)

    @property
    def needs_s(self) -> bool:
        """Whether s = dw.v is summed and broadcast."""
        return self.regressor != "dw"

    @property
    def words(self) -> list[str]:
        """The words broadcast in a trial, in order."""
        signals = ["dE"] if self.gradient_weights == self.hv_weights else ["dE_g", "dE_z"]
        return signals + ["dw.v"] * self.needs_s


_ONE_SIDED = (((0, 0), (1, 0)), (-1.0, 1.0), (-1.0, 1.0))

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "pearlmutter", *_ONE_SIDED, "b", "least_squares", False, "as published", "dE, dw.v",
            "the source's joint least squares for g_i and z_i, no intercept; inconsistent for z: tr H leaks in",
        ),
        Method(
            "pearlmutter_intercept", *_ONE_SIDED, "b", "least_squares", True, "extension", "dE, dw.v",
            "the same with an intercept: no trace term, but z along v is halved",
        ),
        Method(
            "covariance", *_ONE_SIDED, "s_dw", "moments", True, "extension", "dE, dw.v",
            "z_i = Cov(dE, s dw_i)/sigma^4; unbiased for codes of kurtosis 3 (gaussian, ternary)",
        ),
        Method(
            "antithetic", ((0, 0), (1, 0), (-1, 0)), (0.0, 0.5, -0.5), (-1.0, 0.5, 0.5), "s_dw", "moments", True, "extension",
            "dE odd and even, dw.v", "covariance on the even part of a +- pair: free of the gradient's noise, same bias",
        ),
        Method(
            "difference", ((1, 1), (-1, 1), (1, -1), (-1, -1)), (0.25, -0.25, 0.25, -0.25), (0.25, -0.25, -0.25, 0.25), "dw",
            "moments", False, "extension", "dE; w displaced by +-r v",
            "R{} of weight perturbation: 4-point cross difference, unbiased for every code",
        ),
    )
}  # fmt: skip
