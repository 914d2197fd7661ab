"""Data in files of one's own: what is read of them, that every mistake in one is one line, and
where they are found.
"""

import re
import tomllib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_datasets import refused

import sims
from perturb import InputError
from sims.data.datasets import Data
from sims.data.files import read_patterns
from sims.data.loading import class_names, load_data, load_split, load_states
from sims.experiment.loading import load_experiment


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the tests' files lie, and the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLOWERS = pd.DataFrame(
    {
        "a": [1.0, 2.0, 3.0, 4.0],
        "kind": ["rose", "aster", "rose", "lily"],
        "b": [5, 6, 7, 8],
        "y": [0.5, 1, 2, 3],
    }
)


def test_csv_parquet_and_npz_of_the_same_patterns_are_the_same(folder):
    FLOWERS.drop(columns="y").to_csv("mine.csv", index=False)
    FLOWERS.drop(columns="y").to_parquet("mine.parquet")
    np.savez("mine.npz", x=FLOWERS[["a", "b"]], target=FLOWERS["kind"].to_numpy(str))
    np.savez(
        "hot.npz",
        x=FLOWERS[["a", "b"]].to_numpy(np.float32),
        target=[[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]],
    )
    for file, keys in (
        ("mine.csv", {"targets": "kind"}),
        ("mine.parquet", {"targets": "kind"}),
        ("mine.npz", {}),
        ("hot.npz", {}),
    ):
        x, target = load_data(Data(name="file", file=file, **keys), 2, 3)
        np.testing.assert_array_equal(x, [[1, 5], [2, 6], [3, 7], [4, 8]])
        np.testing.assert_array_equal(target.argmax(1), [2, 0, 2, 1])  # aster, lily, rose
        assert (target.sum(1) == 1).all()


def test_classes_are_texts_without_blanks_around_them_and_truth_is_a_number(folder):
    (folder / "mine.csv").write_text("a,b,kind\n1, true,x \n2,False,x\n 3 ,TRUE, NA\n")
    x, target = load_data(Data(name="file", file="mine.csv", targets="kind"), 2, 2)
    np.testing.assert_array_equal(x, [[1, 1], [2, 0], [3, 1]])
    np.testing.assert_array_equal(target.argmax(1), [1, 1, 0])
    assert class_names(Data(name="file", file="mine.csv", targets="kind")) == ("NA", "x")
    (folder / "mine.csv").write_text("a,kind\n1,10\n2,9\n3,1e2\n")  # numbers are sorted as such
    assert class_names(Data(name="file", file="mine.csv", targets="kind")) == ("9", "10", "1e2")
    np.savez("mine.npz", x=np.eye(3), target=np.array([3.0, 10.0, 3.0]))
    assert class_names(Data(name="file", file="mine.npz")) == ("3", "10")


def test_an_index_of_pandas_is_a_column_or_is_refused_never_lost(folder):
    frame = pd.DataFrame(
        {"c1": [5.0, 6.0, 7.0], "cls": ["a", "b", "a"]}, index=pd.Index([1.0, 2.0, 3.0], name="c0")
    )
    frame.to_parquet("mine.parquet")
    x, _ = load_data(Data(name="file", file="mine.parquet", targets="cls"), 2, 2)
    np.testing.assert_array_equal(x, [[5, 1], [6, 2], [7, 3]])
    frame.rename_axis(None).to_parquet("mine.parquet")
    assert "column 3 has no name: if it numbers the rows" in refused(
        "file", file="mine.parquet", targets="cls"
    )
    frame.to_csv("mine.csv")
    np.testing.assert_array_equal(
        load_data(Data(name="file", file="mine.csv", targets="cls"), 2, 2)[0], x[:, ::-1]
    )
    frame.rename_axis(None).to_csv("mine.csv")
    assert "column 1 has no name" in refused("file", file="mine.csv", targets="cls")
    many = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("c0", "z"), ("c1", "z")]))
    many.to_parquet("mine.parquet")
    assert load_states(Data(name="file", file="mine.parquet", targets=[]), 2, (0, 1)).shape == (
        1,
        2,
    )
    many.astype(object).map(lambda cell: {"a": cell}).to_parquet("mine.parquet")
    assert "('c0', 'z') = " in refused("file", file="mine.parquet", targets=[])


