"""Write the boards of a folder, or say where its files differ from what the entries give.

Per data set: ``<dataset>.md`` for people, ``<dataset>.csv`` for programs and ``<dataset>.records.jsonl`` with
the entries, from which the others can be made again without the store; figures in ``<dataset>/`` and the page
``<dataset>.html``. What has no accuracy has a board by device: see :mod:`~bench.report_legacy.efficiency_table`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby, takewhile, zip_longest
from pathlib import Path

from bench.errors import UserError
from bench.report_legacy import efficiency_table, illustrated, published_table, trends
from bench.report_legacy.board import make_rows
from bench.report_legacy.csv_table import render_csv
from bench.report_legacy.entries import Entry, LeftOut, in_order, render_jsonl
from bench.report_legacy.illustrated import boards, illustrate
from bench.report_legacy.markdown import render_markdown
from bench.report_legacy.scores import score
from bench.report_legacy.stems import file_stem
from bench.store.artifacts import write_atomically

SUFFIX = ".records.jsonl"
SHOWN = 60  # characters of a differing line


def render(
    entries: Iterable[Entry],
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    left_out: Mapping[str, Sequence[LeftOut]] | None = None,
    suite: str = "",
) -> dict[str, str]:
    """File name -> text of every board file; the arguments are those of :func:`render_markdown`, ``left_out`` by the
    stem of the file, and the suite whose boards they are.

    Raises:
        UserError: two different entries claim the same seed of the same row.
    """
    entries = list(entries)
    files = efficiency_table.render(entries, left_out, suite)
    ordinary = [entry for entry in entries if not efficiency_table.is_cost(entry)]
    for dataset, group in groupby(in_order(ordinary), key=lambda entry: entry.dataset):
        own = list(group)
        rows = make_rows(own)
        scores = score(rows)
        stem = file_stem(dataset)
        lost = (left_out or {}).get(stem, ())
        title = trends.titled(min(entry.title for entry in own), suite)
        printed, reported = published_table.render(dataset, rows), trends.of(suite, rows)
        files[f"{stem}.md"] = render_markdown(title, rows, scores, titles, baselines, lost, printed, reported)
        files[f"{stem}.csv"] = render_csv(rows, scores)
        files[f"{stem}{SUFFIX}"] = render_jsonl(own, lost)
    return files


def publish(
    entries: Iterable[Entry],
    out: Path,
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    left_out: Mapping[str, Sequence[LeftOut]] | None = None,
    suite: str = "",
) -> list[Path]:
    """Write the boards into ``out``, each file atomically, and return their paths.

    Raises:
        UserError: ``out`` can't be written to, or two entries contradict each other.
    """
    entries = list(entries)
    texts = render(entries, titles, baselines, left_out, suite)
    paths = [_write(out / name, text.encode()) for name, text in texts.items()]
    for board in boards(entries, titles, baselines, left_out, suite):
        paths += [_write(out / name, content) for name, content in illustrate(board, out).items()]
    return paths


def _write(path: Path, content: bytes) -> Path:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}; choose another --out") from None
    return path


def drift(
    entries: Iterable[Entry],
    out: Path,
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    left_out: Mapping[str, Sequence[LeftOut]] | None = None,
    suite: str = "",
) -> list[str]:
    """One line for every file in ``out`` that is not what the entries give: its name and the first line that
    differs; empty where all is as it should be."""
    entries, found = list(entries), []
    for name, text in render(entries, titles, baselines, left_out, suite).items():
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
    if not found:
        for board in boards(entries, titles, baselines, left_out, suite):
            found += [f"{out / name}: the records give another" for name in illustrated.drift(board, out)]
    return found


def _first_difference(present: str, wanted: str) -> str:
    pairs = zip_longest(present.split("\n"), wanted.split("\n"))
    number, (old, new) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    if old is None or new is None:
        return f"{number}: {'ends too early' if old is None else 'goes on too long'}"
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, same - SHOWN // 2)
    return f"{number}: has {old[start : start + SHOWN]!r}, the records give {new[start : start + SHOWN]!r}"
