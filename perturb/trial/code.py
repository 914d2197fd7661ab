"""What a perturbation code is: a function of (seed, trial, weight index), and its moments."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from perturb.errors import InputError
from perturb.trial.shift_registers import Registers

Array = np.ndarray
Draw = Callable[[int, int, int, int], Array]
# kinds in `random.perturbation` that theory and messages know
GAUSSIAN, WALSH, UNIFORM, SEQUENTIAL, LFSR, SINE = 1, 3, 4, 5, 6, 7


@dataclass(frozen=True)
class Code:
    """One perturbation code and the moments that decide what it can estimate.

    Parameters
    ----------
    name : str
    kind : int
        Its number in `random.perturbation`; -1 for a code of the user's own.
    kurtosis : float
        k = E D^4/sigma^4; NaN: it depends on the number of weights.
    sixth : float
        E D^6/sigma^6; NaN likewise.
    orthogonal : bool
        Whether over one period the columns of different weights have zero product.
    description : str
    length : callable, optional
        length(n): trials until the code of n weights repeats, up to signs (of `lfsr`, the
        `Registers`). None for a random code.
    balanced : bool
        Whether over one period each column has zero sum.
    independent : bool
        Whether the components of a trial are independent over the seeds, at least to the moments
        that `theory` uses; methods on s dw need it.
    sensing : float
        Relative error e of what a synapse knows of its own perturbation: the array sees D, the
        synapse regresses on D + e sigma x, x standard normal, so measured denominators come out (1
        + e^2) too large.
    function : callable, optional
        Of a user's own code, see `from_function`.

    Notes
    -----
    Every periodic code of the package is folded over: odd passes repeat the even ones with all
    signs turned, so that over a double period nothing even in D is left in the estimate of g.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> code = perturb.CODES["walsh"]
    >>> code.kurtosis, code.period(3)
    (1.0, 4)
    >>> D = code.draw_each(3, sigma=1.0, seed=0, trials=np.arange(4))
    >>> D.T @ D
    array([[4., 0., 0.],
           [0., 4., 0.],
           [0., 0., 4.]])
    """

    name: str
    kind: int
    kurtosis: float
    sixth: float
    orthogonal: bool
    description: str
    length: Callable[[int], int] | None = None
    balanced: bool = True
    independent: bool = True
    sensing: float = 0.0
    function: Draw | None = None

    @classmethod
    def from_function(
        cls,
        name: str,
        function: Draw,
        kurtosis: float,
        sixth: float,
        period: int | None = None,
        description: str = "",
    ) -> "Code":
        """A code of the user's own, without changing the package.

        Parameters
        ----------
        name : str
        function : callable
            function(seed, trial, start, stop): the perturbations of weights start..stop-1 in units
            of sigma, shape (stop - start,); always the same for the same arguments, every slice
            equal to that of the whole.
        kurtosis : float
            E D^4 of what `function` returns.
        sixth : float
            E D^6 of it.
        period : int, optional
            Trials until a deterministic code repeats, at least 2: it must be orthogonal and of zero
            sum over it, and serves methods on dw alone. None for a random code.
        description : str

        Returns
        -------
        Code

        Raises
        ------
        InputError
            For a period that is not an integer of 2 or more; by `check`, if the perturbations are
            not what is stated.

        Notes
        -----
        The perturbations must have mean 0, variance 1 and the kurtosis and sixth moment stated, and
        be independent of each other; `check` tests that before a code is used. Such a code runs by
        the general path, one trial after another.

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> def signs(seed, trial, start, stop):
        ...     return np.random.default_rng([seed, trial]).choice([-1.0, 1.0], stop)[start:]
        >>> code = perturb.Code.from_function("signs", signs, kurtosis=1.0, sixth=1.0)
        >>> code.check(n_weights=10)
        >>> code.periodic
        False
        """
        if period is not None and not (isinstance(period, (int, np.integer)) and period >= 2):
            raise InputError(f"period = {period!r} of code {name} must be an integer >= 2, or None")
        length = None if period is None else _Constant(int(period))
        # a periodic one is taken as orthogonal: `check` compares some of its columns
        random = period is None
        description = description or "of the user's own"
        return cls(
            name,
            -1,
            kurtosis,
            sixth,
            not random,
            description,
            length,
            independent=random,
            function=function,
        )

    @property
    def eighth(self) -> float:
        """E D^8/sigma^8; of a user's own code the least that its lower moments allow."""
        k, m = self.kurtosis, self.sixth
        # 7!!, 3^4/9 and 2^4 <cos^8>; signs and ternary, of two and three values, have the least
        known = {GAUSSIAN: 105.0, UNIFORM: 9.0, SINE: 35 / 8}
        # what moments of order 2 to 8 of any variable satisfy
        least = (m * m - 2 * k * m + k**3) / (k - 1) if k > 1 else k
        return known.get(self.kind, least)

    @property
    def periodic(self) -> bool:
        """Whether the code repeats after `period` trials, up to signs."""
        return self.length is not None

    @property
    def registers(self) -> "Registers | None":
        """The shift registers of the code `lfsr`; None for any other."""
        return self.length if isinstance(self.length, Registers) else None

    def taps(self, n_weights: int) -> int:
        """Weights that one shift register feeds.

        Parameters
        ----------
        n_weights : int

        Returns
        -------
        int
            All weights, where the code is made without a register, or by a single one.
        """
        return (self.registers and self.registers.taps) or n_weights

    @property
    def summary(self) -> str:
        """One line: what it is, its moments, whether it repeats, is orthogonal and folded over."""
        moments = [
            f"{number:g}" if np.isfinite(number) else text
            for number, text in ((self.kurtosis, "n"), (self.sixth, "n^2"))
        ]
        kind = "random"
        if self.periodic:
            kind = (
                "periodic"
                + ", folded over" * (self.function is None)
                + ", orthogonal" * self.orthogonal
            )
        return f"{self.description}; kurtosis {moments[0]}, sixth moment {moments[1]}; {kind}"

    def period(self, n_weights: int) -> int:
        """Trials until the code repeats, up to signs.

        Parameters
        ----------
        n_weights : int

        Returns
        -------
        int
            1 for a random code.

        Raises
        ------
        InputError
            If the period is too short for n_weights.
        """
        return 1 if self.length is None else self.length(n_weights)

    @property
    def described(self) -> str:
        """What tells it from other codes, the same in every process; not its function."""
        return f"{self.name} {self.registers} {self.sensing}"

    def draw(
        self,
        n_weights: int,
        sigma: float,
        seed: int,
        trial: int,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        """The perturbations of some weights in one trial.

        Parameters
        ----------
        n_weights : int
            Of the whole network.
        sigma : float
            The rms perturbation, in units of the weights.
        seed : int
        trial : int
            From 0.
        start : int
            The first weight.
        stop : int, optional
            One past the last weight; left out, n_weights.

        Returns
        -------
        array of shape (stop - start,)

        Notes
        -----
        Any slice equals the same slice of the whole: a synapse needs only the seed, the trial
        number and its own index.
        """
        from perturb.trial.random import perturbation

        stop = n_weights if stop is None else stop
        # a synapse may ask for itself alone
        if not 0 <= start <= stop <= n_weights:
            raise InputError(
                f"weights {start}..{stop} do not lie within 0..{n_weights}: give 0 <= start <= stop"
                " <= n_weights"
            )
        if self.function is not None:
            return sigma * np.asarray(
                self.function(int(seed), int(trial), start, stop), dtype=float
            )
        out = np.empty(stop - start)
        perturbation(
            self.kind,
            np.uint64(seed),
            trial,
            sigma,
            self.period(n_weights),
            self.taps(n_weights),
            start,
            out,
        )
        return out

    def draw_each(
        self,
        n_weights: int,
        sigma: float,
        seed: int,
        trials: Array,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        """`draw` in each of several trials.

        Parameters
        ----------
        n_weights : int
            Of the whole network.
        sigma : float
            The rms perturbation, in units of the weights.
        seed : int
        trials : int array
        start, stop : int
            The first weight, and one past the last; left out, all weights.

        Returns
        -------
        array of shape (trials, stop - start)
        """
        from perturb.trial.random import perturbations

        stop = n_weights if stop is None else stop
        out = np.empty((len(trials), stop - start))
        if self.function is not None:
            out[:] = [self.draw(n_weights, sigma, seed, trial, start, stop) for trial in trials]
        else:
            perturbations(
                self.kind,
                np.uint64(seed),
                trials,
                sigma,
                self.period(n_weights),
                self.taps(n_weights),
                start,
                out,
            )
        return out

    def sensed(self, D: Array, sigma: float, seed: int, trial: int, start: int = 0) -> Array:
        """What synapses know of their perturbations.

        Parameters
        ----------
        D : array of shape (k,)
            The perturbations of the weights start, start + 1, ...
        sigma : float
            The rms perturbation, in units of the weights.
        seed : int
        trial : int
        start : int
            The first weight.

        Returns
        -------
        array of shape (k,)
            D itself unless `sensing`.
        """
        from perturb.trial.random import sense

        if self.sensing == 0.0:
            return D
        known = np.empty(D.size)
        sense(np.uint64(seed), trial, self.sensing * sigma, start, D, known)
        return known

    def check(self, n_weights: int) -> None:
        """Refuse a code that cannot serve this many weights.

        Parameters
        ----------
        n_weights : int

        Raises
        ------
        InputError
            If its period is too short, or if a user's own code, which is drawn, has other moments
            than stated, by more than five standard errors.
        """
        period = self.period(n_weights)
        if self.function is not None:
            _check_function(self, n_weights, period)


@dataclass(frozen=True)
class _Constant:
    """A period that does not depend on the number of weights."""

    trials: int

    def __call__(self, n_weights: int) -> int:
        if self.trials <= n_weights:
            raise InputError(
                f"a code of period {self.trials} is too short for {n_weights} weights: it needs a"
                f" period above {n_weights}"
            )
        return self.trials


@lru_cache(maxsize=64)
def _check_function(code: Code, n: int, period: int) -> None:
    """Draw a user's code and compare its moments with those stated, within five standard errors."""
    function = code.function
    assert function is not None

    # what a user's function returns may be anything
    def drawn(seed: int, trial: int, start: int, stop: int) -> Array:
        try:
            D = np.asarray(function(seed, trial, start, stop), dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"code {code.name}: function({seed}, {trial}, {start}, {stop}) failed ({error})"
            ) from None
        if D.shape != (stop - start,):
            raise InputError(
                f"code {code.name}: function({seed}, {trial}, {start}, {stop}) has shape {D.shape}:"
                f" return {(stop - start,)}"
            )
        if not np.isfinite(D).all():
            raise InputError(
                f"code {code.name}: function({seed}, {trial}, {start}, {stop}) is not finite:"
                " return numbers only"
            )
        return D

    # E D^2 = 1, so that E D^4 >= 1 and E D^6 >= E D^4 for any variable
    if not (
        np.isfinite(code.kurtosis)
        and code.kurtosis >= 1
        and np.isfinite(code.sixth)
        and code.sixth >= code.kurtosis
    ):
        raise InputError(
            f"code {code.name}: kurtosis = {code.kurtosis} and sixth = {code.sixth} must be finite,"
            " 1 <= kurtosis <= sixth"
        )
    # a whole period where sums over it must vanish; else about 2^18 numbers
    trials = period if code.periodic else max(64, min(4096, 2**18 // n))
    D = np.array([drawn(1, trial, 0, n) for trial in range(min(trials, 2**20 // n + 1))])
    # a slice from the middle, that neither starts nor ends where the trial does
    first, last = n // 3, n - n // 4
    if not np.array_equal(drawn(1, 1, first, last), D[1, first:last]):
        raise InputError(
            f"code {code.name}: a slice of a trial differs from the trial: return the same numbers"
            " for any slice"
        )
    if (
        not code.periodic
        # two trials: one alone could agree by chance, of few weights of signs
        and np.array_equal(drawn(2, 0, 0, n), D[0])
        and np.array_equal(drawn(2, 1, 0, n), D[1])
    ):
        raise InputError(
            f"code {code.name} ignores its seed: every seed must give other perturbations"
        )
    for power, stated in ((1, 0.0), (2, 1.0), (4, code.kurtosis), (6, code.sixth)):
        # 1e-9: of a code of signs every power is exact, and its standard deviation is 0
        found, std = float(np.mean(D**power)), float(np.std(D**power))
        if abs(found - stated) > 5 * std / math.sqrt(D.size) + 1e-9:
            raise InputError(
                f"code {code.name}: E D^{power} is {found:.4g} sigma^{power}, not {stated:.4g}:"
                " state its moments"
            )
    if n > 1:
        # neighbours and a third of the way round: a stream that all weights share shows in either
        # over a period exactly 0; else five standard errors of the mean of len(D) trials
        allowed = 1e-9 if code.periodic and len(D) == period else 5 / math.sqrt(len(D))
        for lag in {1, n // 3 or 1}:
            found = float(np.mean(D[:, lag:] * D[:, :-lag]))
            if abs(found) > allowed:
                raise InputError(
                    f"code {code.name}: weights {lag} apart correlate by {found:.2g}: each needs a"
                    " perturbation of its own"
                )
