"""Tools on Hessian-vector products, against dense linear algebra."""

import itertools

import numpy as np
import pytest
from fast import fast
from scipy.stats import t as student

from perturb import MLP, InputError, curvature
from perturb.networks.objective import Objective


def quadratic(eigenvalues, seed=0, g=None):
    """E = g.w + w'Hw/2 with those eigenvalues, and H."""
    n = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    H = (Q * eigenvalues) @ Q.T
    g = np.zeros(n) if g is None else g
    return (
        Objective.from_functions(
            lambda w: g @ w + w @ H @ w / 2, lambda w: g + H @ w, lambda w, v: H @ v, n_weights=n
        ),
        (H + H.T) / 2,
    )


INDEFINITE = np.concatenate([np.linspace(-2, 1, 95), [3.0, 4.0, 6.0, -5.0, 9.0]])
ZERO = np.zeros(100)


@pytest.mark.parametrize("n", [3, 20, 100])
@pytest.mark.parametrize("which", curvature.ENDS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_extreme_eigenpairs_are_those_of_the_dense_matrix(n, which, k):
    objective, H = quadratic(INDEFINITE[-n:])
    found = curvature.eigenpairs(objective, ZERO[:n], k, which)
    values = np.sort(np.linalg.eigvalsh(H))
    low = k // 2
    expected = {
        "largest": values[-k:],
        "smallest": values[:k],
        "magnitude": np.sort(values[np.argsort(-np.abs(values))[:k]]),
        "both": np.r_[values[:low], values[n - (k - low) :]],
    }[which]
    np.testing.assert_allclose(found.values, expected, atol=1e-8)
    np.testing.assert_allclose(H @ found.vectors, found.vectors * found.values, atol=1e-6)
    assert found.converged and (found.residuals < 1e-6).all() and found.n_products > 0


def test_power_iteration_finds_the_largest_magnitude_and_shifted_the_other_end():
    objective, H = quadratic(INDEFINITE)
    top = curvature.power_iteration(objective, ZERO)
    assert top.converged and top.values[0] == pytest.approx(9.0, rel=1e-6)
    bottom = curvature.power_iteration(objective, ZERO, shift=top.values[0])
    assert bottom.converged and bottom.values[0] == pytest.approx(-5.0, rel=1e-6)
    assert not curvature.power_iteration(objective, ZERO, max_products=3).converged


def test_trace_estimates_lie_within_five_standard_errors():
    objective, H = quadratic(INDEFINITE)
    for method in ("hutchinson", "hutch++"):
        found = curvature.trace(objective, ZERO, 90, method)
        assert abs(found.value - np.trace(H)) < 5 * found.stderr and found.n_products <= 90
        assert (
            abs(found.value - np.trace(H) - 10 * found.stderr) > 5 * found.stderr
        )  # negative control
    decaying, H = quadratic(100.0 * 0.8 ** np.arange(100))
    plus, plain = (
        curvature.trace(decaying, ZERO, 90, method) for method in ("hutch++", "hutchinson")
    )
    assert plus.stderr < 0.1 * plain.stderr  # what it is for


FEW = [("auto", 4), ("auto", 6), ("hutchinson", 4), ("hutch++", 9)]


@pytest.mark.parametrize("method, products", FEW)
def test_intervals_of_few_products_are_students(method, products):
    objective, H = quadratic(INDEFINITE)
    covered, within, times = 0, 0, 300
    for seed in range(times):
        found = curvature.trace(objective, ZERO, products, method, seed)
        low, high = found.interval()
        covered += low <= np.trace(H) <= high
        within += abs(found.value - np.trace(H)) <= 1.96 * found.stderr
    # 300 of 0.95 are known to 0.013, five of which are 0.063
    assert covered / times == pytest.approx(0.95, abs=0.063)
    # the control: few degrees of freedom, taken for many
    assert found.df <= 3 and within / times < 0.95 - 0.063


def test_degrees_of_freedom_are_those_of_the_samples():
    objective, H = quadratic(INDEFINITE)
    assert curvature.trace(objective, ZERO, 100).df == np.inf
    found = curvature.trace(objective, ZERO, 7, "hutchinson")
    half = student.ppf(0.995, 6) * found.stderr
    np.testing.assert_allclose(
        found.interval(0.99), [found.value - half, found.value + half], rtol=1e-12
    )
    diagonal = curvature.diagonal(objective, ZERO, 5)
    assert diagonal.df == 4 and diagonal.interval()[0].shape == (100,)
    density = curvature.spectral_density(objective, ZERO, probes=3, steps=5)
    assert density.integrate(np.abs).df == 2
    with pytest.raises(InputError, match="level = 1.0"):
        found.interval(1.0)


def test_what_samples_do_not_tell_is_nan_with_a_reason():
    objective, _ = quadratic(INDEFINITE)
    density = curvature.spectral_density(objective, ZERO, probes=1, steps=5)
    for found in (
        curvature.trace(objective, ZERO, 1),
        curvature.diagonal(objective, ZERO, 1),
        density.integrate(np.abs),
    ):
        assert np.isnan(found.stderr).all() and np.isnan(found.df)
        assert found.unknown == ("a single probe tells no standard error: use more",)
    # x'Hx is 0 or 4: two probes are alike for half of the seeds, and no sign of certainty
    pair = np.zeros((20, 20))
    pair[:2, :2] = 1.0
    each = [curvature.trace(from_matrix(pair), ZERO[:20], 2, "hutchinson", s) for s in range(40)]
    alike = [found for found in each if found.unknown]
    assert 5 < len(alike) < 35 and all(np.isnan(found.stderr) for found in alike)
    assert "2 probes are alike, by chance or because H is diagonal" in alike[0].unknown[0]
    assert all(found.stderr > 0 for found in each if not found.unknown)
    # of as many as are not alike by chance, exactly; and of what Q holds entirely
    assert curvature.trace(from_matrix(np.eye(20)), ZERO[:20], 12, "hutchinson").stderr == 0
    alone = np.zeros((20, 20))
    alone[:3, :3] = np.ones((3, 3))
    found = curvature.trace(from_matrix(alone), ZERO[:20], 6, "hutch++")
    assert not found.unknown and found.stderr < 1e-12


def test_hutchinson_has_the_variance_of_its_formula():
    objective, H = quadratic(INDEFINITE)
    stderr = curvature.trace(objective, ZERO, 4000, "hutchinson").stderr
    assert stderr**2 * 4000 == pytest.approx(
        2 * ((H**2).sum() - (np.diag(H) ** 2).sum()), rel=0.15
    )  # 4,000 samples: about 3 %


def test_diagonal_exact_and_estimated():
    objective, H = quadratic(INDEFINITE)
    np.testing.assert_allclose(curvature.diagonal(objective, ZERO).value, np.diag(H), atol=1e-13)
    found = curvature.diagonal(objective, ZERO, 400)
    assert (np.abs(found.value - np.diag(H)) < 5 * found.stderr).all()


def test_lanczos_quadrature_integrates_polynomials_exactly_and_smooth_functions_well():
    objective, H = quadratic(np.linspace(1, 3, 40))
    density = curvature.spectral_density(objective, ZERO[:40], probes=20, steps=25)
    np.testing.assert_allclose(density.weights.sum(1), 1, atol=1e-12)
    for f, exact in ((lambda x: x, np.trace(H)), (np.log, np.linalg.slogdet(H)[1])):
        found = density.integrate(f)
        assert abs(found.value - exact) < 5 * found.stderr + 1e-9
    signs = np.random.Generator(np.random.Philox(0)).choice([-1.0, 1.0], (20, 40))
    each = 40 * (density.weights * density.nodes**3).sum(1)
    np.testing.assert_allclose(
        each, [x @ H @ H @ H @ x for x in signs], rtol=1e-10
    )  # Gauss quadrature of degree 3
    grid = np.linspace(0, 4, 801)
    assert np.trapezoid(density(grid, 0.05), grid) == pytest.approx(1, abs=1e-3)


def test_lanczos_stops_at_an_invariant_subspace():
    objective, _ = quadratic(np.array([1.0, 1.0, 1.0, 2.0]))
    density = curvature.spectral_density(objective, ZERO[:4], probes=5, steps=4)
    assert density.integrate(np.ones_like).value == pytest.approx(4)
    assert density.n_products <= 10


def test_saliencies_are_the_exact_changes_of_a_quadratic_error():
    n = 6
    minimum = np.random.default_rng(3).standard_normal(n)
    _, H = quadratic(np.linspace(0.5, 3, n))
    objective = Objective.from_functions(
        lambda w: (w - minimum) @ H @ (w - minimum) / 2,
        lambda w: H @ (w - minimum),
        lambda w, v: H @ v,
        n_weights=n,
    )
    removed = [objective.error(np.where(np.arange(n) == q, 0.0, minimum)) for q in range(n)]
    np.testing.assert_allclose(curvature.obd_saliencies(objective, minimum), removed, atol=1e-12)
    found = curvature.obs_saliencies(objective, minimum)
    assert found.converged
    for q in range(n):  # the others at their best
        others = np.arange(n) != q
        w = np.zeros(n)
        w[others] = minimum[others] + np.linalg.solve(
            H[np.ix_(others, others)], H[others, q] * minimum[q]
        )
        assert found.value[q] == pytest.approx(objective.error(w), rel=1e-7)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_newton_step_solves_a_positive_system(method):
    g = np.random.default_rng(1).standard_normal(30)
    objective, H = quadratic(np.linspace(0.5, 20, 30), g=g)
    step = curvature.newton_step(objective, ZERO[:30], damping=0.3, method=method)
    np.testing.assert_allclose(step.p, -np.linalg.solve(H + 0.3 * np.eye(30), g), atol=1e-5)
    assert step.converged and not step.negative_curvature and step.residual < 1e-5


def test_newton_step_at_an_indefinite_hessian_still_leads_downhill_and_minres_solves_it():
    g = np.random.default_rng(1).standard_normal(100)
    objective, H = quadratic(INDEFINITE, g=g)
    step = curvature.newton_step(objective, ZERO)
    assert step.negative_curvature and not step.converged and step.p @ g < 0
    solved = curvature.newton_step(objective, ZERO, method="minres", max_products=1000)
    np.testing.assert_allclose(H @ solved.p, -g, atol=1e-4)
    damped = curvature.newton_step(objective, ZERO, damping=6.0)
    assert damped.converged and not damped.negative_curvature


HARD = np.concatenate(
    [np.geomspace(1e-5, 1e3, 58), [-1e-5, -10.0]]
)  # a condition of 1e8: what MINRES believes is far off


def test_minres_goes_on_until_its_true_residual_is_as_asked():
    g = np.random.default_rng(1).standard_normal(60)
    objective, H = quadratic(HARD, g=g)
    step = curvature.newton_step(
        objective, ZERO[:60], method="minres", tolerance=1e-6, max_products=20_000
    )
    assert step.converged and step.residual == pytest.approx(
        np.linalg.norm(H @ step.p + g) / np.linalg.norm(g), rel=1e-3
    )
    found = curvature.obs_saliencies(
        objective, np.ones(60), [3], tolerance=1e-6, max_products=20_000
    )
    assert found.converged and found.residuals[0] <= 1e-6
    assert found.value[0] == pytest.approx(1 / (2 * np.linalg.inv(H)[3, 3]), rel=1e-3)


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("limit", [2, 3, 10, 59, 200])
def test_a_newton_step_keeps_to_its_budget_and_says_converged_only_within_tolerance(method, limit):
    g = np.random.default_rng(1).standard_normal(60)
    objective, H = quadratic(np.geomspace(1e-3, 1e3, 60), g=g)
    step = curvature.newton_step(
        objective, ZERO[:60], method=method, tolerance=1e-6, max_products=limit
    )
    true = np.linalg.norm(H @ step.p + g) / np.linalg.norm(g)
    assert step.n_products <= limit and step.residual == pytest.approx(true, rel=1e-3, abs=1e-12)
    assert step.converged == (step.residual <= 1e-6) and step.p @ g < 0


def test_a_singular_system_ends_without_spending_everything():
    objective, H = quadratic(np.r_[np.zeros(10), np.ones(50)], g=np.ones(60))
    step = curvature.newton_step(objective, ZERO[:60], method="minres", max_products=10_000)
    assert not step.converged and step.n_products < 1000


def test_a_flat_error_has_eigenvalues_zero():
    flat = Objective.from_functions(
        lambda w: 1.0, lambda w: 0 * w, lambda w, v: 0 * v, n_weights=50
    )
    for which in curvature.ENDS:
        found = curvature.eigenpairs(flat, ZERO[:50], 3, which)
        assert found.converged and not found.values.any() and found.vectors.shape == (50, 3)


def test_one_zero_eigenvalue_among_many_is_found():
    objective, _ = quadratic(np.r_[0.0, np.linspace(1, 2, 59)])
    assert abs(curvature.eigenpairs(objective, ZERO[:60], 1, "smallest").values[0]) < 1e-8


def test_curvature_along_has_the_shape_of_its_steps():
    objective, _ = quadratic(INDEFINITE)
    for steps in (0.5, np.linspace(0, 1, 6).reshape(2, 3), []):
        profile = curvature.line_profile(objective, ZERO, ZERO + 1, steps)
        assert [part.shape for part in profile] == [np.shape(steps)] * 3


def test_curvature_along_a_line_is_the_second_derivative():
    rng = np.random.default_rng(0)
    net = MLP([3, 4, 2])
    objective, w, p = (
        net.objective(rng.standard_normal((6, 3)), rng.random((6, 2))),
        net.init(0),
        rng.standard_normal(26),
    )
    steps = np.linspace(-0.1, 0.1, 201)
    E, slope, bend = curvature.line_profile(objective, w, p, steps)
    np.testing.assert_allclose(np.gradient(E, steps)[1:-1], slope[1:-1], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(np.gradient(slope, steps)[1:-1], bend[1:-1], rtol=1e-2, atol=1e-2)


def test_both_forms_of_h_hat_take_v_to_z_and_have_least_norm():
    rng = np.random.default_rng(4)
    v, z, n = rng.standard_normal(5), rng.standard_normal(5), 5
    plain, symmetric = curvature.least_norm_hessian(v, z), curvature.symmetric_hessian(v, z)
    for matrix in (plain, symmetric):
        np.testing.assert_allclose(matrix @ v, z, atol=1e-13)
    np.testing.assert_allclose(symmetric, symmetric.T)
    # least norm among all solutions of the linear equations, by their pseudo-inverse
    rows = np.kron(np.eye(n), v)
    np.testing.assert_allclose((np.linalg.pinv(rows) @ z).reshape(n, n), plain, atol=1e-12)
    swap = np.array(
        [
            [(a, b) == (j, i) for a, b in itertools.product(range(n), repeat=2)]
            for i, j in itertools.product(range(n), repeat=2)
        ]
    )
    both = np.vstack([rows, np.eye(n * n) - swap])
    np.testing.assert_allclose(
        (np.linalg.pinv(both) @ np.r_[z, np.zeros(n * n)]).reshape(n, n), symmetric, atol=1e-10
    )


# ---- repeated eigenvalues


def from_matrix(H, g=None):
    """E = g.w + w'Hw/2."""
    g = np.zeros(len(H)) if g is None else g
    return Objective.from_functions(
        lambda w: g @ w + w @ H @ w / 2, lambda w: g + H @ w, lambda w, v: H @ v, n_weights=len(H)
    )


def wanted(values, k, which):
    """Of ascending values: those that `eigenpairs` is to find."""
    low = 0 if k == 1 else k // 2
    return {
        "largest": values[-k:],
        "smallest": values[:k],
        "magnitude": np.sort(values[np.argsort(-np.abs(values))[:k]]),
        "both": np.r_[values[:low], values[values.size - (k - low) :]],
    }[which]


REPEATED = {
    "thrice": np.repeat(np.r_[np.linspace(-0.9, 1.0, 20), 1.5], 3),
    "ten times": np.repeat(np.linspace(0.1, 1.7, 8), 10),
    "singular": np.r_[np.zeros(60), np.repeat([1.0, 2.0], 5)],
    "one value": np.full(60, -2.0),
    "two values": np.r_[np.full(40, 1.0), np.full(20, -0.5)],
}


@pytest.mark.parametrize("scale", fast([1.0, 1e-14, 1e14], 1e-14))
@pytest.mark.parametrize("which", curvature.ENDS)
@pytest.mark.parametrize("name", REPEATED)
def test_a_repeated_eigenvalue_is_found_as_often_as_it_occurs(name, which, scale):
    values = scale * np.sort(REPEATED[name])
    objective, H = quadratic(values)
    for k in (1, 3, 6):
        found = curvature.eigenpairs(objective, ZERO[: values.size], k, which)
        np.testing.assert_allclose(
            found.values, wanted(values, k, which), rtol=1e-9, atol=1e-12 * scale
        )
        np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-9)
        np.testing.assert_allclose(
            H @ found.vectors, found.vectors * found.values, atol=1e-8 * scale
        )
        assert found.converged


def test_a_linear_network_has_every_eigenvalue_once_for_each_output():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 20))
    each = np.linalg.eigvalsh(np.c_[X, np.ones(40)].T @ np.c_[X, np.ones(40)] / 40)
    objective = MLP([20, 5]).objective(X, rng.standard_normal((40, 5)))
    found = curvature.eigenpairs(objective, np.zeros(105), 8, "both")
    np.testing.assert_allclose(
        found.values, np.r_[np.repeat(each[0], 4), np.repeat(each[-1], 4)], rtol=1e-9
    )
    assert found.converged


