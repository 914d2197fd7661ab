"""What Hessian-vector products are good for: eigenvalues, spectral density, trace, diagonal, saliencies, Newton steps.

Every result says how good it is (residuals or standard errors), what it cost (n_products, Hessian-vector products) and whether it
converged. Indefinite matrices are the normal case: away from a minimum most networks have one. All of it assumes the same H at
every product: never give an objective whose error is noisy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh, minres

from perturb.errors import InputError, choose
from perturb.objective import Array, HessianOperator, Objective, as_floats, as_number, as_weights

EPS = float(np.finfo(float).eps)
ENDS = {"largest": "LA", "smallest": "SA", "magnitude": "LM", "both": "BE"}


@dataclass(frozen=True)
class Eigenpairs:
    """values (k,) ascending, vectors (n, k); residuals: |H x - lambda x| of each; converged: all that were asked for."""

    values: Array
    vectors: Array
    residuals: Array
    n_products: int
    converged: bool


@dataclass(frozen=True)
class Estimated:
    """A stochastic estimate with its standard error, a number or (n,)."""

    value: Array | float
    stderr: Array | float
    n_products: int


@dataclass(frozen=True)
class Density:
    """Stochastic Lanczos quadrature: nodes (probes, m) with weights that sum to 1 in each row, for a matrix of size n."""

    nodes: Array
    weights: Array
    n: int
    n_products: int

    def integrate(self, f: Callable[[Array], Array]) -> Estimated:
        """sum over eigenvalues of f(lambda): f = identity gives the trace, log the log-determinant of a positive H."""
        each = self.n * (self.weights * f(self.nodes)).sum(1)
        stderr = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
        return Estimated(float(each.mean()), stderr, self.n_products)

    def __call__(self, grid: Array, width: float) -> Array:
        """Density of eigenvalues (integral 1) on a grid, each node smeared to a Gaussian of standard deviation `width`."""
        distance = (np.asarray(grid)[:, None] - self.nodes.ravel()) / width
        return np.exp(-0.5 * distance**2) @ self.weights.ravel() / (np.sqrt(2 * np.pi) * width * len(self.nodes))


@dataclass(frozen=True)
class Step:
    """A step p (n,) that solves (H + damping I) p = -g; residual: |(H + damping I) p + g| / |g|. negative_curvature: a direction
    with p'(H + damping I)p <= 0 was met, and p ends before it (or is -g, if it was the first)."""

    p: Array
    residual: float
    n_products: int
    converged: bool
    negative_curvature: bool


