"""Compiled kernels, cached on disk between runs: a cache that is damaged, full or cannot be written
costs time, never a command.

Numba's own cache (0.61) trusts what it reads: a damaged file ends in an exception of any kind, or
in the death of the process. Here every entry is one file with a digest, whose name follows from
what it is of.
"""

import hashlib
import os
import pickle
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any
from uuid import uuid4

import numba
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

DIGEST = 32  # bytes at the head of a file, of what follows


class CacheWarning(UserWarning):
    """Compiled code could not be stored, or what was stored is damaged."""


class _Entries:
    """The entries of one function: `load` and `save` as Numba's FunctionCache asks for them."""

    def __init__(self, folder: str, name: str, stamp: Any):
        self._folder, self._name = Path(folder), name
        self._of = f"Numba {numba.__version__} {stamp}"

    def _path(self, key: Any) -> Path:
        return (
            self._folder / f"{self._name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"
        )

    def load(self, key: Any) -> Any:
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return _say(path, f"cannot be read ({error.strerror})")
        # before anything is unpickled
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            return _say(path, "is damaged")
        of, data = pickle.loads(content[DIGEST:])
        # else of an older source or another version of Numba, which could not even be unpickled
        # here
        return pickle.loads(data) if of == self._of else None

    def save(self, key: Any, data: Any) -> None:
        path, content = self._path(key), dumps((self._of, dumps(data)))
        part = path.with_suffix(f".{uuid4().hex}.tmp")
        try:
            with open(part, "xb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            # another process may store the same entry: whichever is last wins, and both are whole
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            _say(path, f"cannot be written ({error.strerror})")

    def flush(self) -> None:
        for path in self._folder.glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)


class _Cache(FunctionCache):
    def __init__(self, function: Any):
        super().__init__(function)
        self._cache_file = _Entries(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """As Numba's, but of the code of the kernels that this one is made around: Numba takes them
        for others in every process.
        """
        around = [cell.cell_contents for cell in self._py_func.__closure__ or ()]
        parts = [self._py_func.__code__, *(getattr(each, "py_func", each) for each in around)]
        written = repr([_written(getattr(part, "__code__", part)) for part in parts])
        return sig, codegen.magic_tuple(), hashlib.sha256(written.encode()).hexdigest()

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # the folder itself
            _say(Path(self._cache_path), f"cannot be written ({error.strerror})")


def _written(part: Any) -> Any:
    """What code does, without where it stands."""
    if not isinstance(part, CodeType):
        return part
    return part.co_code, part.co_names, [_written(each) for each in part.co_consts]


_said: set[str] = set()


def _say(path: Path, what: str) -> None:
    if what not in _said:  # what holds for one file mostly holds for all
        _said.add(what)
        where = f"the cache is {path.parent}, which can be removed at any time"
        _say_once(f"{path.name} in the cache of compiled code {what}: compiled anew; {where}")


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        warnings.warn(text, CacheWarning, stacklevel=2)


def _call_template(of: Any, args: Any, kwargs: Any) -> Any:
    """As Numba's, but a number written into a call of one kernel by another is an argument like
    any other: Numba compiles the kernel called anew for each such number.
    """
    plain = {name: types.unliteral(kind) for name, kind in kwargs.items()}
    return of(tuple(types.unliteral(kind) for kind in args), plain)


def compiled(**options):
    """Numba's njit, cached on disk between runs; in memory only where nothing can be written,
    with a warning.
    """

    def decorate(function):
        dispatcher = njit(**options)(function)
        dispatcher.get_call_template = partial(_call_template, dispatcher.get_call_template)
        try:
            dispatcher._cache = _Cache(function)
        except (RuntimeError, OSError):
            _say_once(
                "compiled code cannot be cached, so that every command compiles it again: let the"
                " environment variable NUMBA_CACHE_DIR name a folder that can be written"
            )
        return dispatcher

    return decorate
