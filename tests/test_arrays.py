"""Arrays as they are built: their sizes, converters, noise and wires."""

import numpy as np
import pytest
from chips import learned
from fast import fast, thinned
from test_chip import chip_of
from test_layers import NETWORKS, point
from test_layers_on_chip import (
    ARRAYS,
    draws,
    errors_of,
    points_at,
    small_convolution,
    with_array,
)
from test_neurons import ALL

import hardware
import sims
from hardware.arrays import conversions, matrices
from hardware.params import ChipParams
from hardware.parts.crossbar import met_by_inputs
from hardware.parts.draws import ARRAY_NOISE
from perturb import DAG, MLP, Boltzmann, InputError, Layers, Recurrent
from perturb.theory.imperfections import rounding_gain
from perturb.training.plan import Plan
from sims.sweeps.ladder import ladder


def test_conversions_are_those_of_every_array():
    net = Layers([4, 5], ["conv1d 6 2 groups=2", "tanh", "flatten", "linear 3 bias=false"])
    objective = net.objective(np.ones((2, 20)), np.zeros((2, 3)))
    assert [tuple(each) for each in matrices(objective)] == [(4, 1, 3, 2, 4), (24, 0, 3, 1, 1)]
    array = ChipParams().array
    assert conversions(array, objective) == 0
    cut = {"rows": 4, "columns": 2}
    # in arrays of 4 rows and 2 columns: of each group 2 above and 2 beside one another, at 4
    # positions; of the linear layer 6 and 2
    for bits, expected in (
        ({"input_bits": 8}, 2 * 4 * (4 * 2) + 24 * 2),
        ({"output_bits": 8}, 2 * 4 * (3 * 2) + 3 * 6),
    ):
        assert conversions(array.model_copy(update={**cut, **bits}), objective) == expected
        chip = chip_of(
            (objective, net.init(0), np.ones(net.n_weights)),
            with_array(**cut, **bits),
            method="central",
            code="gaussian",
            fidelity="event",
        )
        chip.run(3)
        # and one for the error of each of two patterns
        each_j = chip.params.energy.conversion_j
        assert chip.energy_by_cause["conversion"] == pytest.approx(
            3 * 2 * 2 * (expected + 1) * each_j, rel=1e-12
        )
        assert chip.timing.spent_j(3)[2] == chip.energy_by_cause["conversion"]


@pytest.mark.parametrize("name", thinned([*NETWORKS, "mlp"], 3))
def test_cutting_without_converters_changes_nothing(name):
    if name == "mlp":
        net = MLP([5, 4, 3])
        objective, w = net.objective(np.eye(5), np.ones((5, 3))), net.init(0)
    else:
        objective, w, _ = point(name)
    points = points_at(w)
    whole = errors_of(objective, {}, points)
    np.testing.assert_array_equal(
        errors_of(objective, with_array(rows=2, columns=3), points), whole
    )
    # converters too fine to be felt, so that the parts are summed up one by one
    fine = with_array(output_noise=1e-29, rows=2, columns=3)
    np.testing.assert_allclose(errors_of(objective, fine, points), whole, rtol=1e-11)


@pytest.mark.parametrize(
    "changes, variance",
    [
        # of steps q: q^2/12, of inputs through the weights, of columns of each of two arrays
        ({"input_bits": 6, "input_range": 2.0}, lambda w: (w[:6] @ w[:6]) * (4 / 2**6) ** 2 / 12),
        ({"output_bits": 7, "output_range": 8.0}, lambda w: (16 / 2**7) ** 2 / 12),
        ({"output_bits": 7, "output_range": 8.0, "rows": 4}, lambda w: 2 * (16 / 2**7) ** 2 / 12),
    ],
    ids=["inputs", "outputs", "outputs of parts"],
)
def test_converters_err_by_a_step_over_the_square_root_of_twelve(changes, variance):
    rng = np.random.default_rng(2)
    net, S = MLP([6, 1], activation="linear"), 20_000
    w, x = rng.uniform(0.3, 0.6, 7), rng.uniform(-1.9, 1.9, (S, 6))
    # the squared distance to what an exact array gives
    E = errors_of(net.objective(x, x @ w[:6, None] + w[6]), with_array(**changes), w[None])[0]
    expected = variance(w) / 2
    assert abs(E.mean() - expected) < 5 * E.std() / np.sqrt(S)


def rounded(x, bits, reach):
    step = 2 * reach / 2**bits
    return min(max(step * np.floor(x / step + 0.5), -reach), reach - step)


