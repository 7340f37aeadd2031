"""Records pooled into the rows of a board: one row per method and settings, labels, IPC, student and protocol.

A row pools only what is alike: the digests of data set and protocol, code and all settings of the plug-ins, and what
was asked for agree as well; what is not recorded is alike. :func:`pool` returns a DataFrame with the columns of a row's
place as in :mod:`bench.report.results`, and

- ``method_title``, ``baseline`` (a method that is run for comparison, or full data), ``metric``
- ``n`` (distilled sets done), ``n_expected``, ``students`` (done), ``students_expected``, ``states``
- ``top1_mean``, ``top1_std``, ``top1_low``, ``top1_high`` (95 % interval), ``top1_std_sets``, ``top1_std_students``,
  ``oracle_mean``: fractions
- ``best`` (the best mean of its table: same protocol, data, IPC and student), ``delta_best``, ``delta_low``,
  ``delta_high`` (difference to it, with its 95 % interval), ``p_best`` (corrected), ``worse`` (the difference is
  claimed), ``on_front`` (no row of the table is as accurate with fewer label bytes); not for full data
- ``image_bytes``, ``label_bytes``, ``label_parameters``, ``public_bytes``, ``full_label_bytes``: means; ``label_low``,
  ``label_high``: extremes of the label bytes; ``label_share``: of ``full_label_bytes``
- ``seconds_<stage>``, ``seconds_total``: means over the students done
- ``hlr``, ``ior``, ``lrs``, ``ars``: DD-Ranking's scores, see :mod:`bench.report.papers.dd_ranking`
- ``runs`` (seed → student seed → cell, those done), ``seeds`` and ``student_seeds`` (all), ``cells``, ``reasons`` (of
  failures: reason → cells), ``public``, ``sets`` and ``labellers`` (the parent cells), ``changed``, ``asked`` (all
  choices), ``via``, ``remarks`` (what differs within the row, and from rows of the same names)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from bench.api import catalogue, registry
from bench.format import listed, plain
from bench.report.comparison import Accuracies, against_best, components, is_claimed, resample_images
from bench.report.papers.dd_ranking import add_scores
from bench.store.cell import canonical
from bench.store.predictions import load_scores

TABLE = ["suite", "dataset", "protocol", "protocol_version", "protocol_digest", "data_digest", "ipc", "student"]
PLACE = [*TABLE, "method", "labels"]
FULL = "full_data"
TOP1 = "top-1"
UNKNOWN = "not recorded"
_FIRST = ["title", "base", "settings", "via", "metric", "recipe", "augmented", "changed", "public"]
_BYTES = ["image_bytes", "label_bytes", "label_parameters", "public_bytes", "full_label_bytes"]
_STATES = ("done", "failed", "missing")
_OVERLAP = {  # of Record.overlap
    "training": "of the test images are training images, too",
    "images": "of the synthetic images are test images",
    "repeated": "of the synthetic images are another of their set again",
}


def pool(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a DataFrame of records, in the order of the board.

    ``attrs["left_out"]`` adds records that claim the same seed of the same row as another.
    """
    frame, twice = _numbered(frame)
    rows = frame.drop_duplicates("row").set_index("row")[[*PLACE, *_FIRST]]
    groups, done = frame.groupby("row"), frame[frame["state"] == "done"].groupby("row")
    means = groups[_BYTES].mean()
    rows["label_share"] = (means["label_bytes"] / means["full_label_bytes"]).astype("float64")
    rows = rows.join(means.round().astype("Int64"))
    rows[["label_low", "label_high"]] = groups["label_bytes"].agg(["min", "max"])
    rows = rows.join(done[[name for name in frame if name.startswith("seconds_")]].mean())
    pooled = [_pooled(list(own)) for _, own in groupby(frame.itertuples(), key=lambda one: one.row)]
    rows = rows.join(pd.DataFrame(pooled, index=rows.index, columns=list(_pooled([]))))
    infos = {base: _info(base) for base in rows["base"].unique()}
    rows["method_title"] = [infos[base][0] for base in rows["base"]]
    rows["baseline"] = [infos[base][1] for base in rows["base"]]
    names = [name for name in PLACE if not name.endswith("_digest")]
    for _, twins in rows[rows.duplicated(names, keep=False)].groupby(names, dropna=False):
        for at, remark in zip(twins.index, _apart(twins["identity"].str[0].tolist()), strict=True):
            rows.at[at, "remarks"] = [remark, *rows.at[at, "remarks"]]
    rows = add_scores(rows.join(_compared(rows, frame)).reset_index(drop=True))
    rows.attrs["left_out"] = [*frame.attrs.get("left_out", []), *twice]
    return rows


