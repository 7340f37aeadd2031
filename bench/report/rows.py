"""Records pooled into the rows of a board: one row per method and settings, labels, IPC, student and protocol.

A row pools only what is alike: the digests of data set and protocol, code and all settings of the plug-ins, and what
was requested agree as well; what is not recorded is alike. :func:`pool` returns a DataFrame with the columns of a row's
place as in :mod:`bench.report.results`, and

- ``method_title``, ``baseline`` (a method that is run for comparison, or full data), ``metric``, ``test_images``
- ``n`` (distilled sets done), ``n_expected``, ``students`` (done), ``students_expected``, ``states``
- ``top1_mean``, ``top1_std``, ``top1_low``, ``top1_high`` (95 % interval), ``top1_std_sets``, ``top1_std_students``,
  ``oracle_mean``: fractions
- ``best`` (the best mean of its table: same protocol, data, IPC and student), ``delta_best``, ``delta_low``,
  ``delta_high`` (difference to it, with its 95 % interval), ``pairs`` (sets behind it) and ``unpaired`` (other sets
  of both rows), ``p_best`` (corrected), ``worse`` (the difference is claimed), ``on_front`` (no row of the table is
  as accurate with fewer label bytes); not for full data
- ``image_bytes``, ``label_bytes``, ``label_parameters``, ``public_bytes``, ``full_label_bytes``: means; ``label_low``,
  ``label_high``: extremes of the label bytes; ``label_share``: of ``full_label_bytes``
- ``seconds_<stage>``, ``seconds_total``: means over the students done
- ``hlr``, ``ior``, ``lrs``, ``ars``: DD-Ranking's scores, see :mod:`bench.report.papers.dd_ranking`
- ``by_seed`` (mean of each distilled set), ``runs`` (seed, student seed and cell of those done), ``seeds`` and
  ``student_seeds`` (all), ``cells``, ``reasons`` (of failures: reason → cells), ``public``, ``sets`` and ``labellers``
  (the parent cells), ``changed``, ``asked`` (all choices), ``via``, ``remarks`` (what differs within the row, and from
  rows of the same names)
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import pandas as pd

from bench.api import catalogue, registry
from bench.format import listed, plain
from bench.report.comparison import PAIR, accuracies, against_best, components, estimate
from bench.report.papers.dd_ranking import add_scores
from bench.store.cell import canonical

TABLE = ["suite", "dataset", "protocol", "protocol_version", "protocol_digest", "data_digest", "ipc", "student"]
PLACE = [*TABLE, "method", "labels"]
FULL = "full_data"
TOP1 = "top-1"
UNKNOWN = "not recorded"
_FIRST = ["title", "base", "settings", "via", "metric", "recipe", "augmented", "changed", "public"]
_BYTES = ["image_bytes", "label_bytes", "label_parameters", "public_bytes", "full_label_bytes"]
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
    groups, done = frame.groupby("row"), frame[frame["state"] == "done"]
    known = done[done["top1"].notna()]
    rows = frame.drop_duplicates("row").set_index("row")[[*PLACE, *_FIRST]]
    infos = pd.DataFrame([_info(base) for base in rows["base"]], rows.index, ["method_title", "baseline"])
    counts = frame.groupby(["row", "state"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["done", "failed", "missing"], fill_value=0)
    states = [
        " ".join(f"{state}={count}" for state, count in one.items() if count) for one in counts.to_dict("records")
    ]
    means = groups[_BYTES].mean()
    rows = rows.join(infos.astype({"baseline": bool})).join(means.round().astype("Int64")).assign(
        label_share=(means["label_bytes"] / means["full_label_bytes"]).astype("float64"),
        label_low=groups["label_bytes"].min(), label_high=groups["label_bytes"].max(),
        n_expected=groups["seed"].nunique(), students=counts["done"], students_expected=groups.size(), states=states,
        oracle_mean=known.groupby(["row", "seed"])["oracle_top1"].mean().groupby(level="row").mean(),
        test_images=known.groupby("row")["test_images"].max(),
    )  # fmt: skip
    by_seed = known.groupby(["row", "seed"])["top1"].mean().groupby(level="row")
    rows["by_seed"] = pd.Series({row: own.droplevel("row").to_dict() for row, own in by_seed}, dtype=object)
    rows = rows.join(done.groupby("row")[[name for name in frame if name.startswith("seconds_")]].mean())
    facts = [_facts(list(own)) for _, own in groupby(frame.itertuples(), key=attrgetter("row"))]
    rows = rows.join(pd.DataFrame(facts, rows.index, list(_facts([]))))
    names = [name for name in PLACE if not name.endswith("_digest")]
    for _, twins in rows[rows.duplicated(names, keep=False)].groupby(names, dropna=False):
        for remarks, remark in zip(twins["remarks"], _apart(twins["identity"].tolist()), strict=True):
            remarks.insert(0, remark)
    rows = add_scores(_compared(rows, known).reset_index(drop=True))
    rows.attrs["left_out"] = [*frame.attrs.get("left_out", []), *twice]
    return rows


def records(rows: pd.DataFrame) -> list[Any]:
    """Rows as tuples with named fields, None for what is not known; ``Index`` as in the DataFrame."""
    columns = [[None if one is pd.NA or one != one else one for one in rows[name].tolist()] for name in rows]
    row = namedtuple("Row", ["Index", *rows.columns], rename=True)  # type: ignore[misc]
    return list(map(row, rows.index.tolist(), *columns))


def students(rows: pd.DataFrame) -> pd.DataFrame:
    """List the students of rows that are done: ``row``, ``seed``, ``student_seed``, ``cell``."""
    runs = rows["runs"].explode().dropna()
    frame = pd.DataFrame(runs.tolist(), columns=[*PAIR, "cell"]).assign(row=runs.index)
    return frame.astype({"row": int, "seed": int, "student_seed": int, "cell": str})


def _numbered(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Sort the records as the board does, each with the number of its ``row``; and those left out."""
    keys = {
        "key_changed": [canonical({key: one[key] for key in one if key != "dataset"}) for one in frame["changed"]],
        "key_code": [canonical(one) if one else None for one in frame["plugin_digests"]],
        "key_settings": [canonical(one) if one else None for one in frame["plugin_settings"]],
    }
    frame, place = frame.assign(**keys), [*PLACE, "key_changed"]
    undone = frame["state"] != "done"  # what was never computed belongs to what was
    digests = frame["data_digest"].mask(undone).replace("", None).groupby(frame["dataset"]).transform("first")
    frame["data_digest"] = frame["data_digest"].mask(undone & (frame["data_digest"] == ""), digests.fillna(""))
    for name in ("key_code", "key_settings"):
        others = frame.groupby(place, dropna=False, sort=False)[name].transform("first")
        frame[name] = frame[name].mask(undone, others).fillna("")
    key = [*PLACE, *keys]
    frame = frame.sort_values([*key, *PAIR, "state", "cell"], kind="stable")
    frame["row"] = frame.groupby(key, dropna=False, sort=False).ngroup()
    twice = frame.duplicated(["row", *PAIR])
    named = [f"{one.cell}: another record of {one.method}, {one.labels} has seed {one.seed}"
             for one in frame[twice].itertuples()]  # fmt: skip
    return frame[~twice], named


