"""What the parts of a chip make of the numbers: functions of the trial alone, used by the events one trial at a time and by the
batches many at a time.

Fabrication (mismatch, stuck and dead cells) is drawn once per die, from the die's own seed; operation (noise, drops) is keyed by
the run's seed and by trial, evaluation and element. So nothing depends on batches, tiles or on which engine asks.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from hardware.memory import Memory
from hardware.params import ChipParams, imperfections
from hardware.units import Units, beside, layers_of
from perturb.codes import Code, lfsr
from perturb.errors import InputError
from perturb.kernels import Mismatch, add_broadcast
from perturb.methods import REGRESSORS
from perturb.mlp import MLPObjective
from perturb.objective import Objective
from perturb.philox import NOISE, normals, pattern_index, uniforms_at
from perturb.reading import Reading, read
from perturb.statistics import Design, Estimate, Statistics, solve
from perturb.synapse import SUMS, count

Array = np.ndarray
# streams of random numbers: of the die, and of the run
GAIN, OFFSET, STUCK, DEAD, UNIT_GAIN, UNIT_OFFSET, MULTIPLIER, DYING = range(32, 40)
READ, UNIT_NOISE, FLICKER, DITHER, LINE, DROP, JITTER = range(48, 55)
OCTAVES = 24  # of 1/f noise: down to one change in 16 million evaluations
FORGOTTEN = 1e-17  # of an earlier perturbation, below rounding
BLOCK = 64  # trials summed at a time
# imperfections that the batch kernels know of: noise and converter of the error unit, mismatch of perturbations
PLAIN = {
    "error_unit.noise", "error_unit.bits", "perturbation.lfsr_per", "perturbation.gain_mismatch", "perturbation.offset_mismatch",
}  # fmt: skip
PRODUCTS = [SUMS.index("xy"), SUMS.index("qu")]


@dataclass(frozen=True)
class Die:
    """One fabricated chip.

    Per synapse (n,): gain and offset of its perturbation, offset of its multiplier, whether its weight is stuck, whether the
    synapse works, whether it stops working during a run. units: gain and offset of their net inputs, per layer of
    `hardware.units.layers_of`.
    """

    gain: Array
    offset: Array
    multiplier: Array
    stuck: Array
    alive: Array
    dying: Array
    units: list[tuple[Array, Array]]


def fabricate(params: ChipParams, n: int, layers: list[int]) -> Die:
    """The die of `params.die`; layers: units of each layer with weights into it, in order."""
    p, cells = params.perturbation, params.weights
    first, units = 0, []
    gains = 1.0 + params.neuron.gain_mismatch * _normals(params.die, UNIT_GAIN, sum(layers))
    offsets = params.neuron.offset_mismatch * _normals(params.die, UNIT_OFFSET, sum(layers))
    for size in layers:
        units.append((gains[first : first + size], offsets[first : first + size]))
        first += size
    return Die(
        1.0 + p.gain_mismatch * _normals(params.die, GAIN, n),
        p.offset_mismatch * _normals(params.die, OFFSET, n),
        params.synapse.offset_mismatch * _normals(params.die, MULTIPLIER, n),
        _uniforms(params.die, STUCK, n) < cells.stuck_fraction,
        _uniforms(params.die, DEAD, n) >= cells.dead_fraction,
        _uniforms(params.die, DYING, n) < params.faults.dying_fraction,
        units,
    )


def made_on(params: ChipParams, code: Code, n_weights: int) -> Code:
    """The code as the chip makes it: `lfsr` with a shift register in every tile, where the chip has them; any other as it is,
    and so are registers that were given with the code."""
    p = params.perturbation
    if code != lfsr() or p.lfsr_per == "chip":
        return code
    try:
        code = lfsr(params.synapses_per_tile, p.lfsr_bits or None)
        code.check(n_weights)
    except InputError as error:
        raise InputError(f"perturbation.lfsr_bits = {p.lfsr_bits}: {error}") from None
    return code


class Values:
    """All the numbers of a chip's trials. start_ns(trial): when a trial starts, which leaking and drifting weights depend on."""

    def __init__(
        self, params: ChipParams, objective: Objective, design: Design, w: Array, v: Array, start_ns: Callable[[int], int]
    ):
        self.params, self.objective, self.design, self.v, self.start_ns = params, objective, design, v, start_ns
        self.reading = Reading(params.error_unit.noise, params.error_unit.bits, params.error_unit.range)
        layers = layers_of(objective)
        self.die = fabricate(params, w.size, [layer.units.size for layer in layers])
        self.units = Units(params.neuron, objective, layers, self.die.units)
        faults = params.faults
        self._whole = bool(self.die.alive.all()) and faults.dying_fraction == 0 and faults.tile < 0  # every synapse always works
        self._without_power = np.arange(w.size) // params.synapses_per_tile == faults.tile
        self.memory = Memory(params, self.die.stuck, w, design.seed)
        self.perturb_every = 1  # trials, and from which patterns (k,) a trial shows: None, as the design says
        self.rows_of: Callable[[int], Array] | None = None
        p = params.perturbation
        if p.settle_ns < p.tau_ns / 100:
            raise InputError(
                f"perturbation.settle_ns = {p.settle_ns} is less than a hundredth of tau_ns = {p.tau_ns:g}, so that hardly "
                "anything of a perturbation would arrive: set a longer settle_ns, or tau_ns = 0"
            )
        self.left = math.exp(-p.settle_ns / p.tau_ns) if p.tau_ns else 0.0  # of the last change, when it is measured
        self._memory = math.ceil(math.log(FORGOTTEN) / math.log(self.left)) if self.left else 0
        self._baseline = design.method.phases.index((0, 0)) if (0, 0) in design.method.phases else -1
        self.kept: tuple[int, float] = (-1, 0.0)
        self.displaced = np.zeros(w.size)  # of the weights in the last evaluation, where trials are run one after another
        self.tally: Counter[str] = Counter()  # of readings and broadcasts, for the report
        size = float(np.linalg.norm(v))
        regressor = {"dw": 1.0, "s_dw": design.sigma * size, "b": design.sigma / size if size else 0.0, "none": 1.0}
        # of dw and of what z is regressed on
        self._rms = design.sigma * np.array([[1.0], [regressor[design.method.regressor]]])
        self._V, self._everywhere = float(v @ v), np.ones(v.size, dtype=bool)

    @property
    def plain(self) -> bool:
        """Whether the batch kernels know all that is not ideal: see PLAIN."""
        return set(imperfections(self.params)) <= PLAIN and not self.params.error_unit.dither

    @property
    def mismatch(self) -> Mismatch | None:
        """What is wrong with the perturbations of a plain chip; None if nothing."""
        p = self.params.perturbation
        return Mismatch(self.die.gain, self.die.offset) if p.gain_mismatch or p.offset_mismatch else None

    # ---- weights and perturbations

    def weights(self, trial: int) -> Array:
        """The stored weights when a trial starts, leaked and drifted since they were written: first, or by the last refresh."""
        return self.memory.weights(self.start_ns(trial) if self.memory.changes else 0, trial)

    def working(self, trial: int) -> Array:
        """Which synapses work, (n,)."""
        faults, working = self.params.faults, self.die.alive
        if faults.dying_fraction and trial >= faults.dying_trial:
            working = working & ~self.die.dying
        return working & ~self._without_power if self._tile_off(trial) else working

    def _tile_off(self, trial: int) -> bool:
        return 0 <= self.params.faults.tile and trial >= self.params.faults.tile_trial

    def drawn(self, trial: int, start: int = 0, stop: int | None = None) -> Array:
        """dw of the synapses start..stop-1 as the code makes it; 0 where a synapse does not work."""
        design = self.design
        D = design.code.draw(design.n_weights, design.sigma, design.seed, trial // self.perturb_every, start, stop)
        return D if self._whole else D * self.working(trial)[start:stop]

    def applied(self, D: Array, trial: int) -> Array:
        """What reaches the weights of dw: converter, gain, offset and crosstalk; the weights of stuck cells feel nothing."""
        p = self.params.perturbation
        x = quantised(D, p.bits, p.range) * self.die.gain
        x = np.where(self.working(trial), x + self.die.offset, 0.0)
        if p.crosstalk:
            x = x + p.crosstalk * beside(x)
        return np.where(self.die.stuck, 0.0, x)

    def measured_phases(self, trial: int) -> list[int]:
        """The evaluations of a trial; a stored baseline is not measured again."""
        kept = self.keeps_baseline and trial % self.params.error_unit.baseline_every != 0
        return [phase for phase in range(len(self.design.method.phases)) if not (kept and phase == self._baseline)]

    def target(self, D: Array, trial: int, phase: int) -> Array:
        """How far the weights are displaced in a phase once everything has settled, (n,)."""
        a, b = self.design.method.phases[phase]
        return (self.applied(a * D, trial) if a else 0.0) + b * self.design.r * self.v

    def settled(self, target: Array) -> Array:
        """How far the weights are displaced in the next evaluation, (n,): x := x exp(-T/tau) + (1 - exp(-T/tau)) target."""
        self.displaced = self.left * self.displaced + (1.0 - self.left) * target
        return self.displaced

    def displacements(self, first: int, last: int) -> tuple[list[tuple[int, int]], Array]:
        """The evaluations (trial, phase) of trials first..last-1 in order, and how far the weights are displaced in each, (m, n).

        As `settled` would give them, from as many evaluations before as still count.
        """
        evaluations = [(trial, phase) for trial in range(first, last) for phase in self.measured_phases(trial)]
        before: list[tuple[int, int]] = []
        trial = first
        while len(before) < self._memory and trial > 0:
            trial -= 1
            before = [(trial, phase) for phase in self.measured_phases(trial)] + before
        drawn = {trial: self.drawn(trial) for trial in dict.fromkeys(trial for trial, _ in before + evaluations)}
        targets = np.array([self.target(drawn[trial], trial, phase) for trial, phase in before + evaluations])
        if self.left:
            targets = lfilter([1.0 - self.left], [1.0, -self.left], targets, axis=0)
        return evaluations, targets[len(before) :]

    # ---- evaluations

    def readings(self, evaluations: list[tuple[int, int]], displaced: Array) -> Array:
        """E as the error unit reads it, for evaluations (trial, phase) with the weights displaced, (m,)."""
        p, seed, unit = self.params, self.design.seed, self.params.error_unit
        points = displaced.copy()
        for point, (trial, phase) in zip(points, evaluations, strict=True):
            point += self.weights(trial)
            if p.weights.read_noise:
                point += p.weights.read_noise * _normals(seed, READ, point.size, trial, phase)
        errors = self._errors(points, evaluations)
        xi, extra = np.zeros_like(errors), np.full((len(errors), 1), unit.offset)
        step = self.reading.step
        for row, (trial, phase) in enumerate(evaluations):
            if unit.noise:
                normals(np.uint64(seed), NOISE, trial, phase, xi[row])
            if unit.flicker:
                extra[row] += unit.flicker * self._flicker(trial * len(self.design.method.phases) + phase)
        if unit.dither and step:
            extra = extra + step * np.array([_uniforms(seed, DITHER, errors.shape[1], *e) - 0.5 for e in evaluations])
        if step:
            felt = errors + extra + unit.noise * xi
            self.tally["readings"] += felt.size
            self.tally["below"] += int((felt < -step / 2).sum())
            self.tally["above"] += int((felt > self.reading.range - step / 2).sum())
        return read(errors + extra, xi, unit.noise, step, self.reading.range - step).mean(1)

    def _flicker(self, evaluation: int) -> float:
        # 1/f noise after Voss: octave k changes every 2^k evaluations
        return sum(float(_normals(self.design.seed, FLICKER, 1, evaluation >> k, k)[0]) for k in range(OCTAVES))

    def _errors(self, points: Array, evaluations: list[tuple[int, int]]) -> Array:
        """Errors of the presented patterns at the points, (m, presented)."""
        objective, seed = self.objective, np.uint64(self.design.seed)
        shown: list[Array] | None = None
        if self.rows_of is not None:
            shown = [self.rows_of(trial) for trial, _ in evaluations]
        elif self.design.presentation == "pattern":
            shown = [np.array([pattern_index(seed, trial, objective.n_patterns)]) for trial, _ in evaluations]
        if self.units.ideal and not isinstance(objective, MLPObjective):
            if shown is None:
                return objective.errors_at(points)
            return np.array([objective.subset(rows).pattern_errors(point) for rows, point in zip(shown, points, strict=True)])

        def noise(layer: int, size: int) -> Array:
            return np.array(
                [_normals(self.design.seed, UNIT_NOISE, size, trial, phase + 16 * layer) for trial, phase in evaluations]
            )

        return self.units.errors(points, shown, noise)

    # ---- broadcasts

    def combined(self, trial: int, E: dict[int, float]) -> tuple[float, float]:
        """dE_g and dE_z of a trial as they are broadcast, from the readings of its phases; the baseline may be an older one."""
        method, unit, bus = self.design.method, self.params.error_unit, self.params.bus
        if self._baseline >= 0 and self._baseline not in E:
            E = {**E, self._baseline: self._older_baseline(trial - trial % unit.baseline_every)}
        elif self._baseline >= 0:
            self.kept = (trial, E[self._baseline])
        both = []
        for weights in (method.gradient_weights, method.hv_weights):
            dE = sum(weight * E[phase] for phase, weight in enumerate(weights))
            dE = float(np.sign(dE)) if unit.one_bit else dE
            both.append(self._word("dE", dE, bus.word_bits if bus.dE_range else 0, bus.dE_range))
        if not all(map(math.isfinite, both)):
            raise self.design.not_finite(trial)
        return both[0], both[1]

    def _older_baseline(self, trial: int) -> float:
        if self.kept[0] != trial:
            evaluations, displaced = self.displacements(trial, trial + 1)
            at = [phase for _, phase in evaluations].index(self._baseline)
            self.kept = (trial, float(self.readings(evaluations[at : at + 1], displaced[at : at + 1])[0]))
        return self.kept[1]

    def line(self, trial: int, known: Array) -> float:
        """dw.v as it is broadcast, from what the synapses put on the line; 0 where the method has no use for it."""
        if not self.design.method.needs_s:
            return 0.0
        line, bus = self.params.summing_line, self.params.bus
        s = float((known * self.v).sum()) * (1.0 + line.gain_error)
        if line.noise:
            s += line.noise * float(_normals(self.design.seed, LINE, 1, trial)[0])
        s = self._word("line", s, line.bits, line.range)
        return self._word("s", s, bus.word_bits if bus.s_range else 0, bus.s_range)

    def _word(self, name: str, x: float, bits: int, reach: float) -> float:
        """x as so many bits carry it; how many there were, and how many beyond their range, is tallied."""
        if not bits:
            return x
        step = 2.0 * reach / 2**bits
        self.tally[f"{name}, all"] += 1
        self.tally[f"{name}, beyond"] += not -reach - step / 2 <= x < reach - step / 2
        return float(quantised(np.array(x), bits, reach))

    def received(self, trial: int, tile: int) -> bool:
        """Whether a tile gets the broadcast of a trial."""
        p = self.params.bus.drop_probability
        arrived = not p or float(_uniforms(self.design.seed, DROP, 1, trial, tile)[0]) >= p
        self.tally["broadcasts"] += 1
        self.tally["lost"] += not arrived
        return arrived

    def late_ns(self, trial: int, tile: int, tiles: int) -> int:
        """How much later than the first undisturbed one a tile gets the broadcast: skew and jitter."""
        bus = self.params.bus
        skew = bus.skew_ns * tile // max(1, tiles - 1)
        return skew + (int(bus.jitter_ns * _uniforms(self.design.seed, JITTER, 1, trial, tile)[0]) if bus.jitter_ns else 0)

    # ---- synapses

    def known(self, D: Array, trial: int, start: int = 0) -> Array:
        """What the synapses start, start + 1, ... believe of their perturbations."""
        return self.design.code.sensed(D, self.design.sigma, self.design.seed, trial // self.perturb_every, start)

    def accumulate(
        self, sums: Array, known: Array, trial: int, dE: tuple[float, float], s: float, arrived: Array | None = None
    ) -> None:
        """Change the sums (rows, n) by a broadcast: leak, then the rule of `perturb.synapse` where it has arrived."""
        design, leak, dw = self.design, self.params.synapse.leak, known + self.die.multiplier
        if leak:
            sums *= 1.0 - leak
        if self._tile_off(trial):
            sums[:, self._without_power] = 0.0
        if not self._whole:
            dw = np.where(self.working(trial), dw, 0.0)
        kind, synapse = REGRESSORS[design.method.regressor], self.params.synapse
        before = sums[PRODUCTS] if synapse.sum_range else None
        add_broadcast(sums, dw, dE, s, self.v, self._V, kind, design.kappa, self._everywhere if arrived is None else arrived)
        if before is not None:
            # the sums that the estimate is made of; the others serve its standard errors and are the emulator's
            reach = synapse.sum_range * self._rms
            step = 2 * reach / 2**synapse.sum_bits
            added = sums[PRODUCTS] - before
            added = np.floor(added / step + 0.5) * step if synapse.sum_bits else added
            sums[PRODUCTS] = np.clip(before + added, -reach, reach)

    def broadcast(self, trial: int, E: dict[int, float], sums: Array) -> tuple[Array, tuple[float, float], float]:
        """The readings of a trial's phases go over the bus and change the sums; returns dw as synapses know it, dE and dw.v."""
        known = self.known(self.drawn(trial), trial)
        dE, s = self.combined(trial, E), self.line(trial, known)
        arrived = None
        if self.params.bus.drop_probability:
            size = self.params.synapses_per_tile
            each = [self.received(trial, tile) for tile in range(-(-self.v.size // size))]
            arrived = np.repeat(each, size)[: self.v.size]
        self.accumulate(sums, known, trial, dE, s, arrived)
        return known, dE, s

    def counted(self, totals: tuple[float, ...], dE: tuple[float, float], s: float) -> tuple[float, ...]:
        """The controller's sums after a broadcast."""
        keep = 1.0 - self.params.synapse.leak
        return count(tuple(keep * total for total in totals), dE, s)

    def solved(self, statistics: Statistics) -> Estimate:
        """The estimate from sums that may have leaked; of a synapse that does not work it is 0, with an unknown error.

        A leak weighs the trials by (1-l)^age: sums count as many trials as the weights sum to, and the errors are those of the
        (sum)^2 / (sum of squares) trials that so many weights are worth.
        """
        K, keep = statistics.trials, 1.0 - self.params.synapse.leak
        counted = worth = float(K)
        weighed = Statistics(self.design, statistics.spans)
        weighed.point, weighed.closed, weighed.open = statistics.point, statistics.closed, statistics.open
        if keep < 1.0:
            counted = (1.0 - keep**K) / (1.0 - keep) if keep else 1.0
            worth = counted**2 * (1.0 - keep**2) / (1.0 - keep ** (2 * K)) if keep else 1.0
            weighed.closed = (statistics.sums * K / counted, statistics.totals * K / counted)
            weighed.open = weighed.zeros()
        found, works = solve(weighed), self.working(statistics.next_trial - 1)
        wider = math.sqrt(K / worth)
        hv = np.where(works, found.hv, 0.0 if self.design.method.estimates_hv else np.nan)
        return Estimate(
            np.where(works, found.gradient, 0.0), np.where(works, wider * found.gradient_stderr, np.nan), hv,
            np.where(works, wider * found.hv_stderr, np.nan), found.trials, found.evaluations, statistics,
        )  # fmt: skip

    @property
    def keeps_baseline(self) -> bool:
        """Whether a measured E(w) is used for several trials."""
        return self._baseline >= 0 and self.params.error_unit.baseline_every > 1

    # ---- batches

    def run(self, statistics: Statistics, trials: int) -> None:
        """Add the next `trials` trials to `statistics`, in order, as the events would."""
        last = statistics.next_trial + trials
        while (first := statistics.next_trial) < last:
            stop = min(last, (first // BLOCK + 1) * BLOCK)
            # from the start of the block, so that what is left of earlier perturbations is the same however a run is split
            evaluations, displaced = self.displacements(first // BLOCK * BLOCK, stop)
            wanted = [i for i, (trial, _) in enumerate(evaluations) if trial >= first]
            evaluations, displaced = [evaluations[i] for i in wanted], displaced[wanted]
            read_in: dict[int, dict[int, float]] = {trial: {} for trial in range(first, stop)}
            for (trial, phase), E in zip(evaluations, self.readings(evaluations, displaced), strict=True):
                read_in[trial][phase] = float(E)
            sums, totals = statistics.closed[0], tuple(statistics.closed[1])
            for trial in range(first, stop):
                _, dE, s = self.broadcast(trial, read_in[trial], sums)
                totals = self.counted(totals, dE, s)
            statistics.closed = (sums, np.array(totals))
            statistics.extend(stop - first)


def quantised(x: Array, bits: int, reach: float) -> Array:
    """x rounded to 2^bits levels from -reach to reach - one step, and clipped there; bits = 0 leaves it as it is."""
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