def eigenpairs(
    objective: Objective, w: Array, k: int = 1, which: str = "largest", tolerance: float = 1e-9, seed: int = 0
) -> Eigenpairs:
    """k extreme eigenpairs of H at w, by SciPy's eigsh (implicitly restarted Lanczos) on products; small H are diagonalised.

    which: largest, smallest, magnitude, or both (k/2 from each end). tolerance: relative accuracy of the eigenvalues. Those that
    have not converged are left out: there may be fewer than k, or none.
    """
    choose("which", which, ENDS)
    n = objective.n_weights
    if not (isinstance(k, (int, np.integer)) and 1 <= k <= n):
        raise InputError(f"k = {k!r} must be a whole number from 1 to the {n} weights")
    H, converged = _operator("eigenpairs", objective, w), True
    which = "largest" if which == "both" and k == 1 else which  # one pair has no two ends
    if n <= max(2 * k + 1, 40):
        values, vectors = np.linalg.eigh(objective.hessian(w))
        H.n_products += n
        order = np.argsort(-np.abs(values), kind="stable")[:k]
        low = (k // 2) if which == "both" else k
        chosen = {
            "largest": np.arange(n - k, n), "smallest": np.arange(k), "magnitude": np.sort(order),
            "both": np.r_[np.arange(low), np.arange(n - (k - low), n)],
        }[which]  # fmt: skip
        values, vectors = values[chosen], vectors[:, chosen]
    elif not (H @ (start := _start(n, seed))).any():  # H = 0: nothing else takes a random vector to 0
        values, vectors = np.zeros(k), np.eye(n)[:, :k]
    else:
        try:
            values, vectors = eigsh(H, k=k, which=ENDS[which], tol=tolerance, v0=start)
        except ArpackNoConvergence as error:
            values, vectors, converged = error.eigenvalues, error.eigenvectors, False
        except ArpackError:
            values, vectors, converged = np.zeros(0), np.zeros((n, 0)), False
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    residuals = np.linalg.norm(H @ vectors - vectors * values, axis=0) if len(values) else np.zeros(0)
    return Eigenpairs(values, vectors, residuals, H.n_products, converged)


def power_iteration(
    objective: Objective, w: Array, shift: float = 0.0, tolerance: float = 1e-6, max_products: int = 1000, seed: int = 0
) -> Eigenpairs:
    """The eigenpair of H - shift I of largest magnitude, by v := (H - shift I) v / |v| (LeCun, Simard and Pearlmutter 1993).

    Ends when the residual falls below tolerance |lambda|, or after max_products. values holds the eigenvalue of H itself. With
    shift = the largest eigenvalue it finds the smallest. Error falls by |l2/l1| a step: slow where two are alike.
    """
    _whole(1, max_products=max_products)
    H = _operator("power_iteration", objective, w, -as_number("shift", shift))
    v = _start(objective.n_weights, seed)
    v /= np.linalg.norm(v)
    value, residual = 0.0, np.inf
    while H.n_products < max_products:
        Hv = H @ v
        value = float(v @ Hv)
        residual = float(np.linalg.norm(Hv - value * v))
        if residual <= tolerance * abs(value) or not Hv.any():
            break
        v = Hv / np.linalg.norm(Hv)
    return Eigenpairs(
        np.array([value + shift]), v[:, None], np.array([residual]), H.n_products, residual <= tolerance * abs(value)
    )


def spectral_density(objective: Objective, w: Array, probes: int = 8, steps: int = 60, seed: int = 0) -> Density:
    """Spectral density of H by stochastic Lanczos quadrature (Golub and Meurant 1994): `steps` of Lanczos, fully
    reorthogonalised, from each of `probes` random sign vectors. Cost: probes x steps products, steps x n numbers of memory."""
    n = objective.n_weights
    _whole(1, probes=probes, steps=steps)
    H, m = _operator("spectral_density", objective, w), min(steps, n)
    nodes, weights = np.zeros((probes, m)), np.zeros((probes, m))
    signs = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (probes, n))
    for probe, sign in enumerate(signs):
        Q = np.zeros((m, n))
        alpha, beta = np.zeros(m), np.zeros(m)
        q, made = sign / np.sqrt(n), 0
        for j in range(m):
            Q[j], made = q, j + 1
            r = H @ q
            alpha[j] = q @ r
            for _ in range(2):  # twice is enough
                r -= Q[:made].T @ (Q[:made] @ r)
            beta[j] = np.linalg.norm(r)
            if beta[j] <= 1e-12 * max(1.0, np.abs(alpha[:made]).max()):
                break
            q = r / beta[j]
        theta, S = eigh_tridiagonal(alpha[:made], beta[: made - 1])
        nodes[probe, :made], weights[probe, :made] = theta, S[0] ** 2  # a row that ended early has nodes of no weight
    return Density(nodes, weights, n, H.n_products)


def trace(objective: Objective, w: Array, probes: int = 90, method: str = "hutch++", seed: int = 0) -> Estimated:
    """tr H from `probes` products with random signs: "hutchinson" (variance 2(|H|^2 - sum H_ii^2) a probe), or "hutch++" (Meyer
    et al. 2021), which takes a third of them to find the dominant subspace and estimates the rest. stderr of the random part."""
    choose("method", method, dict.fromkeys(("hutch++", "hutchinson")))
    _whole(1, probes=probes)
    n, H = objective.n_weights, _operator("trace", objective, w)
    rng = np.random.Generator(np.random.Philox(seed))
    part = probes // 3
    if method == "hutchinson" or part < 2:
        G, exact = rng.choice([-1.0, 1.0], (n, probes)), 0.0
    else:
        Q = np.linalg.qr(H @ rng.choice([-1.0, 1.0], (n, min(part, n))))[0]
        exact = float((Q * (H @ Q)).sum())
        G = rng.choice([-1.0, 1.0], (n, part))
        G -= Q @ (Q.T @ G)
    each = (G * (H @ G)).sum(0)
    stderr = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    return Estimated(exact + float(each.mean()), stderr, H.n_products)


