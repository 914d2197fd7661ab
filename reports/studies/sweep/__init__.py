"""How a sweep of any study is shown."""

from reports.figures import Drawn
from reports.frames import Frames, View
from reports.studies.sweep.loading import columns
from reports.studies.sweep.tables import lost, notes, tables, verdicts


def _figures(frames: Frames) -> dict[str, Drawn]:
    # late: much to load, for pages and plots alone
    from reports.studies.sweep.figures import figures

    return figures(frames)


def _before_figures(frames: Frames) -> int:
    """Plots come before the many points."""
    return 1 if "thresholds" in frames.tables else 0


VIEW = View(
    {},
    tables,
    _figures,
    verdicts,
    notes,
    warnings=lost,
    before_figures=_before_figures,
    kind=(", a sweep", "sweep"),
    schema=columns,
)