def naive_sums(array, y, W, b, xi):
    """What the arrays of a layer give for one vector; xi (arrays above one another, outputs)."""
    y = [rounded(each, array.input_bits, array.input_range) for each in y] + [1.0]
    W = np.vstack([W, b])
    out = []
    for j in range(W.shape[1]):
        total = 0.0
        for block, first in enumerate(range(0, len(W), array.rows)):
            rows = range(first, min(first + array.rows, len(W)))
            x = sum(y[i] * W[i, j] for i in rows) + array.output_noise * xi[block, j]
            total += rounded(x, array.output_bits, array.output_range)
        out.append(total)
    return np.array(out)


def test_arrays_are_those_of_the_slow_twin():
    task = small_convolution()
    objective = task[0]
    changes = with_array(
        rows=3, input_bits=4, input_range=2.0, output_bits=5, output_range=1.0, output_noise=0.05
    )
    chip = chip_of(task, changes, seed=4)
    points, keys, S = points_at(task[1]), [(0, 0), (0, 1), (7, 1)], 3
    found = chip.parts.array.errors(0.0, points, keys)
    for w, key, errors in zip(points, keys, found, strict=True):
        kernel, b, W, c = np.split(w, [12, 15, 39])
        # 4 + 1 rows in 2 arrays, at 4 positions; then 12 + 1 in 5
        first = [draws(chip, ARRAY_NOISE, k, S * 4 * 3, *key).reshape(S, 4, 3) for k in range(2)]
        then = [draws(chip, ARRAY_NOISE, 2 + k, S * 2, *key).reshape(S, 2) for k in range(5)]
        for s in range(S):
            x = objective.x[s].reshape(2, 5)
            y = np.empty((3, 4))
            for place in range(4):
                given = x[:, place : place + 2].ravel()
                xi = np.array([each[s, place] for each in first])
                sums = naive_sums(chip.params.array, given, kernel.reshape(3, 4).T, b, xi)
                y[:, place] = np.tanh(sums)
            xi = np.array([each[s] for each in then])
            out = naive_sums(chip.params.array, y.ravel(), W.reshape(12, 2), c, xi)
            assert errors[s] == pytest.approx(0.5 * ((out - objective.target[s]) ** 2).sum())


def nodal(G, rho, y):
    """Currents of the columns of an array, by solving for the voltages of all of its nodes."""
    m, n = G.shape
    row = np.arange(m * n).reshape(m, n)
    column = row + m * n
    A, driven = np.zeros((2 * m * n, 2 * m * n)), np.zeros(2 * m * n)

    def wire(a, b, conductance):
        A[[a, b], [a, b]] += conductance
        A[[a, b], [b, a]] -= conductance

    for i in range(m):
        for j in range(n):
            wire(row[i, j], column[i, j], G[i, j])
            if j:
                wire(row[i, j - 1], row[i, j], 1 / rho)
            if i:
                wire(column[i - 1, j], column[i, j], 1 / rho)
        A[row[i, 0], row[i, 0]] += 1 / rho  # from its driver
        driven[row[i, 0]] = y[i] / rho
    A[column[-1], column[-1]] += 1 / rho  # to the reading, at 0
    return np.linalg.solve(A, driven)[column[-1]] / rho


def test_the_drop_along_wires_is_that_of_the_resistive_network_to_first_order():
    rng = np.random.default_rng(0)
    G, y = rng.random((6, 4)), rng.standard_normal(6)
    wrong, dropped = [], []
    for rho in (1e-3, 1e-4):
        exact = nodal(G, rho, y)
        wrong.append(np.abs(y @ met_by_inputs(G, rho) - exact).max())
        dropped.append(np.abs(y @ G - exact).max())
    # the drop is of first order, what is left of it of second
    assert dropped[0] / dropped[1] == pytest.approx(10, rel=0.05)
    assert wrong[0] / wrong[1] == pytest.approx(100, rel=0.1)
    assert wrong[0] < 0.05 * dropped[0]
    # of a single cell, exact however large: two pieces of wire and the cell in a row
    single = np.array([[0.8]])
    assert met_by_inputs(single, 0.5)[0, 0] == pytest.approx(nodal(single, 0.5, [1.0])[0])
    assert met_by_inputs(single, 0.5)[0, 0] == pytest.approx(1 / (1 / 0.8 + 2 * 0.5))


def test_a_chip_has_cells_of_either_sign_in_arrays_of_their_own():
    net = MLP([3, 4], activation="linear")
    rng = np.random.default_rng(1)
    x, rho, w = rng.standard_normal((5, 3)), 1e-4, net.init(0) + 0.1
    ((W, b),) = net.unpack(w)
    objective = net.objective(x, np.zeros((5, 4)))
    found = errors_of(objective, with_array(wire_resistance=rho, rows=2, columns=3), w[None])[0]
    for s in range(5):
        out = np.zeros(4)
        # rows 0 and 1, then row 2 with the bias; columns 0 to 2, then 3
        for rows in (slice(0, 2), slice(2, 4)):
            G, y = np.vstack([W, b])[rows], [*x[s], 1.0][rows]
            for columns in (slice(0, 3), slice(3, 4)):
                own = G[:, columns]
                out[columns] += nodal(np.maximum(own, 0), rho, y)
                out[columns] -= nodal(np.maximum(-own, 0), rho, y)
        assert found[s] == pytest.approx(0.5 * (out**2).sum(), rel=1e-5)
    ideal = objective.pattern_errors(w)
    assert np.abs(found / ideal - 1).min() > 2e-4  # more than what is left to be wrong


