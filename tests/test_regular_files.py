"""Only regular files of bounded size are read: a pipe is not waited for, and a device without an
end is not read.
"""

import os
import re
import signal

import pytest

from hardware import load_chip
from perturb import InputError, Statistics
from sims.data.files import read_patterns
from sims.data.images import read_cifar10, read_idx
from sims.device_fit.pulses import read_pulses
from sims.experiment.loading import load_experiment


@pytest.fixture(autouse=True)
def ends():
    """A reader that waits ends in TimeoutError."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


NO_FILE = "cannot be read (not a regular file, but a pipe or a device)"
READERS = {
    "x.toml": (load_experiment, NO_FILE),
    "chip.toml": (load_chip, NO_FILE),
    "x.csv": (read_pulses, NO_FILE),
    "data.csv": (lambda path: read_patterns(path, "kind"), NO_FILE),
    "images.gz": (lambda path: read_idx(path, path, None), NO_FILE),
    "data_batch_1.bin": (lambda path: read_cifar10([path], []), NO_FILE),
    "x.npz": (
        Statistics.load,
        "cannot be read as statistics (not a regular file, but a pipe or a device)",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device_without_end(name, tmp_path):
    read, message = READERS[name]
    path = tmp_path / name
    os.mkfifo(path)  # nobody writes to it
    for _ in ("pipe", "device"):
        with pytest.raises(InputError, match=re.escape(f"{name}: {message}")) as caught:
            read(str(path))
        assert "\n" not in str(caught.value)
        path.unlink()
        path.symlink_to("/dev/zero")
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="(no such file|cannot be read|a directory)") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_a_table_of_pulses_has_a_bounded_size_and_may_be_a_link(tmp_path):
    with open(tmp_path / "large.csv", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        InputError, match=r"cannot be read \(1099511627776 bytes, more than the \d+ that are read\)"
    ):
        read_pulses(tmp_path / "large.csv")
    rows = "".join(
        f"{i},{1 if i < 25 else -1},{0.01 * (i if i < 25 else 46 - i)}\n" for i in range(50)
    )
    (tmp_path / "good.csv").write_text("pulse,direction,weight\n" + rows)
    (tmp_path / "other.csv").symlink_to("good.csv")
    assert read_pulses(tmp_path / "other.csv").y.size == 50
