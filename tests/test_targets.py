"""Patterns and targets as NumPy, pandas and scikit-learn have them."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from perturb import DAG, MLP, InputError, Recurrent

X = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.0]])
NAMES = ["setosa", "virginica", "setosa", "ad astra"]
# sorted, as scikit-learn numbers them
CODES = [1, 2, 1, 0]
CLASSES = ("ad astra", "setosa", "virginica")


def network(error="cross_entropy", n_out=3):
    return MLP([2, n_out], error=error)


NAMED = {
    "list": NAMES,
    "tuple": tuple(NAMES),
    "array": np.array(NAMES),
    "array of objects": np.array(NAMES, dtype=object),
    "column": np.array(NAMES)[:, None],
    "series": pd.Series(NAMES, index=[7, 3, 9, 1]),
    "series of strings": pd.Series(NAMES, dtype="string"),
    "frame": pd.DataFrame({"species": NAMES}),
    "index": pd.Index(NAMES),
    "categorical": pd.Categorical(NAMES),
    "series of categories": pd.Series(NAMES, dtype="category"),
    "frame of categories": pd.DataFrame({"species": pd.Categorical(NAMES)}),
}


@pytest.mark.parametrize("targets", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("inputs", [X, X.tolist(), pd.DataFrame(X, columns=["a", "b"])], ids=type)
def test_names_of_classes_are_their_numbers_in_sorted_order(inputs, targets):
    named = network().objective(inputs, targets)
    numbered = network().objective(X, CODES)
    w = network().init(0)
    assert named.classes == CLASSES and numbered.classes == ()
    np.testing.assert_array_equal(named.x, numbered.x)
    np.testing.assert_array_equal(named.target, numbered.target)
    np.testing.assert_array_equal(named.hvp(w, w), numbered.hvp(w, w))


def test_the_order_is_that_of_scikit_learn():
    iris = load_iris(as_frame=True)
    names = iris.target.map(dict(enumerate(iris.target_names)))
    net = MLP([4, 3], error="cross_entropy")
    objective = net.objective(iris.data, names)
    assert objective.classes == tuple(np.unique(names)) == tuple(iris.target_names)
    w = net.init(0)
    assert objective.error(w) == net.objective(iris.data.to_numpy(), iris.target).error(w)


def test_a_categorical_has_an_order_of_its_own_and_classes_that_do_not_occur():
    order = ["virginica", "setosa", "ad astra", "versicolor"]
    given = pd.Series(pd.Categorical(NAMES, categories=order))
    objective = network(n_out=4).objective(X, given)
    assert objective.classes == tuple(order)
    assert objective.target.argmax(1).tolist() == [1, 0, 1, 2]
    # numbers may be categories too
    numbers = pd.Categorical([10, 30, 10, 20])
    objective = network().objective(X, numbers)
    assert objective.classes == (10, 20, 30) and objective.target.argmax(1).tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize("error", ["squared_error", "binary_cross_entropy", "cross_entropy"])
def test_every_error_has_a_one_at_the_output_of_the_class(error):
    objective = network(error).objective(X, NAMES)
    np.testing.assert_array_equal(objective.target, np.eye(3)[CODES])


@pytest.mark.parametrize("targets", [[True, False, True, True], ["yes", "no", "yes", "yes"]])
def test_two_classes_are_one_output_or_two(targets):
    one = network("binary_cross_entropy", 1).objective(X, targets)
    two = network("cross_entropy", 2).objective(X, pd.Series(targets))
    assert one.classes == two.classes == tuple(sorted(set(targets)))
    assert one.target.tolist() == [[1.0], [0.0], [1.0], [1.0]]
    assert two.target.argmax(1).tolist() == [1, 0, 1, 1]


def test_truth_values_are_two_classes_even_if_one_of_them_does_not_occur():
    objective = network(n_out=2).objective(X, np.ones(4, dtype=bool))
    assert objective.classes == (False, True) and objective.target.argmax(1).tolist() == [1] * 4


@pytest.mark.parametrize(
    "names, message",
    [
        (["a"] * 4, "target names 1 class (a) but a single output tells two apart"),
        (pd.Categorical(["a"] * 4), "target names 1 class (a) but a single output"),
        (NAMES[:4], "target names 3 classes"),
    ],
)
def test_a_single_output_needs_the_names_of_two_classes(names, message):
    with pytest.raises(InputError) as mistake:
        network("binary_cross_entropy", 1).objective(X, names)
    assert message in str(mistake.value) and "\n" not in str(mistake.value)
    both = pd.Categorical(["a"] * 4, ["a", "b"])
    assert not network("binary_cross_entropy", 1).objective(X, both).target.any()


def test_numbers_for_a_single_output_are_a_column():
    y = pd.Series([0.5, -1.0, 2.0, 0.0])
    objective = network("squared_error", 1).objective(X, y)
    assert objective.classes == () and objective.target.tolist() == [[0.5], [-1.0], [2.0], [0.0]]
    # a frame of numbers is a table of targets
    table = pd.DataFrame({"u": y, "v": -y, "w": y})
    assert (network("squared_error").objective(X, table).target == table.to_numpy()).all()


def test_nullable_numbers_are_numbers():
    x = pd.DataFrame(X).convert_dtypes()
    y = pd.Series(CODES, dtype="Int64")
    objective = network().objective(x, y)
    np.testing.assert_array_equal(objective.x, X)
    np.testing.assert_array_equal(objective.target, np.eye(3)[CODES])


@pytest.mark.parametrize(
    "inputs, targets, message",
    [
        (X, ["a", None, "b", "c"], "target[1] is missing (1 such entries)"),
        (X, ["a", "b", "c", float("nan")], "target[3] is missing"),
        (X, pd.Series(["a", "b", pd.NA, "c"], dtype="string"), "target[2] is missing"),
        (X, pd.Categorical(["a", None, "b", "c"]), "target[1] is missing"),
        (X, ["a", 1, "b", "c"], "target mixes int and str: name all classes by texts"),
        (X, ["a", "b", "a", "b"], "target names 2 classes (a, b) but the network has 3 outputs"),
        (X, list("abcd"), "target names 4 classes (a, b, c, d) but the network has 3 outputs"),
        (X, [1, 2, 3, 3], "target holds class numbers outside 0..2"),
        (X, ["a", "b", "c"], "target has shape (3, 3), but must be (4, 3)"),
        (X, [["a", "b"], ["c"], [], []], "target cannot be read as an array of real numbers"),
        (X, np.array([["a", "b"]] * 4), "target cannot be read as an array of real numbers"),
        (pd.DataFrame(X).where(X > 0), CODES, "x[0, 0] = nan is not finite (3 such entries)"),
        (pd.DataFrame({"a": NAMES, "b": 1}), CODES, "x cannot be read as an array of real numbers"),
    ],
)
def test_what_cannot_be_a_target_is_one_line(inputs, targets, message):
    with pytest.raises(InputError) as mistake:
        network().objective(inputs, targets)
    assert message in str(mistake.value) and "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    "net",
    [
        network(),
        DAG(
            5,
            [(0, 2), (1, 3), (0, 4)],
            inputs=[0, 1],
            outputs=[2, 3, 4],
            activation="linear",
            error="cross_entropy",
        ),
        Recurrent(5, inputs=[0, 1], outputs=[2, 3, 4], error="squared_error"),
    ],
    ids=lambda net: type(net).__name__,
)
def test_every_kind_of_network_takes_names_and_pickles_and_splits(net):
    objective = net.objective(X, NAMES)
    assert objective.classes == objective.with_decay(0.1).classes == CLASSES
    w = net.init(0)
    for other in (pickle.loads(pickle.dumps(objective)), objective.subset(np.arange(4))):
        assert other.error(w) == objective.error(w)


def test_pandas_is_not_loaded_for_names():
    code = (
        "import sys, perturb; perturb.MLP([1, 2], error='cross_entropy').objective([[0.], [1.]],"
        " ['a', 'b']); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
