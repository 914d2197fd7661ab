"""What can be done in an experiment: one study a module, one line here.

A study is a function of the experiment, its problem, `progress` and `should_stop` that yields its
tables (see `sims.problem.Study`), which have the columns that its view in `reports.studies`
declares. Its options, a table of the experiment file, stand in the same module; so does nothing
else that others must know of it. Nothing is imported before it is needed: the command line is made
from this table.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

START = "starting weights"
DIRECTION = "direction"
DIE = "die"
TRIALS = "perturbations and noise"
# the tables that every experiment has, but for what prepares its problem and is always read
EVERYTHING = ("weights", "direction", "estimation", "chip", "run")


class Command(NamedTuple):
    """A command `perturb NAME EXPERIMENT` that does the study on any experiment. short: an option
    that stands for a key, (option, key, what help says of it). formats: exported at once. learning:
    the study that it does of an experiment that learns.
    """

    name: str
    help: str
    short: tuple[str, str, str] | None = None
    formats: tuple[str, ...] = ()
    learning: str = ""


class Registered(NamedTuple):
    """A study: its function, MODULE.NAME; the class of its table of options, likewise, "" if there
    is none; what of it comes from run.seed (but for keys of their own); and its command. reads: the
    tables and single keys that it uses beside its options, or of these where they are fewer than
    all. instead: of keys that it does not use, those that count. Who gives another key is warned.
    anew: options that may be others when an unfinished run goes on.
    """

    function: str
    options: str = ""
    random: tuple[str, ...] = (START, DIRECTION, DIE, TRIALS)
    command: Command | None = None
    reads: tuple[str, ...] = EVERYTHING
    instead: Mapping[str, tuple[str, ...]] = {}
    anew: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """What the table of its options is called in an experiment."""
        return self.options.partition(".")[0]

    def load(self) -> Any:
        """The function itself."""
        return _named(self.function)

    def load_options(self) -> Any:
        """The class of its options itself."""
        return _named(self.options)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"sims.studies.{module}"), name)


ABLATE = Command(
    "ablate",
    "Rank what each imperfection of the chip costs an estimate of g and z, or learning: in trials,"
    " time and energy.",
    ("--dies", "dies.count", "Dies on which each variant of the chip runs."),
    learning="learning-ablation",
)
DIES = Command(
    "dies",
    "Estimate g and z, or learn, on many dies of the chip's design: spread and yield.",
    ("-n", "dies.count", "How many dies."),
    learning="learning-dies",
)
BUDGET = Command(
    "budget",
    "Trials, time and energy to a wanted accuracy, and what to improve first: by theory, without"
    " simulation.",
)
SPECTRUM = Command(
    "spectrum",
    "Print and plot the eigenvalues of a network's Hessian at its weights.",
    ("--k", "spectrum.k", "How many eigenvalues to show at each end."),
    ("csv", "png"),
)

DRIVE = Command(
    "drive",
    "Learn on a real chip, or estimate g and z, as the experiment says, next to the emulated run.",
    (
        "--link",
        "drive.link",
        "Where the chip is, such as tcp://127.0.0.1:5732 or serial:/dev/ttyUSB0?baud=115200.",
    ),
    learning="drive",
)

AT = ("weights", "direction", "run.seed")  # the point w, and v
MEASURED = tuple(f"estimation.{key}" for key in ("method", "code", "sigma", "r"))
SHOWN = "estimation.presentation"
MANY_DIES = (*AT, *MEASURED, SHOWN, "estimation.trials", "chip")
# of learning
LEARNED = ("weights", *MEASURED, "chip", "run.seed", "training")
INSTEAD = {
    "estimation.trials": ("training.updates", "training.trials_per_update"),
    "estimation.presentation": ("training.batch",),
    "estimation.compare_with": ("training.compare_with",),
    "run.fidelity": ("training.source",),
}

# a chip that was unplugged may be elsewhere
ELSEWHERE = ("link", "window", "timeout_s", "patience_s")

STUDIES = {
    "compare": Registered("compare.compare_methods", reads=(*EVERYTHING, "dies.accuracy")),
    "estimators": Registered(
        "estimators.estimators",
        "estimators.Estimators",
        # the method for its evaluations; of the chip the error unit alone
        reads=(
            *AT,
            *(f"estimation.{key}" for key in ("method", "sigma", "r", "trials", "presentation")),
            "chip.error_unit",
            "dies.accuracy",
        ),
        instead={
            "estimation.code": ("estimators.codes",),
            "estimation.compare_with": ("estimators.methods", "estimators.codes"),
        },
    ),
    "ablation": Registered("ablation.ablation", "dies.Dies", command=ABLATE, reads=MANY_DIES),
    "dies": Registered("dies.dies", "dies.Dies", command=DIES, reads=MANY_DIES),
    "learning-ablation": Registered(
        "learning_ablation.learning_ablation",
        "dies.Dies",
        (START, DIE, TRIALS),
        reads=LEARNED,
        instead=INSTEAD,
    ),
    "learning-dies": Registered(
        "learning_dies.learning_dies",
        "dies.Dies",
        (START, DIE, TRIALS),
        reads=LEARNED,
        instead=INSTEAD,
    ),
    "budget": Registered(
        "budget.budget",
        "dies.Dies",
        command=BUDGET,
        reads=(*AT, *MEASURED, SHOWN, "chip", "dies.accuracy"),
        instead={"estimation.trials": ("dies.accuracy",)},
    ),
    "spectrum": Registered(
        "spectrum.spectrum", "spectrum.Spectrum", (START,), SPECTRUM, ("weights", "run.seed")
    ),
    "finite-difference": Registered(
        "finite_difference.finite_difference",
        "finite_difference.FiniteDifference",
        (START, DIRECTION),
        reads=AT,
    ),
    "uses": Registered("uses.uses", "uses.Uses", (START,), reads=("weights", "run.seed")),
    "training": Registered(
        "training.study.training",
        "training.options.Training",
        (START, DIE, TRIALS),
        reads=LEARNED,
        instead=INSTEAD,
    ),
    "drive": Registered(
        "drive_learning.drive",
        "drive.Drive",
        (START, DIE, TRIALS),
        reads=LEARNED,
        instead=INSTEAD,
        anew=ELSEWHERE,
    ),
    "drive-estimates": Registered(
        "drive_estimates.drive_estimates",
        "drive.Drive",
        command=DRIVE,
        reads=(*AT, *MEASURED, SHOWN, "estimation.trials", "chip"),
        anew=ELSEWHERE,
    ),
    "reproduce": Registered("reproduce.reproduce", "reproduce.Reproduce", (), reads=("run.seed",)),
}
