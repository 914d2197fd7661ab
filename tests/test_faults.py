"""Faults during a run: it goes on, says what happened, and what it cost."""

import numpy as np
import pytest
from shown import spoken
from test_chip import chip_of

import reports
import sims
from hardware import Chip
from reports.studies import compare as shown_compare
from sims.studies import compare as comparison

OPTIONS = {"method": "covariance", "code": "gaussian", "sigma": 0.05, "seed": 4}
TRIAL_NS = 2 * 10_200 + 2 * 160  # of `small` with those
FAULTS = {
    "dying": (
        {"faults.dying_fraction": 0.4, "faults.dying_trial": 20},
        "synapses stopped working in trial 20",
    ),
    "tile": ({"faults.tile": 1, "faults.tile_trial": 20}, "tile 1 lost power in trial 20"),
    "drops": ({"bus.drop_probability": 0.3}, "of the broadcasts to tiles were lost"),
    "late": (
        {"bus.latency_ns": 3 * TRIAL_NS, "synapse.fifo_depth": 2},
        "came too late for the FIFO",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_chip_without_the_faults_it_met_is_the_ideal_one(small, fault):
    changes, said = FAULTS[fault]
    hurt = chip_of(small, {**changes, "synapses_per_tile": 7}, fidelity="event", **OPTIONS)
    found = hurt.run(60)
    assert any(said in incident for incident in hurt.incidents)
    again = Chip(hurt.fault_free, *small, fidelity="batch", **OPTIONS).run(60)
    ideal = chip_of(small, {}, fidelity="batch", **OPTIONS).run(60)
    np.testing.assert_allclose(again.hv, ideal.hv, rtol=1e-9)
    assert np.abs(found.hv - ideal.hv).max() > 0.01 * np.abs(ideal.hv).max()


@pytest.mark.parametrize("offset", [0.0, -0.8])
def test_a_converter_that_saturated_is_made_wide_enough_with_steps_as_large(small, offset):
    # readings of about 0.7 to 1.1: above the range, or with the offset below 0
    noisy = {"error_unit.noise": 0.02, "error_unit.offset": offset}
    hurt = chip_of(small, {"error_unit.bits": 8, "error_unit.range": 0.7, **noisy}, **OPTIONS)
    hurt.run(60)
    (what,) = hurt.incidents
    assert "beyond the converter's range" in what
    again = Chip(hurt.fault_free, *small, **OPTIONS)
    found = again.run(60)
    assert again.incidents == [] and again.fault_free is None
    wide = chip_of(
        small,
        {
            "error_unit.bits": 16,
            "error_unit.range": 0.7 * 2**8,
            **noisy,
            "error_unit.offset": 70.0 + offset,
        },
        **OPTIONS,
    )
    np.testing.assert_allclose(
        found.hv, wide.run(60).hv, rtol=1e-6
    )  # 70 is a whole number of steps


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"bus.dE_range": 1e-3, "bus.word_bits": 8},
            "of the dE were beyond the range of its words",
        ),
        (
            {"bus.s_range": 0.05, "bus.word_bits": 12},
            "of the dw.v were beyond the range of its words",
        ),
        (
            {"summing_line.bits": 8, "summing_line.range": 0.05},
            "of the dw.v were beyond the range of its converter",
        ),
    ],
)
def test_words_and_the_summing_line_that_saturated_say_so_and_are_made_wide_enough(
    small, changes, said
):
    for fidelity in ("event", "batch"):
        hurt = chip_of(small, changes, fidelity=fidelity, **OPTIONS)
        hurt.run(60)
        (what,) = hurt.incidents
        assert what.endswith(said) and float(what.partition("%")[0]) > 5
        again = Chip(hurt.fault_free, *small, fidelity=fidelity, **OPTIONS)
        found = again.run(60)
        assert again.incidents == [] and again.fault_free is None
    ideal = chip_of(small, {}, **OPTIONS).run(60)
    np.testing.assert_allclose(
        found.hv, ideal.hv, atol=0.05 * np.abs(ideal.hv).max()
    )  # but for rounding by steps as large


