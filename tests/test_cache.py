"""The cache of compiled code: damage, a full disk or a folder that cannot be written cost time,
never a command.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fast import fast

from perturb import compiled

CODE = """
import sys, warnings
import numpy as np
from perturb.trial.random import philox
from perturb.compiled import CacheWarning
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(philox(*map(np.uint64, range(1, 7))))
print(*(str(warning.message) for warning in told), sep="\\n")
"""


def run(cache, code=CODE):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A cache with the code of one kernel, and what the kernel gives."""
    folder = tmp_path_factory.mktemp("cache")
    result, told = run(folder)
    assert told == ""
    assert run(folder) == [result, ""]
    return folder, result


def entries(folder):
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    fast(["cut", "a bit in the code", "empty", "a bit", "other bytes"], "a bit in the code"),
)
def test_a_damaged_cache_is_compiled_anew_and_mended(cached, tmp_path, damage):
    folder, result = cached
    shutil.copytree(folder, tmp_path / "cache")
    for path in entries(tmp_path / "cache"):
        content = bytearray(path.read_bytes())
        if damage == "cut":
            content = content[: len(content) // 2]
        elif damage == "empty":
            content = bytearray()
        elif damage == "other bytes":
            content = bytearray(np.random.Generator(np.random.Philox(0)).bytes(len(content)))
        else:
            content[len(content) // 3 if damage == "a bit" else content.index(b"ELF")] ^= 4
        path.write_bytes(content)
    again, told = run(tmp_path / "cache")
    assert again == result
    assert "is damaged: compiled anew; the cache is " in told and str(tmp_path / "cache") in told
    assert run(tmp_path / "cache") == [result, ""]


@pytest.mark.slow
def test_another_source_or_version_is_compiled_anew_without_a_word(cached, tmp_path):
    folder, result = cached
    shutil.copytree(folder, tmp_path / "cache")
    code = "import numba; numba.__version__ = '0.0.0'\n" + CODE
    assert run(tmp_path / "cache", code) == [result, ""]


class Gone:
    """Compiled code that refers to what later versions do not have."""

    def __reduce__(self):
        return getattr, (np, "gone")


def test_an_entry_of_another_version_is_not_even_unpickled(tmp_path):
    before, now = (compiled._Entries(str(tmp_path), "kernel", stamp) for stamp in ("before", "now"))
    before.save("key", Gone())
    assert now.load("key") is None
    now.save("key", "code")
    assert now.load("key") == "code" and before.load("key") is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_once_and_costs_nothing_but_time(cached, tmp_path):
    full = CODE.replace(
        "import numpy as np",
        "import builtins, numpy as np\nopened = builtins.open\nbuiltins.open = lambda path,"
        " mode='r', *more: opened(*('/dev/full', 'wb') if mode == 'xb' else (path, mode), *more)",
    )
    again, told = run(tmp_path, full)
    assert (
        again == cached[1] and "cannot be written (No space left on device): compiled anew" in told
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_without_a_folder_to_write_to_it_says_where_one_is_looked_for(cached, tmp_path):
    nowhere = CODE.replace(
        "import numpy as np",
        "import numpy as np, tempfile, os\n"
        "def refused(*arguments, **options): raise PermissionError(13, 'Permission denied')\n"
        "tempfile.TemporaryFile = os.makedirs = refused",
    )
    heard = "warnings.showwarning = lambda *said: print(said[0])\nfrom perturb.trial.random"
    heard = "warnings.showwarning = lambda *said: print(said[0])\nfrom perturb.trial.random"
    nowhere = nowhere.replace("from perturb.trial.random", heard)
    said, result, _ = run(tmp_path, nowhere)
    assert result == cached[1]
    assert (
        said.startswith("compiled code cannot be cached, so that every command compiles it again: ")
        and "NUMBA_CACHE_DIR" in said
    )


@pytest.mark.slow
def test_a_command_says_it_in_one_line(tmp_path):
    words = [sys.executable, "-m", "sims.cli", "run", "xor", "--set", "estimation.trials=16"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for said in (0, 1):
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
        )
        # beside lines of progress, as compiling takes more than ten seconds
        lines = [line for line in done.stderr.splitlines() if line.startswith("perturb: ")]
        assert done.returncode == 0 and len(lines) == said, done.stderr
        for path in entries(tmp_path / "cache"):
            path.write_bytes(b"not a cache")
    assert "in the cache of compiled code is damaged: compiled anew" in lines[0]


def test_a_kernel_is_compiled_once_for_all_numbers_that_are_written_into_calls(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))

    @compiled.compiled()
    def power(base, exponent):
        return base**exponent

    @compiled.compiled()
    def cube_and_square(base):
        return power(base, 3) + power(base, 2)

    assert cube_and_square(5) == 150
    assert len(power.signatures) == 1
