"""Records pooled into the rows of a board: one row per method and settings, labels, IPC, student and protocol.

A row pools only what is alike: the digests of data set, protocol and plug-ins agree as well, where they were recorded.
:func:`pool` returns a DataFrame with the columns of a row's place as in :mod:`bench.report.results`, and

- ``method_title``, ``baseline`` (a method that is run for comparison, or full data), ``metric``
- ``n`` (distilled sets done), ``n_expected``, ``students`` (done), ``students_expected``, ``states``
- ``top1_mean``, ``top1_std``, ``top1_low``, ``top1_high`` (95 % interval), ``top1_std_sets``, ``top1_std_students``,
  ``oracle_mean``: fractions
- ``best`` (the best mean of its table: same protocol, IPC and student), ``delta_best``, ``delta_low``, ``delta_high``
  (difference to it, with its 95 % interval), ``p_best`` (corrected), ``worse`` (the difference is claimed),
  ``on_front`` (no row of the table is as accurate with fewer label bytes); not for full data
- ``image_bytes``, ``label_bytes``, ``label_parameters``, ``public_bytes``, ``full_label_bytes``: means; ``label_low``,
  ``label_high``: extremes of the label bytes; ``label_share``: of ``full_label_bytes``
- ``seconds_<stage>``, ``seconds_total``: means over the students done
- ``hlr``, ``ior``, ``lrs``, ``ars``: DD-Ranking's scores, see :mod:`bench.report.papers.dd_ranking`
- ``runs`` (seed → student seed → cell, those done), ``seeds`` and ``student_seeds`` (all), ``cells``, ``reasons`` (of
  failures: pairs of reason and cell), ``public``, ``sets`` and ``labellers`` (the parent cells), ``changed``, ``asked``
  (all choices), ``via``, ``differs`` (facts of the environment that differ within the row)
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.api import catalogue, registry
from bench.report.comparison import Accuracies, Runs, against_best, components, is_claimed, resample_images
from bench.report.papers.dd_ranking import add_scores
from bench.report.results import environment_facts
from bench.store.predictions import load_scores

TABLE = ["suite", "dataset", "protocol", "protocol_version", "protocol_digest", "data_digest", "ipc", "student"]
PLACE = [*TABLE, "method", "labels"]
FULL = "full_data"
TOP1 = "top-1"
_FIRST = ["title", "base", "settings", "via", "metric", "recipe", "augmented", "changed", "public"]
_BYTES = ["image_bytes", "label_bytes", "label_parameters", "public_bytes", "full_label_bytes"]
_POOLED = ["cell", "seed", "student_seed", "state", "top1", "oracle_top1", "parents", "environment", "reason", "asked"]
_COMPARED = ["top1_mean", "top1_std", "top1_low", "top1_high", "delta_best", "delta_low", "delta_high", "p_best"]
_FLAGS = ["best", "worse", "on_front"]
_STATES = ("done", "failed", "missing")


def pool(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a DataFrame of records, in the order of the board.

    ``attrs["left_out"]`` adds records that claim the same seed of the same row as another.
    """
    frame, twice = _numbered(frame)
    rows = frame.drop_duplicates("row").set_index("row")[[*PLACE, "plugins", *_FIRST]]
    groups, done = frame.groupby("row"), frame[frame["state"] == "done"].groupby("row")
    means = groups[_BYTES].mean()
    rows["label_share"] = (means["label_bytes"] / means["full_label_bytes"]).astype("float64")
    rows = rows.join(means.round().astype("Int64"))
    rows[["label_low", "label_high"]] = groups["label_bytes"].agg(["min", "max"])
    rows = rows.join(done[[name for name in frame if name.startswith("seconds_")]].mean())
    columns = {name: frame[name].tolist() for name in frame}
    pooled = [_pooled(columns, at) for at in groups.indices.values()]
    rows = rows.join(pd.DataFrame(pooled, index=rows.index, columns=list(_pooled(columns, np.array([], int)))))
    infos = {base: _info(base) for base in rows["base"].unique()}
    rows["method_title"] = [infos[base][0] for base in rows["base"]]
    rows["baseline"] = [infos[base][1] for base in rows["base"]]
    rows = rows.join(_compared(rows, frame))
    rows = add_scores(rows.reset_index(drop=True))
    rows.attrs["left_out"] = [*frame.attrs.get("left_out", []), *twice]
    return rows


