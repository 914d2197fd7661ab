"""Recurrent networks that relax to a fixed point: error, gradient and Hv.

    dy_i/dt    ~ -y_i + f_i(x_i) + I_i,   x_j = sum_i w_ij y_i
    dz_i/dt    ~ -z_i + f'_i (sum_j w_ij z_j + e_i)                            dE/dw_ij = y_i z_j
    dR{y_i}/dt ~ -R{y_i} + f'_i R{x_i},   R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i)
    dR{z_i}/dt ~ -R{z_i} + f'_i (sum_j (v_ij z_j + w_ij R{z_j}) + R{e_i})
                 + f''_i R{x_i} (sum_j w_ij z_j + e_i)
    R{dE/dw_ij} = y_i R{z_j} + R{y_i} z_j

Gradient by Almeida 1987 and Pineda 1987, Hv by Pearlmutter 1994. The published adjoint misplaces a
bracket; this is the one that gives the gradient. All four relax with the same Jacobian.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from perturb.checks import as_floats, as_number, as_weights, integer, read_only_copy
from perturb.errors import InputError, choose
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS, compiled_twins
from perturb.kernels.equilibrium import relaxed_errors
from perturb.networks.activations import names_of_units, per_unit
from perturb.networks.cache import Cached
from perturb.networks.losses import ERRORS, check_outputs
from perturb.networks.objective import Objective
from perturb.networks.patterns import as_patterns, as_units
from perturb.networks.settling import (
    NotSettled,
    Settling,
    at_rest,
    check_stable,
    relaxed,
    spectral_radius,
)

Array = np.ndarray
SOLVERS = ("direct", "relax")


class Recurrent:
    """Neurons each connected to all, itself too, that relax to a fixed point.

    Parameters
    ----------
    n_units : int
    outputs : sequence of int
        The neurons that have targets, numbered from 0.
    activation : str or {unit: name}
        One name for all neurons, or one for each; neurons left out are tanh.
    error : str
        A key of `losses.ERRORS`; the cross-entropies need linear outputs.
    inputs : sequence of int, optional
        The neurons that get the patterns as their external inputs I; left out, all neurons do.
    solver : {"direct", "relax"}
        "relax" integrates the equations, as analog hardware does; "direct" polishes the fixed point
        by Newton's method and solves the linear equations for z, R{y}, R{z}: the reference.
    step : float
        Of the integration, in time constants of a neuron; in (0, 1].
    tolerance : float
        A relaxation ends when nothing changes faster, relative to the largest activity; in (0, 1).
    max_steps : int
        Steps after which a network that still changes has not settled.
    feedback : array of shape (n_units, n_units), optional
        Another matrix through which errors return, as in hardware with separate feedback wires.

    Attributes
    ----------
    n_weights : int
        n = n_units^2: w is the matrix w_ij from i to j, flat in C order.

    Raises
    ------
    InputError
        For an unknown name or neuron, or a number out of its range.
    NotSettled
        By the objective, if the network has not settled within max_steps, with the residual and the
        spectral radius; with "direct" also where the relaxation would never settle: a Jacobian with
        an eigenvalue of real part 1 or more.

    Notes
    -----
    At rest y_i = f_i(x_i) + I_i with x_j = sum_i w_ij y_i. With `feedback`, gradient and Hv are
    what such hardware would compute: not exact (`inexact` names both), and Hv is not symmetric in
    general.

    References
    ----------
    Almeida, A learning rule for asynchronous perceptrons with feedback (1987); Pineda,
    Generalization of back-propagation to recurrent neural networks, Phys. Rev. Lett. 59 (1987)
    2229-2232; Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994)
    147-160.

    Examples
    --------
    One linear neuron, at rest at y = I/(1 - w):

    >>> import perturb
    >>> network = perturb.Recurrent(1, outputs=[0], activation="linear")
    >>> objective = network.objective([[1.0]], [[0.0]])
    >>> objective.outputs([0.5]), objective.gradient([0.5]), objective.hvp([0.5], [1.0])
    (array([[2.]]), array([8.]), array([48.]))
    >>> objective.time_constant([0.5])
    2.0
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
        self.n_units = integer("n_units", n_units, 1)
        self.n_weights = self.n_units**2
        self.outputs = as_units("outputs", outputs, self.n_units)
        self.inputs = (
            np.arange(self.n_units) if inputs is None else as_units("inputs", inputs, self.n_units)
        )
        self.n_inputs, self.n_outputs = len(self.inputs), len(self.outputs)
        choose("error", error, ERRORS)
        choose("solver", solver, dict.fromkeys(SOLVERS))
        self.activations = names_of_units(activation, self.n_units)
        check_outputs(error, self.outputs, self.activations)
        self.step, self.tolerance = as_number("step", step), as_number("tolerance", tolerance)
        if not (0 < self.step <= 1 and 0 < self.tolerance < 1):
            raise InputError(
                f"step = {step}, tolerance = {tolerance}: must lie in (0, 1] and in (0, 1)"
            )
        self.error, self.solver, self.max_steps = error, solver, integer("max_steps", max_steps, 1)
        self.feedback = (
            None if feedback is None else read_only_copy(as_floats("feedback", feedback))
        )
        if self.feedback is not None and self.feedback.shape != (n_units, n_units):
            raise InputError(
                f"feedback has shape {self.feedback.shape}, but must be ({n_units}, {n_units})"
            )

    def __repr__(self) -> str:
        ends = f"inputs={self.n_inputs}, outputs={self.n_outputs}"
        return (
            f"Recurrent({self.n_units}, {ends}, error={self.error!r}, solver={self.solver!r},"
            f" n_weights={self.n_weights})"
        )

    def init(self, seed: int, radius: float = 0.5) -> Array:
        """Random starting weights: normal, of variance radius^2/n_units.

        Parameters
        ----------
        seed : int
        radius : float
            About the spectral radius of the matrix.

        Returns
        -------
        array of shape (n,)
        """
        rng = np.random.Generator(np.random.Philox(seed))
        # circular law: the eigenvalues of such a matrix fill a disc of about this radius
        return radius * rng.standard_normal(self.n_weights) / np.sqrt(self.n_units)

    def weight_units(self) -> tuple[Array, Array]:
        """The neurons each weight comes from and goes to, two int arrays (n,)."""
        unit = np.arange(self.n_units)
        return np.repeat(unit, self.n_units), np.tile(unit, self.n_units)

    def weight_layers(self) -> Array:
        """Zeros (n,): it has no layers."""
        return np.zeros(self.n_weights, dtype=int)

    def objective(self, x: Array, target: Array) -> "RecurrentObjective":
        """E(w) at the fixed points of this network.

        Parameters
        ----------
        x : array of shape (S, inputs)
            External inputs, one pattern a row.
        target : array of shape (S, outputs)
            Or names of classes (S,), of cross_entropy class numbers too, see `Objective.classes`.

        Returns
        -------
        RecurrentObjective
        """
        return RecurrentObjective(self, x, target)


