"""The options of a training: [training], and those of the baselines it is compared with."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from hardware.config import Among, Name, NonNegative, Number, Positive, Table
from perturb.errors import InputError
from perturb.training.plan import Plan
from sims.experiment.schema import Measured, changes

Count = Annotated[int, Field(ge=1, le=2**40)]


def updates_of_plans() -> Any:
    """A table of the options of `perturb.training.plan.Plan`, with their limits and meanings."""
    keys: dict[str, Any] = {}
    for name, option in Plan.options().items():
        limits = {
            limit: option.metadata[limit]
            for limit in ("ge", "gt", "le", "lt")
            if limit in option.metadata
        }
        kind: Any = Annotated[type(option.default), Field(**limits)]
        if "among" in option.metadata:
            kind = Annotated[Name, Among(option.metadata["among"])]
        elif isinstance(option.default, float) and len(limits) == 1:
            # from 0 on, but no further than is measured
            kind = Positive if "gt" in limits else NonNegative
        keys[name] = (kind, Field(option.default, description=option.metadata["meaning"]))
    return create_model("Updates", __base__=Table, **keys)


Updates: Any = updates_of_plans()
ALONE = [name for name, option in Plan.options().items() if option.metadata.get("alone")]
Layers = Annotated[tuple[int, ...], Field(strict=False, min_length=1, max_length=10_000)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+,-]*$", max_length=40)]


Options: Any = changes(Measured, Updates, without=ALONE)


class Baseline(Options):
    """Other settings of learning, from the same starts; what is absent is as in [training] and
    [estimation].
    """

    label: Label = Field(description='what reports call it, such as "with momentum"')


class Training(Updates):
    """Of the study "training"; method, code, sigma and r are those of [estimation]."""

    source: Literal["batch", "event", "exact"] = Field(
        "batch",
        description=(
            "of the updates: the chip in batches, the chip event by event, or the exact gradient"
        ),
    )
    control: bool = Field(
        True, description="whether the exact gradient learns too, from the same starts"
    )
    control_eta: Positive | None = Field(
        None, description="its learning rate; absent = the same", examples=[0.1]
    )
    control_updates: Count | None = Field(
        None, description="its updates; absent = as many", examples=[10_000]
    )
    runs: int = Field(
        10,
        ge=1,
        le=10**5,
        description="starts side by side, each with a start, a die and noise of its own",
    )
    updates: Count = Field(10_000, description="updates of the weights")
    waits: bool = Field(
        True, description="whether the next trial begins only when an update is written"
    )
    layers: Layers | None = Field(
        None,
        description=(
            "layers whose weights are trained, from 1, as weights.csv numbers them; all others stay"
            " at their starts, exact and on no device, and no compiled kernel is used; absent = all"
        ),
        examples=[(2,)],
    )
    criterion: Literal[
        "error",
        "accuracy",
        "balanced_accuracy",
        "test_error",
        "test_accuracy",
        "test_balanced_accuracy",
    ] = Field("error", description="what must be reached")
    goal: Number = Field(0.01, description="at most this error, or at least this accuracy")
    records: int = Field(100, ge=1, le=10**5, description="points of the learning curves")
    compare_with: Annotated[tuple[Baseline, ...], Field(strict=False, max_length=100)] = Field(
        (),
        description=(
            "other settings, each from the same starts with as many evaluations of E, such as "
            '{ label = "averaged", trials_per_update = 8, eta = 0.5 }'
        ),
    )

    @model_validator(mode="after")
    def check(self) -> "Training":
        if self.criterion.endswith("accuracy") and not 0 < self.goal <= 1:
            raise InputError(
                f"goal = {self.goal} must lie in 0 < goal <= 1: it is a share of patterns, as the"
                " criterion says"
            )
        if self.criterion.endswith("error") and self.goal <= 0:
            raise InputError(
                f"goal = {self.goal} must be > 0: it is an error, as the criterion says"
            )
        labels = ["batch", "event", "exact", *(other.label for other in self.compare_with)]
        if double := [label for label in labels if labels.count(label) > 1]:
            raise InputError(
                f'compare_with: label = "{double[0]}" is taken: give every setting a name of'
                " its own"
            )
        # made to be checked, with a method that every rule takes: [estimation]'s is not here
        self.plan(method="difference")
        return self

    def plan(self, **more: Any) -> Plan:
        """The plan of these settings; more: its other fields."""
        return Plan(**{name: getattr(self, name) for name in Plan.options()}, **more)
