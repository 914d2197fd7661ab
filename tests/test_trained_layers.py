"""Some of the weights: blocks of curvature, and learning with the other layers frozen."""

import pickle
import time

import numpy as np
import pandas as pd
import pytest
from chips import params
from fast import fast

import hardware
import perturb
import sims
from hardware.training import held_weights, source
from perturb import DAG, MLP, Boltzmann, InputError, Layers, Objective, Recurrent, curvature
from perturb.estimation.engine import Mismatch
from perturb.training import Batch, Exact, OfRuns, Plan, State, begin, train
from perturb.training.rules import RULES
from perturb.trial.readout import Reading
from sims.experiment.loading import load_experiment
from sims.problem import prepare, starts_of, warmed_up
from sims.studies.training.sharing import Helpers, Shared, shared
from sims.studies.training.task import plan_of

EDGES = [(0, 2), (1, 2), (0, 3), (2, 3), (2, 4), (3, 4), (0, 4)]
RESIDUAL = ["conv1d 2 1", "residual(conv1d 2 1; tanh; conv1d 2 1 | batchnorm)", "flatten", "tanh"]
NETWORKS = {
    "mlp": (MLP([3, 4, 2]), [1] * 16 + [2] * 10),
    "cross-entropy": (MLP([3, 2, 2, 2], error="cross_entropy"), [1] * 8 + [2] * 6 + [3] * 6),
    # levels of the neurons that edges lead to; the last edge is the first one again
    "dag": (DAG(5, EDGES, [0, 1], [4], tied=[0, 1, 2, 3, 4, 5, 0]), [1, 1, 2, 2, 3, 3]),
    # the path of the sum, then its shortcut
    "layers": (
        Layers([1, 3], [*RESIDUAL, "linear 2"]),
        [1] * 4 + [2] * 6 + [3] * 6 + [4] * 4 + [5] * 14,
    ),
}


