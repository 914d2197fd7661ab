"""How a training is shown: how soon and how well each source of updates learns."""

from reports.figures import drawn
from reports.frames import Frames, Swept, View
from reports.studies.training.columns import COLUMNS, LEARNING, source_name
from reports.studies.training.designs import designs
from reports.studies.training.figures import FIGURES
from reports.studies.training.tables import notes, training, verdicts, warnings

SWEPT = Swept(
    ("subject",),
    ("solved", "ever_solved", "error", "test_accuracy", "evaluations_to_goal", "gradient_share"),
    {"error": "predicted_error", "gradient_share": "predicted_gradient_share"},
    ("solved", 0.5),
    # shares of runs, whose intervals are those of counts
    dict.fromkeys(("solved", "ever_solved", "diverged"), "training.runs"),
    errors=tuple(name for name, column in LEARNING.items() if column.less_is_better),
)


def _called(frames: Frames, quantity: str, names: tuple[str, ...]) -> str:
    return source_name(frames, names[0])


VIEW = View(
    COLUMNS,
    training,
    drawn(FIGURES),
    verdicts,
    notes,
    warnings,
    called=_called,
    swept=SWEPT,
    designs=designs,
)
