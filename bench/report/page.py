"""The page of a board: one offline HTML file of figures, a table that sorts and filters, and distilled images.

The page is whole without a network and readable without JavaScript. A policy in its head lets nothing run but its own
script and loads nothing. Every text from outside becomes printable characters and is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
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
PLAIN_HTML = re.compile(r'<wbr>|<a id="\w+"></a>|</?details>|<summary>.*</summary>')  # what boards have of it
DRAWN = 600_000  # characters of the figures on a page; others are links
MOST = 250  # rows of a page, which is to stay below 1.5 MB
CURVE = 40  # points of a training curve
GROUP = ["protocol", "protocol_version", "ipc", "student"]


COLUMNS = {  # heading → the attribute of a row that it shows and sorts by, the first direction, what it is, as text
    "n": ("n", "descending", "distilled sets done, of those planned", str),
    "Accuracy %": ("top1_mean", "descending", "mean ± standard deviation over distilled sets; bold: the best mean",
                   percent),
    "95 % interval": ("top1_low", "descending", "of the mean", percent),
    "Δ to best": ("delta_best", "descending", "paired difference to the best mean in points, with its 95 % interval",
                  percent),
    "Label bytes": ("label_bytes", "ascending", "everything beyond images and hard labels that a student needs; ●: no "
                                                "row of the table is as accurate with fewer", size),
    "Public": ("public_bytes", "ascending", "frozen backbones, counted apart", size),
    "Images": ("image_bytes", "ascending", "the encoded images", size),
    "Share": ("label_share", "ascending", "label bytes over fp16 labels of every view", ratio),
    "LRS": ("lrs", "descending", "DD-Ranking's label robust score", "{:.3f}".format),
    "ARS": ("ars", "descending", "DD-Ranking's augmentation robust score", "{:.3f}".format),
    "Seconds": ("seconds_total", "ascending", "wall time of all cells behind a student", seconds),
}  # fmt: skip
SCORES = ("LRS", "ARS")  # shown where there are any


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
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    engine.filters |= {"percent": percent, "size": size, "seconds": seconds, "plural": plural, "heading": heading,
                       "curve": _curve, "lines": _lines}  # fmt: skip
    whole, rows = len(rows), _shown(rows)
    cells = frame[frame["cell"].isin(rows["cells"].explode())]
    head, *sections = text.split("\n## ")
    protocols = [place for place, one in enumerate(sections) if one.startswith("Protocol ")] or [len(sections)]
    summary, notes = sections[: protocols[0]], sections[protocols[-1] + 1 :]
    head, *shown = _rendered([head, *(f"## {one}" for one in (*summary, *notes))])
    made = engine.get_template("page.html.j2").render(
        head=head, summary=shown[: len(summary)], notes=shown[len(summary) :], rows=rows, whole=whole, grids=grids,
        figures=list(zip(figures, accumulate(len(one.svg) for one in figures), strict=True)), drawn=DRAWN,
        columns={head: one for head, one in COLUMNS.items() if head not in SCORES or rows[one[0]].notna().any()},
        tables=list(_tables(rows)), known={one.cell: one for one in records(cells)}, blank=NONE, command=command,
        differing=_differing(frame["environment"]), stages=[name for name in rows if name.startswith("seconds_")],
        titles=dict(zip(rows["method"], rows["method_title"], strict=True)), style=style, script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
               "base-uri 'none'; form-action 'none'",
    )  # fmt: skip
    write_atomically(path, made)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of a page: those on a front, then the best of each method, then the second best."""
    own = rows.groupby([*GROUP, "method"], dropna=False)["top1_mean"]
    places = own.rank(ascending=False, method="first", na_option="bottom").mask(rows["on_front"].fillna(False), 0)
    return rows.loc[places.sort_values(kind="stable").index[:MOST].sort_values()]


def _rendered(texts: Sequence[str]) -> list[Markup]:
    """Render sections of a board as HTML; HTML inside them shows as text. Cells of tables know their headings."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    kept = ["".join(char if char.isprintable() or char in "\n\u00a0" else " " for char in PLAIN_HTML.sub("", text))
            for text in texts]  # fmt: skip
    links: dict[str, Any] = {}
    reader.parse("\n".join(kept), links)  # finds what links stand for
    found = []
    for section in kept:
        tokens = reader.parse(section, links)
        heads: list[str] = []
        for token, inside in pairwise(tokens):
            if token.type == "thead_open":
                heads = []
            elif token.type == "th_open":
                heads.append("".join(part.content for part in inside.children or ()))
            elif token.type == "tr_open":
                columns = iter(heads)
            elif token.type == "td_open":
                token.attrSet("data-h", next(columns))
        found.append(Markup(reader.renderer.render(tokens, reader.options, links)))
    return found


def _printable(value: Any) -> Any:
    """Reduce what the template shows and is no markup already to one line of printable characters."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return plain(value)
    return value


def _lines(text: str) -> Markup:
    """Keep the lines of a text and their indents."""
    return Markup("\n").join(line[: len(line) - len(line.lstrip(" "))] + plain(line) for line in text.split("\n"))


def _tables(rows: pd.DataFrame) -> Iterator[tuple[str, str, list[tuple[Any, str, list[Any]]]]]:
    """Split rows by protocol: its name, metric, and groups of IPC, student and rows, best mean first.

    Rows know the ends of their group's scale (in tenths), and how far along it their mean and interval are, in percent.
    """
    group = [rows[name] for name in GROUP]
    low, high = (rows[f"top1_{end}"].fillna(rows["top1_mean"]).groupby(group, dropna=False) for end in ("low", "high"))
    first = np.floor(low.transform("min").clip(upper=0.95) * 10).div(10).fillna(0.0)
    last = np.ceil(high.transform("max") * 10).div(10).fillna(1.0)
    places = {f"at_{end}": ((rows[f"top1_{end}"] - first) / (last - first)).clip(0, 1) * 100
              for end in ("low", "mean", "high")}  # fmt: skip
    rows = rows.assign(scale_low=first, scale_high=last, **places)
    rows = rows.sort_values(["top1_mean", "method", "labels"], ascending=[False, True, True])
    for (protocol, version), table in rows.groupby(GROUP[:2]):
        groups = [(None if pd.isna(ipc) else ipc, student, records(own))
                  for (ipc, student), own in table.groupby(GROUP[2:], dropna=False)]  # fmt: skip
        yield f"{protocol}, version {version}", table["metric"].iloc[0], groups


def _curve(row: Any, known: Mapping[str, Any]) -> Markup:
    """Draw the training curves of a row: a line per student, epochs to the right, 0 to 100 % upwards."""
    curves = [known[cell].curve for cell in row.cells if cell in known and known[cell].curve]
    last = max((one[-1][0] for one in curves), default=1)
    thin = [one[::-1][:: -(-len(one) // CURVE)][::-1] for one in curves]  # the last epoch is always among them
    points = [" ".join(f"{100 * epoch / last:.4g},{30 - 30 * top1:.3g}" for epoch, top1 in one) for one in thin]
    return Markup("").join(Markup('<polyline points="{}"/>').format(one) for one in points)


def _differing(environments: pd.Series) -> list[str]:
    """Name the facts that environments do not agree in."""
    known = pd.DataFrame([one for one in environments if one]).fillna(NONE)
    return sorted(name for name in known if known[name].nunique() > 1)