def records(rows: pd.DataFrame) -> list[Any]:
    """Rows as tuples with named fields, None for what is not known; ``Index`` as in the DataFrame."""
    return list(rows.astype(object).where(rows.notna(), None).itertuples())


def _numbered(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Sort the records as the board does, each with the number of its ``row``; and those left out."""
    frame = frame.assign(
        plugins=[json.dumps(one, sort_keys=True) if one else None for one in frame["plugin_digests"]],
        asked_for=[json.dumps({**one, "dataset": ""}, sort_keys=True) for one in frame["changed"]],
    )
    place = [*PLACE, "asked_for"]
    # what was never computed belongs to the row of what was
    others = frame.groupby(place, dropna=False, sort=False)["plugins"].transform("first")
    frame["plugins"] = frame["plugins"].where(frame["state"] == "done", others).fillna("")
    frame = frame.sort_values([*place, "plugins", "seed", "student_seed", "state", "cell"], kind="stable")
    key = [*place, "plugins"]
    frame["row"] = frame.groupby(key, dropna=False, sort=False).ngroup()
    twice = frame.duplicated(["row", "seed", "student_seed"])
    named = [
        f"{one.cell}: another record of {one.method}, {one.labels} has seed {one.seed}"
        for one in frame[twice].itertuples()
    ]
    return frame[~twice], named


def _pooled(columns: Mapping[str, list[Any]], at: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Facts of a row beyond means."""
    own = {name: [columns[name][index] for index in at] for name in _POOLED}
    runs: dict[int, dict[int, str]] = {}
    top1: dict[int, list[float]] = {}
    oracle: dict[int, list[float]] = {}
    for cell, seed, student, state, value, best in zip(*list(own.values())[:6], strict=True):
        if state == "done" and value == value:
            runs.setdefault(seed, {})[student] = cell
            top1.setdefault(seed, []).append(value)
            oracle.setdefault(seed, []).append(best)
    states = Counter(own["state"])
    sets, students = components(list(top1.values())) if top1 else (np.nan, np.nan)
    done = [one for state, one in zip(own["state"], own["environment"], strict=True) if state == "done"]
    failures = zip(own["reason"], own["cell"], own["state"], strict=True)
    return {
        "n": len(runs),
        "n_expected": len(set(own["seed"])),
        "students": states["done"],
        "students_expected": len(at),
        "states": " ".join(f"{state}={states[state]}" for state in _STATES if states[state]),
        "oracle_mean": np.mean([np.mean(one) for one in oracle.values()]) if oracle else np.nan,
        "top1_std_sets": sets,
        "top1_std_students": students,
        "runs": runs,
        "seeds": sorted(set(own["seed"])),
        "student_seeds": sorted(set(own["student_seed"])),
        "cells": own["cell"],
        "asked": sorted(set(own["asked"]) - {""}),
        "reasons": [(reason or "no reason was given", cell) for reason, cell, state in failures if state == "failed"],
        "sets": frozenset(one["images"] for one in own["parents"] if "images" in one),
        "labellers": frozenset(one["labels"] for one in own["parents"] if "labels" in one),
        "differs": {fact: values for fact, values in environment_facts(done).items() if len(values) > 1},
    }


def _info(base: str) -> tuple[str, bool]:
    """Title of a method and whether it is a baseline."""
    if base == FULL:
        return "Full data", True
    if base.partition(":")[0] not in registry.method_names():
        return base, False
    info = registry.method(base).info
    return (info.title if ":" not in base else base), info.baseline


def _compared(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Intervals of the means, and how the rows of each table differ from its best."""
    gc.freeze()  # statsmodels collects garbage at every correction: slow beside thousands of records
    found: dict[int, dict[str, Any]] = {}
    for _, table in rows.groupby(TABLE, dropna=False, sort=False):
        numbers, known = table.index.tolist(), accuracies(table, frame)
        runs: list[Runs] = table["runs"].tolist()
        ranked = table["ipc"].notna().iloc[0]
        differences = against_best(runs, known) if ranked else [None] * len(runs)
        for number, own, delta in zip(numbers, runs, differences, strict=True):
            mean = known.mean(own)
            found[number] = {"top1_mean": mean.mean, "top1_std": mean.std, "top1_low": mean.low, "top1_high": mean.high}
            if delta is not None:
                found[number] |= {
                    "best": delta.best, "delta_best": delta.mean, "delta_low": delta.low, "delta_high": delta.high,
                    "p_best": delta.p, "worse": is_claimed(delta),
                }  # fmt: skip
        if ranked:
            on_front = pareto(table["label_bytes"].tolist(), [found[number]["top1_mean"] for number in numbers])
            for number, one in zip(numbers, on_front, strict=True):
                found[number]["on_front"] = one
    gc.unfreeze()
    compared = pd.DataFrame.from_dict(found, orient="index").reindex(index=rows.index, columns=[*_COMPARED, *_FLAGS])
    return compared.astype(dict.fromkeys(_COMPARED, "float64") | dict.fromkeys(_FLAGS, "boolean"))


def accuracies(rows: pd.DataFrame, frame: pd.DataFrame) -> Accuracies:
    """Accuracies of the cells of rows on one data set, for comparisons between them."""
    own = {cell for runs in rows["runs"] for students in runs.values() for cell in students.values()}
    used = frame[frame["cell"].isin(own)]
    top1 = dict(zip(used["cell"], used["top1"], strict=True))
    resampled: dict[str, Any] = {}
    predicted = used[used["predictions"] != ""]
    # a board's file holds many cells, a cell's own file one
    together = predicted.groupby("predictions")["cell"].agg(list).items()
    scores = {cell: one for file, cells in together for cell, one in load_scores(str(file), cells).items()
              if agrees(one, top1[cell])}  # fmt: skip
    for size in {len(one) for one in scores.values()}:
        cells = [cell for cell, one in scores.items() if len(one) == size]
        resampled |= dict(zip(cells, resample_images(np.stack([scores[cell] for cell in cells])), strict=True))
    if (rows["metric"] != TOP1).any():
        return Accuracies(top1, resampled)
    images = used["test_images"].max()
    return Accuracies(top1, resampled, known_test_images(rows["dataset"].iloc[0]) if pd.isna(images) else int(images))


def agrees(scores: np.ndarray[Any, Any], top1: float) -> bool:
    """Tell whether predictions are those behind a recorded accuracy."""
    return abs(float(scores.mean()) - top1) < 1e-6


def known_test_images(dataset: str) -> int | None:
    return catalogue.dataset(dataset).test_images if dataset in catalogue.names() else None


def pareto(sizes: list[Any], accuracies: list[float]) -> list[bool | None]:
    """Tell if no other row is at least as accurate with fewer bytes, or more accurate with as many; None: unknown."""
    order = sorted(
        (at for at, size in enumerate(sizes) if not pd.isna(size) and accuracies[at] == accuracies[at]),
        key=lambda at: (sizes[at], -accuracies[at]),
    )
    found: list[bool | None] = [None] * len(sizes)
    best: tuple[float, Any] = (-1.0, None)
    for at in order:
        found[at] = accuracies[at] > best[0] or (accuracies[at], sizes[at]) == best
        if found[at]:
            best = (accuracies[at], sizes[at])
    return found
