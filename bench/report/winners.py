"""First sentence of a board, best rows within each label budget, and aggregate over budgets: like with like.

Accuracy under soft labels is owed to the labels as well, so a method is named only under label choices for which the
random baseline was measured: real images drawn at random, with the same IPC, labels, student and protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.api import catalogue
from bench.format import listed, percent, plural, round_size, size
from bench.planning.plan import baselines
from bench.report.comparison import CLAIM_SEEDS
from bench.report.papers.dd_ranking import HARD
from bench.report.rows import TABLE, TOP1, known_test_images, records

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# tens of bytes; the last affords the labels of every view of ImageNet-21K (1.2 TB at IPC 20: arXiv 2408.08201)
BUDGETS = (0, 10 * KIB, 100 * KIB, MIB, 10 * MIB, 100 * MIB, GIB, 10 * GIB, 100 * GIB, 10 * 1024 * GIB)
DECADES = 4  # of the budgets that the aggregate spans, from one fp16 label per class on
SMOKE_TEST = 1000  # test images below which a board is no evidence


class Winner(NamedTuple):
    """Best rows of an IPC whose labels take ``least`` bytes or less, and so up to ``most`` (None: no limit)."""

    ipc: int
    least: int
    most: int | None
    best: Any  # rows as tuples, see bench.report.rows.records
    distilled: Any | None  # the best that is no baseline
    random: Any | None  # random real images under the labels of ``distilled``
    unmeasured: tuple[str, ...]  # methods and labels within the budget that are above ``best`` without a baseline


def with_baseline(table: pd.DataFrame) -> pd.Series:
    """Tell whether the random baseline was measured under the labels of each row, in the same table."""
    place = [*TABLE, "labels"]
    measured = table["method"].isin(baselines()) & (table["n"] > 0)
    return measured.groupby([table[name] for name in place], dropna=False).transform("any")


def winners(rows: pd.DataFrame) -> list[Winner]:
    """By IPC and label budget, one for each budget at which another row comes to win.

    Args:
        rows: of one protocol and one student; of equal means the one with fewer label bytes wins.
    """
    measured = rows[rows["ipc"].notna() & (rows["n"] > 0) & rows["label_bytes"].notna()]
    measured = measured.assign(fair=with_baseline(measured)).sort_values(
        ["top1_mean", "label_bytes", "method", "labels"], ascending=[False, True, True, True]
    )
    found: list[Winner] = []
    for ipc, table in measured.groupby("ipc"):
        own: list[Winner] = []
        ranked = records(table)
        for budget in BUDGETS:
            within = [row for row in ranked if row.label_bytes <= budget]
            fair = [row for row in within if row.fair]
            if not fair:
                continue
            best, distilled = fair[0], next((row for row in fair if not row.baseline), None)
            random = next((row for row in ranked if distilled and _same_labels(row, distilled)), None)
            above = [row for row in within if not row.fair and row.top1_mean > best.top1_mean]
            names = tuple(f"{row.method_title}, {row.labels}" for row in above)
            one = Winner(int(ipc), budget, budget, best, distilled, random, names)
            if own and own[-1]._replace(least=0, most=0) == one._replace(least=0, most=0):
                own[-1] = own[-1]._replace(most=budget)
            else:
                own.append(one)
        found += [*own[:-1], own[-1]._replace(most=None)] if own else []
    return found


def _same_labels(row: Any, distilled: Any) -> bool:
    return bool(row.method in baselines() and row.labels == distilled.labels)


def choice(labels: str) -> str:
    """Choice of labels behind a board's word, whoever answers: ``stored:fp16 of ensemble`` → ``stored:fp16``."""
    head = labels.partition(" of ")[0]
    return head if head.partition(":")[0] in ("stored", "static", "hard") or head == "teacher:int8" else "online"


def budget_range(dataset: str) -> tuple[int, int] | None:
    """Label bytes of a data set's aggregate, from one fp16 label per class; None: not in the catalogue."""
    if dataset not in catalogue.names():
        return None
    least = 2 * catalogue.dataset(dataset).classes ** 2
    return least, least * 10**DECADES