def task(name, seed=0, patterns=4):
    rng = np.random.default_rng(seed)
    network = NETWORKS[name][0]
    target = rng.random((patterns, network.n_outputs))
    if network.error == "cross_entropy":
        target /= target.sum(1, keepdims=True)
    objective = network.objective(rng.standard_normal((patterns, network.n_inputs)), target)
    return objective, rng.standard_normal(network.n_weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_of_each_weight(name):
    network, layers = NETWORKS[name]
    assert network.weight_layers().tolist() == layers
    assert task(name)[0].with_decay(0.1).weight_layers().tolist() == layers


def test_networks_without_layers_and_functions_have_layer_0():
    for objective in (
        relaxing(),
        Boltzmann(2, 1).objective([[0, 1]]),
        Objective.from_functions(sum, n_weights=3),
    ):
        assert (objective.weight_layers() == np.zeros(objective.n_weights)).all()


def relaxing():
    return Recurrent(3, [2], inputs=[0, 1]).objective(np.eye(2), [[0.1], [0.2]])


# ---- E as a function of some of the weights


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_restricted_objective_is_the_whole_one_at_these_weights(name, decay):
    whole, w = task(name)
    whole = whole.with_decay(decay) if decay else whole
    some = whole.of_layers([2], w)
    free = np.flatnonzero(whole.weight_layers() == 2)
    x = np.random.default_rng(1).standard_normal((3, free.size))
    points = np.tile(w, (3, 1))
    points[:, free] = x
    V = np.zeros((w.size, 2))
    V[free] = x[:2].T
    assert (some.n_weights, some.n_macs, some.depth) == (free.size, whole.n_macs, whole.depth)
    assert some.error(x[0]) == whole.error(points[0])
    for found, expected in (
        (some.whole_weights(x), points),
        (some.whole_weights(x[1]), points[1]),
        (some.pattern_errors(x[0]), whole.pattern_errors(points[0])),
        (some.errors_at(x), whole.errors_at(points)),
        (some.gradient(x[0]), whole.gradient(points[0])[free]),
        (some.gradients(x), whole.gradients(points)[:, free]),
        (some.hvp(x[0], x[:2].T), whole.hvp(points[0], V)[free]),
        (some.hvp(x[0], x[1]), whole.hvp(points[0], V[:, 1])[free]),
        (
            some.gauss_newton_product(x[0], x[1]),
            whole.gauss_newton_product(points[0], V[:, 1])[free],
        ),
        (some.subset([1, 3]).gradient(x[0]), whole.subset([1, 3]).gradient(points[0])[free]),
        (some.weight_layers(), np.full(free.size, 2)),
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(
        some.hessian(x[0]), whole.hessian(points[0])[np.ix_(free, free)], rtol=0, atol=1e-15
    )
    again = pickle.loads(pickle.dumps(some))
    np.testing.assert_array_equal(again.hvp(x[0], x[1]), some.hvp(x[0], x[1]))


def test_data_and_outputs_pass_through_and_what_is_held_is_a_copy():
    net = MLP([2, 3, 2], error="cross_entropy")
    whole = net.objective(np.eye(2), ["no", "yes"])
    w = net.init(0)
    some = whole.of_layers([2], w)
    at = w[9:].copy()
    before = some.error(at)
    w[:] = 7.0
    assert some.error(at) == before and some.classes == ("no", "yes")
    np.testing.assert_array_equal(some.target, whole.target)
    np.testing.assert_array_equal(some.outputs(at), whole.outputs(some.whole_weights(at)))
    assert some.unrestricted is whole and whole.unrestricted is whole
    np.testing.assert_array_equal(whole.whole_weights(w), w)


def test_all_layers_are_the_objective_itself_and_fewer_can_be_restricted_again():
    whole, w = task("cross-entropy")
    assert whole.of_layers([3, 1, 2], w) is whole
    assert whole.restricted(np.arange(w.size), w) is whole
    two = whole.of_layers([1, 3], w)
    one = two.of_layers([3], w[two.held.free])
    at = np.arange(6.0)
    np.testing.assert_array_equal(one.gradient(at), whole.of_layers([3], w).gradient(at))
    np.testing.assert_array_equal(one.whole_weights(at), np.r_[w[:14], at])
    # any weights, in any order
    some = whole.restricted(np.array([5, 0]), w)
    np.testing.assert_array_equal(some.gradient(w[[5, 0]]), whole.gradient(w)[[5, 0]])


def test_estimates_and_theory_are_of_the_free_weights():
    whole, w = task("mlp")
    some = whole.of_layers([2], w)
    v = np.ones(10)
    settings = dict(method="difference", code="walsh", sigma=1e-3, r=1e-3)
    # E is quadratic in the last, linear layer: one period of 16, for 10 weights, is exact
    estimate = perturb.estimate(some, w[16:], v, trials=16, **settings)
    np.testing.assert_allclose(estimate.gradient, whole.gradient(w)[16:], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(estimate.hv, whole.hessian(w)[16:, 16:] @ v, rtol=1e-5, atol=1e-6)
    assert perturb.predict(some, w[16:], v, **settings).hv.cosine(16) == pytest.approx(1.0)


# ---- curvature of a block


@pytest.mark.parametrize("layers", [[1], [2], [2, 1], (3,), [1, 3]], ids=str)
def test_curvature_is_that_of_the_block_of_the_dense_hessian(layers):
    objective, w = task("cross-entropy")
    free = np.flatnonzero(np.isin(objective.weight_layers(), layers))
    H = objective.hessian(w)[np.ix_(free, free)]
    values = np.linalg.eigvalsh(H)
    at = dict(rtol=1e-9, atol=1e-12)
    pairs = curvature.eigenpairs(objective, w, k=3, layers=layers)
    np.testing.assert_allclose(pairs.values, values[-3:], **at)
    np.testing.assert_allclose(H @ pairs.vectors, pairs.vectors * pairs.values, rtol=0, atol=1e-12)
    assert curvature.trace(objective, w, layers=layers).value == pytest.approx(np.trace(H))
    found = curvature.diagonal(objective, w, layers=layers)
    np.testing.assert_allclose(found.value, np.diag(H), **at)
    assert found.n_products == free.size
    density = curvature.spectral_density(objective, w, probes=4, layers=layers)
    assert density.n == free.size
    # as many steps as weights: every probe integrates exactly, weighted by its own signs
    one = density.integrate(np.ones_like)
    assert one.value == pytest.approx(free.size)
    assert density.nodes.max() == pytest.approx(values[-1], rel=1e-6)
    top = curvature.power_iteration(objective, w, tolerance=1e-8, layers=layers, max_products=9999)
    assert abs(top.values[0]) == pytest.approx(np.abs(values).max(), rel=1e-6)
    np.testing.assert_allclose(
        curvature.obd_saliencies(objective, w, layers=layers), np.diag(H) * w[free] ** 2 / 2, **at
    )
    damped = H + np.eye(free.size)
    kept = curvature.obs_saliencies(objective, w, damping=1.0, layers=layers).value
    np.testing.assert_allclose(kept, w[free] ** 2 / (2 * np.diag(np.linalg.inv(damped))), rtol=1e-5)
    step = curvature.newton_step(
        objective, w, damping=1.0, tolerance=1e-10, max_products=200, layers=layers
    )
    np.testing.assert_allclose(
        step.p, np.linalg.solve(damped, -objective.gradient(w)[free]), rtol=1e-7
    )


TOOLS = {
    "eigenpairs": curvature.eigenpairs,
    "power_iteration": curvature.power_iteration,
    "spectral_density": curvature.spectral_density,
    "trace": curvature.trace,
    "diagonal": curvature.diagonal,
    "obd_saliencies": curvature.obd_saliencies,
    "obs_saliencies": curvature.obs_saliencies,
    "newton_step": curvature.newton_step,
}
WRONG = [
    ([], r"layers = \[\] must be a list of at least one layer number"),
    ([0], "layers names layer 0, but layers that have weights are 1 to 3"),
    ([1, 4], "layers names layer 4, but layers that have weights are 1 to 3"),
    ([2, 1, 2], r"layers = \[2, 1, 2\] names a layer twice: name it once"),
    ([1.0], "must be a list of at least one layer number"),
    (2, "must be a list of at least one layer number"),
    ("all", "must be a list of at least one layer number"),
]


@pytest.mark.parametrize("tool", fast(list(TOOLS), "trace"))
@pytest.mark.parametrize("layers, message", WRONG, ids=lambda part: str(part)[:12])
def test_layers_that_are_not_there_are_one_clear_line(tool, layers, message):
    objective, w = task("cross-entropy")
    with pytest.raises(InputError, match=message) as caught:
        TOOLS[tool](objective, w, layers=layers)
    assert "\n" not in str(caught.value)


def test_a_layer_that_shares_all_its_weights_has_none_to_choose():
    edges = [(0, 1), (1, 2), (2, 3)]
    network = DAG(4, edges, [0], [3], tied=[0, 0, 1])
    objective, w = network.objective(np.ones((2, 1)), np.ones((2, 1))), network.init(0)
    assert network.weight_layers().tolist() == [1, 3]
    assert objective.of_layers([3], w).n_weights == 1
    with pytest.raises(InputError, match="names layer 2, but layers that have weights are 1, 3"):
        objective.of_layers([2], w)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda o, w: relaxing().of_layers([1], np.zeros(9)), "the network has no layers"),
        (lambda o, w: o.restricted([1, 20], w), "weights names weight 20, which does not exist"),
        (lambda o, w: o.restricted([1, 1], w), "names a weight twice"),
        (lambda o, w: o.restricted([], w), "must be a list of at least one weight number"),
        (lambda o, w: o.of_layers([1], w[1:]), "w has "),
        (lambda o, w: o.of_layers([1], w).error(w), r"must be \(8,\): 8 weights are free"),
    ],
)
def test_weights_that_are_not_there_are_one_clear_line(call, message):
    objective, w = task("cross-entropy")
    with pytest.raises(InputError, match=message) as caught:
        call(objective, w)
    assert "\n" not in str(caught.value)


