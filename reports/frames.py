"""A stored run, or a sweep of runs, as tidy pandas frames, and how it is shown."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from perturb.errors import InputError, choose
from reports.columns import Columns, Table
from reports.styled import html_lines, html_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "weight perturbation for analog neural hardware, with exact Hessian-vector products"
CATEGORIES = ("method", "code", "quantity")
# z first: it is what the methods are compared for
QUANTITIES = {"hv": "z = Hv", "gradient": "gradient"}
ROWS = 10_000  # of a part of a table


class LateTables(Mapping[str, pd.DataFrame]):
    """Tables of which some, given as functions that yield their parts, are put together when
    they are first asked for.
    """

    def __init__(
        self, ready: dict[str, pd.DataFrame], late: dict[str, Callable[[], Iterator[pd.DataFrame]]]
    ):
        self._ready = ready
        self.late = late
        self._names = [*ready, *late]

    def __getitem__(self, name: str) -> pd.DataFrame:
        # once, and kept
        if name not in self._ready and name in self.late:
            # points of a large sweep are millions of rows, which an export asks for in parts
            self._ready[name] = pd.concat(self.late[name](), ignore_index=True)
        return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Swept(NamedTuple):
    """What a sweep of a study shows.

    Parameters
    ----------
    identity : tuple of str
        Columns that tell the rows of a summary apart (of facts their subject).
    measures : tuple of str
        What is plotted.
    theory : mapping
        Of a measure, the one that predicts it.
    wanted : tuple
        A measure, and the value that is wanted of it or the key of the experiment that has it.
    shares : mapping
        Measures that are shares of independent runs or dies, and the key of the experiment that
        says of how many.
    errors : tuple of str
        Of facts, the measures of which less is better (of columns see `Column`).
    """

    identity: tuple[str, ...]
    measures: tuple[str, ...]
    theory: Mapping[str, str] = {}
    wanted: tuple[str, float | str] | None = None
    shares: Mapping[str, str] = {}
    errors: tuple[str, ...] = ()


def _nothing(frames: "Frames") -> list:
    return []


def _joined(frames: "Frames", quantity: str, names: tuple[str, ...]) -> str:
    called = "/".join(QUANTITIES.get(name, name) for name in names)
    return ", ".join(part for part in (QUANTITIES.get(quantity, quantity), called) if part)


@dataclass(frozen=True)
class View:
    """How the results of a study are shown.

    Parameters
    ----------
    columns : mapping
        The columns of every stored table (of a sweep, see `schema`).
    tables, figures : callable
        What is shown of a run: tables; figures by name, with captions.
    verdicts, notes, warnings : callable
        Sentences: (of what, result) in answer to the experiment's question; what else was found;
        what should be changed.
    called : callable
        What reports call one thing that was measured, of its quantity and the other columns of its
        identity.
    swept : Swept
        What a sweep of the study shows.
    designs : callable
        Of a run or a sweep, and of a goal instead of its own (`reports.statistics.Wanted` or None):
        its designs (`reports.studies.designs.design.Designed`).
    answer_first : bool
        Whether verdicts come before the tables on a terminal.
    before_figures : callable
        How many tables of a page come before its figures.
    kind : tuple of str
        How a page calls it beside its name, and the command that runs it.
    schema : callable
        The columns of every table of one run.
    """

    columns: Mapping[str, Columns]
    tables: Callable[["Frames"], list[Table]]
    figures: Callable[["Frames"], dict[str, tuple["Figure", str]]]
    verdicts: Callable[["Frames"], list[tuple[str, str]]] = _nothing
    notes: Callable[["Frames"], list[str]] = _nothing
    warnings: Callable[["Frames"], list[str]] = _nothing
    called: Callable[["Frames", str, tuple[str, ...]], str] = _joined
    swept: Swept | None = None
    designs: Callable[["Frames", Any], Any] | None = None
    answer_first: bool = False
    before_figures: Callable[["Frames"], int] = lambda frames: len(frames.view.tables(frames))
    kind: tuple[str, str] = ("", "run")
    schema: Callable[["Frames"], Mapping[str, Columns]] = lambda frames: frames.view.columns


@dataclass(frozen=True)
class Frames:
    """A run or a sweep as pandas frames, which are attributes too: `frames.summary`.

    Attributes
    ----------
    directory : Path
        Where it is stored.
    tables : mapping
        Frames by name: of a run those of its study, of a sweep summary, cells, points and perhaps
        thresholds. The other tables of the runs of a sweep, if they are stored, are attributes,
        with what was varied in front.
    experiment, provenance : dict
        The resolved experiment; versions, seed and command.
    view : View
        How it is shown.
    stored : frozenset of str
        Names of the files that it was read from, which exports leave as they are.
    text : callable
        The experiment as a TOML file that does all of it again.
    more : callable, optional
        Other tables, by name.
    means : Means, optional
        Of a sweep, means over repeats, see `reports.statistics.Means`.
    """

    directory: Path
    tables: Mapping[str, pd.DataFrame]
    experiment: dict[str, Any]
    provenance: dict[str, Any]
    view: View
    stored: frozenset[str] = frozenset()
    text: Callable[[], str] = str
    more: Callable[["Frames", str], pd.DataFrame] | None = None
    # not `Means`, as `reports.statistics` imports this file
    means: Any = None

    def __getattr__(self, name: str) -> pd.DataFrame:
        # __dict__, not self.tables: a frame that is being unpickled has none yet
        if name in self.__dict__.get("tables", {}):
            return self.tables[name]
        if more := self.__dict__.get("more"):
            return more(self, name)
        raise AttributeError(
            f"this run has no table {name!r}: it has {', '.join(self.__dict__.get('tables', {}))}"
        )

    def parts(self, name: str) -> Iterator[pd.DataFrame]:
        """A table in parts of bounded size, one below the other.

        Parameters
        ----------
        name : str
            Of the table.
        """
        if isinstance(self.tables, LateTables) and name in self.tables.late:
            yield from self.tables.late[name]()
            return
        table = self.tables[name]
        # at least one part, so that an empty table has its header
        for start in range(0, max(len(table), 1), ROWS):
            yield table.iloc[start : start + ROWS]

    @property
    def columns(self) -> dict[str, Mapping[str, str]]:
        """What every column of every table means, by their names."""
        schema = self.view.schema(self)
        return {
            name: {key: column.meaning for key, column in schema[name].items()}
            for name in self.tables
        }

    @property
    def partial(self) -> bool:
        """Whether the run was interrupted, or cells of the sweep are not done."""
        return self.provenance["status"] == "partial"

    @property
    def reason(self) -> str:
        """Why a partial run ended."""
        return self.provenance.get("reason", "the run was interrupted")

    @property
    def citation(self) -> str:
        """How to cite what made this run; as in CITATION.cff."""
        version = self.provenance.get("perturb", "of unknown version")
        return f"The perturb developers: perturb {version}, {TITLE} (MIT licence)"

    @property
    def primary(self) -> tuple[str, str]:
        """(method, code) of the experiment's own method, or of the last one run if it was not
        reached.
        """
        rows = self.summary[self.summary["primary"]]
        # the order of the summary is that of METHODS: in a partial run the own one may not be
        # reached
        row = (rows if len(rows) else self.summary).iloc[-1]
        return row["method"], row["code"]

    def methods(self, quantity: str | None = None) -> list[tuple[str, str]]:
        """(method, code) in the order of the summary.

        Parameters
        ----------
        quantity : {"hv", "gradient"}, optional
            Only those that estimate it.
        """
        rows = (
            self.summary if quantity is None else self.summary[self.summary["quantity"] == quantity]
        )
        return list(dict.fromkeys(zip(rows["method"], rows["code"], strict=True)))

    def of(self, quantity: str) -> pd.DataFrame:
        """The rows of the summary that are of one quantity.

        Parameters
        ----------
        quantity : {"hv", "gradient"}
            z = Hv, or the gradient.
        """
        return self.summary[self.summary["quantity"] == quantity]

    def of_each(self) -> pd.DataFrame:
        """A row per method: of z, or of the gradient where that is all it estimates."""
        summary = self.summary
        # methods that estimate no z
        alone = ~summary[["method", "code"]].apply(tuple, axis=1).isin(self.methods("hv"))
        return summary[(summary["quantity"] == "hv") | alone]

    def fact(self, measure: str, subject: str = "") -> float:
        """The value of one row of a summary of facts.

        Parameters
        ----------
        measure, subject : str
            What was found, and of what; "" of what stands for itself.
        """
        own = (self.summary["measure"] == measure) & (self.summary["subject"] == subject)
        return float(self.summary.loc[own, "value"].iloc[0])

    def fact_name(self, row: Mapping[Any, Any]) -> str:
        """What reports call a fact: chip, momentum: ever solved.

        Parameters
        ----------
        row : mapping
            Of a summary of facts.
        """
        measure = str(row["measure"])
        # one that is no name, such as 2/lambda_max, stays as it is
        measure = measure.replace("_", " ") if measure.isidentifier() else measure
        return (
            f"{self.view.called(self, '', (row['subject'],))}: {measure}"
            if row["subject"]
            else measure
        )

    def plot(self, kind: str | None = None) -> "Figure":
        """One of the plots of a report.

        Parameters
        ----------
        kind : str, optional
            Its name; by default the first.

        Returns
        -------
        matplotlib Figure

        Raises
        ------
        InputError
            If there is none of that name, with the names that there are; or no plot at all.
        """
        drawn = self.view.figures(self)
        if not drawn:
            raise InputError(f"{self.directory}: there is nothing to plot in these results")
        # a notebook shows a figure that it is given only once Pyplot has loaded its backend
        if "IPython" in sys.modules:
            from matplotlib import pyplot

            pyplot.draw_if_interactive()
        return (choose("kind", kind, drawn) if kind is not None else next(iter(drawn.values())))[0]

    def _repr_html_(self) -> str:
        about = f"{self.provenance['description']} (seed {self.provenance['seed']})"
        lines = [about, *([f"Partial: {self.reason}"] if self.partial else [])]
        lines += [f"{method} {verdict}." for method, verdict in self.view.verdicts(self)]
        tables = html_tables(self.view.tables(self))
        below = [*self.view.notes(self), *(f"Warning: {t}" for t in self.view.warnings(self))]
        return f"<div>{html_lines(lines)}{tables}{html_lines(below)}</div>"
