"""Design: what all trials of an estimate have in common."""

from dataclasses import dataclass

from perturb.checks import integer, positive
from perturb.errors import InputError
from perturb.trial.code import SEQUENTIAL, Code
from perturb.trial.methods import Method
from perturb.trial.shift_registers import Registers

MOST_TRIALS = 2**62  # trial numbers fit 64 bits with room to spare


@dataclass(frozen=True)
class Design:
    """What every trial of an estimate has in common; statistics of different designs never mix.

    Parameters
    ----------
    method : Method
    code : Code
    n_weights : int
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    seed : int
        Keys the code, the noise and the drawn patterns; from 0 to 2^64 - 1.
    presentation : {"batch", "pattern"}
        "batch": an evaluation presents all patterns; "pattern": a trial presents one, drawn at
        random.

    Raises
    ------
    InputError
        For a number out of its range, a pair of method and code that does not go together, or a
        code that cannot serve so many weights.
    """

    method: Method
    code: Code
    n_weights: int
    sigma: float
    r: float
    seed: int
    presentation: str = "batch"

    def __post_init__(self) -> None:
        for name in ("sigma", "r"):
            positive(name, getattr(self, name))
        integer("seed", self.seed, 0, 2**64 - 1)
        if self.presentation not in ("batch", "pattern"):
            raise InputError(
                f'presentation = {self.presentation!r} is unknown: "batch" or "pattern"'
            )
        check_pair(self.method, self.code)
        # a code may serve only so many weights, as shift registers do
        self.code.check(self.n_weights)

    @property
    def kappa(self) -> float:
        """The constant of the method's diagonal correction for this code, see `Method.kappa`."""
        return self.method.kappa(self.code.kurtosis)

    def not_finite(self, trial: int) -> "NotFinite":
        """What to say when E is not finite in a trial: which trial and seed it was, and how to
        draw it again.

        Parameters
        ----------
        trial : int

        Returns
        -------
        NotFinite
        """
        registers, name = self.code.registers, self.code.name
        if registers not in (None, Registers()):
            # a register of its own is not found in CODES
            name = f"perturb.lfsr({registers.taps}, {registers.bits})"
        elif self.code.function is None:
            name = f'perturb.CODES["{name}"]'
        return NotFinite(
            f"E is not finite in trial {trial} of {self.method.name}/{self.code.name} (seed"
            f" {self.seed}): lower sigma or r; its perturbation is {name}.draw({self.n_weights},"
            f" {float(self.sigma)!r}, {self.seed}, {trial})",
            trial,
        )

    @property
    def scales(self) -> tuple[float, float]:
        """Known denominators of g and z for fit = "moments"."""
        square = self.sigma * self.sigma  # infinite where a power would raise OverflowError
        return square, self.r * square if self.method.regressor == "dw" else square * square


class NotFinite(InputError):
    """E is not finite in a trial."""

    def __init__(self, message: str, trial: int):
        super().__init__(message, trial)  # all that it can be made of again, as SimPy does
        self.trial = trial

    def __str__(self) -> str:
        return self.args[0]


def check_pair(method: Method, code: Code) -> None:
    """InputError for a code whose components are too dependent for a method on s dw: its limit
    is not z, nor anything near.
    """
    if method.needs_s and not code.independent:
        what = (
            "perturbs one weight at a time"
            if code.kind == SEQUENTIAL
            else "repeats the same products of its columns"
        )
        raise InputError(
            f"method = {method.name!r} does not go with code = {code.name!r}, which {what}: use"
            " difference, or another code"
        )


def check_trials(first: int, trials: object) -> int:
    """`trials` more after `first`, as an int; InputError unless it is an integer >= 1 and
    trial numbers stay below 2^62.
    """
    count = integer("trials", trials, 1)
    if first + count > MOST_TRIALS:
        raise InputError(f"trials = {count} (after {first}) are more than fit: at most 2^62 in all")
    return count
