"""Files that appear whole or not at all."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from perturb.errors import InputError

# what damaged bytes make of readers of tables and texts, and of whoever takes what they give for granted
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, MemoryError, RuntimeError,
)  # fmt: skip


def reason(error: BaseException) -> str:
    """Why a file cannot be read: the first line of what a library says, in printable signs."""
    said = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [type(error).__name__]
    return "".join(sign if sign.isprintable() else "?" for sign in said[0][:100])


def digest(content: bytes) -> str:
    """SHA-256 of a file, whatever its line ends are."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, beside `path`; on the disk and in its place when the block ends, gone if it fails.

    Raises
    ------
    OSError
        Where nothing can be written.

    Notes
    -----
    It has the permissions that any new file of the user gets (umask), as `open` gives them and `tempfile` does not.
    """
    part = path.parent / f".{secrets.token_hex(8)}.tmp"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """The whole file or none, on the disk when this returns. InputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(content)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}): free some space, and the same command goes on"
        ) from None
