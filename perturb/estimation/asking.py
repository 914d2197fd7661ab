"""Estimates of g and z with the measurements outside: which evaluations of E are wanted, and what
the trials that were told come to.
"""

from functools import partial
from pathlib import Path

import numpy as np

from perturb.checks import as_floats, as_weights, read_only_copy
from perturb.errors import InputError, choose
from perturb.estimation import archive
from perturb.estimation.design import Design, check_trials
from perturb.estimation.engine import run_readings
from perturb.estimation.questions import (
    TRIES,
    Evaluation,
    Questions,
    Told,
    Unanswered,
    of_design,
    told_of,
)
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method

Array = np.ndarray
FORMAT = "perturb askestimate 1"


class AskEstimate:
    """An estimate of g = dE/dw and z = Hv at given weights, by whoever measures E: the same methods
    and codes as `estimate`.

    Parameters
    ----------
    w, v : array of shape (n,)
        Weights, and the direction of z; v = 0 for the gradient alone.
    trials : int
        K.
    method : str or Method
    code : str or Code
    sigma, r : float
        The rms perturbation, and the displacement along v of methods that have one.
    seed : int
    tries : int
        How often an evaluation that fails (NaN, infinite, or no answer in time) is measured, before
        its trial is left out.

    Raises
    ------
    InputError
        As `estimate` does, but for what only an objective tells.

    Notes
    -----
    Told what an objective without a compiled kernel gives, `estimate()` is that of
    `perturb.estimate`, to the bit; with a kernel (`MLP`) within rounding. A trial that is left out
    counts for nothing; the others of its period count as of one that is not whole.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> asking = perturb.AskEstimate(np.zeros(2), np.array([1.0, 0.0]), trials=4)
    >>> for e in asking.ask():
    ...     news = asking.tell(e.id, objective.error(e.weights))
    >>> asking.estimate().gradient.round(6), asking.estimate().hv.round(6)
    (array([-1., -1.]), array([1., 1.]))
    """

    def __init__(
        self,
        w: Array,
        v: Array,
        trials: int,
        method: str | Method = "difference",
        code: str | Code = "walsh",
        sigma: float = 1e-2,
        r: float = 1e-2,
        seed: int = 0,
        tries: int = TRIES,
    ):
        method = choose("method", method, METHODS) if isinstance(method, str) else method
        code = choose("code", code, CODES) if isinstance(code, str) else code
        w = as_floats("w", w)
        if w.ndim != 1:
            raise InputError(f"w has shape {w.shape}, but must be (n,)")
        design = Design(method, code, w.size, sigma, r, seed)
        self._set(w, as_weights("v", v, w.size), design, check_trials(0, trials), Questions(tries))

    def _set(self, w: Array, v: Array, design: Design, trials: int, questions: Questions) -> None:
        if design.method.estimates_hv and not v.any():
            raise InputError("v is zero, so Hv is zero and dw.v carries nothing: give a direction")
        self.w, self.v, self.design, self.trials = read_only_copy(w), v, design, trials
        self._questions = questions
        made = partial(of_design, self.w, v, design)
        try:
            questions.values(trials * len(design.method.phases), made)
        except Unanswered:
            pass

    def ask(self, n: int | None = None) -> list[Evaluation]:
        """Evaluations to measure, in any order.

        Parameters
        ----------
        n : int, optional
            At most so many; left out, all.

        Returns
        -------
        list of Evaluation
            Each once, and again when it failed.
        """
        return self._questions.ask(n)

    def tell(self, id: int, value: float | None) -> bool:
        """Say what an evaluation came to.

        Parameters
        ----------
        id : int
        value : float or None
            E. None (no answer in time) or what is not finite: it is asked for again, or its trial
            left out after `tries` attempts.

        Returns
        -------
        bool
            Whether it was news.

        Raises
        ------
        InputError
            For a number that was not asked, or a value that is no number.
        """
        return self._questions.tell(id, value)

    @property
    def complete(self) -> bool:
        """Whether every evaluation has been told or left out."""
        return self._questions.complete

    @property
    def left_out(self) -> int:
        """Evaluations that were given up."""
        return self._questions.left_out

    def estimate(self) -> Estimate:
        """From the trials of which everything has been told so far.

        Returns
        -------
        Estimate

        Raises
        ------
        InputError
            If there is none yet.
        """
        values = self._questions.told.reshape(self.trials, -1)
        whole = np.isfinite(values).all(1)
        if not whole.any():
            raise InputError("no trial has been told yet: measure what ask() gives, and tell it")
        statistics, meter = Statistics(self.design), Told(values)
        # stretches of trials without a gap: edges are where one begins or ends
        edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]])))
        for first, last in edges.reshape(-1, 2).tolist():
            if first != statistics.next_trial:
                statistics.spans.append((first, first))
            run_readings(meter, self.w, self.v, statistics, last - first)
        return solve(statistics)

    def save(self, path: str | Path) -> None:
        """Write everything to one file (NumPy's npz), whole or not at all.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        header = {
            "format": FORMAT,
            "design": described(self.design),
            "trials": self.trials,
            "tries": self._questions.tries,
        }
        told = {f"told.{name}": array for name, array in self._questions.arrays().items()}
        archive.write(Path(path), "asked estimate", header, {"w": self.w, "v": self.v} | told)

    def resume(self, path: str | Path) -> None:
        """Go on from what `save` of an equal estimate wrote, to the same bits.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        InputError
            For a file that is missing, cut short, damaged, of another kind, or of another estimate.
        """
        path = Path(path)
        with archive.reading(path, "asked estimate", "give a file written by AskEstimate.save"):
            header, arrays = archive.read(path)
            if header["format"] != FORMAT:
                raise InputError("of another version of perturb: start anew")
            same = all(np.array_equal(arrays[name], getattr(self, name)) for name in "wv")
            if not same or (header["design"], header["trials"]) != (
                described(self.design),
                self.trials,
            ):
                raise InputError("is of another w, v, design or number of trials: give the same")
            told = told_of(
                {name[5:]: array for name, array in arrays.items() if name.startswith("told.")}
            )
            questions = Questions(header["tries"], stored=told)
            self._set(self.w, self.v, self.design, self.trials, questions)


def described(design: Design) -> dict[str, str]:
    """Every field of a design as a text."""
    texts = {name: repr(value) for name, value in vars(design).items()}
    return texts | {"code": design.code.described}
