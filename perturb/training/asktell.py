"""Learning with the loop outside: which evaluations of E are wanted, and what they came to.

An update is computed by `loop.advance`, as any other, from what has been told so far; where a
reading is missing it is asked for, and the update is computed anew when that has been told. So
there is one loop and one statement of each rule, and to go on from a file is to compute again.
"""

from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np

from perturb.checks import as_floats, integer, read_only_copy
from perturb.errors import InputError
from perturb.estimation import archive
from perturb.estimation.design import Design
from perturb.estimation.questions import (
    TRIES,
    Evaluation,
    Questions,
    Told,
    Unanswered,
    of_design,
    told_of,
)
from perturb.training import loop
from perturb.training.by_trials import ByTrials
from perturb.training.plan import Plan, State, count_updates
from perturb.training.presentation import presented

Array = np.ndarray
FORMAT = "perturb asktell 1"


class Asked(ByTrials):
    """The source of updates of one run, whose readings are asked of somebody outside.

    center (n,): the weights of the run, which evaluations displace.
    """

    def __init__(self, plan: Plan, n_weights: int, n_patterns: int, tries: int):
        super().__init__(plan, n_weights, n_patterns)
        self.n_patterns, self.seed = n_patterns, plan.seed_of(0)
        self.write = loop.write_in_full
        self.questions = Questions(tries)
        self._drawn: tuple[int, tuple[Array, Array]] = (-1, (np.zeros(0), np.zeros(0)))

    def begin(self, state: State) -> None:
        """Go on to the next update."""
        self.center = read_only_copy(state.w[0])
        self._rounds: dict[int, tuple[loop.Told, Array]] = {}

    def again(self) -> None:
        """Compute the update anew."""
        self.questions.rewind()

    def perturb(self, trial: int, R: int) -> tuple[Array, Array]:
        # asked for in every phase, and when they have been told
        if trial != self._drawn[0]:
            self._drawn = trial, super().perturb(trial, R)
        return self._drawn[1]

    def measure(self, state: State, trial: int, D: Array, V: Array) -> Array | None:
        K, P = self.plan.trials_per_update, len(self.plan.method.phases)
        # all trials of a round are asked for together, as none needs the answers of another
        if trial % K == 0:
            made = partial(self._of_trial, trial, V[0].copy() if V.any() else None)
            self._told = self.questions.values(K * P, made).reshape(K, P)
        E = self._told[trial % K]
        return E[:, None] if np.isfinite(E).all() else None

    def readings(self, state: State, run: int, trial: int, first: int, displaced: Array) -> Array:
        made = partial(self._of_reading, trial, first, displaced.copy())
        return _all_told(self.questions.values(len(displaced), made))

    def meter(self, state: State, run: int, v: Array, design: Design, trials: int) -> Told:
        P = len(design.method.phases)
        made = partial(of_design, self.center, v.copy(), design)
        return Told(_all_told(self.questions.values(trials * P, made)).reshape(trials, P))

    def _round(self, state: State, first: int, V: Array) -> loop.Told:
        # computing the update anew, the sums of rounds that are complete are not made again
        if first in self._rounds:
            self.questions.skip()
            told, state.failed = self._rounds[first]
        else:
            told = super()._round(state, first, V)
            self._rounds[first] = told, state.failed
        return told

    def _of_trial(self, first: int, v: Array | None, k: int, id: int) -> Evaluation:
        plan = self.plan
        more, phase = divmod(k, len(plan.method.phases))
        trial, (a, b), shown = first + more, plan.method.phases[phase], None
        if plan.batch not in (0, self.n_patterns):
            number = trial // plan.sample_every
            shown = presented(self.seed, number, 1, plan.batch, self.n_patterns)[0]
        return Evaluation(
            id,
            self.center,
            self.seed,
            trial,
            phase,
            lambda: self.perturb(trial, 1)[0][0],
            a,
            b,
            trial // plan.perturb_every,
            plan.code.name,
            float(plan.sigma_at(trial // plan.trials_of_an_update)),
            plan.r,
            v,
            shown,
        )

    def _of_reading(self, trial: int, first: int, by: Array, k: int, id: int) -> Evaluation:
        return Evaluation(id, self.center, self.seed, trial, first + k, lambda: by[k], own=False)


class AskTell:
    """Learning of one run by a plan, by whoever measures E: the same rules, rates, methods and
    codes as `train`.

    Parameters
    ----------
    w : array of shape (n,)
        Starting weights.
    plan : Plan
    n_patterns : int
        Of the task, from which `Plan.batch` are shown; the noise of E is that of `Plan.reading`
        over so many readings.
    tries : int
        How often an evaluation that fails (NaN, infinite, or no answer in time) is measured.

    Attributes
    ----------
    state : State
        After the last update, as of `begin(w, plan)`: of one run.
    left_out : int
        Evaluations that were given up so far, after `tries` attempts. The trial counts for nothing:
        g and z are means over the others of its round.
    stopped : bool
        Whether learning has ended by itself (`Plan.stop_change`, or dE not finite).
    skipped : int
        Updates that were not made, as nothing of a round was left or a reading beside the trials
        was given up. They are counted, and change no weight.

    Raises
    ------
    InputError
        For starting weights that are no vector, a plan that only an emulated chip can follow
        (`baseline_free`, `patience`), or one that is to be calibrated first.

    Notes
    -----
    What an update needs is asked for round by round: all evaluations of the K trials of g may be
    measured in any order or side by side, then what a rule or a rate measures besides. Told the E
    of an objective (`Batch.answer`), the weights are those of `train` with `Batch(...,
    precision="float64")`, to the bit. Cost: `Plan.evaluations`, and evaluations that were repeated.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> from perturb.training import AskTell, Plan
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> loop = AskTell(np.zeros(2), Plan(code="walsh", trials_per_update=4, eta=0.25))
    >>> while loop.updates < 1:
    ...     for e in loop.ask():
    ...         news = loop.tell(e.id, objective.error(e.weights))
    >>> loop.w.round(6)
    array([0.25, 0.25])
    """

    def __init__(self, w: Array, plan: Plan, n_patterns: int = 1, tries: int = TRIES):
        w = as_floats("w", w)
        if w.ndim != 1:
            raise InputError(f"w has shape {w.shape}, but must be (n,): one AskTell for each chip")
        for name in ("baseline_free", "patience"):
            if getattr(plan, name):
                raise InputError(
                    f"{name} = {getattr(plan, name)} is not for a chip, of which nothing but E at"
                    " the weights set is known: leave it out"
                )
        integer("n_patterns", n_patterns, 1)
        self.plan, self.left_out, self.skipped = plan, 0, 0
        self.state = loop.begin(w, plan)
        self._source = Asked(plan, w.size, n_patterns, tries)
        self._source.begin(self.state)
        self._go_on()

    @property
    def w(self) -> Array:
        """The weights after the last update, (n,)."""
        return self.state.w[0].copy()

    @property
    def result(self) -> Array:
        """What has been learned, (n,): `State.result`."""
        return self.state.result[0].copy()

    @property
    def updates(self) -> int:
        """How many are done."""
        return self.state.update

    def ask(self, n: int | None = None) -> list[Evaluation]:
        """Evaluations to measure.

        Parameters
        ----------
        n : int, optional
            At most so many; left out, all that do not wait for others.

        Returns
        -------
        list of Evaluation
            Each once, and again when it failed. Empty while those asked for have to be told first.
        """
        return [] if self.stopped else self._source.questions.ask(n)

    def tell(self, id: int, value: float | None) -> bool:
        """Say what an evaluation came to.

        Parameters
        ----------
        id : int
            Of an evaluation; in any order.
        value : float or None
            E. None (no answer in time) or what is not finite: it is asked for again, or given up
            after `tries` attempts; an answer that comes after all is still taken.

        Returns
        -------
        bool
            Whether it was news: False of what had been told before.

        Raises
        ------
        InputError
            For a number that was not asked, or a value that is no number.
        """
        questions = self._source.questions
        news = questions.tell(id, value)
        if news and questions.complete:
            self._go_on()
        return news

    def _go_on(self) -> None:
        """Do the updates of which everything has been told, and ask for what the next one needs."""
        source = self._source
        while not (stopped := not self.state.going.any()):
            # what a rule remembers changes only when the whole update is known
            state = _copy(self.state)
            source.again()
            try:
                loop.advance(source, state, 1)
            except Unanswered:
                break
            except loop.NothingTold:
                state = _copy(self.state)
                count_updates(state, self.plan, 1)
                loop.average(state, self.plan)
                self.skipped += 1
            loop.stop_where_still(state, self.plan)
            self.left_out += source.questions.left_out
            self.state = state
            source.questions = source.questions.behind()
            source.begin(state)
        self.stopped = stopped

    def save(self, path: str | Path) -> None:
        """Write everything to one file (NumPy's npz), whole or not at all.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        InputError
            If the file cannot be written.

        Notes
        -----
        After any `tell`. What was asked and not told is asked again by a loop that is loaded; its
        evaluations have the same numbers, so that an answer to the first one counts too.
        """
        source = self._source
        header = {
            "format": FORMAT,
            "plan": _described(self.plan),
            "n_patterns": source.n_patterns,
            "tries": source.questions.tries,
            "first": source.questions.first,
            "left_out": self.left_out,
            "skipped": self.skipped,
        }
        parts = {f"state.{name}": array for name, array in self.state.arrays().items()}
        parts |= {f"told.{name}": array for name, array in source.questions.arrays().items()}
        archive.write(Path(path), "state of learning", header, parts)

    @classmethod
    def load(cls, path: str | Path, plan: Plan) -> "AskTell":
        """Go on from what `save` wrote, to the same bits.

        Parameters
        ----------
        path : str or Path
        plan : Plan
            That of the loop that was saved.

        Returns
        -------
        AskTell

        Raises
        ------
        InputError
            For a file that is missing, cut short, damaged, of another kind, or of another plan.
        """
        path = Path(path)
        with archive.reading(path, "state of learning", "give a file written by AskTell.save"):
            header, arrays = archive.read(path)
            if header["format"] != FORMAT:
                raise InputError("of another version of perturb: start anew")
            stored, given = header["plan"], _described(plan)
            if differ := [name for name in given if given[name] != stored.get(name)]:
                raise InputError(
                    f"is of a plan with another {', '.join(differ)}: give the same plan, or start"
                    " anew"
                )
            named = {
                start: {
                    name.removeprefix(start): array
                    for name, array in arrays.items()
                    if name.startswith(start)
                }
                for start in ("state.", "told.")
            }
            state = State.of_arrays(named["state."])
            found = cls(state.w[0], plan, header["n_patterns"], header["tries"])
            found.state, found.left_out, found.skipped = (
                state,
                header["left_out"],
                header["skipped"],
            )
            source = found._source
            source.questions = Questions(header["tries"], header["first"], told_of(named["told."]))
            source.begin(state)
            found._go_on()
        return found


def _copy(state: State) -> State:
    memory, extra = (
        {name: array.copy() for name, array in arrays.items()}
        for arrays in (state.memory, state.extra)
    )
    counts = state.update, state.trial, state.evaluations
    return State(state.w.copy(), *counts, memory, state.failed.copy(), extra)


def _all_told(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise loop.NothingTold
    return values


def _described(plan: Plan) -> dict[str, str]:
    """Every field of a plan as a text: two plans that differ do so in one of them."""
    texts = {each.name: repr(getattr(plan, each.name)) for each in fields(plan)}
    return texts | {"code": plan.code.described}