def test_eigenvalues_over_nine_decades_are_found_by_the_whole_matrix_where_that_is_cheaper():
    values = np.geomspace(1e-9, 1.0, 60)
    objective, _ = quadratic(values)
    found = curvature.eigenpairs(objective, ZERO[:60], 3, "smallest")
    np.testing.assert_allclose(found.values, values[:3], atol=1e-14)
    assert found.converged and found.n_products < 200


# ---- scales


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_no_tool_depends_on_the_scale_of_the_error(scale):
    g = np.random.default_rng(1).standard_normal(100)
    _, H = quadratic(np.r_[np.zeros(40), np.linspace(0.5, 20, 60)])
    plain, scaled = from_matrix(H, g), from_matrix(scale * H, scale * g)

    def same(tool):
        a, b = tool(plain), tool(scaled)
        assert a.n_products == b.n_products
        return a, b

    a, b = same(lambda o: curvature.spectral_density(o, ZERO, 3, 50))
    np.testing.assert_allclose(b.nodes, scale * a.nodes, atol=1e-12 * scale)
    for method in ("auto", "hutch++", "hutchinson"):
        a, b = same(lambda o, method=method: curvature.trace(o, ZERO, 60, method))
        np.testing.assert_allclose(
            [b.value, b.stderr], [scale * a.value, scale * a.stderr], rtol=1e-9
        )
    a, b = same(lambda o: curvature.power_iteration(o, ZERO))
    np.testing.assert_allclose(b.values, scale * a.values, rtol=1e-12)
    a, b = same(lambda o: curvature.eigenpairs(o, ZERO, 3, "both"))
    np.testing.assert_allclose(b.values, scale * a.values, atol=1e-12 * scale)
    for method in ("cg", "minres"):
        solvable = from_matrix(H, H @ g), from_matrix(scale * H, scale * (H @ g))
        a, b = (curvature.newton_step(o, ZERO, method=method) for o in solvable)
        np.testing.assert_allclose(b.p, a.p, atol=1e-4)  # both to a residual of 1e-6
        assert a.converged and b.converged