def test_columns_of_numbers_are_targets_as_they_are_and_class_numbers_are_sorted_as_numbers(folder):
    FLOWERS.assign(kind=[10, 9, 10, 100]).to_csv("mine.csv", index=False)
    x, target = load_data(Data(name="file", file="mine.csv", targets=["y", "b"]), 2, 2)
    np.testing.assert_array_equal(target, FLOWERS[["y", "b"]])
    np.testing.assert_array_equal(x[:, 1], [10, 9, 10, 100])
    _, target = load_data(Data(name="file", file="mine.csv", targets="kind"), 3, 3)
    np.testing.assert_array_equal(target.argmax(1), [1, 0, 1, 2])
    states = load_states(Data(name="file", file="mine.csv", targets=[]), 4, (0, 1))
    assert states.shape == (4, 4)


def test_standardised_files_keep_their_classes_and_only_shift_what_does_not_vary(folder):
    FLOWERS.assign(c=0.1).to_csv("mine.csv", index=False)
    x, target = load_data(
        Data(name="file", file="mine.csv", targets="kind", standardise=True), 4, 3
    )
    np.testing.assert_allclose(x.std(0), [1, 1, 1, 0], atol=1e-12)
    assert set(target.ravel()) == {0.0, 1.0}
    FLOWERS.drop(columns="kind").to_csv("numbers.csv", index=False)
    _, target = load_data(
        Data(name="file", file="numbers.csv", targets=["y"], standardise=True), 2, 1
    )
    assert target.mean() == pytest.approx(0) and target.std() == pytest.approx(1)


CLASSES = {"targets": "kind"}
GOOD = "a,b,kind\n1,2,x\n3,4,y\n5,6,z\n"


