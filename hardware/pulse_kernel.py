"""The compiled law of pulses."""

import numpy as np

from perturb.compiled import compiled
from perturb.trial.random import PULSE, four_normals

# laws; a constant step and soft bounds are linear in w, too
NO_PULSES, LINEAR, EXPONENTIAL, PAIR = range(4)


@compiled()
def give_pulses(
    law,
    rows,
    counts,
    dw_up,
    dw_down,
    low,
    high,
    slope_up,
    slope_down,
    exponential,
    noises,
    additive,
    seed,
    update,
    first,
    start,
):
    """Change `rows` of hidden weights by the pulses of one update; formulas: head of
    `hardware.device`.
    """
    # four cells share the words of Philox, so they take their pulses together
    a, b, A_up, A_down, gamma_up, gamma_down = exponential
    c2c, offset, slope = noises
    noisy = c2c > 0.0 or offset > 0.0 or slope > 0.0
    n = counts.size
    i = 0
    while i < n:
        block = (start + i) // 4
        end = min(n, 4 * (block + 1) - start)
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
                side = 1 if law == PAIR and not up else 0
                d = 1.0 if up or law == PAIR else -1.0
                w = rows[side, j]
                dw = dw_up[j] if up else dw_down[j]
                if law == LINEAR:
                    f = 1.0 - (slope_up[j] if up else slope_down[j]) * w
                else:
                    z = 2.0 * a * w / (high[side, j] - low[side, j]) + b
                    A, gamma = (A_up, gamma_up) if d > 0.0 else (A_down, gamma_down)
                    f = max(0.0, 1.0 - A * np.exp(d * gamma * z))
                noise = c2c * xi[(start + j) % 4]
                change = dw * (f + noise if additive else f * (1.0 + noise))
                if offset > 0.0 or slope > 0.0:  # of the sign of the noise above
                    signed = xi[(start + j) % 4] if additive or f >= 0.0 else -xi[(start + j) % 4]
                    change += (offset + slope * abs(w)) * signed
                rows[side, j] = min(max(w + d * change, low[side, j]), high[side, j])
        i = end
