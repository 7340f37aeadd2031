"""Records as one pandas DataFrame, one row per trained student: the base of every table, figure and comparison.

Columns (``NA``, NaN or empty where a record does not say):

- place: ``cell``, ``suite`` (empty: none), ``dataset``, ``title`` (of the data set), ``method``, ``base`` and
  ``settings`` (the two parts of ``method``: ``hello`` and ``conv_rank=4``), ``labels``, ``asked``, ``via``, ``ipc``
  (Int64, NA: full data), ``student``, ``protocol``, ``protocol_version``, ``seed`` (of the distilled set),
  ``student_seed``
- outcome: ``state`` (done, failed, missing), ``reason``, ``metric``, ``top1`` (last epoch) and ``oracle_top1`` (best
  epoch on the test set) as fractions, ``test_images``, ``curve`` (tuples of epoch and top-1), ``steps`` (tuples of
  classes seen and top-1), ``cost`` (dict), ``epochs``, ``images``
- bytes: ``image_bytes``, ``label_bytes``, ``public_bytes``, ``public`` (tuple of dicts: name, sha256, bytes),
  ``label_parameters``, ``full_label_bytes`` (fp16 labels of every view)
- cost: ``seconds_<stage>`` for each stage, ``seconds_total``, ``peak_memory`` (bytes)
- provenance: ``environment`` (dict), ``device`` (accelerator, or else CPU), ``parents`` (dict of role and cell),
  ``changed`` (dict: what was asked for beyond the names), ``recipe``, ``augmented``, ``data_digest``,
  ``protocol_digest``, ``plugin_digests`` (dict), ``damaged`` (tuple), ``source`` (the file or store), ``predictions``
  (a safetensors file with the predicted class of every test image; empty: none)

``frame.attrs["left_out"]`` names the records that could not be read, one string each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.store import predictions as predictions_
from bench.store.artifacts import Store
from bench.store.cell import STAGES
from bench.store.entries import SUFFIX, Entry, in_order, read_jsonl

_TEXT = ("cell", "dataset", "title", "method", "labels", "asked", "via", "student", "protocol", "state", "metric",
         "recipe", "data_digest", "protocol_digest")  # fmt: skip
_COUNTS = ("ipc", "protocol_version", "seed", "test_images", "image_bytes", "label_bytes", "label_parameters",
           "full_label_bytes", "epochs", "images", "peak_memory")  # fmt: skip
_OBJECTS = ("curve", "steps", "environment", "parents", "changed", "plugin_digests", "damaged")


def load_results(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Load records from stores, ``*.records.jsonl`` files and folders of boards (their suites included).

    Returns:
        One row per trained student, in the order of the board; see the module for its columns.

    Raises:
        UserError: nothing is there.
    """
    frames = [one for path in ([paths] if isinstance(paths, str | Path) else paths) for one in _load(Path(path))]
    if not frames:
        raise UserError(f"nothing to load; name a store, a *{SUFFIX} file or a folder of boards")
    frame = pd.concat([one for one in frames if len(one)] or frames[:1], ignore_index=True)
    frame.attrs["left_out"] = [line for one in frames for line in one.attrs["left_out"]]
    return frame


def _load(path: Path) -> list[pd.DataFrame]:
    if (path / "cells").is_dir():
        return from_store(Store(path))
    files = sorted([*path.glob(f"*{SUFFIX}"), *path.glob(f"suites/*/*{SUFFIX}")]) if path.is_dir() else [path]
    if not files or not path.exists():
        raise UserError(f"there are no records in {path}; expected a store, a *{SUFFIX} file or a folder of boards")
    return [from_file(file) for file in files]


def from_file(file: Path) -> pd.DataFrame:
    """The records of one ``*.records.jsonl`` file, with the predictions beside it."""
    loaded = read_jsonl(file)
    suite = file.parent.name if file.parent.parent.name == "suites" else ""
    frame = to_frame(loaded.entries, suite=suite, source=str(file))
    predictions = file.with_name(file.name.removesuffix(SUFFIX) + predictions_.SUFFIX)
    known = predictions_.predicted_cells(predictions)
    frame["predictions"] = [str(predictions) if cell in known else "" for cell in frame["cell"]]
    frame.attrs["left_out"] = [f"{file.name}: {one}" for one in loaded.left_out]
    return frame


def from_store(store: Store) -> list[pd.DataFrame]:
    """The records of a store, a DataFrame per suite."""
    from bench.planning import manifest
    from bench.report.collect import collect

    frames = []
    for suite, entries in sorted(collect(store).items()):
        frame = to_frame(in_order(entries), suite=suite, source=str(store.root))
        files = [store.folder(cell) / predictions_.FILE for cell in frame["cell"]]
        frame["predictions"] = [str(file) if file.is_file() else "" for file in files]
        frame.attrs["left_out"] = sorted({text for entry in entries for text in entry.damaged})
        frames.append(frame)
    if wrong := manifest.unreadable(store):
        frames = frames or [to_frame([])]
        frames[0].attrs["left_out"] += wrong
    return frames


def to_frame(entries: Sequence[Entry], suite: str = "", source: str = "") -> pd.DataFrame:
    """The DataFrame of entries, in their order."""
    columns: dict[str, Any] = {}
    for name in _TEXT:
        columns[name] = pd.array([getattr(entry, name) for entry in entries], dtype="str")
    for name in _COUNTS:
        columns[name] = pd.array([getattr(entry, name) for entry in entries], dtype="Int64")
    for name in ("top1", "oracle_top1"):
        columns[name] = pd.array([getattr(entry, name) for entry in entries], dtype="float64")
    for name in _OBJECTS:
        columns[name] = pd.Series([getattr(entry, name) for entry in entries], dtype="object")
    columns |= {
        "base": pd.array([entry.base for entry in entries], dtype="str"),
        "settings": pd.array([entry.method.partition("[")[2].removesuffix("]") for entry in entries], dtype="str"),
        "student_seed": pd.array([entry.seeds[1] for entry in entries], dtype="Int64"),
        "reason": pd.array([entry.reason or "" for entry in entries], dtype="str"),
        "cost": pd.Series([entry.cost and entry.cost.model_dump() for entry in entries], dtype="object"),
        "public": pd.Series([tuple(asdict(one) for one in entry.public) for entry in entries], dtype="object"),
        "public_bytes": pd.array(
            [None if entry.label_bytes is None else sum(one.bytes for one in entry.public) for entry in entries],
            dtype="Int64",
        ),
        "augmented": pd.array([entry.augmented for entry in entries], dtype="bool"),
        "device": pd.array([device_of(entry.environment) for entry in entries], dtype="str"),
        "suite": pd.array([suite] * len(entries), dtype="str"),
        "source": pd.array([source] * len(entries), dtype="str"),
        "predictions": pd.array([""] * len(entries), dtype="str"),
    }
    for stage in dict.fromkeys([*STAGES, *sorted({stage for entry in entries for stage in entry.seconds})]):
        columns[f"seconds_{stage}"] = pd.array([entry.seconds.get(stage) for entry in entries], dtype="float64")
    columns["seconds_total"] = pd.array(
        [sum(entry.seconds[stage] for stage in sorted(entry.seconds)) if entry.seconds else None for entry in entries],
        dtype="float64",
    )
    frame = pd.DataFrame(columns)
    frame.attrs["left_out"] = []
    return frame


def device_of(environment: dict[str, str]) -> str:
    """The accelerator, or else the CPU; empty where neither was recorded."""
    return environment.get("accelerator") or environment.get("cpu") or ""
