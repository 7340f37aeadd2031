"""Compare the files of published boards with what their records give."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import takewhile, zip_longest
from pathlib import Path

from bench.planning import suites
from bench.report.figures import draw_figures
from bench.report.image_grid import SUFFIX as GRIDS
from bench.report.papers import published
from bench.report.publish import SUITES, Board, folder, texts

SHOWN = 60  # characters of a differing line


def check(out: Path, boards: Iterable[Board]) -> list[str]:
    """Name every file in ``out`` that is not what the records give, or that belongs to no board.

    Pages and PNGs are not compared.
    """
    found, known = [], set()
    for one in boards:
        where = folder(out, one.suite)
        with tempfile.TemporaryDirectory() as place:
            figures = [] if one.rows is None else draw_figures(one.rows, one.frame, Path(place))
        files = texts(one, figures) | {f"{figure.name}.svg": figure.svg.encode() for figure in figures}
        known |= {where / name for name in (*files, f"{one.stem}.html", f"{one.stem}{GRIDS}")}
        known |= {where / f"{figure.name}.png" for figure in figures}
        for name, content in files.items():
            if line := _difference(where / name, content):
                found.append(line)
    stray = [path for path in out.rglob("*") if path.is_file() and path not in known and not _elsewhere(path, out)]
    return [*found, *(f"{path}: belongs to no board; remove it" for path in sorted(stray))]


def _elsewhere(path: Path, out: Path) -> bool:
    """Tell whether a file is written by something else: published numbers, and the answers of ``bench storage``."""
    inside = path.relative_to(out)
    hidden = any(part.startswith(".") for part in inside.parts)
    return hidden or str(inside) == published.FILE.name or inside.parts[:2] == (SUITES, suites.STORAGE)


def _difference(path: Path, wanted: bytes) -> str:
    """Tell where a file is not as wanted; empty where it is."""
    if not path.is_file():
        return f"{path}: missing"
    content = path.read_bytes()
    if content == wanted:
        return ""
    if path.suffix not in (".md", ".csv", ".jsonl"):
        return f"{path}: the records give another"
    lines = zip_longest(content.decode(errors="replace").split("\n"), wanted.decode().split("\n"))
    number, (old, new) = next((at, pair) for at, pair in enumerate(lines, 1) if pair[0] != pair[1])
    if old is None or new is None:
        return f"{path}:{number}: {'ends too early' if old is None else 'goes on too long'}"
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, same - SHOWN // 2)
    return f"{path}:{number}: has {old[start : start + SHOWN]!r}, the records give {new[start : start + SHOWN]!r}"