# ---- singular systems


def test_newton_cg_ends_before_a_direction_without_curvature():
    g = np.array([1.0, 0.3])
    step = curvature.newton_step(from_matrix(np.full((2, 2), 1 / 3), g), ZERO[:2])
    np.testing.assert_allclose(
        step.p, -g * (g @ g) / ((g.sum() ** 2) / 3), rtol=1e-12
    )  # where E is least along -g
    assert step.p @ g < 0 and step.negative_curvature and not step.converged and step.residual <= 1


@pytest.mark.parametrize("scale", [1.0, 1e-14, 1e14])
def test_newton_cg_on_singular_matrices_is_as_low_as_the_least_squares_step(
    scale,
):
    rng = np.random.default_rng(0)
    for trial in range(200):
        n = int(rng.integers(2, 12))
        A = rng.standard_normal((n, int(rng.integers(1, n))))
        H, g = A @ A.T, rng.standard_normal(n)
        if trial % 3 == 1:
            g = H @ rng.standard_normal(n)  # a solution exists
        if trial % 3 == 2:
            g -= (
                A @ np.linalg.lstsq(A, g, rcond=None)[0]
            )  # only directions without curvature, to rounding
        step = curvature.newton_step(from_matrix(scale * H, scale * g), np.zeros(n))
        model, best = (g @ p + p @ H @ p / 2 for p in (step.p, -np.linalg.pinv(H, rcond=1e-9) @ g))
        assert step.p @ g < 0 and model <= 0.99 * best
        assert np.linalg.norm(step.p) < 1e6 * max(1.0, scale) * np.linalg.norm(
            g
        )  # -g where nothing bends


