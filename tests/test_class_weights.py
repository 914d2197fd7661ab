"""Weights of classes in the error: E = sum c_s E_s / sum c_s, the same in every engine."""

import numpy as np
import pandas as pd
import pytest
from shown import fact
from sklearn.utils.class_weight import compute_class_weight

import sims
from hardware import load_chip
from hardware.training import source
from perturb import DAG, MLP, InputError, Recurrent, estimate
from perturb.training.exact import Exact
from perturb.training.loop import begin, train
from perturb.training.plan import Plan
from perturb.training.sources import Batch
from sims.data.classes import class_weights, weighted_targets
from sims.experiment.loading import load_experiment
from sims.problem import prepare

C = np.array([1.0, 3.0, 0.25])
EDGES = [(i, j) for i in range(4) for j in (4, 5)] + [(i, j) for i in (4, 5) for j in (6, 7, 8)]
NETWORKS = {
    "mlp": MLP([4, 5, 3], error="cross_entropy"),
    "dag": DAG(
        9, EDGES, inputs=range(4), outputs=[6, 7, 8], activation="linear", error="cross_entropy"
    ),
    "recurrent": Recurrent(
        7,
        inputs=range(4),
        outputs=[4, 5, 6],
        activation={**dict.fromkeys(range(4), "tanh"), **dict.fromkeys((4, 5, 6), "linear")},
        error="cross_entropy",
    ),
}


@pytest.fixture(scope="module")
def patterns():
    rng = np.random.default_rng(0)
    return rng.standard_normal((24, 4)), np.repeat([0, 1, 2], (14, 7, 3))


def objectives(network, patterns):
    """With weights; without; and the weight of every pattern, of mean 1."""
    x, labels = patterns
    target = np.eye(3)[labels]
    plain, weighted = (
        network.objective(x, target),
        network.objective(x, weighted_targets(target, C)),
    )
    return weighted, plain, C[labels] / C[labels].mean()


@pytest.mark.parametrize("name", NETWORKS)
def test_error_gradient_and_product_are_weighted_means_of_those_of_the_patterns(name, patterns):
    network = NETWORKS[name]
    weighted, plain, c = objectives(network, patterns)
    w = 0.1 * np.random.default_rng(1).standard_normal(network.n_weights)
    v = np.random.default_rng(2).standard_normal(network.n_weights)
    each = [plain.pattern(s).error_gradient_hvp(w, v) for s in range(24)]
    E, g, z = weighted.error_gradient_hvp(w, v)
    for found, part in ((E, 0), (g, 1), (z, 2)):
        wanted = sum(c[s] * each[s][part] for s in range(24)) / 24
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weighted.pattern_errors(w), c * plain.pattern_errors(w), rtol=1e-12)
    # what trials read, by another path of the code
    points = w + 0.01 * np.random.default_rng(3).standard_normal((3, w.size))
    np.testing.assert_allclose(
        weighted.errors_at(points), c * plain.errors_at(points), rtol=1e-9, atol=1e-13
    )
    # it is another error than the plain one, and not a multiple of it
    assert abs(np.corrcoef(g, plain.gradient(w))[0, 1]) < 0.999