def test_a_chip_that_met_no_fault_is_not_run_again(small, monkeypatch):
    for changes in (
        {"error_unit.noise": 0.01},
        {
            "weights.dead_fraction": 0.3,
            "weights.stuck_fraction": 0.3,
        },  # fabrication: another die would differ
        {"faults.dying_fraction": 0.4, "faults.dying_trial": 60},
        {"faults.tile": 0, "faults.tile_trial": 60},
        {"bus.drop_probability": 1e-9},
    ):
        chip = chip_of(small, changes, **OPTIONS)
        chip.run(60)
        assert chip.fault_free is None
    monkeypatch.setattr(comparison, "_without_faults", None)
    run = sims.run_experiment("xor", {"estimation.trials": 64, "chip.weights.dead_fraction": 0.2})
    assert run.summary["faultless_cosine"].isna().all() and not any(
        "faults cost" in said for _, said in spoken(run)
    )


@pytest.mark.slow
def test_a_report_says_what_faults_cost(tmp_path):
    settings = {"estimation.trials": 256, "chip.perturbation.gain_mismatch": 0.1}
    faults = {"chip.faults.dying_fraction": 0.3, "chip.faults.dying_trial": 100}
    hurt, sound = (
        sims.run_experiment("xor", settings | faults, out=tmp_path / "run"),
        sims.run_experiment("xor", settings),
    )
    np.testing.assert_allclose(hurt.summary["faultless_cosine"], sound.summary["cosine"], rtol=1e-9)
    row = hurt.summary[
        (hurt.summary["quantity"] == "hv") & (hurt.summary["method"] == "difference")
    ].iloc[0]
    cost = row["faultless_cosine"] - row["cosine"]
    assert cost > 0.1
    words = (
        f"faults cost {cost:.2f} of the cosine with Hv ({row['faultless_cosine']:.2f} without them)"
    )
    said = dict(spoken(hurt))["difference/walsh"]
    assert words in said and said.startswith("falls short") and "other imperfections" not in said
    for path in reports.export(tmp_path / "run", ["html", "md"], tmp_path / "out"):
        text = path.read_text()
        assert words in text and "synapses stopped working in trial 100" in text


def cost_of_faults(quantity, measured, faultless):
    return shown_compare.cost_of_faults(
        {"quantity": quantity, "cosine": measured, "faultless_cosine": faultless}
    )


def test_costs_are_said_to_be_as_large_as_they_are():
    assert (
        cost_of_faults("hv", 0.88, 0.91)
        == "; faults cost 0.03 of the cosine with Hv (0.91 without them)"
    )
    assert cost_of_faults("gradient", np.nan, 0.91).startswith(
        "; faults cost 0.91 of the cosine with the gradient"
    )
    assert "less than 0.01" in cost_of_faults("hv", 0.909, 0.91)
    assert "cost nothing" in cost_of_faults("hv", 0.93, 0.91)
    assert "cost nothing" in cost_of_faults("hv", -0.6, -0.4)  # there was nothing to lose
    assert cost_of_faults("hv", 0.9, np.nan) == ""


def test_ctrl_c_while_the_cost_is_measured_keeps_the_run():
    heard: list[str] = []
    changes = {
        "estimation.trials": 200,
        "estimation.compare_with": [],
        "chip.bus.drop_probability": 0.1,
    }
    changes["chip.perturbation.crosstalk"] = 0.1  # in pieces of 64
    run = sims.run_experiment(
        "xor",
        changes,
        progress=lambda what, done, total: heard.append(what),
        should_stop=lambda: any("without faults" in what for what in heard),
    )
    assert run.provenance["status"] == "partial" and list(run.summary["status"]) == ["complete"] * 2
    assert run.summary["faultless_cosine"].isna().all() and (run.summary["trials"] == 200).all()
