"""What reports show of a result."""

from pathlib import Path

from reports.loading import of_run
from reports.table import rows_of


def tables_of(frames):
    return frames.view.tables(frames)


def texts_of(table):
    """The headings of a table, and its rows as they are shown."""
    return table.headings, list(rows_of(table))


def verdicts_of(frames):
    return frames.view.verdicts(frames)


def figures_of(frames):
    return frames.view.figures(frames)


def warnings_of(frames):
    return frames.view.warnings(frames)


def row_of(run, measure, subject=""):
    """A row of a summary of facts."""
    own = run.summary[(run.summary["measure"] == measure) & (run.summary["subject"] == subject)]
    (row,) = own.to_dict("records")
    return row


def fact(run, measure, subject=""):
    """Its value."""
    return float(row_of(run, measure, subject)["value"])


def frames_of(run):
    """The frames of a run that is not stored."""
    return of_run(Path(), run.tables, run.experiment.model_dump(), run.provenance)


def spoken(run):
    """The verdicts on a run that is not stored."""
    return verdicts_of(frames_of(run))
