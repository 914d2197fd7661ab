"""Results show themselves in a notebook, with their plots one method away."""

import signal
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import perturb
import reports
import sims
from perturb import InputError
from sims.runner import InterruptedRun

NEVER_CLOSED = {"br", "hr", "img"}


@pytest.fixture(autouse=True)
def no_window():
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


class Cells(HTMLParser):
    """The rows of all tables; every element must be closed, in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open += [tag] * (tag not in NEVER_CLOSED)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module", params=["difference", "central"])
def results(request):
    """(estimate, comparison, prediction), of a method of both quantities and of the gradient."""
    rng = np.random.default_rng(0)
    net = perturb.MLP([3, 4, 2], error="cross_entropy")
    objective = net.objective(rng.standard_normal((5, 3)), ["a", "b", "a", "a", "b"])
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    settings = {"method": request.param, "code": "rademacher", "error_noise": 1e-4}
    estimate = perturb.estimate(objective, w, v, trials=64, **settings)
    predicted = perturb.predict(objective, w, v, **settings)
    return estimate, perturb.compare(estimate, objective, w, v), predicted


def test_an_estimate_shows_sizes_and_errors_and_what_is_not_known(results):
    estimate, comparison, predicted = results
    both = estimate.design.method.estimates_hv
    _, g, z = Cells(estimate._repr_html_()).rows
    assert g[:2] == ["gradient", f"{np.linalg.norm(estimate.gradient):.4g}"]
    assert z[1] == (f"{np.linalg.norm(estimate.hv):.4g}" if both else "-")
    headings, g, z = Cells(comparison._repr_html_()).rows
    assert headings[1] == "cosine" and g[1] == f"{comparison.gradient.cosine:.4g}"
    assert z[1] == (f"{comparison.hv.cosine:.4g}" if both else "-")
    headings, g, z = Cells(predicted._repr_html_()).rows
    needed = float(g[headings.index("evaluations for a cosine of 0.9")].replace(",", ""))
    assert needed == pytest.approx(predicted.gradient.evaluations_for(0.9), rel=1e-3)
    assert (z[1] == "-") != both


def test_warnings_of_theory_are_shown(small):
    objective, w, v = small
    predicted = perturb.predict(objective, w, v, method="pearlmutter", code="rademacher")
    assert predicted.warnings
    texts = Cells(predicted._repr_html_()).texts
    assert set(predicted.warnings) <= set(texts)


@pytest.mark.parametrize("which", range(3))
def test_a_plot_makes_axes_or_takes_those_given(results, which):
    figure, own = pyplot.subplots()
    before = pyplot.get_fignums()
    assert results[which].plot(ax=own) is own and pyplot.get_fignums() == before
    assert own.has_data() and own.get_xlabel() and own.get_ylabel()
    made = results[which].plot()
    assert isinstance(made, Axes) and made is not own
    figure.canvas.draw()


def test_a_comparison_is_drawn_at_the_exact_and_the_estimated_values(results):
    _, comparison, _ = results
    for quantity in ("gradient", "hv"):
        of = getattr(comparison, quantity)
        x, y = comparison.plot(quantity).containers[0].lines[0].get_data()
        np.testing.assert_array_equal(x, of.exact)
        np.testing.assert_array_equal(y, of.estimate)
    with pytest.raises(InputError, match="quantity = 'z' is unknown"):
        comparison.plot("z")


@pytest.mark.slow
def test_a_run_and_its_stored_frames_show_what_a_report_says(tmp_path):
    run = sims.run_experiment("xor", {"estimation.trials": 16}, out=tmp_path / "xor")
    frames = reports.load(tmp_path / "xor")
    shown = Cells(run._repr_html_())
    assert shown.rows == Cells(frames._repr_html_()).rows
    cells = {cell for row in shown.rows for cell in row}
    assert {"difference/walsh", f"{frames.of('hv')['cosine'].iloc[-1]:.4f}"} <= cells
    assert set(frames.view.notes(frames)) <= set(shown.texts)
    for table in frames.view.tables(frames):
        assert table.title in shown.texts
    names = frames.view.figures(frames)
    for kind in (None, *names):
        assert isinstance(run.plot(kind), Figure) and isinstance(frames.plot(kind), Figure)
    with pytest.raises(InputError, match="kind = 'no' is unknown: one of"):
        frames.plot("no")


def test_pyplot_knows_of_the_notebook_before_it_is_given_a_figure(monkeypatch):
    frames = sims.run_experiment("xor", {"study": "budget"}).frames
    loaded = []
    monkeypatch.setattr(pyplot, "draw_if_interactive", lambda: loaded.append(True))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert isinstance(frames.plot(), Figure) and not loaded
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert isinstance(frames.plot(), Figure) and loaded


def test_facts_and_sweeps_show_themselves_too(tmp_path):
    run = sims.run_experiment("xor", {"study": "budget"})
    assert any(
        row[:2] == ["trial time", "chip time of one trial"] for row in Cells(run._repr_html_()).rows
    )
    vary = {"spectrum.k": [1, 2]}
    sims.run_sweep("xor", vary, out=tmp_path / "s", workers=0, set={"study": "spectrum"})
    assert Cells(reports.load(tmp_path / "s")._repr_html_()).rows


def test_what_a_user_wrote_is_text_in_a_notebook(tmp_path):
    text = "<script>alert(1)</script>"
    run = sims.run_experiment("xor", {"study": "budget", "description": text})
    assert "<script" not in run._repr_html_() and text in " ".join(Cells(run._repr_html_()).texts)


def test_a_run_without_results_says_so():
    run = sims.run_experiment("xor", {"study": "budget"}, should_stop=lambda: True)
    assert repr(run).startswith("Run('xor', study='budget', seed=0, partial: tables ")
    if not run.tables:
        assert run._repr_html_() is None
        with pytest.raises(InputError, match="interrupted before its first result"):
            run.plot()


@pytest.mark.slow
def test_an_interrupted_cell_of_a_notebook_keeps_what_was_done(tmp_path):
    few = {"training.runs": 2, "training.updates": 60, "training.compare_with": []}

    def interrupt(what, done, total):
        if done:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(InterruptedRun, match="with the results so far, marked as partial"):
        run = sims.run_experiment("xor-learning", few, out=tmp_path / "run", progress=interrupt)
    assert run.provenance["status"] == "partial" and run.learning["update"].max() < 60
    assert reports.load(tmp_path / "run").partial
    # the same call goes on, and Ctrl-C is answered by Python again
    whole = sims.run_experiment("xor-learning", few, out=tmp_path / "run")
    assert whole.learning["update"].max() == 60
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_with_nothing_to_keep_or_a_second_one_is_raised():
    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    def twice(*_):
        interrupt()
        interrupt()

    few = {"training.runs": 2, "training.updates": 60}
    with pytest.raises(KeyboardInterrupt):
        sims.run_experiment("xor-learning", few, progress=twice)
    # said before the first chip has learned
    ablation = {
        "study": "learning-ablation",
        "training.updates": 60,
        "dies.count": 2,
        "dies.starts": 2,
        "chip.error_unit.noise": 1e-3,
    }
    with pytest.raises(KeyboardInterrupt):
        sims.run_experiment("xor-learning", ablation, say=interrupt)


@pytest.mark.slow
def test_showing_an_estimate_loads_neither_pandas_nor_matplotlib():
    code = (
        "import sys, numpy as np, perturb\n"
        "objective = perturb.MLP([2, 1]).objective([[1.0, 2.0]], [[1.0]])\n"
        "perturb.estimate(objective, np.zeros(3), np.ones(3), 4)._repr_html_()\n"
        "print({'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
