"""Studies other than the comparison of methods: spectrum, finite differences, uses of Hv."""

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fast import fast
from rich.console import Console
from shown import fact, row_of, spoken, verdicts_of
from test_chip import chip_of

import reports
import sims
from hardware.timing import Timing
from perturb import METHODS, MLP, InputError, Objective, curvature
from reports.statistics import share_interval
from reports.studies import view_of
from reports.table import print_run
from sims.data.datasets import DATASETS
from sims.data.loading import load_data
from sims.experiment.loading import load_experiment
from sims.problem import prepare
from sims.studies import ablation, optimisers, spectrum, uses
from sims.studies import dies as many_dies
from sims.studies.finite_difference import slope

SMALL = {
    "network.layers": [64, 3, 10],
    "data.samples": 30,
    "uses.test_samples": 50,
    "uses.budget": 200,
    "uses.decay": 0.01,
}
NOISY = {
    "estimation.trials": 64,
    "chip.error_unit.noise": 1e-4,
    "chip.perturbation.gain_mismatch": 0.1,
    "chip.weights.dead_fraction": 0.1,
}
FEW = {
    "chip.error_unit.noise": 1e-3,
    "chip.perturbation.gain_mismatch": 0.3,
    "dies.count": 2,
    "dies.starts": 3,
    "training.updates": 200,
    "training.records": 6,
}
QUICK = {
    "estimators": (
        "estimators",
        {
            "estimators.repeats": 8,
            "estimation.trials": 512,
            "estimators.codes": ["gaussian", "walsh"],
        },
    ),
    "ablation": ("xor", {"study": "ablation", **NOISY, "dies.count": 2}),
    "dies": ("xor", {"study": "dies", **NOISY, "dies.count": 5}),
    "learning-ablation": ("xor-learning", {"study": "learning-ablation", **FEW}),
    "learning-dies": ("xor-learning", {"study": "learning-dies", **FEW}),
    "drive": (
        "xor-learning",
        {"study": "drive", "training.updates": 40, "drive.look_every": 10, "drive.high": 0.5},
    ),
    "drive-estimates": ("xor", {"study": "drive-estimates", **NOISY, "drive.high": 0.5}),
    "budget": ("xor", {"study": "budget", **NOISY}),
    "spectrum": ("xor", {"study": "spectrum"}),
    "finite-difference": ("finite-difference", {"network.layers": [64, 4, 10], "data.samples": 10}),
    "uses": ("uses", {**SMALL, "uses.decays": [0.003, 0.01]}),
    "reproduce": ("reproduce", {"reproduce.claim": "misalignment"}),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """ran(study): the run of `QUICK` and its directory."""
    folder = tmp_path_factory.mktemp("studies")

    @cache
    def run(study):
        name, set = QUICK[study]
        return sims.run_experiment(name, set, out=folder / study), folder / study

    return run


STUDIES_RUN = fast(QUICK, "budget", "dies")


@pytest.mark.parametrize("study", STUDIES_RUN)
def test_a_study_is_stored_and_reported(ran, study, tmp_path):
    run, folder = ran(study)
    assert {name: list(table.columns) for name, table in run.tables.items()} == {
        name: list(columns) for name, columns in view_of(study).columns.items()
    }
    loaded = reports.load(folder)
    for name, table in run.tables.items():
        pd.testing.assert_frame_equal(getattr(loaded, name).astype(table.dtypes.to_dict()), table)
    paths = reports.export(folder, list(reports.exporters.FORMATS), tmp_path)
    assert all(path.stat().st_size > 50 for path in paths)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure") == len([path for path in paths if path.suffix == ".png"]) >= 1
    if "meaning" in run.summary:
        assert str(run.summary["meaning"].iloc[0]) in page
    # the stored experiment, run again, gives the same numbers
    again = sims.run_experiment(folder / "experiment.toml").summary
    times = ["trials_per_s"] if study == "estimators" else []
    pd.testing.assert_frame_equal(again.drop(columns=times), run.summary.drop(columns=times))


@pytest.mark.parametrize("study", STUDIES_RUN)
def test_tables_of_studies_fit_a_hundred_columns(ran, study):
    with open(os.devnull, "w") as nowhere:
        console = Console(width=100, file=nowhere, record=True)
        print_run(reports.load(ran(study)[1]), console)
        text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text


# ---- estimators


@pytest.mark.slow
def test_measured_bias_and_error_are_those_predicted():
    # a quadratic E: theory neglects nothing. Errors of 8 repeats: their mean square is known to
    # about 10 % where noise rules
    changes = {
        "network.layers": [8, 3],
        "estimators.repeats": 8,
        "estimation.trials": 2048,
        "estimation.sigma": 0.1,
    }
    table = sims.run_experiment(
        "estimators", {**changes, "estimators.codes": ["gaussian", "ternary"]}
    ).summary
    seen = table["measured_bias"] > 3 * table["bias_resolution"]
    np.testing.assert_allclose(
        table["measured_bias"][seen], table["predicted_bias"][seen], rtol=0.15
    )
    assert (
        (table["predicted_bias"][~seen] < 4 * table["bias_resolution"][~seen]).all()
        and seen.any()
        and not seen.all()
    )
    np.testing.assert_allclose(table["measured_error"], table["predicted_error"], rtol=0.25)


# ---- ablation, dies, budget


def test_ablation_ranks_what_costs_most_and_taking_it_away_saves_most(ran):
    table = ran("ablation")[0].summary
    hv = table[table["quantity"] == "hv"].set_index("variant")
    assert list(hv.index[[0, 4]]) == ["ideal", "all"] and len(hv) == 8
    alone, without = hv.iloc[1:4], hv.iloc[5:]
    assert (
        alone["evaluations_to_accuracy"].is_monotonic_decreasing
        and without["evaluations_to_accuracy"].is_monotonic_increasing
    )
    assert (
        alone.index[0] == "only error_unit.noise" and without.index[0] == "all but error_unit.noise"
    )
    np.testing.assert_allclose(hv["evaluations_to_accuracy"], 4 * hv["trials_to_accuracy"])
    known = np.isfinite(hv["cost"])
    ideal = hv.loc["ideal", "evaluations_to_accuracy"]
    np.testing.assert_allclose(hv["cost"][known], hv["evaluations_to_accuracy"][known] / ideal)
    assert known.any() and hv.loc["ideal", "cost"] == 1 and hv.loc["ideal", "cost_stderr"] == 0
    # of all but one: what is saved over all
    whole = hv.loc["all", "evaluations_to_accuracy"]
    taken = hv.iloc[5:]
    if np.isfinite(whole):
        np.testing.assert_allclose(taken["saved"], 1 - taken["evaluations_to_accuracy"] / whole)
    else:
        assert (taken["saved"].isna() == np.isinf(taken["evaluations_to_accuracy"])).all()
    assert hv.iloc[:5]["saved"].isna().all()
    alone = alone["relative_error"]
    assert (hv.loc["ideal", "relative_error"] <= alone + 1e-12).all() and hv.loc[
        "ideal", "imperfections"
    ] == ""
    # an imperfection alone is what its name says, and the ideal chip has none
    assert (
        hv.loc["only perturbation.gain_mismatch", "imperfections"] == "perturbation.gain_mismatch"
    )
    with pytest.raises(InputError, match="no imperfection to take away"):
        sims.run_experiment("xor", {"study": "ablation"})


def test_ablation_leaves_out_what_the_method_does_not_use_and_begins_with_its_answer(
    tmp_path, command
):
    # no dw.v is summed by the method difference; a gain mismatch of 1e-5 costs nothing
    set = {
        "study": "ablation",
        "dies.count": 3,
        "estimation.trials": 400,
        "estimation.code": "rademacher",
        "chip.summing_line.bits": 8,
        "chip.perturbation.gain_mismatch": 1e-5,
    }
    run = sims.run_experiment("xor", set, out=tmp_path / "run")
    assert not run.summary["variant"].str.contains("summing_line").any()
    assert {"ideal", "only perturbation.gain_mismatch", "all"} <= {*run.summary["variant"]}
    assert (
        "summing_line.bits" in run.summary.set_index("variant").loc["all", "imperfections"].iloc[0]
    )  # the chip has it
    (_, sentence), *_ = verdicts_of(reports.load(tmp_path / "run"))
    assert sentence.startswith("nothing here costs more than 1 %")
    _, printed, _ = command("compare", tmp_path / "run")
    assert printed.index("nothing here costs") < printed.index("what each imperfection costs")
    # a method that sums dw.v does use it
    used = sims.run_experiment(
        "xor", {**set, "estimation.method": "covariance", "estimation.code": "gaussian"}
    )
    assert used.summary["variant"].str.contains("only summing_line").any()


def test_the_cost_of_an_imperfection_has_an_error_from_die_to_die():
    def die(c):  # cosines after 100 and 400 trials, of noise alone
        return many_dies.OnDie(
            {"hv": [(100, (1 + 1 / (4 * c)) ** -0.5, 0.0), (400, (1 + 1 / (16 * c)) ** -0.5, 0.0)]},
            0.0,
            0.0,
            "",
        )

    ideal, own = [die(c) for c in (1.0, 1.2, 0.8, 1.1)], [die(c) for c in (0.5, 0.6, 0.4, 0.55)]
    times, stderr = ablation.cost(own, ideal, "hv", 0.9)
    assert (
        times == pytest.approx(2, rel=0.05) and stderr < 0.1
    )  # the same dies: what they share is no error
    apart = ablation.cost(own[::-1], ideal, "hv", 0.9)
    assert apart[0] == pytest.approx(times) and apart[1] > 3 * stderr
    assert np.isnan(ablation.cost(own[:1], ideal[:1], "hv", 0.9)[1])


def test_ablation_says_first_what_limits_and_what_would_be_won():
    run = sims.run_experiment(
        "xor",
        {
            "study": "ablation",
            "dies.count": 6,
            "estimation.trials": 400,
            "estimation.code": "rademacher",
            "chip.error_unit.noise": 3e-5,
            "chip.perturbation.gain_mismatch": 0.01,
        },
    )
    (name, sentence), *_ = spoken(run)
    assert name == "z = Hv:"
    assert sentence.startswith("error_unit.noise limits: to take it away saves ")
    row = run.summary.set_index(["quantity", "variant"]).loc["hv", "all but error_unit.noise"]
    assert 3 * row["saved_stderr"] < row["saved"] < 1


@pytest.mark.parametrize(
    "good, trials, says",
    [
        (1.0, 40.0, "nothing limits; 5 of 5 dies"),
        (0.4, 4e4, "trials limit: with 40,000 in place of 64"),
        (0.4, 40.0, "what differs between dies limits: their mean gets there after 40 trials"),
        (0.0, np.inf, "the design limits"),
    ],
)
def test_the_dies_say_first_whether_trials_the_design_or_their_differences_limit(
    ran, good, trials, says
):
    run = ran("dies")[0]
    summary = run.summary.copy()
    for measure, value in (("yield", good), ("trials_to_accuracy", trials)):
        summary.loc[summary["measure"] == measure, ["value", "stderr"]] = value, np.nan
    changed = dataclasses.replace(run, tables={**run.tables, "summary": summary})
    found = spoken(changed)
    assert [name for name, _ in found] == ["gradient:", "z = Hv:"]
    assert all(text.startswith(says) and " 95 % interval " in text for _, text in found)


def test_trials_needed_follow_from_noise_that_averages_out_and_a_bias_that_does_not():
    def cosine(K, a, b):
        return (a + b / K) ** -0.5

    for a, b in ((1.0, 300.0), (1.1, 50.0)):
        found = many_dies.trials_needed((cosine(100, a, b), cosine(400, a, b)), (100, 400), 0.9)
        assert found == pytest.approx(b / (1 / 0.81 - a))
    assert (
        many_dies.trials_needed((cosine(100, 1.3, 50), cosine(400, 1.3, 50)), (100, 400), 0.9)
        == np.inf
    )
    assert many_dies.trials_needed((-0.1, 0.2), (100, 400), 0.9) == np.inf
    assert many_dies.trials_needed((1.0, 1.0), (100, 400), 0.9) == 1.0


def test_dies_of_one_design_differ_and_their_yield_has_an_interval(ran):
    run = ran("dies")[0]
    hv = run.dies[run.dies["quantity"] == "hv"]
    assert hv["die"].nunique() == 5 and hv["cosine"].nunique() == 5
    share = float((hv["cosine"] >= 0.9).mean())
    assert fact(run, "yield", "hv") == share
    assert row_of(run, "yield", "hv")["low"] <= share <= row_of(run, "yield", "hv")["high"]
    # Wilson's interval as published for 1 of 10
    assert share_interval(1, 10, "wilson") == pytest.approx((0.0179, 0.4042), abs=1e-4)


@pytest.mark.parametrize("method", ["difference", "covariance", "antithetic", "forward"])
@pytest.mark.parametrize(
    "more, settle_ns",
    [
        ({}, 90_000),
        ({}, 500),
        ({"error_unit.baseline_every": 5}, 90_000),
        ({"error_unit.baseline_every": 5}, 12_000),
        ({"clock.evaluation_ns": 30_000, "clock.broadcast_ns": 900}, 40_000),
    ],
)
def test_the_schedule_is_that_of_the_events(small, method, more, settle_ns):
    changes = {
        **more,
        "bus.skew_ns": 70,
        "synapses_per_tile": 9,
        "summing_line.settle_ns": settle_ns,
    }
    chip = chip_of(
        small, changes, method=method, code="gaussian", fidelity="event", trace_trials=50
    )
    schedule = Timing(chip.params, chip.objective, METHODS[method], chip.presented)
    chip.run(50)
    assert schedule.time_s(50) == pytest.approx(chip.time_s, rel=1e-12)
    assert schedule.energy_j(50) == pytest.approx(chip.energy_j, rel=1e-12)
    # the same shares, from the intervals of the trace
    spent = {}
    for interval in chip.trace:
        spent[interval.unit] = spent.get(interval.unit, 0) + interval.end_ns - interval.start_ns
    measuring = spent["perturbation"] + spent["array and error unit"]
    parts = schedule.parts_ns
    assert spent["bus"] == pytest.approx(50 * parts["bus"])
    assert spent["perturbation"] == pytest.approx(50 * parts["settling of perturbations"])
    assert measuring == pytest.approx(
        50
        * sum(parts[name] for name in parts if name not in ("bus", "waiting for dw.v or the clock"))
    )
    # but for words that are sent beside an evaluation, one after another
    assert sum(parts.values()) - schedule.overlapped_ns == pytest.approx(schedule.trial_ns)


def test_a_budget_knows_the_registers_of_the_tiles():
    changes = {
        "study": "budget",
        "estimation.code": "lfsr",
        "estimation.method": "central",
        "chip.synapses_per_tile": 3,
    }
    trials = {
        per: fact(
            sims.run_experiment("xor", {**changes, "chip.perturbation.lfsr_per": per}, seed=1),
            "trials",
            "gradient",
        )
        for per in ("chip", "tile")
    }
    assert (
        trials["chip"] <= 15 < trials["tile"] == np.inf
    )  # registers that meet keep the cosine below 0.9


@pytest.mark.slow
def test_a_budget_foretells_what_the_chip_then_needs():
    changes = {
        "chip.error_unit.noise": 1e-4,
        "chip.bus.drop_probability": 0.2,
        "estimation.method": "central",
        "run.seed": 3,
    }
    foretold = sims.run_experiment(
        "xor", {**changes, "study": "budget", "dies.accuracy": 0.8, "estimation.code": "rademacher"}
    )
    trials = round(fact(foretold, "trials", "gradient"))
    settings = {
        **changes,
        "study": "dies",
        "dies.count": 60,
        "estimation.trials": trials,
        "estimation.code": "rademacher",
    }
    run = sims.run_experiment("xor", settings)
    cosines = run.dies["cosine"]
    # a mean of 60, and some per cent that the expected cosine of few trials neglects
    assert abs(cosines.mean() - 0.8) < 5 * cosines.std() / 60**0.5 + 0.04
    assert fact(foretold, "improve_first") > 0


# ---- spectrum


def test_small_networks_are_diagonalised(ran):
    run = ran("spectrum")[0]
    problem = prepare(load_experiment("xor"))
    values = np.linalg.eigvalsh(problem.objective.hessian(problem.w))
    np.testing.assert_allclose(run.eigenvalues["eigenvalue"], values, atol=1e-12)
    np.testing.assert_allclose(run.extremes["eigenvalue"], [*values[:4], *values[-4:]], atol=1e-12)
    assert fact(run, "trace") == pytest.approx(values.sum()) and fact(
        run, "2/lambda_max"
    ) == pytest.approx(2 / values[-1])


@pytest.mark.slow
def test_a_spectrum_too_large_to_diagonalise_is_estimated(monkeypatch):
    changes = {"study": "spectrum", "data.samples": 16, "spectrum.steps": 40}
    exact = sims.run_experiment("digits", changes)
    monkeypatch.setattr(spectrum, "EXACT", 100)
    estimated = sims.run_experiment("digits", changes)
    of_layers = estimated.tables["layers"]["products"].sum()
    assert not estimated.eigenvalues["exact"].any()
    assert of_layers < fact(estimated, "products") < of_layers + 1000
    row = row_of(estimated, "trace")
    stderr = row["stderr"]
    # ten probes: Student's quantile of 9 degrees of freedom
    assert (row["high"] - row["low"]) / (2 * stderr) == pytest.approx(2.262, abs=1e-3)
    assert np.isnan([row_of(exact, "trace")[end] for end in ("low", "high")]).all()
    assert 0 < abs(fact(estimated, "trace") - fact(exact, "trace")) < 5 * stderr
    np.testing.assert_allclose(
        estimated.extremes["eigenvalue"], exact.extremes["eigenvalue"], rtol=1e-6
    )


def test_a_spectrum_agrees_with_its_own_table_where_every_eigenvalue_is_repeated():
    changes = {
        "study": "spectrum",
        "data.samples": 40,
        "network.layers": [64, 10],
        "network.error": "squared_error",
    }
    run = sims.run_experiment(
        "digits", changes
    )  # a linear network: each eigenvalue once for each of ten outputs
    values = np.sort(run.eigenvalues["eigenvalue"])
    count = len(run.extremes) // 2
    assert np.ptp(values[-10:]) < 1e-9 * values[-1]
    np.testing.assert_allclose(
        run.extremes["eigenvalue"], [*values[:count], *values[-count:]], atol=1e-9 * values[-1]
    )
    assert fact(run, "largest") == pytest.approx(values[-1]) and fact(
        run, "smallest"
    ) == pytest.approx(0, abs=1e-9)


CONVOLUTION = {
    "study": "spectrum",
    "data.samples": 20,
    "network": {
        "kind": "layers",
        "input": [1, 8, 8],
        "layers": ["conv2d 2 3", "tanh", "averagepool 2", "flatten", "linear 10"],
        "error": "cross_entropy",
    },
}


# all weights of its second level are those of earlier edges: layers 1 and 3 have some
SHARING = {
    "study": "spectrum",
    "network.units": 6,
    "network.edges": [[0, 3], [1, 3], [2, 3], [3, 4], [2, 4], [4, 5], [2, 5]],
    "network.tied": [0, 1, 2, 0, 2, 3, 4],
    "network.outputs": [5],
    "network.activations": {"5": "linear"},
}


def blocks_of(H, layers):
    """The blocks of H of each layer that has weights, one after the other."""
    return [H[np.ix_(layers == k, layers == k)] for k in sorted(set(layers.tolist()))]


@pytest.mark.parametrize(
    "name, changes",
    [("xor", {"study": "spectrum"}), ("layers", CONVOLUTION), ("dag", SHARING)],
)
def test_every_layer_has_the_curvature_of_its_block(name, changes):
    run = sims.run_experiment(name, changes)
    problem = prepare(load_experiment(name, changes))
    found, layers = run.tables["layers"], problem.objective.weight_layers()
    H = blocks_of(problem.objective.hessian(problem.w), layers)
    assert list(found["layer"]) == sorted(set(layers.tolist()))
    assert list(found["weights"]) == [len(block) for block in H]
    assert found["trace"].to_numpy() == pytest.approx([np.trace(block) for block in H])
    assert found["largest"].to_numpy() == pytest.approx(
        [np.linalg.eigvalsh(block)[-1] for block in H]
    )
    assert (found["trace_stderr"] == 0).all()
    assert found["trace"].sum() == pytest.approx(fact(run, "trace"))


def test_layers_whose_weights_are_those_of_others_are_left_out_of_estimates_too(monkeypatch):
    exact = sims.run_experiment("dag", SHARING).tables["layers"]
    assert list(exact["layer"]) == [1, 3]
    monkeypatch.setattr(spectrum, "EXACT", 3)
    found = sims.run_experiment("dag", SHARING).tables["layers"]
    columns = ["layer", "weights", "trace", "largest"]
    np.testing.assert_allclose(found[columns], exact[columns], rtol=1e-6, atol=1e-9)
    assert (found["products"] > 0).all()


def test_of_a_single_layer_there_is_no_table_of_layers():
    run = sims.run_experiment("teacher", {"study": "spectrum"})
    assert "layers" not in run.tables


def test_the_curvature_of_large_layers_is_estimated_and_its_products_are_counted(monkeypatch):
    problem = prepare(load_experiment("layers", CONVOLUTION))
    H = blocks_of(problem.objective.hessian(problem.w), problem.objective.weight_layers())
    monkeypatch.setattr(spectrum, "EXACT", 100)
    changes = {**CONVOLUTION, "spectrum.probes": 3, "spectrum.steps": 10}
    run = sims.run_experiment("layers", changes)
    found = run.tables["layers"]
    for row, block in zip(found.itertuples(), H, strict=True):
        # of 20 weights exactly, of 190 by probes
        assert (row.trace_stderr > 0) == (len(block) > spectrum.LAYER_PROBES)
        assert np.isinf(row.trace_df) == (row.trace_stderr == 0)
        assert abs(row.trace - np.trace(block)) <= 5 * row.trace_stderr + 1e-9
        assert row.largest == pytest.approx(np.linalg.eigvalsh(block)[-1])
        assert row.residual < 1e-6
    assert fact(run, "products") > found["products"].sum() > 90


# ---- finite differences


def test_truncation_has_orders_one_and_two_and_r_backprop_no_step(ran):
    run = ran("finite-difference")[0]
    assert fact(run, "slope", "one-sided") == pytest.approx(1, abs=0.02)
    assert fact(run, "slope", "central") == pytest.approx(2, abs=0.02)
    assert (
        fact(run, "error", "R{backprop}")
        < 1e-15
        < 1e-12
        < fact(run, "smallest_error", "central")
        < fact(run, "smallest_error", "one-sided")
    )
    for kind in (
        "one-sided",
        "central",
    ):  # a rule that knows no third derivative is within a few powers of two of the best
        assert fact(run, "error_there", kind) < 30 * fact(run, "smallest_error", kind)


def test_slope_is_measured_where_truncation_rules():
    r = np.geomspace(1e-12, 10, 79)
    found, stderr = slope(r, 1e-17 / r + 0.3 * r**3)
    assert found == pytest.approx(3, abs=0.01) and stderr < 0.01
    assert np.isnan(slope(r[:5], 1 / r[:5])[0])


# ---- uses


@pytest.mark.slow
def test_every_optimiser_descends_within_its_budget(ran):
    table = ran("uses")[0].optimisation
    for name in uses.OPTIMISERS:
        own = table[table["optimiser"] == name]
        assert (
            own["cost"].iloc[0] == 0
            and own["cost"].iloc[-1] <= 1.1 * SMALL["uses.budget"]
            and len(own) > 5
        )
        assert (own["error"].diff().dropna() <= 0).all() and own["error"].iloc[-1] < 0.5 * own[
            "error"
        ].iloc[0]


@pytest.mark.parametrize("budget", [1, 2, 5, 10, 11, 12, 13])
def test_newton_cg_ends_with_any_budget(budget):
    objective = MLP([2, 2, 1]).objective([[1.0, 2.0], [0.5, -1.0]], [[1.0], [0.0]]).with_decay(0.1)
    states = list(optimisers.newton_cg(objective, np.ones(9), budget))
    assert (
        states and states[-1][0] <= budget + 4
    )  # a step ends with two products, the gradient and a line search


@pytest.mark.slow
def test_modes_decay_as_predicted_and_the_stable_rate_is_sharp(ran):
    run = ran("uses")[0]
    # at the minimum, as all eigenvalues are
    assert run.tables["layers"]["trace"].sum() == pytest.approx(run.eigenvalues["eigenvalue"].sum())
    # a displacement of 1e-4 leaves third derivatives a share of about 1e-4
    np.testing.assert_allclose(
        run.modes["measured_updates"], run.modes["predicted_updates"], rtol=5e-3
    )
    assert fact(run, "growth_above") == pytest.approx(1.02, abs=1e-4) and fact(
        run, "growth_below"
    ) == pytest.approx(0.98, abs=1e-4)


def test_evidence_of_a_linear_network_is_that_of_bayesian_regression():
    # linear regression with unit noise and a Gaussian prior has its evidence in closed form: t ~
    # N(0, I + X X' / (S alpha))
    rng = np.random.default_rng(0)
    S, x, alpha = 20, rng.standard_normal((20, 3)), 0.05
    t = x @ [1.0, -2.0, 0.5] + rng.standard_normal(S)
    objective = MLP([3, 1]).objective(x, t[:, None])
    split = uses.Split(objective, objective, lambda w: np.nan)
    X = np.c_[x, np.ones(S)]
    row = uses.evidence(split, np.zeros(4), alpha, 100)
    C = np.eye(S) + X @ X.T / (S * alpha)
    assert row["log_evidence"] == pytest.approx(
        -0.5 * t @ np.linalg.solve(C, t) - 0.5 * np.linalg.slogdet(C)[1], rel=1e-9
    )
    values = np.linalg.eigvalsh(X.T @ X / S)
    assert row["gamma"] == pytest.approx((values / (values + alpha)).sum(), rel=1e-9)
    assert abs(row["lanczos_log_determinant"] - row["log_determinant"]) < 5 * row["lanczos_stderr"]


def test_surgeon_is_the_constrained_minimum_of_a_quadratic():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((20, 20))
    H, w = A @ A.T + np.eye(20), rng.standard_normal(20)
    after = dict(uses.surgeon(np.linalg.inv(H), w, 19))
    for count, pruned in after.items():
        kept = pruned != 0
        assert count == (~kept).sum()
        if 0 < count < 20:  # (pruned - w) is stationary in the weights that are kept
            np.testing.assert_allclose((H @ (pruned - w))[kept], 0, atol=1e-9)
    first = after[1]
    q = int(np.flatnonzero(first == 0)[0])
    cost = w**2 / (2 * np.diag(np.linalg.inv(H)))
    assert q == cost.argmin() and 0.5 * (first - w) @ H @ (first - w) == pytest.approx(cost[q])


@pytest.mark.slow
def test_obs_prunes_better_than_the_others(ran):
    table = ran("uses")[0].pruning
    half = table[(table["removed"] - 0.5).abs() < 0.01].set_index("method")["train_error"]
    assert half["OBS"] < half["OBD"] and half["OBS"] < half["magnitude"]


def test_saliencies_of_obs_are_those_of_minres():
    rng = np.random.default_rng(3)
    objective = (
        MLP([3, 2])
        .objective(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))
        .with_decay(0.1)
    )
    w = rng.standard_normal(objective.n_weights)
    expected = w**2 / (2 * np.diag(np.linalg.inv(objective.hessian(w))))
    np.testing.assert_allclose(curvature.obs_saliencies(objective, w).value, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("uses", {"network.layers": [64, 60, 10]}, "use at most 3000"),
        ("uses", {"uses.test_samples": 5000}, "has only 1797"),
        ("uses", {"uses.budget": 1}, "uses.budget = 1"),
        ("uses", {"uses.decays": []}, "uses.decays"),
        (
            "xor",
            {"study": "uses"},
            'uses.test_samples = 200, but data.name = "xor" has only 4 patterns, 4 of them',
        ),
        ("boltzmann", {"data.name": "digits"}, "too many units .* to be enumerated"),
        ("dag", {"network.external": [1, 0, 0, 0, 0]}, r"external\[0\] = 1"),
        ("recurrent", {"network.step": 2}, "network.step = 2"),
        ("boltzmann", {"network.sign": 0}, "network.sign = 0"),
        ("boltzmann", {"study": "uses"}, "no patterns to hold back"),
        (
            "finite-difference",
            {"finite_difference.largest": 1e-13},
            "smallest = 1e-12 must be less",
        ),
        ("xor", {"study": "use"}, "study"),
        ("estimators", {"estimators.codes": ["wlsh"]}, "did you mean walsh?"),
        (
            "xor",
            {"study": "budget", "chip.clock.evaluation_ns": 100},
            "clock.evaluation_ns = 100 cannot hold an evaluation",
        ),
        ("estimators", {"estimators.repeats": 1}, "estimators.repeats = 1"),
    ],
)
def test_a_mistake_is_one_line(name, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        sims.run_experiment(name, changes)
    assert "\n" not in str(caught.value)


class Patience:
    """should_stop that asks to stop once it has been asked often enough, and counts."""

    def __init__(self, questions):
        self.questions, self.asked = questions, 0

    def __call__(self):
        self.asked += 1
        return self.asked > self.questions


INTERRUPTED = [
    ("uses", SMALL, 600, {"summary", "optimisation"}),
    (
        "uses",
        {**SMALL, "uses.decays": [0.01, 0.02]},
        None,
        {"summary", "optimisation", "eigenvalues", "modes", "evidence"},
    ),
    (
        "digits",
        {"study": "spectrum", "data.samples": 8, "network.layers": [64, 5, 10]},
        None,
        {"summary", "extremes"},
    ),
    ("finite-difference", QUICK["finite-difference"][1], 40, {"summary", "errors"}),
    ("estimators", QUICK["estimators"][1], 20, {"summary"}),
    ("xor", QUICK["ablation"][1], 3, {"summary"}),
    ("xor", QUICK["dies"][1], 2, {"summary", "dies"}),
    ("xor", QUICK["budget"][1], 1, {"summary", "sensitivities"}),
    ("reproduce", {"reproduce.claim": "coverage"}, 1, {"summary"}),
]


@pytest.mark.parametrize(
    "name, changes, questions, tables",
    fast(INTERRUPTED, *INTERRUPTED[-4:-1]),
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_an_interrupted_study_keeps_its_finished_parts_and_rows(
    name, changes, questions, tables, tmp_path
):
    if questions is None:  # near the end
        whole = Patience(10**9)
        sims.run_experiment(name, changes, should_stop=whole)
        assert whole.asked > 30
        questions = whole.asked - (25 if name == "uses" else 2)
    if name == "uses" and len(tables) > 2:
        tables = tables | {"layers", "pruning"}
    run = sims.run_experiment(name, changes, out=tmp_path / "part", should_stop=Patience(questions))
    assert set(run.tables) == tables and all(len(table) for table in run.tables.values())
    assert run.provenance["status"] == "partial" and "interrupted" in run.provenance["reason"]
    loaded = reports.load(tmp_path / "part")
    assert loaded.partial and set(loaded.tables) == tables
    assert (
        "interrupted"
        in reports.export(loaded.directory, ["png", "html", "md"])[-1]
        .parent.joinpath("report.html")
        .read_text()
    )


@pytest.mark.slow
def test_finished_parts_outlive_a_minimum_that_is_not_found(command):
    status, out, err = command(
        "run",
        "uses",
        *(
            word
            for key, value in {**SMALL, "uses.decay": 1e-14, "network.activation": "relu"}.items()
            for word in ("--set", f"{key}={value}")
        ),
        "--out",
        "part",
    )
    assert (
        status == 2
        and "no minimum found" in err
        and "kinks of relu" in err
        and "maxpool" not in err
        and err.count("\n") == 1
    )
    loaded = reports.load("part")
    assert set(loaded.tables) >= {"summary", "optimisation"} and "no minimum found" in loaded.reason
    assert "PARTIAL: uses: no minimum found" in out


def test_no_minimum_of_layers_names_the_layers_that_have_kinks(command):
    net = dict(CONVOLUTION["network"])
    net["layers"] = ["conv2d 2 3", "tanh", "residual(maxpool 3 stride=1 padding=1)", "flatten"]
    net["layers"].append("linear 10")
    changes = {"study": "uses", "data.samples": 10, "uses.decay": 1e-14, "uses.budget": 10}
    pairs = {**changes, "uses.test_samples": 5, **{f"network.{k}": v for k, v in net.items()}}
    words = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    status, _, err = command("run", "layers", *words)
    assert status == 2 and "no minimum found" in err
    assert "kinks of maxpool are a reason: use averagepool" in err and "relu" not in err


@pytest.mark.slow
def test_share_of_negative_eigenvalues_is_the_same_by_quadrature(monkeypatch):
    # half the eigenvalues of a network with few patterns are zero: nodes of quadrature scatter
    # around it
    changes = {"study": "spectrum", "data.samples": 16, "network.layers": [64, 10, 10]}
    exact = sims.run_experiment("digits", changes)
    monkeypatch.setattr(spectrum, "EXACT", 100)
    estimated = sims.run_experiment("digits", changes)
    for name in ("share_negative", "share_near_zero"):
        stderr = row_of(estimated, name)["stderr"]
        # besides chance, the nodes stand for eigenvalues that lie across the border: some per cent
        assert abs(fact(estimated, name) - fact(exact, name)) < 5 * stderr + 0.03
    values = exact.eigenvalues["eigenvalue"]
    assert fact(exact, "share_negative") == pytest.approx(
        (values < -1e-3 * values.abs().max()).mean()
    )


@pytest.mark.slow
def test_spectrum_copes_without_converged_eigenvalues(monkeypatch, tmp_path):
    def none(objective, w, k, which):
        return curvature.Eigenpairs(np.zeros(0), np.zeros((w.size, 0)), np.zeros(0), 7, False)

    monkeypatch.setattr(spectrum.curvature, "eigenpairs", none)
    for limit in (3000, 10):
        monkeypatch.setattr(spectrum, "EXACT", limit)
        out = tmp_path / str(limit)
        run = sims.run_experiment(
            "digits",
            {"study": "spectrum", "data.samples": 8, "network.layers": [64, 5, 10]},
            out=out,
        )
        assert run.extremes.empty and fact(run, "largest") > 0 and fact(run, "products") > 7
        reports.export(out, ["html", "png", "csv"])
    assert "none has converged" in row_of(run, "largest")["meaning"]


def test_finite_differences_of_a_network_that_does_not_settle_far_away_are_nan_there(tmp_path):
    changes = {
        "study": "finite-difference",
        "finite_difference.points": 15,
        "network.activation": "linear",
    }
    changes["network.max_steps"] = 200
    run = sims.run_experiment(
        "recurrent", {**changes, "finite_difference.largest": 100.0}, out=tmp_path / "far"
    )
    missing = run.errors["error"].isna()
    assert (
        missing.any() and not missing.all() and np.isfinite(fact(run, "smallest_error", "central"))
    )
    reports.export(tmp_path / "far", ["html", "png", "md"])


def test_the_floor_of_a_relaxation_is_its_tolerance():
    changes = {
        "study": "finite-difference",
        "finite_difference.points": 5,
        "network.solver": "relax",
        "network.tolerance": 1e-5,
    }
    run = sims.run_experiment("recurrent", changes)
    assert 1e-8 < fact(run, "error", "R{backprop}") < 1e-3
    assert "tolerance" in row_of(run, "error", "R{backprop}")["meaning"]


def test_evidence_is_told_only_at_a_clear_minimum():
    for lowest, known in ((-0.5, True), (-0.99, False)):
        H = np.diag([lowest, 1.0, 2.0])
        plain = Objective.from_functions(
            lambda w, H=H: w @ H @ w / 2, lambda w, H=H: H @ w, lambda w, v, H=H: H @ v, n_weights=3
        )
        row = uses.evidence(uses.Split(plain, plain, lambda w: 1.0), np.ones(3), 1.0, 50)
        told = [
            np.isfinite(row[name])
            for name in ("gamma", "log_evidence", "log_determinant", "lanczos_stderr")
        ]
        assert told == [known] * 4 and row["lowest_eigenvalue"] == pytest.approx(lowest)


@pytest.mark.slow
def test_a_decay_without_a_minimum_is_not_ranked(tmp_path, monkeypatch):
    changes = {**SMALL, "uses.decays": [0.02, 0.03]}
    evidence = uses.evidence

    def none_at_first(split, w, alpha, budget):
        row = evidence(split, w, alpha, budget)
        return row if alpha > 0.02 else {**row, "gamma": np.nan, "log_evidence": np.nan}

    monkeypatch.setattr(uses, "evidence", none_at_first)
    run = sims.run_experiment("uses", changes, out=tmp_path / "uses")
    assert fact(run, "decay", "largest evidence") == 0.03
    reports.export(tmp_path / "uses", ["md", "png"], tmp_path)
    assert "no minimum was found" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_targets_that_are_any_numbers_have_no_accuracy(tmp_path):
    changes = {"study": "uses", "uses.test_samples": 20, "uses.decays": [0.01], "uses.budget": 50}
    run = sims.run_experiment("teacher", changes, out=tmp_path / "uses")
    assert run.evidence["test_accuracy"].isna().all() and run.pruning["test_accuracy"].isna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a single decay is no reason to speak
        reports.export(tmp_path / "uses", ["html", "md", "png"], tmp_path)
    assert "accuracy" not in (tmp_path / "report.md").read_text()


def test_pruning_of_a_small_network_shows_different_counts_once():
    objective = (
        MLP([2, 1])
        .objective([[1.0, 2.0], [0.5, -1.0], [2.0, 0.1]], [[1.0], [0.0], [2.0]])
        .with_decay(0.1)
    )
    split = uses.Split(objective, objective, lambda w: np.nan)
    minimum = uses.polished(objective, np.zeros(3))
    rows = [row for some in uses.prune(split, objective, minimum, lambda: False) for row in some]
    assert [(name, share) for name, share, *_ in rows] == [
        (name, count / 3) for count in (0, 1, 2, 3) for name in ("magnitude", "OBD", "OBS")
    ]


def test_more_samples_of_a_teacher_leave_the_first_as_they_are():
    few, many = (
        load_data(
            load_experiment("teacher", {"data.samples": samples, "data.noise": 0.5}).data, 8, 3
        )
        for samples in (10, 40)
    )
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:10])


