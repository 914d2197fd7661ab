"""What an experiment file may say: a table of settings for every part, each key with its range,
default and meaning.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from hardware.config import Among, Name, NonNegative, Number, Positive, Seed, Table
from hardware.params import ChipParams
from perturb.errors import InputError, shown
from perturb.estimation.design import check_pair
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.boltzmann import Boltzmann
from perturb.networks.dag import DAG
from perturb.networks.losses import ERRORS
from perturb.networks.mlp import MLP
from perturb.networks.recurrent import SOLVERS, Recurrent
from perturb.seeds import derive_seed, nth_seed
from perturb.training.plan import Plan
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.data.datasets import Data

MAX_WEIGHTS = 10_000_000

Units = Annotated[int, Field(ge=1, le=MAX_WEIGHTS)]

# keys of each kind of network: None must be given, ... may be left out, others are the values of
# keys left out
KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"layers": None, "activation": "tanh", "output": "linear", "error": "squared_error"},
    "dag": {
        "units": None,
        "edges": None,
        "inputs": None,
        "outputs": None,
        "bias": ...,
        "activation": "tanh",
        "activations": {},
        "error": "squared_error",
        "tied": ...,
        "external": ...,
    },
    "recurrent": {
        "units": None,
        "inputs": None,
        "outputs": None,
        "activation": "tanh",
        "activations": {},
        "error": "squared_error",
        "solver": "direct",
        "step": 0.5,
        "tolerance": 1e-10,
        "max_steps": 10_000,
    },
    "boltzmann": {"visible": None, "hidden": None, "temperature": 1.0, "values": (0, 1), "sign": 1},
}
State = Annotated[int, Field(ge=-1, le=1)]
Unit = Annotated[int, Field(ge=0, le=MAX_WEIGHTS)]
Listed = Field(strict=False, min_length=1, max_length=MAX_WEIGHTS)


Activation = Annotated[Name, Among(ACTIVATIONS)]
MethodName = Annotated[Name, Among(METHODS)]
CodeName = Annotated[Name, Among(CODES)]


class Network(Table):
    """What learns; which keys there are depends on its kind."""

    kind: Literal["mlp", "dag", "recurrent", "boltzmann"] = Field(
        "mlp", description="what kind of network"
    )
    layers: (
        Annotated[tuple[Units, ...], Field(strict=False, min_length=2, max_length=1000)] | None
    ) = Field(None, description="units per layer, inputs first", examples=[[64, 32, 10]])
    units: Units | None = Field(None, description="number of units", examples=[5])
    edges: (
        Annotated[tuple[Annotated[tuple[Unit, Unit], Field(strict=False)], ...], Listed] | None
    ) = Field(
        None, description="[from, to] pairs of unit numbers", examples=[[[0, 3], [1, 3], [3, 4]]]
    )
    inputs: Annotated[tuple[Unit, ...], Listed] | None = Field(
        None, description="units that get the pattern", examples=[[0, 1]]
    )
    outputs: Annotated[tuple[Unit, ...], Listed] | None = Field(
        None, description="units that have targets", examples=[[4]]
    )
    bias: Unit | None = Field(
        None, description="a unit that is always 1; absent = none", examples=[2]
    )
    activations: dict[str, Name] | None = Field(
        None,
        description="of single units, where another than activation",
        examples=[{"4": "linear"}],
    )
    tied: Annotated[tuple[Unit, ...], Listed] | None = Field(
        None,
        description=(
            "for each edge the number of the weight that it uses, from 0 without gaps; absent ="
            " its own"
        ),
        examples=[[0, 0, 1]],
    )
    external: Annotated[tuple[Number, ...], Listed] | None = Field(
        None,
        description="I_j of each unit, added to its activity; absent = 0",
        examples=[[0.0, 0.0, 0.0, 0.5, 0.0]],
    )
    solver: Annotated[Name, Among(SOLVERS)] | None = Field(None, description="how the units settle")
    step: Positive | None = Field(
        None, le=1, description="step of the relaxation, in time constants of a unit"
    )
    tolerance: Positive | None = Field(
        None, lt=1, description="relative rate of change at which it has settled"
    )
    max_steps: int | None = Field(
        None, ge=1, le=10**9, description="steps after which it has not settled"
    )
    visible: Units | None = Field(None, description="number of visible units", examples=[9])
    hidden: Unit | None = Field(None, description="number of hidden units", examples=[4])
    temperature: Positive | None = Field(None, description="the temperature T")
    values: Annotated[tuple[State, State], Field(strict=False)] | None = Field(
        None, description="the two states of a unit, [0, 1] or [-1, 1]"
    )
    sign: Literal[-1, 1] | None = Field(
        None, description="1 for E = +sum w s s, the source's; -1 for the usual one"
    )
    activation: Activation | None = Field(
        None, description="activation of the units; of an mlp: of the hidden layers"
    )
    output: Activation | None = Field(
        None,
        description=(
            "activation of the last layer; the two cross-entropies need linear, they bring"
            " their own"
        ),
    )
    error: Annotated[Name, Among(ERRORS)] | None = Field(
        None, description="E, a mean over patterns"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Keys that the kind has and the file leaves out get their values; those of other kinds
        stay None.
        """
        keys = (
            KINDS.get(data.get("kind", "mlp"))
            if isinstance(data, dict) and isinstance(data.get("kind", "mlp"), str)
            else None
        )
        return (
            {
                **{
                    key: value
                    for key, value in keys.items()
                    if value is not ... and value is not None
                },
                **data,
            }
            if keys
            else data
        )

    @model_validator(mode="after")
    def _check(self) -> "Network":
        keys = KINDS[self.kind]
        for key, value in self.model_dump(exclude_none=True).items():
            if key != "kind" and key not in keys:
                raise InputError(
                    f'{key} = {shown(value)} does not go with kind = "{self.kind}": remove it'
                )
        for key, default in keys.items():
            if default is None and getattr(self, key) is None:
                raise InputError(
                    f'{key} is missing: kind = "{self.kind}" needs it'
                    f" ({type(self).model_fields[key].description})"
                )
        n = {
            "mlp": lambda: sum((a + 1) * b for a, b in pairwise(self.layers or ())),
            "dag": lambda: len(self.edges or ()),
            "recurrent": lambda: (self.units or 0) ** 2,
            "boltzmann": lambda: ((self.visible or 0) + (self.hidden or 0)) ** 2 // 2,
        }[self.kind]()
        if n > MAX_WEIGHTS:
            raise InputError(
                f"{next(iter(keys))} give {n} weights but at most {MAX_WEIGHTS} are allowed: use"
                " fewer units"
            )
        self.build()
        return self

    def build(self) -> MLP | DAG | Recurrent | Boltzmann:
        """The network of this table; InputError if its numbers do not fit together."""
        given = {
            key: getattr(self, key) for key in KINDS[self.kind] if getattr(self, key) is not None
        }
        if self.kind == "mlp":
            return MLP(**given)
        if self.kind == "boltzmann":
            return Boltzmann(*given.values())
        single = given.pop("activations")
        try:
            activation = dict.fromkeys(range(given["units"]), given.pop("activation")) | {
                int(k): v for k, v in single.items()
            }
        except ValueError:
            raise InputError(
                f"activations = {shown(single)} must name units by their number, such as {{ 4 ="
                ' "linear" }'
            ) from None
        network = DAG if self.kind == "dag" else Recurrent
        return network(given.pop("units"), activation=activation, **given)


