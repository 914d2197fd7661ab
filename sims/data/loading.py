"""The patterns that [data] asks for: drawn from a data set, some held back, standardised."""

from typing import NamedTuple, NoReturn

import numpy as np

from perturb.errors import InputError, choose, shown
from perturb.networks.enumeration import MAX_UNITS
from sims.data.datasets import DATASETS, Array, Data

# times as many as are wanted are made, where patterns to hold back repeat those to learn from
MOST_TRIED = 16


def class_names(data: Data) -> tuple[str, ...]:
    """What the classes of the targets are called, in the order of their columns; () where the
    data set has no names for them.
    """
    return DATASETS[data.name].names(data)


def load_data(data: Data, n_inputs: int, n_outputs: int) -> tuple[Array, Array]:
    """Load the patterns and targets to learn from.

    Parameters
    ----------
    data : Data
        The table [data] of an experiment.
    n_inputs, n_outputs : int
        Of the network.

    Returns
    -------
    x, target : ndarray
        Patterns (samples, n_inputs) and their targets (samples, n_outputs).

    Raises
    ------
    InputError
        If the network does not fit the data set, or more samples are asked for than there are.

    Examples
    --------
    >>> import sims
    >>> x, target = load_data(sims.load_experiment("xor").data, 2, 1)
    >>> x.tolist(), target.ravel().tolist()
    ([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [0.0, 1.0, 1.0, 0.0])
    """
    x, target, _, _ = load_split(data, n_inputs, n_outputs)
    return x, target


def load_split(
    data: Data, n_inputs: int, n_outputs: int, test_key: str = "data.test"
) -> tuple[Array, Array, Array, Array]:
    """Load the patterns and targets to learn from, and those held back.

    Parameters
    ----------
    data : Data
        The table [data] of an experiment.
    n_inputs, n_outputs : int
        Of the network.
    test_key : str, default "data.test"
        What messages call the key with the number of patterns held back.

    Returns
    -------
    x, target : ndarray
        To learn from: (samples, n_inputs) and (samples, n_outputs).
    x_test, target_test : ndarray
        Held back, (test, ...); empty where data.test = 0.

    Raises
    ------
    InputError
        If the network does not fit the data set, or more patterns are asked for than there are.

    Notes
    -----
    No pattern held back is equal to one to learn from. For the same data.seed fewer samples are
    the first of more (before they are standardised), and those to learn from do not depend on
    data.test; without data.samples they are all that are not held back.

    Examples
    --------
    >>> import sims
    >>> data = sims.load_experiment("spirals-learning").data
    >>> [part.shape for part in load_split(data, 2, 1)]
    [(100, 2), (100, 1), (200, 2), (200, 1)]
    """
    return load_parts(data, n_inputs, n_outputs, test_key)[:4]


def load_parts(data: Data, n_inputs: int, n_outputs: int, test_key: str = "data.test") -> "Parts":
    """As `load_split`, with the patterns held back for validation.

    Parameters
    ----------
    data, n_inputs, n_outputs, test_key
        As of `load_split`.

    Returns
    -------
    Parts
        Those for validation equal none of the others.

    Examples
    --------
    >>> import sims
    >>> from sims.data.loading import load_parts
    >>> experiment = sims.load_experiment("spirals-learning", {"data.validation": 50})
    >>> len(load_parts(experiment.data, 2, 1).x_validation)
    50
    """
    parts = _split(data, n_inputs, n_outputs, test_key)
    x, target = parts[:2]
    if not target.shape[1]:
        raise InputError(
            f'{_called(data)} has no targets, which only network.kind = "boltzmann" can do without:'
            " use that kind"
        )
    for units, wanted, what in (
        (n_inputs, x.shape[1], "inputs"),
        (n_outputs, target.shape[1], "outputs"),
    ):
        if units != wanted:
            raise InputError(
                f"the network has {units} {what} but {_called(data)} has {wanted} {what}: "
                f"give it {x.shape[1]} inputs and {target.shape[1]} outputs"
            )
    return parts


class Parts(NamedTuple):
    """Patterns and targets to learn from, held back to test with, and held back for validation."""

    x: Array
    target: Array
    x_test: Array
    target_test: Array
    x_validation: Array
    target_validation: Array


def load_states(data: Data, n_visible: int, values: tuple[float, float]) -> Array:
    """The patterns as visible states of a Boltzmann machine (samples, n_visible): inputs, then
    targets, each one of `values`.
    """
    x, target, *_ = _split(data, n_visible, 0, "data.test")
    parts = [part for part in (x, target) if part.size]
    # a state is low or high: whatever numbers a data set has, its middle parts them
    both = np.concatenate(
        [np.where(part > (part.min() + part.max()) / 2, values[1], values[0]) for part in parts],
        axis=1,
    )
    if both.shape[1] > MAX_UNITS:
        raise InputError(
            f"{_called(data)} has {both.shape[1]} inputs and targets together, too many units for a"
            f" boltzmann machine to be enumerated (limit {MAX_UNITS}): choose another, such as bars"
        )
    if both.shape[1] != n_visible:
        raise InputError(
            f"network.visible = {n_visible} but {_called(data)} has {both.shape[1]} inputs and"
            f" targets together: set network.visible = {both.shape[1]}"
        )
    return both


