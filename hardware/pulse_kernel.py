"""The compiled kernel of pulses, one for each law."""

from collections.abc import Callable
from functools import cache
from typing import Any

from perturb.compiled import compiled
from perturb.trial.random import PULSE, four_normals


@cache
def pulse_kernel(step: Callable[..., float], paired: bool) -> Callable[..., Any]:
    """`give_pulses` of the law with this `step`; paired: of two cells that pulses only raise."""
    f_of = compiled()(step)

    @compiled()
    def give_pulses(
        rows,
        counts,
        dw_up,
        dw_down,
        low,
        high,
        law,
        noises,
        seed,
        update,
        first,
        start,
    ):
        """Change `rows` of hidden weights by the pulses of one update; formulas: head of
        `hardware.device`.
        """
        # four cells share the words of Philox, so they take their pulses together
        c2c, offset, slope, additive = noises
        noisy = c2c > 0.0 or offset > 0.0 or slope > 0.0
        n = counts.size
        i = 0
        while i < n:
            block = (start + i) // 4
            end = min(n, 4 * (block + 1) - start)
            # cells of the block with fewer pulses leave the last ones out
            most = 0
            for j in range(i, end):
                most = max(most, abs(counts[j]))
            for number in range(most):
                xi = (0.0, 0.0, 0.0, 0.0)
                if noisy:
                    xi = four_normals(seed, update, block, PULSE, first + number)
                for j in range(i, end):
                    if number >= abs(counts[j]):
                        continue
                    up = counts[j] > 0
                    # a pair takes pulses down as pulses up of its second side
                    side = 1 if paired and not up else 0
                    d = 1.0 if up or paired else -1.0
                    w = rows[side, j]
                    dw = dw_up[j] if up else dw_down[j]
                    f = f_of(w, d, law[j], low[side, j], high[side, j])
                    noise = c2c * xi[(start + j) % 4]
                    # additive noise is relative to dw, multiplicative noise to dw f
                    change = dw * (f + noise if additive else f * (1.0 + noise))
                    if offset > 0.0 or slope > 0.0:  # of the sign of the noise above
                        positive = additive or f >= 0.0
                        signed = xi[(start + j) % 4] if positive else -xi[(start + j) % 4]
                        change += (offset + slope * abs(w)) * signed
                    rows[side, j] = min(max(w + d * change, low[side, j]), high[side, j])
            i = end

    return give_pulses


@cache
def symmetry_kernel(step: Callable[..., float]) -> Callable[..., Any]:
    """`symmetry_points` of the law with this `step`."""
    f_of = compiled()(step)

    @compiled()
    def symmetry_points(dw_up, dw_down, low, high, law, points):
        """Fill `points` (n,) with where steps up and down are alike, by bisection."""
        for j in range(points.size):
            a, b = low[j], high[j]
            for _ in range(64):  # steps up are larger below it, steps down above it
                w = 0.5 * (a + b)
                up = dw_up[j] * f_of(w, 1.0, law[j], low[j], high[j])
                down = dw_down[j] * f_of(w, -1.0, law[j], low[j], high[j])
                if up >= down:
                    a = w
                if up <= down:
                    b = w
            points[j] = 0.5 * (a + b)

    return symmetry_points
