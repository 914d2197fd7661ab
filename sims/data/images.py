"""Images of published sets, from the files that they are published in: IDX (MNIST, Fashion-MNIST,
EMNIST) and the binary batches of CIFAR-10, each as it is or packed by gzip. None is downloaded.

Pixels stay the bytes that they are, 0 to 255, until patterns have been drawn.
"""

import gzip
import math
from collections.abc import Sequence
from functools import partial
from typing import IO, NamedTuple, cast

import numpy as np

from perturb.errors import InputError, cut
from sims.data.files import called, read_files

Array = np.ndarray

GZIP = b"\x1f\x8b"  # what its files begin with
UBYTE = 8  # the type of bytes in IDX
MAX_BYTES = 1 << 31  # unpacked
# of data_batch_1.bin to data_batch_5.bin and test_batch.bin
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue pixels, row by row


class Images(NamedTuple):
    """Pixels (images, numbers), bytes, flat in C order; targets (images, classes); and how many of
    the last rows are published to test with.
    """

    x: Array
    target: Array
    tests: int


def read_idx(images: str, labels: str, tests: tuple[str, str] | None, sha256: str = "") -> Images:
    """The images of IDX files with their labels, one output for each label that occurs.

    tests: paths of images and labels to test with; sha256: of the contents of all files, one after
    another, "" takes any. InputError for a mistake in one of them, which names the key and the
    file.
    """
    keys = ["data.images", "data.labels", "data.test_images", "data.test_labels"]
    paths = [images, labels, *(tests or ())]
    readers = [partial(_idx, images=True), partial(_idx, images=False)] * 2
    read = read_files(list(zip(keys, paths, readers, strict=False)), sha256, "IDX")
    files = [called(*file) for file in zip(keys, paths, strict=False)]
    for i in range(0, len(read), 2):
        if len(read[i]) != len(read[i + 1]):
            raise InputError(
                f"{files[i]}: holds {len(read[i])} images, but {files[i + 1]} holds"
                f" {len(read[i + 1])} labels: give two files of one set"
            )
        if read[i].shape[1:] != read[0].shape[1:]:
            raise InputError(
                f"{files[i]}: holds images of {_size(read[i].shape[1:])} pixels, but {files[0]} of"
                f" {_size(read[0].shape[1:])}: give files of one set"
            )
    names = np.unique(read[1])
    if len(names) < 2:
        raise InputError(f"{files[1]}: has the label {names[0]} alone: give one of several classes")
    strange = np.setdiff1d(read[-1], names)
    if strange.size:
        raise InputError(
            f"{files[-1]}: has the label {strange[0]}, which {files[1]} lacks: give files of one"
            " set"
        )
    x = [part.reshape(len(part), -1) for part in read[::2]]
    # names are sorted
    which = np.searchsorted(names, np.concatenate(read[1::2]))
    return Images(np.concatenate(x), np.eye(len(names))[which], len(read[2]) if tests else 0)


def label_names(labels: str) -> tuple[str, ...]:
    """The labels that occur in an IDX file, in the order of the outputs."""
    files = [("data.labels", labels, partial(_idx, images=False))]
    return tuple(str(name) for name in np.unique(read_files(files, "", "IDX")[0]))


def read_cifar10(batches: Sequence[str], tests: Sequence[str], sha256: str = "") -> Images:
    """The images of binary batches of CIFAR-10, one file after another; tests: paths of those to
    test with; sha256: as of `read_idx`. InputError for a mistake in one of them.
    """
    keys = ["data.batches"] * len(batches) + ["data.test_batches"] * len(tests)
    files = [(key, path, _batch) for key, path in zip(keys, [*batches, *tests], strict=True)]
    read = read_files(files, sha256, "CIFAR-10")
    records = np.concatenate(read)
    tested = sum(len(part) for part in read[len(batches) :])
    return Images(records[:, 1:], np.eye(len(CIFAR10))[records[:, 0]], tested)


def _idx(stream: IO[bytes], images: bool) -> Array:
    """The array of an IDX file: four bytes that say its type and number of dimensions, these as
    four bytes each, the highest first, and the numbers in C order.
    """
    what = "images" if images else "labels"
    magic = f"00 00 08 {3 if images else 1:02x}"
    stream = _unpacked(stream)
    head = stream.read(4)
    if len(head) < 4 or head[:2] != bytes(2) or not head[3]:
        raise InputError(
            f"begins with {head.hex(' ') or 'nothing'}, but an IDX file of {what} with {magic}, or"
            f" packed with {GZIP.hex(' ')}: give such a file"
        )
    of, dimensions = head[2:]
    if (dimensions == 1) is images:
        raise InputError(
            f"begins with {head.hex(' ')}, which is an IDX file of"
            f" {'labels' if images else 'images'}: give that of {what}, which begins with {magic}"
        )
    if of != UBYTE:
        raise InputError(
            f"begins with {head.hex(' ')}: its numbers are of type {of:02x}, but {what} must be"
            f' bytes, {UBYTE:02x}: convert it, or give an NPZ file by data.name = "file"'
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise InputError("ends within its header: it is damaged, get it anew")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    wanted = math.prod(shape)
    if not 0 < wanted <= MAX_BYTES:
        raise InputError(
            f"holds {_size(shape)} bytes by its header, but must hold 1 to {MAX_BYTES}: check the"
            " file"
        )
    content = _content(stream, wanted)
    if len(content) != wanted:
        there = "more than" if len(content) > wanted else f"only {len(content)} of"
        raise InputError(
            f"holds {there} the {wanted} bytes that its header says ({_size(shape)}): it is"
            " damaged, get it anew"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _batch(stream: IO[bytes]) -> Array:
    """The records of a binary batch of CIFAR-10, (images, 3073)."""
    content = _content(_unpacked(stream), MAX_BYTES)
    count, rest = divmod(len(content), RECORD)
    if not count or rest or len(content) > MAX_BYTES:
        raise InputError(
            f"holds {len(content)} bytes, but must hold 1 or more records of {RECORD}, a label and"
            " 3 x 32 x 32 pixels: give a whole batch of the binary version of CIFAR-10"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, RECORD)
    wrong = records[:, 0] >= len(CIFAR10)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"record {first + 1}: its label is {records[first, 0]}, but must be 0 to"
            f" {len(CIFAR10) - 1}: give a batch of the binary version of CIFAR-10"
        )
    return records


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    # by what it holds: browsers unpack files and leave their names
    packed = stream.read(len(GZIP)) == GZIP
    stream.seek(0)
    return cast(IO[bytes], gzip.open(stream)) if packed else stream


def _content(stream: IO[bytes], most: int) -> bytearray:
    """What is left of a file; if that is more than `most`, somewhat more than `most` of it: what is
    packed can be a thousand times as large as its file.
    """
    content = bytearray()
    while len(content) <= most and (part := stream.read(1 << 20)):
        content += part
    return content


def _size(shape: Sequence[int]) -> str:
    return cut(" x ".join(map(str, shape)), 60)
