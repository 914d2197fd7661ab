"""What learns what: the task, the plan of updates, and everything that learns it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.timing import TrainingTiming
from perturb.errors import InputError
from perturb.networks.objective import Objective
from perturb.training.plan import Plan
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from sims.data.classes import Classes, accuracy, balanced_accuracy
from sims.data.loading import class_names
from sims.experiment.schema import Measured, Setup
from sims.problem import Array, Problem, targets_in_error
from sims.studies.training.options import Training


@dataclass(frozen=True)
class Task:
    """What is learned. test, validation: None if no patterns are held back for it. classes: without
    names if targets are numbers.
    """

    objective: Objective
    test: Objective | None
    validation: Objective | None
    classes: Classes

    @property
    def parts(self) -> list[tuple[str, str, Objective]]:
        """(how columns of it begin, its name, its objective) of the patterns learned, of those for
        validation and of those held back.
        """
        found = (
            ("", "learned", self.objective),
            ("validation_", "for validation", self.validation),
            ("test_", "held back", self.test),
        )
        return [(prefix, name, objective) for prefix, name, objective in found if objective]

    def ends(self, w: Array) -> dict[str, float]:
        """Errors and accuracies with these weights, as columns of tables have them; accuracies
        are NaN where targets are no classes.
        """
        found = {}
        for prefix, _, objective in self.parts:
            confusion = (
                self.classes.confusion(objective, w) if self.classes.names else np.empty((0, 0))
            )
            found[f"{prefix}error"] = objective.error(w)
            found[f"{prefix}accuracy"] = accuracy(confusion)
            found[f"{prefix}balanced_accuracy"] = balanced_accuracy(confusion)
        return found


def learners(experiment: Setup) -> list[tuple[str, Setup, int]]:
    """(name, experiment, updates) of everything that learns: the chip, others with as many
    evaluations, and the control.
    """
    options = experiment.options(Training)
    estimation = experiment.estimation
    listed: list[tuple[str, Setup, int]] = []
    if options.source != "exact":
        plan = plan_of(experiment)
        listed.append((options.source, experiment, options.updates))
        for other in options.compare_with:
            # method, code, sigma and r belong to [estimation], the rest to [training]
            changes: dict[str, Any] = other.model_dump(exclude_none=True, exclude={"label"})
            measured: dict[str, Any] = {
                key: changes.pop(key) for key in Measured.model_fields if key in changes
            }
            parts = {
                "estimation": estimation.model_copy(update=measured),
                "training": options.model_copy(update=changes),
            }
            settings = experiment.model_copy(update=parts)
            try:
                # equal evaluations, not equal updates: that is what a chip pays for
                updates = plan_of(settings).updates_within(plan.evaluations(options.updates))
            except InputError as error:
                raise InputError(
                    f'training.compare_with, label = "{other.label}": {error}'
                ) from None
            if not updates:
                raise InputError(
                    f'training.compare_with, label = "{other.label}": a single update takes more'
                    f" than the {plan.evaluations(options.updates)} evaluations that there are:"
                    " raise training.updates"
                )
            listed.append((other.label, settings, updates))
    if options.control or options.source == "exact":
        # with a rate of its own the control is not to be calibrated to another
        own = (
            {}
            if options.control_eta is None or options.source == "exact"
            else {"eta": options.control_eta, "calibrate": 0}
        )
        updates = (
            options.control_updates if options.source != "exact" else None
        ) or options.updates
        listed.append(
            (
                "exact",
                experiment.model_copy(update={"training": options.model_copy(update=own)}),
                updates,
            )
        )
    return listed


def course_of(experiment: Setup, objective: Objective, plan: Plan) -> TrainingTiming:
    """Times of learning; objective: of the weights that are trained."""
    return TrainingTiming(experiment.chip, objective, plan, experiment.options(Training).waits)


def plan_of(experiment: Setup) -> Plan:
    """[training], [estimation] and the error unit of the chip as a plan."""
    estimation = experiment.estimation
    unit = experiment.chip.error_unit
    return experiment.options(Training).plan(
        method=METHODS[estimation.method],
        code=CODES[estimation.code],
        sigma=estimation.sigma,
        r=estimation.r,
        seed=experiment.run.seed,
        reading=Reading(unit.noise, unit.bits, unit.range),
    )


def check(experiment: Setup, task: Task) -> None:
    """InputError for a batch, a criterion or a part of the patterns that the task has not."""
    options = experiment.options(Training)
    S = task.objective.n_patterns
    for batch in (options.batch, *(other.batch or 0 for other in options.compare_with)):
        # here, as only the data say how many patterns there are
        if batch > S:
            raise InputError(
                f"training.batch = {batch} but there are {S} patterns: lower it, or 0 for all"
            )
    patient = max(options.patience, *(other.patience or 0 for other in options.compare_with), 0)
    if patient and task.validation is None:
        raise InputError(
            f"training.patience = {patient} but no patterns are held back to judge by: set"
            " data.validation, or patience = 0"
        )
    if options.criterion.startswith("test") and task.test is None:
        raise InputError(
            f'training.criterion = "{options.criterion}" but no patterns are held back: set'
            f' data.test, or criterion = "{options.criterion.removeprefix("test_")}"'
        )
    if options.criterion.endswith("accuracy") and not task.classes.names:
        raise InputError(
            f'training.criterion = "{options.criterion}" but the targets of data.name ='
            f' "{experiment.data.name}" are no classes: set criterion ='
            f' "{"test_" * options.criterion.startswith("test")}error"'
        )


def check_plan(name: str, plan: Plan, updates: int) -> None:
    """InputError for what would never come within the updates of a source: a mean of its weights, a
    look at whether it goes on.
    """
    if name != "exact" and plan.average_from >= max(updates, 1):
        raise InputError(
            f"training.average_from = {plan.average_from} lies beyond the {updates} updates of"
            f" {name}: set a smaller one, or 0 for the last weights"
        )
    if plan.patience and plan.stop_every > updates:
        raise InputError(
            f"training.patience = {plan.patience} looks every training.stop_every ="
            f" {plan.stop_every} updates, but {name} has only {updates}: lower stop_every, or"
            " set patience = 0"
        )


def task_of(experiment: Setup, problem: Problem) -> Task:
    network = problem.network
    parts = problem.parts
    # states are learned as they occur: none are held back, and they are of no class
    if parts is None:
        return Task(problem.objective, None, None, Classes(()))
    # those that are learned stand in `problem.objective` already
    _, *targets = targets_in_error(
        experiment, parts.target, parts.target_test, parts.target_validation
    )
    test, validation = (
        network.objective(x, target) if len(x) else None
        for x, target in zip((parts.x_test, parts.x_validation), targets, strict=True)
    )
    classes = Classes.of(parts.target, network.error, class_names(experiment.data))
    return Task(problem.objective, test, validation, classes)
