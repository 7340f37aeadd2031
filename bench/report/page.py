"""The page of a board: one offline HTML file of figures, a table that sorts and filters, and distilled images.

The page is whole without a network and readable without JavaScript. A policy in its head lets nothing run but its own
script and loads nothing. Every text from outside becomes printable characters and is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.files import write_atomically
from bench.format import NONE, percent, plural, seconds, size
from bench.report.board import sections, tables
from bench.report.columns import COLUMNS, METRICS, RARE, Marks, heading
from bench.report.command import command
from bench.report.figures import Figure
from bench.report.image_grid import ImageGrids
from bench.report.rows import environment_facts, records

FOLDER = Path(__file__).parent / "templates"
PLAIN_HTML = re.compile(r'<wbr>|<a id="\w+"></a>|</?details>|<summary>.*</summary>')  # what boards have of it
DRAWN = 600_000  # characters of the figures on a page; others are links
MOST = 200  # rows of a page, which is to stay below 1.5 MB
CURVE = 40  # points of a training curve
READER = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")  # HTML in it shows as text


def write_page(
    text: str,
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    figures: Sequence[Figure],
    path: Path,
    grids: ImageGrids | None = None,
) -> None:
    """Write the page of a board: the same bytes for the same arguments.

    Args:
        text: the board as Markdown (:mod:`bench.report.board`); a table that sorts stands for its protocols' sections.
        frame: its records; rows: pooled from them.
    """
    style, script = (Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = _printable(PLAIN_HTML.sub("", text))
    links: dict[str, Any] = {}
    READER.parse(text, links)  # finds what links stand for
    head, *blocks = (one for one in text.split("\n## ") if not one.startswith("Figures\n"))  # which stand inline here
    protocols = [place for place, one in enumerate(blocks) if one.startswith("Protocol ")] or [len(blocks)]
    summary, notes = ([Markup(READER.render(f"## {one}", links)) for one in own]
                      for own in (blocks[: protocols[0]], blocks[protocols[-1] + 1 :]))  # fmt: skip
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    engine.filters |= {"percent": percent, "size": size, "seconds": seconds, "curve": _curve}
    whole, listed = len(rows), list(tables(rows.assign(section=sections(rows))))
    marks, rows = Marks(row for _, _, table in listed for row in table), _shown(rows)
    cells = {one.cell: one for one in records(frame[frame["cell"].isin(rows["cells"].explode())])}
    kept = [(name, title, [row for row in table if row.Index in rows.index]) for name, title, table in listed]
    kept = [one for one in kept if one[2]]
    parts = [(name, [(title, own, _bars(own)) for _, title, own in group])
             for name, group in groupby(kept, key=itemgetter(0))]  # fmt: skip
    inline = cache(lambda text: Markup(READER.renderInline(PLAIN_HTML.sub("", text), links)))
    used = {head: column for head, column in COLUMNS.items() if head not in RARE or rows[column.by].notna().any()}
    made = engine.get_template("page.html.j2").render(
        head=Markup(READER.render(head, links)), summary=summary, notes=notes, whole=whole, grids=grids,
        figures=list(zip(figures, accumulate(len(one.svg) for one in figures), strict=True)), drawn=DRAWN,
        columns={head: column for head, column in used.items() if column.paged},
        more={head: column for head, column in used.items() if not column.paged}, blank=NONE, rows=rows,
        sections=parts, known=cells, command=command, heading=heading, about=METRICS, plural=plural,
        cell=lambda column, row: inline(column.text(row, marks)),
        differing=[fact for fact, own in environment_facts(frame["environment"]).items() if len(own) > 1],
        stages=[name for name in rows if name.startswith("seconds_")],
        titles=dict(zip(rows["method"], rows["method_title"], strict=True)), style=style, script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
               "base-uri 'none'; form-action 'none'",
    )  # fmt: skip
    write_atomically(path, made)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of a page: those on a front, then the best of each method, then the second best."""
    own = rows.groupby(["protocol", "protocol_version", "ipc", "student", "method"], dropna=False)["top1_mean"]
    places = own.rank(ascending=False, method="first", na_option="bottom").mask(rows["on_front"].fillna(False), 0)
    return rows.loc[places.sort_values(kind="stable").index[:MOST].sort_values()]


def _printable(value: Any) -> Any:
    """Keep printable characters and ends of lines of what is no markup already."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(char if char.isprintable() or char in "\n\u00a0" else " " for char in value)


def _bars(table: Sequence[Any]) -> dict[str, Any]:
    """Scale of a table from ``low`` to ``high``, in tenths; ``at``: its intervals and means along it, in percent."""
    known = {row.Index: [row.top1_mean if one is None else one for one in (row.top1_low, row.top1_mean, row.top1_high)]
             for row in table if row.n}  # fmt: skip
    low = math.floor(10 * min((one[0] for one in known.values()), default=0)) / 10
    high = math.ceil(10 * max((one[2] for one in known.values()), default=1)) / 10
    low = min(low, 0.9)
    high = max(high, low + 0.1)
    at = {index: [100 * (one - low) / (high - low) for one in own] for index, own in known.items()}
    return {"low": low, "high": high, "at": at}


def _curve(row: Any, known: Mapping[str, Any]) -> Markup:
    """Draw the training curves of a row: a line per student, epochs to the right, 0 to 100 % upwards."""
    curves = [known[cell].curve for cell in row.cells if cell in known and known[cell].curve]
    last = max((one[-1][0] for one in curves), default=1)
    thin = [one[::-1][:: -(-len(one) // CURVE)][::-1] for one in curves]  # the last epoch is always among them
    points = [" ".join(f"{100 * epoch / last:.4g},{30 - 30 * top1:.3g}" for epoch, top1 in one) for one in thin]
    return Markup("").join(Markup('<polyline points="{}"/>').format(one) for one in points)
