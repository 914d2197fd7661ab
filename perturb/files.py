"""Files: read if they are files, written whole or not at all."""

import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from perturb.errors import InputError

# what damaged bytes make of readers of tables and texts, and of whoever takes what they give for
# granted
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
)


def reason(error: BaseException) -> str:
    """Why a file cannot be read: the first line of what a library says, in printable signs."""
    said = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [
        type(error).__name__
    ]
    return "".join(sign if sign.isprintable() else "?" for sign in said[0][:100])


def digest(content: bytes) -> str:
    """SHA-256 of a file, whatever its line ends are."""
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def open_regular(path: str | os.PathLike[str], most: int = sys.maxsize) -> BufferedReader:
    """Open a regular file of at most `most` bytes for reading; what else a path may lead to never
    ends, or waits for a writer.

    Raises
    ------
    OSError
        As `open` does (IsADirectoryError for a directory), and for a pipe, a socket, a terminal or
        another device, and for a larger file, with a `strerror` that says so. Nothing has been read
        then, and no pipe has been waited for.

    Notes
    -----
    The file is judged once it is open, so that what is judged is what is read. Its size may be 0 or
    grow (/proc, logs): read at most `most + 1` bytes of it.
    """
    descriptor = os.open(
        # without waiting for the writer of a pipe; bytes as they are, on Windows too
        path,
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0),
    )
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(
                errno.EINVAL, "not a regular file, but a pipe or a device", os.fspath(path)
            )
        if found.st_size > most:
            raise OSError(
                errno.EFBIG,
                f"{found.st_size} bytes, more than the {most} that are read",
                os.fspath(path),
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, beside `path`; on the disk and in its place when the block ends, gone if
    it fails.

    Raises
    ------
    OSError
        Where nothing can be written.

    Notes
    -----
    It has the permissions that any new file of the user gets (umask), as `open` gives them and
    `tempfile` does not.
    """
    # beside it: a file can be renamed into its place within one file system only
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
        # the new name is on the disk only once its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}): free some space, and the same"
            " command goes on"
        ) from None
