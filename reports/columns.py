"""What columns and tables are declared as; the columns of the tables that every sweep has."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from reports.formats import edge_value, integer, number, seconds

if TYPE_CHECKING:
    import pandas as pd


class Column(NamedTuple):
    """What a column holds, and how its numbers are written.

    Parameters
    ----------
    meaning : str
        A sentence for the last part of a page.
    format : callable
        A number as a text, of `reports.formats`.
    unit : str
        cosine: from -1 to 1; share: from 0 to 1; or a unit such as s.
    heading : str
        What shown tables call it; absent, its name.
    less_is_better : bool
        Whether it is an error.
    """

    meaning: str
    format: Callable[[float], str] = number
    unit: str = ""
    heading: str = ""
    less_is_better: bool = False


Columns = Mapping[str, Column]


class Table(NamedTuple):
    """A table to be shown.

    Parameters
    ----------
    title, note : str
        Its heading, and a sentence below it (or none).
    frame : DataFrame
        Numbers, texts and the cells of `reports.formats`.
    columns : mapping
        Those of the frame that are shown, in order. The first names the rows.
    explained : str
        The column of texts that explain the first; a terminal shows it below the first.
    records : mapping
        Columns of the frame that hold the same for programs, a name or a number each; absent, those
        that are shown.
    """

    title: str
    note: str
    frame: "pd.DataFrame"
    columns: Columns
    explained: str = ""
    records: Columns = {}

    @property
    def headings(self) -> list[str]:
        """What stands above its columns."""
        return [column.heading or name.replace("_", " ") for name, column in self.columns.items()]


def only(columns: Columns, names: Iterable[str]) -> dict[str, Column]:
    """Some columns, in this order."""
    return {name: columns[name] for name in names}


def named(heading: str, format: Callable[[float], str] = number, unit: str = "") -> Column:
    """A column that only a shown table has."""
    # without a meaning: the last part of a page explains stored columns alone
    return Column("", format, unit, heading)


# of a sweep: its summary is that of the study, behind columns that tell cells apart, one for each
# varied key among them
CELLS = {
    "cell": Column("number of the cell", integer),
    "repeat": Column(
        "which repeat of its point; the same repeat of other points has the same seed"
    ),
    "seed": Column(
        "run.seed of its run, from which come perturbations, noise, and the start, direction and"
        " die that no key gives",
        integer,
    ),
    "start_seed": Column(
        "seed of its starting weights: weights.seed, or else derived from the seed; -1: they are"
        " from weights.file or network.file"
    ),
    "die": Column("number of its die: chip.die, or else derived from the seed"),
    "status": Column("done, failed or waiting"),
    "seconds": Column("time that it took on this computer, s", seconds, "s"),
    "error": Column("why it failed; empty if it did not"),
    "command": Column("the command that runs it alone"),
}
POINTS = {
    "measure": Column("what was measured: a column of the summary, or the measure of a fact"),
    "repeats": Column("repeats that gave a value"),
    "unknown": Column("repeats that gave none"),
    "mean": Column("mean over them"),
    "sd": Column("standard deviation over them"),
    "low": Column(
        "lower end of the 95 % confidence interval of the mean (Student's t; of shares of runs or"
        " dies, counted over all repeats, Clopper and Pearson's, unless weights.seed or chip.die"
        " makes them the same in all), no less than possible; empty where it cannot be known: of"
        " one repeat, or of several that gave the same"
    ),
    "high": Column("its upper end, not above what is possible"),
    "predicted": Column("what theory predicts, mean over the repeats; empty where it does not say"),
}
THRESHOLDS = {
    "key": Column("the key that is followed, the other varied ones being as they are"),
    "wanted": Column("what is wanted of the mean over repeats"),
    "values": Column("values of the key with results"),
    "met": Column("at how many of them it is met", heading="met at"),
    "edge": Column(
        "largest: up to which it is met; smallest: from which on it is; none: it is met at both"
        " ends, or only between"
    ),
    "value": Column(
        "that value, between two of those swept (an integer, of a key of integers); inf or -inf:"
        " beyond them; empty: none",
        edge_value,
    ),
    "low": Column(
        "lower end of its 95 % confidence interval; -inf: below the values swept; empty where that"
        " of no mean is known",
        edge_value,
    ),
    "high": Column("its upper end; inf: above the values swept", edge_value),
    "beyond": Column("at how many values beyond the edge it is met again"),
}