# ---- the trace


def spread(H, method, probes=90, repeats=40):
    estimates = [
        curvature.trace(from_matrix(H), np.zeros(len(H)), probes, method, seed=seed)
        for seed in range(repeats)
    ]
    assert max(found.n_products for found in estimates) <= probes
    values = np.array([found.value for found in estimates]) - np.trace(H)
    assert abs(values.mean()) < 5 * values.std() / repeats**0.5
    stated = np.mean([found.stderr**2 for found in estimates]) ** 0.5
    assert 0.5 < values.std() / stated < 2
    return values.std()


@pytest.mark.slow
def test_the_default_trace_takes_out_of_the_spectrum_what_pays():
    # standard deviations of 40 are known to 11 %
    _, flat = quadratic(np.linspace(1.0, 2.0, 200))
    assert spread(flat, "auto") < 1.5 * spread(flat, "hutchinson")
    assert spread(flat, "hutch++") > 1.5 * spread(flat, "auto")
    _, steep = quadratic(np.r_[np.linspace(50, 100, 5), np.linspace(0.0, 1.0, 195)])
    assert spread(steep, "auto") < 0.2 * spread(steep, "hutchinson")


def test_the_default_trace_is_exact_from_as_many_products_as_weights():
    objective, H = quadratic(INDEFINITE)
    found = curvature.trace(objective, ZERO, 100)
    assert (
        found.value == pytest.approx(np.trace(H), rel=1e-12)
        and found.stderr == 0
        and found.n_products == 100
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda o: curvature.eigenpairs(o, ZERO, 0), "k = 0 must be"),
        (lambda o: curvature.eigenpairs(o, ZERO, which="top"), "which = 'top' is unknown"),
        (lambda o: curvature.eigenpairs(o, ZERO[:5]), r"w has shape \(5,\)"),
        (lambda o: curvature.trace(o, ZERO, 0), "probes = 0 must be"),
        (lambda o: curvature.power_iteration(o, ZERO, max_products=0), "max_products = 0 must be"),
        (
            lambda o: curvature.newton_step(o, ZERO, max_products=1),
            "max_products = 1 must be an integer >= 2",
        ),
        (lambda o: curvature.symmetric_hessian(ZERO, ZERO), "v = 0 has no direction"),
        (lambda o: o.hvp(ZERO, 1j * ZERO), "v cannot be read as an array of real numbers"),
        (lambda o: o.with_decay("a"), "alpha cannot be read"),
        (lambda o: curvature.newton_step(o, ZERO, method="gd"), "method = 'gd' is unknown"),
        (lambda o: curvature.obs_saliencies(o, ZERO, [100]), "indices must be"),
        (lambda o: Objective.from_functions(lambda w: 0.0, n_weights=0), "n_weights = 0"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message):
        call(quadratic(INDEFINITE)[0])


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e160, 1e300])
def test_a_newton_step_of_a_gradient_whose_square_is_no_number(size):
    H, g = np.diag([1.0, 2.0, 4.0]), size * np.array([1.0, -1.0, 2.0])
    objective = Objective.from_functions(
        lambda w: g @ w, lambda w: g, lambda w, v: H @ v, n_weights=3
    )
    for method in ("cg", "minres"):
        step = curvature.newton_step(objective, np.zeros(3), method=method)
        assert step.converged and step.residual < 1e-6
        np.testing.assert_allclose(step.p, -g / np.diag(H), rtol=1e-6)