def test_some_of_the_patterns_keep_their_weights(patterns):
    weighted, plain, c = objectives(NETWORKS["mlp"], patterns)
    w, rows = NETWORKS["mlp"].init(0), np.array([1, 20, 23])
    np.testing.assert_allclose(
        weighted.subset(rows).pattern_errors(w), c[rows] * plain.pattern_errors(w)[rows], rtol=1e-12
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_estimates_of_every_kernel_are_of_the_weighted_error(patterns, precision):
    weighted, plain, _ = objectives(NETWORKS["mlp"], patterns)
    w, v = NETWORKS["mlp"].init(0), np.random.default_rng(2).standard_normal(weighted.n_weights)
    found = estimate(
        weighted, w, v, 64, method="difference", code="walsh", seed=3, precision=precision
    )
    # a whole period: what is left is of second order in sigma = 0.01, and rounding of float32
    g, z = weighted.gradient(w), weighted.hvp(w, v)
    assert np.linalg.norm(found.gradient - g) < 1e-3 * np.linalg.norm(g)
    assert np.linalg.norm(found.hv - z) < 2e-2 * np.linalg.norm(z)
    assert np.linalg.norm(found.gradient - plain.gradient(w)) > 0.1 * np.linalg.norm(g)


def test_one_pattern_at_a_time_gives_the_weighted_error_in_the_mean(patterns):
    weighted, plain, _ = objectives(NETWORKS["mlp"], patterns)
    w, v = NETWORKS["mlp"].init(0), np.ones(weighted.n_weights)
    found = estimate(
        weighted,
        w,
        v,
        20_000,
        method="difference",
        code="rademacher",
        seed=3,
        precision="float64",
        presentation="pattern",
    )
    z, other = (
        (found.gradient - objective.gradient(w)) / found.gradient_stderr
        for objective in (weighted, plain)
    )
    assert np.abs(z).max() < 5 < np.abs(other).max()


def after(made, W, updates):
    state = begin(W, made.plan)
    for _ in train(made, state, updates, 1000):
        pass
    return state.w


def test_training_in_float32_float64_events_and_by_exact_kernels_is_one_course(patterns):
    weighted, plain, _ = objectives(NETWORKS["mlp"], patterns)
    W = np.array([NETWORKS["mlp"].init(seed) for seed in range(2)])
    plan = Plan(eta=0.3, seed=4)
    float64 = after(Batch(weighted, plan, precision="float64"), W, 12)
    # rounding of float32 readings, 1e-7 E/sigma in every step
    np.testing.assert_allclose(
        after(Batch(weighted, plan, precision="float32"), W, 12), float64, atol=2e-3
    )
    events = source(load_chip("ideal"), weighted, plan, W, events=True)
    np.testing.assert_allclose(after(events, W, 12), float64, atol=1e-9)
    # an update by the compiled gradient, by the plain one, and by hand
    kernel, slow = Exact(weighted, plan), Exact(weighted, plan)
    assert kernel.compiled
    slow.compiled = False
    for made in (kernel, slow):
        by_hand = np.array([w - 0.3 * weighted.gradient(w) for w in W])
        np.testing.assert_allclose(after(made, W, 1), by_hand, atol=1e-12)
    # some patterns at a time: the same weights
    few = Plan(eta=0.3, seed=4, batch=5)
    np.testing.assert_allclose(
        after(Batch(weighted, few, precision="float32"), W, 12),
        after(Batch(weighted, few, precision="float64"), W, 12),
        atol=2e-3,
    )
    assert not np.allclose(
        after(Batch(plain, plan, precision="float64"), W, 12), float64, atol=0.01
    )


def test_balanced_is_that_of_scikit_learn_and_a_table_leaves_the_others_at_one(patterns):
    _, labels = patterns
    target, names = np.eye(3)[labels], ("a", "b", "c")
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", target, names), wanted)
    assert class_weights({"b": 5.0}, target, names).tolist() == [1.0, 5.0, 1.0]
    # a class of which there is nothing to learn from
    assert class_weights("balanced", target[:21], names).tolist() == [21 / 42, 21 / 21, 1.0]
    # sum c_s E_s / sum c_s has as much of each class
    scaled = weighted_targets(target, class_weights("balanced", target, names))
    np.testing.assert_allclose(scaled.sum(0), [8.0, 8.0, 8.0])


# ---- in an experiment


@pytest.fixture
def rare(tmp_path):
    """One pattern in ten is a fault, which looks nearly as the others do."""
    rng = np.random.default_rng(5)
    fault = np.arange(400) % 10 == 0
    x = rng.standard_normal((400, 2)) + 1.2 * fault[:, None]
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "state": np.where(fault, "fault", "fine")})
    table.to_csv(tmp_path / "states.csv", index=False)
    return {
        "network.layers": [2, 2],
        "network.error": "cross_entropy",
        "network.output": "linear",
        "data.name": "file",
        "data.file": str(tmp_path / "states.csv"),
        "data.targets": "state",
        "data.samples": 200,
        "data.test": 200,
        "training.runs": 2,
        "training.updates": 400,
        "training.records": 4,
        "training.eta": 0.3,
        "training.compare_with": [],
    }


def test_weights_of_classes_find_the_rare_one(rare):
    plain = sims.run_experiment("xor-learning", rare)
    balanced = sims.run_experiment("xor-learning", {**rare, "data.class_weight": "balanced"})

    def found(run):
        own = run.classes[run.classes["patterns"] == "held back"].set_index(["source", "class"])
        return own["recall"].groupby(level=[0, 1]).mean()

    for learner in ("batch", "exact"):
        # 9 of 20 and 16 of 20
        assert found(plain)[learner, "fault"] + 0.2 < found(balanced)[learner, "fault"]
        balance = [fact(run, "test_balanced_accuracy", learner) for run in (plain, balanced)]
        assert balance[0] + 0.05 < balance[1]
        assert fact(balanced, "test_accuracy", learner) < fact(plain, "test_accuracy", learner)


def test_what_is_held_back_is_judged_by_the_same_weights(rare):
    set = {**rare, "data.class_weight": {"fault": 4.0}, "training.updates": 2}
    run = sims.run_experiment("xor-learning", set)
    problem = prepare(load_experiment("xor-learning", rare))
    experiment = load_experiment("xor-learning", set)
    parts = sims.data.load_split(experiment.data, 2, 2)
    first = run.learning[(run.learning["source"] == "batch") & (run.learning["run"] == 0)].iloc[0]
    for column, x, target in (("error", *parts[:2]), ("test_error", *parts[2:])):
        # classes in sorted order: fault, fine
        c = np.where(target[:, 0] == 1, 4.0, 1.0)
        E = problem.network.objective(x, target).pattern_errors(prepare(experiment).w)
        assert first[column] == pytest.approx((c * E).sum() / c.sum(), rel=1e-12)


@pytest.mark.parametrize(
    "name, set, message",
    [
        ("letters", {"data.class_weight": "balanc"}, 'class_weight = "balanc" must be "balanced"'),
        ("letters", {"data.class_weight": {"N": 0}}, "or a table of numbers > 0"),
        ("letters", {"data.class_weight": {"Q": 2.0}}, "class_weight: class = 'Q' is unknown"),
        (
            "letters",
            {"data.class_weight": "balanced", "network.error": "squared_error"},
            'data.class_weight is for network.error = "cross_entropy", not "squared_error"',
        ),
        ("xor", {"data.class_weight": "balanced"}, 'does not go with name = "xor", only with'),
    ],
)
def test_a_mistake_is_one_line(name, set, message):
    given = {"network.error": "cross_entropy", "network.output": "linear"} | set
    given = given if name == "letters" else set
    with pytest.raises(InputError) as caught:
        sims.run_experiment(f"{name}-learning", given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_weights_come_back_from_the_stored_experiment(rare, tmp_path):
    set = {**rare, "data.class_weight": {"fault": 4.0}, "training.updates": 2}
    run = sims.run_experiment("xor-learning", set, out=tmp_path / "run")
    assert load_experiment(tmp_path / "run" / "experiment.toml") == run.experiment
