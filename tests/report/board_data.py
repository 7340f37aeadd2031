"""Small boards that the tests of figures and pages share."""

from __future__ import annotations

import base64
import io
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from bench.report.board import render
from bench.report.figures import Figure
from bench.report.image_grid import ImageGrid, ImageGrids
from bench.report.page import write_page
from bench.report.results import to_frame
from bench.report.rows import pool
from bench.store.entries import Entry

BACKBONE = {"name": "icon-clip", "sha256": "3fa9" * 16, "bytes": 9_712_345}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50"><circle cx="20" cy="20" r="9"/></svg>'
EVIL = "\"><script>owned=1</script><img src=x onerror=owned=2>&amp;{{ 7*7 }}</style></title>'\u202e\u0000\n|`*"


def entry(**facts: Any) -> Entry:
    """A record; what is not given is as usual."""
    usual: dict[str, Any] = {"method": "hello", "labels": "projector", "ipc": 10, "protocol": "common", "seed": 0}
    usual |= {"dataset": "digits", "title": "Digits", "student": "convnet3", "protocol_version": 1, "state": "done"}
    if facts.get("state", "done") == "done":
        usual |= {
            "top1": 0.9,
            "oracle_top1": 0.92,
            "image_bytes": 2000,
            "label_bytes": 40_000,
            "full_label_bytes": 600_000,
        }
        usual |= {"seconds": {"teacher": 20.0, "evaluate": 5.5}, "peak_memory": 1 << 30, "epochs": 100, "images": 100}
        usual |= {"curve": ((50, 0.5), (100, 0.9)), "environment": {"device": "cpu", "commit": "abc123"}}
    usual |= facts
    place = [
        str("full" if usual[key] is None else usual[key])
        for key in ("method", "labels", "ipc", "student", "protocol", "seed")
    ]
    usual.setdefault("cell", "-".join(place))
    return Entry(**usual)


def three(top1: tuple[float, float, float], **facts: Any) -> list[Entry]:
    """A row of three distilled sets."""
    return [entry(seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]


def grid(students: tuple[str, ...] = ("convnet3",)) -> list[Entry]:
    """Three methods at two IPC, full data, and a failure."""
    entries = [entry(method="sre2l", seed=0, state="failed", reason="out of memory")]
    for student, ipc in product(students, (1, 10)):
        place: dict[str, Any] = {"ipc": ipc, "student": student}
        entries += three((0.7, 0.71, 0.72), public=(BACKBONE,), **place)
        entries += three((0.9, 0.91, 0.92), method="rded", labels="teacher", label_bytes=1_300_000, **place)
        entries += three((0.4, 0.61, 0.52), method="random_real", labels="hard", label_bytes=0, **place)
    for student in students:
        entries += three(
            (0.97, 0.98, 0.99), method="full_data", labels="hard", ipc=None, label_bytes=0, student=student
        )
    return entries


def frame_of(entries: list[Entry]) -> pd.DataFrame:
    """Records as a DataFrame."""
    return to_frame(entries)


def figure(title: str = "Cost and gain", svg: str = SVG) -> Figure:
    """A figure of one mark."""
    return Figure("digits/one", title, "One mark. Nothing else.", svg)


def png(width: int, height: int) -> str:
    """A black picture, base64."""
    made = io.BytesIO()
    Image.new("L", (width, height)).save(made, format="png")
    return base64.b64encode(made.getvalue()).decode()


def grids(methods: tuple[str, ...] = ("hello", "rded"), **facts: Any) -> ImageGrids:
    """One grid of two classes."""
    one = ImageGrid(methods=methods, seed=0, cell="rded-digits-ipc10-s0-1", distance=3.25, png=png(34, 20))
    usual: dict[str, Any] = {"dataset": "digits", "ipc": 10, "classes": ("zero", "one"), "of_classes": 10}
    return ImageGrids(**{**usual, "each": 1, "side": 16, "of_side": 16, "sheets": (one,), **facts})


def page(
    folder: Path,
    entries: list[Entry],
    figures: list[Figure] | None = None,
    pictures: ImageGrids | None = None,
    **texts: str,
) -> str:
    """The page of a board, written to ``folder``/digits.html."""
    frame = frame_of(entries)
    rows = pool(frame)
    rows.attrs["left_out"] = list(texts.pop("left_out", "").splitlines())
    path = folder / "digits.html"
    write_page(render(frame["title"].iloc[0], frame, rows, **texts), frame, rows, figures or [], path, pictures)
    return path.read_text(encoding="utf-8")
