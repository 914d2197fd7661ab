"""Claims of the literature: every verdict is as expected, and a wrong prediction would be
noticed.
"""

import re

import numpy as np
import pandas as pd
import pytest

import reports
import sims
from perturb import InputError
from reports.studies import view_of
from reports.vocabulary import AGREES, BIASED, DISAGREES
from sims.claims import CLAIMS, chosen
from sims.claims import claim as claims
from sims.claims import learning as claims_learning
from sims.claims import readings as claims_readings
from sims.claims import updates as claims_updates
from sims.claims.claim import crossing, diagonal, general, judged, mean, refuted, seeds, verdict
from sims.described import says

# the exact gradient's share less that of perturbation: the control is no difference at all
DIFFERENCE = "share solved: exact gradient less perturbation"


# claims that take minutes, for each of which one seed must do
LONG = ("mgd-xor", "coverage")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, seed",
    [(name, seed) for name in CLAIMS for seed in (0, 7) if seed == 0 or name not in LONG],
)
def test_every_verdict_is_as_expected_and_a_wrong_prediction_disagrees(name, seed):
    rows = list(CLAIMS[name](seed))
    assert rows and (name != "mgd-xor" or DIFFERENCE in {row.claim for row in rows})
    for row in rows:
        expected = BIASED if row.claim.startswith("as published it") else AGREES
        assert row.verdict == expected, row
        assert row.stderr >= 0 and row.tolerance >= 0 and np.isfinite(row[3:7]).all()
        if (
            expected == AGREES
        ):  # negative control: a third more, or something where there should be nothing
            wrong = (row.claim != DIFFERENCE) * 1.33 * row.predicted if row.predicted else 0.1
            assert verdict(wrong, row.measured, row.stderr, row.tolerance) == DISAGREES, row


def off(claim, source, setting, predicted, *measured):
    """A row whose prediction is off by 3 %."""
    return judged(claim, source, setting, 1.03 * predicted, *measured)