class Weights(Table):
    """Where w starts."""

    seed: Seed | None = Field(
        None,
        description="of the random starting weights; absent = derived from run.seed",
        examples=[0],
    )
    warmup_updates: int = Field(
        0,
        ge=0,
        le=10**9,
        description="steps of exact gradient descent before the estimates; 0 = none",
    )
    warmup_rate: Positive = Field(0.1, description="their learning rate eta, in w := w - eta g")


class Direction(Table):
    """The direction v of z = Hv."""

    kind: Literal["random", "gradient"] = Field(
        "random", description="v: standard normal entries, or the exact gradient at w"
    )
    norm: Positive | None = Field(
        None, description="v is scaled to this length |v|; absent = left as it is", examples=[1.0]
    )
    seed: Seed | None = Field(
        None, description="of the random direction; absent = derived from run.seed", examples=[0]
    )


class Measured(Table):
    """What the trials are and what is made of them: of [estimation], and of everything that is
    compared with it.
    """

    method: MethodName = Field(
        "difference", description="how g and z = Hv are estimated: see perturb list methods"
    )
    code: CodeName = Field(
        "walsh", description="what the synapses add to their weights: see perturb list codes"
    )
    sigma: Positive = Field(0.01, description="rms of a perturbation, in units of the weights")
    r: Positive = Field(
        0.01, description="displacement r of the weights along v, for methods that displace"
    )


def changes(
    *parts: type[Table], needed: Collection[str] = (), without: Collection[str] = ()
) -> Any:
    """A table with the keys of others, with their ranges and meanings; but for those `needed`
    they may be absent: as there.
    """
    keys: dict[str, Any] = {}
    for part in parts:
        for name, field in part.model_fields.items():
            kind: Any = (
                Annotated[(field.annotation, *field.metadata)]
                if field.metadata
                else field.annotation
            )
            if name not in without:
                must = name in needed
                keys[name] = (
                    kind if must else kind | None,
                    Field(... if must else None, description=field.description),
                )
    return create_model("Changes", __base__=Table, **keys)


