"""The tables behind figures: which rows are on a line, accuracies by step, label bytes by label choice."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit


def on_lines(rows: pd.DataFrame, across: str) -> pd.DataFrame:
    """Sort rows; a line joins the best label choices of a method, or those no cheaper one reaches (else pale)."""
    if across in ("classes_seen", "ipc"):
        return rows.sort_values("mean").groupby(["method", across]).tail(1).sort_values(across).assign(kind="")
    ordered = rows.sort_values([across, "mean"], ascending=[True, False])
    best = ordered.groupby("method")["mean"].cummax().groupby(ordered["method"]).shift(fill_value=-1.0)
    return ordered.assign(kind=(ordered["mean"] > best).map({True: "", False: "pale"}))


def by_step(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Average after each step (``classes_seen``) over students, then over distilled sets, with intervals from these."""
    steps = records[["cell", "seed", "steps"]].explode("steps").dropna(subset=["steps"])
    steps = steps.assign(classes_seen=steps["steps"].str[0], value=100 * steps["steps"].str[1].astype("float64"))
    own = rows[["method", "labels", "ipc", "kind", "cells"]].explode("cells")
    own = own.merge(steps, left_on="cells", right_on="cell")
    place = ["method", "labels", "ipc", "kind", "classes_seen"]
    sets = own.groupby([*place, "seed"], dropna=False, observed=True)["value"].mean()
    means = sets.groupby(level=place, dropna=False, observed=True).agg(mean="mean", n="size", std="std").reset_index()
    half = stdtrit(means["n"] - 1, 0.975) * means["std"] / means["n"] ** 0.5
    return means.assign(low=means["mean"] - half, high=means["mean"] + half)


def label_lines(weights: pd.DataFrame) -> pd.DataFrame:
    """Return ``line``, ``x`` (IPC) and ``y`` (bytes) of rows of ``method``, ``labels``, ``ipc`` and ``bytes``.

    Methods whose labels weigh (nearly) the same share the line of a label choice; others have their names in it.
    """
    table = weights.assign(labels=weights["labels"].str.partition(" of ")[0], bytes=weights["bytes"].astype(float))
    table = table.pivot_table(index=["labels", "method"], columns="ipc", values="bytes")
    table = table[table.max(axis=1) > 0]
    nearly = np.log2(table).mul(4).round().reset_index("labels")  # within a fifth
    table = table[~nearly.duplicated().to_numpy()]
    choices = table.index.get_level_values("labels")
    table.index = pd.Index([f"{labels} ({method})" if (choices == labels).sum() > 1 else labels
                            for labels, method in table.index], name="line")  # fmt: skip
    return table.rename_axis(columns="x").stack().dropna().rename("y").reset_index()