class RecurrentObjective(Objective):
    """E(w) of a `Recurrent` network at its fixed points, see `Objective`.

    Parameters
    ----------
    network : Recurrent
    x : array of shape (S, inputs)
    target : array of shape (S, outputs), or class numbers (S,)

    Notes
    -----
    Cost of the direct solver: two factorised (n_units, n_units) matrices per pattern, for as many
    directions at a time as 64 MB hold. y and z are cached for products at the same w.
    """

    parallel = True

    def __init__(self, network: Recurrent, x: Array, target: Array):
        self.network = network
        self.x, self.target = as_patterns(
            x, target, network.n_inputs, network.n_outputs, network.error
        )
        self.n_weights, self.n_patterns, self.depth = network.n_weights, self.x.shape[0], 1
        # I_i of every pattern, (S, n_units); 0 where a neuron gets no input
        self._I = np.zeros((self.n_patterns, network.n_units))
        self._I[:, network.inputs] = self.x
        self._f, self._E = per_unit(network.activations), ERRORS[network.error]
        self._settled = Cached(self._fixed_point, self.n_weights)
        self._primal = Cached(self._both_relaxations, self.n_weights)
        # 64 MB: R{y} is (k, S, n_units), and V is (k, n_units, n_units)
        self.directions_at_once = max(
            1, 2**23 // (network.n_units * (self.n_patterns + network.n_units))
        )
        if network.feedback is not None:
            # errors return through other wires than W: what they give is not dE/dw
            self.inexact, self.symmetric = ("gradient", "hvp"), False

    def __reduce__(self):
        # functions do not pickle; names of them do
        return RecurrentObjective, (self.network, self.x, self.target), {"classes": self.classes}

    def subset(self, rows: Array) -> "RecurrentObjective":
        part = RecurrentObjective(self.network, self.x[rows], self.target[rows])
        return self._of_my_classes(part)

    def outputs(self, w: Array) -> Array:
        """The activity of the output neurons at the fixed points.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (S, outputs)
        """
        return self._settled(w).y[:, self.network.outputs]

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def errors_at(self, points: Array) -> Array:
        net = self.network
        if not compiled_twins(net.activations, net.error):
            return super().errors_at(points)
        out, settled = np.empty((len(points), self.n_patterns)), np.empty(len(points), dtype=bool)
        relaxed_errors(
            np.ascontiguousarray(points, dtype=float),
            np.array([ACTIVATION_KINDS[name] for name in net.activations]),
            np.ascontiguousarray(self._I.T),
            net.outputs,
            np.ascontiguousarray(self.target.T),
            ERROR_KINDS[net.error],
            net.solver == "direct",
            net.step,
            net.tolerance,
            net.max_steps,
            out,
            settled,
        )
        for m in np.flatnonzero(~settled):
            out[m] = self.pattern_errors(points[m])  # raises NotSettled, saying how far it came
        return out

    def settle(self, w: Array) -> Settling:
        """Relax y from 0 to its fixed point.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        Settling
        """
        y, residuals = self._settled(w)
        return Settling(y.copy(), residuals.copy())

    def histories(self, w: Array, v: Array) -> dict[str, Array]:
        """How fast the four relaxations come to rest.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,)
            The direction of R{.}.

        Returns
        -------
        dict of str to array
            Residuals before each step of "y", "z", "R{y}" and "R{z}": the largest rate of change
            relative to the largest entry. A direct solution has none of z, R{y} and R{z}: then they
            are empty.
        """
        v = as_weights("v", v, self.n_weights)
        primal = self._primal(w)
        _, _, (of_R_y, of_R_z) = self._products(primal, v.reshape(1, *primal.W.shape))
        both = {"y": self._settled(w).residuals.copy(), "z": primal.residuals}
        return both | {"R{y}": of_R_y, "R{z}": of_R_z}

    def _fixed_point(self, w: Array) -> Settling:
        W, f = self._matrix(w), self._f
        # with "direct" too: Newton's method from 0 may find a fixed point where no relaxation ends
        y, residuals = relaxed(
            lambda y: f.f(y @ W) + self._I,
            self._I,
            "y",
            lambda y: self._y_jacobian(W, y),
            self.network,
        )
        if self.network.solver == "direct":
            for _ in range(20):  # Newton's method: quadratic from here
                x = y @ W
                f_x = f.f(x)
                # root of f(x) + I - y, of Jacobian diag(f') W' - 1: y + (1 - diag(f') W')^-1 wrong
                wrong = f_x + self._I - y
                residuals.append(float(np.abs(wrong).max() / (np.abs(y).max() or 1.0)))
                # two units in the last place: no step makes it smaller
                if residuals[-1] <= 4e-16:
                    break
                y = y + at_rest(f.df(x, f_x)[:, :, None] * W.T, wrong, "y")
            if not residuals[-1] <= self.network.tolerance:
                raise NotSettled(
                    f"y leaves its fixed point: residual {residuals[-1]:.2g} by Newton's method:"
                    " use smaller weights"
                )
        return Settling(y, np.array(residuals))

    def spectral_radius(self, w: Array) -> float:
        """Largest |eigenvalue| of the Jacobian diag(f') W' at the fixed points.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        float
            Below 1 a relaxation by steps of 1 contracts.
        """
        return spectral_radius(self._y_jacobian(self._matrix(w), self._settled(w).y))

    def time_constant(self, w: Array) -> float:
        """Slowest time constant of all four relaxations near the fixed points.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        float
            In units of a neuron's own; infinite where one of them does not settle.

        Notes
        -----
        1/(1 - max Re eigenvalue of diag(f') W', and of diag(f') times the feedback).
        """
        W, B, y = self._matrix(w), self.network.feedback, self._settled(w).y
        # z and R{z} relax with diag(f') B, which has the eigenvalues of diag(f') W' if B = W
        jacobians = [
            self._y_jacobian(W, y),
            *([] if B is None else [self._f_slope(y @ W)[:, :, None] * B]),
        ]
        slowest = max(float(np.linalg.eigvals(jacobian).real.max()) for jacobian in jacobians)
        return 1.0 / (1.0 - slowest) if slowest < 1 else float("inf")

    def gradient(self, w: Array) -> Array:
        return self._primal(w).g.copy()

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        primal = self._primal(w)
        E, HV, _ = self._products(primal, V.T.reshape(-1, *primal.W.shape))
        return E, primal.g.copy(), HV.T

    def _both_relaxations(self, w: Array) -> "_Primal":
        """y and z, and everything else that R{.} needs of them."""
        W, f = self._matrix(w), self._f
        # (S, n_units): a pattern a row, so that x = y W
        y = self._settled(w).y
        x = y @ W
        f_y = f.f(x)
        df = f.df(x, f_y)
        d2f = f.d2f(x, f_y, df)
        B = W if self.network.feedback is None else self.network.feedback
        # relaxing R{y} and z; R{z} has the Jacobian of z, and W alone the same in both
        if self.network.solver == "direct":
            if B is not W:
                check_stable(df[:, :, None] * W.T, "R{y}")
            check_stable(df[:, :, None] * B, "z")

        # z = f' (sum_j w_ij z_j + e_i)
        e = np.zeros_like(y)
        out = self.network.outputs
        e[:, out] = self._E.e(y[:, out], self.target) / self.n_patterns
        # dE/dw_ij = y_i z_j, summed over patterns
        z, residuals = self._solve(df, B.T, df * e, "z")
        return _Primal(W, B, y, df, d2f, z, e, (y.T @ z).ravel(), residuals)

    def _products(self, primal: "_Primal", V: Array) -> tuple[float, Array, tuple[Array, Array]]:
        """E, Hv as rows (k, n) for V (k, n_units, n_units), and the residuals of R{y}, R{z}."""
        W, B, y, df, d2f, z, e, _, _ = primal
        # R{B}: other wires do not change with w
        R_B = V if self.network.feedback is None else np.zeros_like(V)

        # R{y} = f' (sum_i w_ij R{y_i} + v_ij y_i)
        # linear in R{y}, with the Jacobian of y itself
        R_y, of_R_y = self._solve(df, W, df * (y @ V), "R{y}")
        R_x = R_y @ W + y @ V

        # R{z} = f' (sum_j (v_ij z_j + w_ij R{z_j}) + R{e}) + f'' R{x} (sum_j w_ij z_j + e)
        R_e = np.zeros_like(R_y)
        out = self.network.outputs
        R_e[..., out] = self._E.R_e(y[:, out], self.target)(R_y[..., out]) / self.n_patterns
        # all terms that do not have R{z} in them
        fixed = df * (z @ np.swapaxes(R_B, -1, -2) + R_e) + d2f * R_x * (z @ B.T + e)
        R_z, of_R_z = self._solve(df, B.T, fixed, "R{z}")

        # R{dE/dw_ij} = y_i R{z_j} + R{y_i} z_j
        HV = (y.T @ R_z + np.swapaxes(R_y, -1, -2) @ z).reshape(len(V), -1)
        return float(self._E.value(y[:, out], self.target).mean()), HV, (of_R_y, of_R_z)

    def _solve(self, df: Array, M: Array, constant: Array, name: str) -> tuple[Array, Array]:
        """q of dq/dt ~ -q + f' (q M) + constant at rest, for constant (..., S, n_units).

        By relaxation, with its residuals, or as the linear equations that they are.
        """
        if self.network.solver == "relax":
            q, residuals = relaxed(
                lambda q: df * (q @ M) + constant,
                constant,
                name,
                lambda _: df[:, :, None] * M.T,
                self.network,
            )
            return q, np.array(residuals)
        return at_rest(df[:, :, None] * M.T, constant, name), np.zeros(0)

    def _f_slope(self, x: Array) -> Array:
        return self._f.df(x, self._f.f(x))

    def _y_jacobian(self, W: Array, y: Array) -> Array:
        """diag(f') W' for each pattern, at y, or with f' = 1 where y is too large to be known."""
        with np.errstate(over="ignore", invalid="ignore"):
            jacobian = self._f_slope(y @ W)[:, :, None] * W.T
        # only a message is made of it then, for y has run away
        return jacobian if np.isfinite(jacobian).all() else W.T

    def _matrix(self, w: Array) -> Array:
        return as_weights("w", w, self.n_weights).reshape(self.network.n_units, -1)


class _Primal(NamedTuple):
    """W, and B by which errors return; y, f', f'', z, e, (S, n_units); gradient; residuals of z."""

    W: Array
    B: Array
    y: Array
    df: Array
    d2f: Array
    z: Array
    e: Array
    g: Array
    residuals: Array