Method: Any = changes(Measured, needed=("method", "code"))


class Compared(Method):
    """Another method, run at the same number of evaluations; sigma and r, if absent, are as in
    [estimation].
    """

    @model_validator(mode="after")
    def _check(self) -> "Compared":
        check_pair(METHODS[self.method], CODES[self.code])
        return self


class Estimation(Measured):
    """How g and z are estimated."""

    trials: int = Field(4096, ge=2, le=2**40, description="draws of the perturbation")
    presentation: Literal["batch", "pattern"] = Field(
        "batch", description="an evaluation shows all patterns, or one drawn at random"
    )
    compare_with: Annotated[tuple[Compared, ...], Field(strict=False, max_length=1000)] = Field(
        (), description="other methods, run at the same number of evaluations"
    )

    @model_validator(mode="after")
    def _check(self) -> "Estimation":
        check_pair(METHODS[self.method], CODES[self.code])
        return self


class Run(Table):
    """How it is computed."""

    seed: Seed = Field(
        0,
        description=(
            "of perturbations, noise and drawn patterns; and of starting weights, direction and"
            " die, unless weights.seed, direction.seed or chip.die is given"
        ),
    )
    precision: Literal["float64", "float32", "auto"] = Field(
        "float64",
        description=(
            "of errors in batches; float32 is several times faster, auto takes it where rounding"
            " does not count"
        ),
    )
    fidelity: Literal["event", "batch", "auto"] = Field(
        "auto",
        description=(
            "event: every trial in time; batch: fast, times from a few trials; auto: events until"
            " they repeat"
        ),
    )


class Spectrum(Table):
    """Of the study "spectrum"."""

    k: int = Field(5, ge=1, le=1000, description="eigenvalues shown at each end")
    probes: int = Field(
        10, ge=2, le=10_000, description="random vectors of the density, above 3,000 weights"
    )
    steps: int = Field(100, ge=2, le=10_000, description="Lanczos steps from each of them")


class FiniteDifference(Table):
    """Of the study "finite-difference"."""

    smallest: Positive = Field(
        1e-12, description="smallest displacement |r v|, in units of the weights"
    )
    largest: Positive = Field(
        10.0, description="largest displacement |r v|, in units of the weights"
    )
    points: int = Field(
        79, ge=3, le=10_000, description="displacements tried, evenly spaced in the logarithm"
    )

    @model_validator(mode="after")
    def _check(self) -> "FiniteDifference":
        if not self.smallest < self.largest:
            raise InputError(
                f"smallest = {self.smallest} must be less than largest = {self.largest}: exchange"
                " them"
            )
        return self


SEVERAL = Field(strict=False, max_length=100)


class Estimators(Table):
    """Of the study "estimators"."""

    methods: Annotated[tuple[MethodName, ...], SEVERAL] = Field(
        (), description="methods compared; [] = all"
    )
    codes: Annotated[tuple[CodeName, ...], SEVERAL] = Field(
        (), description="codes compared; [] = all"
    )
    repeats: int = Field(
        16, ge=2, le=10**6, description="times that each is run, with seeds derived from run.seed"
    )


class Dies(Table):
    """Of the studies "dies", "ablation" and "budget"."""

    count: int = Field(
        16, ge=1, le=10**6, description="dies made of the chip's design, the first of them chip.die"
    )
    accuracy: float = Field(
        0.9, ge=0.001, lt=1, description="cosine with the exact answer that is wanted"
    )


Decays = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1, max_length=100)]


class Uses(Table):
    """Of the study "uses"."""

    decay: Positive = Field(
        1e-3,
        description=(
            "weight decay alpha: E + alpha |w|^2 / 2 is minimised, so that there is a minimum"
        ),
    )
    decays: Decays = Field(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), description="weight decays whose evidence is compared"
    )
    test_samples: int = Field(
        200,
        ge=1,
        le=10**8,
        description="further patterns, held back to test with, if data.test = 0",
    )
    budget: int = Field(
        1000, ge=10, le=10**7, description="gradient-equivalents that each optimiser may spend"
    )


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
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+,-]*$", max_length=40)]


Options: Any = changes(Measured, Updates, without=ALONE)


