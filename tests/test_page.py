"""The page of a report in a real browser, without a network: Chromium without a window, where it
and Playwright are there.
"""

import shutil

import pytest
from fast import fast

import reports
import sims

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright (in the extra test)")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
SMALL = {"estimation.trials": 64}
VARIED = {"chip.error_unit.noise": [1e-4, 1e-3, 1e-2], "estimation.sigma": [0.01, 0.1]}
LEARN = {"training.updates": 20, "training.runs": 2, "chip.error_unit.bits": 6}
MADE = {
    "sweep": lambda out: sims.run_sweep("xor", VARIED, 2, out, workers=0, set=SMALL, keep=True),
    "run": lambda out: sims.run_experiment("xor", SMALL, out=out),
    "training": lambda out: sims.run_experiment("xor-learning", LEARN, out=out),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a name, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def page(name):
        if name not in made:
            MADE[name](folder / name)
            made[name] = reports.export(folder / name, "html")[0]
        return made[name]

    return page


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(params=["sweep", "run"])
def page(request, browser, pages):
    """The page, opened offline; what it asked for beside itself, and what went wrong in it, is
    kept.
    """
    context = browser.new_context(
        offline=True, color_scheme="light", viewport={"width": 1000, "height": 800}
    )
    page, wrong, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda message: wrong.append(message.text) if message.type == "error" else None
    )
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages(request.param).as_uri())
    yield page
    assert wrong == [] and [url for url in asked if not url.startswith("data:")] == [
        pages(request.param).as_uri()
    ]
    context.close()


def colours(page):
    style = (
        "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    )
    ink, paper = page.locator("body").evaluate(style)
    return [
        sum(map(int, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 765
        for colour in (ink, paper)
    ]


@pytest.mark.slow
def test_everything_is_seen_without_a_network(page):
    assert page.locator("figure").count() >= 3
    for figure in page.locator("figure").all():
        box = figure.locator(".panels").bounding_box()
        assert box["width"] > 500 and box["height"] > 100 and figure.get_attribute("aria-label")
        assert figure.locator(".panels svg").count() >= 1
    assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang") == "en"


OUTSIDE = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls");
  for (const each of document.querySelectorAll("body *:not(.skip)")) {
    const box = each.getBoundingClientRect();
    if (box.width && box.height && (box.right > width + 0.5 || box.left < -0.5))
      found.push(`${each.tagName} ${box.left} to ${box.right}: ${each.textContent.slice(0, 40)}`);
  }
  return found;
}"""
WIDE = "document.querySelector('main').firstElementChild.style.width = '2000px'"


@pytest.mark.slow
@pytest.mark.parametrize("name", fast(list(MADE), "run"))
def test_nothing_is_outside_the_window_or_the_paper(browser, pages, name):
    for width, media in ((1280, "screen"), (390, "screen"), (718, "print")):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.emulate_media(media=media)
        page.goto(pages(name).as_uri())
        if media == "print":  # as a browser says before it prints
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
        else:
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert page.evaluate(OUTSIDE) == []
        # words of plots are no smaller than 6 pixels, a ten-point axis label than 7
        scale = "each => each.getBoundingClientRect().width / each.viewBox.baseVal.width"
        for panel in page.locator(".panels svg").all():
            assert panel.evaluate(scale) * 8 > (6 if media == "screen" else 5)
        page.evaluate(WIDE)
        assert len(page.evaluate(OUTSIDE)) >= 2
        page.close()


@pytest.mark.slow
def test_a_partial_run_says_so_at_the_top(browser, tmp_path):
    asked = iter(range(3))
    small = {"estimation.trials": 64}
    stop = lambda: next(asked, None) is None  # noqa: E731
    sims.run_experiment("xor", small, out=tmp_path / "part", should_stop=stop)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(reports.export(tmp_path / "part", "html")[0].as_uri())
    note = page.locator(".partial")
    assert "Partial:" in note.inner_text() and note.bounding_box()["y"] < 400
    assert "(partial)" in page.title()
    page.close()


@pytest.mark.slow
def test_sentences_wrap_so_that_the_numbers_behind_them_are_seen(browser, pages):
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(pages("training").as_uri())
    table = page.locator(".sortable table", has_text="advised").first
    assert max(map(len, column(table, 1))) > 120  # or they would be seen without
    seen = "element => element.scrollWidth <= element.clientWidth"
    assert table.locator("xpath=..").evaluate(seen)
    page.close()


def column(table, index):
    return table.locator(f"tbody tr td:nth-child({index + 1})").all_inner_texts()


@pytest.mark.slow
def test_a_click_sorts_a_table_and_a_second_one_turns_it_round(page):
    table = page.locator(".sortable table", has_text="relative error").first
    heads = table.locator("thead th").all_inner_texts()
    index = heads.index("relative error")
    shown = column(table, index)
    button = table.locator("thead button").nth(index)

    def number(text):
        return float(text.partition(" [")[0].replace(",", ""))

    assert shown != sorted(shown, key=number)  # or the click would show nothing
    button.click()
    assert table.locator("thead th").nth(index).get_attribute("aria-sort") == "ascending"
    assert [number(text) for text in column(table, index)] == sorted(map(number, shown))
    button.click()
    assert [number(text) for text in column(table, index)] == sorted(
        map(number, shown), reverse=True
    )
    assert table.locator("thead th[aria-sort]").count() == 1
    table.locator("thead button").first.click()
    assert column(table, 0) == sorted(column(table, 0), key=str.lower)


@pytest.mark.slow
def test_the_keyboard_reaches_and_works_everything(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#results"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        kind = page.evaluate(
            "document.activeElement.tagName + '.' + document.activeElement.className"
        )
        if kind == "BODY.":
            break
        reached.add(kind)
        if kind == "BUTTON." and "sorted" not in reached:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            page.keyboard.press("Enter")
            assert page.locator("thead th[aria-sort=ascending]").count() == 1
            reached.add("sorted")
        if kind == "SUMMARY.":
            page.keyboard.press("Enter")
    assert {"sorted", "DIV.scroll sortable", "SUMMARY."} <= reached
    details = page.locator("details")
    assert details.count() == page.locator("details[open]").count() == 3


@pytest.mark.slow
def test_it_is_legible_in_the_dark_and_prints_on_white(page):
    ink, paper = colours(page)
    assert ink < 0.3 and paper > 0.9
    axes = page.locator("figure svg").first.locator(
        "[style*=currentColor], [fill=currentColor], [stroke=currentColor]"
    )
    assert axes.count() > 5  # words and axes of the plots follow the page
    page.emulate_media(color_scheme="dark")
    ink, paper = colours(page)
    assert ink > 0.7 and paper < 0.2
    page.emulate_media(media="print", color_scheme="dark")
    ink, paper = colours(page)
    assert ink < 0.1 and paper == 1.0
    assert (
        page.locator(".scroll").first.evaluate("element => getComputedStyle(element).overflowX")
        == "visible"
    )
    assert page.locator("details[open]").count() == 0
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    assert page.locator("details[open]").count() == 3  # paper cannot be clicked
