"""The parameters of a chip's arrays and neurons."""

from typing import Annotated

from pydantic import Field

from hardware.config import NonNegative, Positive, Table
from hardware.marks import HALVED, IMPERFECTION, LESS_IS_WORSE, Bits, Mismatch, Nanoseconds, Share

Lines = Annotated[int, Field(ge=0, le=10**6)]


class ArrayParams(Table):
    """Of an mlp or of layers, whose weights stand in arrays: inputs drive rows, and sums leave by
    columns. Of other networks settle_ns and conversion_ns only.
    """

    settle_ns: Nanoseconds = Field(
        500,
        description=(
            "ns until one layer has settled for one pattern, of a convolution for one position; 0 ="
            " at once"
        ),
        json_schema_extra=HALVED,
    )
    conversion_ns: Nanoseconds = Field(
        0,
        description="ns to convert rows and columns each time an array settles; 0 = in settle_ns",
        json_schema_extra=HALVED,
    )
    # how matrices are cut: head of `hardware.arrays`
    rows: Lines = Field(
        0,
        description=(
            "most rows of an array, one for each input and one for the bias: a larger layer has"
            " several, whose sums are converted and then added; 0 = any number"
        ),
        json_schema_extra=IMPERFECTION | LESS_IS_WORSE,
    )
    columns: Lines = Field(
        0,
        description="most columns of an array, one for each output; 0 = any number",
        json_schema_extra=IMPERFECTION | {"worse": "both"},
    )
    # where the converters stand in the sum: head of `hardware.parts.crossbar`
    input_bits: Bits = Field(
        0,
        description="bits of the converters that drive the rows; 0 = exact",
        json_schema_extra=IMPERFECTION,
    )
    input_range: Positive = Field(
        1.0,
        description=(
            "in units of activity: they cover -range..range and clip; unused if input_bits = 0"
        ),
    )
    output_bits: Bits = Field(
        0,
        description="bits of the converters of the columns, of every array; 0 = exact",
        json_schema_extra=IMPERFECTION,
    )
    output_range: Positive = Field(
        4.0,
        description=(
            "in units of net input: they cover -range..range and clip; unused if output_bits = 0"
        ),
    )
    output_noise: NonNegative = Field(
        0.0,
        description=(
            "in units of net input: standard deviation of every column of every array, each time it"
            " settles; 0 = none"
        ),
        json_schema_extra=IMPERFECTION | HALVED,
    )
    # rho of the formula there
    wire_resistance: Share = Field(
        0.0,
        description=(
            "resistance of the wire from cell to cell, relative to that of a cell with |w| = 1; 0 ="
            " no drop along the wires"
        ),
        json_schema_extra=IMPERFECTION,
    )


class NeuronParams(Table):
    """Of the neurons of an mlp, of layers, a dag or a recurrent network; not of a boltzmann
    machine.
    """

    # see `parts.walk.by_neuron`: which entries of an activity are one neuron
    per_position: bool = Field(
        False,
        description=(
            "whether each position of a convolution has neurons of its own; false = one neuron for"
            " each channel serves one position after another"
        ),
    )
    gain_mismatch: Mismatch = Field(
        0.0,
        description=(
            "standard deviation over neurons of the gain of the net input, 0.05 = 5 %; 0 = none"
        ),
        json_schema_extra=IMPERFECTION,
    )
    offset_mismatch: NonNegative = Field(
        0.0,
        description="in units of net input: standard deviation over neurons of an offset; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    noise: NonNegative = Field(
        0.0,
        description=(
            "in units of activity: standard deviation, at every evaluation, of neurons that"
            " feed others; 0 = none"
        ),
        json_schema_extra=IMPERFECTION,
    )
    saturation: NonNegative = Field(
        0.0,
        description=(
            "in units of activity: neurons that feed others are clipped to +-this; 0 = never"
        ),
        json_schema_extra=IMPERFECTION | LESS_IS_WORSE,
    )
    crosstalk: Share = Field(
        0.0,
        description=(
            "share of its activity that reaches each neighbouring neuron of its layer; 0 = none"
        ),
        json_schema_extra=IMPERFECTION,
    )
