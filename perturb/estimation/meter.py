"""Measurements of E for trials, with the noise of the readout; and the sums of trials whose phases
are read one by one, of any objective or by anything that reads E.
"""

from typing import NamedTuple, Protocol

import numpy as np

from perturb.estimation.design import Design
from perturb.kernels.arguments import Sums
from perturb.kernels.float64 import BLOCK, accumulate_each
from perturb.networks.objective import Objective
from perturb.trial.methods import REGRESSORS, displacement
from perturb.trial.random import NOISE, normals, normals_each, pattern_index
from perturb.trial.readout import Reading, read


class Mismatch(NamedTuple):
    """What reaches the weights of dw, each with (n,) numbers of its own: gain a dw + offset, in
    every phase with a != 0. The synapses know nothing of it.
    """

    gain: np.ndarray
    offset: np.ndarray


class Readings(Protocol):
    """What reads E.

    Attributes
    ----------
    steady : bool
        Whether E without noise is the same at w in all trials, so that it need not be computed for
        each.
    """

    steady: bool

    def measure_each(self, points: np.ndarray, trials: range, phase: int) -> np.ndarray:
        """E as read in a phase of some trials.

        Parameters
        ----------
        points : array (trials, n) or (1, n)
            The weights of each, or of all.
        trials : range
        phase : int

        Returns
        -------
        array (trials,)
        """


class Meter:
    """Evaluations of E as an estimate's design wants them: of all patterns, or of the one that
    the trial draws.

    Parameters
    ----------
    objective : Objective
    design : Design
    reading : Reading
        How the error of a pattern is read.

    Attributes
    ----------
    steady : bool
        Whether E without noise is the same at w in all trials.
    """

    def __init__(self, objective: Objective, design: Design, reading: Reading):
        self.objective, self.design, self.reading = objective, design, reading
        # a function of the user's own may measure something
        self.steady = objective.parallel
        self._patterns: dict[int, Objective] = {}

    def measure(self, weights: np.ndarray, trial: int, phase: int) -> float:
        """The mean reading over the presented patterns; the noise is keyed by (seed, trial,
        phase, pattern).

        Parameters
        ----------
        weights : array (n,)
        trial, phase : int

        Returns
        -------
        float
        """
        seed, shown, reading = np.uint64(self.design.seed), self.objective, self.reading
        if self.design.presentation == "pattern":
            shown = self._pattern(pattern_index(seed, trial, shown.n_patterns))
        errors = shown.pattern_errors(weights)
        xi = np.zeros(errors.size)
        if reading.noise > 0:
            normals(seed, NOISE, trial, phase, xi)
        return float(
            read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean()
        )

    def measure_each(self, points: np.ndarray, trials: range, phase: int) -> np.ndarray:
        """`measure` of many trials.

        Parameters
        ----------
        points : array (trials, n) or (1, n)
            The weights of each, or of all.
        trials : range
        phase : int

        Returns
        -------
        array (trials,)
        """
        seed, reading = np.uint64(self.design.seed), self.reading
        if self.design.presentation == "pattern":
            index = np.array(
                [pattern_index(seed, trial, self.objective.n_patterns) for trial in trials]
            )
            errors = np.empty((len(trials), 1))
            # all trials of a pattern at once, whatever their order
            for shown in np.unique(index):
                here = index == shown
                errors[here] = self._pattern(int(shown)).errors_at(
                    points if len(points) == 1 else points[here]
                )
        else:
            # at one point the same errors serve every trial; only their noise differs
            errors = np.broadcast_to(
                self.objective.errors_at(points), (len(trials), self.objective.n_patterns)
            )
        xi = np.zeros(errors.shape)
        if reading.noise > 0:
            normals_each(seed, NOISE, np.array(trials), np.full(len(trials), phase), xi)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)

    def _pattern(self, index: int) -> Objective:
        if index not in self._patterns:
            self._patterns[index] = self.objective.pattern(index)
        return self._patterns[index]


@np.errstate(over="ignore", invalid="ignore")
def sum_trials(
    meter: Readings,
    w: np.ndarray,
    v: np.ndarray,
    design: Design,
    mismatch: Mismatch | None,
    first: int,
    last: int,
    to: Sums,
) -> None:
    """`kernels.float64.mlp_trials` for any meter, some trials at a time; ends at a trial not
    finite.
    """
    method, code, V = design.method, design.code, float(v @ v)
    kind = REGRESSORS[method.regressor]
    # at most 8 MB for D
    together = max(1, min(8 * BLOCK, 2**20 // w.size))
    for begin in range(first, last, together):
        trials = range(begin, min(begin + together, last))
        D = code.draw_each(w.size, design.sigma, design.seed, np.array(trials))
        known = D
        if code.sensing > 0.0:
            known = np.array(
                [
                    code.sensed(dw, design.sigma, design.seed, trial)
                    for dw, trial in zip(D, trials, strict=True)
                ]
            )
        y, u = np.zeros(len(trials)), np.zeros(len(trials))
        for phase, (a, c) in enumerate(method.phases):
            once = a == c == 0 and meter.steady
            # of nothing but the driver of D are its gain and offset
            gain, offset = mismatch or (1.0, 0.0)
            moved = displacement((a, c), gain * D, design.r * v, offset)
            E = meter.measure_each(w[None] if once else w + moved, trials, phase)
            y += method.gradient_weights[phase] * E
            u += method.hv_weights[phase] * E
        wrong = ~np.isfinite(y + u)
        if wrong.any():
            to.failed[:] = trials[int(np.argmax(wrong))]
            return
        for b in range(begin // BLOCK, (trials.stop - 1) // BLOCK + 1):
            block = slice(max(0, b * BLOCK - begin), (b + 1) * BLOCK - begin)
            at = b - first // BLOCK
            s = accumulate_each(
                known[block],
                y[block],
                u[block],
                v,
                V,
                kind,
                design.kappa,
                to.sums[at],
                to.totals[at],
            )
            if to.received.shape[1]:
                to.received[:, begin - to.origin :][:, block] = y[block], u[block], s