def diagonal(objective: Objective, w: Array, probes: int | None = None, seed: int = 0) -> Estimated:
    """diag H: exact from n products, or, with `probes`, the mean of x * Hx over random signs x (Bekas et al. 2007)."""
    n, H = objective.n_weights, HessianOperator(objective, w)
    if probes is None:
        exact = np.empty(n)
        for columns, block in objective.hessian_columns(w):
            exact[columns] = block[np.arange(columns.start, columns.stop), np.arange(columns.stop - columns.start)]
        return Estimated(exact, np.zeros(n), n)
    _whole(1, probes=probes)
    x = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (n, probes))
    each = x * (H @ x)
    stderr = each.std(1, ddof=1) / np.sqrt(probes) if probes > 1 else np.full(n, np.nan)
    return Estimated(each.mean(1), stderr, H.n_products)


def obd_saliencies(objective: Objective, w: Array) -> Array:
    """H_ii w_i^2 / 2, (n,): the change of E if weight i alone is removed at a minimum (LeCun, Denker and Solla 1990)."""
    return np.asarray(diagonal(objective, w).value) * as_weights("w", w, objective.n_weights) ** 2 / 2


@dataclass(frozen=True)
class Saliencies:
    """value (k,) of each weight asked for; residuals of the linear systems, relative."""

    value: Array
    residuals: Array
    n_products: int
    converged: bool


def obs_saliencies(
    objective: Objective,
    w: Array,
    indices: Sequence[int] | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-8,
    max_products: int | None = None,
) -> Saliencies:
    """w_q^2 / (2 [(H + damping I)^-1]_qq): the same if the others adjust (Hassibi and Stork 1993). One MINRES solution each, to a
    relative residual of tolerance, for at most max_products products each (10 n if left out).

    Negative where H is indefinite: then there is no minimum to prune at, unless damping is larger than -lambda_min.
    """
    n, w = objective.n_weights, as_weights("w", w, objective.n_weights)
    chosen = np.arange(n) if indices is None else np.asarray(indices)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or ((chosen < 0) | (chosen >= n)).any():
        raise InputError(f"indices must be whole numbers from 0 to {n - 1}")
    limit = max(2, 10 * n) if max_products is None else max_products
    _whole(2, max_products=limit)
    H = _operator("obs_saliencies", objective, w, damping)
    value, residuals = np.empty(len(chosen)), np.empty(len(chosen))
    for row, q in enumerate(chosen):
        unit = np.zeros(n)
        unit[q] = 1.0
        u, residuals[row], _ = _solution(_minres, H, unit, tolerance, limit)
        value[row] = w[q] ** 2 / (2 * u[q]) if u[q] else np.inf
    return Saliencies(value, residuals, H.n_products, bool((residuals <= tolerance).all()))


def newton_step(
    objective: Objective,
    w: Array,
    damping: float = 0.0,
    method: str = "cg",
    tolerance: float = 1e-6,
    max_products: int | None = None,
) -> Step:
    """The step of Newton's method, (H + damping I) p = -g, to a relative residual of tolerance, or as near as max_products
    products (2 n if left out, at least 2) come; one of them measures the residual.

    method "cg" is Newton-CG: conjugate gradients that end where they meet negative curvature (Nocedal and Wright 2006,
    algorithm 7.1), so that p always leads downhill. "minres" solves the system as it is, also an indefinite one.
    """
    solver = choose("method", method, {"cg": _cg, "minres": _minres})
    n = objective.n_weights
    limit = max(2, 2 * n) if max_products is None else max_products
    _whole(2, max_products=limit)
    H, g = _operator("newton_step", objective, w, damping), objective.gradient(w)
    if not g.any():
        return Step(np.zeros(n), 0.0, 0, True, False)
    p, residual, bent = _solution(solver, H, -g, tolerance, limit)
    return Step(p, residual, H.n_products, residual <= tolerance and not bent, bent)