class Contender(Options):
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
    compare_with: Annotated[tuple[Contender, ...], Field(strict=False, max_length=100)] = Field(
        (),
        description=(
            "other settings, each from the same starts with as many evaluations of E, such as "
            '{ label = "averaged", trials_per_update = 8, eta = 0.5 }'
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> "Training":
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
        self.plan(method="difference")
        return self

    def plan(self, **more: Any) -> Plan:
        """The plan of these settings; more: its other fields."""
        return Plan(**{name: getattr(self, name) for name in Plan.options()}, **more)


class Reproduce(Table):
    """Of the study "reproduce"."""

    claim: Name = Field(
        "all", description="which claim of the literature: see perturb reproduce; or all of them"
    )


class Sweep(Table):
    """Of `perturb sweep`: keys to what they take in turn, as in `designs.points`."""

    vary: dict[str, Any] = Field(
        {},
        description=(
            'keys and their values, of several keys every combination, such as { "estimation.sigma"'
            ' = [0.01, 0.02], "chip.error_unit.noise" = "logspace:-5:-1:9" }: a list,'
            ' "linspace:LO:HI:N" or "logspace:LOEXP:HIEXP:N"; or a range to draw from,'
            ' "uniform:LO:HI" or "loguniform:LO:HI"'
        ),
    )
    zip: dict[str, Any] = Field(
        {}, description="keys and lists that go together, entry by entry, written likewise"
    )
    design: Literal["sobol", "latin-hypercube"] = Field(
        "sobol", description="how points are drawn from ranges"
    )
    samples: int = Field(64, ge=1, le=10**6, description="points drawn from ranges")
    seed: Seed = Field(0, description="of these draws")
    repeats: int = Field(
        1,
        ge=1,
        le=10**6,
        description="times that each point is run: with run.seed, then with seeds derived from it",
    )
    keep: bool = Field(
        False, description="whether the other tables of every run are kept, beside its summary"
    )


class Experiment(Table):
    """One experiment, complete: nothing is left to look up. `load_experiment` makes it from a
    file.
    """

    name: Name = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description='a short name without spaces, such as name = "xor"',
    )
    description: str = Field("", description="one line")
    study: Literal[
        "compare",
        "estimators",
        "ablation",
        "dies",
        "budget",
        "spectrum",
        "finite-difference",
        "uses",
        "training",
        "reproduce",
    ] = Field(
        "compare",
        description=(
            "what is done: compare (methods of weight perturbation on a chip), training (learning"
            " on the chip) or another study; the tables of the same names set them up"
        ),
    )
    network: Network = Field(description="a table [network], of an mlp with at least its layers")
    data: Data = Field(description="a table [data] with at least its name")
    weights: Weights = Weights()
    direction: Direction = Direction()
    estimation: Estimation = Estimation()
    chip: ChipParams = ChipParams()
    run: Run = Run()
    estimators: Estimators = Estimators()
    dies: Dies = Dies()
    spectrum: Spectrum = Spectrum()
    finite_difference: FiniteDifference = FiniteDifference()
    uses: Uses = Uses()
    training: Training = Training()
    reproduce: Reproduce = Reproduce()
    sweep: Sweep | None = None

    def given_seeds(self) -> dict[str, int]:
        """The seeds that do not come from run.seed, but are given by keys of their own; without
        that of the data.
        """
        keys = {
            "weights.seed": self.weights.seed,
            "direction.seed": self.direction.seed,
            "chip.die": self.chip.die,
        }
        return {key: seed for key, seed in keys.items() if seed is not None}

    def seeds_of(self, run: int = 0) -> dict[str, int]:
        """The seeds that a run is made from, see the function of this name."""
        return seeds_of(self.run.seed, self.given_seeds(), run)

    def direction_seed(self) -> int:
        """The seed of the random direction v."""
        return derive_seed(
            self.run.seed if self.direction.seed is None else self.direction.seed, "direction"
        )

    def made_chip(self) -> ChipParams:
        """The chip with the number of its die; where there are several dies, of that of run 0
        (`ChipParams.of_run`).
        """
        return self.chip.model_copy(update={"die": self.seeds_of()["die"]})


def seeds_of(run_seed: int, given: Mapping[str, int], run: int = 0) -> dict[str, int]:
    """The seeds of a run's perturbations and noise, of its starting weights, and of its die, as
    columns of tables have them.

    run_seed: run.seed; given: of weights.seed and chip.die those that are given, the others come
    from run.seed. run: number of a run of a training. The first run has the seeds themselves, so
    that a run can be done alone.
    """
    start = given.get("weights.seed", derive_seed(run_seed, "start"))
    die = given.get("chip.die", derive_seed(run_seed, "die"))
    return {
        "run_seed": nth_seed(run_seed, "run", run),
        "start_seed": nth_seed(start, "start", run),
        "die": nth_seed(die, "die", run),
    }
