"""Images from IDX files and from binary batches of CIFAR-10: what is read, what is held back, where
the files are found again, and that every mistake in them is one line.
"""

import gzip
import os
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fast import fast
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reports
import sims
from perturb import InputError
from reports import design_comparison
from sims.data.datasets import Data
from sims.data.images import CIFAR10
from sims.data.loading import class_names, load_data, load_parts, load_split
from sims.experiment.loading import experiment_from, load_experiment
from sims.experiment.paths import FILES
from sims.sweeps.plan import plan_sweep

RNG = np.random.Generator(np.random.Philox(0))
IMAGES = RNG.integers(0, 256, (40, 3, 4), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.uint8) % 5
TESTS = RNG.integers(0, 256, (20, 3, 4), dtype=np.uint8)
IDX = {"name": "idx", "images": "images", "labels": "labels"}
WITH_TESTS = {**IDX, "test_images": "tests", "test_labels": "test-labels"}
BATCHES = {"name": "cifar10", "batches": ["one.bin", "two.bin"], "test_batches": ["test.bin"]}
RECORDS = RNG.integers(0, 256, (30, 3073), dtype=np.uint8)
RECORDS[:, 0] = np.arange(30) % 10


def idx(array, of=8):
    """The contents of an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, of, array.ndim]) + sizes + array.tobytes()


def packed(content):
    # without the time
    return gzip.compress(content, mtime=0)


def only_texts(value):
    """Ids of parameters: of contents, what is said of them is enough."""
    return value if isinstance(value, str) else ""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the files lie, and the working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(folder):
    for name, array in (
        ("images", IMAGES),
        ("labels", LABELS),
        ("tests", TESTS),
        ("test-labels", LABELS[:20]),
    ):
        (folder / name).write_bytes(idx(array))
    for name, part in (("one", RECORDS[:12]), ("two", RECORDS[12:20]), ("test", RECORDS[20:])):
        (folder / f"{name}.bin").write_bytes(part.tobytes())


def refused(**keys):
    """The one line that [data] of these keys ends in."""
    with pytest.raises(InputError) as caught:
        table = {"name": "x", "network": {"layers": [2, 1]}, "data": keys}
        load_split(experiment_from(table, "x.toml").data, 12 if keys["name"] == "idx" else 3072, 5)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


# ---- what is read


@pytest.mark.parametrize("pack", [False, True])
def test_pixels_are_rows_in_c_order_from_0_to_1_and_labels_are_classes(folder, pack):
    if pack:
        for name in ("images", "labels"):
            Path(name).write_bytes(packed(Path(name).read_bytes()))
    x, target = load_data(Data(**IDX), 12, 5)
    np.testing.assert_array_equal(x, IMAGES.reshape(40, 12) / 255)
    np.testing.assert_array_equal(target, np.eye(5)[LABELS])
    assert class_names(Data(**IDX)) == ("0", "1", "2", "3", "4")


def test_images_have_any_dimensions_and_classes_are_the_labels_that_occur(folder):
    Path("images").write_bytes(idx(IMAGES.reshape(40, 3, 2, 2)))
    Path("labels").write_bytes(idx(LABELS * 2 + 7))
    x, target = load_data(Data(**IDX), 12, 5)
    np.testing.assert_array_equal(x, IMAGES.reshape(40, 12) / 255)
    np.testing.assert_array_equal(target.argmax(1), LABELS)
    assert class_names(Data(**IDX)) == ("7", "9", "11", "13", "15")


@pytest.mark.parametrize("pack", [False, True])
def test_batches_are_read_one_after_another_red_before_green_before_blue(folder, pack):
    if pack:
        Path("two.bin").write_bytes(packed(Path("two.bin").read_bytes()))
    x, target = load_data(Data(**BATCHES), 3072, 10)
    np.testing.assert_array_equal(x, RECORDS[:20, 1:] / 255)
    np.testing.assert_array_equal(target.argmax(1), RECORDS[:20, 0])
    assert class_names(Data(**BATCHES)) == CIFAR10 and CIFAR10[6] == "frog"
    alone = load_data(Data(name="cifar10", batches="one.bin"), 3072, 10)[0]
    np.testing.assert_array_equal(alone, x[:12])


def test_standardised_pixels_have_mean_0_and_spread_1(folder):
    x, _ = load_data(Data(**IDX, standardise=True), 12, 5)
    np.testing.assert_allclose([x.mean(0), x.std(0)], [np.zeros(12), np.ones(12)], atol=1e-12)


# ---- patterns held back


def rows(x):
    return {row.tobytes() for row in x}


def test_patterns_to_test_with_are_of_their_own_files_where_these_are_given(folder):
    x, target, x_test, target_test = load_split(Data(**WITH_TESTS, samples=30, test=10), 12, 5)
    assert len(x) == 30 and rows(x) < rows(IMAGES.reshape(40, 12) / 255)
    assert len(x_test) == 10 and rows(x_test) < rows(TESTS.reshape(20, 12) / 255)
    assert (target.sum(0) == 6).all() and (target_test.sum(0) == 2).all()
    everything = load_split(Data(**WITH_TESTS, test=20), 12, 5)
    assert rows(everything[0]) == rows(IMAGES / 255) and len(everything[2]) == 20
    assert load_split(Data(**WITH_TESTS), 12, 5)[2].shape == (0, 12)
    tested = load_split(Data(**BATCHES, test=10), 3072, 10)[2]
    assert rows(tested) == rows(RECORDS[20:, 1:] / 255)


def test_without_such_files_they_are_some_of_those_to_learn_from(folder):
    x, _, x_test, _ = load_split(Data(**IDX, test=15), 12, 5)
    assert len(x) == 25 and rows(x) | rows(x_test) == rows(IMAGES / 255)


@pytest.mark.parametrize("samples", [None, 20])
def test_none_equals_one_to_learn_from_and_those_for_validation_equal_none_of_either(
    folder, samples
):
    # a third of the tests are images to learn from, too
    twice = np.concatenate([TESTS, IMAGES[:10]])
    Path("tests").write_bytes(idx(twice))
    Path("test-labels").write_bytes(idx(np.concatenate([LABELS[:20], LABELS[:10]])))
    keys = {**WITH_TESTS, "samples": samples, "test": 20}
    alone = load_parts(Data(**keys), 12, 5)
    both = load_parts(Data(**keys, validation=6), 12, 5)
    np.testing.assert_array_equal(alone.x_test, both.x_test)
    assert len(both.x_validation) == 6 and len(both.x) == (samples or 34)
    learned, tested, judged = (rows(part) for part in (both.x, both.x_test, both.x_validation))
    assert not learned & tested and not learned & judged and not tested & judged
    assert judged < rows(IMAGES / 255)
    if samples:
        np.testing.assert_array_equal(
            both.x, load_data(Data(**WITH_TESTS, samples=samples), 12, 5)[0]
        )


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"test": 21}, 'data.test = 21, but data.name = "idx" has only 20 patterns to test with'),
        ({"samples": 41}, 'data.samples = 41 but data.name = "idx" has only 40'),
        (
            {"samples": 40, "validation": 1},
            'data.validation = 1, but data.name = "idx" has only 40 patterns, 40 of them to learn'
            " from, and 0 others",
        ),
    ],
)
def test_more_than_there_are_is_one_line(folder, keys, message):
    assert message in refused(**WITH_TESTS, **keys)


# ---- where files are found


EXPERIMENT = """
name = "mine"
[network]
layers = [12, 5]
error = "cross_entropy"
output = "linear"
[data]
name = "idx"
images = "data/images"
labels = "data/labels"
test_images = "data/tests"
test_labels = "data/test-labels"
test = 10
"""


@pytest.fixture
def project(folder):
    """An experiment with its files beside it."""
    Path("project/data").mkdir(parents=True)
    write(Path("project/data"))
    Path("project/mine.toml").write_text(EXPERIMENT)
    return Path("project/mine.toml")


QUICK = {"estimation.trials": 16}


def test_files_are_found_beside_the_experiment_and_from_the_stored_run(project):
    run = sims.run_experiment(project, QUICK, out="runs/mine")
    stored = tomllib.loads(Path("runs/mine/experiment.toml").read_text())["data"]
    assert stored["images"] == "../../project/data/images"
    assert stored["test_labels"] == "../../project/data/test-labels"
    assert load_experiment("runs/mine/experiment.toml") == run.experiment
    batches = {"name": "cifar10", "batches": ["../one.bin", "../two.bin"]}
    table = {"name": "x", "network": {"layers": [3072, 10]}, "data": batches}
    found = experiment_from(table, "x.toml", Path("project")).data.batches
    assert found == (f"{os.getcwd()}/one.bin", f"{os.getcwd()}/two.bin")


@pytest.mark.parametrize("name", fast(["images", "labels", "tests", "test-labels"], "test-labels"))
def test_files_that_have_changed_are_refused_by_the_stored_experiment(project, command, name):
    shutil.copytree("project", "kept")
    sims.run_experiment("kept/mine.toml", QUICK, out="first")
    path = Path("kept/data") / name
    content = bytearray(path.read_bytes())
    content[-1] = content[-2]
    path.write_bytes(content)
    status, _, err = command("run", "first/experiment.toml")
    assert status == 2 and err.count("\n") == 1
    assert "or those of data.labels or another file, are not those that data.sha256 =" in err
    words = ("--set", "data.sha256=", "--out", "second")
    assert command("run", "first/experiment.toml", *words)[0] == 0


LEARNING = {
    "study": "training",
    "training.updates": 3,
    "training.control_updates": 3,
    "training.runs": 1,
}


def test_a_training_counts_images_to_learn_from_and_those_of_the_files_to_test_with(project):
    confusion = sims.run_experiment(project, LEARNING).tables["confusion"]
    counts = confusion[confusion["source"] == "exact"].groupby("patterns")["count"].sum()
    assert sorted(counts) == [10, 40]


def test_designs_of_the_same_files_are_compared_wherever_these_lie(project):
    shutil.copytree("project", "moved")
    sims.run_experiment(project, LEARNING, out="one")
    sims.run_experiment("moved/mine.toml", {**LEARNING, "chip.error_unit.bits": 8}, out="two")
    assert len(reports.designs(["one", "two"]).tables["summary"]) == 2
    Path("moved/data/labels").write_bytes(idx(LABELS[::-1]))
    sims.run_experiment("moved/mine.toml", LEARNING, out="three")
    with pytest.raises(InputError, match=r"data\.sha256 is"):
        reports.designs(["one", "three"])
    # reports know these keys, as they know no experiment
    assert design_comparison.PATHS == FILES["data"]
    assert set(FILES["data"]) <= Data.model_fields.keys()


def test_a_sweep_varies_files_relative_to_its_experiment(project):
    Path("project/data/others").write_bytes(idx(IMAGES[::-1]))
    varied = '[sweep.vary]\n"data.images" = ["data/images", "data/others"]\n'
    project.write_text(EXPERIMENT + varied)
    found = sims.run_sweep(project, out="sweep", workers=0, set=QUICK)
    assert [Path(path).name for path in found["data.images"].unique()] == ["images", "others"]
    lists = [["../one.bin"], ["../one.bin", "../two.bin"]]
    batches = f'name = "cifar10"\n[sweep.vary]\n"data.batches" = {lists}\n'
    project.write_text(
        EXPERIMENT.partition('name = "idx"')[0].replace("12, 5", "3072, 10") + batches
    )
    plan = plan_sweep(project)
    assert [len(plan.experiment(plan.row(i)).data.batches) for i in (0, 1)] == [1, 2]
    assert load_data(plan.experiment(plan.row(1)).data, 3072, 10)[0].shape == (20, 3072)


# ---- mistakes


def cut(content, by=1):
    return content[:-by]


WHOLE = idx(IMAGES)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("images", b"", "begins with nothing, but an IDX file of images with 00 00 08 03"),
        ("images", b"<!DOCTYPE html>", "begins with 3c 21 44 4f, but an IDX file of images with"),
        ("images", b"\x89PNG\r\n", "data.images = "),
        ("labels", b"a,b\n1,2\n", "begins with 61 2c 62 0a, but an IDX file of labels with 00 00"),
        ("images", idx(LABELS), "which is an IDX file of labels: give that of images"),
        ("labels", WHOLE, "which is an IDX file of images: give that of labels"),
        ("images", idx(IMAGES.astype(">f4"), of=13), "its numbers are of type 0d, but images must"),
        ("images", WHOLE[:9], "ends within its header: it is damaged, get it anew"),
        ("images", cut(WHOLE), "holds only 479 of the 480 bytes that its header says (40 x 3 x 4)"),
        ("images", WHOLE + b"0", "holds more than the 480 bytes that its header says (40 x 3 x 4)"),
        ("images", idx(IMAGES[:0]), "holds 0 x 3 x 4 bytes by its header, but must hold 1 to"),
        ("images", b"\0\0\x08\3" + b"\xff" * 12, "4294967295 x 4294967295 x 4294967295 bytes by"),
        ("images", idx(IMAGES[:39]), "holds 39 images, but data.labels = "),
        ("labels", idx(LABELS[:39]), "holds 40 images, but data.labels = "),
        ("labels", idx(LABELS * 0), "has the label 0 alone: give one of several classes"),
        ("tests", idx(TESTS[:, :2]), "holds images of 2 x 4 pixels, but data.images = "),
        ("tests", idx(TESTS[1:]), "holds 19 images, but data.test_labels = "),
        ("test-labels", idx(LABELS[:20] + 3), "has the label 5, which data.labels = "),
        ("images", cut(packed(WHOLE), 9), "not a whole IDX file (Compressed file ended"),
        ("images", packed(WHOLE)[:12] + b"x" * 40, "not a whole IDX file ("),
        ("images", packed(cut(WHOLE)), "holds only 479 of the 480 bytes"),
        ("images", packed(b"text"), "begins with 74 65 78 74, but an IDX file of images"),
        ("images", None, "is a directory: give the path of a file in it"),
    ],
    ids=only_texts,
)
def test_a_mistake_in_an_idx_file_is_one_line(folder, name, content, message):
    Path(name).unlink()
    if content is None:
        Path(name).mkdir()
    else:
        Path(name).write_bytes(content)
    line = refused(**WITH_TESTS, test=5)
    assert message in line and name in line


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "two.bin: holds 0 bytes, but must hold 1 or more records of 3073"),
        (cut(RECORDS.tobytes()), "holds 92189 bytes, but must hold 1 or more records of 3073"),
        (b"\x80\x02}q" + bytes(3073), "holds 3077 bytes"),
        (b"\n" + bytes(3072), "record 1: its label is 10, but must be 0 to 9"),
        (bytes(3073) + b"\xff" + bytes(3072), "record 2: its label is 255, but must be 0 to 9"),
        (cut(packed(RECORDS.tobytes()), 9), "not a whole CIFAR-10 file (Compressed file"),
        (None, "data.batches = "),
    ],
    ids=only_texts,
)
def test_a_mistake_in_a_batch_is_one_line(folder, content, message):
    Path("two.bin").unlink()
    if content is not None:
        Path("two.bin").write_bytes(content)
    line = refused(**BATCHES)
    assert message in line and "two.bin" in line


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"name": "idx"}, 'images is missing: name = "idx" needs it, such as images = "train-'),
        ({"name": "idx", "images": "images"}, 'needs it, such as labels = "train-labels-idx1'),
        ({**IDX, "test_images": "tests"}, "data.test_labels is missing, but data.test_images is"),
        ({**IDX, "test_labels": "tests"}, "data.test_images is missing, but data.test_labels is"),
        ({**IDX, "images": "none"}, "none: no such file: give its path, relative to the"),
        ({**IDX, "images": "a\0b"}, "no such file"),
        ({**IDX, "images": ""}, "data.images = "),
        ({**IDX, "images": ["images"]}, "data.images = "),
        ({**IDX, "file": "images"}, 'does not go with name = "idx", only with file: remove it'),
        ({"name": "cifar10"}, 'needs it, such as batches = ["data_batch_1.bin", '),
        ({"name": "cifar10", "batches": []}, "data.batches = "),
        ({"name": "cifar10", "batches": 3}, "data.batches = 3"),
        ({"name": "cifar10", "batches": [3]}, "data.batches"),
        ({**IDX, "samples": 50}, "data.samples = 50"),
        (BATCHES, 'the network has 5 outputs but data.name = "cifar10" has 10 outputs'),
    ],
)
def test_a_mistake_in_the_table_is_one_line(folder, keys, message):
    assert message in refused(**keys)


def test_what_is_packed_is_read_no_further_than_its_header_says(folder):
    # 16 MB of zeros in 16 kB
    Path("images").write_bytes(packed(WHOLE + bytes(1 << 24)))
    assert "holds more than the 480 bytes" in refused(**IDX)


KINDS = ["plain", "packed", "batch"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_images_or_one_line(folder, kind, data):
    damaged_ones_are_images_or_one_line(kind, data)


@pytest.mark.slow
@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_are_images_or_one_line(folder, kind, data):
    damaged_ones_are_images_or_one_line(kind, data)


def damaged_ones_are_images_or_one_line(kind, data):
    whole = RECORDS[:2].tobytes() if kind == "batch" else WHOLE
    content = bytearray(packed(whole) if kind == "packed" else whole)
    for _ in range(data.draw(st.integers(0, 3))):
        # most mistakes at the head, where they mean something
        place = data.draw(st.integers(0, 15) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    Path("damaged").write_bytes(content[:length] + data.draw(st.just(b"") | st.binary(max_size=9)))
    if kind == "batch":
        table = Data(name="cifar10", batches="damaged")
    else:
        table = Data(**{**IDX, "images": "damaged"})
    try:
        x, target = load_data(table, *((3072, 10) if kind == "batch" else (12, 5)))
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert x.shape == (len(target), 3072 if kind == "batch" else 12)
        assert ((x >= 0) & (x <= 1)).all()