Solver = Callable[[HessianOperator, Array, float, int], tuple[Array, bool]]


def _solution(solver: Solver, H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, float, bool]:
    """x with |Hx - b| <= tolerance |b| as far as `budget` products allow, the true relative residual, and whether negative
    curvature ended it.

    What solvers believe of their residual is not what it is: so they are restarted on the true one, ever stricter.
    """
    size, end = float(np.linalg.norm(b)), H.n_products + budget
    x, r, bent, strictness = np.zeros_like(b), b, False, 1.0
    while (left := float(np.linalg.norm(r))) > tolerance * size and end - H.n_products >= 2 and not bent:
        aim = tolerance * size / left
        d, bent = solver(H, r, max(strictness * aim, EPS), end - H.n_products - 1)
        if bent and not x.any() and not d.any():
            d = b
        further = b - H @ (x + d)
        if np.linalg.norm(further) > 0.9 * left and strictness * aim <= EPS and not bent:
            break  # rounding, or a singular system: no nearer
        x, r = x + d, further
        strictness *= 0.01
    return x, float(np.linalg.norm(r)) / size, bent


def _cg(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    x, r = np.zeros_like(b), -b
    d, size = b, float(np.linalg.norm(b))
    for _ in range(budget):
        Hd = H @ d
        bend = float(d @ Hd)
        if bend <= 0:
            return x, True
        alpha = float(r @ r) / bend
        x = x + alpha * d
        before, r = r, r + alpha * Hd
        if np.linalg.norm(r) <= tolerance * size:
            break
        d = -r + float(r @ r) / float(before @ before) * d
    return x, False


def _minres(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    return minres(H, b, rtol=0.1 * tolerance, maxiter=budget)[0], False


def along(objective: Objective, w: Array, p: Array, steps: Array) -> tuple[Array, Array, Array]:
    """E, its slope g.p and its curvature p'Hp at w + step p for each step, three arrays of the shape of steps (any, () too)."""
    w, p = as_weights("w", w, objective.n_weights), as_weights("p", p, objective.n_weights)
    steps = as_floats("steps", steps)
    rows = [(E, g @ p, p @ z) for E, g, z in (objective.error_gradient_hvp(w + step * p, p) for step in steps.ravel())]
    E, slope, bend = np.array(rows).reshape(-1, 3).T.reshape(3, *steps.shape)
    return E, slope, bend


def least_norm_hessian(v: Array, z: Array) -> Array:
    """z v'/V: the matrix of least norm that takes v to z. Shape (n, n)."""
    return np.outer(z, v) / _squared(v)


def symmetric_hessian(v: Array, z: Array) -> Array:
    """(z v' + v z' - (v.z/V) v v')/V: the symmetric matrix of least norm that takes v to z, the source's H-hat. Shape (n, n)."""
    V = _squared(v)
    return (np.outer(z, v) + np.outer(v, z) - (v @ z / V) * np.outer(v, v)) / V


def _start(n: int, seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n)


def _squared(v: Array) -> float:
    if not np.any(v):
        raise InputError("v = 0 has no direction: no matrix takes it to z, give another v")
    return float(v @ v)


def _operator(tool: str, objective: Objective, w: Array, damping: float = 0.0) -> HessianOperator:
    if not objective.symmetric:
        raise InputError(
            f"{tool} needs a symmetric Hessian, which this objective has not: use its hessian, or leave out feedback"
        )
    return HessianOperator(objective, w, damping)


def _whole(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if not (isinstance(number, (int, np.integer)) and number >= least):
            raise InputError(f"{name} = {number!r} must be a whole number >= {least}")
