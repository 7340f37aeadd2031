"""The card of an exported set: ``README.md`` with the YAML header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from bench.exchange.distilled_set import SetManifest
from bench.format import NONE, accuracy, code, escape
from bench.store.cell import canonical

_MOST_NAMED = 200  # classes in the card; the manifest has all
_ARXIV = re.compile(r"\b(\d{4}\.\d{4,5})\b")
# the Hub's categories: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Measured(NamedTuple):
    """Test accuracies of students (fractions) that learned from a set in one way."""

    protocol: str
    version: int
    student: str
    labels: str
    top1: tuple[float, ...]


def card(facts: SetManifest, measured: Sequence[Measured]) -> str:
    """The text of ``README.md``; the same for the same set and numbers."""
    title = f"{facts.data.title} distilled by {facts.title}, {facts.ipc} a class"
    count = facts.ipc * len(facts.classes)
    parts = [
        _header(title, facts, count),
        f"# {escape(title)}\n",
        f"{count:,} images of {facts.side} × {facts.side} px in {len(facts.classes)} classes, {facts.ipc} in each: a "
        f"distilled stand-in for the training set of {escape(facts.data.title)}.\n",
        _made(facts),
        _labels(facts),
        _numbers(measured),
        _classes(facts),
        "## Use\n",
        "```python\nfrom datasets import load_dataset\n\n"
        'images = load_dataset("imagefolder", data_dir="train", split="train")  # or this folder\'s name on the Hub\n'
        "```\n",
        "`bench import DIR` takes the folder into a distill-bench store, which trains and tests students on it. "
        "`manifest.json` holds the size and SHA-256 of every file.\n",
        _citation(facts),
    ]
    return "\n".join(part for part in parts if part)


def _header(title: str, facts: SetManifest, count: int) -> str:
    size = next((name for limit, name in _SIZES if count < limit), "1M<n<10M")
    tags = ["dataset-distillation", "dataset-condensation", "distill-bench", facts.method]
    tags += [f"arxiv:{number}" for number in _ARXIV.findall(facts.paper)]
    lines = [
        "---",
        f"pretty_name: {json.dumps(title)}",  # a JSON string is a YAML string, whatever is in it
        "license: unknown",
        "task_categories:\n- image-classification",
        f"size_categories:\n- {size}",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in tags),
        'configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "train/**"',
        "---\n",
    ]
    return "\n".join(lines)


def _made(facts: SetManifest) -> str:
    paper = f" ({escape(facts.paper)})" if facts.paper else ""
    settings = canonical(facts.settings)
    return (
        "## How it was made\n\n"
        f"By {escape(facts.title)}{paper} in distill-bench, as cell {code(facts.cell)}. What decided it: "
        f"{code(settings)}.\n\nThe licence of the images it was made from holds for them; none is stated here.\n"
    )


def _labels(facts: SetManifest) -> str:
    labels = facts.labels
    if labels is None:
        return "Labels: the class of each image alone, by its folder.\n"
    where = ""
    if labels.schedule is not None:
        where = (
            f", for the views that protocol {code(labels.protocol or '')} shows to student seed {labels.student_seed}"
        )
    return f"Soft labels lie in `labels/` as safetensors (kind {code(labels.kind)}{where}).\n"


def _numbers(measured: Sequence[Measured]) -> str:
    if not measured:
        return "## How good it is\n\nNo student was measured.\n"
    lines = [
        "## How good it is\n",
        "Test accuracy of students trained from scratch on these images alone, after the last epoch, in percent: mean "
        "± sample standard deviation over n students.\n",
        "| protocol | student | labels | top-1 | n |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for one in measured:
        mean, spread = fmean(one.top1), stdev(one.top1) if len(one.top1) > 1 else None
        names = " | ".join(escape(text) or NONE for text in (f"{one.protocol} v{one.version}", one.student, one.labels))
        lines.append(f"| {names} | {accuracy(mean, spread)} | {len(one.top1)} |")
    return "\n".join(lines) + "\n"


def _classes(facts: SetManifest) -> str:
    known = [one for one in facts.classes if one.name is not None]
    if not known:
        return ""
    shown = ", ".join(f"{one.index} {escape(one.name or '')}" for one in known[:_MOST_NAMED])
    more = f", and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return f"## Classes\n\n{shown}{more}.\n"


def _citation(facts: SetManifest) -> str:
    numbers = _ARXIV.findall(facts.paper)
    if not numbers:
        return f"## Citation\n\n{escape(facts.paper)}\n" if facts.paper else ""
    entries = [
        f"@misc{{arxiv{number},\n  title = {{{{{facts.title}}}}},\n  eprint = {{{number}}},\n"
        f"  archivePrefix = {{arXiv}},\n  url = {{https://arxiv.org/abs/{number}}}\n}}"
        for number in numbers
    ]
    return "## Citation\n\n```bibtex\n" + "\n\n".join(entries) + "\n```\n"
