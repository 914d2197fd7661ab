"""What kernels take, in groups of what belongs together, with numbers where the rest of the program
has names: tables at their door pair them.
"""

from typing import NamedTuple

import numpy as np


class Network(NamedTuple):
    """An MLP: neurons of each layer, inputs first; the kind of activation of each layer but those;
    the kind of error. See `kernels.activations`.
    """

    # (layers + 1,); activations (layers,), of ACTIVATION_KINDS; error of ERROR_KINDS
    sizes: np.ndarray
    activations: np.ndarray
    error: int


class Patterns(NamedTuple):
    """Neurons as rows, (n, S). at_rest (S,): the error of each pattern at w."""

    # float64: (n_in, S), (n_out, S)
    x: np.ndarray
    target: np.ndarray
    at_rest: np.ndarray


class Patterns32(NamedTuple):
    """S patterns, filled up with zeros to whole vectors of Sp; flat.

    x (inputs, Sp): sigma times the inputs, and sigma for the bias; target (outputs, Sp); at_rest
    (Sp,): errors at w; present (Sp,): 1 for every pattern that is none of those that fill up the
    last vector, or empty where trials are the lanes.
    """

    x: np.ndarray
    target: np.ndarray
    at_rest: np.ndarray
    present: np.ndarray
    S: int


class Weights(NamedTuple):
    """Weights (n,), or a displacement of them, and the net inputs of the first layer that they
    make (units, S), which are linear in them.
    """

    values: np.ndarray
    # W'x + b at every pattern; those of w + a D + br v are the sum of three such terms
    net_inputs: np.ndarray


class Points(NamedTuple):
    """w; w in phases that D moves; v; the gain with which D reaches each weight. See
    `estimation.engine.Mismatch`.
    """

    w: Weights
    moved: Weights
    v: Weights
    # (n,), of the perturbation alone: v is displaced exactly
    gain: np.ndarray


class Points32(NamedTuple):
    """The points w + br v of each phase: base (phases, units, Sp), flat: net inputs of the first
    layer; rest (phases, weights + 64): the other layers' weights. gain: as of `Points`.
    """

    base: np.ndarray
    rest: np.ndarray
    gain: np.ndarray


class Phases(NamedTuple):
    """The points w + a D + br v of a trial, and how their errors enter dE_g and dE_z."""

    # float64, (phases,) each; a and b as in `Method.phases`, and br is b r
    a: np.ndarray
    br: np.ndarray
    gradient_weights: np.ndarray
    hv_weights: np.ndarray


class Phases32(NamedTuple):
    """The same of float32 kernels, whose points are `Points32`; unperturbed: 1 for phases that are
    not moved at all, whose errors are those at w.
    """

    # float32, but for the weights, (phases,) each; b is in the points
    a: np.ndarray
    unperturbed: np.ndarray
    gradient_weights: np.ndarray
    hv_weights: np.ndarray


class Draws(NamedTuple):
    """Which perturbations, see `trial.random.perturbation`; seed: of them and of all noise.
    sensing: how far off is what synapses know of them, in units of sigma.
    """

    # of `Code.kind`
    kind: int
    seed: np.uint64
    sigma: float
    # trials until a periodic code repeats
    period: int
    # weights that one shift register feeds
    taps: int
    sensing: float


class Readout(NamedTuple):
    """How an error is read, see `trial.readout.read`; float32 in float32 kernels."""

    # all in units of E; a step of 0 is no converter, top its highest level
    noise: float | np.float32
    step: float | np.float32
    top: float | np.float32


class Regressor(NamedTuple):
    """What each synapse regresses on, see `trial.synapse.accumulate`."""

    kind: int
    # v.v, and `Method.kappa` of the code
    V: float
    kappa: float


class Regressor32(NamedTuple):
    """The regressor alpha s D_i - beta_i s^2 of each synapse. v: a vector of length 1 and zeros up
    to a multiple of 64, or empty where s is not needed; sigma_v: the unit of s.
    """

    kind: int
    v: np.ndarray
    beta: np.ndarray
    alpha: float
    sigma_v: float


class Trials(NamedTuple):
    """What all trials of a run have in common: in float64, or in float32 (the classes with 32)."""

    network: Network
    patterns: Patterns | Patterns32
    points: Points | Points32
    phases: Phases | Phases32
    draws: Draws
    readout: Readout
    regressor: Regressor | Regressor32


class Sums(NamedTuple):
    """What trials add to, block by block: `synapse.SUMS` (blocks, rows, n) and `synapse.TOTALS`
    (blocks, rows); failed (blocks,): the first trial with an error that is not finite, or -1.
    received: for what is broadcast of trials from `origin` on, (3, trials), or (3, 0).
    """

    sums: np.ndarray
    totals: np.ndarray
    failed: np.ndarray
    received: np.ndarray
    origin: int


class Block(NamedTuple):
    """Trials start + lo .. start + hi - 1 of a block that begins with trial `start`."""

    start: int
    lo: int
    hi: int


class Perturbations(NamedTuple):
    """Those of a block of T trials, in units of sigma: bits, see `draw_signs`, or else values
    [i T + t] as they are applied; the other is empty.
    """

    # of a code of signs, unless weights have gains of their own, which make values of them
    bits: np.ndarray
    values: np.ndarray


class Errors(NamedTuple):
    """Of a block: E[p T + t], the sum over patterns of the error in phase p of trial t, less that
    at w; s[t]: sum of v times the perturbations. each: if not empty, takes the errors of the
    patterns in the last trial and phase.
    """

    # less that at w, pattern by pattern: differences of sums would lose their digits in float32
    E: np.ndarray
    s: np.ndarray
    each: np.ndarray
