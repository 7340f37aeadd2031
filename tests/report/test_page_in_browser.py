"""The page in a real browser: sorting, filtering, copying, themes, widths, and that nothing foreign runs or loads.

They belong to the campaign. Without Chromium they are skipped; with BENCH_REQUIRE_CHROMIUM=1 they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report.command import command
from bench.report.figures import draw_figures
from bench.report.rows import pool, records
from bench.store.entries import Entry
from tests.report.board_data import EVIL, SVG, entry, figure, frame_of, grid, grids, page, three
from tests.report.chromium import Page, browser, find_chromium

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        find_chromium() is None and os.environ.get("BENCH_REQUIRE_CHROMIUM") != "1",
        reason="there is no Chromium here: pages are not tried in a browser (apt-get install chromium)",
    ),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the page of a small board."""
    place = tmp_path_factory.mktemp("board")
    page(place, board(), [figure(), figure("More")], grids(), published="## †\n\n† 76.0")
    return place


@pytest.fixture
def shown(tab: Page, folder: Path) -> Iterator[Page]:
    """The page, freshly loaded in light; the browser must have nothing to complain of."""
    yield from _show(tab, folder)


def board() -> list[Entry]:
    """Nine rows, another student has one; full data close both tables."""
    return [*grid(), *three((0.8, 0.8, 0.8), student="resnet18")]