# ---- learning, with the other layers frozen


def frozen(name="mlp", layer=2, runs=2):
    """The whole objective, the starts (R, n) of runs that hold other weights each, the numbers of
    the free weights and E of each run.
    """
    whole, _ = task(name)
    W = np.random.default_rng(5).standard_normal((runs, whole.n_weights)) / 2
    free = np.flatnonzero(whole.weight_layers() == layer)
    return whole, W, free, OfRuns(whole, free, W)


def test_exact_updates_are_those_of_the_gradient_of_the_free_weights_to_the_bit():
    whole, W, free, of_runs = frozen()
    plan = Plan(eta=0.1)
    made = Exact(of_runs, plan)
    state = begin(W[:, free], plan)
    made.advance(state, 5)
    for run, w in enumerate(W.copy()):
        for _ in range(5):
            w[free] -= 0.1 * whole.gradient(w)[free]
        np.testing.assert_array_equal(state.w[run], w[free])
    assert state.update == 5


def test_trials_over_whole_periods_are_exact_where_E_is_quadratic_in_the_free_layer():
    _, W, free, of_runs = frozen()
    # a small sigma: in float64
    plan = Plan(code="walsh", trials_per_update=16, eta=0.2, sigma=1e-4)
    state, exact = begin(W[:, free], plan), begin(W[:, free], plan)
    source(params({}), of_runs, plan, W[:, free]).advance(state, 6)
    Exact(of_runs, plan).advance(exact, 6)
    np.testing.assert_allclose(state.w, exact.w, rtol=0, atol=1e-9)
    assert np.abs(state.w - W[:, free]).max() > 0.01