def test_networks_of_files_take_every_key_of_their_kind():
    relaxing = load_experiment(
        "recurrent", {"network.step": 0.25, "network.tolerance": 1e-6, "network.max_steps": 99}
    ).network
    assert (relaxing.build().step, relaxing.build().tolerance, relaxing.build().max_steps) == (
        0.25,
        1e-6,
        99,
    )
    tied = {"network.tied": [0, 1, 2, 0, 1, 2, 3], "network.external": [0, 0, 0, 0.5, 0]}
    graph = load_experiment("dag", tied).network.build()
    assert graph.n_weights == 4 and graph.external[3] == 0.5
    problem = prepare(load_experiment("boltzmann", {"network.values": [-1, 1], "network.sign": -1}))
    assert problem.network.sign == -1 and set(np.unique(problem.objective.states)) == {-1.0, 1.0}


@pytest.mark.slow
def test_the_command_prints_and_plots_a_spectrum(command):
    status, out, err = command("spectrum", "xor", "--k", "2", "--out", "eigen")
    assert status == 0 and err == "" and "2/lambda_max" in out
    assert (
        len(pd.read_csv("eigen/extremes.csv")) == 4
        and Path("eigen/spectrum.png").stat().st_size > 1000
    )
    assert "Extreme eigenvalues" in command("compare", "eigen")[1]
    status, _, err = command("spectrum", "xor", "--out", "eigen")
    assert status == 2 and "already holds files" in err
    assert command("spectrum", "xor", "--set", "spectrum.k=1", "--out", "one")[0] == 0
    assert len(pd.read_csv("one/extremes.csv")) == 2
    status, _, err = command("spectrum", "xor", "--set", "study=uses")
    assert status == 2 and "use perturb run" in err and err.count("\n") == 1
    assert (
        command("spectrum", "xor", "--k", "0")[2]
        == "perturb: xor.toml with --set: spectrum.k = 0 must be >= 1\n"
    )


