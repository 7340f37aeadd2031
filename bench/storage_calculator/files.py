"""The answer as files: a page for people, CSV and JSON for programs, a figure; and whether those on disk still hold."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.pipe_table import render_table
from bench.report_legacy.plots.seal import sealed
from bench.report_legacy.stems import file_stem
from bench.report_legacy.wording import escape
from bench.storage_calculator.asked import Asked
from bench.storage_calculator.claims import claims
from bench.storage_calculator.figure import figure
from bench.storage_calculator.tables import Table, answer
from bench.storage_calculator.weigh import Line, formats, weigh
from bench.store.artifacts import write_atomically

ASKED = ".asked.json"  # ends the name of the file that keeps the question
PNG = b"\x89PNG\r\n\x1a\n"  # what a PNG begins with
COLUMNS = (
    "method", "labels", "ipc", "images", "epochs", "batch_size", "protocol", "image_bytes", "label_bytes",
    "full_label_bytes", "label_ratio", "model_numbers", "public_parameters",
)  # fmt: skip


def _facts(line: Line) -> dict[str, Any]:
    own = dataclasses.asdict(line) | {"label_ratio": line.ratio, "model_numbers": line.numbers}
    return {name: own[name] for name in COLUMNS}


def render_csv(asked: Asked) -> str:
    """A line a method, choice of labels and IPC; empty where nothing is known."""
    return csv_text(COLUMNS, [tuple(_facts(line).values()) for line in weigh(asked)])


def render_json(asked: Asked) -> str:
    """All of it: what was asked, the lines, the authors' own files, what papers print."""
    readings = [
        {
            "source": claim.source,
            "what": claim.what,
            "printed": claim.printed,
            "readings": [dataclasses.asdict(one) for one in claim.readings],
        }
        for claim in claims()
    ]
    facts = {
        "asked": asked.model_dump(mode="json"),
        "lines": [_facts(line) for line in weigh(asked)],
        "files_of_authors": [dataclasses.asdict(one) for one in formats(asked)],
        "printed": readings,
    }
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def render_page(asked: Asked) -> str:
    """The tables as Markdown, below a heading and the figure."""
    first, *others = answer(asked)
    stem = name(asked)
    parts = [f"# {escape(first.title)}", _table(first), f"![Label bytes against images per class]({stem}.svg)"]
    for one in others:
        parts += [f"## {escape(one.title)}", _table(one)]
    parts.append(f"Made by `{command(asked)}`; {stem}.csv has it to the byte.")
    return "\n\n".join(parts) + "\n"


def _table(one: Table) -> str:
    columns = {escape(header) or " ": side for header, side in one.columns.items()}
    rows = [dict(zip(columns, map(escape, row), strict=True)) for row in one.rows]
    return f"{escape(one.about)}\n\n{render_table(columns, rows)}"


def command(asked: Asked) -> str:
    """What asks the same on the command line."""
    words = ["python -m bench storage"]
    for field, value in asked.model_dump(exclude_defaults=True).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words.append(f"--{field.replace('_', '-')} {shlex.quote(text)}")
    return " ".join(words)


def name(asked: Asked) -> str:
    """What its files are called."""
    return file_stem(asked.dataset or asked.info().name)


def _texts(asked: Asked) -> dict[str, str]:
    stem = name(asked)
    question = asked.model_dump_json(exclude_defaults=True, indent=1) + "\n"
    return {f"{stem}.md": render_page(asked), f"{stem}.csv": render_csv(asked), f"{stem}{ASKED}": question}


def write(asked: Asked, out: Path) -> list[Path]:
    """Write all files of an answer into ``out``, each atomically; their paths. A figure that still shows the same is
    left as it is.

    Raises:
        UserError: they can't be written, or as :func:`bench.storage_calculator.weigh.weigh`.
    """
    files = {file: text.encode() for file, text in _texts(asked).items()}
    plot = figure(asked, name(asked))
    if _stale(out, plot.name, plot.facts):
        files[f"{plot.name}.svg"], files[f"{plot.name}.png"] = plot.draw()
    try:
        for file, content in files.items():
            write_atomically(out / file, content)
    except OSError as error:
        raise UserError(f"{out} can't be written to: {error.strerror}; choose another --out") from None
    return [out / file for file in files]


def drift(out: Path) -> list[str]:
    """One line for every file of an answer in ``out`` that is not what its question gives; empty where all hold. The
    questions are those kept there beside the pages."""
    found = []
    for path in sorted(out.glob(f"*{ASKED}")):
        try:
            asked = Asked.model_validate_json(path.read_text(encoding="utf-8"))
            texts = _texts(asked)
        except (OSError, ValueError, UserError) as error:
            found.append(f"{path}: can't be read: {str(error).splitlines()[0]}")
            continue
        plot = figure(asked, name(asked))
        wrong = [file for file, text in texts.items() if _content(out / file) != text.encode()]
        wrong += _stale(out, plot.name, plot.facts)
        again = f"the formulas give another; {command(asked)} --out {shlex.quote(str(out))} writes it"
        found += [f"{out / file}: {again}" for file in wrong]
    return found


def _stale(out: Path, stem: str, facts: str) -> list[str]:
    """The files of a figure that are missing, or show something else."""
    svg, png = _content(out / f"{stem}.svg"), _content(out / f"{stem}.png")
    wrong = [f"{stem}.svg"] if svg is None or sealed(svg) != facts else []
    return wrong + ([f"{stem}.png"] if png is None or not png.startswith(PNG) else [])


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
