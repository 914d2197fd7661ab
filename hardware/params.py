"""The parameters of a chip, from its parts' tables and TOML files.

`chips/ideal.toml` is written from them (`hardware.templates`).
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from hardware.array_tables import ArrayParams, NeuronParams
from hardware.chip_tables import (
    BusParams,
    ClockParams,
    EnergyParams,
    ErrorUnitParams,
    FaultParams,
    PerturbationParams,
    SummingLineParams,
    SynapseParams,
    WeightParams,
)
from hardware.config import Name, Seed, Table, of_a_file, read_named, toml_names, validated
from hardware.device_laws import LAWS
from hardware.device_params import device_names
from perturb.errors import InputError
from perturb.seeds import nth_seed


class ChipParams(Table):
    """A chip: the parameters of all its parts, immutable; what is left out is as in the ideal chip.

    Attributes
    ----------
    name, description : str
        What reports call it, and one line; a file that leaves them out is called as it is, and
        says nothing of itself.
    synapses_per_tile : int
        Synapses that share wires; 1 = every synapse by itself.
    die : int or None
        Seed of all that differs between dies of one design; None = 0.
    perturbation, weights, array, neuron, error_unit, summing_line, bus, synapse : Table
        The parts, tables of `hardware.chip_tables` and `array_tables`, where every key has its unit
        and meaning.
    clock, faults, energy : Table
        Times given to a step, what fails during a run, and what each step costs.

    Raises
    ------
    InputError
        By `load_chip`, in one line for a file that cannot be used.

    Notes
    -----
    The defaults are those of chips/ideal.toml: no noise, mismatch or rounding; times and energies
    are nominal and assumed. Times are integers in ns, energies in J, powers in W.

    Examples
    --------
    >>> import hardware
    >>> chip = hardware.ChipParams(synapses_per_tile=1)
    >>> chip.bus.latency_ns, chip.of_run(1).die == chip.of_run(0).die
    (100, False)
    """

    name: Name = Field("ideal", description="what reports call the chip")
    description: str = Field(
        "no noise, mismatch or rounding; times and energies nominal and assumed",
        description="one line",
    )
    synapses_per_tile: int = Field(
        256, ge=1, le=10**6, description="synapses that share wires; 1 = every synapse by itself"
    )
    die: Seed | None = Field(
        None,
        description=(
            "which of the dies of this design: seed of all that differs between them; absent = 0,"
            " in an experiment derived from run.seed"
        ),
        examples=[3],
    )
    perturbation: PerturbationParams = PerturbationParams()
    weights: WeightParams = WeightParams()
    array: ArrayParams = ArrayParams()
    neuron: NeuronParams = NeuronParams()
    error_unit: ErrorUnitParams = ErrorUnitParams()
    summing_line: SummingLineParams = SummingLineParams()
    bus: BusParams = BusParams()
    synapse: SynapseParams = SynapseParams()
    clock: ClockParams = ClockParams()
    faults: FaultParams = FaultParams()
    energy: EnergyParams = EnergyParams()

    def of_run(self, run: int) -> "ChipParams":
        """The same design on another die.

        Parameters
        ----------
        run : int
            0 for `die` itself; each other number has a seed derived from it.

        Returns
        -------
        ChipParams
        """
        # run 0 is on the die itself, so that it can be done alone
        return self.model_copy(update={"die": nth_seed(self.die or 0, "die", run)})

    def of_runs(self, runs: int, dies: Sequence[int] | None = None) -> list["ChipParams"]:
        """The same design on the die of every run.

        Parameters
        ----------
        runs : int
        dies : sequence of int, optional
            Numbers for `of_run`; left out, each run has its own.

        Returns
        -------
        list of ChipParams
        """
        return [self.of_run(die) for die in (range(runs) if dies is None else dies)]


@cache
def marked(mark: str) -> dict[str, Any]:
    """The dotted keys with a mark, in the order of the parameters, and what it says of each."""
    found = {}
    for part, table in ChipParams.model_fields.items():
        # keys of the chip as a whole, such as its die, have no marks
        if isinstance(table.default, Table):
            for name, field in type(table.default).model_fields.items():
                # a mark may stand for a value, such as which engine knows of it
                if isinstance(field.json_schema_extra, dict) and mark in field.json_schema_extra:
                    found[f"{part}.{name}"] = field.json_schema_extra[mark]
    return found


def value_of(params: ChipParams, key: str) -> Any:
    """The value of a dotted key of a part."""
    part, _, name = key.partition(".")
    return getattr(getattr(params, part), name)


def with_value(params: ChipParams, key: str, value: object) -> ChipParams:
    """The chip with another value of a dotted key of a part."""
    part, _, name = key.partition(".")
    return params.model_copy(update={part: getattr(params, part).model_copy(update={name: value})})


def differing(params: ChipParams, mark: str) -> dict[str, Any]:
    """As `marked`, those keys in which a chip is not as the ideal one."""
    ideal = ChipParams()
    return {
        key: said
        for key, said in marked(mark).items()
        if value_of(params, key) != value_of(ideal, key)
    }


def imperfections(params: ChipParams) -> list[str]:
    """The keys that make a chip less than ideal, besides its latencies."""
    return list(differing(params, "imperfection"))


def engines(params: ChipParams) -> set[str]:
    """What has to know of all that is not ideal: see the marks."""
    return set(differing(params, "engine").values())


@cache
def chip_names() -> list[str]:
    """The chips that come with the package.

    Returns
    -------
    list of str
        Names for `load_chip`, sorted.

    Examples
    --------
    >>> import hardware
    >>> hardware.chip_names()[:3]
    ['alspector1991', 'cauwenberghs1996', 'ideal']
    """
    return toml_names(files("hardware") / "chips")


def load_chip(
    name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] = "."
) -> ChipParams:
    """The parameters of a chip, from its TOML file.

    Parameters
    ----------
    name_or_path : str or path
        One of `chip_names`, or the path of a file; keys that it leaves out are as in the ideal
        chip.
    folder : str or path
        What a relative path starts from.

    Returns
    -------
    ChipParams

    Raises
    ------
    InputError
        If there is no such chip or file, or the file has an unknown key or a value that does not
        fit: one line that names file, key, value and condition.

    Examples
    --------
    >>> import hardware
    >>> hardware.load_chip("mgd").name
    'mgd'
    """
    given = os.fspath(name_or_path)
    # files of users are read anew each time: they may change while a session lasts
    return _shipped(given) if given in chip_names() else _read(given, folder)


@cache
def _shipped(name: str) -> ChipParams:
    return _read(name, ".")  # once: every point of a sweep asks for it


def _read(name_or_path: str, folder: str | os.PathLike[str]) -> ChipParams:
    data, source, place = read_named(
        "chip", name_or_path, files("hardware") / "chips", chip_names(), folder
    )
    data = of_a_file(data, name_or_path)
    # a device file has a model, and a chip file has none
    if data.get("model") in LAWS:
        raise InputError(
            f"{source}: is the file of a device, not of a chip: chip.weights.device, or perturb new"
            " --device, takes it"
        )
    return validated(ChipParams, with_device(data, source, place), source)


def with_device(chip: dict[str, Any], source: str, folder: Path = Path()) -> dict[str, Any]:
    """The contents of a chip file with weights.device, where it is the name of a device or the path
    of a file relative to `folder`, replaced by what that file says.
    """
    weights = chip.get("weights")
    if not (isinstance(weights, dict) and isinstance(weights.get("device"), str)):
        return chip
    try:
        name_or_path = weights["device"]
        data, _, _ = read_named(
            "device", name_or_path, files("hardware") / "devices", device_names(), folder
        )
    except InputError as error:
        raise InputError(f"{source}: weights.device: {error}") from None
    # before validation, for which a device is a table
    return {**chip, "weights": {**weights, "device": of_a_file(data, name_or_path)}}
