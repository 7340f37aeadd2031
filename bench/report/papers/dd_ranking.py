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

WEIGHT = 0.5  # w and g: DD-Ranking's defaults
HARD = "hard"
_PROTOCOL = ["suite", "dataset", "protocol", "protocol_version", "protocol_digest", "data_digest", "student"]


def label_robust(hlr: Any, ior: Any) -> Any:
    """LRS of differences of fractions."""
    return normalized(WEIGHT * ior - (1 - WEIGHT) * hlr)


def augmentation_robust(with_augmentation: Any, without: Any) -> Any:
    """ARS of improvements over random, as differences of fractions."""
    return normalized(WEIGHT * with_augmentation + (1 - WEIGHT) * without)


def normalized(value: Any) -> Any:
    """Weighted difference of accuracies in [-1, 1] as a score in [0, 1]; no difference is 0.269."""
    return (np.exp(value) - np.exp(-1)) / (np.e - np.exp(-1))


def add_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``hlr``, ``ior``, ``lrs`` and ``ars``; NaN where a run that a score takes is missing."""
    mean, table = rows["top1_mean"], [tuple(one) for one in rows[[*_PROTOCOL, "ipc"]].astype(object).values.tolist()]
    keys = [tuple(map(str, one)) for one in table]
    full = {key[:-1]: at for at, key in enumerate(keys) if rows["ipc"].isna().iloc[at]}
    hard = {(key, sets): at for at, (key, sets) in enumerate(zip(keys, rows["sets"], strict=True))
            if sets and rows["labels"].iloc[at] == HARD}  # fmt: skip
    random = {(key, labels): at for at, (key, labels, method) in enumerate(
        zip(keys, rows["labels"], rows["method"], strict=True)) if method in baselines()}  # fmt: skip
    hlr, ior = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for at, (key, sets, labels) in enumerate(zip(keys, rows["sets"], rows["labels"], strict=True)):
        if pd.isna(rows["ipc"].iloc[at]) or rows["base"].iloc[at] in baselines():
            continue
        if (one := full.get(key[:-1])) is not None and (other := hard.get((key, sets))) is not None:
            hlr[at] = mean.iloc[one] - mean.iloc[other]
        if (one := random.get((key, labels))) is not None and _same_labels(rows, at, one):
            ior[at] = mean.iloc[at] - mean.iloc[one]
    recipes = list(zip(rows["dataset"], rows["recipe"], rows["ipc"].astype(str), rows["student"], rows["method"],
                       rows["labels"], rows["suite"], strict=True))  # fmt: skip
    plain = {recipe: ior[at] for at, recipe in enumerate(recipes) if recipe[1] and not rows["augmented"].iloc[at]}
    without = np.array([plain.get(recipe, np.nan) if augmented else np.nan
                        for recipe, augmented in zip(recipes, rows["augmented"], strict=True)])  # fmt: skip
    return rows.assign(hlr=hlr, ior=ior, lrs=label_robust(hlr, ior), ars=augmentation_robust(ior, without))


def _same_labels(rows: pd.DataFrame, one: int, other: int) -> bool:
    """Tell whether two rows of the same label choice have labels of the same model.

    With other settings of its own, a label model has the same name on random images.
    """
    a, b = rows.iloc[one], rows.iloc[other]
    return bool(a["labels"] == HARD or a["labellers"] & b["labellers"] or a["changed"] == b["changed"])
