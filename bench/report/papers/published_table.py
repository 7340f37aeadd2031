"""Published numbers as text: the table on a board, and its cells."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.api import catalogue, registry
from bench.format import NONE, escape, markdown_table, percent, plain, points, size, superscript, unbroken
from bench.report.papers.published import beside, load
from bench.report.rows import records

NOTES = f"""\
† Printed by others: the best epoch on the test set, as papers report it. Where sources disagree, each has its line; ?:
not compared with its source. **Measured**: here, under the same recipe: mean ± standard deviation (sets) of the last
epoch. **Δ**: measured − published in points, with the 95 % interval of what was measured; ‡: the source's recipe is not
known. **Label bytes**: computed from the source's recipe (SRe2L's files of stored logits; of a model its parameters in
fp32, without the frozen backbone it stands on); ≈: the source leaves open what that rests on; {NONE}: it does not say
enough. **Storage it prints**: in the source's own terms."""


def printed_text(one: Any) -> str:
    """``46.8 ± 0.2``, ``27.0?`` where it was not compared with its source."""
    value, _, std = str(one.printed).partition("±")
    return value + (unbroken(f" ± {std}") if std else "") + ("?" if one.unchecked else "")


def label_text(one: Any) -> str:
    """``5.7 GiB``, or ``≈ 3.1 MiB`` where the source leaves open what it rests on."""
    if one.label_bytes is None:
        return NONE
    return unbroken(("≈ " if one.label_assumed else "") + size(one.label_bytes))


def measured_text(one: Any) -> str:
    """``45.1 ± 0.2 (3)``: mean, standard deviation and number of distilled sets."""
    if one.measured_top1_mean is None:
        return NONE
    spread = "" if one.measured_top1_std is None else unbroken(f" ± {percent(one.measured_top1_std)}")
    return f"{percent(one.measured_top1_mean)}{spread} ({one.measured_n})"


def delta_text(one: Any) -> str:
    """``+0.4 (-0.1 to +0.9)``; ‡ where the source's recipe is not known to be the one that was measured."""
    if one.delta is None:
        return NONE
    interval = ""
    if one.measured_top1_low is not None:
        low, high = (bound - one.value / 100 for bound in (one.measured_top1_low, one.measured_top1_high))
        interval = f" ({points(low)} to {points(high)})"
    return f"{points(one.delta / 100)}{interval}{'' if one.known else ' ‡'}"


def render(dataset: str, rows: pd.DataFrame) -> str:
    """Markdown block of the published numbers on a data set, beside measured rows; empty where there are none."""
    frame = load()
    frame = frame[frame["dataset"] == dataset]
    if frame.empty:
        return ""
    found = beside(frame, rows)
    default = catalogue.dataset(dataset).student if dataset in catalogue.names() else ""
    found = found.assign(other=found["student"] != default)
    found = found.sort_values(["other", "student", "ipc", "method"], kind="stable")
    notes = {note: at for at, note in enumerate(dict.fromkeys(note for note in frame["note"] if note), 1)}
    titles = {name: registry.method(name).info.title for name in registry.method_names()}
    titles = dict(zip(frame["source"], frame["source_title"], strict=True)) | titles
    lines = [_line(one, notes, titles) for one in records(found)]
    legend = [f"- {superscript(at)} {escape(note)}." for note, at in notes.items()]
    for one in frame.drop_duplicates("source").itertuples():
        counts = f" Counts as storage: {escape(one.storage_convention)}." if one.storage_convention else ""
        legend.append(f"- {escape(one.source_title)}: {escape(one.where)}.{counts}")
    table = markdown_table(lines, ("Method", "Student", "Storage it prints", "Printed by"), rare=("Measured", "Δ"))
    return "\n\n".join(["## Published numbers †", table, NOTES, "\n".join(legend)])


def _line(one: Any, notes: dict[str, int], titles: dict[str, str]) -> dict[str, str]:
    marks = sorted(notes[note] for note in one.notes)
    return {
        "Method": escape(titles.get(one.method, one.method) + (f", {one.variant}" if one.variant else "")),
        "Student": escape(one.student),
        "IPC": str(one.ipc),
        "Top-1 % †": f"{printed_text(one)}{' '.join(map(superscript, marks))}",
        "Measured": measured_text(one),
        "Δ": delta_text(one),
        "Label bytes": label_text(one),
        "Storage it prints": escape(plain("; ".join(one.storages))),
        "Printed by": escape(", ".join(one.sources)),
    }
