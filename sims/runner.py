"""Running an experiment: its study on its problem, with everything that is needed to do it
again.
"""

import os
import platform
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import perturb
from hardware.device_params import DeviceParams
from hardware.params import ChipParams
from perturb.errors import InputError
from perturb.networks.onnx.network import OnnxLayers
from perturb.networks.onnx.writing import as_onnx
from reports.frames import Frames
from reports.loading import of_run
from reports.store import run_directory
from reports.store.commands import run_command
from reports.store.weight_file import has_weights
from sims.experiment.experiment import Experiment
from sims.experiment.loading import load_experiment
from sims.experiment.unused import warn_of_unused
from sims.experiment.writing import identity, to_toml
from sims.linked import register
from sims.problem import Problem, Stopped, Tables, prepare
from sims.studies import STUDIES, TRIALS
from sims.terminal import Interruption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("numpy", "scipy", "numba", "simpy", "pandas", "scikit-learn")
OPTIONAL = ("onnx",)  # extras that may decide about results
WEIGHTS_ONNX = "weights.onnx"
INTERRUPTED = "the run was interrupted"


@dataclass(frozen=True, repr=False)
class Run:
    """What a run gives.

    Attributes
    ----------
    experiment : Experiment
        As it was run, complete.
    tables : dict of str to DataFrame
        By name, also as attributes (`run.summary`); their columns are declared by the study's view
        in `reports.studies`. Empty if the run was interrupted before its first result.
    provenance : dict
        Command, seeds, versions, and whether the run is "complete" or "partial", and why.
    files : dict of str to bytes
        Further files that are stored with it, by name.
    """

    experiment: Experiment
    tables: Tables
    provenance: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        about = f"{self.experiment.name!r}, study={self.experiment.study!r}"
        seed, status = self.provenance["seed"], self.provenance["status"]
        return f"Run({about}, seed={seed}, {status}: tables {', '.join(self.tables) or 'none'})"

    def __getattr__(self, name: str) -> pd.DataFrame:
        # __dict__, as a run that is being unpickled has no tables yet
        if name in self.__dict__.get("tables", {}):
            return self.tables[name]
        raise AttributeError(f"this run has no table {name!r}")

    @property
    def frames(self) -> Frames:
        """The run as reports show it, see `reports.load`."""
        if not self.tables:
            raise InputError("the run was interrupted before its first result: nothing to show")
        experiment = self.experiment.model_dump()
        return of_run(Path(self.experiment.name), self.tables, experiment, self.provenance)

    def plot(self, kind: str | None = None) -> "Figure":
        """One of the plots of its report.

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
            If there is none of that name, with the names that there are; or no result at all.
        """
        return self.frames.plot(kind)

    def _repr_html_(self) -> str | None:
        # None: a notebook shows the plain text
        return self.frames._repr_html_() if self.tables else None

    def write(self, directory: Path) -> None:
        """Store the run.

        Parameters
        ----------
        directory : Path
            One that is `reserved` for it.
        """
        run_directory.write_run(
            directory, to_toml(self.experiment, directory), self.tables, self.provenance, self.files
        )


