"""The keys of [data], whatever data set each is of."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SkipValidation, model_validator

from hardware.config import Name, NonNegative, Positive, Seed, Table
from perturb.errors import InputError, shown

FileName = Annotated[str, Field(min_length=1, max_length=4096)]
# one of them may be given without a list
FileNames = Annotated[
    tuple[FileName, ...],
    Field(strict=False, min_length=1, max_length=100),
    BeforeValidator(lambda paths: (paths,) if isinstance(paths, str) else paths),
]


class Keys(Table):
    """Every key that a data set may have."""

    name: Name = Field(description="which patterns: see perturb list datasets")
    samples: int | None = Field(
        None,
        ge=1,
        le=10**8,
        description="patterns to learn from; absent = all that are not held back",
        examples=[64],
    )
    test: int = Field(
        0, ge=0, le=10**8, description="further patterns, held back to test with; 0 = none"
    )
    validation: int = Field(
        0,
        ge=0,
        le=10**8,
        description="further patterns yet, held back for training.patience to judge by; 0 = none",
    )
    balanced: bool = Field(
        False,
        description=(
            "whether there are as many of each class to learn from as can be; false = classes in"
            " proportion"
        ),
    )
    noise: NonNegative = Field(
        0.0,
        description=(
            "letters: probability that a pixel is flipped; teacher: standard deviation of label"
            " noise; spirals: of the points"
        ),
    )
    # all 2^bits patterns are made
    bits: int | None = Field(None, ge=1, le=16, description="number of inputs")
    turns: Positive | None = Field(None, le=100, description="turns of each")
    amplitude: Positive | None = Field(
        None, le=1e6, description="a, where outputs -a or +a are wanted"
    )
    # side^2 visible units, whose states a machine enumerates: of 5^2 there are too many
    side: int | None = Field(None, ge=2, le=4, description="pixels along a side")
    shuffled: bool = Field(
        False,
        description=(
            "whether all signals have their positions permuted, alike, which takes away what is"
            " local in them"
        ),
    )
    file: FileName | None = Field(
        None, description="path of a .csv, .parquet or .npz file", examples=["mine.csv"]
    )
    images: FileName | None = Field(
        None,
        description="path of an IDX file of images, as it is or packed by gzip",
        examples=["train-images-idx3-ubyte.gz"],
    )
    labels: FileName | None = Field(
        None,
        description="path of the IDX file of their labels",
        examples=["train-labels-idx1-ubyte.gz"],
    )
    test_images: FileName | None = Field(
        None,
        description=(
            "path of another IDX file of images, of which data.test are held back; absent = held"
            " back are some of data.images"
        ),
        examples=["t10k-images-idx3-ubyte.gz"],
    )
    test_labels: FileName | None = Field(
        None,
        description="path of the IDX file of their labels",
        examples=["t10k-labels-idx1-ubyte.gz"],
    )
    batches: FileNames | None = Field(
        None,
        description="paths of binary batches of CIFAR-10, as they are or packed by gzip",
        examples=[["data_batch_1.bin", "data_batch_2.bin"]],
    )
    test_batches: FileNames | None = Field(
        None,
        description=(
            "paths of further ones, of which data.test patterns are held back; absent = held back"
            " are some of data.batches"
        ),
        examples=[["test_batch.bin"]],
    )
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description=(
            "of the contents of the files, in hexadecimal, that others are refused; absent = not"
            " checked, but stored"
        ),
        examples=["0"],
    )
    # not judged by pydantic, whose message would be of each type that it may be: `_read` does that
    targets: Annotated[str | tuple[str, ...] | None, SkipValidation] = Field(
        None,
        description=(
            "name of a column of classes, or a list of columns of numbers, [] for none; absent = as"
            " in the file"
        ),
        examples=["class"],
    )
    ignore: Annotated[tuple[str, ...], Field(strict=False, max_length=10_000)] = Field(
        (),
        description=(
            'columns that are neither inputs nor targets, such as a number of the row; "" is a'
            " column without a name"
        ),
    )
    class_weight: Annotated[str | dict[str, float] | None, SkipValidation] = Field(
        None,
        description=(
            "weights c of the classes in E, which is sum c_s E_s / sum c_s over patterns: a table"
            " of numbers, 1 for a class that it leaves out, or balanced, n/(C n_c) of each of C"
            " classes for its n_c of the n patterns to learn from; of cross_entropy alone; absent ="
            " all alike"
        ),
        examples=["balanced"],
    )
    standardise: bool = Field(
        False,
        description=(
            "whether inputs, and targets that are numbers, get mean 0 and standard deviation 1"
            " over the patterns to learn from"
        ),
    )
    seed: Seed = Field(
        0, description="of the draw of patterns, of what is random in them and of noise"
    )

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        """Targets are a string or a tuple of strings, weights of classes a word or numbers."""
        if not isinstance(data, dict):
            return data
        targets = data.get("targets")
        if isinstance(targets, (list, tuple)) and all(
            isinstance(column, str) for column in targets
        ):
            data = {**data, "targets": tuple(targets)}
        elif not isinstance(targets, str | None):
            raise InputError(
                f'targets = {shown(targets)} must be a string in quotes, such as "class", or a list'
                ' of them, such as ["y"]'
            )
        if data.get("class_weight") is not None:
            data = {**data, "class_weight": _class_weight(data["class_weight"])}
        return data


def _class_weight(value: Any) -> str | dict[str, float]:
    """What data.class_weight may be, or InputError."""
    if value == "balanced":
        return "balanced"
    given = value if isinstance(value, dict) else {}
    numbers = {
        name: float(number)
        for name, number in given.items()
        # True is an integer to Python, and no weight
        if isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number <= 1e9
    }
    if not given or len(numbers) < len(given):
        raise InputError(
            f'class_weight = {shown(value)} must be "balanced" or a table of numbers > 0, at most'
            " 1e9, by the names of classes, such as { fault = 5.0 }"
        )
    return numbers