@pytest.mark.parametrize(
    "text, keys, message",
    [
        (
            GOOD,
            {},
            (
                'data.targets is missing: name the column of classes of data.file, such as "class",'
                " or a list of columns"
            ),
        ),
        (
            GOOD,
            {"targets": "kin"},
            'data.targets = "kin" is no column of data.file: name some of a, b, kind',
        ),
        (GOOD, {"targets": ["a", "c"]}, 'data.targets = "c" is no column of data.file'),
        (
            GOOD,
            {"targets": ["kind"]},
            'line 2 (the header is line 1): kind = "x" must be a number, at most 1e+100',
        ),
        (GOOD, {"targets": ["a", "b", "kind"]}, "has no columns beside its targets"),
        (
            GOOD,
            {"targets": 3},
            'data.targets = 3 must be a string in quotes, such as "class", or a list of them',
        ),
        (GOOD, {"targets": ["a", 3]}, 'data.targets = ["a", 3] must be a string'),
        (GOOD, {**CLASSES, "samples": 4}, "has only 3: ask for fewer"),
        (GOOD, {**CLASSES, "test": 3}, "data.test = 3, but data.file = "),
        (
            GOOD,
            {**CLASSES, "samples": 2, "test": 2},
            "has only 3 patterns, 2 of them to learn from, and 1 others",
        ),
        (
            GOOD,
            {**CLASSES, "samples": 1, "standardise": True},
            "data.samples = 1 to learn from, which has no spread to standardise by: use 2",
        ),
        (
            GOOD,
            {**CLASSES, "test": 2, "standardise": True},
            "leaves 1 pattern to learn from, which has no spread to standardise by: lower data.test"
            " = 2, or set",
        ),
        (
            GOOD,
            {"targets": ["b"], "ignore": ["kind"], "samples": 2, "balanced": True},
            "data.balanced = true but the targets of data.file = ",
        ),
        (
            GOOD.replace("4", "four"),
            CLASSES,
            'line 3 (the header is line 1): b = "four" must be a number',
        ),
        (
            GOOD.replace("4", ""),
            CLASSES,
            "line 3 (the header is line 1): b is empty, but must be a number",
        ),
        (
            GOOD.replace("4", "nan"),
            CLASSES,
            'line 3 (the header is line 1): b = "nan" must be a number',
        ),
        (
            GOOD.replace("4", "-inf"),
            CLASSES,
            'line 3 (the header is line 1): b = "-inf" must be a number',
        ),
        (
            GOOD.replace("4", "1e200"),
            CLASSES,
            'line 3 (the header is line 1): b = "1e200" must be a number, at most 1e+100',
        ),
        (
            GOOD.replace("4", "1e400"),
            CLASSES,
            'line 3 (the header is line 1): b = "1e400" must be a number, at most 1e+100',
        ),
        (
            GOOD.replace("4", "1_000"),
            CLASSES,
            'line 3 (the header is line 1): b = "1_000" must be a number',
        ),
        (
            GOOD.replace("4", "\u0664"),
            CLASSES,
            'line 3 (the header is line 1): b = "\u0664" must be a number',
        ),
        (
            "a,kind,b,kind\n1,x,2,x\n3,y,4,y\n",
            CLASSES,
            'data.targets = "kind" is the name of 2 columns of data.file',
        ),
        (
            "a,kind,a\n1,x,2\n3,y,4\n",
            CLASSES,
            "has two columns of the same name among a, kind, a: rename one",
        ),
        (
            ",a,kind\n0,1,x\n1,3,y\n",
            CLASSES,
            "column 1 has no name: if it numbers the rows, leave it out by data.ignore",
        ),
        ("a, ,kind\n0,1,x\n1,3,y\n", CLASSES, "column 2 has no name"),
        (
            "a,kind\n1,01\n2,1\n",
            CLASSES,
            'has the classes "01" and "1", one number written in two ways',
        ),
        (
            "a,kind\n1,1\n2,1.0\n3,x\n",
            CLASSES,
            'has the classes "1" and "1.0", one number written in two ways',
        ),
        (
            GOOD.replace("y", ""),
            CLASSES,
            "line 3 (the header is line 1): kind is empty, but must be a class",
        ),
        (
            GOOD.replace("y", "x").replace("z", "x"),
            CLASSES,
            "has a single class, but there must be 2 to 1000",
        ),
        (GOOD, {"targets": "kind", "file": "none.csv"}, "none.csv: no such file"),
        (GOOD, {"targets": "kind", "file": "mine.txt"}, "must end in .csv, .parquet or .npz"),
        (GOOD, {"targets": "kind", "file": "."}, "must end in .csv, .parquet or .npz"),
        (GOOD, {"targets": "kind", "file": "folder.csv"}, "folder.csv: is a directory: give"),
        (
            GOOD,
            {"file": None},
            'data.file is missing: name = "file" needs it, such as file = "mine.csv"',
        ),
        ("", CLASSES, "not a whole CSV file"),
        ("a,b,kind\n", CLASSES, "holds no rows"),
        (GOOD + "1,2,3,4\n", CLASSES, "not a whole CSV file"),
        (
            "a,b\n1,2,x\n3,4,y\n",
            {"targets": "b"},
            "not a whole CSV file (Error tokenizing data. C error: Expected 2 fields in line 2",
        ),
        (
            "a|b|kind\n1|2|x\n",
            CLASSES,
            'its columns seem to be separated by "|": write it with commas',
        ),
        (
            "a,b,kind\n1,2,0.5\n1,2,1.5\n",
            CLASSES,
            "has classes such as 0.5, but there must be 2 to 1000, strings or integers",
        ),
        ("a,b,kind\n1,2,\udcff\n", CLASSES, "not a whole CSV file"),
    ],
)
def test_a_mistake_in_a_csv_file_is_one_line(folder, text, keys, message):
    (folder / "folder.csv").mkdir()
    (folder / "mine.csv").write_bytes(text.encode(errors="surrogateescape"))
    keys = {"file": "mine.csv", **keys}
    assert message in refused(
        "file", **{key: value for key, value in keys.items() if value is not None}
    )


@pytest.mark.parametrize(
    "arrays, keys, message",
    [
        ({"x": np.eye(2)}, {}, "holds no array target"),
        ({"target": np.eye(2)}, {}, "holds no array x"),
        (
            {"x": np.eye(2), "target": [0, 1]},
            {"targets": "y"},
            'data.targets = "y" is for CSV and Parquet',
        ),
        (
            {"x": np.ones(3), "target": [0, 1, 2]},
            {},
            "x has shape (3,), but must be (rows, inputs), or (rows, ...) such as images",
        ),
        ({"x": np.ones((0, 2)), "target": []}, {}, "x has shape (0, 2)"),
        (
            {"x": np.ones((3, 2)), "target": [0, 1]},
            {},
            "target has shape (2,), but must be (3, outputs), or (3,) for classes",
        ),
        ({"x": np.ones((3, 2)), "target": np.ones((3, 1, 1))}, {}, "target has shape (3, 1, 1)"),
        ({"x": [[1, np.nan]], "target": [[1.0]]}, {}, "x[0, 1] = nan must be a number"),
        (
            {"x": np.ones((2, 2)), "target": [[1.0], [np.inf]]},
            {},
            "target[1, 0] = inf must be a number",
        ),
        ({"x": np.ones((2, 2)), "target": [0.5, 1.5]}, {}, "has classes such as 0.5"),
        ({"x": np.ones((2, 2)), "target": [0, 0]}, {}, "has a single class"),
        ({"x": [["a", "b"]], "target": [0]}, {}, "x is of type <U1, but must be numbers"),
        (
            {"x": np.ones((2, 2)), "target": np.array([1, 2], "M8[s]")},
            {},
            "target is of type datetime64[s]",
        ),
        ({"x": np.ones((2, 2)), "target": np.array([{}, 1], object)}, {}, "not a whole NPZ file"),
        ({"x": np.eye(2)}, {"targets": []}, "has no targets, which only network.kind"),
    ],
)
def test_a_mistake_in_an_npz_file_is_one_line(folder, arrays, keys, message):
    np.savez("mine.npz", **arrays)
    assert message in refused("file", file="mine.npz", **keys)


