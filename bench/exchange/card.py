"""The card of an exported set: ``README.md`` as the Hugging Face Hub reads it (text: ``card.md.j2``)."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData

from bench.exchange.distilled_set import SetManifest
from bench.format import accuracy, code, escape, markdown_table
from bench.store.cell import canonical

# the Hub's categories: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_COLUMNS = ("protocol", "student", "labels", "top-1", "n")


def card(facts: SetManifest, results: pd.DataFrame | None) -> str:
    """Render the card of a set; the same for the same set and numbers.

    Args:
        results: of students that learned from the set (:mod:`bench.report.results`); None: there are none.
    """
    title = f"{facts.data.title} distilled by {facts.title}, {facts.ipc} per class"
    count, arxiv = facts.ipc * len(facts.classes), re.findall(r"\b(\d{4}\.\d{4,5})\b", facts.paper)
    data = DatasetCardData(
        pretty_name=title,
        license="unknown",
        task_categories=["image-classification"],
        size_categories=[next((name for limit, name in _SIZES if count < limit), "1M<n<10M")],
        tags=["dataset-distillation", "dataset-condensation", "distill-bench", facts.method,
              *(f"arxiv:{number}" for number in arxiv)],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}],
    )  # fmt: skip
    named = [one for one in facts.classes if one.name is not None]
    made = DatasetCard.from_template(
        data, template_path=str(Path(__file__).with_name("card.md.j2")), facts=facts, title=title, count=count,
        arxiv=arxiv, named=named, table=_table(results), escape=escape, code=code, canonical=canonical,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", str(made)).rstrip() + "\n"


def _table(results: pd.DataFrame | None) -> str:
    if results is None or results.empty:
        return ""
    groups = results.groupby(["protocol", "protocol_version", "student", "labels"])["top1"]
    rows = [
        (f"{protocol} v{version}", student, labels, accuracy(one.mean(), one.std() if len(one) > 1 else None), len(one))
        for (protocol, version, student, labels), one in groups
    ]
    return markdown_table(
        [dict(zip(_COLUMNS, map(escape, map(str, row)), strict=True)) for row in rows], left=_COLUMNS[:3]
    )
