"""Experiment files: a TOML becomes an `Experiment`, validated once, with the whole chip in it."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, SkipValidation, model_validator

from hardware.params import ChipParams, load_chip, with_device
from hardware.tables import Name, NonNegative, Number, Positive, Table, read_named, toml_names, validated
from perturb.errors import InputError, choose, one_line, shown
from perturb.estimation.statistics import check_pair
from perturb.networks.boltzmann import Boltzmann
from perturb.networks.dag import DAG
from perturb.networks.mlp import MLP
from perturb.networks.recurrent import Recurrent
from perturb.seeds import derive_seed, nth_seed
from perturb.settings import plain
from perturb.training.plan import RATES, RULES
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.datasets import DATASETS

MAX_WEIGHTS = 10_000_000

Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
Units = Annotated[int, Field(ge=1, le=MAX_WEIGHTS)]

KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"layers": None, "activation": "tanh", "output": "linear", "error": "squared_error"},
    "dag": {
        "units": None, "edges": None, "inputs": None, "outputs": None, "bias": ..., "activation": "tanh", "activations": {},
        "error": "squared_error", "tied": ..., "external": ...,
    },
    "recurrent": {
        "units": None, "inputs": None, "outputs": None, "activation": "tanh", "activations": {}, "error": "squared_error",
        "solver": "direct", "step": 0.5, "tolerance": 1e-10, "max_steps": 10_000,
    },
    "boltzmann": {"visible": None, "hidden": None, "temperature": 1.0, "values": (0, 1), "sign": 1},
}  # keys of each kind of network: None must be given, ... may be left out, others are the values of keys left out # fmt: skip
State = Annotated[int, Field(ge=-1, le=1)]
Unit = Annotated[int, Field(ge=0, le=MAX_WEIGHTS)]
Listed = Field(strict=False, min_length=1, max_length=MAX_WEIGHTS)


class Network(Table):
    kind: Literal["mlp", "dag", "recurrent", "boltzmann"] = Field("mlp", description="what kind of network")
    layers: Annotated[tuple[Units, ...], Field(strict=False, min_length=2, max_length=1000)] | None = Field(
        None, description="mlp: units per layer, inputs first, such as [64, 32, 10]"
    )
    units: Units | None = Field(None, description="dag, recurrent: number of units")
    edges: Annotated[tuple[Annotated[tuple[Unit, Unit], Field(strict=False)], ...], Listed] | None = Field(
        None, description="dag: [from, to] pairs of unit numbers"
    )
    inputs: Annotated[tuple[Unit, ...], Listed] | None = Field(None, description="dag, recurrent: units that get the pattern")
    outputs: Annotated[tuple[Unit, ...], Listed] | None = Field(None, description="dag, recurrent: units that have targets")
    bias: Unit | None = Field(None, description="dag: a unit that is always 1")
    activations: dict[str, Name] | None = Field(
        None, description="dag, recurrent: of single units, where another than activation"
    )
    tied: Annotated[tuple[Unit, ...], Listed] | None = Field(
        None, description="dag: for each edge the number of the weight that it uses, from 0 without gaps; absent = its own"
    )
    external: Annotated[tuple[Number, ...], Listed] | None = Field(
        None, description="dag: I_j of each unit, added to its activity; absent = 0"
    )
    solver: Name | None = Field(None, description="recurrent: direct or relax")
    step: Positive | None = Field(None, le=1, description="recurrent: step of the relaxation, in time constants of a unit")
    tolerance: Positive | None = Field(None, lt=1, description="recurrent: relative rate of change at which it has settled")
    max_steps: int | None = Field(None, ge=1, le=10**9, description="recurrent: steps after which it has not settled")
    visible: Units | None = Field(None, description="boltzmann: number of visible units")
    hidden: Unit | None = Field(None, description="boltzmann: number of hidden units, 0 or more")
    temperature: Positive | None = Field(None, description="boltzmann: the temperature T")
    values: Annotated[tuple[State, State], Field(strict=False)] | None = Field(
        None, description="boltzmann: the two states of a unit, [0, 1] or [-1, 1]"
    )
    sign: Literal[-1, 1] | None = Field(None, description="boltzmann: 1 for E = +sum w s s, the source's; -1 for the usual one")
    activation: Name | None = Field(None, description="activation of the units; of an mlp: of the hidden layers")
    output: Name | None = Field(None, description="mlp: activation of the last layer")
    error: Name | None = Field(None, description="E, a mean over patterns")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Keys that the kind has and the file leaves out get their values; those of other kinds stay None."""
        keys = KINDS.get(data.get("kind", "mlp")) if isinstance(data, dict) and isinstance(data.get("kind", "mlp"), str) else None
        return {**{key: value for key, value in keys.items() if value is not ... and value is not None}, **data} if keys else data

    @model_validator(mode="after")
    def _check(self) -> "Network":
        keys = KINDS[self.kind]
        for key, value in self.model_dump(exclude_none=True).items():
            if key != "kind" and key not in keys:
                raise InputError(f'{key} = {shown(value)} does not go with kind = "{self.kind}": remove it')
        for key, default in keys.items():
            if default is None and getattr(self, key) is None:
                raise InputError(f'{key} is missing: kind = "{self.kind}" needs it ({type(self).model_fields[key].description})')
        n = {
            "mlp": lambda: sum((a + 1) * b for a, b in pairwise(self.layers or ())),
            "dag": lambda: len(self.edges or ()),
            "recurrent": lambda: (self.units or 0) ** 2,
            "boltzmann": lambda: ((self.visible or 0) + (self.hidden or 0)) ** 2 // 2,
        }[self.kind]()
        if n > MAX_WEIGHTS:
            raise InputError(f"{next(iter(keys))} give {n} weights but at most {MAX_WEIGHTS} are allowed: use fewer units")
        self.build()
        return self

    def build(self) -> MLP | DAG | Recurrent | Boltzmann:
        """The network of this table; InputError if its numbers do not fit together."""
        given = {key: getattr(self, key) for key in KINDS[self.kind] if getattr(self, key) is not None}
        if self.kind == "mlp":
            return MLP(**given)
        if self.kind == "boltzmann":
            return Boltzmann(*given.values())
        single = given.pop("activations")
        try:
            activation = dict.fromkeys(range(given["units"]), given.pop("activation")) | {int(k): v for k, v in single.items()}
        except ValueError:
            raise InputError(
                f'activations = {shown(single)} must name units by their number, such as {{ 4 = "linear" }}'
            ) from None
        network = DAG if self.kind == "dag" else Recurrent
        return network(given.pop("units"), activation=activation, **given)