CHIPS = {
    "ideal": {},
    "levels": {"weights.bits": 6},
    "leak": {"weights.leak_tau_s": 0.1},
    "noise": {"error_unit.noise": 0.01, "weights.read_noise": 0.01},
    "neurons": {"neuron.gain_mismatch": 0.1, "neuron.saturation": 0.9, "neuron.noise": 0.01},
    "stuck": {"weights.stuck_fraction": 0.3, "perturbation.gain_mismatch": 0.1},
}


@pytest.mark.parametrize("chip", fast(list(CHIPS), "ideal", "leak", "neurons"))
@pytest.mark.parametrize("rule", fast(sorted(RULES), "plain", "newton-cg"))
def test_events_and_batches_learn_some_layers_alike(chip, rule):
    _, W, free, of_runs = frozen()
    noise = CHIPS[chip].get("error_unit.noise", 0.0)
    method = "difference" if RULES[rule].z else "central"
    # a small sigma: in float64
    settings = dict(method=method, sigma=5e-4, cg_steps=2, reading=Reading(noise))
    plan = Plan(eta=0.05, rule=rule, **settings)
    states = []
    for events in (False, True):
        made = source(params(CHIPS[chip]), of_runs, plan, W[:, free], events)
        state = begin(W[:, free], plan)
        made.advance(state, 3)
        # stored, and gone on from
        state = State.of_arrays(state.arrays())
        made = source(params(CHIPS[chip]), of_runs, plan, W[:, free], events)
        made.resume(state)
        made.advance(state, 3)
        assert held_weights(made, state)[0].shape == (2, free.size)
        states.append(state)
    # rounding of E, 1e-16, over sigma^2 r, which rules that divide by z or solve multiply
    np.testing.assert_allclose(states[0].w, states[1].w, rtol=1e-6, atol=1e-8)
    # keep-if-better moves by eta sigma at a time
    assert np.abs(states[0].w - W[:, free]).max() > 5e-5


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("code", ["rademacher", "walsh", "gaussian", "ternary", "sequential"])
def test_the_kernel_learns_some_layers_as_the_loop_does(code, layer):
    _, W, free, of_runs = frozen(layer=layer)
    settings = dict(rule="momentum", batch=2, sample_every=3, longest_step=0.3, average_from=3)
    plan = Plan(code=code, eta=0.02, sigma=0.05, reading=Reading(0.01), **settings)
    mismatch = Mismatch(*(0.9 + 0.2 * np.random.default_rng(3).random((2, *W[:, free].shape))))
    found = []
    for precision in ("float32", "float64"):
        state = begin(W[:, free], plan)
        Batch(of_runs, plan, precision=precision, mismatch=mismatch).advance(state, 12)
        found.append((state.w, state.memory["mean"]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-4)
        assert np.abs(one - W[:, free]).max() > 0.01


PLANS = {
    "plain": {},
    "small batches": {"batch": 2, "sample_every": 2},
    "trace": {"rate": "trace", "eta": 0.3},
    "eigenvalue": {"rate": "eigenvalue", "eta": 0.3},
    "line": {"rate": "line", "eta": 0.5},
    "blocked": {"block": 2.0},
    "newton": {"rule": "newton-cg", "method": "difference", "longest_step": 0.1},
}


@pytest.mark.parametrize("plan", fast(list(PLANS), "small batches", "line", "trace"))
@pytest.mark.parametrize("learns", [Batch, Exact])
def test_a_run_of_several_is_the_run_alone_to_the_bit(plan, learns):
    alone_as_with_others(learns, PLANS[plan])


def test_so_it_is_in_the_kernel():
    alone_as_with_others(Batch, {"sigma": 1e-2, "rule": "momentum", "batch": 2})


def alone_as_with_others(learns, options):
    _, W, free, of_runs = frozen(runs=3)
    settings = dict(eta=0.1, reading=Reading(0.01), sigma=1e-4) | options
    both = begin(W[:, free], Plan(**settings))
    learns(of_runs, Plan(**settings)).advance(both, 4)
    alone = Plan(first_run=2, **settings)
    last = begin(W[2:, free], alone)
    learns(of_runs.of_run(2), alone).advance(last, 4)
    np.testing.assert_array_equal(last.w[0], both.w[2])
    assert (both.w != W[:, free]).any()


@pytest.mark.parametrize("chip", ["ideal", "neurons", "leak"])
def test_a_chip_estimates_of_some_layers_alike_by_events_and_in_batches(chip):
    whole, w = task("mlp")
    some, v = whole.of_layers([2], w), np.ones(10)
    found = [
        hardware.Chip(params(CHIPS[chip]), some, w[16:], v, fidelity=fidelity).run(16)
        for fidelity in ("event", "batch")
    ]
    np.testing.assert_allclose(found[0].gradient, found[1].gradient, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[0].hv, found[1].hv, rtol=0, atol=1e-6)
    if chip == "ideal":
        # E is quadratic in the last layer, and 16 trials are a period
        np.testing.assert_allclose(found[0].gradient, whole.gradient(w)[16:], atol=1e-9)


def test_patience_looks_at_E_for_validation_as_each_run_has_it():
    whole, W, free, of_runs = frozen()
    plan = Plan(eta=0.05, patience=1, stop_every=1)
    made = Exact(of_runs, plan)
    other = whole.network.objective(whole.x[::-1] + 0.3, whole.target)
    validation = OfRuns(other, free, W)
    *_, state = train(made, begin(W[:, free], plan), 10, 1, validation=validation)
    for run in range(2):
        best, least = state.memory["best"][run], state.memory["best_error"][run]
        assert least == validation.of_run(run).error(best) != validation.of_run(1 - run).error(best)


# ---- in experiments

QUICK = {
    "training.runs": 2,
    "training.updates": 20,
    "training.records": 4,
    "training.compare_with": [],
}
KINDS = {
    "batch": {},
    "event": {"training.source": "event"},
    "exact": {"training.source": "exact"},
    "devices": {"chip.weights.bits": 6},
    "leak": {"chip.weights.leak_tau_s": 0.01},
    "diagonal": {"training.rule": "diagonal", "estimation.method": "difference"},
    "mean": {"training.average_from": 5},
    "stops": {"training.stop_change": 1e-12, "training.stop_every": 4},
    "calibrated": {"training.calibrate": 4},
    "small batches": {"training.batch": 2},
}


def weights_of(run):
    return run.weights.pivot(index=["source", "run"], columns="index", values="w_exact").to_numpy()


@pytest.mark.parametrize("kind", fast(list(KINDS), "batch", "event", "devices"))
@pytest.mark.parametrize("layer", fast([1, 2], 2))
def test_frozen_weights_are_their_starts_to_the_bit_and_all_weights_are_stored(
    kind, layer, tmp_path
):
    set = {**QUICK, **KINDS[kind], "weights.warmup_updates": 3}
    run = sims.run_experiment(
        "xor-learning", {**set, "training.layers": [layer]}, out=tmp_path / "a"
    )
    problem = prepare(run.experiment)
    starts = np.array(
        [
            warmed_up(w, problem.objective, run.experiment)
            for w in starts_of(problem.network, run.experiment, 2)
        ]
    )
    rest = np.repeat([1, 2], [6, 3]) != layer
    for name, own in run.weights.groupby("source"):
        stored = own.pivot(index="run", columns="index", values="w_stored").to_numpy()
        for w in (own.pivot(index="run", columns="index", values="w_exact").to_numpy(), stored):
            np.testing.assert_array_equal(w[:, rest], starts[:, rest], err_msg=name)
        assert (np.abs(stored - starts)[:, ~rest] > 0).any(), name
        # on no device
        level = own.pivot(index="run", columns="index", values="level").to_numpy()
        assert (level[:, rest] == -1).all()
        assert (level[:, ~rest] >= 0).all() == (kind == "devices" and name != "exact")
    # and the file of all weights gives the errors of the last record
    ends = run.learning.groupby(["source", "run"])["error"].last()
    with np.load(tmp_path / "a" / "weights.npz") as file:
        rows = zip(file["source"], file["run"], file["w_exact"], strict=True)
        for name, number, w in rows:
            assert problem.objective.error(w) == ends[str(name), int(number)]


@pytest.mark.parametrize("kind", fast(list(KINDS), "batch"))
def test_all_layers_named_are_no_key_to_the_bit(kind):
    plain = sims.run_experiment("xor-learning", {**QUICK, **KINDS[kind]})
    named = sims.run_experiment("xor-learning", {**QUICK, **KINDS[kind], "training.layers": [2, 1]})
    pd.testing.assert_frame_equal(plain.learning, named.learning, check_exact=True)
    pd.testing.assert_frame_equal(plain.weights, named.weights, check_exact=True)


def test_alignment_and_advice_are_of_the_free_weights():
    set = {**QUICK, "training.layers": [2], "training.source": "exact", "training.updates": 4}
    run = sims.run_experiment("xor-learning", {**set, "training.records": 4})
    # a step of the exact gradient goes down its own slope, whatever the frozen part of g is
    aligned = run.learning["alignment"].dropna()
    assert len(aligned) == 8 and aligned.to_numpy() == pytest.approx(1.0, abs=1e-12)
    problem = prepare(run.experiment)
    free = np.arange(6, 9)
    H = problem.objective.hessian(problem.w)[np.ix_(free, free)]
    why = run.advice.set_index("setting").loc["training.eta", "why"]
    assert f"all of them to tr H = {np.trace(H):.3g}" in why


@pytest.mark.slow
def test_an_interrupted_training_of_some_layers_goes_on_to_the_same_bits(tmp_path):
    set = {**QUICK, "training.layers": [1], "chip.weights.leak_tau_s": 0.1}
    calls = iter(range(6))
    part = sims.run_experiment(
        "xor-learning", set, scratch=tmp_path, should_stop=lambda: next(calls, None) is None
    )
    assert part.provenance["status"] == "partial"
    whole = sims.run_experiment("xor-learning", set)
    again = sims.run_experiment("xor-learning", set, scratch=tmp_path)
    pd.testing.assert_frame_equal(again.weights, whole.weights, check_exact=True)
    pd.testing.assert_frame_equal(again.learning, whole.learning, check_exact=True)


@pytest.mark.slow
def test_runs_with_frozen_layers_are_shared_out_to_the_same_bits():
    experiment = load_experiment(
        "xor-learning", {"training.layers": [2], "chip.weights.leak_tau_s": 0.1}
    )
    problem = prepare(experiment)
    W = np.array([problem.network.init(seed) for seed in range(4)])
    of_runs = OfRuns(problem.objective, np.arange(6, 9), W)
    plan = plan_of(experiment)
    states = []
    for count in (0, 1):
        with Helpers(count, after_s=0.0) as helpers:
            made = shared(experiment, of_runs, plan, W[:, 6:], helpers)
            assert isinstance(made, Shared)
            state = begin(W[:, 6:], plan)
            made.advance(state, 2)
            while count and not helpers.ready(1.0):
                time.sleep(0.01)
            made.advance(state, 3)
            assert made.is_shared == bool(count)
            states.append((state.w, *made.held(state)))
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("study", ["dies", "ablate"])
def test_dies_and_imperfections_of_a_training_of_some_layers(study):
    set = {
        "dies.count": 2,
        "dies.starts": 2,
        "training.updates": 40,
        "training.records": 3,
        "training.layers": [2],
        "chip.error_unit.noise": 1e-3,
        "chip.weights.leak_tau_s": 0.1,
        "study": {"dies": "learning-dies", "ablate": "learning-ablation"}[study],
    }
    run = sims.run_experiment("xor-learning", set)
    assert np.isfinite(run.summary["value"]).any()


@pytest.mark.parametrize(
    "layers, network, message",
    [
        ([], "xor-learning", "training.layers"),
        (
            [3],
            "xor-learning",
            "training.layers names layer 3, but layers that have weights are 1 to 2",
        ),
        ([0], "xor-learning", "training.layers names layer 0"),
        ([1, 1], "xor-learning", "names a layer twice: name it once"),
        (["a"], "xor-learning", "training.layers"),
        ([1], "recurrent-learning", r"training.layers = \[1\] but the network has no layers"),
    ],
)
def test_trained_layers_that_cannot_be_are_one_clear_line(layers, network, message):
    with pytest.raises(InputError, match=message) as caught:
        sims.run_experiment(network, {**QUICK, "training.layers": layers})
    assert "\n" not in str(caught.value)


def test_learning_of_other_kinds_of_networks_takes_layers():
    run = sims.run_experiment(
        "xor-learning",
        {
            **QUICK,
            "network": {
                "kind": "layers",
                "input": [2],
                "layers": ["linear 3", "tanh", "linear 1"],
            },
            "training.layers": [1],
        },
    )
    assert set(run.weights["layer"]) == {1, 2}