def test_noise_is_that_of_every_array_anew():
    # outputs 0 but for noise, of 4 arrays above one another
    net = MLP([7, 1], activation="linear")
    objective = net.objective(np.ones((400, 7)), np.zeros((400, 1)))
    changes = with_array(output_noise=0.1, rows=2)
    found = errors_of(objective, changes, np.zeros((5, 8)))
    rms = np.sqrt(2 * found.mean())
    assert abs(rms - 0.2) < 5 * 0.2 / np.sqrt(2 * found.size)
    assert len(np.unique(found)) == found.size


def test_many_points_are_the_same_whichever_come_together(monkeypatch):
    objective, w, _ = point("residual")
    points = points_at(w, 5)
    together = errors_of(objective, ALL | ARRAYS, points)
    monkeypatch.setattr("hardware.parts.neurons.MAX_ACTIVITIES", 1)
    np.testing.assert_allclose(errors_of(objective, ALL | ARRAYS, points), together, rtol=1e-12)


@pytest.mark.parametrize(
    "network",
    [
        DAG(3, [(0, 1), (1, 2)], [0], [2], {2: "linear"}),
        Recurrent(2, outputs=[1], inputs=[0]),
        Boltzmann(2),
    ],
    ids=lambda network: type(network).__name__,
)
@pytest.mark.parametrize("key", ["input_bits", "output_bits", "output_noise", "wire_resistance"])
def test_a_network_that_is_not_cut_into_arrays_is_refused_in_one_line(network, key):
    boltzmann = isinstance(network, Boltzmann)
    objective = network.objective([0.25] * 4) if boltzmann else network.objective([[1.0]], [[1.0]])
    n, name = network.n_weights, type(network).__name__
    with pytest.raises(InputError, match=f"^array.{key} = 1(.0)? but a {name} is not cut into"):
        chip_of((objective, np.zeros(n), np.ones(n)), with_array(**{key: 1}))
    # sizes alone change nothing
    chip_of((objective, np.zeros(n), np.ones(n)), with_array(rows=2))


def test_layers_that_do_not_learn_stand_in_arrays_too():
    objective, w, v = small_convolution()
    held = objective.of_layers([2], w)
    # all but the kernel and its biases
    points = points_at(w[15:])
    found = errors_of(held, ALL | ARRAYS, points)
    whole = held.whole_weights(points)
    np.testing.assert_allclose(found, errors_of(objective, ALL | ARRAYS, whole), rtol=1e-12)
    assert held.n_weights == 26
    net = DAG(4, [(0, 1), (1, 2), (2, 3)], [0], [3], {3: "linear"})
    some = net.objective([[1.0]], [[1.0]]).restricted([0], np.ones(3))
    with pytest.raises(InputError, match="a DAG is not cut into arrays"):
        errors_of(some, with_array(output_bits=4), np.ones((1, 1)))


def test_saturated_converters_are_counted_alike_and_taken_away():
    net = MLP([2, 2, 1], activation="linear")
    objective = net.objective([[0.4, 3.0], [0.1, 0.2]], [[0.0], [0.0]])
    w = np.full(9, 0.5)
    changes = with_array(input_bits=8, output_bits=8, output_range=1.0)
    said = []
    for fidelity in ("event", "batch"):
        chip = chip_of((objective, w, w), changes, sigma=1e-3, fidelity=fidelity)
        chip.run(8)
        said.append(chip.incidents)
    # of two patterns: of four inputs of each layer, the 3 alone; of their sums both of
    # the first and of the second the output
    assert said[0] == said[1]
    assert said[0] == [
        "12.5% of the inputs of arrays were beyond the range of their converters",
        "66.7% of the sums of columns were beyond the range of their converters",
    ]
    free = chip.fault_free
    assert (free.array.input_bits, free.array.output_bits) == (28, 28)
    wide = hardware.Chip(free, objective, w, w, sigma=1e-3)
    wide.run(8)
    assert wide.incidents == []


# ---- what coarse converters do to learning


