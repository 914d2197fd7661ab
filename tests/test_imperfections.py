"""Every imperfection of a chip: both engines agree on it, it changes something, and its law holds."""

import numpy as np
import pytest
from test_chip import chip_of

from hardware.params import IMPERFECTIONS, imperfections

# a value that is felt, and what it needs beside it
VALUES = {
    "perturbation.tau_ns": (150.0, {}),
    "perturbation.bits": (4, {}),
    "perturbation.gain_mismatch": (0.2, {}),
    "perturbation.offset_mismatch": (0.01, {}),
    "perturbation.crosstalk": (0.1, {}),
    "weights.bits": (5, {}),
    "weights.read_noise": (0.01, {}),
    "weights.stuck_fraction": (0.2, {"weights.stuck_value": 0.5}),
    "weights.dead_fraction": (0.2, {}),
    "weights.leak_tau_s": (0.01, {}),
    "weights.drift_exponent": (5.0, {}),
    "neuron.gain_mismatch": (0.1, {}),
    "neuron.offset_mismatch": (0.1, {}),
    "neuron.noise": (0.01, {}),
    "neuron.saturation": (0.5, {}),
    "error_unit.noise": (0.01, {}),
    "error_unit.flicker": (0.01, {}),
    "error_unit.offset": (0.1, {"error_unit.bits": 8}),
    "error_unit.bits": (6, {"error_unit.dither": True}),
    "error_unit.one_bit": (True, {}),
    "error_unit.baseline_every": (7, {"error_unit.noise": 0.01}),
    "summing_line.noise": (0.05, {}),
    "summing_line.gain_error": (0.3, {}),
    "summing_line.bits": (4, {}),
    "bus.drop_probability": (0.3, {}),
    "bus.dE_range": (0.5, {"bus.word_bits": 6}),
    "bus.s_range": (0.5, {"bus.word_bits": 6}),
    "synapse.offset_mismatch": (0.02, {}),
    "synapse.leak": (0.05, {}),
    "faults.dying_fraction": (0.3, {"faults.dying_trial": 20}),
    "faults.tile": (1, {"faults.tile_trial": 25}),
}
OPTIONS = {"method": "covariance", "code": "gaussian", "sigma": 0.05, "seed": 4}


def test_every_imperfection_has_a_value_here():
    assert set(VALUES) == set(IMPERFECTIONS)


@pytest.mark.parametrize("key", VALUES)
def test_events_batches_and_auto_agree_and_differ_from_the_ideal_chip(small, key):
    value, more = VALUES[key]
    changes = {key: value, **more, "synapses_per_tile": 7}
    found = {}
    for fidelity in ("event", "batch", "auto"):
        chip = chip_of(small, changes, fidelity=fidelity, **OPTIONS)
        found[fidelity] = chip.run(60), chip
    assert set(imperfections(chip.params)) >= {key}
    ideal = chip_of(small, {**more, "synapses_per_tile": 7}, fidelity="event", **OPTIONS).run(60)
    event, chip = found["event"]
    for fidelity in ("batch", "auto"):
        other, chip_ = found[fidelity]
        for name in ("gradient", "hv", "gradient_stderr", "hv_stderr"):
            a, b = getattr(event, name), getattr(other, name)
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(a)))
        assert (chip_.time_s, chip_.energy_j) == pytest.approx((chip.time_s, chip.energy_j), rel=1e-12)
    assert max(np.abs(event.hv - ideal.hv).max() / np.abs(ideal.hv).max(), np.abs(event.gradient - ideal.gradient).max()) > 1e-4
    # any split gives the same bits
    for fidelity in ("event", "batch"):
        parts = chip_of(small, changes, fidelity=fidelity, **OPTIONS)
        for count in (1, 22, 37):
            last = parts.run(count)
        np.testing.assert_array_equal(last.hv, found[fidelity][0].hv)


@pytest.mark.parametrize(
    "method, code", [("antithetic", "ternary"), ("difference", "walsh"), ("pearlmutter", "gaussian"), ("central", "lfsr")]
)
@pytest.mark.parametrize("presentation", ["batch", "pattern"])
def test_many_imperfections_at_once_agree_too(small, method, code, presentation):
    changes = {
        "perturbation.tau_ns": 100.0, "perturbation.gain_mismatch": 0.1, "weights.read_noise": 1e-3, "neuron.noise": 1e-3,
        "weights.leak_tau_s": 0.1, "error_unit.flicker": 1e-3, "error_unit.bits": 12, "error_unit.dither": True,
        "summing_line.noise": 1e-3, "bus.drop_probability": 0.1, "bus.skew_ns": 300, "bus.jitter_ns": 100, "synapse.leak": 0.01,
        "synapses_per_tile": 5, "weights.dead_fraction": 0.1,
    }  # fmt: skip
    options = {"method": method, "code": code, "sigma": 0.05, "presentation": presentation}
    event, batch = (chip_of(small, changes, fidelity=fidelity, **options).run(70) for fidelity in ("event", "batch"))
    for name in ("gradient", "hv"):
        a, b = getattr(event, name), getattr(batch, name)
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * (np.nanmax(np.abs(a)) if np.isfinite(a).any() else 1))
