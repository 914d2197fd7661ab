"""Networks of layers against JAX on the same network in the same, interleaved run: gradient, Hv
over passes that are kept, and trials of weight perturbation.

    python tests/benchmarks/layers.py          (needs jax)

The network has 28,938 weights: two convolutions of 5x5 with pools, and 10 outputs, on images of
28x28. Prints medians of ratios; above 1 in "jax x / x" means that JAX is slower. Gradient and Hv
are in float64, of 64 patterns; trials, of 32, in float32: JAX perturbs by signs and sums dE dw
alone, in the best of several batches; the share of the peak is of a float32 product of matrices.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from perturb import Layers, estimate

jax.config.update("jax_enable_x64", True)
REPEATS, TRIALS, BATCHES = 5, 256, (1, 4, 16)
TEXTS = ["conv2d 16 5 padding=2", "relu", "maxpool 2", "conv2d 32 5 padding=2", "relu", "maxpool 2"]
SHAPES = [(16, 1, 5, 5), (16,), (32, 16, 5, 5), (32,), (1568, 10), (10,)]
ENDS = np.cumsum([0, *(np.prod(shape) for shape in SHAPES)])
SIGMA = 1e-2


def convolved(y, kernel, bias):
    order, pads = ("NCHW", "OIHW", "NCHW"), [(2, 2), (2, 2)]
    y = jax.lax.conv_general_dilated(y, kernel, (1, 1), pads, dimension_numbers=order)
    y = jax.nn.relu(y + bias[:, None, None])
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def error_of(x, t):
    """E(w) for automatic differentiation."""

    def E(w):
        parts = zip(ENDS, SHAPES, strict=False)
        k1, b1, k2, b2, W, b = (w[i : i + np.prod(s)].reshape(s) for i, s in parts)
        y = convolved(convolved(x, k1, b1), k2, b2).reshape(len(x), -1) @ W + b
        return (jax.nn.logsumexp(y, -1) - (t * y).sum(-1)).mean()

    return E


def trials_of(E, batch):
    """The sums of dE dw over TRIALS trials, `batch` at a time."""

    def one(w, key):
        dw = SIGMA * jax.random.rademacher(key, w.shape, w.dtype)
        return (E(w + dw) - E(w)) * dw

    def some(total, keys):
        return total + jax.vmap(one, (None, 0))(some.w, keys).sum(0), None

    def run(w, key):
        some.w = w
        keys = jax.random.split(key, TRIALS).reshape(TRIALS // batch, batch, -1)
        return jax.lax.scan(some, jnp.zeros_like(w), keys)[0]

    return jax.jit(run)


def timed(runs):
    """Seconds of each run, interleaved."""
    times = {name: [] for name in runs}
    for f in runs.values():
        f()
    for _ in range(REPEATS):
        for name, f in runs.items():
            start = time.perf_counter()
            f()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(each) for name, each in times.items()}


def derivatives(net, rng):
    x, labels = rng.random((64, 784)), rng.integers(0, 10, 64)
    fresh, kept = net.objective(x, labels), net.objective(x, labels)
    W = [net.init(seed) for seed in range(2)]
    v = rng.standard_normal(net.n_weights)
    E = error_of(jnp.array(x.reshape(-1, 1, 28, 28)), jnp.array(np.eye(10)[labels]))
    jw, jv = jnp.array(W[0]), jnp.array(v)
    gradient = jax.jit(jax.grad(E))
    linear = jax.jit(jax.linearize(gradient, jw)[1])
    np.testing.assert_allclose(fresh.gradient(W[0]), gradient(jw), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(kept.hvp(W[0], v), linear(jv), rtol=1e-9, atol=1e-12)

    def anew():
        # no two calls in a row have the same weights
        W.reverse()
        fresh.gradient(W[0])

    at = W[0].copy()
    times = timed(
        {
            "gradient": anew,
            "jax gradient": lambda: gradient(jw).block_until_ready(),
            "kept hvp": lambda: kept.hvp(at, v),
            "jax kept hvp": lambda: linear(jv).block_until_ready(),
        }
    )
    for name in ("gradient", "kept hvp"):
        print(f"{name}: {1e3 * np.median(times[name]):.1f} ms")
        print(f"    jax {name} / {name}: {np.median(times[f'jax {name}'] / times[name]):.2f}")
    print(f"    kept hvp / gradient: {np.median(times['kept hvp'] / times['gradient']):.2f}")


def trials(net, rng):
    S = 32
    x, labels = rng.random((S, 784)), rng.integers(0, 10, S)
    objective, w = net.objective(x, labels), net.init(0)
    v = rng.standard_normal(net.n_weights)
    single = [jnp.array(a, jnp.float32) for a in (x.reshape(-1, 1, 28, 28), np.eye(10)[labels], w)]
    E, key, a = error_of(*single[:2]), jax.random.PRNGKey(0), rng.random((2048, 2048), np.float32)
    jaxes = {f"jax, {batch} at a time": trials_of(E, batch) for batch in BATCHES}
    runs = {
        name: lambda run=run: run(single[2], key).block_until_ready() for name, run in jaxes.items()
    }
    settings = dict(method="covariance", code="rademacher", sigma=SIGMA, precision="float32")
    times = timed(
        {
            "trials": lambda: estimate(objective, w, v, TRIALS, **settings),
            "product": lambda: a @ a,
            **runs,
        }
    )
    print(f"trials: {TRIALS / np.median(times['trials']):.0f} a second")
    best = min(jaxes, key=lambda name: np.median(times[name]))
    print(f"    {best} / trials: {np.median(times[best] / times['trials']):.2f}")
    # E(w) is the same in all trials, and measured once
    work = 2 * net.n_macs * S * TRIALS
    share = work / (2 * 2048**3) * times["product"] / times["trials"]
    print(f"    share of the peak of a product: {np.median(share):.2f}")


network = Layers([1, 28, 28], [*TEXTS, "flatten", "linear 10"], "cross_entropy")
derivatives(network, np.random.default_rng(0))
trials(network, np.random.default_rng(1))