def test_datasets_are_listed_a_line_each(command):
    lines = command("list", "datasets")[1].strip().splitlines()
    assert [line.split()[0] for line in lines] == list(DATASETS)
    assert max(map(len, lines)) <= 160 and all(line.endswith(".") for line in lines)


def test_dies_of_a_training_experiment_are_of_learning_unless_estimates_are_asked_for(command):
    small = ["-n", "1", "--set", "estimation.trials=16", "--set", "training.updates=20"]
    warned = (
        "Warning: this is of estimates at the starting weights from evaluations of all patterns"
    )
    status, out, err = command("dies", "xor-learning", *small)
    assert status == 0 and warned not in out and "design: solved" in out
    # before it starts
    assert "1 x 8 runs, 8 starts on each of 1 dies: about " in err
    status, out, err = command("dies", "xor-learning", *small, "--set", "study=dies")
    assert status == 0 and warned in out and "cosine" in out
    status, out, err = command("dies", "xor", *small)
    assert status == 0 and warned not in out and "cosine" in out


ADD_STUDY = """
import sys
from pathlib import Path
import reports.studies
from sims import studies

folder = Path(sys.argv[1])
studies.__path__.append(str(folder / "sims"))
reports.studies.__path__.append(str(folder / "reports"))
study, view = (folder / "lines").read_text().splitlines()
studies.STUDIES |= eval("{" + study + "}", vars(studies))
reports.studies.VIEWS |= eval("{" + view + "}")

from sims.cli import main
sys.argv[1:] = sys.argv[2:]
main()
"""


@pytest.mark.slow
def test_the_study_of_the_readme_is_two_files_and_two_lines(tmp_path):
    text = (Path(__file__).parents[1] / "sims" / "README.md").read_text(encoding="utf-8")
    example = textwrap.dedent(re.search(r"\n(    # sims/studies/.*?)\n\n\*\*", text, re.S)[1])
    _, *parts = re.split(r"^# (sims/.*|reports/.*|the lines.*)\n", example, flags=re.M)
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        path = tmp_path / "lines"
        if name.endswith(".py"):
            path = tmp_path / name.split("/")[0] / name.split("/")[-1]
            path.parent.mkdir()
        path.write_text(part.strip() + "\n")

    def perturb_(*words):
        done = subprocess.run(
            [sys.executable, "-c", ADD_STUDY, str(tmp_path), *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert done.returncode == 0, done.stderr[-500:]
        return done.stdout

    out = perturb_("run", "xor", "--set", "study=norms", "--set", "norms.steps=3", "--out", "norms")
    assert "Norms" in out and "hv" in out
    perturb_("new", "new.toml")
    assert "[norms]" in (tmp_path / "new.toml").read_text()
    assert len(pd.read_csv(tmp_path / "norms" / "summary.csv")) == 3