def _split(data: Data, n_inputs: int, n_outputs: int, test_key: str) -> Parts:
    make, keys, _ = choose("data.name", data.name, DATASETS)
    endless = "samples" in keys
    test = data.test
    held = test + data.validation
    if endless and data.samples is None:
        raise InputError(
            f'data.samples is missing: data.name = "{data.name}" makes its patterns, so say how'
            " many"
        )
    if data.balanced and data.samples is None:
        raise InputError(
            "data.balanced = true but data.samples is missing: say how many patterns to learn from,"
            " or set false"
        )
    # of patterns that are made so many come; any other data set gives all that it has
    n = data.samples or 0
    count = n + held
    x, target, *last = make(data, n_inputs, n_outputs, count)
    own = last[0] if last else 0
    if data.balanced and not (target.shape[1] and _are_classes(target)):
        raise InputError(
            f"data.balanced = true but the targets of {_called(data)} are no classes: set it to"
            " false"
        )
    # the last are published to test with, and are never learned from
    learnable = len(x) - own
    if not endless and (held or data.samples is not None):
        # a finite data set is drawn from; one that is made is already in a random order
        order = _drawn(target[:learnable], data.seed, data.samples if data.balanced else None)
        if own:
            order = np.append(order, learnable + _drawn(target[learnable:], data.seed, None))
        x = x[order]
        target = target[order]
    if n > learnable:
        raise InputError(
            f"data.samples = {n} but {_called(data)} has only {learnable}: ask for fewer"
        )
    rows = _parts_of(_first_equal(x), data, own)
    # some repeat what is learned from: make twice as many spare ones, until enough are new
    while endless and not rows.enough(data) and count - n < MOST_TRIED * held:
        count += count - n
        x, target = make(data, n_inputs, n_outputs, count)[:2]
        rows = _parts_of(_first_equal(x), data, own)
    n = rows.n
    if not rows.enough(data):
        _refuse(data, rows, len(x), own, test_key, endless)
    # in the order in which they were drawn, so that fewer are the first of more
    x_test, target_test = _inputs(x[rows.test]), target[rows.test]
    x_validation, target_validation = _inputs(x[rows.validation]), target[rows.validation]
    x = _inputs(x[:n])
    target = target[:n]
    if (
        # as many of each class as can be may be all that there are of a rare one
        data.balanced
        and test
        and (gone := np.flatnonzero(target.any(0) & ~target_test.any(0))).size
    ):
        raise InputError(
            f"data.balanced = true with data.samples = {n} leaves no pattern of"
            f" {_class(data, gone[0])} to hold back: lower data.samples, or raise data.test"
        )
    if data.standardise:
        if n < 2:
            # all that are not held back, if nobody has said how many
            left = f"data.samples = {n}" if data.samples else f"{_called(data)} leaves {n} pattern"
            raise InputError(
                f"{left} to learn from, which has no spread to standardise by: {_more(data)}, or"
                " set data.standardise = false"
            )
        # with mean and spread of those to learn from: nothing is known of those held back
        x, x_test, x_validation = _standardised(x, x_test, x_validation)
        # classes stay 0 and 1, which errors and accuracies take them for
        if not _are_classes(target):
            target, target_test, target_validation = _standardised(
                target, target_test, target_validation
            )
    return Parts(x, target, x_test, target_test, x_validation, target_validation)


class _Rows(NamedTuple):
    """The first n are to learn from; the numbers of those held back."""

    n: int
    test: Array
    validation: Array

    def enough(self, data: Data) -> bool:
        held = (len(self.test), len(self.validation))
        return self.n > 0 and held == (data.test, data.validation)


def _inputs(x: Array) -> Array:
    """Pixels as 0 to 1, all else as it is."""
    return x / 255.0 if x.dtype == np.uint8 else x


