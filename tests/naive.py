"""Slow, obvious twins of the compiled code, written from the formulas and from the published
description of Philox.
"""

import hashlib
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from perturb.seeds import derive_seed

M32 = 0xFFFFFFFF


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al. 2011, on Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & M32, (p0 >> 32) ^ c3 ^ k1, p0 & M32
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c0, c1, c2, c3


def words(seed, trial, block, stream, phase=0):
    return philox((trial & M32, trial >> 32, block, stream + 256 * phase), (seed & M32, seed >> 32))


def seed_of(first, purpose, n):
    """Of number n of several runs, repeats or dies."""
    return (
        int(hashlib.sha256(f"{first}/{purpose}/{n}".encode()).hexdigest()[:16], 16) // 2
        if n
        else first
    )


def normal_pair(a, b):
    radius = np.sqrt(-2 * np.log((a + 0.5) / 2**32))
    return radius * np.cos(2 * np.pi * (b + 0.5) / 2**32), radius * np.sin(
        2 * np.pi * (b + 0.5) / 2**32
    )


def normal(seed, stream, trial, phase, element):
    a, b, c, d = words(seed, trial, element // 4, stream, phase)
    return (*normal_pair(a, b), *normal_pair(c, d))[element % 4]


def sign(seed, trial, i):
    return 2 * (words(seed, trial, i // 128, 0)[i % 128 // 32] >> (i % 32) & 1) - 1


@lru_cache
def register(m):
    """The bits that a shift register of m bits gives over its period: x^m = x^taps + ... + 1 on
    a list of bits, lowest first.
    """
    taps = [0] + {2: [1], 3: [2], 4: [3], 5: [3], 6: [5], 7: [6], 8: [6, 5, 4], 9: [5]}[m]
    bits, out = [1] + [0] * (m - 1), []
    for _ in range(2**m - 1):
        out.append(bits[0])
        carry = bits[-1]
        bits = [0] + bits[:-1]
        for tap in taps:
            bits[tap] ^= carry
    return out


def sensed(D, sensing, sigma, seed, trial):
    """What each synapse knows of its perturbation."""
    return (
        D + sensing * sigma * np.array([normal(seed, 3, trial, 0, i) for i in range(len(D))])
        if sensing
        else D
    )


def perturbation(code, n, sigma, seed, trial, taps=None, m=None):
    """One trial's perturbation, weight by weight. taps, m: of each shift register, the weights
    that it feeds and its bits.
    """
    D = np.empty(n)
    taps, m = taps or n, m or next(bits for bits in range(2, 64) if 2**bits - 1 >= n)
    for i in range(n):
        if code == "rademacher":
            D[i] = sigma * sign(seed, trial, i)
        elif code == "gaussian":
            D[i] = sigma * normal(seed, 0, trial, 0, i)
        elif code == "ternary":  # base-6 digits of the word, read as a fraction
            fraction = words(seed, trial, i // 16, 0)[i % 16 // 4]
            for _ in range(i % 4):
                fraction = fraction * 6 & M32
            D[i] = {0: -1, 5: 1}.get(fraction * 6 >> 32, 0) * np.sqrt(3) * sigma
        elif code == "measured":
            D[i] = sigma * normal(seed, 0, trial, 0, i)
        elif code == "uniform":
            D[i] = sigma * np.sqrt(3) * ((words(seed, trial, i // 4, 0)[i % 4] + 0.5) / 2**31 - 1)
        elif code == "sequential":
            passes, row = divmod(trial, n)
            D[i] = (i == row) * sigma * np.sqrt(n) * sign(seed, passes // 2, i) * (-1) ** passes
        elif code == "sine":
            passes, row = divmod(trial, 2 * n + 1)
            phase = 2 * np.pi * (words(seed, passes // 2, i // 4, 0)[i % 4] + 0.5) / 2**32
            turn = 2 * np.pi * ((i + 1) * row % (2 * n + 1)) / (2 * n + 1)
            D[i] = sigma * np.sqrt(2) * np.cos(turn + phase) * (-1) ** passes
        elif code == "lfsr":
            sequence = register(m)
            passes, row = divmod(trial, len(sequence))
            a, b, _, _ = words(seed, 0, i // taps, 0)
            D[i] = sigma * (-1) ** (
                sequence[(row + (a * 2**32 + b) + i % taps) % len(sequence)] + passes
            )
        else:
            period = 1
            while period < n + 1:
                period *= 2
            passes, row = divmod(trial, period)
            hadamard = (-1) ** bin(row & (i + 1)).count("1")
            D[i] = sigma * hadamard * sign(seed, passes // 2, i) * (-1) ** passes
    return D


def pattern_index(seed, trial, n_patterns):
    a, b, _, _ = words(seed, trial, 0, 2)
    return int((a * 2**32 + b >> 11) / 2**53 * n_patterns)


def trials(objective, w, v, reading, design, first, last):
    """Every trial's perturbation as synapses know it, broadcasts and regressor: arrays D (K, n),
    y (K,), u (K,), q (K, n).
    """
    method, rows = design.method, []
    for trial in range(first, last):
        fed = (
            (design.code.registers.taps, design.code.registers.bits)
            if design.code.registers
            else ()
        )
        D = perturbation(design.code.name, w.size, design.sigma, design.seed, trial, *fed)
        shown = objective
        if design.presentation == "pattern":
            shown = objective.pattern(pattern_index(design.seed, trial, objective.n_patterns))
        E = []
        for phase, (a, b) in enumerate(method.phases):
            errors = shown.pattern_errors(w + a * D + b * design.r * v)
            noise = (
                [normal(design.seed, 1, trial, phase, k) for k in range(errors.size)]
                if reading.noise
                else 0.0
            )
            errors = errors + reading.noise * np.array(noise)
            if reading.bits:
                step = reading.range / 2**reading.bits
                errors = np.clip(np.floor(errors / step + 0.5) * step, 0, reading.range - step)
            E.append(errors.mean())
        D = sensed(D, design.code.sensing, design.sigma, design.seed, trial)
        s, V, k = D @ v, v @ v, design.code.kurtosis
        diagonal = (
            (k - 3) / (k - 1) * v * D * D if method.correction == "diagonal" and k > 1 else 0.0
        )
        q = {"dw": D, "s_dw": s * D - diagonal, "b": s / V * (D - s * v / (2 * V)), "none": 0 * D}[
            method.regressor
        ]
        rows.append((D, np.dot(method.gradient_weights, E), np.dot(method.hv_weights, E), q))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def sums(D, y, u, q, s):
    """The sums of `synapse.SUMS` and `synapse.TOTALS`; s = D.v where the method broadcasts it,
    else 0.
    """
    y_, u_ = y[:, None], u[:, None]
    terms = (
        D,
        q,
        D * D,
        D * q,
        q * q,
        D * y_,
        q * u_,
        D * D * y_,
        D * y_**2,
        q * q * u_,
        q * u_**2,
    )
    terms += (D**2 * y_**2, D * y_ * q * u_, q**2 * u_**2)
    c = s * s
    totals = (y, u, y * y, u * u, c, c * u, c * c, c * c * u, c * u * u, c * c * u * u)
    return np.array([term.sum(0) for term in terms]), np.array([total.sum() for total in totals])


def over_double_period(design, pair, y, u, s, v):
    """Sums over one double period, trial after trial: of D y, of q u and of q^2, each (n,)."""
    length = 2 * design.code.period(design.n_weights)
    fed = (design.code.registers.taps, design.code.registers.bits) if design.code.registers else ()
    name, n, V, found = design.code.name, design.n_weights, v @ v, np.zeros((3, design.n_weights))
    for t in range(length):
        D = perturbation(name, n, design.sigma, design.seed, pair * length + t, *fed)
        q = {
            "dw": D,
            "s_dw": s[t] * D - design.kappa * v * D * D,
            "b": s[t] / V * (D - s[t] * v / (2 * V)),
            "none": 0 * D,
        }
        q = q[design.method.regressor]
        found += D * y[t], q * u[t], q * q
    return found


def fit(method, design, D, y, u, q, v):
    """(g, z) from the definitions: covariances over known denominators, or each weight's own
    least squares by lstsq.
    """
    K, n = D.shape
    if method.regressor == "none":
        return D.T @ y / K / design.sigma**2, np.full(n, np.nan)
    if method.fit == "moments":
        x_scale = design.sigma**2
        q_scale = design.r * x_scale if method.regressor == "dw" else x_scale**2
        if method.centred:
            return (D - D.mean(0)).T @ (y - y.mean()) / K / x_scale, (q - q.mean(0)).T @ (
                u - u.mean()
            ) / K / q_scale
        return D.T @ y / K / x_scale, q.T @ u / K / q_scale
    g, z = np.empty(n), np.empty(n)
    for i in range(n):
        columns = [D[:, i], q[:, i]] + [np.ones(K)] * method.centred
        g[i], z[i] = np.linalg.lstsq(np.array(columns).T, y, rcond=None)[0][:2]
    if method.correction == "along":
        c, V = np.cov((D @ v) ** 2, u, ddof=0)[0, 1] / design.sigma**4, v @ v
        z = z * (1 - v**2 / (2 * V)) + v * c / (2 * V)
    return g, z


def uniform(seed, stream, trial, phase, element):
    a, b, c, d = words(seed, trial, element // 2, stream, phase)
    high, low = ((a, b), (c, d))[element % 2]
    return (high * 2**32 + low >> 11) / 2**53


def cell(device, die, i):
    """dw_up, dw_down, b_max, b_min of cell i of a die, from the formulas at the head of
    hardware/device.py.
    """
    step, bounds, pair = device.step, device.limits, device.model == "one-sided-pair"

    def xi(quantity):
        return normal(die, 16, 0, quantity, i)

    def dw(d, side):
        gain = 1 + step.dw_min_dtod * xi(side)
        if step.dw_min_distribution == "lognormal":
            gain = np.exp(step.dw_min_dtod * xi(side))
        return (
            device.range
            * step.dw_min
            * abs(gain + d * (step.up_down + step.up_down_dtod * xi(2 + side)))
        )

    b_max = device.range * bounds.w_max * abs(1 + bounds.w_max_dtod * xi(4))
    if pair:
        return (
            dw(1, 0),
            dw(1, 1),
            b_max,
            -device.range * bounds.w_max * abs(1 + bounds.w_max_dtod * xi(5)),
        )
    return (
        dw(1, 0),
        dw(-1, 0),
        b_max,
        device.range * bounds.w_min * abs(1 + bounds.w_min_dtod * xi(6)),
    )


def law(device, die, i, x, d, low, high):
    """f_d(x) of cell i, from the published formulas; of other laws, what their `step` says."""

    def spread(table, name, quantity):
        of_cell = normal(die, 16, 0, quantity, i)
        return abs(getattr(table, name) + getattr(table, f"{name}_dtod") * of_cell)

    if device.model == "constant-step":
        return 1
    if device.model == "soft-bounds":
        return 1 - x / (high if d > 0 else low)
    if device.model == "linear-step":
        if d > 0:
            mean = device.range * device.limits.w_max
            return 1 - spread(device.linear, "gamma_up", 8) / mean * x
        mean = device.range * device.limits.w_min
        return 1 - spread(device.linear, "gamma_down", 10) / mean * x
    if device.model == "power-step":
        omega = (high - x) / (high - low)
        if d > 0:
            return omega ** spread(device.power, "gamma_up", 8)
        return (1 - omega) ** spread(device.power, "gamma_down", 10)
    if device.model == "piecewise-step":
        table = device.piecewise.up if d > 0 else device.piecewise.down
        return np.interp(x, np.linspace(low, high, len(table)), table)
    if device.exponential:
        e = device.exponential
        z = 2 * e.a * x / (high - low) + e.b
        A, gamma = (e.A_up, e.gamma_up) if d > 0 else (e.A_down, e.gamma_down)
        return max(0, 1 - A * np.exp(d * gamma * z))
    own = SimpleNamespace(**device.law.numbers(dict(device.law_table or {}), None))
    return device.law.step(x, float(d), own, low, high)


def device_pulse(device, die, i, w, d, seed, update, number):
    """The weight of cell i after one pulse; w is (g_plus, g_minus) for a pair."""
    dw_up, dw_down, b_max, b_min = cell(device, die, i)
    if device.model == "one-sided-pair":
        g_plus, g_minus = w
        x, dw, low, high = (g_plus, dw_up, 0, b_max) if d > 0 else (g_minus, dw_down, 0, -b_min)
        sign = 1
    else:
        x, dw, low, high, sign = w, dw_up if d > 0 else dw_down, b_min, b_max, d
    f = law(device, die, i, x, sign, low, high)
    step, xi, share = (
        device.step,
        normal(seed, 17, update, number, i),
        1 if device.step.c2c_kind == "additive" else f,
    )
    noise = step.c2c * dw * share + (device.range * step.c2c_offset + step.c2c_slope * abs(x)) * (
        1 if share >= 0 else -1
    )
    x = x + sign * (dw * f + noise * xi)
    x = min(max(x, low), high)
    if device.model != "one-sided-pair":
        return x
    return (x, g_minus) if d > 0 else (g_plus, x)


def learn(objective, w, plan, run, updates):
    """Weights after so many updates of one run, trial by trial; rules without curvature."""
    w, m, seed, S, orders = (
        w.copy(),
        np.zeros_like(w),
        seed_of(plan.seed, "run", run),
        objective.n_patterns,
        {},
    )
    B = plan.batch or S

    def pattern(place):
        if B == S:
            return place % S
        epoch = place // S
        if epoch not in orders:
            together = max(
                1, 4096 // S
            )  # passes whose numbers are drawn together; patterns go by in the order of theirs
            drawn = np.random.Generator(np.random.Philox(key=[seed, epoch // together])).random(
                (together, S)
            )
            orders[epoch] = sorted(range(S), key=lambda i: drawn[epoch % together][i])
        return int(orders[epoch][place % S])

    for update in range(updates):
        g = np.zeros_like(w)
        for trial in range(update * plan.trials_per_update, (update + 1) * plan.trials_per_update):
            D = perturbation(plan.code.name, w.size, plan.sigma, seed, trial // plan.perturb_every)
            first = trial // plan.sample_every * B
            dE = 0.0
            for phase, (a, b) in enumerate(plan.method.phases):
                read = []
                for i in range(B):
                    E, free = (
                        objective.pattern(pattern(first + i)).error(w + a * D),
                        plan.baseline_free and (a, b) == (0, 0),
                    )
                    if not free:
                        E += plan.reading.noise * normal(seed, 1, trial, phase, i)
                        if plan.reading.bits:
                            step = plan.reading.range / 2**plan.reading.bits
                            E = np.clip(
                                np.floor(E / step + 0.5) * step, 0, plan.reading.range - step
                            )
                    read.append(E)
                dE += plan.method.gradient_weights[phase] * np.mean(read)
            g += dE * D / plan.sigma**2 / plan.trials_per_update
        rate = plan.eta / (1 + update / plan.decay) if plan.decay else plan.eta
        m = plan.momentum * m + g
        step = {
            "plain": -rate * g,
            "momentum": -rate * m,
            "sign": -rate * np.sign(g),
            "keep-if-better": rate * D * (dE < 0),
        }
        w = w + step[plan.rule]
    return w


def newton_of_mean(H, minimum, w, plan, run, updates):
    """Weights after so many updates by the mean of (z v' + v z')/2, random signs v, with exact g
    and z of a quadratic.
    """
    parts, w = [], w.copy()
    for update in range(updates):
        v = np.array(
            [
                perturbation(
                    "rademacher", w.size, 1.0, derive_seed(plan.seed_of(run), "direction"), update
                )
            ]
        ).ravel()
        z, g = H @ v, H @ (w - minimum)
        parts.append(
            [[(z[i] * v[j] + v[i] * z[j]) / 2 for j in range(w.size)] for i in range(w.size)]
        )
        squares = [sum(entry**2 for row in part for entry in row) for part in parts]
        values, vectors = np.linalg.eigh(np.mean(parts, axis=0))
        p = np.zeros_like(w)
        for value, q in zip(values, vectors.T, strict=True):
            p += (
                q
                * (q @ g)
                / ((value**2 + np.mean(squares) / len(parts) / w.size) ** 0.5 + plan.damping)
            )
        w = w - plan.eta * p
    return w


def convolution(y, kernel, bias, stride, padding, groups):
    """A convolution of one pattern, (channels, *positions), window by window."""
    y = np.pad(y, [(0, 0), *padding])
    out, inner, *window = kernel.shape
    positions = [(n - k) // s + 1 for n, k, s in zip(y.shape[1:], window, stride, strict=True)]
    x = np.zeros((out, *positions))
    for channel in range(out):
        # of its group: which channels of the input it sees
        first = channel // (out // groups) * inner
        for place in np.ndindex(*positions):
            cut = [slice(p * s, p * s + k) for p, s, k in zip(place, stride, window, strict=True)]
            seen = y[(slice(first, first + inner), *cut)]
            x[(channel, *place)] = (seen * kernel[channel]).sum() + bias[channel]
    return x


def pooled(y, window, stride, padding, reduce, count_padding):
    """The largest or the mean of each window of one pattern, (channels, *positions)."""
    y = np.pad(y, [(0, 0), *padding], constant_values=np.nan)
    positions = [(n - k) // s + 1 for n, k, s in zip(y.shape[1:], window, stride, strict=True)]
    x = np.zeros((len(y), *positions))
    for place in np.ndindex(*x.shape):
        cuts = zip(place[1:], stride, window, strict=True)
        seen = y[(place[0], *(slice(p * s, p * s + k) for p, s, k in cuts))]
        real = seen[~np.isnan(seen)]
        if reduce == "max":
            x[place] = real.max()
        else:
            x[place] = real.sum() / (seen.size if count_padding else real.size)
    return x


def mnist1d_signal(digit, u, noise):
    """A signal of MNIST-1D before it is centred, point by point (Greydanus and Kobak 2024): its
    digit, four uniform numbers, and normal ones beside the curve and everywhere.
    """
    heights = [
        (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
        (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
        (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
        (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
        (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
        (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
        (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
        (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
        (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
        (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
    ][digit]
    mean = sum(heights) / 12
    spread = np.sqrt(sum((height - mean) ** 2 for height in heights) / 12)
    zeros = 36 + int(25 * u[0])
    padded = [(height - heights[0]) / spread / 6 for height in heights] + [0.0] * zeros

    factor, moved = 1 + 0.4 * (u[1] - 0.5), int(48 * u[2])
    x = [None] * 72  # None: beside the curve
    for k in range(72):
        # k steps of 72 points over all that is padded
        left, rest = divmod(k * (12 + zeros - 1), 71)
        if left < 12:
            right = padded[left + 1] if rest else 0.0
            height = padded[left] + rest / 71 * (right - padded[left])
            x[(k + moved) % 72] = factor * height

    weights = [np.exp(-(d**2) / 8) for d in range(-8, 9)]
    for k in range(72):
        if x[k] is None:
            # beyond an end the noise comes back, its last number first
            near = [min(i, 143 - i) if i >= 0 else -1 - i for i in range(k - 8, k + 9)]
            smooth = sum(w * noise[0][i] for w, i in zip(weights, near, strict=True))
            x[k] = 0.25 * smooth / sum(weights)
        x[k] += 0.02 * noise[1][k] - 0.75 * (u[3] - 0.5) * (k / 71 - 0.5)

    signal = []
    for j in range(40):
        left, rest = divmod(71 * j, 39)
        right = x[left + 1] if rest else 0.0
        signal.append(x[left] + rest / 39 * (right - x[left]))
    return signal
