"""How much of the gradient passes the converters of an array's columns, as facts."""

from hardware.columns import measured_share, predicted_share
from perturb.networks.objective import Objective
from perturb.training.plan import Plan
from sims.experiment.schema import Setup
from sims.problem import Array, Fact
from sims.studies.training.advice import some_patterns
from sims.studies.training.options import Training


def passed(experiment: Setup, objective: Objective, w: Array, plan: Plan) -> list[Fact]:
    """Measured by trials of the first run's chip at its start, and by theory; none of a chip whose
    columns have no converters.
    """
    source = experiment.options(Training).source
    if not experiment.chip.array.output_bits or source == "exact":
        return []
    chip = experiment.chip.of_runs(1)[0]
    looked = some_patterns(objective)
    share, stderr = measured_share(chip, looked, w, plan)
    meaning = (
        f"share of the gradient that trials find at the start, <g^, g>/|g|^2, on"
        f" {looked.n_patterns} of the patterns: what the converters of the columns hide is missing"
    )
    theory = "the same by theory of rounding to steps; learning stalls where it is below 1/2"
    return [
        Fact("gradient_share", share, meaning, source, stderr=stderr),
        Fact(
            "predicted_gradient_share",
            predicted_share(chip, looked, w, plan.sigma),
            theory,
            source,
        ),
    ]