def _parts_of(first: Array, data: Data, own: int = 0) -> _Rows:
    """Which patterns are held back: none for a test equals one to learn from, and none for
    validation one of either. first: see `_first_equal`; own: so many of the last are the only ones
    to test with.
    """
    n = data.samples
    learnable = len(first) - own
    if n is not None:
        # rows that equal none of the first n, which are learned from
        fresh = np.flatnonzero(first >= n)
        # where some are published to test with, from those alone
        tested = fresh[(fresh >= learnable) | (not own)][: data.test]
        # rows that are equal have the same first one
        rest = np.setdiff1d(fresh[fresh < learnable], tested)
        return _Rows(n, tested, rest[~np.isin(first[rest], first[tested])][: data.validation])

    # the most that leave enough to hold back; those for validation are the last of the rest, so
    # that those to test with do not depend on them
    def held_back(first: Array, wanted: int) -> tuple[int, Array]:
        if not wanted:
            return len(first), np.empty(0, dtype=int)
        # the largest n for which `wanted` rows or more equal none of the first n
        n = int(np.sort(first)[-wanted]) if wanted <= len(first) else 0
        return n, np.flatnonzero(first >= n)[:wanted]

    if own:
        n, tested = learnable, np.flatnonzero(first >= learnable)[: data.test]
    else:
        n, tested = held_back(first, data.test)
    n, judged = held_back(first[:n], data.validation)
    return _Rows(n, tested, judged)


def _refuse(
    data: Data, rows: _Rows, there: int, own: int, test_key: str, endless: bool
) -> NoReturn:
    """InputError for more patterns held back than there are."""
    if own and len(rows.test) < data.test:
        raise InputError(
            f"{test_key} = {data.test}, but {_called(data)} has only {own} patterns to test with,"
            f" {len(rows.test)} of which equal none to learn from: lower {test_key}"
        )
    keys = [(test_key, 0 if own else data.test), ("data.validation", data.validation)]
    wanted = {key: number for key, number in keys if number}
    fresh = len(rows.validation) + (0 if own else len(rows.test))
    learn = f"{rows.n} of them to learn from" if rows.n else "and some are needed to learn from"
    raise InputError(
        f"{', '.join(f'{key} = {number}' for key, number in wanted.items())}, but {_called(data)}"
        f" has only {there - own} patterns, {learn}, and {fresh} others that equal none of those:"
        f" lower {' or '.join([*wanted, 'data.samples'])}{', or raise data.noise' * endless}"
    )


def _more(data: Data) -> str:
    """How to have more patterns to learn from."""
    held = [key for key in ("test", "validation") if getattr(data, key)]
    if data.samples or not held:
        return "use 2 patterns or more"
    return f"lower {' or '.join(f'data.{key} = {getattr(data, key)}' for key in held)}"


def _called(data: Data) -> str:
    return f'data.name = "{data.name}"' if data.file is None else f"data.file = {shown(data.file)}"


def _class(data: Data, column: int) -> str:
    names = class_names(data)
    return f"class {names[column]!r}" if names else f"output {column + 1}"


def _are_classes(target: Array) -> bool:
    """Whether targets are 0 or 1, rather than numbers."""
    return bool(np.isin(target, (0.0, 1.0)).all())


def _drawn(target: Array, seed: int, balanced: int | None) -> Array:
    """All patterns in an order that is random but for the shares of the classes: however many the
    first ones are, each class has among them as many as its share of all, within one or so (as a
    stratified split). The i-th drawn of the n of a class is placed at (i + 1/2)/n. balanced: so
    many at the head hold as many of each class as can be.
    """
    classes = np.zeros(len(target), dtype=int)
    if target.shape[1] and _are_classes(target):
        classes = np.unique(target, axis=0, return_inverse=True)[1].ravel()
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(target))
    head = order[:0]
    if balanced is not None:
        # the first of each class, then the second of each, ...
        order = order[np.argsort(_rank(classes[order]), kind="stable")]
        head = order[:balanced]
        order = order[balanced:]
    of = classes[order]
    # evenly over (0, 1) for each class: any head then has its share
    place = (_rank(of) + 0.5) / np.bincount(of, minlength=1)[of]
    return np.concatenate([head, order[np.argsort(place, kind="stable")]])


def _rank(classes: Array) -> Array:
    """0 for the first of its class, 1 for the second, ..."""
    rank = np.empty(len(classes), dtype=int)
    for c in np.unique(classes):
        rank[classes == c] = np.arange((classes == c).sum())
    return rank


def _first_equal(x: Array) -> Array:
    """For each row the number of the first one that equals it."""
    # as bytes, which are sorted many times faster than rows of numbers; without -0
    x = np.ascontiguousarray(x + x.dtype.type(0))
    rows = x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, where, which = np.unique(rows, return_index=True, return_inverse=True)
    return where[which]


def _standardised(learned: Array, *held_back: Array) -> list[Array]:
    """All of them less the mean of the first and divided by its spread; a column that does not vary
    is only shifted.
    """
    mean = learned.mean(0)
    spread = learned.std(0)
    spread[(np.ptp(learned, axis=0) == 0) | (spread == 0)] = (
        1.0  # rounding of the mean is no spread
    )
    return [(part - mean) / spread for part in (learned, *held_back)]
