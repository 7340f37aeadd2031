"""First sentence of a board, and best rows within each label budget: like with like.

Accuracy under soft labels is owed to the labels as well, so a method is named only under label choices for which the
random baseline was measured: real images drawn at random, with the same IPC, labels, student and protocol.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from math import nan
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd

from bench.format import listed, percent, plural, round_size, size
from bench.planning.plan import baselines
from bench.report.columns import short
from bench.report.comparison import CLAIM_SEEDS
from bench.report.rows import TABLE, TOP1, known_test_images, records

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# tens of bytes; the last affords the labels of every view of ImageNet-21K (1.2 TB at IPC 20: arXiv 2408.08201)
BUDGETS = (0, 10 * KIB, 100 * KIB, MIB, 10 * MIB, 100 * MIB, GIB, 10 * GIB, 100 * GIB, 10 * 1024 * GIB)
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

    @property
    def budget(self) -> str:
        """``10 KiB to 1 MiB``."""
        least = round_size(self.least)
        if self.most is None:
            return f"{least} or more"
        return least if self.most == self.least else f"{least} to {round_size(self.most)}"


def with_baseline(table: pd.DataFrame) -> pd.Series:
    """Tell whether the random baseline was measured under the labels of each row, in the same table."""
    measured = table["method"].isin(baselines()) & (table["n"] > 0)
    return measured.groupby([table[name] for name in [*TABLE, "labels"]], dropna=False).transform("any")


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of distilled and random images with a mean, the best first; of equal means the one with fewer bytes."""
    found = rows[rows["ipc"].notna() & (rows["n"] > 0)]
    order = ["top1_mean", "label_high", "method", "labels"]
    return found.assign(fair=with_baseline(found)).sort_values(order, ascending=[False, True, True, True])


def winners(rows: pd.DataFrame) -> list[Winner]:
    """By IPC and label budget, one for each budget at which another row of a protocol and student comes to win."""
    measured, found = _measured(rows), []
    for ipc, table in measured[measured["label_high"].notna()].groupby("ipc"):
        for within, own in groupby(BUDGETS, key=partial(_within, records(table))):
            least, *more = own
            most = (more or [least])[-1]
            if within is not None:
                found.append(Winner(int(ipc), least, None if most == BUDGETS[-1] else most, *within))
    return found


def _within(ranked: list[Any], budget: int) -> tuple[Any, ...] | None:
    """Best row, best distilled one, its random baseline and what has none, within a budget; None: nothing."""
    within = [row for row in ranked if row.label_high <= budget]
    if not (fair := [row for row in within if row.fair]):
        return None
    distilled = next((row for row in fair if not row.baseline), None)
    random = (row for row in ranked if distilled and row.method in baselines() and row.labels == distilled.labels)
    above = [row for row in within if not row.fair and row.top1_mean > fair[0].top1_mean]
    return fair[0], distilled, next(random, None), tuple(f"{row.method_title}, {row.labels}" for row in above)


def first_sentence(rows: pd.DataFrame) -> str:
    """One sentence on a board that a reviewer could quote."""
    measured = _measured(rows)
    if measured.empty:
        return "Nothing is measured here yet."
    caveat, distilled = _caveat(measured), measured[~measured["baseline"]]
    if distilled.empty:
        return f"No distilled set is measured here, only baselines{caveat}."
    random = measured.loc[measured["method"].isin(baselines()), [*TABLE, "labels", "top1_mean", "by_seed"]]
    compared = distilled.merge(random, on=[*TABLE, "labels"], suffixes=("", "_random"))
    gain = pd.Series([_gain(one) for one in compared.itertuples()], compared.index, "float64").dropna()
    pairs = compared.loc[gain.index]
    if pairs.empty:
        best = distilled.iloc[0]
        labels = "" if pd.isna(best["label_high"]) else f" with {size(int(best['label_high']))} of labels"
        return (
            f"{best['method_title']} has the highest mean of the distilled sets, {percent(best['top1_mean'])} % at IPC "
            f"{best['ipc']}{labels}; random real images were not measured under the same labels"
            f"{'' if compared.empty else ' and seeds'}, so nothing says what its images add{caveat}."
        )
    ahead = gain.groupby(pairs["ipc"]).max() > 0
    behind, top = listed([str(ipc) for ipc in ahead.index[~ahead]]), pairs.loc[gain.idxmax()]
    which = top["method_title"] + (f" ({settings})" if (settings := short(top["settings"])) else "")
    if not ahead.any():
        said = "random real images have a higher mean than every distilled set"
        return f"Under equal labels, {said} at IPC {behind}{caveat}."
    return (
        f"Under equal labels, {(gain > 0).sum()} of {plural(len(pairs), 'compared row')} have a higher mean than "
        f"random real images, {which} with {top['labels']} labels at IPC {top['ipc']} by the most "
        f"({100 * gain.max():+.1f} points){f'; at IPC {behind} none do' if behind else ''}{caveat}."
    )


def _gain(pair: Any) -> float:
    """Return the difference of the means over the seeds that both rows have; NaN: they have none in common."""
    if pair.by_seed.keys() == pair.by_seed_random.keys():
        return float(pair.top1_mean - pair.top1_mean_random)
    both = pair.by_seed.keys() & pair.by_seed_random.keys()
    return mean(pair.by_seed[seed] - pair.by_seed_random[seed] for seed in sorted(both)) if both else nan


def _caveat(measured: pd.DataFrame) -> str:
    least, most, dataset = int(measured["n"].min()), int(measured["n"].max()), measured["dataset"].iloc[0]
    images = known_test_images(dataset) if (measured["metric"] == TOP1).all() else None
    sets = plural(most, "distilled set") if least == most else f"{least}–{most} distilled sets"
    few = f"with {sets} per row no difference is claimed" if most < CLAIM_SEEDS else ""
    small = images is not None and images < SMOKE_TEST
    smoke = f"{plural(images or 0, 'test image')} make {dataset} a smoke test, not evidence" if small else ""
    said = ", and ".join(filter(None, [few, smoke]))
    return f"; {said}" if said else ""