def run_experiment(
    name_or_path: str | Path,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    scratch: str | Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Run:
    """Run an experiment: its study on its network, data and chip.

    Parameters
    ----------
    name_or_path : str or Path
        One of `experiment_names`, or the path of a TOML file.
    set : mapping of str to object, optional
        Dotted keys to values, see `load_experiment`.
    seed : int, optional
        Short for run.seed.
    out : str or Path, optional
        A directory to write the run to, empty or with an unfinished training of the same
        experiment; left out, nothing is written.
    progress : callable, optional
        Called along the way as progress(what, done, total).
    should_stop : callable, optional
        Asked between pieces of about 0.2 s; True ends the run with what is done, marked "partial".
        An interrupt of a notebook, or Ctrl-C, does the same: see Notes.
    scratch : str or Path, optional
        A directory, by default in `out`, where learning saves what was done, to be resumed when it
        is run again.
    say : callable, optional
        Called with a line that is worth reading at once, such as how long the work will take.

    Returns
    -------
    Run
        The tables as pandas frames, the resolved experiment and where it all comes from.

    Raises
    ------
    InputError
        For a mistake of the user. One that shows only after the first results (no minimum, say)
        does not lose them: the run is "partial" too, and provenance["reason"] says why.
    KeyboardInterrupt
        If it is interrupted before the first result, or a second time.

    Notes
    -----
    Once interrupted, a run with results is returned, and stored in `out`, as "partial", with a
    warning; where Python answers interrupts in its own way, and in the main thread.

    Examples
    --------
    >>> import sims
    >>> run = sims.run_experiment("xor", {"study": "spectrum", "spectrum.k": 1})
    >>> len(run.extremes), run.provenance["status"]
    (2, 'complete')
    """
    # seed last: it wins over a run.seed in set
    set = {**(set or {}), **({"run.seed": seed} if seed is not None else {})}
    experiment = load_experiment(name_or_path, set)
    warn_of_unused(experiment, name_or_path, set)
    # as it was asked for, not as it was resolved: the command stays short
    again = run_command(str(name_or_path), set)
    with _interruptible() as interruption:

        def asked() -> bool:
            return should_stop() or interruption is not None and interruption.heard()

        if out is None:
            run = _run(experiment, again, progress, asked, scratch, say)
        else:
            with reserved(experiment, Path(out)) as directory:
                scratch = scratch or directory / run_directory.UNFINISHED
                run = _run(experiment, again, progress, asked, scratch, say)
                if run.tables:
                    # an interrupted run with results is stored too; one without leaves no directory
                    run.write(directory)
    if interruption is not None and interruption.heard():
        _answer(run)
    return run


class InterruptedRun(UserWarning):
    """A run that was interrupted is returned with what it has."""


def _interruptible() -> AbstractContextManager[Interruption | None]:
    """What hears an interrupt that would raise KeyboardInterrupt."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # no other thread is told of signals
    main = threading.current_thread() is threading.main_thread()
    return Interruption() if own and main else nullcontext()


def _answer(run: Run) -> None:
    if not run.tables:
        raise KeyboardInterrupt
    if run.provenance["status"] == "partial":
        warnings.warn(
            "the run was interrupted: it is returned with the results so far, marked as partial",
            InterruptedRun,
            stacklevel=3,
        )


def reserved(
    experiment: Experiment, out: Path | None, suffix: str = ""
) -> AbstractContextManager[Path]:
    """A directory for the results of an experiment, see `reports.store.run_directory.reserved`."""
    return run_directory.reserved(experiment.name + suffix, identity(experiment), out)


def _run(
    experiment: Experiment,
    again: str,
    progress: Callable[[str, int, int], None] | None,
    should_stop: Callable[[], bool],
    scratch: str | Path | None,
    say: Callable[[str], object],
) -> Run:
    register()
    # before anything is run: what does not fit together is said at once
    problem = replace(prepare(experiment), say=say)
    if scratch is not None:
        # a prefix of file names, so that a study can have several
        problem = replace(problem, scratch=Path(scratch) / f".{experiment.name}")
    tables, reason = study_tables(experiment, problem, progress, should_stop)
    about = _provenance(experiment, problem, again, reason)
    return Run(experiment, tables, about, _learned_network(problem, tables))


def _learned_network(problem: Problem, tables: Tables) -> dict[str, bytes]:
    """Of a network from an ONNX file: that file with what the first run of a training learned, as
    weights.file takes it from weights.npz, too.
    """
    learned = next(filter(has_weights, tables.values()), None)
    if learned is None or not isinstance(problem.network, OnnxLayers):
        return {}
    w = learned["w_exact"].to_numpy()[: problem.network.n_weights]
    try:
        return {WEIGHTS_ONNX: as_onnx(problem.network, w)}
    except InputError:
        # weights that have diverged are no numbers of a network; weights.npz has them
        return {}


def study_tables(
    experiment: Experiment,
    problem: Problem,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Tables, str]:
    """The tables of an experiment's study, and why it ended early ("" if it did not)."""
    study = STUDIES[experiment.study].load()
    tables: Tables = {}
    try:
        # a table that is yielded again takes the place of the earlier one
        for name, table in study(
            experiment, problem, progress or (lambda what, done, total: None), should_stop
        ):
            tables[name] = table
    except Stopped:
        # without a summary nothing can be shown: such a run counts as empty
        return (tables if "summary" in tables else {}), INTERRUPTED
    except InputError as error:
        # with a first result stored a later mistake costs the rest of the run only
        if "summary" not in tables:
            raise
        # the reason is stored, and shared with the results
        return tables, without_places(str(error))
    return tables, ""


def without_places(text: str) -> str:
    """A message that is stored, with paths that begin where the user, the package or a library
    is: none names a person.
    """
    places = {
        Path.cwd(),
        Path(__file__).resolve().parents[1],
        *map(Path, (sys.prefix, sys.base_prefix)),
        Path.home(),
    }
    for place in sorted(
        # the longest first: a home directory may hold the others
        (str(place) for place in places if place != Path(place.anchor)),
        key=len,
        reverse=True,
    ):
        # with the separator: /home/me must not cut into /home/merlin
        text = text.replace(place + os.sep, "")
    return text


def _provenance(
    experiment: Experiment, problem: Problem, again: str, reason: str
) -> dict[str, Any]:
    chip = experiment.chip
    S = problem.objective.n_patterns
    about = experiment.description or experiment.name
    if experiment.study != "reproduce":
        about += f"; {problem.w.size} weights, "
    # chip and noise are named only where trials are run
    if TRIALS in STUDIES[experiment.study].random:
        shown = (
            f"{S} patterns"
            if experiment.estimation.presentation == "batch"
            else f"one of {S} patterns"
        )
        learns = "training" in STUDIES[experiment.study].reads
        if learns and (batch := dict(experiment)["training"].batch):
            shown = f"{batch} of {S} patterns"
        noise = f"noise {chip.error_unit.noise:g}" if chip.error_unit.noise else "no noise"
        about += f"{shown} in each evaluation of the error E; chip {_called(chip)} with {noise} in"
        about += " each reading of E"
    elif experiment.study != "reproduce":
        about += f"{S} patterns"
    return {
        "experiment": experiment.name,
        "description": about,
        "status": "partial" if reason else "complete",
        **({"reason": reason} if reason else {}),
        "command": again,
        "seed": experiment.run.seed,
        # run_seed is "seed" already
        "seeds": {name: seed for name, seed in experiment.seeds_of().items() if name != "run_seed"},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **origin(),
    }


def _called(chip: ChipParams) -> str:
    """The name of a chip, and what stores its weights: a device is no part of the ideal chip."""
    device = chip.weights.device
    if device == DeviceParams():
        return chip.name
    stored = (
        f"with weights in {device.name}" if device.name != "ideal" else "with devices of its own"
    )
    return f"{chip.name} {stored},"


def origin() -> dict[str, Any]:
    """By what results are made: nothing that names a person or a machine."""
    return {
        "perturb": perturb.__version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*PACKAGES, *filter(_is_there, OPTIONAL))},
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "byteorder": sys.byteorder,
        },
        "git": _git_state(),
    }


def _is_there(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _git_state() -> dict[str, Any] | None:
    """Commit of the source tree this package runs from; None for an installed wheel."""
    here = Path(__file__).resolve().parents[1]
    # no question to git where it would answer for a project that happens to lie above
    if not (here / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(here)]
        # 5 s: a file system that hangs must not keep results from being stored
        commit = subprocess.run(
            [*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
        return {"commit": commit, "dirty": bool(changed.strip())}
    except (OSError, subprocess.SubprocessError):
        return None