def test_patterns_of_npz_have_any_shape_and_are_flat_in_c_order(folder):
    images = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    np.savez("mine.npz", x=images, target=[0, 1, 2, 1])
    data = Data(name="file", file="mine.npz")
    x, target = load_data(data, 12, 3)
    np.testing.assert_array_equal(x, images.reshape(4, 12))  # as they are, bytes too
    # whatever the order in which the file has them
    np.savez("mine.npz", x=np.asfortranarray(images), target=[0, 1, 2, 1])
    np.testing.assert_array_equal(load_data(data, 12, 3)[0], x)
    with pytest.raises(InputError, match="the network has 11 inputs but data.file = .* has 12"):
        load_data(data, 11, 3)
    np.savez("mine.npz", x=np.full((2, 2, 2), [[1, 2], [3, np.nan]]), target=[0, 1])
    assert "x[0, 1, 1] = nan must be a number" in refused("file", file="mine.npz")


def test_what_parquet_holds_beside_numbers_and_texts_is_refused_or_understood(folder):
    frame = pd.DataFrame(
        {"a": [Decimal("1.5"), Decimal(2)], "b": [True, False], "kind": pd.Categorical(["x", "y"])}
    )
    frame.to_parquet("mine.parquet")
    x, _ = load_data(Data(name="file", file="mine.parquet", targets="kind"), 2, 2)
    np.testing.assert_array_equal(x, [[1.5, 1], [2, 0]])
    for column in (
        pd.to_datetime(["2020-01-01", "2020-01-02"]),
        [[1, 2], [3]],
        [{"c": 1}, {"c": 2}],
        [None, 1.0],
        ["1", "two"],
    ):
        frame.assign(b=column).to_parquet("mine.parquet")
        assert re.search(
            r"row \d \(counted from 1\): b (= |is empty)",
            refused("file", file="mine.parquet", targets="kind"),
        )
    frame.assign(b=pd.array([1, None], "Int64")).to_parquet("mine.parquet")
    assert "row 2 (counted from 1): b is empty, but must be a number" in refused(
        "file", file="mine.parquet", targets="kind"
    )
    no_text = pa.array([b"x", b"\xff"]).cast(pa.string(), safe=False)
    parquet.write_table(pa.table({"a": [1, 2], "b": [3, 4], "kind": no_text}), "mine.parquet")
    assert "not a whole PARQUET file" in refused("file", file="mine.parquet", targets="kind")


