"""``leaderboards/published.csv``, the papers' numbers, next to measured ones.

One line per number and source; nothing in it was measured by the benchmark, and published numbers are never ranked:

- ``method``, ``variant`` (a changed method, never the one the benchmark runs under the same name), ``dataset``,
  ``ipc``, ``student`` (as ``bench list students`` names it), ``value`` and ``std`` (top-1 in percent, as printed)
- ``source``, ``source_title``, ``where``: who prints it; ``unchecked``: not compared with its source; ``note``
- ``protocol``: the source's recipe; ``runs_as`` and ``labels_as``: the benchmark's protocol and its ``--labels`` for
  it, or, where ``recipe_known`` is 0, those of the method's authors; ``can_run``: 0 where the benchmark can't do it
- ``labels``: stored (logits of every view in fp16, in SRe2L's files: ``label_epochs`` of batches of
  ``label_batch_size``, ``label_index``: with image numbers, ``label_prune``: one batch in so many is kept) or online (a
  model of ``label_parameters`` in fp32); ``label_bytes``: what that makes; ``label_assumed``: the source leaves open
  what that rests on
- ``storage``: what the source prints as storage, ``printed_bytes``: the same in bytes; ``storage_convention``: what it
  counts; ``binary_units``: MB are MiB

Papers report the best epoch on the test set; the benchmark's headline is the last epoch.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.api import catalogue, registry
from bench.errors import UserError
from bench.format import NONE, escape, markdown_table, percent, plain, points, size, superscript, unbroken
from bench.planning.label_choices import parse
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report.rows import records

FILE = Path(__file__).parents[3] / "leaderboards" / "published.csv"  # a wheel puts it beside `bench`, too
SETTING = ["method", "variant", "dataset", "ipc", "student"]  # what two sources can disagree about
_COUNTS = ("ipc", "unchecked", "recipe_known", "can_run", "label_bytes", "label_assumed", "printed_bytes")
_MEASURED = ["labels", "protocol", "protocol_version", "n", "top1_mean", "top1_std", "top1_low", "top1_high",
             "oracle_mean", "label_bytes"]  # fmt: skip
NOTES = f"""\
† Printed by others: the best epoch on the test set, as papers report it. Where sources disagree, each has its line; ?:
not compared with its source. **Measured**: here, under the same recipe: mean ± standard deviation (sets) of the last
epoch. **Δ**: measured − published in points, with the 95 % interval of what was measured; ‡: the source's recipe is not
known. **Label bytes**: computed from the source's recipe (SRe2L's files of stored logits; of a model its parameters in
fp32, without the frozen backbone it stands on); ≈: the source leaves open what that rests on; {NONE}: it does not say
enough. **Storage it prints**: in the source's own terms."""


@cache
def load() -> pd.DataFrame:
    """Load every published number in the order of the file, ``printed`` as text.

    Raises:
        UserError: the file is not there.
    """
    try:
        frame = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    except OSError:
        raise UserError(f"{FILE} is not there; expected beside the benchmark's packages: install it again") from None
    frame["printed"] = frame["value"] + ("±" + frame["std"]).where(frame["std"] != "", "")
    types = dict.fromkeys(_COUNTS, "Int64") | {"value": "float64", "std": "float64"}
    return frame.assign(**frame[list(types)].apply(pd.to_numeric)).astype(types)


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Pool numbers to one row per setting and value, whoever prints it; that with a standard deviation stands for all.

    ``source``, ``source_title``, ``storage``, ``note`` and ``protocol`` become tuples of all.
    """
    place = [*SETTING, "value", "label_bytes"]
    known = frame.groupby(place[:-1])["label_bytes"].transform("first")
    frame = frame.assign(label_bytes=frame["label_bytes"].fillna(known)).sort_values("std", key=pd.isna, kind="stable")
    said = ("source", "source_title", "storage", "note", "protocol")
    how: dict[str, Any] = {name: "first" for name in frame if name not in place}
    how |= {name: lambda own: tuple(dict.fromkeys(filter(None, own))) for name in said}
    how |= {"unchecked": "min", "label_assumed": "max", "recipe_known": "max"}
    return frame.groupby(place, dropna=False, sort=False).agg(how).reset_index().sort_values(place, ignore_index=True)


def beside(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Join published :func:`numbers` with the measured row to compare each with (``measured_…``; NaN: none).

    Only rows under a paper's own recipe, because another one moves accuracy by more than most methods do; of several
    the newest version's, then the largest.
    """
    found, place = numbers(frame), ["method", "dataset", "ipc", "student"]
    own = [board_labels(*one) for one in found[["method", "labels_as"]].itertuples(index=False)]
    found = found.assign(at=found.index, measured_labels=pd.Series(own, dtype="str"))
    official = rows["protocol"].map(lambda one: one.startswith(OFFICIAL) and unchanged(one) == one).astype(bool)
    ours = rows.loc[official & (rows["n"] > 0) & rows["ipc"].notna(), [*place, *_MEASURED]]
    ours = ours.rename(columns={name: f"measured_{name}" for name in _MEASURED}).astype({"measured_n": "Int64"})
    both = found[found["variant"] == ""].merge(ours, on=[*place, "measured_labels"])
    fits = [one.measured_protocol.startswith(one.runs_as) for one in both.itertuples()]
    both = both[np.array(fits, bool)].sort_values(["measured_protocol_version", "measured_n"]).set_index("at")
    names = [name for name in ours if name not in found]
    found = found.join(both.loc[~both.index.duplicated(keep="last"), names])
    return found.assign(delta=100 * found["measured_top1_mean"].astype("float64") - found["value"])


