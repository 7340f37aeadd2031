"""Write the boards of a folder, or say where its files differ from what the entries give.

Per data set: ``<dataset>.md`` for people, ``<dataset>.csv`` for programs and ``<dataset>.records.jsonl`` with
the entries, from which the other two can be made again without the store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby, takewhile, zip_longest
from pathlib import Path

from bench.errors import UserError
from bench.harness.report.board import make_rows, render_csv
from bench.harness.report.entries import Entry, in_order, render_jsonl
from bench.harness.report.markdown import render_markdown
from bench.harness.store import write_atomically

SHOWN = 60  # characters of a differing line


def render(
    entries: Iterable[Entry], titles: Mapping[str, str] | None = None, baselines: Collection[str] = ()
) -> dict[str, str]:
    """File name -> text of every board file; the arguments are those of :func:`render_markdown`.

    Raises:
        UserError: two different entries claim the same seed of the same row.
    """
    files = {}
    for dataset, group in groupby(in_order(entries), key=lambda entry: entry.dataset):
        own = list(group)
        rows = make_rows(own)
        stem = file_stem(dataset)
        title = min(entry.title for entry in own)
        files[f"{stem}.md"] = render_markdown(title, rows, titles, baselines)
        files[f"{stem}.csv"] = render_csv(rows)
        files[f"{stem}.records.jsonl"] = render_jsonl(own)
    return files


def file_stem(dataset: str) -> str:
    """The name of a data set as a file name; a digest keeps changed names (``folder:/a/b``) apart."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-.")
    if stem == dataset:
        return stem
    return f"{stem}-{hashlib.sha256(dataset.encode()).hexdigest()[:8]}".lstrip("-")


def publish(
    entries: Iterable[Entry],
    out: Path,
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
) -> list[Path]:
    """Write the boards into ``out``, each file atomically, and return their paths.

    Raises:
        UserError: ``out`` can't be written to, or two entries contradict each other.
    """
    paths = []
    for name, text in render(entries, titles, baselines).items():
        path = out / name
        try:
            write_atomically(path, text)
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}; choose another --out") from None
        paths.append(path)
    return paths


def drift(
    entries: Iterable[Entry],
    out: Path,
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
) -> list[str]:
    """One line for every file in ``out`` that is not what the entries give: its name and the first line that
    differs; empty where all is as it should be."""
    found = []
    for name, text in render(entries, titles, baselines).items():
        path = out / name
        try:
            present = path.read_bytes().decode("utf-8", errors="replace")
        except FileNotFoundError:
            found.append(f"{path}: missing")
            continue
        except OSError as error:
            found.append(f"{path}: can't be read: {error.strerror}")
            continue
        if present != text:
            found.append(f"{path}:{_first_difference(present, text)}")
    return found


def _first_difference(present: str, wanted: str) -> str:
    pairs = zip_longest(present.split("\n"), wanted.split("\n"))
    number, (old, new) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    if old is None or new is None:
        return f"{number}: {'ends too early' if old is None else 'goes on too long'}"
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, same - SHOWN // 2)
    return f"{number}: has {old[start : start + SHOWN]!r}, the records give {new[start : start + SHOWN]!r}"
