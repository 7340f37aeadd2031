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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.store import predictions as predictions_
from bench.store.artifacts import Store
from bench.store.cell import STAGES
from bench.store.entries import SUFFIX, Entry, in_order, read_jsonl

_TEXT = ("cell", "dataset", "title", "method", "base", "settings", "labels", "asked", "via", "student", "protocol",
         "state", "reason", "metric", "recipe", "data_digest", "protocol_digest", "device", "suite", "source",
         "predictions")  # fmt: skip
_COUNTS = ("ipc", "protocol_version", "seed", "student_seed", "test_images", "image_bytes", "label_bytes",
           "public_bytes", "label_parameters", "full_label_bytes", "epochs", "images", "peak_memory")  # fmt: skip


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
    """Load one ``*.records.jsonl`` file, with the predictions beside it."""
    loaded = read_jsonl(file)
    predictions = file.with_name(file.name.removesuffix(SUFFIX) + predictions_.SUFFIX)
    files = dict.fromkeys(predictions_.predicted_cells(predictions), predictions)
    suite = file.parent.name if file.parent.parent.name == "suites" else ""
    return to_frame(loaded.entries, suite, str(file), files, [f"{file.name}: {one}" for one in loaded.left_out])


def from_store(store: Store) -> list[pd.DataFrame]:
    """Load a store, a DataFrame per suite."""
    from bench.planning import manifest
    from bench.report.collect import collect

    frames = []
    for suite, entries in sorted(collect(store).items()):
        files = {entry.cell: store.folder(entry.cell) / predictions_.FILE for entry in entries}
        files = {cell: file for cell, file in files.items() if file.is_file()}
        damaged = sorted({text for entry in entries for text in entry.damaged})
        frames.append(to_frame(in_order(entries), suite, str(store.root), files, damaged))
    if wrong := manifest.unreadable(store):
        frames = frames or [to_frame([])]
        frames[0].attrs["left_out"] += wrong
    return frames


def to_frame(
    entries: Sequence[Entry],
    suite: str = "",
    source: str = "",
    predictions: Mapping[str, Path] | None = None,
    left_out: Iterable[str] = (),
) -> pd.DataFrame:
    """DataFrame of entries, in their order; ``predictions`` by cell."""
    frame = pd.DataFrame([vars(entry) for entry in entries], columns=list(Entry.model_fields), dtype="object")
    took = pd.DataFrame(frame.pop("seconds").tolist(), index=frame.index)
    stages = dict.fromkeys([*STAGES, *sorted(took)])
    files = predictions or {}
    frame = frame.assign(
        base=[entry.base for entry in entries],
        settings=[entry.method.partition("[")[2].removesuffix("]") for entry in entries],
        student_seed=frame["student_seed"].fillna(frame["seed"]),
        reason=frame["reason"].fillna(""),
        cost=[entry.cost and entry.cost.model_dump() for entry in entries],
        public=[tuple(asdict(one) for one in entry.public) for entry in entries],
        public_bytes=[
            None if entry.label_bytes is None else sum(one.bytes for one in entry.public) for entry in entries
        ],
        device=[device_of(entry.environment) for entry in entries],
        suite=suite,
        source=source,
        predictions=[str(files.get(entry.cell, "")) for entry in entries],
        **{f"seconds_{stage}": took.get(stage) for stage in stages},
        seconds_total=took.reindex(columns=sorted(took)).sum(axis=1, min_count=1),
    ).drop(columns="schema_version")
    numbers = ["top1", "oracle_top1", *(name for name in frame if name.startswith("seconds_"))]
    frame = frame.astype(
        dict.fromkeys(_TEXT, "str") | dict.fromkeys(_COUNTS, "Int64") | dict.fromkeys(numbers, "float64")
    ).astype({"augmented": "bool"})
    frame.attrs["left_out"] = list(left_out)
    return frame


def environment_facts(environments: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Every value of each fact, both sorted."""
    pairs = sorted({pair for one in environments for pair in one.items()})
    return {fact: [value for _, value in own] for fact, own in groupby(pairs, key=itemgetter(0))}


def device_of(environment: dict[str, str]) -> str:
    """Accelerator, or else the CPU; empty where neither was recorded."""
    return environment.get("accelerator") or environment.get("cpu") or ""
