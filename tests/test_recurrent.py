"""Recurrent networks at their fixed points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import DAG, InputError, Recurrent, compare, curvature, estimate, finite_difference_hvp
from perturb.networks.settling import NotSettled

SMOOTH = ["linear", "logistic", "softplus", "tanh"]


def make(seed=0, activation="tanh", n=5, patterns=4, radius=0.6, **options):
    rng = np.random.default_rng(seed)
    net = Recurrent(n, outputs=[1, 3], activation=activation, **options)
    objective = net.objective(
        rng.standard_normal((patterns, len(net.inputs))), rng.random((patterns, 2))
    )
    return objective, net.init(seed, radius), rng.standard_normal(net.n_weights)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SMOOTH))
def test_gradient_and_hv_of_random_networks(seed, activation):
    objective, w, v = make(seed, activation, radius=0.3)
    u = np.random.default_rng(seed + 1).standard_normal(w.size)
    E, g, z = objective.error_gradient_hvp(w, v)
    assert E == pytest.approx(objective.error(w), rel=1e-14)
    np.testing.assert_allclose(objective.gradient(w), g, atol=1e-13)
    scale = max(1.0, np.abs(z).max())
    np.testing.assert_allclose(z, finite_difference_hvp(objective, w, v), atol=1e-6 * scale)
    assert u @ z == pytest.approx(v @ objective.hvp(w, u), rel=1e-9, abs=1e-10 * scale)
    i, eps = int(np.abs(g).argmax()), 1e-6
    step = eps * np.eye(w.size)[i]
    assert g[i] == pytest.approx(
        (objective.error(w + step) - objective.error(w - step)) / (2 * eps), rel=1e-5, abs=1e-8
    )


@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_units_of_several_activations_and_every_error(error):
    mixed = {0: "logistic", 1: "linear", 2: "softplus", 3: "linear"}
    objective, w, v = make(2, mixed, radius=0.3, error=error)
    relaxed, _, _ = make(2, mixed, radius=0.3, error=error, solver="relax", tolerance=1e-13)
    np.testing.assert_allclose(
        objective.hvp(w, v), finite_difference_hvp(objective, w, v), atol=1e-7
    )
    np.testing.assert_allclose(relaxed.hvp(w, v), objective.hvp(w, v), atol=1e-10)


@pytest.mark.parametrize("activation", SMOOTH)
def test_relaxation_and_direct_solution_agree(activation):
    direct, w, v = make(3, activation, radius=0.4)
    relaxed, _, _ = make(3, activation, radius=0.4, solver="relax", tolerance=1e-13)
    V = np.stack([v, v[::-1]], axis=1)
    for a, b in zip(direct.error_gradient_hvp(w, V), relaxed.error_gradient_hvp(w, V), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10 * max(1, np.abs(b).max()))
    np.testing.assert_allclose(direct.hvp(w, V)[:, 1], direct.hvp(w, v[::-1].copy()), atol=1e-12)


def test_a_network_without_cycles_equals_the_dag():
    edges = [(0, 2), (0, 3), (1, 3), (2, 3), (2, 4), (3, 4)]
    rng = np.random.default_rng(2)
    x, target = rng.standard_normal((6, 2)), rng.standard_normal((6, 1))
    dag = DAG(5, edges, inputs=[0, 1], outputs=[4], activation="tanh").objective(x, target)
    recurrent = Recurrent(5, outputs=[4], inputs=[0, 1]).objective(
        x, target
    )  # inputs have f(0) + I = I
    w, v = rng.standard_normal(6), rng.standard_normal(6)
    place = np.array([5 * i + j for i, j in edges])
    W, V = np.zeros(25), np.zeros(25)
    W[place], V[place] = w, v
    assert recurrent.error(W) == pytest.approx(dag.error(w), rel=1e-13)
    np.testing.assert_allclose(recurrent.gradient(W)[place], dag.gradient(w), atol=1e-13)
    np.testing.assert_allclose(recurrent.hvp(W, V)[place], dag.hvp(w, v), atol=1e-12)


def test_one_linear_unit_in_closed_form():
    # y = w y + I = I/(1-w); E = (y-t)^2/2; E' = (y-t) I/(1-w)^2; E'' = I^2/(1-w)^4 + 2 (y-t)
    # I/(1-w)^3
    objective = Recurrent(1, outputs=[0], activation="linear").objective([[2.0]], [[1.0]])
    w, y = 0.3, 2.0 / 0.7
    np.testing.assert_allclose(objective.gradient([w]), (y - 1) * 2 / 0.7**2)
    np.testing.assert_allclose(objective.hessian([w]), [[4 / 0.7**4 + 2 * (y - 1) * 2 / 0.7**3]])


def test_relaxation_keeps_its_history_and_slows_down_towards_instability():
    def steps(radius):
        objective, w, _ = make(1, "linear", solver="relax")
        W = w.reshape(5, 5)
        W = (W + W.T) / 2  # real eigenvalues
        W *= radius / np.linalg.eigvalsh(W).max()
        if -np.linalg.eigvalsh(W).min() > radius:
            W = -W
        settled = objective.settle(W.ravel())
        assert settled.residuals[-1] <= 1e-10 < settled.residuals[0]
        assert objective.spectral_radius(W.ravel()) == pytest.approx(radius)
        return len(settled.residuals)

    assert steps(0.5) < steps(0.9)


def test_residual_falls_by_the_slowest_time_constant():
    objective, w, _ = make(8, "tanh", radius=0.7, solver="relax", step=0.05, tolerance=1e-12)
    residuals = objective.settle(w).residuals[-150:-20]
    rate = -np.polyfit(0.05 * np.arange(len(residuals)), np.log(residuals), 1)[0]
    assert 1 / rate == pytest.approx(
        objective.time_constant(w), rel=0.1
    )  # step 0.05 is not yet continuous time
    one = Recurrent(1, outputs=[0], activation="linear").objective([[2.0]], [[1.0]])
    assert one.time_constant([0.3]) == pytest.approx(1 / 0.7)


def test_a_network_that_does_not_settle_is_reported_and_never_returned():
    for solver in ("direct", "relax"):
        objective, _, _ = make(0, "linear", solver=solver)
        growing = 1.5 * np.eye(5).ravel()
        for call in (objective.error, objective.gradient, objective.settle):
            with pytest.raises(
                InputError,
                match=r"y has not settled after \d+ steps.*residual.*spectral radius 1.5",
            ):
                call(growing)
    objective, w, v = make(0, "tanh", max_steps=3)
    with pytest.raises(InputError, match="after 3 steps"):
        objective.error(w)


def test_the_slides_misplaced_bracket_gives_a_wrong_gradient():
    # negative control: z = f'(sum w z) + e instead of f'(sum w z + e)
    objective, w, _ = make(4)
    W, y = w.reshape(5, 5), objective.settle(w).y
    df = 1 - np.tanh(y @ W) ** 2
    e = np.zeros_like(y)
    e[:, [1, 3]] = (y[:, [1, 3]] - objective.target) / len(y)
    wrong = np.array([np.linalg.solve(np.eye(5) - df[s][:, None] * W, e[s]) for s in range(len(y))])
    assert np.abs((y.T @ wrong).ravel() - objective.gradient(w)).max() > 0.01


def test_separate_feedback_weights_are_exact_only_if_they_match():
    objective, w, v = make(5)
    same, _, _ = make(5, feedback=w.reshape(5, 5))
    other, _, _ = make(5, feedback=w.reshape(5, 5) * 1.1)
    np.testing.assert_allclose(same.gradient(w), objective.gradient(w), atol=1e-13)
    assert np.abs(other.gradient(w) - objective.gradient(w)).max() > 1e-3
    # Hv is the derivative of what this hardware takes for the gradient
    eps = 1e-5
    np.testing.assert_allclose(
        other.hvp(w, v),
        (other.gradient(w + eps * v) - other.gradient(w - eps * v)) / (2 * eps),
        atol=1e-7,
    )


def test_hv_of_other_wires_is_called_inexact_and_is_not_made_symmetric():
    objective, w, v = make(5)
    assert objective.inexact == () and objective.symmetric
    other = make(5, feedback=np.random.default_rng(0).standard_normal((5, 5)) / 4)[0]
    for inexact in (other, other.with_decay(0.1)):
        assert inexact.inexact == ("gradient", "hvp") and not inexact.symmetric
    H = other.hessian(w)
    np.testing.assert_allclose(H @ v, other.hvp(w, v), atol=1e-12)
    assert np.abs(H - H.T).max() > 1e-3
    with pytest.raises(InputError, match="not symmetric"):
        _ = other.hessian_operator(w).T @ v
    for tool in (
        curvature.eigenpairs,
        curvature.power_iteration,
        curvature.spectral_density,
        curvature.newton_step,
        curvature.obs_saliencies,
        curvature.trace,
    ):
        with pytest.raises(InputError, match="needs a symmetric Hessian"):
            tool(other, w)


def test_direct_solution_refuses_what_the_dynamics_would_not_settle():
    objective, w, v = make(5)
    for solver in ("direct", "relax"):
        growing = make(5, feedback=1.5 * np.eye(5), activation="linear", solver=solver)[0]
        with pytest.raises(
            NotSettled, match=r"z .*spectral radius 1.5"
        ):  # of the matrix by which z relaxes, not of W
            growing.gradient(w * 0.5)
        # y = 0 is a fixed point of tanh without input, but not one that lasts
        resting = Recurrent(2, outputs=[0], solver=solver).objective([[0.0, 0.0]], [[1.0]])
        with pytest.raises(NotSettled, match=r"z .*spectral radius 1.5"):
            resting.gradient(1.5 * np.eye(2).ravel())
        marginal = Recurrent(1, outputs=[0], solver=solver).objective([[0.0]], [[1.0]])
        with pytest.raises(NotSettled):  # I - J is singular
            marginal.gradient([1.0])


@pytest.mark.parametrize("activation", SMOOTH)
def test_hv_by_relaxation_is_linear_however_small_the_direction(activation):
    objective, w, v = make(3, activation, radius=0.4, solver="relax", tolerance=1e-12)
    z = objective.hvp(w, v)
    np.testing.assert_allclose(
        objective.hvp(w, 1e-14 * v), 1e-14 * z, rtol=1e-8, atol=1e-24 * np.abs(z).max()
    )
    both = objective.hvp(
        w, np.stack([v, 1e-14 * v], axis=1)
    )  # a large direction beside it does not hide it
    np.testing.assert_allclose(both[:, 1], 1e-14 * z, rtol=1e-8, atol=1e-24 * np.abs(z).max())
    assert not objective.hvp(w, 0 * v).any()


def test_every_relaxation_leaves_its_history():
    objective, w, v = make(8, "tanh", radius=0.7, solver="relax", step=0.05, tolerance=1e-12)
    histories = objective.histories(w, v)
    rates = []
    for name in ("y", "z", "R{y}", "R{z}"):
        assert histories[name][-1] <= 1e-12 < histories[name][0]
        rates.append(-np.polyfit(0.05 * np.arange(100), np.log(histories[name][-150:-50]), 1)[0])
    np.testing.assert_allclose(
        1 / np.array(rates), objective.time_constant(w), rtol=0.25
    )  # one Jacobian; faster modes are not gone yet
    assert [len(h) for h in make(8)[0].histories(w, v).values()][1:] == [0, 0, 0]


def test_directions_taken_in_parts_are_those_taken_at_once():
    objective, w, v = make(1)
    V = np.random.default_rng(0).standard_normal((25, 7))
    expected = objective.hvp(w, V)
    objective.directions_at_once = 3
    np.testing.assert_allclose(objective.hvp(w, V), expected, atol=1e-14)


def test_an_objective_keeps_no_array_of_the_caller():
    B = np.eye(5) / 3
    objective, w, _ = make(5, feedback=B)
    g = objective.gradient(w)
    B[:] = 0.0
    objective.settle(w + 1)
    np.testing.assert_array_equal(objective.gradient(w), g)
    with pytest.raises(ValueError, match="read-only"):
        objective.network.feedback[0, 0] = 1.0


def test_weight_perturbation_works_at_fixed_points():
    objective, w, v = make(6)
    compared = compare(estimate(objective, w, v, 32, sigma=1e-3, r=1e-3), objective, w, v)
    assert compared.hv.cosine > 0.999 and compared.gradient.cosine > 0.999


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"outputs": [5]}, "neurons are 0 to 4"),
        ({"outputs": []}, "at least one neuron"),
        ({"inputs": [0, 0]}, "names a neuron twice"),
        ({"activation": "sigmoid"}, "activation = 'sigmoid' is unknown"),
        ({"solver": "newton"}, "solver = 'newton' is unknown"),
        ({"step": 0}, "step = 0"),
        ({"step": "a"}, "step cannot be read"),
        ({"max_steps": 2.5}, "max_steps = 2.5"),
        ({"feedback": np.eye(4)}, r"feedback has shape \(4, 4\)"),
        ({"error": "cross_entropy"}, "output neuron 0 is tanh"),
        ({"activation": {7: "tanh"}}, "activation names neuron 7"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Recurrent(**{"n_units": 5, "outputs": [0], **arguments})
    assert "\n" not in str(caught.value)
