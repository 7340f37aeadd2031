"""Records as one pandas DataFrame, one row per trained student: the base of every table, figure and comparison.

Its columns are the fields of :class:`bench.store.entries.Entry`, with NA, NaN or empty where a record does not say, but
``seconds_<stage>`` and ``seconds_total`` for its seconds, and also

- ``suite`` (empty: none), ``base`` and ``settings`` (the parts of ``method``: ``hello`` and ``conv_rank=4``)
- ``public_bytes`` (of the frozen backbones), ``device`` (accelerator, or else CPU)
- ``source`` (the file or store), ``predictions`` (a safetensors file with the predicted class of every test image)

``frame.attrs["left_out"]`` names the records that could not be read, one string each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.format import slug
from bench.planning import manifest
from bench.report.collect import collect
from bench.report.rows import pool
from bench.store import predictions as predictions_
from bench.store.artifacts import Store
from bench.store.cell import STAGES
from bench.store.entries import SUFFIX, Entry, LeftOut, in_order, read_jsonl

SUITES = "suites"
COST = "cost"  # metric of records that have costs instead of an accuracy
_COUNTS = ("ipc", "protocol_version", "seed", "student_seed", "test_images", "image_bytes", "label_bytes",
           "public_bytes", "label_parameters", "full_label_bytes", "epochs", "images", "peak_memory")  # fmt: skip
_TEXT = ("cell", "dataset", "title", "method", "base", "settings", "labels", "asked", "via", "student", "protocol",
         "state", "reason", "metric", "recipe", "data_digest", "protocol_digest", "device", "suite", "source",
         "predictions")  # fmt: skip


@dataclass(frozen=True)
class Board:
    """Records of one board: ``stem`` is its file name without ending, ``files`` that holds predictions of cells."""

    stem: str
    suite: str = ""
    entries: Sequence[Entry] = ()
    left_out: Sequence[LeftOut] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Records as a DataFrame, see the module."""
        damaged = sorted({text for entry in self.entries for text in entry.damaged})
        left_out = [*(f"{self.stem}{SUFFIX}: {one}" for one in self.left_out), *damaged]
        return to_frame(in_order(self.entries), self.suite, self.source, self.files, left_out)

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """Records pooled; None where there are none, or they are of costs."""
        return pool(self.frame) if (self.frame["metric"] != COST).any() else None


def load_results(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Load records from stores, ``*.records.jsonl`` files and folders of boards (their suites included).

    Returns:
        One row per trained student, in the order of the board; see the module for its columns.

    Raises:
        UserError: nothing is there.
    """
    frames, left_out = [], []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if (path / "cells").is_dir():
            found = from_store(Store(path))
            left_out += manifest.unreadable(Store(path))
        elif not (found := present(path)):
            raise UserError(f"there are no records in {path}; expected a store, a *{SUFFIX} file or a folder of boards")
        frames += [one.frame for one in found]
        left_out += [line for one in found for line in one.frame.attrs["left_out"]]
    frame = pd.concat([one for one in frames if len(one)] or [to_frame([])], ignore_index=True)
    key = ["suite", "dataset", "cell", "data_digest", "state", "top1"]
    frame = frame.drop_duplicates(key, ignore_index=True)  # of a store and of its boards
    twice = frame[frame["state"] == "done"].groupby(["suite", "cell"])["top1"].nunique()
    left_out += [f"{cell}: {count} records with other accuracies" for (_, cell), count in twice.items() if count > 1]
    frame.attrs["left_out"] = left_out
    return frame


def present(path: Path) -> list[Board]:
    """Boards of a folder and its suites, or of one file, from their records."""
    files = sorted([*path.glob(f"*{SUFFIX}"), *path.glob(f"{SUITES}/*/*{SUFFIX}")]) if path.is_dir() else [path]
    return [read(file) for file in files if file.exists()]


def read(file: Path) -> Board:
    """Board of a ``*.records.jsonl`` file, with the predictions next to it; empty where there is none."""
    stem, suite = file.name.removesuffix(SUFFIX), file.parent.name if file.parent.parent.name == SUITES else ""
    if not file.exists():
        return Board(stem, suite)
    loaded, kept = read_jsonl(file), file.with_name(file.name.removesuffix(SUFFIX) + predictions_.SUFFIX)
    files = dict.fromkeys(predictions_.predicted_cells(kept), kept)
    return Board(stem, suite, loaded.entries, loaded.left_out, files, str(file))


def from_store(store: Store) -> list[Board]:
    """Boards of everything in a store, by suite and name."""
    entries: dict[tuple[str, str], list[Entry]] = {}
    for suite, own in collect(store).items():
        for entry in own:
            if stem := _stem(entry):
                entries.setdefault((suite, stem), []).append(entry)
    boards = []
    for (suite, stem), own in sorted(entries.items()):
        files = {entry.cell: store.folder(entry.cell) / predictions_.FILE for entry in own}
        files = {cell: file for cell, file in files.items() if file.is_file()}
        boards.append(Board(stem, suite, own, (), files, str(store.root)))
    return boards


def _stem(entry: Entry) -> str:
    """Name of the board of an entry: of costs with the device; empty for a cost that is not measured."""
    if entry.metric != COST:
        return slug(entry.dataset)
    device = re.sub(r"[^a-z0-9]+", "-", (_device(entry) or "unknown device").lower()).strip("-")
    return f"{slug(entry.dataset)}.{device}" if entry.state == "done" else ""


def _device(entry: Entry) -> str:
    """Accelerator, or else the CPU; empty where neither was recorded."""
    return entry.environment.get("accelerator") or entry.environment.get("cpu") or ""


def to_frame(
    entries: Sequence[Entry],
    suite: str = "",
    source: str = "",
    predictions: Mapping[str, Path] | None = None,
    left_out: Iterable[str] = (),
) -> pd.DataFrame:
    """DataFrame of entries, in their order; ``predictions`` by cell."""
    frame = pd.DataFrame([vars(entry) for entry in entries], columns=list(Entry.model_fields), dtype="object")
    took = pd.DataFrame(frame.pop("seconds").tolist(), index=frame.index, dtype="float64")
    took = took.reindex(columns=list(dict.fromkeys([*STAGES, *sorted(took)])))
    public = [tuple(asdict(one) for one in entry.public) for entry in entries]
    frame = frame.drop(columns="schema_version").assign(
        base=[entry.base for entry in entries],
        settings=[entry.method.partition("[")[2].removesuffix("]") for entry in entries],
        student_seed=frame["student_seed"].fillna(frame["seed"]),
        reason=frame["reason"].fillna(""),
        cost=[entry.cost and entry.cost.model_dump() for entry in entries],
        public=public,
        public_bytes=pd.Series([sum(one["bytes"] for one in own) for own in public], dtype="Int64").where(
            frame["label_bytes"].notna()
        ),
        device=[_device(entry) for entry in entries],
        suite=suite,
        source=source,
        predictions=[str((predictions or {}).get(entry.cell, "")) for entry in entries],
        **took.add_prefix("seconds_"),
        seconds_total=took.sum(axis=1, min_count=1),
    )
    types = {"top1": "float64", "oracle_top1": "float64", "augmented": "bool"}
    frame = frame.astype(dict.fromkeys(_TEXT, "str") | dict.fromkeys(_COUNTS, "Int64") | types)
    frame.attrs["left_out"] = list(left_out)
    return frame