class Data(Table):
    name: Name = Field(description="which patterns: see perturb list datasets")
    samples: int | None = Field(None, ge=1, le=10**8, description="patterns to learn from; absent = all that are not held back")
    test: int = Field(0, ge=0, le=10**8, description="further patterns, held back to test with; 0 = none")
    balanced: bool = Field(
        False,
        description="whether there are as many of each class to learn from as can be; false = classes in proportion",
    )
    noise: NonNegative = Field(
        0.0, description="letters: probability that a pixel is flipped; teacher: deviation of label noise; spirals: of the points"
    )
    bits: int | None = Field(None, ge=1, le=16, description="parity: number of inputs")
    turns: Positive | None = Field(None, le=100, description="spirals: turns of each")
    amplitude: Positive | None = Field(None, le=1e6, description="patterns: a, where outputs -a or +a are wanted")
    side: int | None = Field(None, ge=2, le=4, description="bars: pixels along a side")
    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description="file: path of a .csv, .parquet or .npz file"
    )
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="file: of its contents, in hexadecimal, that others are refused; absent = not checked, but stored"
    )
    targets: Annotated[str | tuple[str, ...] | None, SkipValidation] = Field(
        None, description="file: name of a column of classes, or a list of columns of numbers, [] for none"
    )
    standardise: bool = Field(
        False,
        description="whether inputs, and targets that are numbers, get mean 0 and deviation 1 over the patterns to learn from",
    )
    seed: Seed = Field(0, description="of the draw of patterns, of what is random in them and of noise")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Keys that the data set has and the file leaves out get their values; targets are a text or a tuple of texts."""
        if not isinstance(data, dict):
            return data
        targets = data.get("targets")
        if isinstance(targets, (list, tuple)) and all(isinstance(column, str) for column in targets):
            data = {**data, "targets": tuple(targets)}
        elif not isinstance(targets, str | None):
            raise InputError(
                f'targets = {shown(targets)} must be a text in quotes, such as "class", or a list of them, such as ["y"]'
            )
        name = data.get("name")
        keys = DATASETS[name].keys if isinstance(name, str) and name in DATASETS else {}
        return {**{key: value for key, value in keys.items() if value is not ... and value is not None}, **data}

    @model_validator(mode="after")
    def _check(self) -> "Data":
        keys = choose("name", self.name, DATASETS).keys
        for key, value in self.model_dump(exclude_defaults=True).items():
            if key not in keys and key not in ("name", "samples", "seed"):
                others = ", ".join(name for name, dataset in DATASETS.items() if key in dataset.keys)
                raise InputError(f'{key} = {shown(value)} does not go with name = "{self.name}", only with {others}: remove it')
        for key, value in keys.items():
            if value is None and getattr(self, key) is None:
                example = 'file = "mine.csv"' if key == "file" else "samples = 64"
                raise InputError(f'{key} is missing: name = "{self.name}" needs it, such as {example}')
        return self


class Weights(Table):
    seed: Seed | None = Field(None, description="of the random starting weights; absent = derived from run.seed")
    warmup_updates: int = Field(0, ge=0, le=10**9, description="steps of exact gradient descent before the estimates; 0 = none")
    warmup_rate: Positive = Field(0.1, description="their learning rate eta, in w := w - eta g")


class Direction(Table):
    kind: Literal["random", "gradient"] = Field("random", description="v: standard normal entries, or the exact gradient at w")
    norm: Positive | None = Field(None, description="v is scaled to this length |v|; absent = left as it is")
    seed: Seed | None = Field(None, description="of the random direction; absent = derived from run.seed")


class Compared(Table):
    """Another method, run at the same number of evaluations."""

    method: Name = Field(description="name of a method")
    code: Name = Field(description="name of a code")
    sigma: Positive | None = Field(None, description="as estimation.sigma, which it is if absent")
    r: Positive | None = Field(None, description="as estimation.r, which it is if absent")

    @model_validator(mode="after")
    def _check(self) -> "Compared":
        check_pair(choose("method", self.method, METHODS), choose("code", self.code, CODES))
        return self


class Estimation(Table):
    method: Name = Field("difference", description="how g and z = Hv are estimated")
    code: Name = Field("walsh", description="what the synapses add to their weights")
    sigma: Positive = Field(0.01, description="rms of a perturbation, in units of the weights")
    r: Positive = Field(0.01, description="displacement r of the weights along v, for methods that displace")
    trials: int = Field(4096, ge=2, le=2**40, description="trials: draws of the perturbation")
    presentation: Literal["batch", "pattern"] = Field(
        "batch", description="an evaluation shows all patterns, or one drawn at random"
    )
    compare_with: Annotated[tuple[Compared, ...], Field(strict=False, max_length=1000)] = Field((), description="other methods")

    @model_validator(mode="after")
    def _check(self) -> "Estimation":
        check_pair(choose("method", self.method, METHODS), choose("code", self.code, CODES))
        return self


class Run(Table):
    seed: Seed = Field(
        0,
        description="of perturbations, noise and drawn patterns; and of starting weights, direction and die, unless "
        "weights.seed, direction.seed or chip.die is given",
    )
    precision: Literal["float64", "float32", "auto"] = Field(
        "float64",
        description="of errors in batches; float32 is several times faster, auto takes it where rounding does not count",
    )
    fidelity: Literal["event", "batch", "auto"] = Field(
        "auto", description="every trial in time; in batches; or events until they repeat"
    )


class Spectrum(Table):
    """Of the study "spectrum"."""

    k: int = Field(5, ge=1, le=1000, description="eigenvalues shown at each end")
    probes: int = Field(10, ge=2, le=10_000, description="random vectors of the density, above 3,000 weights")
    steps: int = Field(100, ge=2, le=10_000, description="Lanczos steps from each of them")


class FiniteDifference(Table):
    """Of the study "finite-difference"."""

    smallest: Positive = Field(1e-12, description="smallest displacement |r v|, in units of the weights")
    largest: Positive = Field(10.0, description="largest displacement |r v|, in units of the weights")
    points: int = Field(79, ge=3, le=10_000, description="displacements tried, evenly spaced in the logarithm")

    @model_validator(mode="after")
    def _check(self) -> "FiniteDifference":
        if not self.smallest < self.largest:
            raise InputError(f"smallest = {self.smallest} must be less than largest = {self.largest}: exchange them")
        return self


Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=100)]


class Estimators(Table):
    """Of the study "estimators"."""

    methods: Names = Field((), description="methods compared; [] = all")
    codes: Names = Field((), description="codes compared; [] = all")
    repeats: int = Field(16, ge=2, le=10**6, description="times that each is run, with seeds derived from run.seed")

    @model_validator(mode="after")
    def _check(self) -> "Estimators":
        for method in self.methods:
            choose("methods", method, METHODS)
        for code in self.codes:
            choose("codes", code, CODES)
        return self


class Dies(Table):
    """Of the studies "dies", "ablation" and "budget"."""

    count: int = Field(16, ge=1, le=10**6, description="dies made of the chip's design, the first of them chip.die")
    accuracy: float = Field(0.9, ge=0.001, lt=1, description="cosine with the exact answer that is wanted")


Decays = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1, max_length=100)]


class Uses(Table):
    """Of the study "uses"."""

    decay: Positive = Field(1e-3, description="weight decay alpha: E + alpha |w|^2 / 2 is minimised, so that there is a minimum")
    decays: Decays = Field((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), description="weight decays whose evidence is compared")
    test_samples: int = Field(200, ge=1, le=10**8, description="further patterns, held back to test with, if data.test = 0")
    budget: int = Field(1000, ge=10, le=10**7, description="gradient-equivalents that each optimiser may spend")


Count = Annotated[int, Field(ge=1, le=2**40)]


class Contender(Table):
    """Other settings of learning, from the same starts; what is absent is as in [training] and [estimation]."""

    label: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+,-]*$", max_length=40, description='what reports call it, such as "with momentum"'
    )
    method: Name | None = Field(None, description="name of a method")
    code: Name | None = Field(None, description="name of a code")
    sigma: Positive | None = Field(None, description="rms of a perturbation, in units of the weights")
    r: Positive | None = Field(None, description="displacement along v, for methods that displace")
    rule: Name | None = Field(None, description="plain, momentum, sign, keep-if-better, diagonal, newton-cg or newton-mean")
    rate: Name | None = Field(None, description="fixed, trace, eigenvalue or line")
    eta: Positive | None = Field(None, description="learning rate; where it is measured, a factor of it")
    decay: NonNegative | None = Field(None, description="updates after which the rate is halved; 0 = constant")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="mu of the rule momentum")
    damping: NonNegative | None = Field(None, description="added to curvature by the rules diagonal, newton-cg and newton-mean")
    memory: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="diagonal: share of the running mean kept")
    cg_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="newton-cg: products Hp of an update")
    trials_per_update: Count | None = Field(None, description="trials whose estimates are averaged")
    perturb_every: Count | None = Field(None, description="trials for which a perturbation stands")
    sample_every: Count | None = Field(None, description="trials for which the same patterns are shown")
    batch: Annotated[int, Field(ge=0, le=10**8)] | None = Field(None, description="patterns shown in an evaluation; 0 = all")
    tune_every: Count | None = Field(None, description="updates after which a measured rate is measured anew")
    tune_trials: Count | None = Field(None, description="trials of each such measurement")


class Training(Table):
    """Of the study "training"; method, code, sigma and r are those of [estimation]."""

    source: Literal["batch", "event", "exact"] = Field(
        "batch", description="of the updates: the chip in batches, the chip event by event, or the exact gradient"
    )
    control: bool = Field(True, description="whether the exact gradient learns too, from the same starts")
    control_eta: Positive | None = Field(None, description="its learning rate; absent = the same")
    control_updates: Count | None = Field(None, description="its updates; absent = as many")
    runs: int = Field(10, ge=1, le=10**5, description="starts side by side, each with a start, a die and noise of its own")
    updates: Count = Field(10_000, description="updates of the weights")
    rule: Name = Field("plain", description="plain, momentum, sign, keep-if-better, diagonal, newton-cg or newton-mean")
    rate: Name = Field("fixed", description="of learning: fixed (eta), trace, eigenvalue or line, measured by the chip itself")
    eta: Positive = Field(0.1, description="learning rate; where it is measured, a factor of it")
    decay: NonNegative = Field(0.0, description="updates after which the rate is halved, eta / (1 + update/decay); 0 = constant")
    momentum: float = Field(0.9, ge=0, lt=1, description="mu of the rule momentum")
    damping: NonNegative = Field(0.01, description="added to curvature by the rules diagonal, newton-cg and newton-mean")
    memory: float = Field(0.9, ge=0, lt=1, description="diagonal: share of the running mean of H_ii that an update keeps")
    cg_steps: int = Field(5, ge=1, le=1000, description="newton-cg: products Hp of an update")
    trials_per_update: Count = Field(1, description="trials whose estimates are averaged, tau_theta")
    perturb_every: Count = Field(1, description="trials for which a perturbation stands, tau_p")
    sample_every: Count = Field(1, description="trials for which the same patterns are shown, tau_x")
    batch: int = Field(0, ge=0, le=10**8, description="patterns shown in an evaluation; 0 = all")
    baseline_free: bool = Field(False, description="whether E(w) is read without noise and not counted; ideal chips only")
    tune_every: Count = Field(1000, description="updates after which a measured rate is measured anew")
    tune_trials: Count = Field(100, description="trials of each such measurement")
    waits: bool = Field(True, description="whether the next trial begins only when an update is written")
    criterion: Literal["error", "accuracy", "balanced_accuracy", "test_error", "test_accuracy", "test_balanced_accuracy"] = Field(
        "error", description="what must be reached"
    )
    goal: Number = Field(0.01, description="at most this error, or at least this accuracy")
    records: int = Field(100, ge=1, le=10**5, description="points of the learning curves")
    compare_with: Annotated[tuple[Contender, ...], Field(strict=False, max_length=100)] = Field(
        (), description="other settings, each from the same starts with as many evaluations of E"
    )

    @model_validator(mode="after")
    def _check(self) -> "Training":
        choose("rule", self.rule, RULES)
        choose("rate", self.rate, dict.fromkeys(RATES))
        if self.criterion.endswith("accuracy") and not 0 < self.goal <= 1:
            raise InputError(f"goal = {self.goal} must lie in 0 < goal <= 1: it is a share of patterns, as the criterion says")
        if self.criterion.endswith("error") and self.goal <= 0:
            raise InputError(f"goal = {self.goal} must be > 0: it is an error, as the criterion says")
        labels = ["batch", "event", "exact", *(other.label for other in self.compare_with)]
        if double := [label for label in labels if labels.count(label) > 1]:
            raise InputError(f'compare_with: label = "{double[0]}" is taken: give every setting a name of its own')
        if self.rule == "keep-if-better" and self.trials_per_update != 1:
            raise InputError('rule = "keep-if-better" judges every trial: set trials_per_update = 1')
        return self


class Reproduce(Table):
    """Of the study "reproduce"."""

    claim: Name = Field("all", description="which claim of the literature: see perturb reproduce; or all of them")


class Sweep(Table):
    """Of `perturb sweep`: keys to what they take in turn, as in `designs.points`."""

    vary: dict[str, Any] = Field({}, description="keys and their values; of several keys every combination")
    zip: dict[str, Any] = Field({}, description="keys and lists that go together, entry by entry")
    design: Literal["sobol", "latin-hypercube"] = Field("sobol", description="how points are drawn from ranges")
    samples: int = Field(64, ge=1, le=10**6, description="points drawn from ranges")
    seed: Seed = Field(0, description="of these draws")
    repeats: int = Field(
        1, ge=1, le=10**6, description="times that each point is run: with run.seed, then with seeds derived from it"
    )
    keep: bool = Field(False, description="whether the other tables of every run are kept, beside its summary")


class Experiment(Table):
    """One experiment, complete: nothing is left to look up. `load_experiment` makes it from a file."""

    name: Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description='a short name without spaces, such as name = "xor"')
    description: str = Field("", description="one line")
    study: Literal[
        "compare", "estimators", "ablation", "dies", "budget", "spectrum", "finite-difference", "uses", "training", "reproduce"
    ] = Field("compare", description="what is done")  # fmt: skip
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
        """The seeds that do not come from run.seed, but are given by keys of their own; without that of the data."""
        keys = {"weights.seed": self.weights.seed, "direction.seed": self.direction.seed, "chip.die": self.chip.die}
        return {key: seed for key, seed in keys.items() if seed is not None}

    def seeds_of(self, run: int = 0) -> dict[str, int]:
        """The seeds that a run is made from, see the function of this name."""
        return seeds_of(self.run.seed, self.given_seeds(), run)

    def direction_seed(self) -> int:
        """The seed of the random direction v."""
        return derive_seed(self.run.seed if self.direction.seed is None else self.direction.seed, "direction")

    def made_chip(self) -> ChipParams:
        """The chip with the number of its die; where there are several dies, of that of run 0 (`ChipParams.of_run`)."""
        return self.chip.model_copy(update={"die": self.seeds_of()["die"]})


def seeds_of(run_seed: int, given: Mapping[str, int], run: int = 0) -> dict[str, int]:
    """The seeds of a run's perturbations and noise, of its starting weights, and of its die, as columns of tables have them.

    run_seed: run.seed; given: of weights.seed and chip.die those that are given, the others come from run.seed. run: number of a
    run of a training. The first run has the seeds themselves, so that a run can be done alone.
    """
    start = given.get("weights.seed", derive_seed(run_seed, "start"))
    die = given.get("chip.die", derive_seed(run_seed, "die"))
    return {
        "run_seed": nth_seed(run_seed, "run", run),
        "start_seed": nth_seed(start, "start", run),
        "die": nth_seed(die, "die", run),
    }


def experiment_names() -> list[str]:
    """The experiments that come with the package."""
    return [name for name in toml_names(files("sims") / "experiments") if name != "starter"]


def starter() -> str:
    """The text of a commented experiment file to start from."""
    return (files("sims") / "experiments" / "starter.toml").read_text(encoding="utf-8")


def load_experiment(name_or_path: str | os.PathLike[str], set: Mapping[str, object] | None = None) -> Experiment:
    """The experiment of that name, or of the TOML file at that path, with the keys of `set` changed.

    set: dotted keys to values, such as {"estimation.sigma": 0.02}; a text is read as a TOML value, or else as itself. chip.preset
    names a chip or a file, relative to the experiment file (in `set`: to the working directory); the other keys of [chip]
    override it. data.file is found likewise. A mistake in any of it raises InputError.
    """
    data, source, folder = read_experiment(name_or_path)
    if set:
        data, folder = changed(data, folder, set)
        source = f"{source} with --set"
    return experiment_from(data, source, folder)


def read_experiment(name_or_path: str | os.PathLike[str]) -> tuple[dict[str, Any], str, Path]:
    """The contents of an experiment file, its name in messages, and the folder that paths in it are relative to."""
    return read_named("experiment", name_or_path, files("sims") / "experiments", experiment_names())


def changed(data: dict[str, Any], folder: Path, set: Mapping[str, object]) -> tuple[dict[str, Any], Path]:
    """Contents and folder of an experiment file, with keys changed as `load_experiment` does."""
    data = _with_file(with_settings(_with_file(data, folder), set), Path())
    return data, Path() if {"chip", "chip.preset"} & set.keys() else folder


def experiment_from(data: dict[str, Any], source: str, folder: Path = Path()) -> Experiment:
    """The experiment of the contents of a TOML file, which messages call `source` and whose paths are relative to `folder`."""
    chip = data.get("chip", {})
    if isinstance(chip, dict):
        preset = chip.get("preset", "ideal")
        if not isinstance(preset, str):
            raise InputError(
                f"{source}: chip.preset = {shown(preset)} must be a text in quotes: the name of a chip or the path of a TOML file"
            )
        try:
            base = load_chip(preset, folder)
        except InputError as error:
            raise InputError(f"{source}: chip.preset: {error}") from None
        overrides = {key: value for key, value in chip.items() if key != "preset"}
        data = {**data, "chip": with_device(overridden(base.model_dump(), overrides), f"{source}: chip", folder)}
    return validated(Experiment, with_digest(_with_file(data, folder)), source, also=("chip.preset",))


def with_digest(data: dict[str, Any]) -> dict[str, Any]:
    """data, with the data.sha256 of its data.file, an absolute path, where it has none: what is stored names its contents."""
    table = data.get("data")
    if not (isinstance(table, dict) and isinstance(table.get("file"), str)) or table.get("sha256", "") != "":
        return data
    try:
        if not Path(table["file"]).is_file():
            return data
        with open(table["file"], "rb") as file:
            return {**data, "data": {**table, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}}
    except (OSError, ValueError):  # whoever reads the patterns says why
        return data


def _with_file(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """data, with a data.file that is relative to `folder` made absolute."""
    table = data.get("data")
    if not (isinstance(table, dict) and isinstance(table.get("file"), str) and table["file"]):
        return data
    return {**data, "data": {**table, "file": Path(os.path.abspath(folder / table["file"])).as_posix()}}


def overridden(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """base, with tables merged and everything else replaced by `changes`."""
    both = {k: overridden(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in changes.items()}
    return {**base, **both}


def parse_settings(items: Iterable[str]) -> dict[str, str]:
    """{"estimation.sigma": "0.02"} of ["estimation.sigma=0.02"], as given to --set."""
    settings = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (equals and key.strip()):
            raise InputError(f"--set {one_line(item)}: not of the form KEY=VALUE, such as --set estimation.sigma=0.02")
        settings[key.strip()] = value.strip()
    return settings


def with_settings(data: dict[str, Any], settings: Mapping[str, object]) -> dict[str, Any]:
    """A copy of `data` with dotted keys changed."""
    data = dict(data)
    for key, value in settings.items():
        *parents, last = parts = str(key).split(".")
        if not all(parts):
            raise InputError(f"--set {one_line(str(key))}: not a key, write it like estimation.sigma")
        table = data
        for depth, part in enumerate(parents, 1):
            below = table.get(part, {})
            if not isinstance(below, dict):
                raise InputError(
                    f"--set {one_line(str(key))}: {one_line('.'.join(parts[:depth]))} is no table: set it as a whole"
                )
            table[part] = dict(below)
            table = table[part]
        table[last] = plain(value)
    return data


def to_toml(experiment: Experiment, folder: Path | None = None) -> str:
    """The experiment as a TOML file that `load_experiment` turns into an equal one, whatever the presets become.

    folder: where the file will be, so that data.file can be relative to it: run directories name no home directories."""
    data = experiment.model_dump(exclude_none=True)
    if folder is not None and experiment.data.file is not None:
        data["data"]["file"] = Path(os.path.relpath(experiment.data.file, folder)).as_posix()
    return tomli_w.dumps(data)
