"""Recurrent networks that relax to a fixed point: error, gradient (Almeida 1987, Pineda 1987) and Hv (Pearlmutter 1994).

    dy_i/dt    ~ -y_i + f_i(x_i) + I_i,   x_j = sum_i w_ij y_i
    dz_i/dt    ~ -z_i + f'_i (sum_j w_ij z_j + e_i)                                dE/dw_ij = y_i z_j
    dR{y_i}/dt ~ -R{y_i} + f'_i R{x_i},   R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i)
    dR{z_i}/dt ~ -R{z_i} + f'_i (sum_j (v_ij z_j + w_ij R{z_j}) + R{e_i}) + f''_i R{x_i} (sum_j w_ij z_j + e_i)
    R{dE/dw_ij} = y_i R{z_j} + R{y_i} z_j

The published adjoint misplaces a bracket; this is the one that gives the gradient. All four relax with the same Jacobian.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from perturb.activations import names_of_units, per_unit
from perturb.errors import InputError, choose
from perturb.losses import ERRORS, check_outputs
from perturb.objective import Kept, Objective, as_directions, as_floats, as_patterns, as_units, as_weights

Array = np.ndarray
SOLVERS = ("direct", "relax")


class NotSettled(InputError):
    """A relaxation did not come to rest: no answer is given."""


class Settling(NamedTuple):
    """How a relaxation went. y: (S, n_units); residuals: largest |dy/dt| relative to the largest |y|, before each step."""

    y: Array
    residuals: Array


class Recurrent:
    """n_units units, each connected to all (itself too): w is the matrix w_ij from i to j, flat in C order.

    activation: one name for all units, or {unit: name} (units left out are tanh). The patterns are external inputs I: to all
    units, x of shape (S, n_units), or to those of `inputs` only. outputs: the units that have targets; the cross-entropies need
    them linear. solver: "relax" integrates the equations by steps of `step` (of a unit's time constant) until nothing changes
    faster than `tolerance`, as analog hardware does; "direct" polishes the fixed point by Newton's method and solves the linear
    equations for z, R{y}, R{z}: the reference. feedback: another matrix (n, n) through which errors return, as in hardware with
    separate feedback wires; gradient and Hv are then what such hardware would compute, no longer exact.

    A network that has not settled within max_steps raises NotSettled (an InputError) with the residual and the spectral radius.
    """

    def __init__(
        self,
        n_units: int,
        outputs: Sequence[int],
        activation: str | Mapping[int, str] = "tanh",
        error: str = "squared_error",
        inputs: Sequence[int] | None = None,
        solver: str = "direct",
        step: float = 0.5,
        tolerance: float = 1e-10,
        max_steps: int = 10_000,
        feedback: Array | None = None,
    ):
        if not isinstance(n_units, (int, np.integer)) or n_units < 1:
            raise InputError(f"n_units = {n_units!r} must be a whole number >= 1")
        self.n_units, self.n_weights = int(n_units), int(n_units) ** 2
        self.outputs = as_units("outputs", outputs, self.n_units)
        self.inputs = np.arange(self.n_units) if inputs is None else as_units("inputs", inputs, self.n_units)
        self.n_inputs, self.n_outputs = len(self.inputs), len(self.outputs)
        choose("error", error, ERRORS)
        choose("solver", solver, dict.fromkeys(SOLVERS))
        self.activations = names_of_units(activation, self.n_units)
        check_outputs(error, self.outputs, self.activations)
        if not (0 < step <= 1 and 0 < tolerance < 1 and max_steps >= 1):
            raise InputError(
                f"step = {step}, tolerance = {tolerance}, max_steps = {max_steps}: must lie in (0, 1], in (0, 1), be >= 1"
            )
        self.error, self.solver = error, solver
        self.step, self.tolerance, self.max_steps = float(step), float(tolerance), int(max_steps)
        self.feedback = None if feedback is None else as_floats("feedback", feedback)
        if self.feedback is not None and self.feedback.shape != (n_units, n_units):
            raise InputError(f"feedback has shape {self.feedback.shape}, but must be ({n_units}, {n_units})")

    def init(self, seed: int, radius: float = 0.5) -> Array:
        """Random starting weights, shape (n,): normal, of variance radius^2/n_units, so of about that spectral radius."""
        rng = np.random.Generator(np.random.Philox(seed))
        return radius * rng.standard_normal(self.n_weights) / np.sqrt(self.n_units)

    def weight_units(self) -> tuple[Array, Array]:
        """The units each weight comes from and goes to, two int arrays (n,)."""
        unit = np.arange(self.n_units)
        return np.repeat(unit, self.n_units), np.tile(unit, self.n_units)

    def objective(self, x: Array, target: Array) -> "RecurrentObjective":
        """E(w) at the fixed points for inputs x (S, inputs) with targets (S, outputs)."""
        return RecurrentObjective(self, x, target)


class RecurrentObjective(Objective):
    """See `Objective` and `Recurrent`. Cost of the direct solver: a factorised (n_units, n_units) matrix per pattern."""

    parallel = True

    def __init__(self, network: Recurrent, x: Array, target: Array):
        self.network = network
        self.x, self.target = as_patterns(x, target, network.n_inputs, network.n_outputs, network.error)
        self.n_weights, self.n_patterns, self.depth = network.n_weights, self.x.shape[0], 1
        self._I = np.zeros((self.n_patterns, network.n_units))
        self._I[:, network.inputs] = self.x
        self._f, self._E = per_unit(network.activations), ERRORS[network.error]
        self._settled = Kept(self._fixed_point, self.n_weights)

    def pattern(self, index: int) -> "RecurrentObjective":
        return RecurrentObjective(self.network, self.x[index : index + 1], self.target[index : index + 1])

    def outputs(self, w: Array) -> Array:
        """The activity of the output units at the fixed points, shape (S, outputs)."""
        return self._settled(w).y[:, self.network.outputs]

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def errors_at(self, points: Array) -> Array:
        from perturb.graph_kernels import relaxed_errors
        from perturb.kernels import ACTIVATION_KINDS, ERROR_KINDS, compiled_twins

        net = self.network
        if not compiled_twins(net.activations, net.error):
            return super().errors_at(points)
        out, settled = np.empty((len(points), self.n_patterns)), np.empty(len(points), dtype=bool)
        relaxed_errors(
            np.ascontiguousarray(points, dtype=float), np.array([ACTIVATION_KINDS[name] for name in net.activations]),
            np.ascontiguousarray(self._I.T), net.outputs, np.ascontiguousarray(self.target.T), ERROR_KINDS[net.error],
            net.solver == "direct", net.step, net.tolerance, net.max_steps, out, settled,
        )  # fmt: skip
        for m in np.flatnonzero(~settled):
            out[m] = self.pattern_errors(points[m])  # raises NotSettled, saying how far it came
        return out

    def settle(self, w: Array) -> Settling:
        """Relax y from 0 to its fixed point."""
        y, residuals = self._settled(w)
        return Settling(y.copy(), residuals.copy())

    def _fixed_point(self, w: Array) -> Settling:
        W, f = self._matrix(w), self._f
        y, residuals = self._relax(lambda y: f.f(y @ W) + self._I, np.zeros_like(self._I), "y", W)
        if self.network.solver == "direct":
            for _ in range(20):  # Newton's method: quadratic from here
                x = y @ W
                wrong = f.f(x) + self._I - y
                residuals.append(float(np.abs(wrong).max() / (np.abs(y).max() or 1.0)))
                if residuals[-1] <= 4e-16:
                    break
                y = y + np.linalg.solve(self._forward_system(W, x), wrong[..., None])[..., 0]
            else:
                self._check_settled(residuals, "y", W, y)
        return Settling(y, np.array(residuals))

    def spectral_radius(self, w: Array) -> float:
        """Largest |eigenvalue| of the Jacobian diag(f') W' at the fixed points; below 1 a relaxation by steps of 1 contracts."""
        return self._radius(self._matrix(w), self._settled(w).y)

    def time_constant(self, w: Array) -> float:
        """Slowest time constant of all four relaxations near the fixed points, 1/(1 - max Re eigenvalue of diag(f') W'), in units
        of a unit's own."""
        return 1.0 / (1.0 - float(self._jacobian_eigenvalues(self._matrix(w), self._settled(w).y).real.max()))

    def gradient(self, w: Array) -> Array:
        W = self._matrix(w)
        y = self._settled(w).y
        return (y.T @ self._adjoint(W, y)[0]).ravel()

    def error_gradient_hvp(self, w: Array, v: Array) -> tuple[float, Array, Array]:
        W, f, S = self._matrix(w), self._f, self.n_patterns
        v = as_directions("v", v, self.n_weights)
        V = np.atleast_2d(v.T).reshape(-1, *W.shape)  # (k, n, n)
        B, R_B = (W, V) if self.network.feedback is None else (self.network.feedback, np.zeros_like(V))
        y = self._settled(w).y
        x = y @ W
        f_y = f.f(x)
        z, e = self._adjoint(W, y)
        df, d2f = f.df(x, f_y), f.d2f(x, f_y)

        # R{y} = f' (sum_i w_ij R{y_i} + v_ij y_i)
        R_y = self._solve(lambda R_y: df * (R_y @ W + y @ V), self._forward_system(W, x), df * (y @ V), "R{y}", W)
        R_x = R_y @ W + y @ V

        # R{z} = f' (sum_j (v_ij z_j + w_ij R{z_j}) + R{e}) + f'' R{x} (sum_j w_ij z_j + e)
        R_e = np.zeros_like(R_y)
        out = self.network.outputs
        R_e[..., out] = self._E.R_e(y[:, out], self.target)(R_y[..., out]) / S
        fixed = df * (z @ np.swapaxes(R_B, -1, -2) + R_e) + d2f * R_x * (z @ B.T + e)
        R_z = self._solve(lambda R_z: df * (R_z @ B.T) + fixed, self._adjoint_system(B, df), fixed, "R{z}", W)

        # R{dE/dw_ij} = y_i R{z_j} + R{y_i} z_j
        Hv = (y.T @ R_z + np.swapaxes(R_y, -1, -2) @ z).reshape(len(V), -1)
        E = float(self._E.value(y[:, out], self.target).mean())
        return E, (y.T @ z).ravel(), Hv[0] if v.ndim == 1 else Hv.T

    def _adjoint(self, W: Array, y: Array) -> tuple[Array, Array]:
        # z = f' (sum_j w_ij z_j + e_i), and e
        B = W if self.network.feedback is None else self.network.feedback
        x = y @ W
        df = self._f.df(x, self._f.f(x))
        e = np.zeros_like(y)
        out = self.network.outputs
        e[:, out] = self._E.e(y[:, out], self.target) / self.n_patterns
        return self._solve(lambda z: df * (z @ B.T + e), self._adjoint_system(B, df), df * e, "z", W), e

    def _solve(self, right: Callable[[Array], Array], system: Array, constant: Array, name: str, W: Array) -> Array:
        """The rest of dq/dt ~ -q + right(q), which is linear: by relaxation, or as system q = constant."""
        if self.network.solver == "relax":
            return self._relax(right, np.zeros_like(constant), name, W)[0]
        return np.linalg.solve(system, constant[..., None])[..., 0]

    def _relax(self, right: Callable[[Array], Array], q: Array, name: str, W: Array) -> tuple[Array, list[float]]:
        net, residuals, scale = self.network, [], 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(net.max_steps):
                change = right(q) - q
                residuals.append(float(np.abs(change).max() / scale))
                if residuals[-1] <= net.tolerance or not np.isfinite(residuals[-1]):
                    break
                q = q + net.step * change
                scale = float(np.abs(q).max()) or 1.0
        self._check_settled(residuals, name, W, q if name == "y" else None)
        return q, residuals

    def _check_settled(self, residuals: list[float], name: str, W: Array, y: Array | None) -> None:
        net = self.network
        if not residuals[-1] <= net.tolerance:
            raise NotSettled(
                f"{name} has not settled after {len(residuals)} steps of {net.step}: residual {residuals[-1]:.2g} (tolerance "
                f"{net.tolerance:g}), spectral radius {self._radius(W, y):.3g}: use smaller weights, or more or smaller steps"
            )

    def _radius(self, W: Array, y: Array | None) -> float:
        return float(np.abs(self._jacobian_eigenvalues(W, y)).max())

    def _jacobian_eigenvalues(self, W: Array, y: Array | None) -> Array:
        """Eigenvalues of diag(f') W' for each pattern, at y, or with f' = 1 where y is not known."""
        if y is None or not np.isfinite(y).all():
            return np.linalg.eigvals(W)
        with np.errstate(over="ignore", invalid="ignore"):
            x = y @ W
            df = self._f.df(x, self._f.f(x))
        return np.linalg.eigvals(df[:, :, None] * W.T)

    def _forward_system(self, W: Array, x: Array) -> Array:
        # y - diag(f') W' y, per pattern
        return np.eye(len(W)) - self._f.df(x, self._f.f(x))[:, :, None] * W.T

    def _adjoint_system(self, B: Array, df: Array) -> Array:
        return np.eye(len(B)) - df[:, :, None] * B

    def _matrix(self, w: Array) -> Array:
        return as_weights("w", w, self.n_weights).reshape(self.network.n_units, -1)
