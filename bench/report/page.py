"""The page of one board: a single offline HTML file with its figures, a table that sorts and filters, distilled images
beside real ones, and where every number came from.

The page is whole without a network and readable without JavaScript. A policy in its head lets nothing run but its own
script and loads nothing. Every text from outside becomes printable characters and is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.format import NONE, percent, plain, plural, ratio, seconds, size
from bench.report.command import command
from bench.report.figures import Figure
from bench.report.image_grid import ImageGrids
from bench.report.notes import heading
from bench.report.rows import records
from bench.store.artifacts import write_atomically

FOLDER = Path(__file__).parent / "templates"
TITLE = re.compile(r"(?<=<h1>).*?(?=</h1>)", re.DOTALL)
LEAD = re.compile(r"(?<=<p><strong>).*?(?=</strong></p>)", re.DOTALL)
PLAIN_HTML = re.compile(r'<wbr>|<a id="\w+"></a>|</?details>|<summary>.*</summary>')  # what boards have of it
DRAWN = 600_000  # characters of the figures on a page; others are links
MOST = 250  # rows of a page, which is to stay below 1.5 MB
CURVE = 40  # points of a training curve
HEADS = {  # heading -> (first direction of sorting, what it is)
    "Method": ("", "who made the images; settings in square brackets differ from the method's own"),
    "Labels": ("", "what the student learned from"),
    "n": ("descending", "distilled sets done, of those planned"),
    "Accuracy %": ("descending", "mean ± standard deviation over distilled sets; bold: the best mean"),
    "95 % interval": ("descending", "of the mean"),
    "Δ to best": ("descending", "paired difference to the best mean in points, with its 95 % interval"),
    "Label bytes": ("ascending", "everything beyond images and hard labels that a student needs; ●: no row of the "
                                 "table is as accurate with fewer"),
    "Public": ("ascending", "frozen backbones, counted apart"),
    "Images": ("ascending", "the encoded images"),
    "Share": ("ascending", "label bytes over fp16 labels of every view"),
    "LRS": ("descending", "DD-Ranking's label robust score"),
    "ARS": ("descending", "DD-Ranking's augmentation robust score"),
    "Seconds": ("ascending", "wall time of all cells behind a student"),
}  # fmt: skip


class Cell(NamedTuple):
    """A cell of the table: what it shows, the number that sorts it, a longer text."""

    shown: str
    value: float | None = None
    hint: str = ""


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
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    engine.filters |= {"percent": percent, "size": size, "seconds": seconds, "plural": plural, "heading": heading,
                       "curve": _curve, "lines": _lines}  # fmt: skip
    whole, rows = len(rows), _shown(rows)
    cells = frame[frame["cell"].isin(rows["cells"].explode())]
    known = {one.cell: one for one in records(cells)}
    empty = [name for name in ("LRS", "ARS") if rows[name.lower()].isna().all()]
    agreed, differing = _facts(frame["environment"])
    head, *sections = text.split("\n## ")
    protocols = [place for place, one in enumerate(sections) if one.startswith("Protocol ")] or [len(sections)]
    summary, notes = sections[: protocols[0]], sections[protocols[-1] + 1 :]
    head, *shown = _rendered([head, *(f"## {one}" for one in (*summary, *notes))])
    made = engine.get_template("page.html.j2").render(
        title=Markup("".join(TITLE.findall(head))), dataset=frame["dataset"].iloc[0],
        lead=Markup("".join(LEAD.findall(head))),
        summary=shown[: len(summary)], notes=shown[len(summary) :], rows=rows, grids=grids,
        figures=list(zip(figures, accumulate(len(one.svg) for one in figures), strict=True)), drawn=DRAWN,
        whole=whole, heads={name: about for name, about in HEADS.items() if name not in empty},
        tables=list(_tables(rows)), cells=_cells, known=known, agreed=agreed, differing=differing, blank=NONE,
        commands={row.Index: command([row]) for row in records(rows)}, left_out=sorted(rows.attrs["left_out"]),
        states=frame["state"].value_counts().to_dict(), stages=[name for name in rows if name.startswith("seconds_")],
        titles=dict(zip(rows["method"], rows["method_title"], strict=True)), style=Markup(style), script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
               "base-uri 'none'; form-action 'none'",
    )  # fmt: skip
    write_atomically(path, made)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a page: of a large board those on a front, then the best of each method, then the second best."""
    own = rows.groupby(["protocol", "protocol_version", "ipc", "student", "method"], dropna=False)["top1_mean"]
    places = own.rank(ascending=False, method="first", na_option="bottom").mask(rows["on_front"].fillna(False), 0)
    return rows.loc[places.sort_values(kind="stable").index[:MOST].sort_values()]


