"""What an experiment file may say, but for the options of its study: a table of settings for every
part, each key with its range, default and meaning.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, create_model, model_validator

from hardware.config import Among, Name, Positive, Seed, Table
from hardware.params import ChipParams
from perturb.errors import InputError, shown
from perturb.estimation.design import check_pair
from perturb.seeds import derive_seed, nth_seed
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.data.datasets import Data
from sims.experiment.network import KINDS, Network
from sims.studies import STUDIES

T = TypeVar("T", bound=Table)
MethodName = Annotated[Name, Among(METHODS)]
CodeName = Annotated[Name, Among(CODES)]


NO_SEED = -1  # of starting weights that are from a file
STARTS = ("weights.file", "network.file")  # the keys that name one


class Weights(Table):
    """Where w starts."""

    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None,
        description=(
            "path of weights to start from: .npz (such as that of a training), .csv, .npy or .onnx;"
            " absent = random, or those of network.file"
        ),
        examples=["weights.npz"],
    )
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description=(
            "of that file's contents, in hexadecimal, that others are refused; absent = not"
            " checked, but stored"
        ),
        examples=["0"],
    )
    source: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None,
        description=(
            "whose weights, of a file of several, as tables call them, such as chip; absent = of"
            " the first"
        ),
        examples=["chip"],
    )
    run: int | None = Field(
        None,
        ge=0,
        description=(
            "run of the file whose weights every run starts from; absent = that of the same number"
        ),
        examples=[0],
    )
    seed: Seed | None = Field(
        None,
        description=(
            "of the random starting weights; absent = derived from run.seed, or those of"
            " network.file"
        ),
        examples=[0],
    )
    warmup_updates: int = Field(
        0,
        ge=0,
        le=10**9,
        description="steps of exact gradient descent before the estimates; 0 = none",
    )
    warmup_rate: Positive = Field(0.1, description="their learning rate eta, in w := w - eta g")

    @model_validator(mode="after")
    def _check(self) -> "Weights":
        for key in ("sha256", "source", "run"):
            if self.file is None and getattr(self, key) is not None:
                raise InputError(
                    f"{key} = {shown(getattr(self, key))} is of a file of weights: set"
                    " weights.file too, or remove it"
                )
        if self.file is not None and self.seed is not None:
            raise InputError(
                f"seed = {self.seed} is of random starting weights, but weights.file gives them:"
                " remove one of the two"
            )
        return self


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
                # None means: as in the table that the keys are from
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
        # here, at the file's border: else it would show only after the methods before it have run
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
            "of errors in batches, of estimates; float32 is several times faster, auto takes it"
            " where rounding does not count, as a training always does: not for exact signs of dE"
        ),
    )
    fidelity: Literal["event", "batch", "auto"] = Field(
        "auto",
        description=(
            "event: every trial in time; batch: fast, times from a few trials; auto: events until"
            " they repeat"
        ),
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
        False, description="whether the other tables of every run are stored, beside its summary"
    )


class Setup(Table):
    """What every study knows of an experiment: all but the tables of options of the studies, with
    which `sims.experiment.experiment.Experiment` is complete.
    """

    name: Name = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description='a short name without spaces, such as name = "xor"',
    )
    description: str = Field("", description="one line")
    study: Literal[*STUDIES] = Field(  # type: ignore[valid-type]
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

    def options(self, table: type[T]) -> T:
        """The table of a study's options.

        Parameters
        ----------
        table : type
            Its class.
        """
        # by its class, as a study knows its own table but not the name of it
        return next(value for _, value in self if isinstance(value, table))

    @property
    def starts_from_network(self) -> bool:
        """Whether w starts where the file of the network has it."""
        weights = self.weights
        own = weights.file is None and weights.seed is None
        return own and KINDS[self.network.kind].starts

    def given_seeds(self) -> dict[str, int]:
        """The seeds that do not come from run.seed, but are given by keys of their own; without
        that of the data.

        Returns
        -------
        dict of str to int
            Of weights.seed, direction.seed and chip.die those that are given; and the one of
            `STARTS` that w is from, `NO_SEED`.
        """
        keys = {
            "weights.seed": self.weights.seed,
            "direction.seed": self.direction.seed,
            "chip.die": self.chip.die,
            "weights.file": None if self.weights.file is None else NO_SEED,
            "network.file": NO_SEED if self.starts_from_network else None,
        }
        return {key: seed for key, seed in keys.items() if seed is not None}

    def seeds_of(self, run: int = 0) -> dict[str, int]:
        """The seeds that a run is made from.

        Parameters
        ----------
        run : int, default 0
            Number of a run of a training. The first has the seeds themselves, so that a run can be
            done alone.

        Returns
        -------
        dict of str to int
            run_seed, start_seed and die, as columns of tables have them.
        """
        return seeds_of(self.run.seed, self.given_seeds(), run)

    def direction_seed(self) -> int:
        """The seed of the random direction v."""
        # hashed where it is given, too: of the same number as weights.seed, v would else be drawn
        # as w is
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

    run_seed: run.seed; given: see `Setup.given_seeds`, the others come from run.seed. run: number
    of a run of a training. The first run has the seeds themselves, so that a run can be done alone.
    """
    # hashed with a purpose: no stream of one seed is a stream of another
    start = given.get("weights.seed", derive_seed(run_seed, "start"))
    die = given.get("chip.die", derive_seed(run_seed, "die"))
    return {
        "run_seed": nth_seed(run_seed, "run", run),
        "start_seed": NO_SEED if given.keys() & STARTS else nth_seed(start, "start", run),
        "die": nth_seed(die, "die", run),
    }
