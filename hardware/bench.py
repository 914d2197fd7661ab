"""An emulated chip as an instrument: weights are set, E is measured, and nothing else is known.

What learns is outside: `perturb.training.AskTell` or `perturb.AskEstimate`. Weights in devices,
drivers of the perturbations, array, neurons and error unit are those of the chip, with all that is
wrong with them; synapses, bus and controller are whoever asks.
"""

from dataclasses import replace

import numpy as np

from hardware.assembly import Parts, assemble, realized_code
from hardware.params import ChipParams
from perturb.checks import as_weights
from perturb.estimation.design import Design
from perturb.estimation.questions import Evaluation
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method

Array = np.ndarray


class Bench:
    """A die of a chip under a task, whose weights somebody sets and whose E somebody reads.

    Parameters
    ----------
    params : ChipParams
    objective : Objective
        The task.
    w : array (n,)
        Weights that are programmed first.
    method, code : str
        Which perturb, of a chip that makes its perturbations by itself; evaluations are numbered
        by the phases of the method, for 1/f noise.
    seed : int
        Of writing; noise is keyed by the seed, trial and phase of each evaluation.

    Attributes
    ----------
    now_ns : int
        Chip time: evaluations and writes so far.
    evaluations : int
        How many have been measured.
    parts : Parts
        Its parts but the tiles.

    Examples
    --------
    >>> import numpy as np, hardware, perturb
    >>> from perturb.training import AskTell, Plan
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> bench = hardware.Bench(hardware.load_chip("ideal"), objective, np.zeros(2), "central")
    >>> loop = AskTell(np.zeros(2), Plan(eta=0.25))
    >>> while loop.updates < 3:
    ...     for e in loop.ask():
    ...         news = loop.tell(e.id, bench.answer(e))
    >>> bool(objective.error(loop.w) < 0.5 and bench.now_ns > 0)
    True
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        w: Array,
        method: str | Method = "difference",
        code: str | Code = "rademacher",
        seed: int = 0,
    ):
        self.params, self.objective = params, objective
        self.method = METHODS[method] if isinstance(method, str) else method
        code = CODES[code] if isinstance(code, str) else code
        self._code = realized_code(params, code, objective.n_weights)
        self._set = as_weights("w", w, objective.n_weights).copy()
        self.parts = self._parts_of(seed, None)
        self._of_seed = {seed: self.parts}
        self.now_ns = self.evaluations = self._writes = 0

    def _parts_of(self, seed: int, first: Parts | None) -> Parts:
        """The chip with noise of a seed: the same die, weights and drivers."""
        n, weights = self.objective.n_weights, first.array.weights if first else None
        design = Design(self.method, self._code, n, 1.0, 1.0, seed)
        parts = assemble(self.params, self.objective, design, self._set, weights=weights)
        return replace(parts, drivers=first.drivers) if first else parts

    def _parts(self, seed: int) -> Parts:
        if seed not in self._of_seed:
            # few seeds: a run, and what it measures its rate with, each time a new one
            if len(self._of_seed) > 16:
                self._of_seed = {}
            self._of_seed[seed] = self._parts_of(seed, self.parts)
        return self._of_seed[seed]

    def set(self, w: Array) -> None:
        """Write weights: what devices do not hold exactly, they hold as nearly as they can.

        Parameters
        ----------
        w : array (n,)
        """
        w = as_weights("w", w, self.objective.n_weights)
        if np.array_equal(w, self._set):
            return
        store = self.parts.array.weights
        self.now_ns += self.params.weights.write_ns
        if store.cells.params.model == "ideal":
            store.program(w)
        else:
            # pulses for the change that is wanted: nobody reads what the devices hold
            store.add(w - self._set, self._writes, self.now_ns)
        self._writes += 1
        self._set = w.copy()

    def held(self) -> Array:
        """The weights that the array computes with now, which no instrument can read.

        Returns
        -------
        array (n,)
        """
        return self.parts.array.weights.weights(self.now_ns)

    def answer(self, evaluation: Evaluation) -> float:
        """E as the chip reads it, perturbed by itself where it can be, at the weights it asks for.

        Parameters
        ----------
        evaluation : Evaluation

        Returns
        -------
        float
        """
        e = evaluation
        self.set(e.center)
        parts = self._parts(e.seed)
        if not e.own:
            return self.measure(e.seed, e.trial, e.phase, e.weights - e.center, e.patterns)
        code = self._code if e.code == self._code.name else CODES[e.code]
        D = code.draw(e.center.size, e.sigma, e.seed, e.draw)
        rv = np.zeros_like(D) if e.direction is None else e.r * e.direction
        D, rv = parts.health.masked(np.array([D, rv]), [e.trial, e.trial])
        works = parts.health.perfect or parts.health.working(e.trial)
        by = parts.drivers.target((e.a, e.b), D, rv, works)
        return self._read(parts, e.trial, e.phase, by, e.patterns)

    def measure(
        self, seed: int, trial: int, phase: int, by: Array, patterns: Array | None = None
    ) -> float:
        """E as the chip reads it, with the weights displaced from outside.

        Parameters
        ----------
        seed, trial, phase : int
            Of the noise.
        by : array (n,)
            By how much.
        patterns : int array, optional
            Which are shown; left out, all.

        Returns
        -------
        float
        """
        parts = self._parts(seed)
        by = parts.drivers.felt(parts.health.masked(by[None], [trial])[0])
        return self._read(parts, trial, phase, by, patterns)

    def _read(
        self, parts: Parts, trial: int, phase: int, by: Array, patterns: Array | None
    ) -> float:
        displaced = parts.drivers.settle(by)[None]
        keys = [(trial, phase)]
        stored = parts.array.weights.weights(self.now_ns, trial)
        array = parts.array.showing(patterns)
        E = parts.error_unit.read(array.errors(stored, displaced, keys), keys)[0]
        presented = self.objective.n_patterns if patterns is None else len(patterns)
        needed_ns = self.params.perturbation.settle_ns + presented * parts.pattern_ns
        self.now_ns += max(needed_ns, self.params.clock.evaluation_ns)
        self.evaluations += 1
        return float(E)