def records(rows: pd.DataFrame) -> list[Any]:
    """Rows as tuples with named fields, None for what is not known; ``Index`` as in the DataFrame."""
    return list(rows.astype(object).where(rows.notna(), None).itertuples())


def _numbered(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Sort the records as the board does, each with the number of its ``row``; and those left out."""
    keys = {
        "key_changed": [canonical({key: one[key] for key in one if key != "dataset"}) for one in frame["changed"]],
        "key_code": [canonical(one) if one else None for one in frame["plugin_digests"]],
        "key_settings": [canonical(one) if one else None for one in frame["plugin_settings"]],
    }
    frame, place = frame.assign(**keys), [*PLACE, "key_changed"]
    # what was never computed belongs to what was
    digests = frame["data_digest"].where(frame["state"] == "done").replace("", None).groupby(frame["dataset"])
    frame["data_digest"] = frame["data_digest"].mask(
        (frame["state"] != "done") & (frame["data_digest"] == ""), digests.transform("first").fillna("")
    )
    for name in ("key_code", "key_settings"):
        others = frame.groupby(place, dropna=False, sort=False)[name].transform("first")
        frame[name] = frame[name].where(frame["state"] == "done", others).fillna("")
    key = [*PLACE, *keys]
    frame = frame.sort_values([*key, "seed", "student_seed", "state", "cell"], kind="stable")
    frame["row"] = frame.groupby(key, dropna=False, sort=False).ngroup()
    twice = frame.duplicated(["row", "seed", "student_seed"])
    named = [f"{one.cell}: another record of {one.method}, {one.labels} has seed {one.seed}"
             for one in frame[twice].itertuples()]  # fmt: skip
    return frame[~twice], named


def _pooled(own: list[Any]) -> dict[str, Any]:
    """Facts of a row beyond means."""
    runs: dict[int, dict[int, str]] = {}
    top1: dict[int, list[float]] = {}
    oracle: dict[int, list[float]] = {}
    reasons: dict[str, list[str]] = {}
    states = Counter(one.state for one in own)
    done = [one for one in own if one.state == "done"]
    for one in done:
        if one.top1 == one.top1:
            runs.setdefault(one.seed, {})[one.student_seed] = one.cell
            top1.setdefault(one.seed, []).append(one.top1)
            oracle.setdefault(one.seed, []).append(one.oracle_top1)
    for one in own:
        if one.state == "failed":
            reasons.setdefault(one.reason or "no reason was given", []).append(one.cell)
    sets, students = components(list(top1.values())) if top1 else (np.nan, np.nan)
    facts = environment_facts(one.environment for one in done)
    differing = [f"{fact} ({', '.join(values)})" for fact, values in facts.items() if len(values) > 1]
    shared = {name: max((one.overlap.get(name, 0) for one in done), default=0) for name in _OVERLAP}
    return {
        "n": len(runs),
        "n_expected": len({one.seed for one in own}),
        "students": states["done"],
        "students_expected": len(own),
        "states": " ".join(f"{state}={states[state]}" for state in _STATES if states[state]),
        "oracle_mean": np.mean([np.mean(one) for one in oracle.values()]) if oracle else np.nan,
        "top1_std_sets": sets,
        "top1_std_students": students,
        "runs": runs,
        "seeds": sorted({one.seed for one in own}),
        "student_seeds": sorted({one.student_seed for one in own}),
        "cells": [one.cell for one in own],
        "asked": sorted({one.asked for one in own} - {""}),
        "reasons": reasons,
        "sets": frozenset(one.parents["images"] for one in own if "images" in one.parents),
        "labellers": frozenset(one.parents["labels"] for one in own if "labels" in one.parents),
        "identity": [_identity(one) for one in (done or own)[:1]],
        "remarks": [f"students of this row differ in {listed(differing)}"] * bool(differing)
        + [f"{shared[name]:,} {said}" for name, said in _OVERLAP.items() if shared[name]],
    }


def _identity(one: Any) -> dict[str, str]:
    """Facts that make a row beside its names, in words."""
    return {
        "data": one.data_digest,
        "protocol": one.protocol_digest,
        **{f"code of {name}": code for name, code in one.plugin_digests.items()},
        **{f"{name}.{key}": canonical(value)
           for name, settings in one.plugin_settings.items() for key, value in settings.items()},
        **{f"--{key}": canonical(value) for key, value in one.changed.items() if key != "dataset"},
    }  # fmt: skip


def _apart(identities: list[dict[str, str]]) -> list[str]:
    """Say in words how each of several rows of the same names differs from the others."""
    facts = pd.DataFrame(identities).fillna("").replace("", UNKNOWN)
    differing = facts.loc[:, facts.nunique() > 1]
    start = f"one of {len(identities)} rows of these names, apart in what they were made with: "
    return [start + listed([f"{fact} {plain(value)}" for fact, value in one.items()])
            for one in differing.to_dict("records")]  # fmt: skip


def _info(base: str) -> tuple[str, bool]:
    """Title of a method and whether it is a baseline."""
    if base == FULL:
        return "Full data", True
    if base.partition(":")[0] not in registry.method_names():
        return base, False
    info = registry.method(base).info
    return (info.title if ":" not in base else base), info.baseline


def environment_facts(environments: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Every value of each fact, both sorted."""
    pairs = sorted({pair for one in environments for pair in one.items()})
    return {fact: [value for _, value in own] for fact, own in groupby(pairs, key=itemgetter(0))}


def _compared(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Intervals of the means, and how the rows of each table differ from its best; adds to their remarks."""
    found = []
    for _, table in rows.groupby(TABLE, dropna=False, sort=False):
        known, runs = accuracies(table, frame), table["runs"].tolist()
        own = pd.DataFrame([asdict(known.mean(one)) for one in runs], index=table.index)
        own = own[["mean", "std", "low", "high"]].add_prefix("top1_")
        for run, remarks in zip(runs, table["remarks"], strict=True):
            if cells := [cell for some in run.values() for cell in some.values() if cell in known.unlike]:
                remarks.append(f"predictions of {listed(cells)} give another accuracy than recorded, and are not used")
        if table["ipc"].notna().iloc[0]:
            deltas = against_best(runs, known)
            own["best"], own["worse"] = [one.best for one in deltas], [is_claimed(one) for one in deltas]
            for name, of in (("delta_best", "mean"), ("delta_low", "low"), ("delta_high", "high"), ("p_best", "p")):
                own[name] = [getattr(one, of) for one in deltas]
            own["on_front"] = pareto(table["label_high"].tolist(), own["top1_mean"].tolist())
        found.append(own)
    both = pd.concat(found) if found else pd.DataFrame()
    types = dict.fromkeys([f"top1_{of}" for of in ("mean", "std", "low", "high")], "float64")
    types |= dict.fromkeys(["delta_best", "delta_low", "delta_high", "p_best"], "float64")
    types |= dict.fromkeys(["best", "worse", "on_front"], "boolean")
    return both.reindex(index=rows.index, columns=list(types)).astype(types)


def accuracies(rows: pd.DataFrame, frame: pd.DataFrame) -> Accuracies:
    """Accuracies of the cells of rows on one data set, for comparisons between them."""
    used = frame[frame["cell"].isin({cell for runs in rows["runs"] for one in runs.values() for cell in one.values()})]
    top1 = dict(zip(used["cell"], used["top1"], strict=True))
    resampled: dict[str, Any] = {}
    files = used[used["predictions"] != ""].groupby("predictions")["cell"].agg(list)  # of a board: many cells
    loaded = {cell: one for file, cells in files.items() for cell, one in load_scores(str(file), cells).items()}
    scores = {cell: one for cell, one in loaded.items() if abs(one.mean() - top1[cell]) < 1e-6}
    for size in {len(one) for one in scores.values()}:
        cells = [cell for cell, one in scores.items() if len(one) == size]
        resampled |= dict(zip(cells, resample_images(np.stack([scores[cell] for cell in cells])), strict=True))
    images = used["test_images"].max() if (rows["metric"] == TOP1).all() else None
    if images is not None:
        images = known_test_images(rows["dataset"].iloc[0]) if pd.isna(images) else int(images)
    return Accuracies(top1, resampled, images, loaded.keys() - scores.keys())


def known_test_images(dataset: str) -> int | None:
    return catalogue.dataset(dataset).test_images if dataset in catalogue.names() else None


def pareto(sizes: list[Any], accuracies: list[float]) -> list[bool | None]:
    """Tell if no other row is at least as accurate with fewer bytes, or more accurate with as many; None: unknown."""
    found: list[bool | None] = [None] * len(sizes)
    best: tuple[float, Any] = (-1.0, None)
    known = [at for at, size in enumerate(sizes) if not pd.isna(size) and accuracies[at] == accuracies[at]]
    for at in sorted(known, key=lambda at: (sizes[at], -accuracies[at])):
        found[at] = accuracies[at] > best[0] or (accuracies[at], sizes[at]) == best
        best = (accuracies[at], sizes[at]) if found[at] else best
    return found