def slope_of(changes, sigma, trials, seed=0):
    """G/g of the weight of one linear neuron at a level of its converter, and its error."""
    objective = MLP([1, 1], activation="linear").objective([[1.0]], [[50.0]])
    options = {"method": "central", "code": "gaussian", "sigma": sigma, "fidelity": "batch"}
    chip = chip_of((objective, np.zeros(2), np.ones(2)), changes, seed=seed, **options)
    estimate = chip.run(trials)
    return estimate.gradient[0] / -50.0, estimate.gradient_stderr[0] / 50.0


@pytest.mark.parametrize("steps", [1.2, 4.0, 6.0])
@pytest.mark.parametrize("noise", fast([0.0, 0.3, 1.0], 0.0, 1.0))
def test_a_coarse_converter_hides_perturbations_unless_dithered_as_foretold(steps, noise):
    # the sum moves by dw of the weight and of the bias: both spread it
    sigma = 0.05
    spread = np.hypot(np.sqrt(2) * sigma, noise * steps * sigma)
    step = steps * np.sqrt(2) * sigma
    changes = with_array(
        output_bits=10, output_range=step * 2**9, output_noise=noise * steps * sigma
    )
    gain, error = slope_of(changes, sigma, 8_000)
    assert abs(gain - rounding_gain(spread, step)) < 4.5 * error
    if not noise:
        assert abs(gain - 1) > 4.5 * error or steps == 1.2


def ends_at(changes, updates):
    """w + b, which is to be 0.9, of a linear neuron that learns from 0 on, in every run."""
    objective = MLP([1, 1], activation="linear").objective([[1.0]], [[0.9]])
    plan = Plan(method="central", code="rademacher", sigma=0.05, eta=1e-3, seed=7)
    state, _ = learned((objective, np.zeros((4, 2))), changes, plan, updates, events=False)
    return state.w.sum(1)


# a step of 1, in the middle of which a perturbation of at most 0.1 changes nothing
WIDE = with_array(output_bits=4, output_range=8.0)


def test_learning_stalls_below_a_step_of_the_columns():
    assert rounding_gain(0.1, 1.0) < 1e-4
    assert (ends_at(WIDE, 50) == 0).all() and (ends_at({}, 50) > 0.05).all()


@pytest.mark.slow
def test_learning_goes_on_below_a_step_of_the_columns_where_noise_dithers():
    assert rounding_gain(np.hypot(0.1, 0.5), 1.0) > 0.98
    # noise of the readings makes the end uncertain
    assert abs(ends_at(WIDE | with_array(output_noise=0.5), 2500).mean() - 0.9) < 0.2
    assert abs(ends_at({}, 2500) - 0.9).max() < 0.02


# ---- what the studies know of them


COARSE = {
    "chip.array.rows": 2,
    "chip.array.output_bits": 6,
    "chip.array.output_noise": 0.05,
    "estimation.code": "rademacher",
    "estimation.trials": 200,
    "estimation.sigma": 0.1,
    "dies.count": 2,
}


@pytest.mark.slow
def test_ablation_names_what_arrays_cost_and_their_size_beside_the_converters():
    run = sims.run_experiment("xor", COARSE | {"study": "ablation"})
    variants = set(run.summary["variant"])
    assert {
        "only array.output_bits",
        "all but array.output_noise",
        "all but array.rows",
    } <= variants
    # without converters the size is nothing
    assert "only array.rows" not in variants


SMALL = {
    "data.samples": 4,
    "network.layers": ["conv2d 1 5", "tanh", "flatten", "linear 10"],
    "weights.warmup_updates": 1,
}


def test_dies_of_a_convolution_in_arrays():
    run = sims.run_experiment("layers", COARSE | SMALL | {"study": "dies"})
    gradient = run.dies[run.dies["quantity"] == "gradient"]
    assert gradient["die"].nunique() == 2 and (gradient["cosine"] > 0.5).all()


def test_layers_learn_in_arrays_alike_by_events_and_in_batches():
    changes = {key: value for key, value in COARSE.items() if "chip" in key} | SMALL
    few = {"study": "training", "training.updates": 6, "training.runs": 2}
    ends = {}
    for source in ("event", "batch"):
        changes["training.source"] = source
        run = sims.run_experiment("layers", changes | few | {"training.control": False})
        ends[source] = run.learning.groupby("run").last()[["error", "chip_time_s", "energy_j"]]
    np.testing.assert_allclose(ends["batch"], ends["event"], rtol=1e-9)


@pytest.mark.parametrize(
    "key, ends",
    [
        ("rows", (0, 1)),
        ("input_bits", (0, 1)),
        ("output_bits", (0, 1)),
        ("output_noise", (0.0, 1e18)),
        ("wire_resistance", (0.0, 1.0)),
    ],
)
def test_requirements_search_from_ideal_to_worst(key, ends):
    values = ladder(f"chip.array.{key}", None, 1)
    assert values[0] == ends[0] and (values[-1] == ends[1] or values[-1] < ends[1])
    assert len(values) > 3