def _show(tab: Page, folder: Path) -> Iterator[Page]:
    path = folder / "digits.html"
    tab.events.clear()
    tab.resize(1280)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    tab.open(path.as_uri())
    tab.run("localStorage.clear()")
    yield tab
    tab.run("1")  # so that everything that was told has come
    assert tab.told("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled") == []
    asked = {event["request"]["url"] for event in tab.told("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} <= {path.as_uri()}


def methods(tab: Page, ipc: str) -> list[str]:
    """The visible rows of a size, from top to bottom, the first student's group first, without full data."""
    found: list[str] = tab.run(
        f"""[...document.querySelectorAll('.board tr.row[data-ipc="{ipc}"]:not([data-method=full_data])')]
            .filter((row) => row.offsetParent !== null).map((row) => row.cells[0].textContent.trim())"""
    )
    return found


def press_head(tab: Page, name: str) -> None:
    tab.run(f"[...document.querySelectorAll('.board thead button')].find((b) => b.textContent === '{name}').click()")


def aria(tab: Page) -> list[Any]:
    found: list[Any] = tab.run(
        "[...document.querySelectorAll('.board > thead th[aria-sort]')]"
        ".map((head) => [head.textContent, head.getAttribute('aria-sort')])"
    )
    return found


def choose(tab: Page, name: str, value: str) -> None:
    tab.run(
        f"""(() => {{ const field = document.querySelector('#filter [name={name}]'); field.value = {value!r};
            field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"""
    )


# -- sorting


def test_a_head_sorts_each_group_both_ways_and_back(shown: Page) -> None:
    assert methods(shown, "1") == ["RDED", "HeLlO", "Random real"]
    press_head(shown, "Label bytes")
    assert aria(shown) == [["Label bytes", "ascending"]]
    assert methods(shown, "1") == ["Random real", "HeLlO", "RDED"]
    press_head(shown, "Label bytes")
    assert aria(shown) == [["Label bytes", "descending"]]
    assert methods(shown, "1") == ["RDED", "HeLlO", "Random real"]
    press_head(shown, "Method")
    assert aria(shown) == [["Method", "ascending"]]
    assert methods(shown, "1") == ["HeLlO", "Random real", "RDED"]
    press_head(shown, "Method")
    press_head(shown, "Method")
    assert aria(shown) == []
    assert methods(shown, "1") == ["RDED", "HeLlO", "Random real"]


def test_what_was_not_measured_stays_last(shown: Page) -> None:
    for _ in range(2):
        press_head(shown, "Top-1 %")
        last = "[...document.querySelectorAll('.board > tbody')][1].querySelectorAll('tr.row')[4].dataset.method"
        assert shown.run(last) == "sre2l"


def test_fold_outs_move_with_their_rows(shown: Page) -> None:
    press_head(shown, "Label bytes")
    pairs = shown.run(
        """[...document.querySelectorAll('.board tr.row')].map((row) =>
           [row.cells[0].textContent.trim(), row.nextElementSibling.querySelector('summary').textContent])"""
    )
    names = {"RDED": "rded", "HeLlO": "hello", "SRe2L": "sre2l", "Random real": "random_real"}
    names["Full data (ref.)"] = "full_data"
    assert all(names[name] in summary for name, summary in pairs)


def test_the_keyboard_sorts(shown: Page) -> None:
    shown.run(
        "[...document.querySelectorAll('.board thead button')].find((b) => b.textContent === 'Label bytes').focus()"
    )
    shown.press("Enter", 13)
    assert aria(shown) == [["Label bytes", "ascending"]]
    shown.run("document.querySelector('.board tr.more summary').focus()")
    shown.press("Enter", 13)
    assert shown.run("document.querySelector('.board tr.more details').open") is True


# -- filtering


def test_filters_hide_rows_and_say_how_many_are_left(shown: Page) -> None:
    status = "document.getElementById('status').textContent"
    assert shown.run(status) == "10 rows"
    choose(shown, "ipc", "1")
    assert shown.run(status) == "4 of 10 rows"
    assert methods(shown, "10") == []
    choose(shown, "method", "rded")
    assert methods(shown, "1") == ["RDED"]
    choose(shown, "method", "")
    choose(shown, "labels", "hard")
    assert methods(shown, "1") == ["Random real"]
    shown.run("document.querySelector('#filter [type=reset]').click()")
    shown.wait(f"{status} === '10 rows'")
    choose(shown, "student", "resnet18")
    assert methods(shown, "10") == ["HeLlO"] and shown.run(status) == "1 of 10 rows"


def test_words_are_found_in_any_order_and_case(shown: Page) -> None:
    choose(shown, "text", "PROJ hello")
    assert methods(shown, "1") == ["HeLlO"]
    choose(shown, "text", "nothing like it")
    assert shown.run("[...document.querySelectorAll('.board')].every((table) => table.hidden)") is True
    assert shown.run("document.getElementById('status').textContent") == "0 of 10 rows"


def test_filtered_rows_take_their_fold_outs_with_them(shown: Page) -> None:
    shown.run("for (const fold of document.querySelectorAll('.board details')) fold.open = true")
    choose(shown, "method", "rded")
    seen = shown.run(
        "[...document.querySelectorAll('.board tr.more')].filter((row) => row.offsetParent !== null).length"
    )
    assert seen == 2


# -- copying

COMMAND = command(records(pool(frame_of(three((0.9, 0.91, 0.92), method="rded", labels="teacher", ipc=1)))))
PRESS = """(async () => {
  const button = document.querySelector('button.copy');
  button.click();
  while (button.textContent.startsWith('Copy ')) await new Promise((done) => setTimeout(done));
  return [window.copied, button.textContent.slice(0, 6), document.querySelectorAll('textarea').length];
})()"""


def test_a_button_copies_the_command(shown: Page) -> None:
    shown.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    assert shown.run(PRESS) == [COMMAND, "Copied", 0]


def test_where_copying_is_not_allowed_the_command_is_selected(shown: Page) -> None:
    shown.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    assert shown.run(PRESS)[1] == "Select"
    assert shown.run("getSelection().toString()").split() == COMMAND.split()


# -- looks


def test_the_theme_follows_the_system_until_somebody_chooses(shown: Page) -> None:
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = shown.run(paper)
    shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = shown.run(paper)
    assert light != dark
    shown.run("document.getElementById('theme').click()")
    assert shown.run(paper) == light
    shown.run("document.getElementById('theme').click()")
    assert shown.run(paper) == dark


CONTRAST = """(() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
  };
  const ratios = [...document.querySelectorAll('body *')]
    .filter((node) => !node.closest('svg, #tip, script, [hidden], .said'))
    .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .map((node) => [light(getComputedStyle(node).color), light(paper(node))].sort((a, b) => b - a))
    .map(([lighter, darker]) => (lighter + 0.05) / (darker + 0.05));
  return Math.min(...ratios);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_legible(shown: Page, scheme: str) -> None:
    shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    shown.run("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert shown.run(CONTRAST) >= 4.5  # WCAG 2.2, success criterion 1.4.3


def test_everything_that_is_operated_has_a_name(shown: Page) -> None:
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "combobox", "searchbox", "img", "DisclosureTriangle"}
    nameless = [n for n in nodes if n.get("role", {}).get("value") in roles and not n.get("name", {}).get("value")]
    assert nameless == []
    assert sum(n.get("role", {}).get("value") == "columnheader" for n in nodes) >= 12


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [1280, 1100, 1000, 768, 360, 320])
def test_no_width_scrolls_sideways(shown: Page, width: int) -> None:
    shown.resize(width)
    assert shown.run(OVERFLOW) == 0
    shown.run("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert shown.run(OVERFLOW) == 0


LINES = """[...document.querySelectorAll('caption, h3, .group th, .row > [data-h=Method]')].map((node) => {
  const range = document.createRange();
  range.selectNodeContents(node);
  return [range.getBoundingClientRect().height / parseFloat(getComputedStyle(node).fontSize), node.textContent.trim()];
})"""


@pytest.mark.parametrize("width", [1280, 400])
def test_captions_of_several_protocols_are_lines_and_no_columns_of_letters(
    tab: Page, tmp_path: Path, width: int
) -> None:
    page(tmp_path, [*board(), *three((0.5, 0.5, 0.5), protocol="a-protocol-of-another-name[small,epochs=60]")])
    for shown in _show(tab, tmp_path):
        shown.resize(width)
        heights = dict(map(reversed, shown.run(LINES)))
        assert sum(text.startswith("Protocol ") for text in heights) >= 2  # the captions
        assert all(height < 5 for height in heights.values()), heights  # in lines: two of 1.5


def test_figures_take_the_colour_of_the_theme(tab: Page, tmp_path: Path) -> None:
    frame = frame_of(grid())
    page(tmp_path, grid(), draw_figures(pool(frame), frame, tmp_path)[:2])
    ink = "getComputedStyle(document.querySelector('.plot text')).fill"
    for shown in _show(tab, tmp_path):
        colours = [shown.run(ink)]
        shown.run("document.getElementById('theme').click()")
        assert colours == ["rgb(28, 30, 33)"] and shown.run(ink) == "rgb(228, 230, 232)"


def test_paper_shows_every_row_and_no_controls(shown: Page) -> None:
    shown.call("Emulation.setEmulatedMedia", media="print")
    assert shown.run("[...document.querySelectorAll('tr.row')].every((row) => row.offsetParent !== null)") is True
    assert shown.run("document.getElementById('filter').offsetParent") is None
    shown.call("Emulation.setEmulatedMedia", media="")


def test_without_a_script_all_rows_are_there(tab: Page, folder: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open((folder / "digits.html").as_uri())
        assert tab.call("Page.captureSnapshot")["data"].count('tr class=3D"row"') == 10
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        names = [n.get("name", {}).get("value") for n in nodes if n.get("role", {}).get("value") == "rowheader"]
        assert names.count("RDED") >= 2
        assert not [n for n in nodes if n.get("role", {}).get("value") in {"searchbox", "combobox", "button"}]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


# -- hostile text


def test_no_name_can_break_the_page_or_run(tab: Page, tmp_path: Path) -> None:
    long = "method" * 2000
    names = dict.fromkeys(("method", "labels", "title", "dataset", "protocol", "student"), EVIL)
    entries = [entry(**names, cell=EVIL, environment={EVIL: EVIL}, parents={EVIL: EVIL})]
    entries += [entry(**names, seed=1, cell="b", state="failed", reason=EVIL)]
    hebrew = "\u05e9\u05dc\u05d5\u05dd (a) ± 1"
    entries += three((0.5, 0.5, 0.5), method=long, labels=long, student=long, dataset=EVIL)
    entries += three((0.5, 0.5, 0.5), method=hebrew, labels=hebrew, protocol=EVIL, student=EVIL, dataset=EVIL)
    pictures = grids(methods=(EVIL, long), classes=(EVIL, long))
    page(tmp_path, entries, [figure(EVIL)], pictures, published=f"## P\n\n{EVIL}")
    for shown in _show(tab, tmp_path):
        assert shown.run("typeof owned") == "undefined"
        assert shown.run("document.scripts.length") == 1
        assert shown.run("document.querySelectorAll('[onerror], iframe, object').length") == 0
        assert shown.run("document.querySelectorAll('img').length") == 1
        assert shown.run("document.querySelector('h1').textContent").startswith('"><script>owned=1</script>')
        choose(shown, "method", shown.run("document.querySelector('tr.row').dataset.method"))
        assert shown.run("[...document.querySelectorAll('tr.row')].filter((row) => !row.hidden).length") == 1
        choose(shown, "method", "")
        for width in (1280, 360):
            shown.resize(width)
            shown.run("for (const fold of document.querySelectorAll('details')) fold.open = true")
            assert shown.run(OVERFLOW) == 0


def test_a_script_that_got_in_would_not_run(tab: Page, tmp_path: Path) -> None:
    """The policy is the second wall: even markup that nobody escaped stays dead."""
    svg = SVG.replace("<circle", '<script>owned=1</script><circle onclick="owned=2"')
    page(tmp_path, board(), [figure(svg=svg)])
    path = tmp_path / "digits.html"
    tab.open(path.as_uri())
    tab.run("document.querySelector('.plot circle').dispatchEvent(new Event('click'))")
    assert tab.run("typeof owned") == "undefined"
    assert tab.run("document.getElementById('status').textContent") == "10 rows"  # its own script ran
