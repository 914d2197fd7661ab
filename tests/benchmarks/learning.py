"""Learning in the batch engine against JAX, interleaved: one update per trial, 64-32-10 digits, 64
patterns in an evaluation.

    python tests/benchmarks/learning.py          (needs jax)

The same loop in JAX is a `lax.scan` in float32 over trials: draw signs, E(w) and E(w + dw) on the
next 64 patterns, update; the fastest is taken of its generators (threefry, rbg) and of two forms
(two evaluations, or one of both by vmap). Then eight runs side by side against eight one after
another in JAX. Prints medians of ratios; above 1, `jax / ours` means that JAX is slower.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from perturb import MLP
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.training.presentation import presented
from perturb.training.sources import Batch

TRIALS, RUNS, REPEATS, B, SIGMA, ETA = 4000, 8, 7, 64, 1e-2, 1e-2
data = load_digits()
x, t = data.data / 16.0, np.eye(10)[data.target]
net = MLP([64, 32, 10], output="linear", error="cross_entropy")
objective = net.objective(x, t)
n = net.n_weights


def in_jax(generator, form):
    X, T = jnp.array(x, jnp.float32), jnp.array(t, jnp.float32)

    def error(w, shown, wanted):
        hidden = jnp.tanh(shown @ w[:2048].reshape(64, 32) + w[2048:2080])
        y = hidden @ w[2080:2400].reshape(32, 10) + w[2400:]
        return -(wanted * jax.nn.log_softmax(y)).sum(1).mean()

    def trial(carry, rows):
        w, key = carry
        key, own = jax.random.split(key)
        signs = jax.random.rademacher(own, (n,), jnp.float32)
        shown, wanted = X[rows], T[rows]
        if form == "one after another":
            dE = error(w + SIGMA * signs, shown, wanted) - error(w, shown, wanted)
        else:
            both = jax.vmap(error, (0, None, None))(
                jnp.stack([w, w + SIGMA * signs]), shown, wanted
            )
            dE = both[1] - both[0]
        return (w - ETA * dE / SIGMA * signs, key), None

    run = jax.jit(lambda w, key, rows: jax.lax.scan(trial, (w, key), rows)[0][0])

    def learn(seed):
        key = jax.random.key(seed, impl=generator)
        rows = jnp.array(presented(seed, 0, TRIALS, B, len(x)))
        return run(jnp.array(net.init(seed), jnp.float32), key, rows).block_until_ready()

    return learn


def ours(seed, runs):
    plan = Plan(method="forward", sigma=SIGMA, eta=ETA, batch=B, seed=seed)
    state = begin(np.array([net.init(seed + run) for run in range(runs)]), plan)
    Batch(objective, plan, precision="float32").advance(state, TRIALS)
    return state.w


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


forms = {
    f"{form}, {generator}": in_jax(generator, form)
    for form in ("one after another", "both by vmap")
    for generator in ("threefry2x32", "rbg")
}
for run in forms.values():
    run(0)
name = min(forms, key=lambda name: min(clock(lambda: forms[name](1)) for _ in range(2)))
best = forms[name]
ours(0, 1)
one = [(clock(lambda s=s: best(s)), clock(lambda s=s: ours(s, 1))) for s in range(REPEATS)]
many = [
    (clock(lambda s=s: [best(s + run) for run in range(RUNS)]), clock(lambda s=s: ours(s, RUNS)))
    for s in range(REPEATS)
]
E = [
    float(np.mean([objective.error(w) for w in weights]))
    for weights in (ours(0, RUNS), np.array([best(r) for r in range(RUNS)], float))
]
print(f"E after {TRIALS} trials, mean of {RUNS} runs: ours {E[0]:.4f}, jax {E[1]:.4f}")
for title, times in (("one run", one), (f"{RUNS} runs", many)):
    ratio = np.median([a / b for a, b in times])
    ours_us = 1e6 * np.median([b for _, b in times]) / TRIALS / (RUNS if title != "one run" else 1)
    print(f"{title}: jax / ours {ratio:.1f}; ours {ours_us:.1f} us a trial (jax: {name})")