def _facts(own: list[Any]) -> dict[str, Any]:
    """Facts of a row that are no numbers."""
    reasons: dict[str, list[str]] = {}
    for one in own:
        if one.state == "failed":
            reasons.setdefault(one.reason or "no reason was given", []).append(one.cell)
    done = [one for one in own if one.state == "done"]
    facts = environment_facts(one.environment for one in done)
    differing = [f"{fact} ({', '.join(values)})" for fact, values in facts.items() if len(values) > 1]
    shared = {name: max((one.overlap.get(name, 0) for one in done), default=0) for name in _OVERLAP}
    return {
        "runs": [(one.seed, one.student_seed, one.cell) for one in done if one.top1 == one.top1],
        "seeds": sorted({one.seed for one in own}),
        "student_seeds": sorted({one.student_seed for one in own}),
        "cells": [one.cell for one in own],
        "asked": sorted({one.asked for one in own} - {""}),
        "reasons": reasons,
        "sets": frozenset(one.parents["images"] for one in own if "images" in one.parents),
        "labellers": frozenset(one.parents["labels"] for one in own if "labels" in one.parents),
        "identity": next((_identity(one) for one in (*done, *own)), {}),
        "remarks": [f"students of this row differ in {listed(differing)}"] * bool(differing)
        + [f"{shared[name]:,} {said}" for name, said in _OVERLAP.items() if shared[name]],
    }


def _identity(one: Any) -> dict[str, str]:
    """Facts that make a row, besides its names, in words."""
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


def _compared(rows: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """Add intervals of the means, and how the rows of each table differ from its best; adds to their remarks."""
    known, tables = accuracies(done), rows.groupby(TABLE, dropna=False, sort=False).ngroup()
    listed_ = {name: known_test_images(name) for name in rows["dataset"].unique()}
    images = rows["test_images"].groupby(tables).transform("max").astype("Float64").fillna(rows["dataset"].map(listed_))
    images = images.where((rows["metric"] == TOP1).groupby(tables).transform("all"))
    own = estimate(students(rows), known, images)
    rows = rows.assign(n=own.pop("n"), test_images=images.astype("Int64"))
    rows = rows.join(own.drop(columns="p").join(components(done).add_prefix("std_")).add_prefix("top1_"))
    for runs, remarks in zip(rows["runs"], rows["remarks"], strict=True):
        if cells := [cell for _, _, cell in runs if cell in known.unlike]:
            remarks.append(f"predictions of {listed(cells)} give another accuracy than recorded, and are not used")
    part = rows[rows["ipc"].notna()]
    delta = against_best(students(part), known, images[part.index], part["top1_mean"], tables)
    delta["on_front"] = pareto(part["label_high"], part["top1_mean"], tables)
    of_best = rows["n"].where(delta["best"]).groupby(tables).transform("max")
    delta["unpaired"] = (rows["n"] + of_best).reindex(delta.index) - 2 * delta["n"]
    names = {
        "n": "pairs",
        "mean": "delta_best",
        "low": "delta_low",
        "high": "delta_high",
        "p": "p_best",
        "claimed": "worse",
    }
    delta = delta.rename(columns=names).drop(columns="std")
    types = dict.fromkeys(["best", "worse", "on_front"], "boolean") | dict.fromkeys(["pairs", "unpaired"], "Int64")
    return rows.join(delta.astype(types))


def known_test_images(dataset: str) -> int | None:
    return catalogue.dataset(dataset).test_images if dataset in catalogue.names() else None


def pareto(sizes: pd.Series, means: pd.Series, tables: pd.Series) -> pd.Series:
    """Tell if no other row is at least as accurate with fewer bytes, or more accurate with as many; NA: unknown."""
    place = [tables.reindex(sizes.index), sizes]
    best = means.groupby(place).max()  # by table and size
    cheaper = best.groupby(level=0).cummax().groupby(level=0).shift(fill_value=-1.0)
    above = means > cheaper.reindex(pd.MultiIndex.from_arrays(place)).to_numpy()
    return (
        (above & (means == means.groupby(place).transform("max")))
        .where(means.notna() & sizes.notna())
        .astype("boolean")
    )