def test_columns_that_are_ignored_are_no_inputs_whatever_they_hold(folder):
    Path("mine.csv").write_text(",id,a,kind\n0,one,3,x\n1,,5,y\n")
    data = Data(name="file", file="mine.csv", targets="kind", ignore=["id", ""])
    x, target = load_data(data, 1, 2)
    assert x.tolist() == [[3.0], [5.0]] and target.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    np.savez("mine.npz", x=x, target=target)
    assert "is for CSV and Parquet" in refused("file", file="mine.npz", ignore=["id"])


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_a_damaged_file_is_one_line(folder, kind):
    FLOWERS[["a", "b", "kind"]].to_csv("mine.csv", index=False)
    FLOWERS[["a", "b", "kind"]].to_parquet("mine.parquet")
    np.savez_compressed("mine.npz", x=FLOWERS[["a", "b"]], target=FLOWERS["kind"].to_numpy(str))
    whole, rng = (folder / f"mine.{kind}").read_bytes(), np.random.Generator(np.random.Philox(0))
    keys = {"targets": "kind"} if kind != "npz" else {}
    read = 0
    for trial in range(300):
        content = bytearray(whole[: int(rng.integers(len(whole)))] if trial % 3 == 0 else whole)
        for place in rng.integers(len(whole), size=trial % 3 * 2):
            content[place] = int(rng.integers(256))
        (folder / f"cut.{kind}").write_bytes(content)
        try:
            load_split(Data(name="file", file=f"cut.{kind}", **keys), 2, 3)
            read += 1
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
    assert kind != "parquet" or read < 200
    (folder / f"cut.{kind}").write_bytes(
        whole[: len(whole) // 2] if kind != "csv" else b"\xff\xfe\x00"
    )
    assert f"not a whole {kind.upper()} file" in refused("file", file=f"cut.{kind}", **keys)


def test_a_file_is_found_beside_its_experiment_and_from_the_stored_run(folder):
    (folder / "there").mkdir()
    FLOWERS.drop(columns="y").to_csv("there/mine.csv", index=False)
    (folder / "there" / "mine.toml").write_text(
        'name = "mine"\n[network]\nlayers = [2, 3]\n[data]\nname = "file"\nfile ='
        ' "mine.csv"\ntargets = "kind"\n'
    )
    quick = {"estimation.trials": 16}
    assert (
        load_experiment("there/mine.toml").data.file == (folder / "there" / "mine.csv").as_posix()
    )
    assert load_experiment("there/mine.toml", {"data.file": "there/mine.csv"}) == load_experiment(
        "there/mine.toml"
    )
    run = sims.run_experiment("there/mine.toml", quick, out="runs/mine")
    stored = (folder / "runs" / "mine" / "experiment.toml").read_text()
    assert tomllib.loads(stored)["data"]["file"] == "../../there/mine.csv"
    assert load_experiment("runs/mine/experiment.toml") == run.experiment


PLAIN = "a,b,kind\n1.5,2,x\n-3,4e-1,y\n"


@pytest.mark.parametrize(
    "text",
    [
        "# by hand, in May\n\n" + PLAIN,
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        "# by hand\n" + PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "; ").replace("4e-1", ",4"),
    ],
)
def test_semicolons_tabs_decimal_commas_and_comments_are_read(folder, text):
    (folder / "plain.csv").write_text(PLAIN)
    (folder / "mine.csv").write_text(text)
    expected = read_patterns("plain.csv", "kind")
    found = read_patterns("mine.csv", "kind")
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[2] == ("x", "y")


def test_rows_below_a_comment_keep_their_numbers_and_names_may_begin_with_its_mark(folder):
    (folder / "mine.csv").write_text("# by hand\n" + PLAIN.replace("4e-1", "high"))
    with pytest.raises(InputError, match=r"line 4 \(the header is line 2\): b = \"high\""):
        read_patterns("mine.csv", "kind")
    (folder / "mine.csv").write_text("#" + PLAIN)
    assert read_patterns("mine.csv", "kind")[0].tolist() == [[1.5, 2.0], [-3.0, 0.4]]


def test_several_cells_that_are_no_numbers_are_counted_and_named(folder):
    rows = ["a,b,kind", "1,2,x", "1,no,y", "-,2,x", "1,?,y", "1,2,x", "e,f,y"]
    (folder / "mine.csv").write_text("\n".join(rows))
    with pytest.raises(InputError) as error:
        read_patterns("mine.csv", "kind")
    text = str(error.value)
    assert 'line 3 (the header is line 1): b = "no" must be' in text and "\n" not in text
    assert text.endswith("4 more cells are none: a in line 4, b in line 5, a in line 7 and others")


@pytest.mark.parametrize(
    "text, line, headed",
    [
        ("a,b\n\n1,2\n   \n3,high\n", 5, 1),
        ("\n# by hand\n\na,b\n\n1,2\n3,high\n\n", 7, 4),
        ('a,"b"\n"1",2\n"\n3",high\n', 3, 1),
        ('name,b\n"one\n\nor two",2\n"three",high\n', 5, 1),
        ("a,b\r\n\r\n1,2\r\n3,high\r\n", 4, 1),
        ("a;b\n\n1,5;2\n3,5;high\n", 4, 1),
        ("b\n\n1\n \nhigh\n", 5, 1),
        ("a,b\n,\n3,high", 2, 1),
    ],
)
def test_rows_are_called_by_the_lines_that_they_begin_in(folder, text, line, headed):
    (folder / "mine.csv").write_bytes(text.encode())
    with pytest.raises(InputError) as told:
        read_patterns("mine.csv", [], ignore=["name"] if "name" in text else [])
    assert f"line {line} (the header is line {headed})" in str(told.value)