@cache
def board_labels(method: str, choice: str) -> str | None:
    """Board's word for the labels of a choice; None for a method that is no plug-in."""
    if method not in registry.method_names():
        return None
    info = registry.method(method).info
    return parse(choice, info).title(info.labels)


def texts(one: Any) -> tuple[str, str, str, str]:
    """``46.8 ± 0.2`` (printed), ``45.1 ± 0.2 (3)`` (measured: mean, deviation, sets), Δ with interval, label bytes."""
    printed = unbroken(one.printed.replace("±", " ± ")) + ("?" if one.unchecked else "")
    weight = NONE if one.label_bytes is None else unbroken("≈ " * bool(one.label_assumed) + size(one.label_bytes))
    if one.delta is None:
        return printed, NONE, NONE, weight
    spread = "" if one.measured_top1_std is None else unbroken(f" ± {percent(one.measured_top1_std)}")
    delta = points(one.delta / 100)
    if one.measured_top1_low is not None:
        low, high = (points(end - one.value / 100) for end in (one.measured_top1_low, one.measured_top1_high))
        delta += f" ({low} to {high})"
    delta += "" if one.recipe_known else " ‡"
    return printed, f"{percent(one.measured_top1_mean)}{spread} ({one.measured_n})", delta, weight


def render(dataset: str, rows: pd.DataFrame) -> str:
    """Markdown block of the published numbers on a data set, next to measured rows; empty where there are none."""
    frame = load()
    frame = frame[frame["dataset"] == dataset]
    if frame.empty:
        return ""
    default = catalogue.dataset(dataset).student if dataset in catalogue.names() else ""
    found = beside(frame, rows)
    order = ["other", "student", "ipc", "method"]
    found = found.assign(other=found["student"] != default).sort_values(order, kind="stable")
    notes = {note: at for at, note in enumerate(dict.fromkeys(filter(None, frame["note"])), 1)}
    titles = dict(zip(frame["source"], frame["source_title"], strict=True))
    titles |= {name: registry.method(name).info.title for name in registry.method_names()}
    lines = []
    for one in records(found):
        printed, measured, delta, weight = texts(one)
        lines.append({
            "Method": escape(titles.get(one.method, one.method) + (f", {one.variant}" if one.variant else "")),
            "Student": escape(one.student),
            "IPC": NONE if one.ipc is None else str(one.ipc),
            "Top-1 % †": printed + " ".join(superscript(at) for at in sorted(notes[note] for note in one.note)),
            "Measured": measured,
            "Δ": delta,
            "Label bytes": weight,
            "Storage it prints": escape(plain("; ".join(one.storage))),
            "Printed by": escape(", ".join(one.source_title)),
        })  # fmt: skip
    legend = [f"- {superscript(at)} {escape(note)}." for note, at in notes.items()]
    for one in frame.drop_duplicates("source").itertuples():
        counts = f" Counts as storage: {escape(one.storage_convention)}." if one.storage_convention else ""
        legend.append(f"- {escape(one.source_title)}: {escape(one.where)}.{counts}")
    table = markdown_table(lines, ("Method", "Student", "Storage it prints", "Printed by"), rare=("Measured", "Δ"))
    return "\n\n".join(["## Published numbers †", table, NOTES, "\n".join(legend)])