def over_budgets(rows: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """Compare methods over all label budgets, every doubling of the budget counting the same.

    Returns:
        the label choices that all methods have at an IPC, and per method and IPC the mean over budgets of the best
        accuracy that each affords with them.

    Empty where fewer than two methods have two choices in common, or one has no row that the least budget affords.
    """
    span = budget_range(rows["dataset"].iloc[0])
    measured = rows[rows["ipc"].notna() & (rows["n"] > 0) & rows["label_bytes"].notna()]
    measured = measured[(measured["settings"] == "") & with_baseline(measured)]
    measured = _with_shared_images(measured.assign(choice=measured["labels"].map(choice)))
    sets = measured.groupby(["method", "ipc"])["choice"].agg(set)
    shared = sorted(set.intersection(*sets)) if len(sets) else []
    if span is None or len(shared) < 2 or measured["method"].nunique() < 2:
        return [], pd.DataFrame()
    measured = measured[measured["choice"].isin(shared)]
    edges = np.geomspace(*span, 1 + 64 * DECADES)
    volumes = {}
    for (title, ipc), own in measured.groupby(["method_title", "ipc"]):
        own = own.sort_values("label_bytes")
        affordable = np.searchsorted(own["label_bytes"].to_numpy("float64"), edges, side="right")
        best = own["top1_mean"].cummax().to_numpy()
        volumes[title, ipc] = float(best[affordable - 1].mean()) if affordable[0] else np.nan
    table = pd.Series(volumes).unstack()
    if table.isna().any(axis=None):
        return [], pd.DataFrame()
    return shared, table.sort_values(table.columns[-1], ascending=False)


def _with_shared_images(rows: pd.DataFrame) -> pd.DataFrame:
    """Hard labels take nothing of a method's own, so their row counts for every method with the same images."""
    images = rows.loc[rows["choice"] != HARD, ["method", "method_title", "ipc", "sets"]].drop_duplicates()
    hard = rows[rows["choice"] == HARD].drop(columns=["method", "method_title"])
    shared = hard.merge(images, on=["ipc", "sets"])
    return pd.concat([rows, shared]).drop_duplicates(["method", "ipc", "labels"])


def first_sentence(rows: pd.DataFrame) -> str:
    """One sentence on a board that a reviewer could quote."""
    measured = rows[rows["ipc"].notna() & (rows["n"] > 0)]
    if measured.empty:
        return "Nothing is measured here yet."
    caveat = _caveat(measured)
    pairs = _equal_labels(measured)
    if pairs.empty:
        distilled = measured[~measured["baseline"]]
        if distilled.empty:
            return f"No distilled set is measured here, only baselines{caveat}."
        best = distilled.loc[distilled["top1_mean"].idxmax()]
        labels = "" if pd.isna(best["label_bytes"]) else f" with {size(int(best['label_bytes']))} of labels"
        return (
            f"{best['method_title']} has the highest mean of the distilled sets, {percent(best['top1_mean'])} % at IPC "
            f"{best['ipc']}{labels}; random real images were not measured under the same labels, so nothing says what "
            f"its images add{caveat}."
        )
    ahead = pairs.groupby("ipc")["gain"].max()
    random = [str(ipc) for ipc, gain in ahead.items() if gain <= 0]
    if len(random) == len(ahead):
        return f"Under equal labels, random real images have a higher mean than every distilled set at IPC " \
               f"{listed(random)}{caveat}."  # fmt: skip
    top = pairs.loc[pairs["gain"].idxmax()]
    counts = f"{int((pairs['gain'] > 0).sum())} of {plural(len(pairs), 'distilled row')}"
    also = f"; at IPC {listed(random)} none do" if random else ""
    return (
        f"Under equal labels, {counts} have a higher mean than random real images, {top['method_title']} with "
        f"{top['labels']} labels at IPC {top['ipc']} by the most ({100 * top['gain']:+.1f} points){also}{caveat}."
    )


def _equal_labels(measured: pd.DataFrame) -> pd.DataFrame:
    """Each row of distilled images beside random real images under the same labels: ``gain`` in fractions."""
    place = [*TABLE, "labels"]
    random = measured.loc[measured["method"].isin(baselines()), [*place, "top1_mean"]]
    pairs = measured[~measured["baseline"]].merge(random, on=place, suffixes=("", "_random"))
    return pairs.assign(gain=pairs["top1_mean"] - pairs["top1_mean_random"])


def _caveat(measured: pd.DataFrame) -> str:
    parts: list[str] = []
    most = int(measured["n"].max())
    if most < CLAIM_SEEDS:
        parts.append(f"with {plural(most, 'distilled set')} per row no difference is claimed")
    dataset = measured["dataset"].iloc[0]
    images = known_test_images(dataset) if (measured["metric"] == TOP1).all() else None
    if images is not None and images < SMOKE_TEST:
        parts.append(f"{plural(images, 'test image')} make {dataset} a smoke test, not evidence")
    return "; " + ", and ".join(parts) if parts else ""


def budget_words(one: Winner) -> str:
    """``10 KiB to 1 MiB``."""
    least = round_size(one.least)
    if one.most is None:
        return f"{least} or more"
    return least if one.most == one.least else f"{least} to {round_size(one.most)}"


def titles(names: Sequence[str]) -> str:
    """Names in a table cell, two at most."""
    return "; ".join(names[:2]) + (f"; and {len(names) - 2} more" if len(names) > 2 else "")
