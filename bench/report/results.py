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
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.harness.identity import STAGES
from bench.report.entries import SUFFIX, Entry, read_jsonl
from bench.report.predictions import predicted_cells

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
    frames = [_load(Path(path)) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    left_out = [line for frame in frames for line in frame.attrs["left_out"]]
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    if not filled:
        raise UserError("nothing to load; name a store, a *.records.jsonl file or a folder of boards")
    frame = filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
    frame.attrs["left_out"] = left_out
    return frame


def _load(path: Path) -> pd.DataFrame:
    if (path / "cells").is_dir():
        from bench.report.collect import collect

        return collect(path)
    files = [path] if not path.is_dir() else sorted([*path.glob(f"*{SUFFIX}"), *path.glob(f"suites/*/*{SUFFIX}")])
    if not files or not path.exists():
        raise UserError(f"there are no records in {path}; expected a store, a *{SUFFIX} file or a folder of boards")
    frames = []
    for file in files:
        loaded = read_jsonl(file)
        suite = file.parent.name if file.parent.parent.name == "suites" else ""
        frame = to_frame(loaded.entries, suite=suite, source=str(file))
        predictions = file.with_name(file.name.removesuffix(SUFFIX) + ".predictions.safetensors")
        known = predicted_cells(predictions)
        frame["predictions"] = [str(predictions) if cell in known else "" for cell in frame["cell"]]
        frame.attrs["left_out"] = [f"{file}: {one}" for one in loaded.left_out]
        frames.append(frame)
    frame = pd.concat([one for one in frames if len(one)] or frames[:1], ignore_index=True)
    frame.attrs["left_out"] = [line for one in frames for line in one.attrs["left_out"]]
    return frame


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
        "public": pd.Series([tuple(one.model_dump() for one in entry.public) for entry in entries], dtype="object"),
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
