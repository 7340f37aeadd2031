"""The template of a page, what it calls, and the safety of what it shows: every text that comes from outside becomes
one line of printable characters and is escaped."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report_legacy import curves, metrics, wording
from bench.report_legacy.board import Row
from bench.report_legacy.entries import Entry
from bench.report_legacy.winners import ALL

FOLDER = Path(__file__).parent / "templates"
NAMED, LONGEST = 20, 200  # of what could not be read: how many are shown, and characters of each
TICK = 0.1  # the scales of intervals begin and end at its multiples

Scale = tuple[float, float]


@cache
def template() -> Template:
    """The template of a page."""
    engine = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters |= {
        "percent": wording.percent,
        "size": wording.size,
        "round_size": wording.round_size,
        "exact": _exact,
        "ratio": wording.ratio,
        "seconds": wording.seconds,
        "score": wording.score,
        "p_value": wording.p_value,
        "plural": wording.plural,
        "name": method_name,
        "metric": metrics.metric,
        "heading": metrics.heading,
        "meaning": metrics.meaning,
        "whisker": _whisker,
        "curve": curves.curve_lines,
        "last_epoch": curves.last_epoch,
        "value": _value,
        "parents": _parents,
        "lines": _lines,
    }
    view_box = f"0 0 {curves.WIDTH} {curves.HEIGHT}"
    engine.globals |= {"NONE": wording.NONE, "ALL": ALL, "NAMED": NAMED, "LONGEST": LONGEST, "CURVE": view_box}
    return engine.get_template("page.html.j2")


def _shown(value: Any) -> Any:
    """Whatever the template shows that isn't markup already."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return wording.plain(value)
    return value


@cache
def style() -> Markup:
    """The style sheet."""
    return Markup((FOLDER / "style.css").read_text(encoding="utf-8"))


@cache
def script() -> Markup:
    """The script."""
    return Markup((FOLDER / "page.js").read_text(encoding="utf-8"))


@cache
def policy() -> str:
    """The content security policy: nothing is loaded, nothing is sent, and no script runs but :func:`script`."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    parts = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def from_markdown(text: str) -> Markup:
    """Markdown as HTML; HTML inside it shows as text, but for the ``<wbr>`` of boards, for which pages have no need."""
    text = text.replace("<wbr>", "")
    kept = "".join(char if char.isprintable() or char in ("\n", wording.JOINED) else " " for char in text)
    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(kept))


def figure(name: str, svg: str) -> tuple[Markup, Markup]:
    """The title of a figure, as its SVG says it (else its name), and the SVG without what stands around it."""
    element = svg[svg.index("<svg") : svg.rindex("</svg>") + len("</svg>")]
    found = re.match(r"<svg\b[^>]*?\saria-label=\"([^\"<>]*)\"", element)
    return Markup(found[1]) if found else Markup.escape(wording.plain(name)), Markup(element)


def method_name(row: Row, titles: Mapping[str, str]) -> str:
    """The title of a row's method, and its settings in square brackets."""
    settings = f"[{row.settings}]" if row.settings else ""
    return titles.get(row.base, row.base) + settings


def scale_of(rows: tuple[Row, ...]) -> Scale:
    """Where the drawn intervals of rows begin and end: fractions, multiples of :data:`TICK`, at least one apart."""
    means = [(row.top1.mean, row.top1.ci95 or 0.0) for row in rows if row.top1.mean is not None]
    least = max(0.0, min((mean - half for mean, half in means), default=0.0))
    most = min(1.0, max((mean + half for mean, half in means), default=1.0))
    # rounded first: 0.3 / 0.1 is a little less than 3
    low = min(math.floor(round(least / TICK, 6)), round(1 / TICK) - 1)
    return low * TICK, max(math.ceil(round(most / TICK, 6)), low + 1) * TICK


def _whisker(row: Row, scale: Scale) -> dict[str, str] | None:
    """Mean and interval in percent of the width of the scale; the interval ends where the scale ends."""
    if row.top1.mean is None:
        return None
    half = row.top1.ci95 or 0.0
    places = {"mean": row.top1.mean, "low": row.top1.mean - half, "high": row.top1.mean + half}
    low, high = scale
    return {name: f"{100 * min(1.0, max(0.0, (at - low) / (high - low))):.4g}" for name, at in places.items()}


def _parents(entry: Entry) -> list[tuple[str, str]]:
    return sorted(entry.parents.items())


def _value(value: float | None) -> str:
    """What the script sorts by; empty where nothing was measured. Nine digits hide what builds differ in."""
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _exact(count: int | None) -> str:
    return "not measured" if count is None else f"{count:,} bytes"


def _lines(text: str) -> Markup:
    """A text of several lines with their indents; otherwise it is made safe like any other."""
    found = [(line[: len(line) - len(line.lstrip(" "))], wording.plain(line)) for line in text.split("\n")]
    return Markup("\n").join(indent + line for indent, line in found)
