"""The tables behind figures: which rows are on a line, accuracies by step and by class, label bytes by label choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.store.predictions import load

ALIKE = 1.1  # lines of label bytes that differ by no more than this factor are drawn as one


def frontier(rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Sort rows by cost; ``kind`` is ``pale`` where a cheaper row of the same method is as accurate."""
    ordered = rows.sort_values([cost, "mean"], ascending=[True, False])
    best = ordered.groupby("method")["mean"].cummax().groupby(ordered["method"]).shift(fill_value=-1.0)
    return ordered.assign(kind=(ordered["mean"] > best).map({True: "", False: "pale"}))


def best_labels(rows: pd.DataFrame, across: str) -> pd.DataFrame:
    """Select the best label choice of each method at each place."""
    return rows.sort_values("mean").groupby(["method", across]).tail(1).sort_values(across).assign(kind="")


def by_step(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Average after each step (``classes_seen``) over students, then over distilled sets, with intervals from these."""
    steps = records[["cell", "seed", "steps"]].explode("steps").dropna(subset=["steps"])
    steps = steps.assign(classes_seen=steps["steps"].str[0], value=100 * steps["steps"].str[1].astype("float64"))
    own = rows[["method", "labels", "ipc", "kind", "cells"]].explode("cells")
    own = own.merge(steps, left_on="cells", right_on="cell")
    place = ["method", "labels", "ipc", "kind", "classes_seen"]
    sets = own.groupby([*place, "seed"], dropna=False, observed=True)["value"].mean()
    sets = sets.groupby(level=place, dropna=False, observed=True)
    means = sets.agg(mean="mean", n="size", std="std").reset_index()
    half = stdtrit(means["n"] - 1, 0.975) * means["std"] / means["n"] ** 0.5
    return means.assign(low=means["mean"] - half, high=means["mean"] + half)


def by_class(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Return methods × classes in percent, of the best row of each method whose predictions were kept.

    Of class-incremental evaluations the last step counts.
    """
    files = records.set_index("cell")["predictions"]
    found: dict[str, np.ndarray[Any, Any]] = {}
    for row in rows.sort_values("mean", ascending=False).itertuples():
        kept = [one for cell in row.cells if files.get(cell) for one in load(Path(files[cell]), [cell]).values()]
        if kept and row.method not in found:
            shares = [np.bincount(true, np.atleast_2d(guess)[-1] == true) / np.bincount(true) for guess, true in kept]
            found[row.method] = 100 * np.mean(shares, axis=0)
    return pd.DataFrame.from_dict(found, orient="index")


def label_bytes(weights: pd.DataFrame) -> pd.DataFrame:
    """Return ``line``, ``x`` (IPC) and ``y`` (bytes) of rows of ``method``, ``labels``, ``ipc`` and ``bytes``.

    Methods whose labels weigh (nearly) the same share the line of a label choice; others have their names in it.
    """
    labels = weights["labels"].str.partition(" of ")[0]  # the labelled model adds no bytes
    table = weights.assign(labels=labels, bytes=weights["bytes"].astype(float)).pivot_table(
        index=["labels", "method"], columns="ipc", values="bytes"
    )
    table = table[table.max(axis=1) > 0]
    kept: dict[tuple[str, str], pd.Series] = {}
    for (labels, method), line in table.iterrows():
        near = [other for (choice, _), other in kept.items() if choice == labels]
        if not any((line / other).dropna().between(1 / ALIKE, ALIKE).all() for other in near):
            kept[labels, method] = line
    choices = [labels for labels, _ in kept]
    named = {
        labels if choices.count(labels) == 1 else f"{labels} ({method})": line
        for (labels, method), line in kept.items()
    }
    frame = pd.DataFrame(named).rename_axis("x")
    return frame.melt(var_name="line", value_name="y", ignore_index=False).dropna().reset_index()
