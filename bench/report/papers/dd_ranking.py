"""DD-Ranking's scores: how much of an accuracy is owed to soft labels and to augmentation.

Li, Zhong, Khaki et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (arXiv 2505.13300). With
accuracies as fractions:

- HLR, hard label recovery: real images with hard labels, less the distilled images with hard labels;
- IOR, improvement over random: the distilled images, less as many random real ones under the same labels;
- LRS, the label robust score, of a = w · IOR - (1 - w) · HLR: (e^a - e^-1) / (e - e^-1);
- ARS, the augmentation robust score, likewise of b = g · IOR with augmentation + (1 - g) · IOR without.

Theirs take the best tested epoch of the best of five learning rates, chosen on the test images; these are of the last
epoch under the board's protocol.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bench.planning.plan import baselines

HARD = "hard"
_PROTOCOL = ["suite", "dataset", "protocol", "protocol_version", "protocol_digest", "data_digest", "student"]
_RECIPE = ["suite", "dataset", "recipe", "ipc", "student", "method", "labels"]


def score(gained: Any, lost: Any) -> Any:
    """LRS of IOR and HLR, ARS of the IOR with and the negative IOR without augmentation; both weigh a half.

    No difference is 0.269.
    """
    return (np.exp((gained - lost) / 2) - np.exp(-1)) / (np.e - np.exp(-1))


def add_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``hlr``, ``ior``, ``lrs`` and ``ars``; NaN where a run that a score takes is missing."""
    distilled = rows["ipc"].notna() & ~rows["base"].isin(baselines())
    top1 = rows["top1_mean"].where(distilled)
    hard = rows[(rows["labels"] == HARD) & rows["sets"].astype(bool)]
    real = _beside(rows, rows[rows["ipc"].isna()], _PROTOCOL)["top1_mean"].where(distilled)
    hlr = real - _beside(rows, hard, [*_PROTOCOL, "ipc", "sets"])["top1_mean"]
    random = _beside(rows, rows[rows["method"].isin(baselines())], [*_PROTOCOL, "ipc", "labels"])
    # with other settings of its own, a label model has the same name on random images
    same = [labels == HARD or (isinstance(b, frozenset) and bool(a & b)) or c == d
            for labels, a, b, c, d in zip(rows["labels"], rows["labellers"], random["labellers"], rows["changed"],
                                          random["changed"], strict=True)]  # fmt: skip
    ior = (top1 - random["top1_mean"]).where(np.array(same, bool))
    known = rows.assign(top1_mean=ior)[rows["recipe"] != ""]
    without = _beside(rows, known[~known["augmented"]], _RECIPE)["top1_mean"].where(rows["augmented"])
    return rows.assign(hlr=hlr, ior=ior, lrs=score(ior, hlr), ars=score(ior, -without))


def _beside(rows: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Mean, label models and changes of that of ``others`` which agrees with each row in some columns."""
    found = others[list(dict.fromkeys([*on, "top1_mean", "labellers", "changed"]))].drop_duplicates(on, keep="last")
    return rows[on].merge(found, on=on, how="left").set_index(rows.index)
