"""One file of a header and arrays (NumPy's npz), whole or not at all; damaged ones end in one
line.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from perturb.errors import InputError
from perturb.files import UNREADABLE, open_regular, reason, whole

Array = np.ndarray
# what damaged bytes make of zip, npy and json
DAMAGED = (
    *UNREADABLE,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write(path: Path, what: str, header: Mapping[str, object], arrays: Mapping[str, Array]) -> None:
    """Write a header that JSON can hold and arrays; InputError where that is not possible. what:
    their name in messages.
    """
    content = io.BytesIO()
    # the header as bytes: no pickle is written, and none is ever read
    entries = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}
    np.savez(content, **entries)  # type: ignore[arg-type]  # of allow_pickle, which stays as it is
    try:
        with whole(path) as file:
            file.write(content.getvalue())
    except OSError as error:
        raise InputError(
            f"{path}: the {what} could not be written ({error.strerror or error}): choose another"
        ) from None


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """InputError, in one line with the file and a remedy, for whatever its contents make of a
    block that reads it.
    """
    try:
        yield
    except InputError as error:
        raise (
            error if str(error).startswith(f"{path}: ") else InputError(f"{path}: {error}")
        ) from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: {remedy}") from None
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read as {what} ({reason(error)}): {remedy}") from None


def read(path: Path) -> tuple[dict, dict[str, Array]]:
    """Header and arrays of what `write` wrote; any of DAMAGED for another file."""
    with open_regular(path) as file:
        content = file.read()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # the checksums of all entries, before any of them is used
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop("header").tobytes()), arrays
