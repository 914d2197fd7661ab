"""The table [network]: the kinds of network, and the keys that each of them takes."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

import perturb
from hardware.config import Among, Name, Number, Positive, Table
from perturb.errors import InputError, shown
from perturb.networks import kinds, network
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS
from perturb.networks.recurrent import SOLVERS

MAX_WEIGHTS = 10_000_000

Units = Annotated[int, Field(ge=1, le=MAX_WEIGHTS)]

State = Annotated[int, Field(ge=-1, le=1)]
Unit = Annotated[int, Field(ge=0, le=MAX_WEIGHTS)]
LayerText = Annotated[str, Field(min_length=1, max_length=10_000)]
Listed = Field(strict=False, min_length=1, max_length=MAX_WEIGHTS)


Activation = Annotated[Name, Among(ACTIVATIONS)]


# what the arguments of a network are called where its key has another name
ARGUMENTS = {
    "units": "n_units",
    "visible": "n_visible",
    "hidden": "n_hidden",
    "input": "input_shape",
}

LAYERS_ARE = {
    int: 'give numbers of units, or set kind = "layers"',
    str: 'give a text, such as "linear 10"',
}


class Kind(NamedTuple):
    """A kind of network in experiment files. make: its class. keys: those of [network] that it
    takes, and their values if left out; None must be given, ... may be absent. n_weights, states,
    starts: see `perturb.networks.kinds`.
    """

    make: Callable[..., network.Network]
    keys: dict[str, Any]
    n_weights: Callable[..., int]
    states: bool
    starts: bool

    def arguments(self, table: "Network") -> dict[str, Any]:
        """What a table says to the class."""
        given = {key: getattr(table, key) for key in self.keys}
        return {ARGUMENTS.get(key, key): value for key, value in given.items() if value is not None}


def _in_files(kind: kinds.Kind) -> Kind:
    """Its keys are the arguments of its class, with their defaults: those that are a field of
    [network], so that a matrix (`feedback`) is not one.
    """
    # every kind is a public class of `perturb` under that name
    make = getattr(perturb, kind.name)
    named = {argument: key for key, argument in ARGUMENTS.items()}
    keys: dict[str, Any] = {}
    for argument, parameter in inspect.signature(make).parameters.items():
        key = named.get(argument, argument)
        if key not in Network.model_fields:
            continue
        if parameter.default is parameter.empty or argument in kind.needed:
            keys[key] = None
        else:
            keys[key] = ... if parameter.default is None else parameter.default
    if {"units", "activation"} <= keys.keys():  # units have numbers: a file may name single ones
        keys["activations"] = {}
    return Kind(make, keys, kind.n_weights, kind.states, kind.starts)


class Network(Table):
    """What learns; which keys there are depends on its kind."""

    kind: Literal[*kinds.KINDS] = Field(  # type: ignore[valid-type]
        "mlp", description="what kind of network"
    )
    layers: (
        Annotated[tuple[Units | LayerText, ...], Field(strict=False, min_length=1, max_length=1000)]
        | None
    ) = Field(
        None,
        description=(
            'units per layer, inputs first; of kind = "layers" texts such as "conv2d 8 3"'
        ),
        examples=[[64, 32, 10]],
    )
    input: Annotated[tuple[Units, ...], Field(strict=False, min_length=1, max_length=10)] | None = (
        Field(
            None,
            description="shape of a pattern, channels first: [1, 28, 28] for an image",
            examples=[[1, 8, 8]],
        )
    )
    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None,
        description="path of an ONNX file, with the weights that it starts from",
        examples=["net.onnx"],
    )
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description=(
            "of that file's contents, in hexadecimal, that others are refused; absent = not"
            " checked, but stored"
        ),
        examples=["0"],
    )
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
        kind = data.get("kind", "mlp") if isinstance(data, dict) else None
        # an unknown kind is the schema's to report
        if not (isinstance(kind, str) and kind in KINDS):
            return data
        keys = KINDS[kind].keys.items()
        # what the file says comes last
        return {key: value for key, value in keys if value not in (..., None)} | data

    @model_validator(mode="after")
    def _check(self) -> "Network":
        kind = KINDS[self.kind]
        # `_defaults` gave values only to keys of the kind: any other is the file's
        for key, value in self.model_dump(exclude_none=True).items():
            if key != "kind" and key not in kind.keys:
                raise InputError(
                    f'{key} = {shown(value)} does not go with kind = "{self.kind}": remove it'
                )
        for key, default in kind.keys.items():
            if default is None and getattr(self, key) is None:
                raise InputError(
                    f'{key} is missing: kind = "{self.kind}" needs it'
                    f" ({type(self).model_fields[key].description})"
                )
        wanted = str if self.kind == "layers" else int
        for number, layer in enumerate(self.layers or ()):
            if not isinstance(layer, wanted):
                raise InputError(
                    f'layers[{number}] = {shown(layer)} does not go with kind = "{self.kind}":'
                    f" {LAYERS_ARE[wanted]}"
                )
        # before anything is built, which might take more memory than there is
        n = kind.n_weights(**kind.arguments(self))
        if n > MAX_WEIGHTS:
            raise InputError(
                f"{next(iter(kind.keys))}: {n} weights, but at most {MAX_WEIGHTS} are allowed: use"
                " fewer units"
            )
        # the class checks the rest: whether the numbers fit together
        self.build()
        return self

    def build(self) -> network.Network:
        """The network of this table; InputError if its numbers do not fit together."""
        kind = KINDS[self.kind]
        given = kind.arguments(self)
        # in a file single units are named beside the rule; the class takes one for every unit
        if "activations" in given:
            single = given.pop("activations")
            try:
                # TOML has only texts as keys
                own = {int(unit): name for unit, name in single.items()}
            except ValueError:
                raise InputError(
                    f"activations = {shown(single)} must name units by their number, such as {{ 4 ="
                    ' "linear" }'
                ) from None
            units = range(given["n_units"])
            given["activation"] = dict.fromkeys(units, given["activation"]) | own
        return kind.make(**given)


# below the class, as `_in_files` asks which arguments are fields of Network
KINDS = {name: _in_files(kind) for name, kind in kinds.KINDS.items()}