def _rendered(texts: Sequence[str]) -> list[Markup]:
    """Sections of a board as HTML; HTML inside them shows as text. Cells of tables know their headings."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    kept = ["".join(char if char.isprintable() or char in "\n\u00a0" else " " for char in PLAIN_HTML.sub("", text))
            for text in texts]  # fmt: skip
    links: dict[str, Any] = {}
    reader.parse("\n".join(kept), links)  # finds what links stand for
    found = []
    for section in kept:
        tokens = reader.parse(section, links)
        heads: list[str] = []
        column = 0
        for token, inside in pairwise(tokens):
            if token.type in ("thead_open", "tr_open"):
                heads, column = ([] if token.type == "thead_open" else heads), 0
            elif token.type == "th_open":
                heads.append("".join(part.content for part in inside.children or ()))
            elif token.type == "td_open":
                token.attrSet("data-h", heads[column])
                column += 1
        found.append(Markup(reader.renderer.render(tokens, reader.options, links)))
    return found


def _printable(value: Any) -> Any:
    """One line of printable characters, of whatever the template shows that isn't markup already."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return plain(value)
    return value


def _lines(text: str) -> Markup:
    """A text of several lines with their indents."""
    return Markup("\n").join(line[: len(line) - len(line.lstrip(" "))] + plain(line) for line in text.split("\n"))


def _tables(rows: pd.DataFrame) -> Iterator[tuple[str, str, list[tuple[Any, ...]]]]:
    """Per protocol its name, metric and groups: IPC, student, rows (best mean first), and the ends of their scale."""
    for (protocol, version), table in rows.groupby(["protocol", "protocol_version"]):
        groups = []
        for (ipc, student), own in table.groupby(["ipc", "student"], dropna=False):
            low, high = own["top1_low"].fillna(own["top1_mean"]).min(), own["top1_high"].fillna(own["top1_mean"]).max()
            ends = (0.0, 1.0) if pd.isna(low) else (math.floor(min(low, 0.95) * 10) / 10, math.ceil(high * 10) / 10)
            ranked = own.sort_values(["top1_mean", "method", "labels"], ascending=[False, True, True])
            groups.append((None if pd.isna(ipc) else ipc, student, records(ranked), ends))
        yield f"{protocol}, version {version}", table["metric"].iloc[0], groups


def _cells(row: Any, ends: tuple[float, float]) -> dict[str, Cell]:
    """The cells of a row by heading, but for its names."""
    mean, low, high = row.top1_mean, row.top1_low, row.top1_high
    spread = "" if row.top1_std is None else Markup(' <span class="spread">± {}</span>').format(percent(row.top1_std))
    interval, delta, between = NONE, NONE, ""
    if low is not None:
        at = [100 * min(1.0, max(0.0, (one - ends[0]) / (ends[1] - ends[0]))) for one in (low, mean, high)]
        bar = Markup('<i class="bar" style="--l:{:.0f};--m:{:.0f};--h:{:.0f}"></i>').format(*at)
        interval = Markup("{}{}–{}").format(bar, percent(low), percent(high))
    if row.delta_best is not None and not row.best:
        delta = f"{100 * row.delta_best:.1f}"
        if row.delta_low is not None:
            between = f"95 % interval {100 * row.delta_low:.1f} to {100 * row.delta_high:.1f}"
    front = Markup('<span class="front">●<span class="said"> on the front</span></span>') if row.on_front else ""
    return {
        "n": Cell(f"{row.n}" if row.n == row.n_expected else f"{row.n}/{row.n_expected}", row.n),
        "Accuracy %": Cell(Markup("{}{}").format(percent(mean), spread), mean),
        "95 % interval": Cell(interval, low),
        "Δ to best": Cell(delta, row.delta_best, between),
        "Label bytes": Cell(
            Markup("{}{}").format(front, size(row.label_bytes)), row.label_bytes, _exact(row.label_bytes)
        ),
        "Public": Cell(size(row.public_bytes), row.public_bytes, _exact(row.public_bytes)),
        "Images": Cell(size(row.image_bytes), row.image_bytes, _exact(row.image_bytes)),
        "Share": Cell(ratio(row.label_share), row.label_share),
        "LRS": Cell(NONE if row.lrs is None else f"{row.lrs:.3f}", row.lrs),
        "ARS": Cell(NONE if row.ars is None else f"{row.ars:.3f}", row.ars),
        "Seconds": Cell(seconds(row.seconds_total), row.seconds_total),
    }


def _exact(count: int | None) -> str:
    return "not measured" if count is None else f"{count:,} bytes"


def _curve(row: Any, known: Mapping[str, Any]) -> Markup:
    """The training curves of a row: a line per student, epochs to the right, 0 to 100 % upwards."""
    curves = [known[cell].curve for cell in row.cells if cell in known and known[cell].curve]
    last = max((one[-1][0] for one in curves), default=1)
    thin = [one[::-1][:: -(-len(one) // CURVE)][::-1] for one in curves]  # the last epoch is always among them
    points = [" ".join(f"{100 * epoch / last:.4g},{30 - 30 * top1:.3g}" for epoch, top1 in one) for one in thin]
    return Markup("").join(Markup('<polyline points="{}"/>').format(one) for one in points)


def _facts(environments: pd.Series) -> tuple[dict[str, str], list[str]]:
    """What all environments agree in, and the names of what they don't."""
    known = [one for one in environments if one]
    values = {name: {one.get(name, NONE) for one in known} for name in sorted({name for one in known for name in one})}
    agreed = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    return agreed, [name for name in values if name not in agreed]
