"""The numbers that the parts of a chip compute: functions of the trial alone, of many trials at a
time, a row each. Every row is the same whichever others come with it.

Fabrication (mismatch, stuck and dead cells) is drawn once per die, from the seed of the die;
operation (noise, drops) is keyed by the run's seed and by trial, evaluation and element. So nothing
depends on batches, tiles or on which engine asks.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hardware.params import ChipParams, engines
from hardware.parts.neurons import Neurons, layers_of, neighbour_sum
from hardware.parts.weight_store import WeightStore
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.estimation.engine import Mismatch
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics
from perturb.kernels.float64 import add_broadcast, add_broadcasts, dot_rows
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.codes import lfsr
from perturb.trial.methods import REGRESSORS
from perturb.trial.random import NOISE, normals, normals_each, pattern_index, uniforms_at
from perturb.trial.readout import Reading, read
from perturb.trial.synapse import SUMS, count

Array = np.ndarray
# streams of random numbers: of the die, and of the run
GAIN, OFFSET, STUCK, DEAD, NEURON_GAIN, NEURON_OFFSET, MULTIPLIER, DYING = range(32, 40)
READ, NEURON_NOISE, FLICKER, DITHER, LINE, DROP, JITTER = range(48, 55)
OCTAVES = 24  # of 1/f noise: down to one change in 16 million evaluations
NEGLIGIBLE = 1e-17  # of an earlier perturbation, below rounding
MAX_BITS = 64  # bits of a word: more are finer than the numbers of this program
BLOCK = 64  # trials summed at a time
PRODUCTS = [SUMS.index("xy"), SUMS.index("qu")]


@dataclass(frozen=True)
class Die:
    """One fabricated chip.

    Per synapse (n,): gain and offset of its perturbation, offset of its multiplier, whether its
    weight is stuck, whether the synapse works, whether it stops working during a run. neurons: gain
    and offset of their net inputs, per layer of `hardware.parts.neurons.layers_of`.
    """

    gain: Array
    offset: Array
    multiplier: Array
    stuck: Array
    alive: Array
    dying: Array
    neurons: list[tuple[Array, Array]]


def fabricate(params: ChipParams, n: int, layers: list[int]) -> Die:
    """The die of `params.die`; layers: neurons of each layer, in order."""
    p = params.perturbation
    cells = params.weights
    die = params.die or 0
    first = 0
    neurons = []
    gains = 1.0 + params.neuron.gain_mismatch * _normals(die, NEURON_GAIN, sum(layers))
    offsets = params.neuron.offset_mismatch * _normals(die, NEURON_OFFSET, sum(layers))
    for size in layers:
        neurons.append((gains[first : first + size], offsets[first : first + size]))
        first += size
    return Die(
        1.0 + p.gain_mismatch * _normals(die, GAIN, n),
        p.offset_mismatch * _normals(die, OFFSET, n),
        params.synapse.offset_mismatch * _normals(die, MULTIPLIER, n),
        _uniforms(die, STUCK, n) < cells.stuck_fraction,
        _uniforms(die, DEAD, n) >= cells.dead_fraction,
        _uniforms(die, DYING, n) < params.faults.dying_fraction,
        neurons,
    )


def realized_code(params: ChipParams, code: Code, n_weights: int) -> Code:
    """The code as the chip realizes it: `lfsr` with a shift register in every tile, where the chip
    has them; any other as it is, and so are registers that were given with the code.
    """
    p = params.perturbation
    if code != lfsr() or p.lfsr_per == "chip":
        return code
    try:
        code = lfsr(params.synapses_per_tile, p.lfsr_bits or None)
        code.check(n_weights)
    except InputError as error:
        raise InputError(f"perturbation.lfsr_bits = {p.lfsr_bits}: {error}") from None
    return code


class Datapath:
    """All the numbers of a chip's trials. start_ns(trial): when a trial starts, which leaking
    and drifting weights depend on.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        design: Design,
        w: Array,
        v: Array,
        start_ns: Callable[[int], int],
    ):
        self.params = params
        self.objective = objective
        self.design = design
        self.v = v
        self.start_ns = start_ns
        self.reading = Reading(
            params.error_unit.noise, params.error_unit.bits, params.error_unit.range
        )
        layers = layers_of(objective)
        self.die = fabricate(params, w.size, [layer.neurons.size for layer in layers])
        self.neurons = Neurons(params.neuron, objective, layers, self.die.neurons)
        faults = params.faults
        self._all_work = (
            bool(self.die.alive.all()) and faults.dying_fraction == 0 and faults.tile < 0
        )  # every synapse always works
        self._without_power = np.arange(w.size) // params.synapses_per_tile == faults.tile
        self.weight_store = WeightStore(params, self.die.stuck, w, design.seed)
        self.perturb_every = (
            1  # trials, and from which patterns (k,) a trial shows: None, as the design says
        )
        self.patterns_of: Callable[[int], Array] | None = None
        p = params.perturbation
        if p.settle_ns < p.tau_ns / 100:
            raise InputError(
                f"perturbation.settle_ns = {p.settle_ns} is less than a hundredth of tau_ns ="
                f" {p.tau_ns:g}, so that hardly anything of a perturbation would arrive: set a"
                " longer settle_ns, or tau_ns = 0"
            )
        self.residual = (
            math.exp(-p.settle_ns / p.tau_ns) if p.tau_ns else 0.0
        )  # of the last change, when it is measured
        self._horizon = (
            math.ceil(math.log(NEGLIGIBLE) / math.log(self.residual)) if self.residual else 0
        )
        self._phases = range(len(design.method.phases))
        self._baseline = (
            design.method.phases.index((0, 0)) if (0, 0) in design.method.phases else -1
        )
        # whether a measured E(w) is used for several trials
        self.reuses_baseline = self._baseline >= 0 and params.error_unit.baseline_every > 1
        self._without_baseline = [phase for phase in self._phases if phase != self._baseline]
        self.stored_baseline: tuple[int, float] = (-1, 0.0)
        self.displaced = np.zeros(
            w.size
        )  # of the weights in the last evaluation, where trials are run one after another
        self.tally: Counter[str] = Counter()  # of readings and broadcasts, for the report
        size = float(np.linalg.norm(v))
        regressor = {
            "dw": 1.0,
            "s_dw": design.sigma * size,
            "b": design.sigma / size if size else 0.0,
            "none": 1.0,
        }
        # of dw and of what z is regressed on
        self._rms = design.sigma * np.array([[1.0], [regressor[design.method.regressor]]])
        self._V = float(v @ v)

    @property
    def kernels_suffice(self) -> bool:
        """Whether the batch kernels know all that is not ideal."""
        return engines(self.params) <= {"kernels"}

    @property
    def mismatch(self) -> Mismatch | None:
        """What is wrong with the perturbations of a plain chip; None if nothing."""
        p = self.params.perturbation
        return (
            Mismatch(self.die.gain, self.die.offset)
            if p.gain_mismatch or p.offset_mismatch
            else None
        )

    # ---- weights and perturbations

    def weights(self, trial: int) -> Array:
        """The stored weights when a trial starts, leaked and drifted since they were written:
        first, or by the last refresh.
        """
        return self.weight_store.weights(
            self.start_ns(trial) if self.weight_store.changes else 0, trial
        )

    def working(self, trial: int) -> Array:
        """Which synapses work, (n,)."""
        faults = self.params.faults
        working = self.die.alive
        if faults.dying_fraction and trial >= faults.dying_trial:
            working = working & ~self.die.dying
        return working & ~self._without_power if self._tile_off(trial) else working

    def _tile_off(self, trial: int) -> bool:
        return 0 <= self.params.faults.tile and trial >= self.params.faults.tile_trial

    def drawn(self, trials: Sequence[int]) -> Array:
        """dw of trials as the code makes it, (trials, n); 0 where a synapse does not work."""
        design = self.design
        D = design.code.draw_each(
            design.n_weights, design.sigma, design.seed, np.array(trials) // self.perturb_every
        )
        if not self._all_work:
            D *= self._working(trials)
        return D

    def applied(self, D: Array, trials: Sequence[int]) -> Array:
        """What reaches the weights of dw (trials, n): converter, gain, offset and crosstalk; the
        weights of stuck cells feel nothing.
        """
        p = self.params.perturbation
        x = quantised(D, p.bits, p.range)
        if p.gain_mismatch:
            x = x * self.die.gain
        if p.offset_mismatch:
            x = x + (
                self.die.offset
                if self._all_work
                else np.where(self._working(trials), self.die.offset, 0.0)
            )
        if p.crosstalk:
            x = x + p.crosstalk * neighbour_sum(x)
        return np.where(self.die.stuck, 0.0, x) if self.params.weights.stuck_fraction else x

    def masked(self, displacement: Array, trials: Sequence[int]) -> Array:
        """A displacement (n,) or (trials, n) that every synapse applies to its weight: synapses
        that do not work make none, and the weights of stuck cells feel nothing.
        """
        x = displacement if self._all_work else np.where(self._working(trials), displacement, 0.0)
        return np.where(self.die.stuck, 0.0, x) if self.params.weights.stuck_fraction else x

    def _working(self, trials: Sequence[int]) -> Array:
        return np.array([self.working(trial) for trial in trials])

    def measured_phases(self, trial: int) -> range | list[int]:
        """The evaluations of a trial; a stored baseline is not measured again."""
        if self.reuses_baseline and trial % self.params.error_unit.baseline_every:
            return self._without_baseline
        return self._phases

    def evaluations(self, trials: Sequence[int]) -> list[tuple[int, int]]:
        """The evaluations (trial, phase) of trials, in order."""
        return [(trial, phase) for trial in trials for phase in self.measured_phases(trial)]

    def targets(self, D: Array, trials: Sequence[int]) -> Array:
        """How far the weights are displaced in each evaluation of trials once everything has
        settled, (evaluations, n).
        """
        out = np.zeros((len(trials), len(self._phases), D.shape[1]))
        for phase, (a, b) in enumerate(self.design.method.phases):
            if a:
                out[:, phase] = self.applied(a * D, trials)
            if b:
                out[:, phase] += b * self.masked(self.design.r * self.v, trials)
        if self.reuses_baseline:
            return np.concatenate(
                [out[i, self.measured_phases(trial)] for i, trial in enumerate(trials)]
            )
        return out.reshape(-1, D.shape[1])

    def settled(self, targets: Array) -> Array:
        """How far the weights are displaced in the next evaluations, (evaluations, n)."""
        displaced = self._settled(targets, self.displaced)
        self.displaced = displaced[-1]
        return displaced

    def _settled(self, targets: Array, displaced: Array) -> Array:
        """x := x exp(-T/tau) + (1 - exp(-T/tau)) target at every evaluation, from the x that was
        before: (evaluations, n).
        """
        if not self.residual:
            return targets
        from scipy.signal import lfilter  # much to load, for perturbations that do not settle alone

        return lfilter(
            [1.0 - self.residual],
            [1.0, -self.residual],
            targets,
            axis=0,
            zi=self.residual * displaced[None],
        )[0]

    def displacements(self, first: int, last: int) -> tuple[Array, Array]:
        """dw of trials first..last-1, (trials, n), and how far the weights are displaced in each of
        their evaluations, (m, n), from as many evaluations before as still count.
        """
        begin = first
        before = 0
        while before < self._horizon and begin > 0:
            begin -= 1
            before += len(self.measured_phases(begin))
        trials = range(begin, last)
        D = self.drawn(trials)
        displaced = self._settled(self.targets(D, trials), np.zeros(D.shape[1]))
        return D[first - begin :], displaced[before:]

    # ---- evaluations

    def readings(self, evaluations: list[tuple[int, int]], displaced: Array) -> Array:
        """E as the error unit reads it, for evaluations (trial, phase) with the weights
        displaced, (m,).
        """
        p = self.params
        unit = self.params.error_unit
        step = self.reading.step
        if self.weight_store.changes:
            stored = {trial: self.weights(trial) for trial, _ in evaluations}
            points = displaced + np.array([stored[trial] for trial, _ in evaluations])
        else:
            points = displaced + self.weight_store.stored
        if p.weights.read_noise:
            points += p.weights.read_noise * self._noise(READ, points.shape[1], evaluations)
        errors = self._errors(points, evaluations)
        xi = np.zeros_like(errors)
        extra = np.full((len(errors), 1), unit.offset)
        if unit.noise:
            xi = self._noise(NOISE, errors.shape[1], evaluations)
        if unit.flicker:
            extra += (
                unit.flicker
                * self._flicker(
                    [trial * len(self._phases) + phase for trial, phase in evaluations]
                )[:, None]
            )
        if unit.dither and step:
            extra = extra + step * np.array(
                [
                    _uniforms(self.design.seed, DITHER, errors.shape[1], *e) - 0.5
                    for e in evaluations
                ]
            )
        if step:
            masked = errors + extra + unit.noise * xi
            self.tally["readings"] += masked.size
            self.tally["below"] += int((masked < -step / 2).sum())
            self.tally["above"] += int((masked > self.reading.range - step / 2).sum())
        return read(errors + extra, xi, unit.noise, step, self.reading.range - step).mean(1)

    def _flicker(self, numbers: Sequence[int]) -> Array:
        # 1/f noise after Voss: octave k changes every 2^k evaluations
        out = np.zeros(len(numbers))
        for k in range(OCTAVES):
            out += self._noise(FLICKER, 1, [(number >> k, k) for number in numbers])[:, 0]
        return out

    def _noise(self, stream: int, size: int, keys: list[tuple[int, int]]) -> Array:
        """Standard normals (keys, size), keyed by (trial, phase)."""
        out = np.empty((len(keys), size))
        normals_each(np.uint64(self.design.seed), stream, *np.array(keys).T.copy(), out)
        return out

    def _errors(self, points: Array, evaluations: list[tuple[int, int]]) -> Array:
        """Errors of the presented patterns at the points, (m, presented)."""
        objective = self.objective
        seed = np.uint64(self.design.seed)
        presented: list[Array] | None = None
        if self.patterns_of is not None:
            presented = [self.patterns_of(trial) for trial, _ in evaluations]
        elif self.design.presentation == "pattern":
            presented = [
                np.array([pattern_index(seed, trial, objective.n_patterns)])
                for trial, _ in evaluations
            ]
        if self.neurons.ideal and not isinstance(objective, MLPObjective):
            if presented is None:
                return objective.errors_at(points)
            return np.array(
                [
                    objective.subset(rows).pattern_errors(point)
                    for rows, point in zip(presented, points, strict=True)
                ]
            )

        def noise(layer: int, size: int) -> Array:
            return self._noise(
                NEURON_NOISE, size, [(trial, phase + 16 * layer) for trial, phase in evaluations]
            )

        return self.neurons.errors(points, presented, noise)

    # ---- broadcasts

    def evaluated(self, trials: range) -> "Broadcasts":
        """What trials broadcast that come after all that were evaluated before."""
        D = self.drawn(trials)
        return self.broadcasts(trials, D, self.settled(self.targets(D, trials)))

    def broadcasts(self, trials: range, D: Array, displaced: Array) -> "Broadcasts":
        """What trials with the perturbations D broadcast, where their evaluations displace the
        weights so far.
        """
        evaluations = self.evaluations(trials)
        E = np.full((len(trials), len(self._phases)), np.nan)
        E[tuple((np.array(evaluations) - (trials.start, 0)).T)] = self.readings(
            evaluations, displaced
        )
        if self.reuses_baseline:
            E[:, self._baseline] = [
                self._baseline_of(trial, E[trial - trials.start, self._baseline])
                for trial in trials
            ]
        known = self.known(D, trials)
        dE_g, dE_z = self._combined(trials, E)
        return Broadcasts(known, dE_g, dE_z, self.line(trials, known))

    def _combined(self, trials: range, E: Array) -> list[Array]:
        """dE_g and dE_z of trials as they are broadcast, from the readings of all phases
        (trials, phases).
        """
        method = self.design.method
        bus = self.params.bus
        both = []
        for weights in (method.gradient_weights, method.hv_weights):
            dE = np.zeros(len(E))
            for phase, weight in enumerate(weights):
                dE += weight * E[:, phase]
            dE = np.sign(dE) if self.params.error_unit.one_bit else dE
            both.append(self._words("dE", dE, bus.word_bits if bus.dE_range else 0, bus.dE_range))
        wrong = ~np.isfinite(both[0] + both[1])
        if wrong.any():
            raise self.design.not_finite(trials[int(np.argmax(wrong))])
        return both

    def _baseline_of(self, trial: int, measured: float) -> float:
        """E(w) for a trial: as it has measured it, or as the last one that did."""
        begin = trial - trial % self.params.error_unit.baseline_every
        if begin == trial:
            self.stored_baseline = (trial, float(measured))
        elif self.stored_baseline[0] != begin:
            evaluations, (_, displaced) = (
                self.evaluations([begin]),
                self.displacements(begin, begin + 1),
            )
            at = [phase for _, phase in evaluations].index(self._baseline)
            self.stored_baseline = (
                begin,
                float(self.readings(evaluations[at : at + 1], displaced[at : at + 1])[0]),
            )
        return self.stored_baseline[1]

    def line(self, trials: Sequence[int], known: Array) -> Array:
        """dw.v of trials as they are broadcast, from what the synapses put on the line; 0 where
        the method has no use for it.
        """
        if not self.design.method.needs_s:
            return np.zeros(len(known))
        line = self.params.summing_line
        bus = self.params.bus
        s = dot_rows(known, self.v) * (1.0 + line.gain_error)
        if line.noise:
            s += line.noise * self._noise(LINE, 1, [(trial, 0) for trial in trials])[:, 0]
        s = self._words("line", s, line.bits, line.range)
        return self._words("s", s, bus.word_bits if bus.s_range else 0, bus.s_range)

    def _words(self, name: str, x: Array, bits: int, reach: float) -> Array:
        """x as a word of `bits` carries it; counts the words, and those beyond their range."""
        if bits:
            bits = min(bits, MAX_BITS)
            step = 2.0 * reach / 2**bits
            self.tally[f"{name}, all"] += x.size
            self.tally[f"{name}, beyond"] += int(
                (~((-reach - step / 2 <= x) & (x < reach - step / 2))).sum()
            )
        return quantised(x, bits, reach)

    def received(self, trial: int, tile: int) -> bool:
        """Whether a tile gets the broadcast of a trial."""
        p = self.params.bus.drop_probability
        arrived = not p or float(_uniforms(self.design.seed, DROP, 1, trial, tile)[0]) >= p
        self.tally["broadcasts"] += 1
        self.tally["lost"] += not arrived
        return arrived

    def delay_ns(self, trial: int, tile: int, tiles: int) -> int:
        """How much later than the first undisturbed one a tile gets the broadcast: skew and
        jitter.
        """
        bus = self.params.bus
        skew = bus.skew_ns * tile // max(1, tiles - 1)
        return skew + (
            int(bus.jitter_ns * _uniforms(self.design.seed, JITTER, 1, trial, tile)[0])
            if bus.jitter_ns
            else 0
        )

    # ---- synapses

    def known(self, D: Array, trials: Sequence[int]) -> Array:
        """What the synapses know of their perturbations D (trials, n)."""
        design = self.design
        every = self.perturb_every
        if design.code.sensing == 0.0:
            return D
        return np.array(
            [
                design.code.sensed(dw, design.sigma, design.seed, trial // every)
                for dw, trial in zip(D, trials, strict=True)
            ]
        )

    def accumulate(
        self, sums: Array, totals: Array, trials: Sequence[int], broadcasts: "Broadcasts"
    ) -> None:
        """Change the sums (rows, n) of the synapses and the controller's totals by the
        broadcasts of trials, in order.
        """
        drops = self.params.bus.drop_probability
        synapse = self.params.synapse
        known = (
            broadcasts.known + self.die.multiplier if synapse.offset_mismatch else broadcasts.known
        )
        kind = REGRESSORS[self.design.method.regressor]
        if self._all_work and not (drops or synapse.leak or synapse.sum_range):
            add_broadcasts(
                sums,
                totals,
                known,
                broadcasts.y,
                broadcasts.u,
                broadcasts.s,
                self.v,
                self._V,
                kind,
                self.design.kappa,
            )
            return
        for trial, dw, y, u, s in zip(
            trials, known, *(a.tolist() for a in broadcasts[1:]), strict=True
        ):
            self._accumulate_one(sums, dw, trial, (y, u), s, kind)
            totals[:] = count(((1.0 - synapse.leak) * totals).tolist(), (y, u), s)

    def _accumulate_one(
        self, sums: Array, dw: Array, trial: int, dE: tuple[float, float], s: float, kind: int
    ) -> None:
        """Change the sums (rows, n) by a broadcast: leak, then the rule of
        `perturb.trial.synapse` where it has arrived.
        """
        design = self.design
        synapse = self.params.synapse
        if synapse.leak:
            sums *= 1.0 - synapse.leak
        if self._tile_off(trial):
            sums[:, self._without_power] = 0.0
        if not self._all_work:
            dw = np.where(self.working(trial), dw, 0.0)
        before = sums[PRODUCTS] if synapse.sum_range else None
        add_broadcast(sums, dw, dE, s, self.v, self._V, kind, design.kappa, self._arrived(trial))
        if before is not None:
            # the sums that the estimate is made of; the others serve its standard errors and are
            # the emulator's
            reach = synapse.sum_range * self._rms
            step = 2 * reach / 2**synapse.sum_bits
            added = sums[PRODUCTS] - before
            added = np.floor(added / step + 0.5) * step if synapse.sum_bits else added
            sums[PRODUCTS] = np.clip(before + added, -reach, reach)

    def _arrived(self, trial: int) -> Array:
        """Which synapses get the broadcast of a trial, (n,)."""
        n = self.v.size
        size = self.params.synapses_per_tile
        if not self.params.bus.drop_probability:
            return np.ones(n, dtype=bool)
        return np.repeat([self.received(trial, tile) for tile in range(-(-n // size))], size)[:n]

    def solved(self, statistics: Statistics) -> Estimate:
        """The estimate from sums that may have leaked; of a synapse that does not work it is 0,
        with an unknown error.

        A leak weighs the trials by (1-l)^age: sums count as many trials as the weights sum to, and
        the errors are those of the (sum)^2 / (sum of squares) trials that the weights amount to.
        """
        K = statistics.trials
        keep = 1.0 - self.params.synapse.leak
        counted = worth = float(K)
        weighed = Statistics(self.design, statistics.spans)
        weighed.point = statistics.point
        weighed.closed = statistics.closed
        weighed.open = statistics.open
        weighed.precision = statistics.precision
        weighed.periods = copy(statistics.periods)
        if weighed.periods and (
            keep < 1.0 or self.params.bus.drop_probability or self.params.synapse.sum_range
        ):
            weighed.periods.sound = False
        if keep < 1.0:
            counted = (1.0 - keep**K) / (1.0 - keep) if keep else 1.0
            worth = counted**2 * (1.0 - keep**2) / (1.0 - keep ** (2 * K)) if keep else 1.0
            weighed.closed = (statistics.sums * K / counted, statistics.totals * K / counted)
            weighed.open = weighed.zeros()
        found = solve(weighed)
        works = self.working(statistics.next_trial - 1)
        wider = math.sqrt(K / worth) if worth > 2 else math.nan  # as after two trials, see `solve`
        hv = np.where(works, found.hv, 0.0 if self.design.method.estimates_hv else np.nan)
        return Estimate(
            np.where(works, found.gradient, 0.0),
            np.where(works, wider * found.gradient_stderr, np.nan),
            hv,
            np.where(works, wider * found.hv_stderr, np.nan),
            found.trials,
            found.evaluations,
            statistics,
            found.gradient_df * worth / K,
            found.hv_df * worth / K,
            found.unknown,
        )

    # ---- batches

    def run(self, statistics: Statistics, trials: int) -> None:
        """Add the next `trials` trials to `statistics`, in order, as the events would."""
        last = statistics.next_trial + trials
        while (first := statistics.next_trial) < last:
            begin = first // BLOCK * BLOCK
            stop = min(last, (first // BLOCK + 1) * BLOCK)
            # from the start of the block, so that what is left of earlier perturbations is the same
            # however a run is split
            D, displaced = self.displacements(begin, stop)
            new = range(first, stop)
            done = len(self.evaluations(range(begin, first)))
            broadcasts = self.broadcasts(new, D[first - begin :], displaced[done:])
            self.accumulate(*statistics.closed, new, broadcasts)
            if statistics.periods:
                statistics.periods.receive(first, np.array(broadcasts[1:]), self.v)
            statistics.extend(stop - first)


class Broadcasts(NamedTuple):
    """Of some trials: dw as the synapses know it (trials, n), and what is broadcast of each:
    dE_g, dE_z and dw.v (trials,).
    """

    known: Array
    y: Array
    u: Array
    s: Array


def quantised(x: Array, bits: int, reach: float) -> Array:
    """x rounded to 2^bits levels from -reach to reach - one step, and clipped there; bits = 0
    leaves it as it is.
    """
    if not bits:
        return x
    step = 2.0 * reach / 2**bits
    return np.clip(np.floor(x / step + 0.5) * step, -reach, reach - step)


def _normals(seed: int, stream: int, size: int, trial: int = 0, phase: int = 0) -> Array:
    out = np.empty(size)
    normals(np.uint64(seed), stream, trial, phase, out)
    return out


def _uniforms(seed: int, stream: int, size: int, trial: int = 0, phase: int = 0) -> Array:
    out = np.empty(size)
    uniforms_at(np.uint64(seed), stream, trial, phase, 0, out)
    return out