WRONG = [
    # of each group: a law put wrong in the module of the claim
    ("one-bit", claims_readings, "judged", off),
    ("best-amplitude", claims_learning, "perceptron_sigma", lambda *given: 0.07),
    ("covariance", claims_learning, "quadratic_floor", lambda *given: 1.0),
    ("delay", claims_updates, "delay_limit", lambda lam, d: {0: 1.05, 1: 0.47, 3: 0.21}[d]),
    ("leak", claims_updates, "leak_fixed_point", lambda H, w_star, eta, leak: 0.9 * w_star),
    (
        "stuck-weights",
        claims_updates,
        "constrained_minimum",
        lambda H, w_star, stuck, at: (w_star, 0.0),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, module, law, wrong", WRONG)
def test_a_law_put_wrong_is_noticed(name, module, law, wrong, monkeypatch):
    monkeypatch.setattr(module, law, wrong)
    assert DISAGREES in {row.verdict for row in CLAIMS[name](0)}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_others():
    first, again, other = (list(CLAIMS["best-amplitude"](seed)) for seed in (3, 3, 4))
    assert first == again
    assert first[0].measured != other[0].measured and first[0].predicted == other[0].predicted
    assert not set(seeds(0)) & set(seeds(1))


def test_verdicts():
    assert verdict(1.0, 1.5, 0.1, 0.0) == AGREES and verdict(1.0, 1.51, 0.1, 0.0) == DISAGREES
    assert verdict(1.0, 1.51, 0.1, 0.02) == AGREES
    for wrong in (np.nan, np.inf):
        assert (
            verdict(1.0, wrong, 0.1, 0.0) == DISAGREES
            and verdict(1.0, 1.0, np.nan, 0.0) == DISAGREES
        )
    assert refuted("c", "s", "on", 1.0, 2.0, 0.1).verdict == BIASED
    assert refuted("c", "s", "on", 1.0, 1.1, 0.1).verdict == DISAGREES
    assert refuted("c", "s", "on", 1.0, np.nan, 0.1).verdict == DISAGREES
    assert judged("c", "s", "on", 1, 1).verdict == AGREES
    assert mean([1.0, 3.0]) == (2.0, 1.0)


def test_quadratic_errors_have_the_hessians_that_they_say():
    lam, w_star = np.array([0.5, 2.0, 3.0, 0.1, 1.0]), np.arange(5.0)
    objective = diagonal(lam, w_star)
    np.testing.assert_allclose(objective.hessian(w_star), np.diag(lam), atol=1e-14)
    assert objective.error(w_star) == 0
    other = general(4, 0, w_star[:4])
    H, w = other.hessian(w_star[:4]), np.ones(4)
    assert np.abs(H - np.diag(np.diag(H))).max() > 0.01
    assert other.error(w) == pytest.approx(claims.errors(H, w[None], w_star[:4])[0])
    line = claims.Linear(w, 2.0)
    np.testing.assert_allclose(line.errors_at(np.array([w, -w])), [[6.0], [-2.0]])
    assert line.error(w) == 6.0


def test_a_limit_is_where_the_growth_is_none():
    rng = np.random.default_rng(0)
    each = np.exp(0.3 * (np.array([[0.9], [1.1]]) - 1.0) + 0.01 * rng.standard_normal(16))
    found, stderr = crossing((0.9, 1.1), each)
    assert abs(found - 1.0) < 5 * stderr and stderr == pytest.approx(0.01 / 0.3 / 4, rel=0.5)
    assert crossing((0.9, 1.1), np.exp([[-0.1], [0.1]])) == (pytest.approx(1.0), 0.0)


# ---- the command


def test_without_a_name_the_claims_are_listed_a_line_each(command):
    status, out, err = command("reproduce")
    assert status == 0 and err == ""
    assert [line.split()[0] for line in out.splitlines()] == list(CLAIMS)
    assert all(
        len(line) <= 140 and len(says(claim)) > 20
        for line, claim in zip(out.splitlines(), CLAIMS.values(), strict=True)
    )


def test_a_claim_is_printed_stored_and_reported(command, tmp_path):
    status, out, err = command("reproduce", "delay", "--seed", "3", "--out", "here")
    assert status == 0 and err == ""
    assert "Levin and May 1976" in out and out.count("agrees") == 3 and "(seed 3)" in out
    assert "3 of 3 statements agree" in out and "Next: perturb report here" in out
    loaded = reports.load(tmp_path / "here")
    assert (
        list(loaded.summary.columns) == list(view_of("reproduce").columns["summary"])
        and loaded.provenance["seed"] == 3
    )
    assert command("report", "here", "--format", "html,md,csv,png")[0] == 0
    page, text = ((tmp_path / "here" / name).read_text() for name in ("report.html", "report.md"))
    for shown in (page, text):
        assert "Levin and May 1976" in shown and "seed 3" in shown
        assert re.search(r"The perturb developers: perturb \d+\.\d+", shown)
    assert (tmp_path / "here" / "claims.png").exists()
    again = sims.run_experiment(tmp_path / "here" / "experiment.toml").summary
    pd.testing.assert_frame_equal(again, loaded.summary, check_dtype=False)


@pytest.mark.slow
def test_a_disagreement_is_shown_and_is_the_exit_status(command, monkeypatch):
    monkeypatch.setattr(claims_updates, "leak_fixed_point", lambda H, w_star, eta, leak: w_star)
    status, out, err = command("reproduce", "leak", "--out", "here")
    assert status == 1 and err == ""
    assert "DISAGREES" in out and "0 of 2 statements agree" in out and "leak DISAGREES: w/w*" in out


def test_an_unknown_claim_is_a_line_with_a_close_match(command, tmp_path):
    for words in (["reproduce", "dealy"], ["run", "reproduce", "--set", "reproduce.claim=dealy"]):
        status, out, err = command(*words)
        assert status == 2 and out == "" and err.count("\n") == 1 and "did you mean delay?" in err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match="claim = 'x' is unknown"):
        chosen("x")
    assert chosen("all") == CLAIMS and list(chosen("leak")) == ["leak"]


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_claims_so_far(tmp_path):
    calls = iter([False] * 3 + [True] * 1000)
    run = sims.run_experiment("reproduce", out=tmp_path / "part", should_stop=lambda: next(calls))
    assert run.provenance["status"] == "partial" and len(run.summary) == 4
    assert reports.load(tmp_path / "part").partial
