"""A request's answer as files: a page, CSV and JSON, a figure; and whether those on disk still hold."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import to_jsonable_python

from bench.errors import UserError
from bench.files import write_atomically
from bench.format import csv_text, escape, markdown_table, slug
from bench.storage_calculator.papers import claims
from bench.storage_calculator.request import StorageRequest
from bench.storage_calculator.sizes import Size, author_files, sizes
from bench.storage_calculator.tables import Table, tables

if TYPE_CHECKING:
    from bench.report.figures.charts import Chart

REQUEST = ".request.json"  # ends the name of the file that keeps the request


def render_csv(request: StorageRequest) -> str:
    """Render a line per method, label choice and IPC; empty where a size is not known."""
    return csv_text([field.name for field in fields(Size)], map(astuple, sizes(request)))


def render_json(request: StorageRequest) -> str:
    """Render the request, its sizes, the authors' own files, and what papers print."""
    facts = {"request": request, "sizes": sizes(request), "author_files": author_files(request), "printed": claims()}
    return json.dumps(to_jsonable_python(facts), indent=1, ensure_ascii=False) + "\n"


def render_page(request: StorageRequest) -> str:
    """Render the tables as Markdown, below a heading and the figure."""
    first, *others = tables(request)
    stem = file_stem(request)
    parts = [f"# {escape(first.title)}", _table(first), f"![Label bytes against images per class]({stem}.svg)"]
    for one in others:
        parts += [f"## {escape(one.title)}", _table(one)]
    parts.append(f"Made by `{command(request)}`; {stem}.csv has it to the byte.")
    return "\n\n".join(parts) + "\n"


def _table(one: Table) -> str:
    columns = {escape(header) or " ": side for header, side in one.columns.items()}
    rows = [dict(zip(columns, map(escape, row), strict=True)) for row in one.rows]
    return f"{escape(one.about)}\n\n{markdown_table(rows, [head for head, side in columns.items() if side == 'left'])}"


def command(request: StorageRequest) -> str:
    """Return the command line that asks for the same."""
    words = ["python -m bench storage"]
    for field, value in request.model_dump(exclude_defaults=True).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words.append(f"--{field.replace('_', '-')} {shlex.quote(text)}")
    return " ".join(words)


def file_stem(request: StorageRequest) -> str:
    """Return the common part of its files' names."""
    return slug(request.dataset or request.info().name)


def _texts(request: StorageRequest) -> dict[str, str]:
    stem = file_stem(request)
    kept = request.model_dump_json(exclude_defaults=True, indent=1) + "\n"
    return {f"{stem}.md": render_page(request), f"{stem}.csv": render_csv(request), f"{stem}{REQUEST}": kept}


def write(request: StorageRequest, out: Path) -> list[Path]:
    """Write all files of a request into ``out``, each atomically; return their paths.

    Raises:
        UserError: they can't be written, or as :func:`bench.storage_calculator.sizes.sizes`.
    """
    from bench.report.figures import draw

    texts, figure = _texts(request), out / f"{file_stem(request)}.svg"
    try:
        for file, text in texts.items():
            write_atomically(out / file, text)
        draw(_figure(request), figure, png=True)
    except OSError as error:
        raise UserError(f"{out} can't be written to: {error.strerror}; choose another --out") from None
    return [*(out / file for file in texts), figure, figure.with_suffix(".png")]


def _figure(request: StorageRequest) -> Chart:
    """Label bytes against IPC."""
    import pandas as pd

    from bench.report.figures.charts import storage

    frame = pd.DataFrame(map(asdict, sizes(request))).rename(columns={"label_bytes": "bytes"})
    return storage(frame, frame.groupby("ipc")["image_bytes"].first())


def drift(out: Path) -> list[str]:
    """Name every file in ``out`` that differs from what the request kept there gives, one line each."""
    from bench.report.figures import kept

    found = []
    for path in sorted(out.glob(f"*{REQUEST}")):
        try:
            request = StorageRequest.model_validate_json(path.read_text(encoding="utf-8"))
            texts = _texts(request)
        except (OSError, ValueError, UserError) as error:
            found.append(f"{path}: can't be read: {str(error).splitlines()[0]}")
            continue
        wrong = [file for file, text in texts.items() if _read(out / file) != text]
        figure = f"{file_stem(request)}.svg"
        wrong += [] if kept(_figure(request), out / figure) else [figure]
        again = f"the formulas give another; {command(request)} --out {shlex.quote(str(out))} writes it"
        found += [f"{out / file}: {again}" for file in wrong]
    return found


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""
